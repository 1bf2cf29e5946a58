//! The targets that the service is to reach, and whether it does.

use serde_json::{Value, json};

use super::sample::{Figure, MIB, Series, Spread, ratio};

/// A figure of a series, and its target.
#[derive(Clone, Copy, Debug)]
struct Target {
    title: &'static str,
    of: &'static str,
    /// The series whose rate that of `of` is divided by; none for a latency.
    to: Option<&'static str>,
    value: f64,
}

/// A rate in relation to that of another series.
const fn at_least(value: f64, title: &'static str, of: &'static str, to: &'static str) -> Target {
    let to = Some(to);
    Target {
        title,
        of,
        to,
        value,
    }
}

/// A 99th percentile of the latency, in milliseconds.
const fn at_most(value: f64, title: &'static str, of: &'static str) -> Target {
    let to = None;
    Target {
        title,
        of,
        to,
        value,
    }
}

/// What the titles leave out.
pub(crate) const WHERE_NOTHING_ELSE: &str =
    "interactions in bodies of 100, durable, until committed, where nothing else is said";

const HTTP: &str = "interactions/http_durable_100";
const SINGLE: &str = "interactions/http_durable_1";

const TARGETS: [Target; 12] = [
    at_least(1.0, "to one binary COPY", HTTP, "interactions/copy_binary"),
    at_least(
        0.65,
        "to two binary COPYs",
        HTTP,
        "interactions/copy_binary_2",
    ),
    at_least(1.7, "to psql \\copy, text", HTTP, "interactions/copy_text"),
    at_least(
        7.0,
        "to the suite's own indexes",
        HTTP,
        "interactions/suite_copy_text",
    ),
    at_least(
        0.9,
        "exposures, to one binary COPY",
        "exposures/http_durable_100",
        "exposures/copy_binary",
    ),
    at_least(
        0.5,
        "single events, to an empty handler",
        SINGLE,
        "interactions/empty_handler",
    ),
    at_least(
        0.97,
        "to the baseline",
        HTTP,
        "baseline/interactions/http_durable_100",
    ),
    at_least(
        0.97,
        "single events, to the baseline",
        SINGLE,
        "baseline/interactions/http_durable_1",
    ),
    at_least(
        0.9, "400 partitions, to 1", "growth/partitions_400", "growth/partitions_1",
    ),
    at_least(
        0.8, "10,000 tenants, to 1", "growth/tenants_10000", "growth/tenants_1",
    ),
    at_most(
        20.0,
        "p99 at half the held rate, durable",
        "interactions/half_rate_durable",
    ),
    at_most(
        150.0,
        "p99 at half the held rate, committed",
        "interactions/half_rate_committed",
    ),
];

/// Memory of the service under any of the loads, in MiB.
const MEMORY_MIB: f64 = 300.0;

/// A figure that was measured, and its target.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) title: &'static str,
    /// Whether the target is the least; otherwise it is the most.
    pub(crate) is_least: bool,
    unit: &'static str,
    digits: usize,
    pub(crate) target: f64,
    pub(crate) measured: Spread,
}

impl Judged {
    /// Whether the median reaches the target.
    pub(crate) fn is_met(&self) -> bool {
        match self.is_least {
            true => self.measured.median >= self.target,
            false => self.measured.median <= self.target,
        }
    }

    pub(crate) fn sign(&self) -> &'static str {
        if self.is_least { "≥" } else { "≤" }
    }

    /// A value of the figure, in words.
    pub(crate) fn show(&self, value: f64) -> String {
        format!("{value:.*} {}", self.digits, self.unit)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "title": self.title,
            "measured": self.measured,
            "sign": self.sign(),
            "target": self.target,
            "unit": if self.is_least { "ratio" } else { self.unit },
            "met": self.is_met(),
        })
    }
}

/// Judges what there is in `series`.
pub(crate) fn judge(series: &[&Series]) -> Vec<Judged> {
    let find = |id: &str| series.iter().find(|series| series.id == id).copied();
    let mut judged = Vec::new();
    for target in TARGETS {
        let measured = find(target.of).and_then(|of| match target.to {
            Some(to) => ratio(of, find(to)?, Figure::Rate),
            None => of.spread(Figure::P99),
        });
        let is_least = target.to.is_some();
        judged.extend(measured.map(|measured| Judged {
            title: target.title,
            is_least,
            unit: if is_least { "×" } else { "ms" },
            digits: if is_least { 2 } else { 1 },
            target: target.value,
            measured,
        }));
    }
    // What answers there is not the service.
    let of_service = series
        .iter()
        .filter(|series| !series.id.ends_with("empty_handler"));
    let peaks = of_service.filter_map(|series| Some(series.spread(Figure::Memory)?.max / MIB));
    judged.extend(Spread::of(peaks.reduce(f64::max)).map(|measured| Judged {
        title: "memory, the most under any load",
        is_least: false,
        unit: "MiB",
        digits: 0,
        target: MEMORY_MIB,
        measured,
    }));
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::baseline::PREFIX;
    use crate::compare::method::Method;
    use crate::compare::sample::Sample;
    use crate::service::Table;

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
        assert_eq!(judged[2].unit, "MiB");
    }

    #[test]
    fn every_method_that_has_a_target_is_part_of_a_round() {
        let of_a_round = |table| {
            Method::of_a_round(table)
                .into_iter()
                .map(move |m| m.id(table))
        };
        let known: Vec<String> = Table::ALL.into_iter().flat_map(of_a_round).collect();
        for target in TARGETS {
            for id in [target.of, target.to.unwrap_or(target.of)] {
                let is_other = id.starts_with("growth/") || id.starts_with(PREFIX);
                assert!(is_other || known.iter().any(|known| known == id), "{id}");
            }
        }
    }
}
