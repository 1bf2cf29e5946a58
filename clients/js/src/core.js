// The client without storage: what waits is in memory. No effect on import, and nothing of a
// browser is needed.

const HALF_MINUTE = 30_000;
const SESSION = 60 * HALF_MINUTE;
const MEMORY_OF_LISTS = 30 * 24 * 3_600_000;
/** At most this much waits; the oldest goes first. */
export const MOST_EVENTS = 500;
export const MOST_BYTES = 256 << 10;
/** Browsers let all keepalive requests of a page carry 64 KiB together. */
const MOST_KEEPALIVE = 50_000;

let last = 0, count = 0;

/**
 * A UUID of version 7 (RFC 9562): its time, a counter within the millisecond, and chance. Those of
 * one page sort in the order in which they were made.
 */
export function uuid(now = Date.now()) {
  if (now !== last) count = (Math.random() * 1024) | 0;
  last = now;
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  bytes[0] = (bytes[0] & 63) | 0x80;
  const chance = Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('');
  const hex = now.toString(16).padStart(12, '0') + (0x7000 + (count++ & 4095)).toString(16) + chance;
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** Keeps what waits, by id, and a few values; this one in memory. */
export function memory() {
  const waiting = new Map(), values = new Map();
  return {
    all: () => [...waiting],
    put: (id, text) => (waiting.set(id, text), true),
    remove: ids => ids.forEach(id => waiting.delete(id)),
    get: name => values.get(name),
    set: (name, value) => values.set(name, value),
    forget: () => (waiting.clear(), values.clear()),
    alone: run => run(),
  };
}

const bytesOf = text => new TextEncoder().encode(text).length;
/** Ids begin with their time. */
const byTime = ([a], [b]) => (a < b ? -1 : 1);
const rename = ({ itemId, requestId, ...rest }) => ({ item_id: itemId, request_id: requestId, ...rest });

export function createIngest(options) {
  const {
    url, key, flushAt = 20, flushMs = 2000, consent, gpc, onDrop, onVerdict, onError, store = memory(),
  } = options;
  if (!url || !key) throw new TypeError('createIngest needs url and key');
  const page = typeof document === 'undefined' ? null : document;
  const refused = () => gpc && typeof navigator !== 'undefined' && navigator.globalPrivacyControl === true;
  let allowed = (consent === undefined || consent === true) && !refused();
  let dropped = 0, failures = 0, pausedUntil = 0, keepalive = 0;
  let timer, timerAt = Infinity, sending, closed = false;
  let waiting = new Map(store.all().map(([id, text]) => [id, bytesOf(text)]));
  let bytes = sum(waiting.values());

  function sum(numbers) {
    let total = 0;
    for (const number of numbers) total += number;
    return total;
  }

  const forget = id => {
    bytes -= waiting.get(id) ?? 0;
    waiting.delete(id);
  };

  /** Drops the oldest events beyond the bounds. */
  function makeRoom(more) {
    const over = () => waiting.size >= MOST_EVENTS || bytes + more > MOST_BYTES;
    if (!over()) return;
    const gone = [];
    for (const [id, text] of store.all().sort(byTime)) {
      if (!over()) break;
      gone.push(id);
      forget(id);
      // What an event that goes says of others is said by the next one.
      dropped += 1 + (JSON.parse(text.slice(1)).meta?.events_dropped ?? 0);
    }
    store.remove(gone);
    onDrop?.(gone.length);
  }

  function session(now) {
    let [id, seen] = store.get('session') ?? [];
    if (!(now - seen < SESSION)) id = uuid(now);
    store.set('session', [id, now]);
    return id;
  }

  function visitor() {
    let id = store.get('visitor');
    if (!id) store.set('visitor', (id = uuid()));
    return id;
  }

  /** The list that an item was last shown in: `[item, request, time]`, the oldest first. */
  function remember(items, request, now) {
    const names = new Set(items);
    let lists = (store.get('lists') ?? []).filter(([item, , at]) => !names.has(item) && now - at < MEMORY_OF_LISTS);
    for (const item of names) lists.push([item, request, now]);
    let size = JSON.stringify(lists).length;
    while (size > 64 << 10) size -= JSON.stringify(lists.shift()).length + 1;
    store.set('lists', lists);
  }

  function shownIn(item, now) {
    const found = (store.get('lists') ?? []).find(([name, , at]) => name === item && now - at < MEMORY_OF_LISTS);
    return found?.[1];
  }

  function track(kind, fields) {
    if (!allowed || closed) return;
    const now = Date.now(), id = uuid(now), user = store.get('user');
    const event = { event_id: id, occurred_at: new Date(now).toISOString(), ...fields };
    if (page || user) {
      if (user) event.user_id ??= user;
      if (page) {
        event.anonymous_id ??= visitor();
        event.session_id ??= session(now);
      }
    }
    let text, size;
    try {
      const draft = bytesOf(JSON.stringify(event)) + 50;
      if (draft > MOST_BYTES) throw new RangeError('the event is larger than what may wait');
      makeRoom(draft);
      if (dropped) event.meta = { ...event.meta, events_dropped: dropped };
      text = kind + JSON.stringify(event);
      size = bytesOf(text);
    } catch (error) {
      onError?.(error);
      return;
    }
    store.put(id, text);
    dropped = 0;
    waiting.set(id, size);
    bytes += size;
    wake(waiting.size >= flushAt ? 0 : flushMs);
    return id;
  }

  function interaction(type, { itemId, requestId, ...rest }) {
    const now = Date.now();
    track('i', { event_type: type, item_id: itemId, request_id: requestId ?? shownIn(itemId, now), ...rest });
  }

  const byItem = type => (item, more) => interaction(type, { ...(typeof item === 'object' ? item : { itemId: item }), ...more });

  /** Sends after this long, if nothing is due before. */
  function wake(after) {
    const at = Math.max(Date.now() + after, pausedUntil);
    if (closed || at >= timerAt) return;
    clearTimeout(timer);
    timerAt = at;
    timer = setTimeout(() => {
      timerAt = Infinity;
      flush();
    }, at - Date.now());
    // Does not keep a Node process alive.
    timer.unref?.();
  }

  const address = kind => `${url.replace(/\/+$/, '')}/v1/${kind === 'e' ? 'exposures' : 'interactions'}?key=${encodeURIComponent(key)}`;
  const body = part => `{"sent_at":"${new Date().toISOString()}","events":[${part.map(([, text]) => text.slice(1))}]}`;

  /** Cuts what waits into bodies of one kind, each at most this large. */
  function parts(all, most) {
    const made = [];
    for (const one of all.sort(byTime)) {
      const size = bytesOf(one[1]), kind = one[1][0];
      let last = made.findLast(part => part.kind === kind);
      if (!last || last.bytes + size > most) made.push((last = { kind, bytes: 60, events: [] }));
      last.bytes += size;
      last.events.push(one);
    }
    return made;
  }

  function done(events) {
    const ids = events.map(([id]) => id);
    store.remove(ids);
    ids.forEach(forget);
  }

  function told(events, answer) {
    for (const verdict of answer.rejected ?? []) {
      const event = events[verdict.index];
      if (event) onVerdict?.(JSON.parse(event[1].slice(1)), verdict);
    }
  }

  /** Sends one body; the pause until the next attempt if it was not taken, else 0. */
  async function post({ kind, events }, init) {
    let answer, status = 0, asked = 0;
    try {
      const response = await fetch(address(kind), {
        method: 'POST', headers: { 'Content-Type': 'text/plain' }, body: body(events), credentials: 'omit', ...init,
      });
      status = response.status;
      asked = 1000 * Number(response.headers.get('Retry-After')) || 0;
      answer = await response.json();
    } catch (error) {
      // No network, a page of a proxy, or an origin that is not allowed: a page cannot tell them apart.
      status = status >= 400 ? status : 0;
      if (!status) onError?.(error);
    }
    if (answer && (status < 300 || (status === 422 && answer.rejected))) {
      told(events, answer);
      done(events);
      failures = 0;
      return 0;
    }
    if (answer?.code && (status === 400 || status === 413)) {
      if (events.length === 1) {
        onVerdict?.(JSON.parse(events[0][1].slice(1)), { index: 0, code: answer.code, message: answer.detail });
        done(events);
        return 0;
      }
      const half = events.length >> 1;
      return (await post({ kind, events: events.slice(0, half) }, init)) || post({ kind, events: events.slice(half) }, init);
    }
    if (status) onError?.(Object.assign(new Error(answer?.detail ?? `status ${status}`), { status, code: answer?.code }));
    failures++;
    return asked + Math.random() * Math.min(500 * 2 ** failures, 10 * HALF_MINUTE);
  }

  async function sendAll() {
    for (;;) {
      // Other tabs may have put events in, or have sent ours.
      const all = store.all();
      waiting = new Map(all.map(([id, text]) => [id, bytesOf(text)]));
      bytes = sum(waiting.values());
      const [first] = parts(all, MOST_BYTES);
      if (!first || !allowed) return;
      const pause = await post(first);
      if (pause) {
        pausedUntil = Date.now() + pause;
        return;
      }
    }
  }

  /** Sends what waits. Settles once it was sent, or an attempt failed: then another one is due. */
  function flush() {
    if (!allowed) return Promise.resolve();
    clearTimeout(timer);
    timerAt = Infinity;
    sending ??= Promise.resolve(store.alone(sendAll)).catch(error => onError?.(error)).finally(() => {
      sending = undefined;
      if (waiting.size) wake(flushMs);
    });
    return sending;
  }

  /** The page may end: what fits is handed to the browser, the rest stays where it waits. */
  function leave() {
    if (!allowed) return;
    const lasting = typeof Request !== 'undefined' && 'keepalive' in Request.prototype;
    for (const part of parts(store.all(), MOST_KEEPALIVE / 2)) {
      if (keepalive + part.bytes > MOST_KEEPALIVE) return;
      if (lasting) {
        keepalive += part.bytes;
        post(part, { keepalive: true }).finally(() => (keepalive -= part.bytes));
      } else if (!navigator.sendBeacon?.(address(part.kind), body(part.events))) {
        return;
      }
    }
  }

  const hidden = () => page.visibilityState === 'hidden' && leave();
  page?.addEventListener('visibilitychange', hidden);
  if (page) addEventListener('pagehide', leave);
  if (waiting.size) wake(0);

  return {
    impressions({ items, requestId, ...rest }) {
      const list = items.map((item, index) => rename(typeof item === 'object' ? item : { itemId: item, position: index + 1 }));
      if (requestId && allowed) remember(list.map(item => item.item_id), requestId, Date.now());
      track('i', { event_type: 'impression', items: list, request_id: requestId, ...rest });
    },
    view: byItem('view'),
    click: byItem('click'),
    addToCart: byItem('add_to_cart'),
    purchase({ items, orderId, currency, value, requestId, ...rest }) {
      const now = Date.now(), lists = new Map();
      // An event has one list: items that were shown in several are several events.
      for (const { itemId, requestId: own, ...item } of items) {
        const list = own ?? requestId ?? shownIn(itemId, now);
        lists.set(list, [...(lists.get(list) ?? []), { item_id: itemId, ...item }]);
      }
      const order = orderId === undefined ? undefined : { id: orderId, value, currency };
      for (const [list, bought] of lists) {
        track('i', { event_type: 'purchase', items: bought, request_id: list, order, ...rest });
      }
    },
    exposure({ items, requestId, userId, anonymousId, sessionId, ...rest }) {
      track('e', {
        items: items.map(rename), request_id: requestId, user_id: userId, anonymous_id: anonymousId,
        session_id: sessionId, ...rest,
      });
    },
    identify(userId) {
      if (allowed) store.set('user', userId);
    },
    /** Forgets who it was and what waits. */
    reset() {
      store.forget();
      waiting.clear();
      bytes = dropped = 0;
    },
    consent(given) {
      allowed = given && !refused();
      if (!given) this.reset();
    },
    flush,
    async close() {
      if (closed) return;
      await flush();
      closed = true;
      clearTimeout(timer);
      page?.removeEventListener('visibilitychange', hidden);
      if (page) removeEventListener('pagehide', leave);
    },
    /** Events that wait, for tests and for the curious. */
    get waiting() {
      return waiting.size;
    },
  };
}
