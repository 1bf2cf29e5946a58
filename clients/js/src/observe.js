// Impressions of what was really visible: half of the element, for one second, once.

const LONG_ENOUGH = 1000;
/** How often the browser looks at an element, where it lets one choose: at every frame, a thousand elements take a tenth of a page's time. */
const LOOK_EVERY = 400;
/** What it may have taken to notice that an element is gone. */
const SURE = LONG_ENOUGH + LOOK_EVERY;
/** Elements that are due at about the same time are one list. */
const TOGETHER = 200;

/** `observe(element, item)` for a client; one observer watches all elements. */
export function observer(ingest) {
  const items = new WeakMap(), since = new Map();
  let timer;
  const watcher = typeof IntersectionObserver === 'undefined' ? null : new IntersectionObserver(entries => {
    const now = performance.now();
    for (const { target, intersectionRatio } of entries) {
      if (intersectionRatio < 0.5) since.delete(target);
      else if (!since.has(target)) since.set(target, now);
    }
    later();
  }, { threshold: 0.5, delay: LOOK_EVERY });

  function later() {
    if (timer || !since.size) return;
    // The first one is the oldest.
    const [began] = since.values();
    timer = setTimeout(look, Math.max(began + SURE - performance.now(), TOGETHER));
  }

  function look() {
    timer = undefined;
    const now = performance.now(), lists = new Map();
    for (const [element, began] of since) {
      // A page in the background shows nothing.
      if (document.visibilityState === 'hidden') since.set(element, now);
      else if (now - began >= SURE) {
        const { requestId, surface, ...item } = items.get(element);
        const list = JSON.stringify([requestId, surface]);
        lists.set(list, [...(lists.get(list) ?? []), item]);
        since.delete(element);
        watcher.unobserve(element);
      }
    }
    for (const [list, seen] of lists) {
      const [requestId, surface] = JSON.parse(list);
      ingest.impressions({ items: seen, requestId: requestId ?? undefined, surface: surface ?? undefined });
    }
    later();
  }

  return (element, item) => {
    const stop = () => {
      since.delete(element);
      watcher?.unobserve(element);
    };
    // An element that shows another item by now is watched from the start.
    stop();
    items.set(element, item);
    watcher?.observe(element);
    return stop;
  };
}
