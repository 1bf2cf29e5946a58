//! What one load cost, and many loads of the same kind.
//!
//! Knows nothing of how loads are made. On a busy machine only loads of the same
//! round can be set against each other: [`ratio`] pairs them round by round.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};

use super::baseline::PREFIX;
use crate::report::{Latency, float, grouped};

pub const MIB: f64 = 1_048_576.0;

#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// Rows that were in the table at the end, or requests that were answered.
    pub rows: u64,
    /// From the first byte sent to the last row's COMMIT.
    pub seconds: f64,
    /// From the first byte sent to the last answer, over HTTP.
    pub acked_seconds: Option<f64>,
    /// CPU seconds of the service, where it took part.
    #[serde(rename = "service_cpu_seconds")]
    pub service_cpu: Option<f64>,
    /// CPU seconds of Postgres, where it took part.
    #[serde(rename = "postgres_cpu_seconds")]
    pub postgres_cpu: Option<f64>,
    /// CPU seconds of the sender: this program, and psql.
    #[serde(rename = "client_cpu_seconds")]
    pub client_cpu: f64,
    /// Bytes that Postgres wrote ahead.
    #[serde(skip)]
    pub wal_bytes: Option<f64>,
    /// The most memory that the service had in RAM.
    pub service_peak_bytes: Option<u64>,
    #[serde(rename = "latency_ms")]
    pub latency: Option<Latency>,
}

/// A figure of a load, in the order of the columns in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    Rate,
    AckedRate,
    ServiceCpu,
    PostgresCpu,
    ClientCpu,
    Wal,
    Memory,
    P50,
    P99,
    P999,
}

/// All figures, with their names in JSON and in tables.
pub const FIGURES: [(Figure, &str, &str); 10] = [
    (Figure::Rate, "rows_per_second", "median of rows/s"),
    (Figure::AckedRate, "acked_rows_per_second", "acked/s"),
    (Figure::ServiceCpu, "service_cpu_us_per_row", "service"),
    (Figure::PostgresCpu, "postgres_cpu_us_per_row", "postgres"),
    (Figure::ClientCpu, "client_cpu_us_per_row", "client"),
    (Figure::Wal, "wal_bytes_per_row", "WAL B"),
    (Figure::Memory, "service_peak_bytes", "MiB"),
    (Figure::P50, "p50_ms", "p50 ms"),
    (Figure::P99, "p99_ms", "p99 ms"),
    (Figure::P999, "p99.9_ms", "p99.9 ms"),
];

impl Figure {
    /// Its value for a load that has it.
    pub fn of(self, sample: &Sample) -> Option<f64> {
        let rows = float(sample.rows.max(1));
        let cpu_us = |seconds: f64| seconds * 1e6 / rows;
        match self {
            Figure::Rate => Some(sample.rate()),
            Figure::AckedRate => Some(float(sample.rows) / sample.acked_seconds?.max(1e-9)),
            Figure::ServiceCpu => sample.service_cpu.map(cpu_us),
            Figure::PostgresCpu => sample.postgres_cpu.map(cpu_us),
            Figure::ClientCpu => Some(cpu_us(sample.client_cpu)),
            Figure::Wal => Some(sample.wal_bytes? / rows),
            Figure::Memory => sample.service_peak_bytes.map(float),
            Figure::P50 => Some(sample.latency?.0[0]),
            Figure::P99 => Some(sample.latency?.p99()),
            Figure::P999 => Some(sample.latency?.0[3]),
        }
    }

    /// A value in words, without a unit.
    pub fn show(self, value: f64) -> String {
        match self {
            Figure::Rate | Figure::AckedRate => grouped(value),
            Figure::ServiceCpu | Figure::PostgresCpu | Figure::ClientCpu => format!("{value:.2}"),
            Figure::Wal => format!("{value:.0}"),
            Figure::Memory => format!("{:.0}", value / MIB),
            Figure::P50 | Figure::P99 | Figure::P999 => format!("{value:.1}"),
        }
    }
}

impl Sample {
    /// Rows a second, until all are committed.
    pub fn rate(&self) -> f64 {
        float(self.rows) / self.seconds.max(1e-9)
    }

    fn json(&self) -> Value {
        let mut object = json!(self);
        for (figure, name, _) in FIGURES {
            if matches!(figure, Figure::Rate | Figure::AckedRate | Figure::Wal) {
                object[name] = json!(figure.of(self));
            }
        }
        object
    }
}

/// The middle and the ends of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { median, min, max })
    }
}

/// Loads of the same kind, one a round.
#[derive(Clone, Debug)]
pub struct Series {
    pub id: String,
    pub title: String,
    /// By round.
    pub samples: Vec<Sample>,
}

impl Series {
    pub fn new(id: impl Into<String>, title: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            samples: Vec::new(),
        }
    }

    /// Whether its rate is the schedule's and says nothing.
    pub fn is_paced(&self) -> bool {
        self.id.contains("/half_rate_")
    }

    /// Does a load of this kind, and keeps what it cost.
    pub async fn measure(
        &mut self,
        load: impl Future<Output = anyhow::Result<Sample>>,
    ) -> anyhow::Result<()> {
        let sample = load.await.with_context(|| format!("{} failed", self.id))?;
        self.samples.push(sample);
        Ok(())
    }

    /// A figure over all rounds that have it.
    pub fn spread(&self, figure: Figure) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(|sample| figure.of(sample)))
    }

    fn json(&self) -> Value {
        let mut object = json!({
            "id": self.id,
            "title": self.title,
            "rounds": self.samples.iter().map(Sample::json).collect::<Vec<_>>(),
        });
        for (figure, name, _) in FIGURES {
            object[name] = json!(self.spread(figure));
        }
        object
    }
}

/// A figure of one kind over that of another, round by round.
pub fn ratio(of: &Series, to: &Series, figure: Figure) -> Option<Spread> {
    let pairs = of.samples.iter().zip(&to.samples);
    Spread::of(pairs.filter_map(|(of, to)| Some(figure.of(of)? / figure.of(to)?)))
}

/// Series that belong together, those at a given rate last.
#[derive(Clone, Debug)]
pub struct Section {
    pub title: String,
    pub series: Vec<Series>,
}

impl Section {
    /// Loads as fast as they go.
    pub fn throughput(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(|series| !series.is_paced())
    }

    /// Leaves out what was not measured, and of two builds what only one of them did; `false` if
    /// nothing is left.
    pub fn keep_measured(&mut self) -> bool {
        let step = if self.is_pair() { 2 } else { 1 };
        let kept = self.series.chunks(step);
        let kept = kept.filter(|some| some.iter().all(|one| !one.samples.is_empty()));
        self.series = kept.flatten().cloned().collect();
        !self.series.is_empty()
    }

    /// Whether these are the points of an axis of growth.
    pub fn is_growth(&self) -> bool {
        self.series
            .iter()
            .all(|series| series.id.starts_with("growth/"))
    }

    /// Whether these are two builds of the service.
    pub fn is_pair(&self) -> bool {
        self.series
            .iter()
            .any(|series| series.id.starts_with(PREFIX))
    }

    pub fn json(&self) -> Value {
        json!({
            "title": self.title,
            "series": self.series.iter().map(Series::json).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, f64::NAN, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn what_was_measured_before_a_signal_is_kept_and_builds_stay_in_pairs() {
        let section = |series: &[(&str, usize)]| {
            let series = series.iter().map(|(id, samples)| Series {
                samples: vec![Sample::default(); *samples],
                ..Series::new(*id, "X")
            });
            let (title, series) = (String::new(), series.collect());
            let mut section = Section { title, series };
            let some = section.keep_measured();
            let ids: Vec<_> = section.series.into_iter().map(|series| series.id).collect();
            assert_eq!(some, !ids.is_empty());
            ids
        };
        assert_eq!(section(&[("a", 2), ("b", 1), ("c", 0)]), ["a", "b"]);
        assert_eq!(section(&[("a", 0)]), [""; 0]);
        let [b1, b2, b3] = ["1", "2", "3"].map(|id| format!("{PREFIX}{id}"));
        let pairs = [
            ("1", 2),
            (&*b1, 2),
            ("2", 0),
            (&*b2, 1),
            ("3", 1),
            (&*b3, 1),
        ];
        assert_eq!(section(&pairs), ["1", &*b1, "3", &*b3]);
    }

    #[test]
    fn loads_are_set_against_those_of_the_same_round() {
        // The machine slows down to a tenth in the second round, for both.
        let [of, to] = [[200, 20, 200], [100, 10, 100]].map(|rates| {
            let mut series = Series::new("x", "X");
            series.samples.extend(rates.map(|rows| Sample {
                rows,
                seconds: 1.0,
                ..Sample::default()
            }));
            series
        });
        let spread = ratio(&of, &to, Figure::Rate).unwrap();
        assert_eq!((spread.min, spread.max), (2.0, 2.0));
    }
}
