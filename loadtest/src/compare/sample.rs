//! What one load cost, and many loads of the same kind.
//!
//! Knows nothing of how loads are made. On a busy machine only loads of the same
//! round can be set against each other: [`ratio`] pairs them round by round.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::report::{float, milliseconds};

/// One load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Rows that were in the table at the end, or requests that were answered.
    pub(crate) rows: u64,
    /// From the first byte sent to the last row's COMMIT.
    pub(crate) seconds: f64,
    /// From the first byte sent to the last answer, over HTTP.
    pub(crate) acked_seconds: Option<f64>,
    /// CPU seconds of the service, where it took part.
    pub(crate) service_cpu: Option<f64>,
    /// CPU seconds of Postgres, where it took part.
    pub(crate) postgres_cpu: Option<f64>,
    /// CPU seconds of the one who sends: this program, and psql.
    pub(crate) client_cpu: f64,
    /// Bytes that Postgres wrote ahead.
    pub(crate) wal_bytes: Option<f64>,
    /// The most memory that the service had in RAM.
    pub(crate) service_peak_bytes: Option<u64>,
    /// How long answers took.
    pub(crate) latency: Option<Latency>,
}

/// How long answers took, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// Of a histogram in microseconds; `None` if it is empty.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            p50: milliseconds(histogram, 50.0),
            p90: milliseconds(histogram, 90.0),
            p99: milliseconds(histogram, 99.0),
            p999: milliseconds(histogram, 99.9),
            max: float(histogram.max()) / 1e3,
        })
    }
}

impl Sample {
    /// Rows a second, until all are committed.
    pub(crate) fn rate(&self) -> f64 {
        float(self.rows) / self.seconds.max(1e-9)
    }

    /// Rows a second, until all are acknowledged.
    pub(crate) fn acked_rate(&self) -> Option<f64> {
        self.acked_seconds
            .map(|seconds| float(self.rows) / seconds.max(1e-9))
    }

    /// Microseconds of CPU for each row.
    pub(crate) fn cpu_us(&self, seconds: Option<f64>) -> Option<f64> {
        seconds.map(|seconds| seconds * 1e6 / float(self.rows.max(1)))
    }

    /// Bytes of WAL for each row.
    pub(crate) fn wal_bytes_a_row(&self) -> Option<f64> {
        self.wal_bytes.map(|bytes| bytes / float(self.rows.max(1)))
    }

    fn json(&self) -> Value {
        json!({
            "rows": self.rows,
            "seconds": self.seconds,
            "rows_per_second": self.rate(),
            "acked_seconds": self.acked_seconds,
            "acked_rows_per_second": self.acked_rate(),
            "service_cpu_seconds": self.service_cpu,
            "postgres_cpu_seconds": self.postgres_cpu,
            "client_cpu_seconds": self.client_cpu,
            "wal_bytes_per_row": self.wal_bytes_a_row(),
            "service_peak_bytes": self.service_peak_bytes,
            "latency_ms": self.latency.map(|l| json!({
                "p50": l.p50, "p90": l.p90, "p99": l.p99, "p99.9": l.p999, "max": l.max,
            })),
        })
    }
}

/// The middle and the ends of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
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

    pub(crate) fn json(&self) -> Value {
        json!({"median": self.median, "min": self.min, "max": self.max})
    }
}

/// Loads of the same kind, one a round.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// For programs.
    pub(crate) id: String,
    /// For people.
    pub(crate) title: String,
    /// By round.
    pub(crate) samples: Vec<Sample>,
}

impl Series {
    pub(crate) fn new(id: impl Into<String>, title: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            samples: Vec::new(),
        }
    }

    /// A figure over all rounds that have it.
    pub(crate) fn spread(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(figure))
    }

    /// Rows a second until all are committed.
    pub(crate) fn rate(&self) -> Option<Spread> {
        self.spread(|sample| Some(sample.rate()))
    }

    pub(crate) fn json(&self) -> Value {
        let of = |spread: Option<Spread>| spread.map(|spread| spread.json());
        json!({
            "id": self.id,
            "title": self.title,
            "rows_per_second": of(self.rate()),
            "acked_rows_per_second": of(self.spread(Sample::acked_rate)),
            "service_cpu_us_per_row": of(self.spread(|s| s.cpu_us(s.service_cpu))),
            "postgres_cpu_us_per_row": of(self.spread(|s| s.cpu_us(s.postgres_cpu))),
            "client_cpu_us_per_row": of(self.spread(|s| s.cpu_us(Some(s.client_cpu)))),
            "wal_bytes_per_row": of(self.spread(Sample::wal_bytes_a_row)),
            "service_peak_bytes": of(self.spread(|s| s.service_peak_bytes.map(float))),
            "p99_ms": of(self.spread(|s| s.latency.map(|l| l.p99))),
            "rounds": self.samples.iter().map(Sample::json).collect::<Vec<_>>(),
        })
    }
}

/// The rate of one kind over that of another, round by round.
pub(crate) fn ratio(of: &Series, to: &Series) -> Option<Spread> {
    Spread::of(
        of.samples
            .iter()
            .zip(&to.samples)
            .map(|(of, to)| of.rate() / to.rate()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(rates: &[u32]) -> Series {
        let mut series = Series::new("x", "X");
        for &rate in rates {
            series.samples.push(Sample {
                rows: rate.into(),
                seconds: 1.0,
                ..Sample::default()
            });
        }
        series
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, f64::NAN, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn loads_are_set_against_those_of_the_same_round() {
        // The machine slows down to a tenth in the second round, for both.
        let spread = ratio(&series(&[200, 20, 200]), &series(&[100, 10, 100])).unwrap();
        assert_eq!((spread.min, spread.max), (2.0, 2.0));
    }
}
