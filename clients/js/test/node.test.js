// Promise: the client works where there is no page, does nothing when it is imported, and a bundle
// holds only what it uses.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { build } from 'esbuild';
import { Service, cannot } from './harness.js';

test('importing it touches nothing', () => {
  const script = `
    const before = Object.keys(globalThis).length;
    for (const name of ['document', 'window', 'localStorage', 'IntersectionObserver', 'fetch', 'setTimeout']) {
      Object.defineProperty(globalThis, name, { get() { throw new Error(name + ' was used'); }, configurable: true });
    }
    const all = await import('./dist/index.js');
    if (typeof all.createIngest !== 'function') throw new Error('no createIngest');
  `;
  execFileSync(process.execPath, ['--input-type=module', '-e', script], { cwd: new URL('..', import.meta.url) });
});

test('a bundle of the core holds neither storage nor observer', async () => {
  const bundle = async source => {
    const made = await build({
      stdin: { contents: source, resolveDir: new URL('../src', import.meta.url).pathname }, bundle: true, minify: true, format: 'esm', write: false, logLevel: 'error',
    });
    return made.outputFiles[0].text;
  };
  const core = await bundle("import { createIngest } from './core.js'; createIngest({ url: 'u', key: 'k' });");
  assert.ok(!/IntersectionObserver|localStorage/.test(core));
  const unused = await bundle("import './index.js';");
  assert.equal(unused.trim(), '');
});

test('the package holds what it should', () => {
  const [made] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json'], { encoding: 'utf8', cwd: new URL('..', import.meta.url) }));
  assert.deepEqual(made.files.map(file => file.path).sort(), [
    'README.md', 'dist/core.js', 'dist/index.js', 'dist/ingest.min.js', 'package.json', 'src/api.d.ts', 'src/core.d.ts', 'src/core.js',
    'src/index.d.ts', 'src/index.js', 'src/observe.js', 'src/persist.js',
  ]);
});

test('a server posts exposures and interactions, through an outage', { skip: cannot }, async context => {
  const service = await Service.start();
  context.after(() => service.end());
  const { createIngest } = await import('../dist/index.js');
  const errors = [];
  const ingest = createIngest({ url: service.url, key: service.env.INGEST_API_KEY, flushMs: 50, onError: error => errors.push(error) });
  ingest.exposure({ requestId: 'r1', surface: 'home', userId: 'ada', items: [{ itemId: 'node/a', rank: 1, score: 0.5 }] });
  for (let n = 0; n < 100; n++) ingest.click(`node/${n}`, { user_id: 'ada' });
  await ingest.flush();
  await service.stop();
  for (let n = 100; n < 200; n++) ingest.click(`node/${n}`, { user_id: 'ada' });
  await ingest.flush();
  assert.ok(errors.length > 0);
  await service.begin();
  await service.stored('node/', 200);
  await ingest.close();
  const [row] = service.rows('SELECT surface, user_key, response FROM exposure_events');
  assert.equal(row.surface, 'home');
  assert.deepEqual(row.response.items, [{ item_id: 'node/a', rank: 1, score: 0.5 }]);
  assert.deepEqual(service.rows('SELECT DISTINCT user_key FROM interaction_events').map(other => other.user_key), [row.user_key]);

  // What the types say is what the service says.
  const file = join(mkdtempSync(join(tmpdir(), 'ingest-js')), 'api.d.ts');
  execFileSync(process.execPath, ['types.js', service.url, file], { cwd: new URL('..', import.meta.url) });
  assert.equal(readFileSync(file, 'utf8'), readFileSync(new URL('../src/api.d.ts', import.meta.url), 'utf8'), 'run types.js');
});
