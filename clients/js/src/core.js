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
/** A request that hangs would keep all tabs from sending. */
const MOST_TIME = 2 * HALF_MINUTE;
/** What a service may ask for; timers of browsers overflow after 24 days. */
const MOST_PAUSE = 120 * HALF_MINUTE;
/** While more is tracked than leaves, what other tabs did is looked up once in so long. */
const LOOK_EVERY = 1000;
/** A page that tracks much sends no more often than this, except by `flush`: each request costs it time. */
const SEND_EVERY = 1000;
/** A session goes on from its last event, as noted this often. */
const NOTE_EVERY = 10_000;

let last = 0, count = 0;

/**
 * A UUID of version 7 (RFC 9562): its time, a counter within the millisecond, and chance. Those of
 * one page sort in the order in which they were made.
 */
export function uuid(now = Date.now()) {
  if (now !== last) count = (Math.random() * 1024) | 0;
  last = now;
  const hex = now.toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-${(0x7000 + (count++ & 4095)).toString(16)}-${chance()}`;
}

/** The second half of a UUID. The browser's own ones are quick, and only secure pages have them. */
function chance() {
  if (crypto.randomUUID) return crypto.randomUUID().slice(19);
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  bytes[0] = (bytes[0] & 63) | 0x80;
  return Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('').replace(/^..../, '$&-');
}

/** Keeps what waits, by id, and a few values; this one in memory. */
export function memory() {
  const waiting = new Map(), values = new Map();
  return {
    all: () => [...waiting],
    read: id => waiting.get(id),
    put: (id, text) => (waiting.set(id, text), true),
    remove: ids => ids.forEach(id => waiting.delete(id)),
    get: name => values.get(name),
    set: (name, value) => values.set(name, value),
    forget: () => (waiting.clear(), values.clear()),
    alone: run => run(),
  };
}

const encoder = new TextEncoder();
/** Most texts are ASCII, and those need not be encoded. */
const bytesOf = text => (/[^\0-\x7f]/.test(text) ? encoder.encode(text).length : text.length);
/** Ids begin with their time. */
const byTime = ([a], [b]) => (a < b ? -1 : 1);
const rename = ({ itemId, requestId, ...rest }) => ({ item_id: itemId, request_id: requestId, ...rest });

export function createIngest(options) {
  const {
    url, key, flushAt = 20, flushMs = 2000, consent, gpc, onDrop, onVerdict, onError, store = memory(),
  } = options;
  if (!url || !key) throw new TypeError('createIngest needs url and key');
  const page = typeof document === 'undefined' ? null : document;
  /** What a listener throws is its own affair: events neither stay nor go for it. */
  const tell = (listener, ...said) => {
    try {
      listener?.(...said);
    } catch (error) {
      console.error(error);
    }
  };
  const refused = () => gpc && typeof navigator !== 'undefined' && navigator.globalPrivacyControl === true;
  let allowed = (consent === undefined || consent === true) && !refused();
  let dropped = 0, keepalive = 0;
  // By kind: a key may post one alone, and the other is not to wait for it.
  const failures = { e: 0, i: 0 }, pausedUntil = { e: 0, i: 0 };
  let timer, timerAt = Infinity, sending, sentAt = 0, closed = false;
  /** Sizes by id, the oldest first. */
  let waiting, bytes, readAt;

  /** Reads what waits: other tabs may have put events in, or have sent ours. */
  function refresh() {
    const all = store.all().sort(byTime);
    readAt = Date.now();
    waiting = new Map();
    bytes = 0;
    for (const [id, text] of all) {
      const size = bytesOf(text);
      waiting.set(id, size);
      bytes += size;
    }
    return all;
  }

  const forget = id => {
    bytes -= waiting.get(id) ?? 0;
    waiting.delete(id);
  };

  /** Drops the oldest events beyond the bounds. */
  function makeRoom(more) {
    const over = () => waiting.size >= MOST_EVENTS || bytes + more > MOST_BYTES;
    if (!over()) return;
    // Not for each event: a page that tracks more than leaves would read all of it each time.
    if (Date.now() - readAt >= LOOK_EVERY) refresh();
    const gone = [];
    for (const id of [...waiting.keys()]) {
      if (!over()) break;
      const text = store.read(id);
      forget(id);
      // Another tab has sent it.
      if (!text) continue;
      gone.push(id);
      // What an event that goes says of others is said by the next one.
      dropped += 1 + (JSON.parse(text.slice(1)).meta?.events_dropped ?? 0);
    }
    store.remove(gone);
    if (gone.length) tell(onDrop, gone.length);
  }

  function session(now) {
    let [id, seen] = store.get('session') ?? [];
    if (!(now - seen < SESSION)) id = uuid(now);
    else if (now - seen < NOTE_EVERY) return id;
    store.set('session', [id, now]);
    return id;
  }

  function visitor() {
    let id = store.get('visitor');
    if (!id) store.set('visitor', (id = uuid()));
    return id;
  }

  /** Whose lists: a page is one visitor's, a server posts for many. */
  const whose = more => (page ? '' : more.user_id ?? more.anonymous_id ?? more.session_id ?? '');

  /** The list that an item was last shown in: `[item, request, time, who]`, the oldest first. */
  function remember(items, request, now, who) {
    const names = new Set(items);
    const lists = (store.get('lists') ?? []).filter(([item, , at, other]) => !(names.has(item) && other === who) && now - at < MEMORY_OF_LISTS);
    for (const item of names) lists.push([item, request, now, who]);
    let size = JSON.stringify(lists).length;
    while (size > 64 << 10) size -= JSON.stringify(lists.shift()).length + 1;
    store.set('lists', lists);
  }

  function shownIn(item, now, who) {
    const lists = (store.get('lists') ?? []).filter(([name, , at]) => name === item && now - at < MEMORY_OF_LISTS);
    return (lists.find(list => list[3] === who) ?? lists.find(list => !list[3]))?.[1];
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
      const draft = () => (size = bytesOf(text = kind + JSON.stringify(event)));
      // With room for how many were dropped.
      const room = draft() + 50;
      if (room > MOST_BYTES) throw new RangeError('the event is larger than what may wait');
      makeRoom(room);
      if (dropped) {
        event.meta = { ...event.meta, events_dropped: dropped };
        draft();
      }
    } catch (error) {
      tell(onError, error);
      return;
    }
    store.put(id, text);
    dropped = 0;
    waiting.set(id, size);
    bytes += size;
    wake(waiting.size >= flushAt ? 0 : flushMs, Math.max(pausedUntil[kind], sentAt + SEND_EVERY));
    return id;
  }

  function interaction(type, { itemId, requestId, ...rest }) {
    const now = Date.now();
    track('i', { event_type: type, item_id: itemId, request_id: requestId ?? shownIn(itemId, now, whose(rest)), ...rest });
  }

  const byItem = type => (item, more) => interaction(type, { ...(typeof item === 'object' ? item : { itemId: item }), ...more });

  /** Sends after this long and not before that time, if nothing is due earlier. */
  function wake(after, time = 0) {
    const at = Math.max(Date.now() + after, time);
    if (closed || at >= timerAt) return;
    clearTimeout(timer);
    timerAt = at;
    timer = setTimeout(() => {
      timerAt = Infinity;
      send(true);
    }, at - Date.now());
    // Does not keep a Node process alive.
    timer.unref?.();
  }

  const address = kind => `${url.replace(/\/+$/, '')}/v1/${kind === 'e' ? 'exposures' : 'interactions'}?key=${encodeURIComponent(key)}`;
  const body = part => `{"sent_at":"${new Date().toISOString()}","events":[${part.map(([, text]) => text.slice(1))}]}`;

  /** Cuts what waits into bodies of one kind, each at most this large. */
  function parts(all, most) {
    const made = [];
    for (const one of all) {
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

  function told(events, { rejected = [], rejected_more = [] }) {
    const verdicts = [...rejected];
    // Beyond the first hundred an answer has codes and places alone, such as "100-199,203".
    for (const { code, events: places } of rejected_more) {
      for (const place of places.split(',')) {
        const [from, to = from] = place.split('-').map(Number);
        for (let index = from; index <= to; index++) verdicts.push({ index, code });
      }
    }
    for (const verdict of verdicts) {
      const event = events[verdict.index];
      if (event) tell(onVerdict, JSON.parse(event[1].slice(1)), verdict);
    }
  }

  /** Sends one body; the pause until the next attempt if it was not taken, else 0. */
  async function post({ kind, events }, init) {
    let answer, status = 0, asked = 0;
    try {
      const response = await fetch(address(kind), {
        method: 'POST', headers: { 'Content-Type': 'text/plain' }, body: body(events), credentials: 'omit',
        signal: AbortSignal.timeout?.(MOST_TIME), ...init,
      });
      status = response.status;
      // Seconds, or a date where a proxy says so.
      const after = response.headers.get('Retry-After');
      asked = Math.min(Math.max(1000 * after || Date.parse(after) - Date.now() || 0, 0), MOST_PAUSE);
      answer = await response.json();
    } catch (error) {
      // No network, a page of a proxy, or an origin that is not allowed: a page cannot tell them apart.
      status = status >= 400 ? status : 0;
      if (!status) tell(onError, error);
    }
    if (answer && (status < 300 || (status === 422 && answer.rejected))) {
      done(events);
      told(events, answer);
      failures[kind] = pausedUntil[kind] = 0;
      return 0;
    }
    if (answer?.code && (status === 400 || status === 413)) {
      if (events.length === 1) {
        done(events);
        told(events, { rejected: [{ index: 0, code: answer.code, message: answer.detail }] });
        return 0;
      }
      const half = events.length >> 1;
      return (await post({ kind, events: events.slice(0, half) }, init)) || post({ kind, events: events.slice(half) }, init);
    }
    if (status) tell(onError, Object.assign(new Error(answer?.detail ?? `status ${status}`), { status, code: answer?.code }));
    failures[kind]++;
    return asked + Math.random() * Math.min(500 * 2 ** failures[kind], 10 * HALF_MINUTE);
  }

  /** Sends what waits, of each kind until it is not taken; `patient` leaves alone what is paused. */
  async function sendAll(patient) {
    for (let tried = ''; ;) {
      const all = parts(refresh(), MOST_BYTES);
      const first = all.find(({ kind }) => !tried.includes(kind) && !(patient && pausedUntil[kind] > Date.now()));
      if (!first || !allowed) return all.length && Math.min(...all.map(part => pausedUntil[part.kind]));
      sentAt = Date.now();
      const pause = await post(first);
      if (pause) {
        pausedUntil[first.kind] = Date.now() + pause;
        tried += first.kind;
      }
    }
  }

  function send(patient) {
    if (!allowed) return Promise.resolve();
    clearTimeout(timer);
    timerAt = Infinity;
    let next;
    sending ??= Promise.resolve(store.alone(() => sendAll(patient))).then(time => (next = time), error => tell(onError, error)).finally(() => {
      sending = undefined;
      if (waiting.size) wake(next ? 0 : flushMs, next);
    });
    return sending;
  }

  /** The page may end: what fits is handed to the browser, the rest stays where it waits. */
  function leave() {
    if (!allowed) return;
    store.save?.();
    const lasting = typeof Request !== 'undefined' && 'keepalive' in Request.prototype;
    for (const part of parts(refresh(), MOST_KEEPALIVE / 2)) {
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
  refresh();
  if (waiting.size) wake(0);

  return {
    impressions({ items, requestId, ...rest }) {
      const list = items.map((item, index) => rename(typeof item === 'object' ? item : { itemId: item, position: index + 1 }));
      if (requestId && allowed) remember(list.map(item => item.item_id), requestId, Date.now(), whose(rest));
      track('i', { event_type: 'impression', items: list, request_id: requestId, ...rest });
    },
    view: byItem('view'),
    click: byItem('click'),
    addToCart: byItem('add_to_cart'),
    purchase({ items, orderId, currency, value, requestId, ...rest }) {
      const now = Date.now(), lists = new Map();
      // An event has one list: items that were shown in several are several events.
      for (const { itemId, requestId: own, ...item } of items) {
        const list = own ?? requestId ?? shownIn(itemId, now, whose(rest));
        lists.set(list, [...(lists.get(list) ?? []), { item_id: itemId, ...item }]);
      }
      // The service says what is wrong with an order of nothing.
      if (!lists.size) lists.set(requestId, []);
      // Value and currency belong to an order, which has an id.
      const order = (orderId ?? value ?? currency) === undefined ? undefined : { id: orderId ?? uuid(), value, currency };
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
      refresh();
      dropped = 0;
    },
    consent(given) {
      allowed = given && !refused();
      if (!given) this.reset();
      else if (waiting.size) wake(0);
    },
    /** Sends what waits. Settles once it was sent, or an attempt failed: then another one is due. */
    flush: () => send().then(() => {}),
    async close() {
      if (closed) return;
      await send();
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
