//! What is asked of the service, and whether it is so.

use serde_json::{Value, json};

use super::sample::{Sample, Series, Spread, ratio};
use crate::report::float;

const MIB: f64 = 1_048_576.0;

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// What a figure is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// How many times as fast.
    Times,
    Milliseconds,
    Mebibytes,
}

/// A figure, and what is asked of it.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) title: String,
    /// The same in a few words.
    pub(crate) short: &'static str,
    pub(crate) bound: Bound,
    pub(crate) unit: Unit,
    pub(crate) measured: Spread,
}

impl Bound {
    pub(crate) fn value(self) -> f64 {
        match self {
            Bound::AtLeast(value) | Bound::AtMost(value) => value,
        }
    }

    pub(crate) fn sign(self) -> &'static str {
        match self {
            Bound::AtLeast(_) => "≥",
            Bound::AtMost(_) => "≤",
        }
    }
}

impl Unit {
    /// A figure of it, in words.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Unit::Times => format!("{value:.2} ×"),
            Unit::Milliseconds => format!("{value:.1} ms"),
            Unit::Mebibytes => format!("{value:.0} MiB"),
        }
    }
}

impl Judged {
    /// Whether the median is as asked.
    pub(crate) fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtLeast(least) => self.measured.median >= least,
            Bound::AtMost(most) => self.measured.median <= most,
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "title": self.title,
            "measured": self.measured.json(),
            "sign": self.bound.sign(),
            "asked": self.bound.value(),
            "unit": match self.unit {
                Unit::Times => "ratio",
                Unit::Milliseconds => "ms",
                Unit::Mebibytes => "MiB",
            },
            "met": self.is_met(),
        })
    }
}

/// In full, in short, a series, the one that it is set against, and how many
/// times as fast it is to be.
type Asked = (&'static str, &'static str, &'static str, &'static str, f64);

/// Rates that are asked for in relation to others.
const RATIOS: [Asked; 10] = [
    (
        "interactions in bodies of 100 until committed, to one binary COPY",
        "to one binary COPY",
        "interactions/http_durable_100",
        "interactions/copy_binary",
        1.0,
    ),
    (
        "the same, to two binary COPYs",
        "to two binary COPYs",
        "interactions/http_durable_100",
        "interactions/copy_binary_2",
        0.65,
    ),
    (
        "the same, to psql \\copy text",
        "to psql \\copy, text",
        "interactions/http_durable_100",
        "interactions/copy_text",
        1.7,
    ),
    (
        "the same, to psql \\copy into the suite's own indexes",
        "to the suite's own indexes",
        "interactions/http_durable_100",
        "interactions/suite_copy_text",
        7.0,
    ),
    (
        "exposures in bodies of 100 until committed, to one binary COPY",
        "exposures, to one binary COPY",
        "exposures/http_durable_100",
        "exposures/copy_binary",
        0.9,
    ),
    (
        "single-event requests at ack=durable, to an empty handler",
        "requests, to an empty handler",
        "interactions/http_durable_1",
        "interactions/empty_handler",
        0.5,
    ),
    (
        "interactions in bodies of 100 until committed, to the baseline",
        "bodies of 100, to the baseline",
        "interactions/http_durable_100",
        "baseline/interactions/http_durable_100",
        0.97,
    ),
    (
        "single events until committed, to the baseline",
        "single events, to the baseline",
        "interactions/http_durable_1",
        "baseline/interactions/http_durable_1",
        0.97,
    ),
    (
        "events spread over 400 partitions, to one partition",
        "400 partitions to 1",
        "growth/partitions_400",
        "growth/partitions_1",
        0.9,
    ),
    (
        "events of 10,000 tenants, to one tenant",
        "10,000 tenants to 1",
        "growth/tenants_10000",
        "growth/tenants_1",
        0.8,
    ),
];

/// Latencies that are asked for, in milliseconds.
const P99S: [(&str, &str, &str, f64); 2] = [
    (
        "p99 at ack=durable, at half the held rate",
        "p99 at ack=durable",
        "interactions/half_rate_durable",
        20.0,
    ),
    (
        "p99 at ack=committed, at half the held rate",
        "p99 at ack=committed",
        "interactions/half_rate_committed",
        150.0,
    ),
];

/// Memory of the service under any of the loads, in MiB.
const MEMORY_MIB: f64 = 300.0;

/// Judges what there is in `series`.
pub(crate) fn judge(series: &[&Series]) -> Vec<Judged> {
    let find = |id: &str| series.iter().find(|series| series.id == id).copied();
    let mut judged = Vec::new();
    for (title, short, of, to, least) in RATIOS {
        if let (Some(of), Some(to)) = (find(of), find(to))
            && let Some(measured) = ratio(of, to)
        {
            judged.push(Judged {
                title: title.to_owned(),
                short,
                bound: Bound::AtLeast(least),
                unit: Unit::Times,
                measured,
            });
        }
    }
    for (title, short, of, most) in P99S {
        let p99 = |sample: &Sample| sample.latency.map(|latency| latency.p99);
        if let Some(measured) = find(of).and_then(|series| series.spread(p99)) {
            judged.push(Judged {
                title: title.to_owned(),
                short,
                bound: Bound::AtMost(most),
                unit: Unit::Milliseconds,
                measured,
            });
        }
    }
    judged.extend(judge_memory(series));
    judged
}

/// The most memory of the service under any load, against what is asked.
pub(crate) fn judge_memory(series: &[&Series]) -> Option<Judged> {
    let peaks = series
        .iter()
        // What answers there is not the service.
        .filter(|series| !series.id.ends_with("empty_handler"))
        .flat_map(|series| &series.samples)
        .filter_map(|sample| sample.service_peak_bytes);
    let most = float(peaks.max()?) / MIB;
    Some(Judged {
        title: "memory of the service, the most under any load".to_owned(),
        short: "memory of the service",
        bound: Bound::AtMost(MEMORY_MIB),
        unit: Unit::Mebibytes,
        measured: Spread::of([most])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(id: &str, rate: u32) -> Series {
        let mut series = Series::new(id, id);
        series.samples.push(Sample {
            rows: rate.into(),
            seconds: 1.0,
            service_peak_bytes: Some(64 << 20),
            ..Sample::default()
        });
        series
    }

    #[test]
    fn a_figure_is_judged_by_its_median_and_only_where_it_was_measured() {
        let http = series("interactions/http_durable_100", 99);
        let copy = series("interactions/copy_binary", 100);
        let text = series("interactions/copy_text", 50);
        let judged = judge(&[&http, &copy, &text]);
        let met: Vec<_> = judged.iter().map(Judged::is_met).collect();
        assert_eq!(met, [false, true, true], "{judged:#?}");
        assert_eq!(judged[2].unit, Unit::Mebibytes);
    }

    #[test]
    fn every_way_that_something_is_asked_of_is_part_of_a_round() {
        use crate::compare::baseline::PREFIX;
        use crate::compare::way::Way;
        use crate::generate::settings::Table;
        let ids: Vec<String> = Table::ALL
            .into_iter()
            .flat_map(|table| Way::of_a_round(table).iter().map(move |way| way.id(table)))
            .collect();
        let asked = RATIOS
            .iter()
            .flat_map(|(_, _, of, to, _)| [*of, *to])
            .chain(P99S.iter().map(|(_, _, of, _)| *of));
        for id in asked.filter(|id| !id.starts_with("growth/") && !id.starts_with(PREFIX)) {
            assert!(ids.iter().any(|known| known == id), "{id}");
        }
    }
}
