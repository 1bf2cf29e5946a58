//! The targets that the service is to reach, and whether it does.

use serde_json::{Value, json};

use super::sample::{Figure, MIB, Series, Spread, ratio};

/// A line for each: what the figure is to be, a title, the series that it is of, and
/// the one that its rate is divided by. A line without that is of a p99.
const TARGETS: &str = include_str!("targets.txt");

/// What the titles leave out.
pub const WHERE_NOTHING_ELSE: &str =
    "interactions in bodies of 100, durable, until committed, where nothing else is said";

/// Memory of the service under any of the loads, in MiB.
const MEMORY_MIB: f64 = 300.0;

/// A figure that was measured, and its target.
#[derive(Clone, Debug)]
pub struct Judged {
    pub title: &'static str,
    pub target: f64,
    pub measured: Spread,
    unit: &'static str,
}

impl Judged {
    /// Whether the target of a figure is the least; otherwise it is the most.
    pub fn is_least(&self) -> bool {
        self.unit == "×"
    }

    pub fn is_met(&self) -> bool {
        match self.is_least() {
            true => self.measured.median >= self.target,
            false => self.measured.median <= self.target,
        }
    }

    pub fn sign(&self) -> &'static str {
        if self.is_least() { "≥" } else { "≤" }
    }

    pub fn show(&self, value: f64) -> String {
        match self.unit {
            "×" => format!("{value:.2} ×"),
            "ms" => format!("{value:.1} ms"),
            unit => format!("{value:.0} {unit}"),
        }
    }

    pub fn json(&self) -> Value {
        json!({
            "title": self.title,
            "measured": self.measured,
            "sign": self.sign(),
            "target": self.target,
            "unit": if self.is_least() { "ratio" } else { self.unit },
            "met": self.is_met(),
        })
    }
}

/// The targets' lines, taken apart.
fn targets() -> impl Iterator<Item = Vec<&'static str>> {
    let lines = TARGETS.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split('|').map(str::trim).collect())
}

/// Judges what there is in `series`.
pub fn judge(series: &[&Series]) -> Vec<Judged> {
    let find = |id: &str| series.iter().find(|series| series.id == id).copied();
    let mut judged = Vec::new();
    for target in targets() {
        let measured = find(target[2]).and_then(|of| match target.get(3) {
            Some(to) => ratio(of, find(to)?, Figure::Rate),
            None => of.spread(Figure::P99),
        });
        judged.extend(measured.map(|measured| Judged {
            title: target[1],
            target: target[0].parse().expect("a test reads all targets"),
            measured,
            unit: if target.len() > 3 { "×" } else { "ms" },
        }));
    }
    // What answers there is not the service.
    let of_service = |series: &&&Series| !series.id.ends_with("empty_handler");
    let peaks = series.iter().filter(of_service);
    let peaks = peaks.filter_map(|series| Some(series.spread(Figure::Memory)?.max / MIB));
    judged.extend(Spread::of(peaks.reduce(f64::max)).map(|measured| Judged {
        title: "memory, the most under any load",
        target: MEMORY_MIB,
        measured,
        unit: "MiB",
    }));
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::baseline::PREFIX;
    use crate::compare::method::Method;
    use crate::compare::sample::Sample;
    use crate::service::TABLES;

    #[test]
    fn a_figure_is_judged_by_its_median_and_only_where_it_was_measured() {
        let rates = [
            ("http_durable_100", 99),
            ("copy_binary", 100),
            ("copy_text", 50),
        ];
        let series = rates.map(|(id, rows)| {
            let mut series = Series::new(format!("interactions/{id}"), id);
            series.samples.push(Sample {
                rows,
                seconds: 1.0,
                service_peak_bytes: Some(64 << 20),
                ..Sample::default()
            });
            series
        });
        let judged = judge(&series.each_ref());
        let met: Vec<_> = judged.iter().map(Judged::is_met).collect();
        assert_eq!(met, [false, true, true], "{judged:#?}");
        assert_eq!(judged[2].unit, "MiB");
    }

    #[test]
    fn every_target_can_be_read_and_its_series_are_measured() {
        assert_eq!(targets().count(), 12);
        for target in targets() {
            assert!(target[0].parse::<f64>().is_ok(), "{target:?}");
            for id in &target[2..] {
                let is_known = TABLES.into_iter().any(|table| {
                    let mut methods = Method::of_a_round(table).into_iter();
                    methods.any(|method| method.id(table) == *id)
                });
                let is_other = id.starts_with("growth/") || id.starts_with(PREFIX);
                assert!(is_other || is_known, "{id}");
            }
        }
    }
}
