import type { components } from './api.js';

type Native = components['schemas']['Interaction'];
/** What an event may carry beside the fields of its method. */
export type More = Pick<Native, 'surface' | 'segment' | 'user_id' | 'anonymous_id' | 'session_id'> & {
  meta?: Record<string, unknown>;
};

export interface Item {
  itemId: string;
  /** Place in the list, from 1. */
  position?: number;
}

export interface Shown extends Item, More {
  /** The request of the list; without it, that of the list in which the item was last shown. */
  requestId?: string;
  value?: number;
}

export interface Bought {
  itemId: string;
  quantity?: number;
  price?: number;
  /** Instead of price × quantity. */
  value?: number;
  requestId?: string;
}

export interface Verdict {
  /** Place in the body. */
  index: number;
  code: string;
  field?: string;
  message?: string;
}

export interface Store {
  all(): [id: string, text: string][];
  /** One of them; nothing if it is not there any more. */
  read(id: string): string | null | undefined;
  put(id: string, text: string): unknown;
  remove(ids: string[]): void;
  get(name: string): any;
  set(name: string, value: unknown): void;
  forget(): void;
  /** The page may end: what was put is to be safe now. */
  save?(): void;
  alone<T>(run: () => Promise<T>): Promise<T>;
}

export interface CoreOptions {
  /** Where the service is, such as https://ingest.example. */
  url: string;
  /** A publish key in a page; an ingest key on a server. */
  key: string;
  /** Events after which they are sent at once, or a second after the request before; 20. */
  flushAt?: number;
  /** Milliseconds that an event waits for others; 2000. */
  flushMs?: number;
  /** Given as false, nothing is stored or sent until `consent(true)`, and what happened before never. */
  consent?: boolean;
  /** Honour the browser's Global Privacy Control: with it, there is no consent. */
  gpc?: boolean;
  /** Events were dropped for room; the next event says how many, in meta.events_dropped. */
  onDrop?(events: number): void;
  /** The service refused an event for good. */
  onVerdict?(event: Record<string, unknown>, verdict: Verdict): void;
  /** An attempt failed; the events are kept and sent again. */
  onError?(error: Error & { status?: number; code?: string }): void;
  store?: Store;
}

export interface CoreIngest {
  /** A list, or a part of it, was seen. Later events of its items belong to its request. */
  impressions(list: { items: (string | Item)[]; requestId?: string } & More): void;
  view(item: string | Shown, more?: Omit<Shown, 'itemId'>): void;
  click(item: string | Shown, more?: Omit<Shown, 'itemId'>): void;
  addToCart(item: string | Shown, more?: Omit<Shown, 'itemId'>): void;
  purchase(order: {
    items: Bought[]; orderId?: string; currency?: string; value?: number; requestId?: string;
  } & More): void;
  /** A list was served. For servers: a publish key may not. */
  exposure(list: {
    requestId: string; surface: string;
    items: ({ itemId: string; rank?: number; score?: number } & Record<string, unknown>)[];
    userId?: string; anonymousId?: string; sessionId?: string;
  } & Record<string, unknown>): void;
  /** Events from now on are of this user. */
  identify(userId: string): void;
  /** Forgets the user, the visitor, the lists and what waits. */
  reset(): void;
  /** Gives consent, or takes it back; the latter forgets as `reset` does. */
  consent(given: boolean): void;
  /** Sends what waits; settles when it was sent, or an attempt failed. */
  flush(): Promise<void>;
  /** Sends what waits and ends. */
  close(): Promise<void>;
  /** Events that wait. */
  readonly waiting: number;
}

export function createIngest(options: CoreOptions): CoreIngest;
export function memory(): Store;
/** A UUID of version 7. */
export function uuid(now?: number): string;
export const MOST_EVENTS: number;
export const MOST_BYTES: number;
