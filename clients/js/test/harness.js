// The real service, its PostgreSQL, and a real Chromium.
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import puppeteer from 'puppeteer-core';

const here = dirname(fileURLToPath(import.meta.url));
export const program = process.env.RECSYS_INGEST_BIN;
const chromium = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']
  .find(path => path && existsSync(path));

/** Why the tests cannot run, for `skip`; false if they can. */
export const cannot = !program && 'RECSYS_INGEST_BIN names no recsys-ingest to test with';
export const cannotBrowse = cannot || (!chromium && 'there is no Chromium');

export const sleep = milliseconds => new Promise(done => setTimeout(done, milliseconds));

export async function eventually(what, holds) {
  for (const end = Date.now() + Number(process.env.PATIENCE ?? 120_000); ; await sleep(50)) {
    const seen = await holds();
    if (seen === true) return;
    if (Date.now() > end) throw new Error(`waited in vain for ${what}: ${JSON.stringify(seen)}`);
  }
}

async function freePort() {
  const server = createServer();
  await new Promise(done => server.listen(0, '127.0.0.1', done));
  const { port } = server.address();
  await new Promise(done => server.close(done));
  return port;
}

/** `recsys-ingest dev`. */
export class Service {
  static async start() {
    const service = new Service();
    service.parent = mkdtempSync(join(tmpdir(), 'ingest-js'));
    chmodSync(service.parent, 0o755);
    service.dir = join(service.parent, 'data');
    service.port = await freePort();
    service.url = `http://127.0.0.1:${service.port}`;
    await service.begin();
    return service;
  }

  async begin() {
    const file = join(this.dir, 'dev.env');
    rmSync(file, { force: true });
    this.run = spawn(program, ['dev', '--data-dir', this.dir, '--listen', `127.0.0.1:${this.port}`, '--log-level', 'warn'],
      { stdio: ['ignore', 'ignore', 'inherit'] });
    this.ended = new Promise(done => this.run.on('exit', done));
    await eventually('the service', async () => existsSync(file) && (await fetch(`${this.url}/readyz`).catch(() => 0)).ok === true);
    this.env = Object.fromEntries(readFileSync(file, 'utf8').trim().split('\n').map(line => {
      const [name, ...value] = line.replace(/^export /, '').split('=');
      return [name, value.join('=').replace(/^['"]|['"]$/g, '')];
    }));
  }

  async stop() {
    if (!this.run) return;
    this.run.kill('SIGTERM');
    await this.ended;
    this.run = undefined;
  }

  /** Stops it for good. */
  async end() {
    await this.stop();
    rmSync(this.parent, { recursive: true, force: true });
  }

  command(...args) {
    return execFileSync(program, args, { encoding: 'utf8', env: { ...process.env, ...this.env } });
  }

  /** A key for pages of an origin. */
  publishKey(origin, ...more) {
    return JSON.parse(this.command('keys', 'create', 'demo', '--role', 'publish', '--origin', origin, '--json', ...more)).secret;
  }

  /** The rows of a statement, as objects. */
  rows(sql) {
    const text = execFileSync(this.env.INGEST_PSQL, [this.env.DATABASE_URL, '-Atc',
      `SELECT coalesce(json_agg(r), '[]') FROM (${sql}) r`], { encoding: 'utf8' });
    return JSON.parse(text);
  }

  /** Waits until the items with a prefix are in the table: this many, each once. */
  async stored(prefix, items) {
    const sql = `SELECT count(*) AS rows, count(DISTINCT item_id) AS items FROM interaction_events WHERE item_id ^@ '${prefix}'`;
    await eventually(`${items} items ${prefix}`, () => {
      const [seen] = this.rows(sql);
      return (seen.rows === items && seen.items === items) || seen;
    });
  }
}

/** A website with the built client, and a browser. */
export class Site {
  static async start() {
    const site = new Site();
    site.server = createServer((request, response) => {
      const path = request.url.split('?')[0];
      if (path.startsWith('/dist/')) {
        response.setHeader('content-type', 'text/javascript');
        response.end(readFileSync(join(here, '..', path)));
      } else {
        response.setHeader('content-type', 'text/html');
        response.end('<!doctype html><title>shop</title><body>');
      }
    });
    await new Promise(done => site.server.listen(0, '127.0.0.1', done));
    site.origin = `http://127.0.0.1:${site.server.address().port}`;
    site.browser = await puppeteer.launch({
      executablePath: chromium, args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'],
    });
    return site;
  }

  async end() {
    await this.browser.close();
    this.server.close();
  }

  /** A new profile: storage of its own. */
  async profile() {
    return this.browser.createBrowserContext();
  }

  /** A page with `ingest`, made with these options, and what it was told in `told`. */
  async open(profile, options, before) {
    const page = await profile.newPage();
    if (before) await page.evaluateOnNewDocument(before);
    await this.load(page, options);
    return page;
  }

  async load(page, options) {
    await page.goto(`${this.origin}/`);
    await page.evaluate(async given => {
      const { createIngest } = await import('/dist/index.js');
      window.told = { dropped: [], verdicts: [], errors: [] };
      window.ingest = createIngest({
        ...given, onDrop: events => told.dropped.push(events),
        onVerdict: (event, verdict) => told.verdicts.push([event.item_id, verdict.code]),
        onError: error => told.errors.push([error.status, error.code, error.message]),
      });
    }, options);
  }
}
