// What the client takes of a page's main thread: `RECSYS_INGEST_BIN=… npm run measure`.
//
// 1,000 elements are observed and scrolled past while 100 events a second are tracked, against the
// same page with the same scrolling and no client. Prints figures and asserts none: machines differ.
// Tasks are timed by the clock, so other work of the machine that interrupts them counts; beside that
// stands the time that the thread itself was computing.
import { Service, Site, cannotBrowse, eventually } from './harness.js';

const SECONDS = 20, ELEMENTS = 1000, EVENTS_A_SECOND = 100;

/** Builds the page, scrolls through it, and calls `track` for each event, if there is one. */
async function shop({ seconds, elements, eventsASecond, isTracked }) {
  const long = [];
  new PerformanceObserver(list => long.push(...list.getEntries().map(entry => entry.duration)))
    .observe({ entryTypes: ['longtask'] });
  for (let n = 0; n < elements; n++) {
    const element = document.createElement('div');
    element.style = 'height: 40px; margin-bottom: 10px';
    element.textContent = `item ${n}`;
    document.body.append(element);
    if (isTracked) ingest.observe(element, { itemId: `item ${n}`, position: n + 1, requestId: 'a list' });
  }
  let tracked = 0;
  const began = performance.now(), height = document.body.scrollHeight;
  while (performance.now() - began < seconds * 1000) {
    const elapsed = performance.now() - began;
    scrollTo(0, height * (elapsed / (seconds * 1000)));
    if (isTracked) for (; tracked < elapsed * eventsASecond / 1000; tracked++) ingest.click(`item ${tracked % elements}`);
    await new Promise(done => setTimeout(done, 50));
  }
  return { tracked, longest: Math.max(0, ...long), dropped: isTracked ? told.dropped.length : 0 };
}

if (cannotBrowse) {
  console.log(`not measured: ${cannotBrowse}`);
  process.exit(1);
}
const service = await Service.start(), site = await Site.start();
try {
  const key = service.publishKey(site.origin, '--no-limits');
  await eventually('the origin to be let in', async () => {
    const preflight = { method: 'OPTIONS', headers: { origin: site.origin, 'access-control-request-method': 'POST' } };
    return (await fetch(`${service.url}/v1/interactions`, preflight)).headers.has('access-control-allow-origin');
  });
  const shares = { true: [], false: [] };
  for (const isTracked of [false, true, false, true, false, true]) {
    const page = await site.open(await site.profile(), { url: service.url, key });
    await page.setViewport({ width: 800, height: 800 });
    const session = await page.createCDPSession();
    await session.send('Performance.enable');
    const busy = async () => {
      const { metrics } = await session.send('Performance.getMetrics');
      return ['TaskDuration', 'ThreadTime'].map(name => metrics.find(metric => metric.name === name).value);
    };
    const before = await busy(), began = performance.now();
    const seen = await page.evaluate(shop, { seconds: SECONDS, elements: ELEMENTS, eventsASecond: EVENTS_A_SECOND, isTracked });
    const after = await busy(), seconds = (performance.now() - began) / 1000;
    const [share, computing] = after.map((time, which) => (time - before[which]) / seconds);
    shares[isTracked].push([share, computing]);
    console.log(`${isTracked ? 'tracked' : 'without'}: main thread busy ${(100 * share).toFixed(2)} % (computing ${(100 * computing).toFixed(2)} %), ${seen.tracked} events, ` +
      `${seen.dropped} dropped, longest task ${seen.longest ? `${seen.longest.toFixed(0)} ms` : 'below 50 ms'}`);
    await page.close();
  }
  const median = (all, which) => all.map(one => one[which]).toSorted((a, b) => a - b)[1];
  const taken = which => `${(100 * (median(shares.true, which) - median(shares.false, which))).toFixed(2)} %`;
  console.log(`the client takes ${taken(0)} of the main thread, ${taken(1)} computing (asked: at most 2 %, and no task over 50 ms)`);
} finally {
  await site.end();
  await service.end();
}
