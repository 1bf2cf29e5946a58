//! `--baseline`: two builds of the service against each other.
//!
//! Keeps one invariant: both builds get every load of a round, one right after
//! the other, and take turns in going first, so that a machine that slows down
//! slows both. Each build has its PostgreSQL and migrates it itself: an
//! earlier build does not know this one's schema.

use super::environment::Environment;
use super::load::Load;
use super::method::{BODY, Method};
use super::options::CompareOptions;
use super::sample::{Section, Series};
use crate::service::{Ack, Table};

/// What the ids of the baseline's series begin with.
pub const PREFIX: &str = "baseline/";

/// What is loaded in a round: single events and small bodies first, as most SDKs send them.
const LOADS: [(Table, u32); 4] = [
    (Table::Interactions, 1),
    (Table::Interactions, 10),
    (Table::Interactions, BODY),
    (Table::Exposures, BODY),
];

/// All loads in turn, round after round, for this build and the baseline.
pub async fn run(
    environments: [&Environment; 2],
    options: &CompareOptions,
    day_us: i64,
    progress: &dyn Fn(&str),
    sections: &mut Vec<Section>,
) -> anyhow::Result<()> {
    let mut series = Vec::new();
    for (table, body) in LOADS {
        let method = Method::Http(Ack::Durable, body);
        let (id, title) = (method.id(table), format!("{table}, {}", method.title()));
        series.push(Series::new(&id, &title));
        let (id, title) = (format!("{PREFIX}{id}"), format!("{title}, baseline"));
        series.push(Series::new(id, title));
    }
    sections.push(Section {
        title: "Two builds".to_owned(),
        series,
    });
    // Round 0 warms both up and does not count: the first load makes partitions.
    for round in 0..=options.rounds {
        let pairs = sections.iter_mut().flat_map(|two| two.series.chunks_mut(2));
        for ((table, body), pair) in LOADS.into_iter().zip(pairs) {
            let mut load = Load::new(options, table, body, day_us);
            let events = &mut load.settings.events;
            *events = Method::Http(Ack::Durable, body).rows_of(*events);
            let order = if round % 2 == 0 { [1, 0] } else { [0, 1] };
            for at in order {
                progress(&format!("round {round}: {}", pair[at].id));
                pair[at].measure(load.run_alone(environments[at])).await?;
                if round == 0 {
                    pair[at].samples.clear();
                }
            }
        }
    }
    Ok(())
}
