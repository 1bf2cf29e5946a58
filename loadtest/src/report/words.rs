//! Numbers, latencies and lines as reports show them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;
use indicatif::{HumanCount, HumanFloatCount};
use serde::Serialize;

/// The percentiles that are kept of how long answers took.
pub const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

/// How long answers took, in milliseconds, by percentile.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(into = "BTreeMap<&'static str, f64>")]
pub struct Latency(pub [f64; PERCENTILES.len()]);

impl From<Latency> for BTreeMap<&'static str, f64> {
    fn from(latency: Latency) -> Self {
        PERCENTILES.into_iter().zip(latency.0).collect()
    }
}

impl Latency {
    /// Of a histogram in microseconds; `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let percentiles = [50.0, 90.0, 99.0, 99.9, 100.0];
        let at = |percentile| float(histogram.value_at_percentile(percentile)) / 1e3;
        (!histogram.is_empty()).then(|| Self(percentiles.map(at)))
    }

    pub fn p99(&self) -> f64 {
        self.0[2]
    }
}

/// A line, with its label in a column.
pub fn line(out: &mut String, label: &str, text: &str) {
    writeln!(out, "{label:<26} {text}").expect("a String takes all");
}

/// A count in groups of three digits.
pub fn count(n: u64) -> String {
    HumanCount(n).to_string()
}

/// A number that is not negative, rounded, in groups of three digits.
pub fn grouped(value: f64) -> String {
    format!("{:.0}", HumanFloatCount(value))
}

/// A count for arithmetic and display.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a run stay far below 2^53"
)]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// A number of events that was computed, cut to what a run can have.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cut to the range first"
)]
pub fn events_of(number: f64, least: u32) -> u32 {
    number.clamp(f64::from(least), 1e9) as u32
}

pub fn time(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| format!("{us} µs"), |at| at.to_string())
}
