//! What a run came to, for people and for programs.
//!
//! Knows nothing of how it came about: passes and the check hand in numbers.

pub(crate) mod tally;
pub(crate) mod text;

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::check::verdict::Verdict;
use crate::generate::settings::{Encoding, Framing, Order, Settings};
use tally::{Counts, Tally};

/// The percentiles that are reported.
pub(crate) const PERCENTILES: [(&str, f64); 4] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// One pass over all bodies.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    pub(crate) tally: Tally,
    /// From the first body's departure to the last one's answer.
    pub(crate) took: Duration,
    /// Whether all bodies were posted.
    pub(crate) finished: bool,
    /// Whether all bodies were made before the clock started.
    pub(crate) made_before: bool,
}

/// A run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) settings: Settings,
    pub(crate) connections: usize,
    pub(crate) ack: &'static str,
    /// Events a second that were asked for, in an open loop.
    pub(crate) rate: Option<f64>,
    pub(crate) passes: Vec<Pass>,
    /// `None` where there was no database to look into.
    pub(crate) verdict: Option<Verdict>,
}

impl Pass {
    /// Events a second whose storing was promised.
    pub(crate) fn rate(&self) -> f64 {
        let seconds = self.took.as_secs_f64();
        if seconds > 0.0 {
            float(self.tally.total().accepted) / seconds
        } else {
            0.0
        }
    }
}

impl Report {
    /// Everything that went wrong, in words; a run with none of it is good.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let odd: u64 = self.passes.iter().map(|pass| pass.tally.odd).sum();
        if odd > 0 {
            failures.push(format!("{odd} answers were not what they should be"));
        }
        for (number, pass) in self.passes.iter().enumerate() {
            let total = pass.tally.total();
            if total.accepted == 0 {
                failures.push(format!("pass {}: nothing was accepted", number + 1));
            }
            if !pass.finished {
                failures.push(format!(
                    "pass {}: stopped before everything was posted",
                    number + 1
                ));
            }
        }
        if let Some(verdict) = &self.verdict {
            failures.extend(verdict.failures());
        }
        failures
    }

    /// What could not be checked to the end.
    pub(crate) fn unfinished(&self) -> Option<String> {
        self.verdict.as_ref().and_then(Verdict::unfinished)
    }

    /// The report for programs.
    pub(crate) fn json(&self) -> Value {
        let settings = &self.settings;
        json!({
            "run": {
                "seed": settings.seed,
                "until": time(settings.until_us),
                "days": float(settings.span_us.unsigned_abs()) / 86_400e6,
                "order": match settings.order { Order::Time => "time", Order::Random => "random" },
                "events": settings.events,
                "body_events": [settings.body_events.start(), settings.body_events.end()],
                "mix": [settings.mix.0, settings.mix.1],
                "formats": settings.formats.iter().map(|f| f.as_str()).collect::<Vec<_>>(),
                "framing": match settings.framing {
                    Framing::Json => "json",
                    Framing::Ndjson => "ndjson",
                    Framing::Envelope => "envelope",
                },
                "encoding": match settings.encoding {
                    Encoding::None => "none",
                    Encoding::Gzip => "gzip",
                    Encoding::Zstd => "zstd",
                },
                "duplicates": settings.duplicates,
                "invalid": settings.invalid,
                "items": settings.items,
                "users": settings.users,
                "connections": self.connections,
                "ack": self.ack,
                "rate": self.rate,
            },
            "passes": self.passes.iter().map(pass_json).collect::<Vec<_>>(),
            "check": self.verdict.as_ref().map(Verdict::json),
            "failures": self.failures(),
            "unfinished": self.unfinished(),
        })
    }
}

fn pass_json(pass: &Pass) -> Value {
    let tally = &pass.tally;
    let formats: Vec<_> = tally
        .counts
        .iter()
        .map(|((table, format), counts)| {
            let mut object = counts_json(counts);
            object["table"] = table.name().into();
            object["format"] = format.as_str().into();
            object
        })
        .collect();
    let refusals: Vec<_> = tally
        .refusals
        .iter()
        .map(|((status, code), n)| json!({"status": status, "code": code, "attempts": n}))
        .collect();
    json!({
        "seconds": pass.took.as_secs_f64(),
        "finished": pass.finished,
        "made_before": pass.made_before,
        "events_per_second": pass.rate(),
        "bodies": tally.bodies,
        "bytes": tally.bytes,
        "total": counts_json(&tally.total()),
        "formats": formats,
        "acks": tally.acks,
        "refusals": refusals,
        "retries": tally.retries,
        "reconnects": tally.reconnects,
        "odd_answers": tally.odd,
        "latency_ms": latency_json(&tally.latency),
        "lateness_ms": latency_json(&tally.lateness),
        "errors": tally.errors,
    })
}

fn counts_json(counts: &Counts) -> Value {
    json!({
        "accepted": counts.accepted,
        "committed": counts.committed,
        "duplicates": counts.duplicates,
        "quarantined": counts.quarantined,
        "rejected": counts.rejected,
        "refused": counts.refused,
        "unknown": counts.unknown,
    })
}

fn latency_json(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let mut object = serde_json::Map::new();
    for (name, percentile) in PERCENTILES {
        object.insert(name.to_owned(), milliseconds(histogram, percentile).into());
    }
    object.insert("max".to_owned(), (float(histogram.max()) / 1e3).into());
    object.insert("mean".to_owned(), (histogram.mean() / 1e3).into());
    Value::Object(object)
}

/// A percentile in milliseconds.
pub(crate) fn milliseconds(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    float(histogram.value_at_percentile(percentile)) / 1e3
}

/// A count for arithmetic and display.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a run stay far below 2^53"
)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// An instant as RFC 3339.
pub(crate) fn time(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| format!("{us} µs"), |at| at.to_string())
}
