//! Which events are loaded: the same ones, however they are put into bodies.

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

use crate::generate::settings::{Caller, Encoding, Format, Framing, Order, Scope, Settings, Table};

const HOUR_US: i64 = 3_600_000_000;
pub(crate) const DAY_US: i64 = 24 * HOUR_US;
/// Events begin and end so far from midnight that none falls into another day.
const MARGIN_US: i64 = 2 * HOUR_US;

/// A load before it is cut into bodies.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) seed: u64,
    pub(crate) table: Table,
    pub(crate) events: u32,
    /// The first day, in microseconds since 1970.
    pub(crate) day_us: i64,
    /// Over how many days the events go.
    pub(crate) days: u32,
    /// Who posts.
    pub(crate) caller: Caller,
    /// Tenants that the events name, where the caller may.
    pub(crate) tenants: Vec<String>,
}

impl Workload {
    /// Events of one day, all of the tenant whose key this is.
    pub(crate) fn of_one_day(seed: u64, table: Table, events: u32, day_us: i64, key: &str) -> Self {
        Self {
            seed,
            table,
            events,
            day_us,
            days: 1,
            caller: Caller {
                key: Some(key.to_owned()),
                scope: Scope::Own,
            },
            tenants: Vec::new(),
        }
    }

    /// In bodies of so many events.
    pub(crate) fn in_bodies_of(&self, body_events: u32) -> Settings {
        Settings {
            seed: self.seed,
            events: self.events,
            body_events: body_events..=body_events,
            mix: match self.table {
                Table::Exposures => (1, 0),
                Table::Interactions => (0, 1),
            },
            formats: vec![Format::Native],
            tenants: self.tenants.clone(),
            callers: vec![self.caller.clone()],
            until_us: self.day_us + i64::from(self.days) * DAY_US - MARGIN_US,
            span_us: i64::from(self.days) * DAY_US - 2 * MARGIN_US,
            order: Order::Time,
            duplicates: 0.0,
            invalid: 0.0,
            items: 100_000,
            users: 100_000,
            framing: Framing::Json,
            encoding: Encoding::None,
        }
    }
}

/// The day that `now` falls into: its partition is a hot one.
pub(crate) fn day_of(now: Timestamp) -> anyhow::Result<i64> {
    let floor = TimestampRound::new()
        .smallest(Unit::Hour)
        .increment(24)
        .mode(RoundMode::Floor);
    Ok(now.round(floor)?.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::event::Events;
    use crate::generate::plan::Plan;

    #[test]
    fn bodies_of_every_size_hold_the_same_events_of_one_day() {
        let day_us = day_of("2026-05-24T23:59:59Z".parse().unwrap()).unwrap();
        assert_eq!(day_us % DAY_US, 0);
        let load = Workload::of_one_day(3, Table::Interactions, 500, day_us, "k");
        let seen = [1, 100].map(|body| {
            let settings = load.in_bodies_of(body);
            let plan = Plan::new(&settings).unwrap();
            let mut events = Events::new(&settings, &plan);
            let mut seen = Vec::new();
            for body in 0..plan.bodies() {
                for slot in plan.slots_of(body) {
                    let event = events.event(body, slot);
                    assert!((day_us..day_us + DAY_US).contains(&event.occurred_us));
                    seen.push((event.event_id, event.occurred_us, event.request, event.item));
                }
            }
            seen
        });
        assert_eq!(seen[0], seen[1]);
    }
}
