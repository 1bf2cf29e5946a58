import type { CoreIngest, CoreOptions, Item, More, Store } from './core.js';
export type * from './core.js';
export { uuid } from './core.js';

export interface Options extends CoreOptions {
  /** Keep what waits in localStorage, for the next page; true in a page. */
  persist?: boolean;
}

export interface Ingest extends CoreIngest {
  /** Sends an impression once half of the element was visible for one second; returns how to stop. */
  observe(element: Element, item: Item & { requestId?: string } & Pick<More, 'surface'>): () => void;
}

export function createIngest(options: Options): Ingest;
export function observer(ingest: CoreIngest): Ingest['observe'];
export function persistence(key: string): Store;
