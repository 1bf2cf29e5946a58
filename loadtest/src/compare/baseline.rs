//! `--baseline`: two builds of the service against each other.
//!
//! Keeps one invariant: both builds get every load of a round, one right after
//! the other, and take turns in going first, so that a machine that slows down
//! slows both. Each build has its PostgreSQL and migrates it itself: an
//! earlier build does not know this one's schema.

use anyhow::Context as _;

use super::http::Load;
use super::options::CompareOptions;
use super::outcome::Section;
use super::sample::{Sample, Series};
use super::stage::Stage;
use super::way::{BODY, Way};
use super::workload::Workload;
use crate::answer::Ack;
use crate::generate::settings::Table;

/// What the ids of the baseline's series begin with.
pub(crate) const PREFIX: &str = "baseline/";

/// What is loaded in a round: single events and small bodies first, as most SDKs send them.
const LOADS: [(Table, u32); 4] = [
    (Table::Interactions, 1),
    (Table::Interactions, 10),
    (Table::Interactions, BODY),
    (Table::Exposures, BODY),
];

/// This build and the baseline.
#[derive(Debug)]
pub(crate) struct Pair<'p> {
    pub(crate) stages: [&'p Stage; 2],
    pub(crate) options: &'p CompareOptions,
    pub(crate) day_us: i64,
}

impl Pair<'_> {
    /// All loads in turn, round after round.
    pub(crate) async fn run(&self, progress: impl Fn(&str)) -> anyhow::Result<Vec<Section>> {
        let mut series: Vec<[Series; 2]> = LOADS.iter().map(|load| pair_of_series(*load)).collect();
        // Round 0 warms both up and does not count: the first load makes partitions.
        for round in 0..=self.options.rounds() {
            for ((table, body), pair) in LOADS.into_iter().zip(&mut series) {
                let mut order = [0, 1];
                if round % 2 == 0 {
                    order.reverse();
                }
                for at in order {
                    progress(&format!("round {round}: {}", pair[at].id));
                    let sample = self
                        .load(self.stages[at], table, body)
                        .await
                        .with_context(|| format!("{} failed", pair[at].id))?;
                    if round > 0 {
                        pair[at].samples.push(sample);
                    }
                }
            }
        }
        Ok(vec![Section {
            title: "Two builds".to_owned(),
            throughput: series.into_iter().flatten().collect(),
            paced: Vec::new(),
        }])
    }

    async fn load(&self, stage: &Stage, table: Table, body: u32) -> anyhow::Result<Sample> {
        let ack = Ack::Durable;
        let events = match table {
            Table::Interactions => self.options.interactions(),
            Table::Exposures => self.options.exposures(),
        };
        let events = Way::Http(ack, body).rows_of(events);
        let seed = self.options.seed;
        let workload = Workload::of_one_day(seed, table, events, self.day_us, stage.key());
        stage.clear(table.name()).await?;
        let load = Load {
            settings: &workload.in_bodies_of(body),
            table,
            ack,
            connections: self.options.connections(body),
            rate: None,
        };
        let sample = load.run(stage).await?;
        let stored = stage.count(table.name()).await?;
        anyhow::ensure!(
            stored == sample.rows,
            "of {} acknowledged rows {stored} are in {}",
            sample.rows,
            table.name()
        );
        Ok(sample)
    }
}

/// The series of this build and of the baseline.
fn pair_of_series((table, body): (Table, u32)) -> [Series; 2] {
    let way = Way::Http(Ack::Durable, body);
    let (id, title) = (way.id(table), way.title());
    let title = format!("{}, {title}", table.name());
    [
        Series::new(id.clone(), title.clone()),
        Series::new(format!("{PREFIX}{id}"), format!("{title}, baseline")),
    ]
}
