// Promise: the client works where there is no page, does nothing when it is imported, and a bundle
// holds only what it uses.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { createServer, request as forward } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { build } from 'esbuild';
import { Service, cannot, eventually, sleep } from './harness.js';

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

test('ids are UUIDs of version 7 in order, with and without a secure page', async context => {
  const { uuid } = await import('../src/core.js');
  const own = Object.getOwnPropertyDescriptor(Crypto.prototype, 'randomUUID');
  context.after(() => Object.defineProperty(Crypto.prototype, 'randomUUID', own));
  for (const secure of [true, false]) {
    if (!secure) Object.defineProperty(Crypto.prototype, 'randomUUID', { value: undefined, configurable: true });
    const all = Array.from({ length: 1000 }, () => uuid(1_700_000_000_000));
    for (const id of all) assert.match(id, /^018bcfe5-6800-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.equal(new Set(all).size, 1000);
    assert.deepEqual(all.toSorted(), all);
  }
});

test('beyond the bounds what waits is not read again for each event', async () => {
  const { createIngest, memory } = await import('../src/core.js');
  const store = memory(), all = store.all;
  let reads = 0, dropped = 0;
  store.all = () => (reads++, all());
  // Nothing listens there.
  const ingest = createIngest({ url: 'http://127.0.0.1:1', key: 'k', store, onDrop: events => { dropped += events; } });
  for (let n = 0; n < 3000; n++) ingest.click(`item ${n}`);
  assert.equal(dropped, 2500);
  assert.ok(reads < 50, `${reads} times`);
  const texts = all().map(([, text]) => JSON.parse(text.slice(1)));
  assert.equal(texts.length, 500);
  assert.deepEqual(texts.map(event => event.item_id), Array.from({ length: 500 }, (_, n) => `item ${n + 2500}`));
  ingest.reset();
  await ingest.close();
});

test('storage that has room for some keeps those, and memory the others', async context => {
  const { persistence } = await import('../src/persist.js');
  const values = new Map();
  let room = 500;
  globalThis.localStorage = {
    getItem: name => values.get(name) ?? null,
    setItem(name, value) {
      const others = [...values].reduce((sum, [other, text]) => sum + (other === name ? 0 : text.length), 0);
      if (others + value.length > room) throw new DOMException('full', 'QuotaExceededError');
      values.set(name, value);
    },
    removeItem: name => values.delete(name),
    key: at => [...values.keys()][at] ?? null,
    get length() { return values.size; },
  };
  context.after(() => {
    delete globalThis.localStorage;
  });
  const store = persistence('k'), ids = Array.from({ length: 20 }, (_, n) => `00000000-0000-7000-8000-0000000000${n + 10}`);
  const there = made => made.all().map(([id, text]) => `${id} ${text}`).sort();
  for (const id of ids) store.put(id, `i{"event_id":"${id}"}`);
  store.save();
  const all = ids.map(id => `${id} i{"event_id":"${id}"}`);
  assert.deepEqual(there(store), all);
  // Five find room, of 88 letters each with their line breaks; another page sees those alone.
  const kept = there(persistence('k')).length;
  assert.ok(kept >= 4 && kept < 6, `${kept}`);
  assert.ok([...values.values()].every(text => text.length <= room));
  // Where there is no room even for what is left of an entry, memory has it.
  room = 0;
  store.remove(ids.slice(0, 2));
  assert.deepEqual(there(store), all.slice(2));
  store.save();
  assert.deepEqual(there(store), all.slice(2));
  for (const id of ids.slice(2)) assert.equal(store.read(id), `i{"event_id":"${id}"}`);
  store.remove(ids);
  store.save();
  assert.deepEqual(there(store), []);
  assert.equal(values.size, 0);
  store.put(ids[0], 'i{}');
  store.forget();
  store.save();
  assert.deepEqual(there(store), []);
});

test('an element counts when its own second is over, whatever was seen before it', async context => {
  const { observer } = await import('../src/observe.js');
  let tell;
  const stopped = [], seen = [];
  globalThis.IntersectionObserver = class {
    constructor(callback) { tell = (target, intersectionRatio) => callback([{ target, intersectionRatio }]); }
    observe() {}
    unobserve(element) { stopped.push(element); }
  };
  globalThis.document = { visibilityState: 'visible' };
  context.after(() => {
    delete globalThis.IntersectionObserver;
    delete globalThis.document;
  });
  const observe = observer({ impressions: ({ items }) => seen.push(...items.map(item => item.itemId)) });
  const [a, b, c] = ['a', 'b', 'c'].map(itemId => {
    const element = { itemId };
    observe(element, { itemId });
    return element;
  });
  stopped.length = 0;
  const began = performance.now(), until = time => sleep(began + time - performance.now());
  tell(a, 1);
  await until(500);
  tell(b, 0.5);
  tell(c, 0.5);
  await until(1100);
  assert.deepEqual(seen, []);
  await until(1500);
  // It may have gone when it was looked at the last time.
  tell(c, 0.4);
  await until(2150);
  assert.deepEqual([...seen].sort(), ['a', 'b']);
  assert.deepEqual(stopped, [a, b]);
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

test('what a service does not take holds back nothing else, and each refusal is told', { skip: cannot }, async context => {
  const service = await Service.start();
  context.after(() => service.end());
  const { createIngest } = await import('../dist/index.js');
  const client = more => createIngest({ url: service.url, key: service.env.INGEST_API_KEY, flushAt: 1000, flushMs: 50, ...more });

  // More refusals than an answer lists in full, to a listener that is broken.
  const verdicts = [], log = console.error;
  console.error = () => {};
  const refused = client({
    onVerdict(event, verdict) {
      verdicts.push([event.item_id, verdict.code]);
      if (verdicts.length % 2) throw new Error('a mistake of the page');
    },
  });
  for (let n = 0; n < 300; n++) refused.click(`told/${n}`, n % 3 ? { value: 'much' } : {});
  refused.purchase({ items: [] });
  await refused.close();
  console.error = log;
  await service.stored('told/', 100);
  assert.deepEqual(verdicts.map(([item]) => item).sort(),
    [undefined, ...Array.from({ length: 300 }, (_, n) => n).filter(n => n % 3).map(n => `told/${n}`)].sort());
  assert.ok(verdicts.every(([, code]) => code));
  assert.equal(refused.waiting, 0);

  // A key that may not post exposures.
  const errors = [];
  const page = client({ key: service.env.INGEST_PUBLISH_KEY, onError: error => errors.push(error.code) });
  page.exposure({ requestId: 'r1', surface: 'home', items: [{ itemId: 'a' }] });
  for (let n = 0; n < 20; n++) page.click(`beside/${n}`);
  await page.flush();
  await service.stored('beside/', 20);
  assert.equal(errors[0], 'role_not_allowed');
  assert.equal(page.waiting, 1);

  // A purchase keeps what it says of its order, which is one also where its items are several events.
  const shop = client();
  shop.purchase({ items: [{ itemId: 'order/a', price: 2 }, { itemId: 'order/b', price: 3, requestId: 'r' }], currency: 'EUR', value: 4.5 });
  await shop.close();
  await service.stored('order/', 2);
  const orders = service.rows("SELECT DISTINCT meta -> 'order' AS made FROM interaction_events WHERE item_id ^@ 'order/'");
  assert.equal(orders.length, 1);
  assert.deepEqual([orders[0].made.value, orders[0].made.currency], [4.5, 'EUR']);
});

test('a server attributes to a user what that user was shown', { skip: cannot }, async context => {
  const service = await Service.start();
  context.after(() => service.end());
  const { createIngest } = await import('../dist/index.js');
  const ingest = createIngest({ url: service.url, key: service.env.INGEST_API_KEY });
  ingest.impressions({ items: ['users/a', 'users/b'], requestId: 'list-of-ada', user_id: 'ada' });
  ingest.impressions({ items: ['users/a'], requestId: 'list-of-bob', user_id: 'bob' });
  ingest.impressions({ items: ['users/c'], requestId: 'list-of-all' });
  ingest.click('users/a', { user_id: 'ada', position: 1 });
  ingest.click('users/a', { user_id: 'bob', position: 2 });
  ingest.click('users/b', { user_id: 'bob', position: 3 });
  ingest.click('users/c', { user_id: 'bob', position: 4 });
  ingest.purchase({ items: [{ itemId: 'users/b', position: 5 }], user_id: 'ada' });
  await ingest.close();
  const rows = () => service.rows(`SELECT position, meta ->> 'request_id' AS list FROM interaction_events
    WHERE item_id ^@ 'users/' AND event_type <> 'impression' ORDER BY position`);
  await eventually('the rows', () => rows().length === 5 || rows());
  assert.deepEqual(rows().map(row => row.list), ['list-of-ada', 'list-of-bob', null, 'list-of-all', 'list-of-ada']);
});

test('a request that hangs ends, and no answer makes a client hurry', { skip: cannot }, async context => {
  const service = await Service.start();
  context.after(() => service.end());
  // A proxy that says nothing, or asks for a pause, and then forwards.
  let answers, asked = 0;
  const proxy = createServer((received, response) => {
    asked++;
    const pause = answers();
    if (pause === undefined) return;
    if (pause) return response.writeHead(503, { 'Retry-After': pause }).end('busy');
    const { method, headers, url } = received;
    received.pipe(forward(service.url + url, { method, headers }, answer => answer.pipe(response.writeHead(answer.statusCode, answer.headers))));
  });
  await new Promise(done => proxy.listen(0, '127.0.0.1', done));
  context.after(() => (proxy.closeAllConnections(), proxy.close()));
  const { createIngest } = await import('../dist/index.js');
  const client = errors => createIngest({
    url: `http://127.0.0.1:${proxy.address().port}`, key: service.env.INGEST_API_KEY, flushMs: 20, onError: error => errors.push(error),
  });

  const timeout = AbortSignal.timeout;
  context.after(() => (AbortSignal.timeout = timeout));
  AbortSignal.timeout = () => timeout.call(AbortSignal, asked ? 30_000 : 200);
  const errors = [];
  answers = () => (asked > 1 ? '' : undefined);
  const patient = client(errors);
  patient.click('hang/a');
  await service.stored('hang/', 1);
  assert.equal(errors[0].name, 'TimeoutError');
  AbortSignal.timeout = timeout;

  for (const pause of ['99999999', new Date(Date.now() + 3_600_000).toUTCString()]) {
    asked = 0;
    answers = () => pause;
    const waits = client([]);
    waits.click('pause/a');
    await waits.flush();
    await sleep(1500);
    assert.equal(asked, 1, pause);
    assert.equal(waits.waiting, 1);
  }
});
