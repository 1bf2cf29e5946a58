// Serves the shop on http://127.0.0.1:8090: `node example/serve.js`, with INGEST_URL and SHOP_KEY set.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname } from 'node:path';

const root = new URL('..', import.meta.url);
const types = { '.html': 'text/html', '.js': 'text/javascript' };
const { INGEST_URL: url = 'http://127.0.0.1:8080', SHOP_KEY: key, PORT = 8090 } = process.env;
if (!key) throw new Error('set SHOP_KEY to a publish key whose origins have http://127.0.0.1:8090');

createServer(async (request, response) => {
  if (request.url === '/') return response.writeHead(302, { location: '/example/shop.html' }).end();
  const path = request.url.split('?')[0];
  try {
    if (path.endsWith('/config.json')) {
      response.setHeader('content-type', 'application/json');
      return response.end(JSON.stringify({ url, key }));
    }
    if (!/^\/(example|dist)\/[\w.]+$/.test(path)) throw new Error('no such file');
    const text = await readFile(new URL(`.${path}`, root));
    response.setHeader('content-type', types[extname(path)] ?? 'text/plain');
    response.end(text);
  } catch {
    response.statusCode = 404;
    response.end();
  }
}).listen(Number(PORT), '127.0.0.1', () => console.log(`http://127.0.0.1:${PORT}`));
