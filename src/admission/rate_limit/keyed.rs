//! Buckets by key: a tenant's id, an API key's id, a client's address.
//!
//! Invariant: at most `max` keys are held, and a key that has not been seen for a while is dropped
//! once its buckets are full, when it makes no difference. Past `max`, the older half of the keys is
//! dropped in one step, with what they have spent: a flood of addresses takes bounded memory and
//! constant time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::charge::Buckets;

/// How often idle keys are looked for, in ns.
const SWEEP_EVERY: u64 = 60_000_000_000;

/// The buckets of many keys.
#[derive(Debug)]
pub struct Keyed<K> {
    generations: Mutex<Generations<K>>,
    half: usize,
}

/// Keys that were seen since the last sweep, and those that were not.
#[derive(Debug)]
struct Generations<K> {
    young: HashMap<K, Arc<Buckets>>,
    old: HashMap<K, Arc<Buckets>>,
    swept_at: u64,
}

impl<K: Eq + Hash> Keyed<K> {
    /// Buckets of at most `max` keys.
    pub fn new(max: usize) -> Self {
        Self {
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                old: HashMap::new(),
                swept_at: 0,
            }),
            half: (max / 2).max(1),
        }
    }

    fn generations(&self) -> MutexGuard<'_, Generations<K>> {
        let generations = &self.generations;
        generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The buckets of `key`, full if it is new. `now` is in ns from a fixed start.
    pub(crate) fn of(&self, key: K, now: u64) -> Arc<Buckets> {
        let mut generations = self.generations();
        let Generations {
            young,
            old,
            swept_at,
        } = &mut *generations;
        if let Some(found) = young.get(&key) {
            return Arc::clone(found);
        }
        if young.len() >= self.half {
            *old = std::mem::take(young);
        } else if now.saturating_sub(*swept_at) >= SWEEP_EVERY {
            *swept_at = now;
            old.retain(|_, buckets| !buckets.are_full(now));
            if old.len() + young.len() > self.half {
                *old = std::mem::take(young);
            } else {
                old.extend(young.drain());
            }
        }
        let buckets = old.remove(&key).unwrap_or_default();
        young.insert(key, Arc::clone(&buckets));
        buckets
    }

    /// Keys that are held.
    #[cfg(test)]
    fn len(&self) -> usize {
        let generations = self.generations();
        generations.young.len() + generations.old.len()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::super::charge::Rates;
    use super::super::gcra::Rate;
    use super::*;

    fn rates() -> Rates {
        let one = NonZeroU32::new(1).unwrap();
        Rates {
            events: Some(Rate {
                per_second: one,
                burst: NonZeroU32::new(1000).unwrap(),
            }),
            bytes: None,
        }
    }

    #[test]
    fn a_flood_of_keys_is_bounded_and_the_ones_in_use_stay() {
        let keyed = Keyed::new(1000);
        for n in 0..100_000_u32 {
            keyed.of(n, 0);
            let busy = keyed.of(u32::MAX, 0);
            if n == 0 {
                busy.lock(rates(), 0).events.take(1000, 0);
            }
            assert!(keyed.len() <= 1000);
        }
        let busy = keyed.of(u32::MAX, 0);
        assert_eq!(busy.lock(rates(), 0).events.left(0), 0);
    }

    #[test]
    fn an_idle_key_is_dropped_once_it_is_full() {
        let keyed = Keyed::new(1000);
        keyed.of(1, 0);
        let spent = keyed.of(2, 0);
        spent.lock(rates(), 0).events.take(500, 0);
        for minute in 1..5_u32 {
            keyed.of(10 + minute, u64::from(minute) * SWEEP_EVERY);
        }
        let now = 4 * SWEEP_EVERY;
        assert!(Arc::ptr_eq(&keyed.of(2, now), &spent), "it has a debt");
        for minute in 5..20_u32 {
            keyed.of(10 + minute, u64::from(minute) * SWEEP_EVERY);
        }
        assert!(keyed.len() <= 3, "{}", keyed.len());
    }
}
