// Writes src/api.d.ts from the document of a running service: `node types.js URL [FILE]`.
import { writeFile } from 'node:fs/promises';
import openapi, { astToString } from 'openapi-typescript';

const [url, file = 'src/api.d.ts'] = process.argv.slice(2);
const document = await (await fetch(`${url}/openapi.json`)).json();
const all = document.components.schemas, kept = {};
const keep = name => {
  if (kept[name]) return;
  kept[name] = all[name];
  for (const [, other] of JSON.stringify(all[name]).matchAll(/#\/components\/schemas\/(\w+)/g)) keep(other);
};
for (const name of ['Exposure', 'Interaction', 'RejectedEvent']) keep(name);
const sorted = Object.fromEntries(Object.entries(kept).sort());
const text = astToString(await openapi({ ...document, paths: {}, components: { schemas: sorted } }));
await writeFile(file, `// Generated from the service's description by types.js.\n\n${text}`);
