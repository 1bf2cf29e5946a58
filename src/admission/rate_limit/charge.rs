//! What one request is charged: events and bytes, on all buckets at once or on none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::gcra::{Bucket, Rate};
use super::guess::Counted;

/// Which limit: the tenant, the key or the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All keys of one tenant together.
    Tenant,
    /// One API key.
    Key,
    /// One client address.
    Address,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Events.
    Events,
    /// Bytes of bodies, after decompression.
    Bytes,
}

/// The rates of one scope. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of events.
    pub events: Option<Rate>,
    /// Of bytes.
    pub bytes: Option<Rate>,
}

/// What a request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Events.
    pub events: u64,
    /// Bytes, after decompression.
    pub bytes: u64,
}

/// The buckets of one key.
#[derive(Debug, Default)]
pub struct Buckets(Mutex<State>);

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) events: Bucket,
    pub(crate) bytes: Bucket,
    /// The last body that had too many events: its announced bytes, and its events. While the bucket
    /// has no room for that number of events, bodies of that size are refused before they are read.
    refused: Option<(u64, u64)>,
    /// The last body that was counted, taken or not.
    counted: Option<Counted>,
}

/// The limits that one request is under. No bucket is empty of rates.
#[derive(Debug, Default)]
pub struct Charges(Vec<Charge>);

/// One scope's limit on a request.
#[derive(Debug)]
struct Charge {
    scope: Scope,
    rates: Rates,
    buckets: Arc<Buckets>,
}

/// A limit has no room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Whose limit.
    pub scope: Scope,
    /// What is limited.
    pub unit: Unit,
    /// The limit.
    pub rate: Rate,
    /// What the request has of it, or is taken to have before it is read.
    pub units: u64,
    /// The time until there is room.
    pub wait: Duration,
}

/// The state of one limit, for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Whose limit.
    pub scope: Scope,
    /// What is limited.
    pub unit: Unit,
    /// The limit.
    pub rate: Rate,
    /// Units that may come now.
    pub left: u64,
    /// The time until a whole burst may come.
    pub full_in: Duration,
}

impl Rates {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_none() && self.bytes.is_none()
    }
}

impl Buckets {
    pub(crate) fn lock(&self, rates: Rates, now: u64) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.events.set(rates.events, now);
        state.bytes.set(rates.bytes, now);
        state
    }

    /// Whether dropping the buckets would make no difference.
    pub(crate) fn are_full(&self, now: u64) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.events.full_in(now) == 0 && state.bytes.full_in(now) == 0
    }
}

impl State {
    /// The limit that a body would exceed, and for how long; of two the one that lasts longer.
    fn exceeded(&self, rates: Rates, cost: Cost, now: u64) -> Option<(Unit, Rate, u64)> {
        let events = (
            Unit::Events,
            rates.events,
            self.events.wait(cost.events, now),
        );
        let bytes = (Unit::Bytes, rates.bytes, self.bytes.wait(cost.bytes, now));
        [events, bytes]
            .into_iter()
            .filter_map(|(unit, rate, wait)| Some((unit, rate?, wait)))
            .filter(|(_, _, wait)| *wait > 0)
            .max_by_key(|(_, _, wait)| *wait)
    }

    /// An estimate of the events in a body, from its announced bytes and the last refused body. A
    /// body of less than half of that one's size is taken to have one.
    fn events_of(&self, announced: u64) -> u64 {
        match self.refused {
            Some((bytes, events)) if announced >= bytes.div_ceil(2) => {
                (u128::from(announced) * u128::from(events) / u128::from(bytes.max(1)))
                    .try_into()
                    .unwrap_or(u64::MAX)
            }
            _ => 1,
        }
    }

    /// What a body probably costs, from its length before decompression, and its bytes after it where
    /// they are known.
    fn likely(&self, length: Option<u64>, bytes: Option<u64>) -> Cost {
        let guess = |of: fn(Counted, Option<u64>) -> u64| {
            self.counted.map_or(1, |counted| of(counted, length)).max(1)
        };
        Cost {
            events: guess(Counted::events_in),
            bytes: bytes.unwrap_or_else(|| guess(Counted::bytes_in)),
        }
    }
}

impl Charges {
    /// Puts a request under a scope's limits. Scopes are added in the order of [`Scope`]: that is
    /// the order in which their locks are taken.
    pub fn add(&mut self, scope: Scope, rates: Rates, buckets: Arc<Buckets>) {
        self.0.push(Charge {
            scope,
            rates,
            buckets,
        });
    }

    /// Whether the request is under no limit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks, before a body is read, whether there is no room for the least that it can hold. `length`
    /// is that of the body as it comes, `bytes` after decompression, each where it is known. Takes
    /// nothing.
    ///
    /// # Errors
    /// [`Exceeded`], for the limit that lasts longest, until there is room for what the body probably
    /// holds: after the wait for one event a body of several would be refused again.
    pub fn look(&self, length: Option<u64>, bytes: Option<u64>, now: u64) -> Result<(), Exceeded> {
        let mut longest = None;
        for charge in &self.0 {
            let state = charge.buckets.lock(charge.rates, now);
            let least = Cost {
                events: state.events_of(length.unwrap_or(0)).max(1),
                bytes: bytes.unwrap_or(0).max(1),
            };
            charge.keep_longest(&state, least, now, &mut longest);
        }
        if longest.is_none() {
            return Ok(());
        }
        for charge in &self.0 {
            let state = charge.buckets.lock(charge.rates, now);
            let likely = state.likely(length, bytes);
            charge.keep_longest(&state, likely, now, &mut longest);
        }
        longest.map_or(Ok(()), Err)
    }

    /// Takes what a request costs from each bucket, or nothing from any. Returns the state of each
    /// limit after it.
    ///
    /// # Errors
    /// [`Exceeded`], for the limit that lasts longest.
    pub fn take(
        &self,
        cost: Cost,
        announced: Option<u64>,
        now: u64,
    ) -> Result<Vec<Reading>, Exceeded> {
        let mut states: Vec<_> = self
            .0
            .iter()
            .map(|charge| charge.buckets.lock(charge.rates, now))
            .collect();
        let mut longest = None;
        for (charge, state) in self.0.iter().zip(&mut states) {
            charge.keep_longest(state, cost, now, &mut longest);
            state.counted = Some(Counted {
                length: announced.unwrap_or(cost.bytes),
                events: cost.events,
                bytes: cost.bytes,
            });
            if let Some(announced) = announced
                && state.events.wait(cost.events, now) > 0
            {
                state.refused = Some((announced, cost.events));
            }
        }
        if let Some(exceeded) = longest {
            return Err(exceeded);
        }
        let mut readings = Vec::new();
        for (charge, state) in self.0.iter().zip(&mut states) {
            state.events.take(cost.events, now);
            state.bytes.take(cost.bytes, now);
            readings.extend(charge.readings(state, now));
        }
        Ok(readings)
    }

    /// Gives back what was taken for a request that was refused for another reason.
    pub fn give_back(&self, cost: Cost, now: u64) {
        for charge in &self.0 {
            let mut state = charge.buckets.lock(charge.rates, now);
            state.events.give_back(cost.events);
            state.bytes.give_back(cost.bytes);
        }
    }

    /// The state of each limit.
    #[must_use]
    pub fn readings(&self, now: u64) -> Vec<Reading> {
        let mut readings = Vec::new();
        for charge in &self.0 {
            let state = charge.buckets.lock(charge.rates, now);
            readings.extend(charge.readings(&state, now));
        }
        readings
    }
}

impl Charge {
    fn readings(&self, state: &State, now: u64) -> impl Iterator<Item = Reading> + use<> {
        let scope = self.scope;
        let units = [
            (Unit::Events, self.rates.events, state.events),
            (Unit::Bytes, self.rates.bytes, state.bytes),
        ];
        units.into_iter().filter_map(move |(unit, rate, bucket)| {
            Some(Reading {
                scope,
                unit,
                rate: rate?,
                left: bucket.left(now),
                full_in: Duration::from_nanos(bucket.full_in(now)),
            })
        })
    }

    fn keep_longest(&self, state: &State, cost: Cost, now: u64, longest: &mut Option<Exceeded>) {
        let Some((unit, rate, wait)) = state.exceeded(self.rates, cost, now) else {
            return;
        };
        let wait = Duration::from_nanos(wait);
        if longest.is_none_or(|longest| longest.wait < wait) {
            *longest = Some(Exceeded {
                scope: self.scope,
                unit,
                rate,
                units: match unit {
                    Unit::Events => cost.events,
                    Unit::Bytes => cost.bytes,
                },
                wait,
            });
        }
    }
}

impl Scope {
    /// The scope's name in answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Key => "key",
            Self::Address => "address",
        }
    }
}

impl Unit {
    /// The unit's name in answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Bytes => "bytes",
        }
    }
}

#[cfg(test)]
mod tests;
