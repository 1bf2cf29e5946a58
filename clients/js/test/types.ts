// What compiles and what does not; checked by `tsc --strict`.
import { createIngest, type Ingest, type Verdict } from 'recsys-ingest';

const ingest: Ingest = createIngest({
  url: 'https://ingest.example', key: 'k', flushAt: 10, flushMs: 1, persist: false, consent: true, gpc: true,
  onDrop: (events: number) => events, onVerdict: (event, verdict: Verdict) => [event.event_id, verdict.code],
  onError: error => error.status,
});
ingest.impressions({ items: ['a', { itemId: 'b', position: 2 }], requestId: 'r', surface: 'home' });
ingest.view('a');
ingest.click('a', { position: 1, meta: { any: [1] } });
ingest.click({ itemId: 'a', requestId: 'r' });
ingest.addToCart('a', { value: 2.5 });
ingest.purchase({ items: [{ itemId: 'a', quantity: 2, price: 3 }], orderId: 'o', currency: 'EUR', value: 6 });
ingest.exposure({ requestId: 'r', surface: 'home', items: [{ itemId: 'a', rank: 1, reason: 'x' }], segment: 's' });
const stop: () => void = ingest.observe(document.body, { itemId: 'a', position: 1, requestId: 'r' });
ingest.identify('u');
ingest.reset();
ingest.consent(false);
const flushed: Promise<void> = ingest.flush();
void [stop, flushed, ingest.close()];

// @ts-expect-error a key is needed
createIngest({ url: 'https://ingest.example' });
// @ts-expect-error an item is needed
ingest.click();
// @ts-expect-error positions are numbers
ingest.click('a', { position: 'first' });
// @ts-expect-error a purchase has items
ingest.purchase({ orderId: 'o' });
// @ts-expect-error a number of milliseconds
createIngest({ url: 'https://ingest.example', key: 'k', flushMs: '1' });
