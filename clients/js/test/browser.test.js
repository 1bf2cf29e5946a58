// Promise: what a page tracks is stored once, whatever happens to page, network, storage and service.
// No test tracks more events than may wait: a publish key lets an address send 50 a second.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Service, Site, cannotBrowse, eventually, sleep } from './harness.js';

let service, site, key, options;

const skip = cannotBrowse;
before(async () => {
  if (skip) return;
  service = await Service.start();
  site = await Site.start();
  key = service.publishKey(site.origin);
  options = { url: service.url, key };
  // The key's list of origins is in force after a refresh.
  await eventually('the origin to be let in', async () => {
    const preflight = { method: 'OPTIONS', headers: { origin: site.origin, 'access-control-request-method': 'POST' } };
    return (await fetch(`${service.url}/v1/interactions`, preflight)).headers.has('access-control-allow-origin');
  });
});
after(async () => {
  await site?.end();
  await service?.end();
});

/** Tracks clicks on `prefix/from`, … */
const click = (page, prefix, from, to) => page.evaluate((prefix, from, to) => {
  for (let n = from; n < to; n++) ingest.click(`${prefix}/${n}`);
}, prefix, from, to);
const told = page => page.evaluate(() => told);
const rows = prefix => service.rows(`SELECT * FROM interaction_events WHERE item_id ^@ '${prefix}' ORDER BY occurred_at, event_id`);
const dropped = all => all.reduce((sum, row) => sum + (row.meta?.events_dropped ?? 0), 0);

test('every method gives the rows that it says, with the list that an item was shown in', { skip }, async () => {
  const page = await site.open(await site.profile(), options);
  await page.evaluate(async () => {
    ingest.identify('ada');
    ingest.impressions({ items: ['kinds/a', 'kinds/b'], requestId: 'list-1', surface: 'home' });
    ingest.impressions({ items: [{ itemId: 'kinds/c', position: 7 }], requestId: 'list-2' });
    ingest.click('kinds/a', { position: 1 });
    ingest.view({ itemId: 'kinds/b', requestId: 'list-9' });
    ingest.addToCart('kinds/never shown');
    ingest.purchase({
      items: [{ itemId: 'kinds/a', quantity: 2, price: 1.5 }, { itemId: 'kinds/c', value: 4 }], orderId: 'o-1', currency: 'EUR', value: 7,
    });
    await ingest.flush();
  });
  await service.stored('kinds/never', 1);
  await eventually('all rows', () => rows('kinds/').length === 8 || rows('kinds/').length);
  const all = rows('kinds/');
  const request = (type, item) => all.find(row => row.event_type === type && row.item_id === item)?.request_id;
  const list1 = request('impression', 'kinds/a'), list2 = request('impression', 'kinds/c');
  assert.equal(request('click', 'kinds/a'), list1);
  assert.equal(request('purchase', 'kinds/a'), list1);
  assert.equal(request('purchase', 'kinds/c'), list2);
  assert.equal(request('add_to_cart', 'kinds/never shown'), null);
  assert.notEqual(request('view', 'kinds/b'), list1);
  assert.deepEqual(all.filter(row => row.event_type === 'purchase').map(row => row.value).sort(), [3, 4]);
  assert.equal(new Set(all.map(row => row.user_key)).size, 1);
  assert.ok(all.every(row => row.user_key && row.session_id));
  assert.deepEqual(await told(page), { dropped: [], verdicts: [], errors: [] });
});

test('what was tracked offline is sent by the next page', { skip }, async () => {
  const profile = await site.profile();
  const page = await site.open(profile, options);
  await page.setOfflineMode(true);
  await click(page, 'offline', 0, 400);
  await page.close();
  await site.open(profile, options);
  await service.stored('offline/', 400);
});

test('beyond the bounds the oldest go, and their number arrives', { skip }, async () => {
  const profile = await site.profile();
  const page = await site.open(profile, options);
  await page.setOfflineMode(true);
  await click(page, 'bounds', 0, 1000);
  assert.equal((await told(page)).dropped.reduce((a, b) => a + b), 500);
  await page.setOfflineMode(false);
  await page.evaluate(() => ingest.flush());
  await service.stored('bounds/', 500);
  const all = rows('bounds/');
  assert.deepEqual(all.map(row => Number(row.item_id.slice(7))).sort((a, b) => a - b), Array.from({ length: 500 }, (_, n) => n + 500));
  assert.equal(dropped(all), 500);
});

for (const tabs of [2, 8]) {
  test(`${tabs} tabs store each event once`, { skip }, async () => {
    const profile = await site.profile();
    const pages = await Promise.all(Array.from({ length: tabs }, () => site.open(profile, { ...options, flushMs: 20 })));
    await Promise.all(pages.map(async (page, tab) => {
      for (let n = 0; n < 400 / tabs; n += 5) {
        await click(page, `tabs${tabs}/${tab}`, n, n + 5);
        await sleep(10);
      }
    }));
    // Half of them end at once, the others finish.
    await Promise.all(pages.slice(0, tabs / 2).map(page => page.close({ runBeforeUnload: true })));
    await service.stored(`tabs${tabs}/`, 400);
  });
}

test('a page that is left in the middle of a flush loses nothing', { skip }, async () => {
  const profile = await site.profile();
  const page = await site.open(profile, { ...options, flushMs: 5 });
  for (let n = 0; n < 100; n++) {
    await click(page, 'left', 3 * n, 3 * n + 3);
    await sleep(n % 8);
    await site.load(page, { ...options, flushMs: 5 });
  }
  await service.stored('left/', 300);
});

test('storage that is denied or full is replaced by memory', { skip }, async () => {
  const breakings = {
    denied: () => Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } }),
    full: () => {
      Storage.prototype.setItem = function () { throw new DOMException('full', 'QuotaExceededError'); };
    },
    'full later': () => {
      const set = Storage.prototype.setItem;
      let times = 0;
      Storage.prototype.setItem = function (...args) {
        if (++times > 30) throw new DOMException('full', 'QuotaExceededError');
        set.apply(this, args);
      };
    },
  };
  for (const [name, breaking] of Object.entries(breakings)) {
    const page = await site.open(await site.profile(), options, breaking);
    await click(page, `storage ${name}`, 0, 50);
    await service.stored(`storage ${name}/`, 50);
  }
});

/** Counts what is written of events, in `writes`. */
const counted = () => {
  const set = Storage.prototype.setItem;
  window.writes = 0;
  Storage.prototype.setItem = function (name, value) {
    if (name.includes(':w:')) window.writes++;
    set.call(this, name, value);
  };
};
const writes = page => page.evaluate(() => window.writes);

test('a page that tracks much writes twice a second, and not what was sent before that', { skip }, async () => {
  const profile = await site.profile();
  let page = await site.open(profile, options, counted);
  await page.setOfflineMode(true);
  const began = Date.now();
  for (let n = 0; n < 200; n += 5) {
    await click(page, 'often', n, n + 5);
    await sleep(25);
  }
  const most = 2 + (Date.now() - began) / 500;
  const seen = await writes(page);
  assert.ok(seen > 1 && seen <= most, `${seen} times, and not ${most}`);
  await page.close();
  page = await site.open(profile, options, counted);
  await service.stored('often/', 200);

  await sleep(700);
  const before = await writes(page);
  await page.evaluate(async () => {
    for (let n = 0; n < 10; n++) ingest.click(`soon/${n}`);
    await ingest.flush();
  });
  await sleep(700);
  // The first one, which was alone.
  assert.equal(await writes(page) - before, 1);
  await service.stored('soon/', 10);
  assert.ok(await page.evaluate(() => Object.keys(localStorage).every(name => !name.includes(':w:'))));
});

test('a renderer that dies loses what was tracked in the last half second alone', { skip }, async () => {
  const profile = await site.profile();
  const crash = async page => {
    const gone = new Promise(done => page.once('error', done));
    page.createCDPSession().then(session => session.send('Page.crash')).catch(() => {});
    await gone;
    await page.close();
  };
  // What is tracked after a pause is written at once.
  let page = await site.open(profile, options);
  await page.setOfflineMode(true);
  await click(page, 'dies/alone', 0, 1);
  await crash(page);
  page = await site.open(profile, options);
  await service.stored('dies/alone', 1);
  await page.setOfflineMode(true);
  await click(page, 'dies/many', 0, 100);
  await sleep(700);
  await crash(page);
  await site.open(profile, options);
  await service.stored('dies/', 101);
});

test('what a page tracks while it ends is there for the next one', { skip }, async () => {
  // Not every browser hides a page before it ends.
  const never = () => Object.defineProperty(Document.prototype, 'visibilityState', { get: () => 'visible' });
  for (const [name, before] of Object.entries({ hidden: undefined, shown: never })) {
    const page = await site.open(await site.profile(), { ...options, flushAt: 1000, flushMs: 60_000 }, before);
    await page.evaluate(name => {
      ingest.click(`ends ${name}/before`);
      addEventListener('pagehide', () => {
        ingest.click(`ends ${name}/hide/0`);
        ingest.click(`ends ${name}/hide/1`);
      });
      document.addEventListener('visibilitychange', () => ingest.click(`ends ${name}/visibility`));
    }, name);
    await site.load(page, options);
    await service.stored(`ends ${name}/`, 4);
  }
});

test('what is sent of several events that were written together is gone, and the others wait', { skip }, async () => {
  const profile = await site.profile();
  const page = await site.open(profile, { ...options, flushAt: 1000, flushMs: 60_000 });
  await page.evaluate(() => {
    ingest.click('together/first');
    for (let n = 0; n < 20; n++) {
      ingest.click(`together/${n}`);
      // A page may not post these.
      if (n % 10 === 0) ingest.exposure({ requestId: 'together', surface: 'home', items: [{ itemId: 'together' }] });
    }
  });
  await sleep(700);
  await page.evaluate(() => ingest.flush());
  await service.stored('together/', 21);
  await page.close();
  const next = await site.open(profile, options);
  assert.equal(await next.evaluate(() => ingest.waiting), 2);
  assert.deepEqual(await next.evaluate(() => Object.keys(localStorage).filter(name => name.includes(':w:')).length), 1);
});

test('a user that storage has no room for is not taken for the one before', { skip }, async () => {
  const page = await site.open(await site.profile(), options, () => {
    const set = Storage.prototype.setItem;
    Storage.prototype.setItem = function (name, value) {
      if (value.includes('bob')) throw new DOMException('full', 'QuotaExceededError');
      set.call(this, name, value);
    };
  });
  await page.evaluate(() => ingest.identify('ada'));
  await click(page, 'users/ada', 0, 1);
  await page.evaluate(() => ingest.identify('a longer name: bob'));
  await click(page, 'users/bob', 0, 1);
  await service.stored('users/', 2);
  await page.evaluate(() => ingest.identify('ada'));
  await click(page, 'users/again', 0, 1);
  await service.stored('users/', 3);
  const [ada, again, bob] = ['ada', 'again', 'bob'].map(name => rows(`users/${name}`)[0].user_key);
  assert.equal(ada, again);
  assert.notEqual(ada, bob);
});

test('a tab drops nothing for room that another tab has made', { skip }, async () => {
  const profile = await site.profile();
  const [one, other] = [await site.open(profile, options), await site.open(profile, options)];
  const idle = { ...options, flushAt: 1000, flushMs: 600_000 };
  await site.load(one, idle);
  await click(one, 'room', 0, 450);
  // The other one sends them, once they are written.
  await sleep(700);
  await other.evaluate(() => ingest.flush());
  await service.stored('room/', 450);
  await click(one, 'room', 450, 600);
  assert.deepEqual((await told(one)).dropped, []);
  await one.evaluate(() => ingest.flush());
  await service.stored('room/', 600);
});

test('what one tab forgets no other tab sends, written or not', { skip }, async () => {
  const profile = await site.profile();
  const [one, other] = [await site.open(profile, options), await site.open(profile, options)];
  await site.load(one, { ...options, flushAt: 1000, flushMs: 600_000 });
  await one.bringToFront();
  await click(one, 'forgotten', 0, 5);
  await other.evaluate(() => ingest.reset());
  await sleep(700);
  await click(one, 'later', 0, 5);
  await one.evaluate(() => ingest.flush());
  await service.stored('later/', 5);
  assert.equal(rows('forgotten/').length, 0);
});

test('without keepalive a beacon takes what a leaving page has, and what it refuses waits', { skip }, async () => {
  const profile = await site.profile();
  const old = () => {
    delete Request.prototype.keepalive;
    const beacon = navigator.sendBeacon.bind(navigator);
    window.refuse = false;
    navigator.sendBeacon = (...args) => !window.refuse && beacon(...args);
  };
  const page = await site.open(profile, { ...options, flushAt: 1000, flushMs: 60_000 }, old);
  await click(page, 'beacon', 0, 20);
  await page.close({ runBeforeUnload: true });
  await service.stored('beacon/', 20);
  const other = await site.open(await site.profile(), { ...options, flushAt: 1000, flushMs: 60_000 }, old);
  await other.evaluate(() => (window.refuse = true));
  await click(other, 'refused beacon', 0, 20);
  await site.load(other, options);
  await service.stored('refused beacon/', 20);
});

test('a service that is away, or limits, delays events and loses none', { skip }, async () => {
  const limited = service.publishKey(site.origin, '--events-per-second', '50', '--events-burst', '50');
  const page = await site.open(await site.profile(), { url: service.url, key: limited });
  for (let n = 0; n < 200; n += 40) {
    await click(page, 'limited', n, n + 40);
    await page.evaluate(() => ingest.flush());
  }
  await service.stored('limited/', 200);
  assert.ok((await told(page)).errors.some(([status, code]) => status === 429 && code), JSON.stringify(await told(page)));

  const open = await site.open(await site.profile(), options);
  await service.stop();
  await click(open, 'away', 0, 100);
  await open.evaluate(() => ingest.flush());
  await service.begin();
  await service.stored('away/', 100);
});

test('rejected events are told one by one, and a wrong key keeps events for the right one', { skip }, async () => {
  const page = await site.open(await site.profile(), options);
  await page.evaluate(() => {
    ingest.click('verdict/good');
    ingest.click('verdict/' + 'x'.repeat(2000));
    ingest.click('verdict/bad', { value: 'much' });
  });
  await service.stored('verdict/', 1);
  await eventually('the verdicts', async () => (await told(page)).verdicts.length === 2);
  assert.equal(await page.evaluate(() => ingest.waiting), 0);

  const profile = await site.profile();
  const wrong = await site.open(profile, { url: service.url, key: 'wrong' });
  await click(wrong, 'wrong', 0, 10);
  await wrong.evaluate(() => ingest.flush());
  const { errors } = await told(wrong);
  assert.deepEqual(errors[0].slice(0, 2), [401, 'invalid_api_key']);
  assert.equal(await wrong.evaluate(() => ingest.waiting), 10);
});

test('an event says by how much the clock of its page is wrong', { skip }, async () => {
  const page = await site.open(await site.profile(), options, () => {
    const now = Date.now.bind(Date);
    const Real = Date;
    window.Date = class extends Real {
      constructor(...args) { args.length ? super(...args) : super(Real.now()); }
    };
    Real.now = () => now() - 3 * 3_600_000;
    window.Date.now = Real.now;
  });
  await click(page, 'clock', 0, 1);
  await service.stored('clock/', 1);
  const [{ meta, off }] = service.rows(
    "SELECT meta, extract(epoch FROM received_at - occurred_at) AS off FROM interaction_events WHERE item_id ^@ 'clock/'");
  assert.ok(Math.abs(off - meta.skew_ms / 1000) < 60 && meta.skew_ms > 3_500_000, JSON.stringify([meta, off]));
});

test('without consent nothing is kept or sent, and what happened before it never is', { skip }, async () => {
  const gpc = () => Object.defineProperty(Navigator.prototype, 'globalPrivacyControl', { get: () => true });
  const stored = page => page.evaluate(() => Object.keys(localStorage).length);
  const profile = await site.profile();
  let page = await site.open(profile, { ...options, consent: false }, () => {
    const set = Storage.prototype.setItem;
    window.writes = 0;
    Storage.prototype.setItem = function (...args) {
      window.writes++;
      set.apply(this, args);
    };
  });
  await click(page, 'before', 0, 5);
  await page.evaluate(() => ingest.identify('ada'));
  assert.equal(await stored(page), 0);
  assert.equal(await page.evaluate(() => window.writes), 0);
  await page.evaluate(() => ingest.consent(true));
  await click(page, 'after', 0, 5);
  await service.stored('after/', 5);
  assert.ok((await stored(page)) > 0);
  await page.setOfflineMode(true);
  // What waits from a page that had consent goes once this one has it.
  await click(page, 'kept', 0, 5);
  await page.close();
  page = await site.open(profile, { ...options, consent: false });
  await sleep(300);
  assert.equal(rows('kept/').length, 0);
  await page.evaluate(() => ingest.consent(true));
  await service.stored('kept/', 5);
  await page.setOfflineMode(true);
  await click(page, 'taken back', 0, 5);
  await page.evaluate(() => ingest.consent(false));
  assert.equal(await stored(page), 0);
  await page.setOfflineMode(false);

  const shy = await site.open(await site.profile(), { ...options, gpc: true }, gpc);
  await click(shy, 'gpc', 0, 5);
  await shy.evaluate(() => ingest.consent(true));
  await click(shy, 'gpc', 5, 10);
  await shy.evaluate(() => ingest.flush());
  const open = await site.open(await site.profile(), options, gpc);
  await click(open, 'no option', 0, 5);
  await service.stored('no option/', 5);
  for (const none of ['before/', 'taken back/', 'gpc/']) assert.equal(rows(none).length, 0, none);
  assert.equal(new Set(rows('after/').map(row => row.user_key)).size, 1);
});

test('an element is seen once half of it was visible for a second', { skip }, async () => {
  const page = await site.open(await site.profile(), { ...options, flushMs: 50 });
  await page.setViewport({ width: 400, height: 400 });
  await page.evaluate(() => {
    const style = 'height: 100px; margin-bottom: 100px';
    for (let n = 0; n < 40; n++) {
      const element = document.createElement('div');
      element.style = style;
      document.body.append(element);
      ingest.observe(element, { itemId: `seen/${n}`, position: n + 1, requestId: 'seen' });
    }
  });
  await service.stored('seen/', 2);
  await page.evaluate(() => scrollTo(0, 2000));
  await sleep(300);
  // Passing by is not seeing.
  await page.evaluate(() => scrollTo(0, 7600));
  await service.stored('seen/3', 2);
  await page.evaluate(() => scrollTo(0, 0));
  await sleep(1500);
  const all = rows('seen/');
  assert.deepEqual(all.map(row => row.position).sort((a, b) => a - b), [1, 2, 39, 40]);
  assert.equal(new Set(all.map(row => row.request_id)).size, 1);

  // An element that is used for another item counts for that one, and for its whole second.
  const began = await page.evaluate(() => {
    const element = document.body.firstChild;
    ingest.observe(element, { itemId: 'reused/a' });
    return new Promise(done => setTimeout(() => {
      ingest.observe(element, { itemId: 'reused/b' });
      done(Date.now());
    }, 600));
  });
  await service.stored('reused/', 1);
  const [reused] = rows('reused/');
  assert.equal(reused.item_id, 'reused/b');
  assert.ok(Date.parse(reused.occurred_at) - began >= 900, JSON.stringify([reused, began]));
});
