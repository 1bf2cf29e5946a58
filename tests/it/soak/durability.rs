//! What waiting for the disk costs: `durable` against `received`, measured in three ways.
//!
//! A share is the rate at `durable` over the rate at `received` in the same round; the result is
//! the median of the rounds. Does not know the figures that are asked.

use std::time::Instant;

use super::{median, note, per_second};
use crate::harness::{BODY_EVENTS, Plan, Rig, Sent};

const ROUNDS: u64 = 5;
/// Bodies of one measurement. 8,000 are more than twice what fits into memory, so that the disk
/// is measured, and forty measurements take less than four minutes. In a build without
/// optimization 600 are enough to exercise the code: its figures mean nothing.
const BODIES: u64 = if cfg!(debug_assertions) { 600 } else { 8_000 };

/// Medians over the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// Share of the rate at which events are acknowledged.
    pub acknowledged: f64,
    /// Share of the rate at which rows are stored; `None` if Postgres is frozen.
    pub stored: Option<f64>,
}

/// Whether Postgres takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Postgres {
    /// It stores rows, on the same cores as the service.
    Stores,
    /// It is frozen, so only the service and the senders run.
    Frozen,
}

/// Measurements on one rig.
pub struct Durability<'a> {
    rig: &'a Rig,
    postgres: Postgres,
    /// The number of the next body.
    next: &'a mut u64,
    /// All that was sent.
    all: &'a mut Vec<Sent>,
}

/// Events a second: acknowledged, and stored.
type Rates = (f64, Option<f64>);

impl<'a> Durability<'a> {
    pub fn on(rig: &'a Rig, postgres: Postgres, next: &'a mut u64, all: &'a mut Vec<Sent>) -> Self {
        Self {
            rig,
            postgres,
            next,
            all,
        }
    }

    /// Measures both levels in alternating order, with this number of senders.
    pub async fn shares(&mut self, senders: u64) -> Shares {
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            // Durable, received, received, durable, …: neither is always first.
            let rates = if round % 2 == 0 {
                let durable = self.rates("durable", senders).await;
                [durable, self.rates("received", senders).await]
            } else {
                let received = self.rates("received", senders).await;
                [self.rates("durable", senders).await, received]
            };
            let name = format!("{senders} senders, round {round}");
            self.note(&name, rates, Shares::of(&[rates]));
            rounds.push(rates);
        }
        let shares = Shares::of(&rounds);
        let medians = [0, 1].map(|level| {
            let stored: Option<Vec<f64>> = rounds.iter().map(|rates| rates[level].1).collect();
            let acknowledged = rounds.iter().map(|rates| rates[level].0);
            (median(acknowledged.collect()), stored.map(median))
        });
        self.note(&format!("{senders} senders, medians"), medians, shares);
        shares
    }

    async fn rates(&mut self, ack: &'static str, senders: u64) -> Rates {
        let plan = Plan {
            ack,
            first: *self.next,
            bodies: BODIES,
            senders,
            ..Plan::default()
        };
        *self.next += BODIES;
        let started = Instant::now();
        let sent = self.rig.traffic(plan).finish();
        let acknowledged = per_second(BODIES * BODY_EVENTS, started.elapsed());
        let refusals = sent.tally.refusals.len();
        if refusals > 0 {
            note(format!("{refusals} refusals: {:?}", sent.tally.codes));
        }
        self.all.push(sent);
        if self.postgres == Postgres::Frozen {
            return (acknowledged, None);
        }
        self.rig.settle().await;
        let stored = per_second(BODIES * BODY_EVENTS, started.elapsed());
        (acknowledged, Some(stored))
    }

    fn note(&self, what: &str, [durable, received]: [Rates; 2], shares: Shares) {
        let away = match self.postgres {
            Postgres::Stores => "",
            Postgres::Frozen => ", PostgreSQL frozen",
        };
        let mut text = format!(
            "{what}{away}: events/s until acknowledged {:.0} durable, {:.0} received, share {:.2}",
            durable.0, received.0, shares.acknowledged
        );
        if let (Some(durable), Some(received), Some(share)) = (durable.1, received.1, shares.stored)
        {
            text.push_str(&format!(
                "; until stored {durable:.0} durable, {received:.0} received, share {share:.2}"
            ));
        }
        note(text);
    }
}

impl Shares {
    /// Compares within a round, where both levels saw the same machine.
    fn of(rounds: &[[Rates; 2]]) -> Self {
        let stored = |[durable, received]: &[Rates; 2]| Some(durable.1? / received.1?);
        let stored: Option<Vec<f64>> = rounds.iter().map(stored).collect();
        let acknowledged = rounds
            .iter()
            .map(|[durable, received]| durable.0 / received.0);
        Self {
            acknowledged: median(acknowledged.collect()),
            stored: stored.map(median),
        }
    }
}
