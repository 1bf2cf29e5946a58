// What waits outlives the page, in localStorage. Memory takes over wherever storage is denied or full.
//
// An entry holds the events of a moment, and only shrinks once it is there, so that tabs do not overwrite
// each other. Each write costs the page's main thread as much as all else that is done for an event: what a
// busy page tracks is written together, and what was sent before that is never written.
import { memory, uuid } from './core.js';

/** A page writes no more often than this, while it can be seen; a renderer that dies loses no more than this. */
const WRITE_EVERY = 500;
/** Ids are UUIDs. */
const ID = 36;

/** A store for `createIngest`, shared by all tabs of the origin that use the same key. */
export function persistence(key) {
  const inMemory = memory();
  let storage, mark = 0;
  for (const char of key) mark = (Math.imul(mark, 31) + char.charCodeAt(0)) >>> 0;
  const prefix = `recsys-ingest:${mark.toString(36)}:`, waiting = prefix + 'w:';
  try {
    // Not tried out: nothing is written before there is consent.
    storage = localStorage;
  } catch {}
  if (!storage) return inMemory;
  const tried = (run, otherwise) => {
    try {
      return run();
    } catch {
      return otherwise?.();
    }
  };
  /** By name: what is stored, and what that means; parsed again where another tab has changed it. */
  const known = new Map();
  const parsed = (name, parse) => {
    const text = storage.getItem(name);
    let seen = known.get(name);
    if (seen?.text !== text) known.set(name, (seen = { text, value: parse(text) }));
    return seen.value;
  };
  /** The events of an entry, a line each: JSON has no line breaks. */
  const entry = name => parsed(name, text => new Map(text?.split('\n').map(line => [line.slice(0, ID), line.slice(ID)])));
  const names = start => Array.from({ length: storage.length }, (_, at) => storage.key(at)).filter(name => name?.startsWith(start));

  /** Events that are yet to be written; the entries of the others; those that are gone, and entries that still hold some. */
  const fresh = new Map(), places = new Map(), gone = new Set(), stale = new Set();
  let timer, leaving, wroteAt = -WRITE_EVERY;

  /** Writes events as one entry, or as several where there is no room for one. */
  function put(events, name = waiting + events[0][0]) {
    const text = events.map(([id, text]) => id + text).join('\n');
    if (tried(() => (storage.setItem(name, text), true))) {
      for (const [id] of events) places.set(id, name);
      return;
    }
    tried(() => storage.removeItem(name));
    if (events.length === 1) return inMemory.put(...events[0]);
    const half = events.length >> 1;
    put(events.slice(0, half));
    put(events.slice(half));
  }

  function write() {
    clearTimeout(timer);
    timer = undefined;
    for (const name of stale) {
      const left = tried(() => [...entry(name)].filter(([id]) => !gone.has(id)), () => []);
      if (left.length) put(left, name);
      else tried(() => storage.removeItem(name));
    }
    stale.clear();
    gone.clear();
    if (!fresh.size) return;
    put([...fresh]);
    fresh.clear();
    wroteAt = performance.now();
  }

  const later = () => (timer ??= setTimeout(write, WRITE_EVERY));

  const forget = () => {
    inMemory.forget();
    for (const all of [fresh, places, gone, stale]) all.clear();
  };
  // What one tab forgets is also what others are yet to write, and what they wrote that it did not see yet.
  const forgotten = prefix + 'forgotten';
  globalThis.addEventListener?.('storage', ({ key, newValue }) => {
    if (key !== forgotten || !newValue) return;
    forget();
    // What came after that is newer, as ids begin with their time.
    tried(() => names(waiting).forEach(name => name < waiting + newValue && storage.removeItem(name)));
  });

  return {
    all() {
      for (const name of known.keys()) if (name.startsWith(waiting)) known.delete(name);
      places.clear();
      const written = tried(() => names(waiting).flatMap(name => {
        const events = [...entry(name)].filter(([id]) => !gone.has(id));
        for (const [id] of events) places.set(id, name);
        return events;
      }), () => []);
      return [...written, ...fresh, ...inMemory.all()];
    },
    read: id => fresh.get(id) ?? inMemory.read(id) ?? (places.has(id) ? tried(() => entry(places.get(id)).get(id)) : undefined),
    put(id, text) {
      fresh.set(id, text);
      // Timers of pages that nobody sees are late, and those of pages that end never come.
      if (leaving || globalThis.document?.visibilityState === 'hidden' || performance.now() - wroteAt >= WRITE_EVERY) write();
      else later();
    },
    remove(ids) {
      inMemory.remove(ids);
      for (const id of ids) {
        fresh.delete(id);
        if (!places.has(id)) continue;
        stale.add(places.get(id));
        places.delete(id);
        gone.add(id);
        later();
      }
    },
    /** The page may end: what comes is written at once, as long as it does not go on after all. */
    save() {
      write();
      leaving = setTimeout(() => (leaving = 0), WRITE_EVERY);
    },
    get: name => inMemory.get(name) ?? tried(() => parsed(prefix + name, JSON.parse)),
    set(name, value) {
      const stored = tried(() => (storage.setItem(prefix + name, JSON.stringify(value)), true));
      // Where there is no room for the new value the old one would come back, such as another user.
      if (!stored) tried(() => storage.removeItem(prefix + name));
      inMemory.set(name, stored ? undefined : value);
    },
    forget() {
      forget();
      tried(() => storage.setItem(forgotten, uuid()));
      tried(() => names(prefix).forEach(name => storage.removeItem(name)));
    },
    // One tab sends; without locks each does, and what is sent twice is recognised by its id. The next one
    // is not to read what was sent.
    alone(run) {
      const whole = () => run().finally(write);
      return navigator.locks ? navigator.locks.request(prefix, whole) : whole();
    },
  };
}
