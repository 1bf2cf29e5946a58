// What waits outlives the page, in localStorage: an entry for each event, so that tabs do not
// overwrite each other. Memory takes over wherever storage is denied or full.
import { memory } from './core.js';

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
  /** By name: a value as it is stored, and parsed. */
  const known = new Map();
  const parsed = name => {
    const text = storage.getItem(prefix + name);
    let seen = known.get(name);
    if (seen?.text !== text) known.set(name, (seen = { text, value: JSON.parse(text) }));
    return seen?.value;
  };
  const names = start => Array.from({ length: storage.length }, (_, at) => storage.key(at)).filter(name => name?.startsWith(start));
  return {
    all: () => [
      ...tried(() => names(waiting).map(name => [name.slice(waiting.length), storage.getItem(name)]).filter(one => one[1]), () => []),
      ...inMemory.all(),
    ],
    read: id => inMemory.read(id) ?? tried(() => storage.getItem(waiting + id)),
    put: (id, text) => tried(() => (storage.setItem(waiting + id, text), true), () => inMemory.put(id, text)),
    remove(ids) {
      inMemory.remove(ids);
      for (const id of ids) tried(() => storage.removeItem(waiting + id));
    },
    get: name => inMemory.get(name) ?? tried(() => parsed(name)),
    set(name, value) {
      const stored = tried(() => (storage.setItem(prefix + name, JSON.stringify(value)), true));
      // Where there is no room for the new value the old one would come back, such as another user.
      if (!stored) tried(() => storage.removeItem(prefix + name));
      inMemory.set(name, stored ? undefined : value);
    },
    forget() {
      inMemory.forget();
      tried(() => names(prefix).forEach(name => storage.removeItem(name)));
    },
    // One tab sends; without locks each does, and what is sent twice is recognised by its id.
    alone: run => (navigator.locks ? navigator.locks.request(prefix, run) : run()),
  };
}
