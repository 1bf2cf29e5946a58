//! Everything that a comparison came to, for the reports to show.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::asks::{self, Judged};
use super::baseline::PREFIX;
use super::machine::Machine;
use super::rig::Entry;
use super::sample::Series;
use super::way::Way;
use crate::generate::settings::Table;

/// A comparison.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) machine: Machine,
    pub(crate) began_at: Timestamp,
    pub(crate) took: Duration,
    pub(crate) rounds: u16,
    /// What the service was started with beside its defaults.
    pub(crate) service_args: Vec<String>,
    pub(crate) sections: Vec<Section>,
}

/// Series that belong side by side.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) title: String,
    /// Loads as fast as they go.
    pub(crate) throughput: Vec<Series>,
    /// Loads at a rate that is given.
    pub(crate) paced: Vec<Series>,
}

impl Section {
    /// All that was measured of a table.
    pub(crate) fn of_entry(entry: Entry) -> Self {
        let (throughput, paced): (Vec<_>, Vec<_>) = entry
            .series
            .into_iter()
            .partition(|(way, _)| way.is_throughput());
        let series = |list: Vec<(Way, Series)>| list.into_iter().map(|(_, series)| series);
        Self {
            title: match entry.table {
                Table::Interactions => "Interactions",
                Table::Exposures => "Exposures of ten items",
            }
            .to_owned(),
            throughput: series(throughput).collect(),
            paced: series(paced).collect(),
        }
    }

    /// Whether these are the points of an axis of growth.
    pub(crate) fn is_growth(&self) -> bool {
        self.series().all(|series| series.id.starts_with("growth/"))
    }

    /// Whether these are two builds of the service.
    pub(crate) fn is_pair(&self) -> bool {
        self.series().any(|series| series.id.starts_with(PREFIX))
    }

    /// Throughput first.
    pub(crate) fn series(&self) -> impl Iterator<Item = &Series> {
        self.throughput.iter().chain(&self.paced)
    }
}

impl Outcome {
    /// The series of that id.
    pub(crate) fn find(&self, id: &str) -> Option<&Series> {
        self.sections
            .iter()
            .flat_map(Section::series)
            .find(|series| series.id == id)
    }

    /// What is asked, and whether it is so.
    pub(crate) fn judged(&self) -> Vec<Judged> {
        let series: Vec<&Series> = self.sections.iter().flat_map(Section::series).collect();
        asks::judge(&series)
    }

    /// Whether all is as asked.
    pub(crate) fn is_met(&self) -> bool {
        self.judged().iter().all(Judged::is_met)
    }

    /// What was measured, and on what, in a sentence or two.
    pub(crate) fn summary(&self) -> String {
        let machine = &self.machine;
        let sync = machine.sync_ms.map_or(String::new(), |spread| {
            format!(
                ", with a disk that syncs a small write in {:.2} ms",
                spread.median
            )
        });
        format!(
            "The same rows in every way, in {} alternating rounds, on {} cores ({}) with {:.1} GiB of \
             memory that the service, PostgreSQL {} and the load generator share{sync}.",
            self.rounds,
            machine.cores,
            machine.cpu,
            crate::report::float(machine.memory_bytes) / 1_073_741_824.0,
            machine.postgres,
        )
    }

    /// The report for programs.
    pub(crate) fn json(&self) -> Value {
        let section = |section: &Section| {
            json!({
                "title": section.title,
                "series": section.series().map(Series::json).collect::<Vec<_>>(),
            })
        };
        json!({
            "began_at": self.began_at.to_string(),
            "seconds": self.took.as_secs_f64(),
            "rounds": self.rounds,
            "service_args": self.service_args,
            "machine": self.machine.json(),
            "asked": self.judged().iter().map(Judged::json).collect::<Vec<_>>(),
            "sections": self.sections.iter().map(section).collect::<Vec<_>>(),
        })
    }
}
