// The whole client: what waits is kept across pages, and impressions are observed.
import { createIngest as create, uuid } from './core.js';
import { observer } from './observe.js';
import { persistence } from './persist.js';

export { observer, persistence, uuid };

export function createIngest(options) {
  const persist = options.persist ?? (typeof document !== 'undefined');
  const ingest = create(persist && !options.store ? { ...options, store: persistence(options.key) } : options);
  ingest.observe = observer(ingest);
  return ingest;
}
