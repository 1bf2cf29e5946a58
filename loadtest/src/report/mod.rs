//! What a run came to, for people and for programs.
//!
//! Knows nothing of how it came about: passes and the check hand in numbers.

mod tally;
mod words;

use std::path::Path;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::check::Findings;
use crate::run::Job;
use crate::service::{Format, word};
pub use tally::{Counts, Tally};
pub use words::{Latency, PERCENTILES, count, events_of, float, grouped, line, time};

#[derive(Debug)]
pub struct Report<'r> {
    pub job: &'r Job,
    pub passes: Vec<Tally>,
    /// `None` where there was no database to look into.
    pub findings: Option<Findings>,
}

pub fn write_json(path: Option<&Path>, report: &Value) -> anyhow::Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    std::fs::write(path, serde_json::to_string_pretty(report)? + "\n")
        .with_context(|| format!("cannot write the report to {}", path.display()))
}

impl Tally {
    fn rate(&self) -> f64 {
        float(self.total().accepted) / self.took.as_secs_f64().max(1e-9)
    }

    fn json(&self) -> Value {
        let mut formats = Vec::new();
        for ((table, format), counts) in &self.counts {
            let mut object = json!(counts);
            object["table"] = table.as_str().into();
            object["format"] = Format::ALL[*format].as_str().into();
            formats.push(object);
        }
        let refusal = |((status, code), n): (&(u16, String), &u64)| json!({"status": status, "code": code, "attempts": n});
        json!({
            "seconds": self.took.as_secs_f64(),
            "finished": self.finished,
            "made_before": self.made_before,
            "events_per_second": self.rate(),
            "bodies": self.bodies,
            "bytes": self.bytes,
            "total": self.total(),
            "formats": formats,
            "acks": self.acks,
            "refusals": self.refusals.iter().map(refusal).collect::<Vec<_>>(),
            "retries": self.retries,
            "reconnects": self.reconnects,
            "odd_answers": self.odd.len(),
            "latency_ms": latency_json(&self.latency),
            "lateness_ms": latency_json(&self.lateness),
            "errors": self.errors,
        })
    }

    fn render(&self, out: &mut String) {
        let total = self.total();
        let acknowledged = format!(
            "{} events/s ({} in {:.2} s, {} bodies, {:.1} MB/s{})",
            grouped(self.rate()),
            count(total.accepted),
            self.took.as_secs_f64(),
            count(self.bodies),
            float(self.bytes) / 1e6 / self.took.as_secs_f64().max(1e-9),
            if self.finished { "" } else { ", stopped early" },
        );
        line(out, "acknowledged", &acknowledged);
        for (name, histogram) in [
            ("latency ms", &self.latency),
            ("late by ms", &self.lateness),
        ] {
            if let Some(latency) = Latency::of(histogram) {
                let pairs = PERCENTILES.iter().zip(latency.0);
                let texts: Vec<_> = pairs.map(|(name, ms)| format!("{name} {ms:.2}")).collect();
                line(out, name, &texts.join("  "));
            }
        }
        if !self.made_before {
            let note = "not all bodies fitted into memory: some were made while the clock ran (--prepare-mb)";
            line(out, "note", note);
        }
        type Count = fn(&Counts) -> u64;
        let columns: [(&str, Count); 6] = [
            ("accepted", |counts| counts.accepted),
            ("committed", |counts| counts.committed),
            ("duplicates", |counts| counts.duplicates),
            ("rejected", |counts| counts.rejected),
            ("refused", |counts| counts.refused),
            ("unknown", |counts| counts.unknown),
        ];
        let titles = columns.map(|(title, _)| format!("{title:>12}"));
        line(out, "events", &titles.concat());
        let mut row = |name: &str, counts: &Counts| {
            let cells = columns.map(|(_, of)| format!("{:>12}", count(of(counts))));
            line(out, name, &cells.concat());
        };
        for ((table, format), counts) in &self.counts {
            let name = format!("  {} {}", word(*table), Format::ALL[*format].as_str());
            row(&name, counts);
        }
        row("  all", &total);
        let ack = |(ack, n): (&&str, &u64)| format!("{ack} {}", count(*n));
        let acks: Vec<_> = self.acks.iter().map(ack).collect();
        line(out, "answers", &acks.join(", "));
        if self.retries + self.reconnects > 0 || !self.refusals.is_empty() {
            let (retries, reconnects) = (self.retries, self.reconnects);
            let mut text = format!("{retries} retries, {reconnects} reconnects");
            for ((status, code), n) in &self.refusals {
                text += &format!(", {} × {status} {code}", count(*n));
            }
            line(out, "refusals", &text);
        }
        for error in &self.errors {
            line(out, "error", error);
        }
    }
}

impl Report<'_> {
    /// Everything that went wrong, in words; a run with none of it is good.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let odd: usize = self.passes.iter().map(|pass| pass.odd.len()).sum();
        if odd > 0 {
            failures.push(format!("{odd} answers were not what they should be"));
        }
        for (number, pass) in (1..).zip(&self.passes) {
            if pass.total().accepted == 0 {
                failures.push(format!("pass {number}: nothing was accepted"));
            }
            if !pass.finished {
                failures.push(format!(
                    "pass {number}: stopped before everything was posted"
                ));
            }
        }
        failures.extend(self.findings.iter().flat_map(Findings::failures));
        failures
    }

    /// What could not be checked to the end.
    pub fn unfinished(&self) -> Option<String> {
        self.findings.as_ref().and_then(Findings::unfinished)
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        let (plan, ack) = (&self.job.plan, self.job.schedule.ack);
        let run = format!(
            "{} events, {} connections, ack={ack}, seed {}, until {}",
            grouped(plan.settings.events.into()),
            self.job.schedule.connections,
            plan.seed,
            time(plan.settings.until_us())
        );
        line(&mut out, "run", &run);
        for (number, pass) in (1..).zip(&self.passes) {
            if self.passes.len() > 1 {
                line(&mut out, "pass", &format!("{number}"));
            }
            pass.render(&mut out);
        }
        match &self.findings {
            Some(findings) => findings.render(&mut out),
            None => {
                let none = "none: give --database-url to compare with the tables";
                line(&mut out, "check", none);
            }
        }
        let (failures, unfinished) = (self.failures(), self.unfinished());
        for failure in &failures {
            line(&mut out, "FAILED", failure);
        }
        if let Some(what) = &unfinished {
            line(&mut out, "UNFINISHED", what);
        }
        if failures.is_empty() && unfinished.is_none() {
            let good = match self.findings {
                Some(_) => "every event acknowledged is stored exactly once",
                None => "every answer is what it should be",
            };
            line(&mut out, "good", good);
        }
        out
    }

    pub fn json(&self) -> Value {
        let (plan, settings) = (&self.job.plan, &self.job.plan.settings);
        json!({
            "run": {
                "seed": plan.seed,
                "until": time(settings.until_us()),
                "days": settings.days,
                "order": settings.order,
                "events": settings.events,
                "body_events": [settings.body_events.start(), settings.body_events.end()],
                "mix": settings.mix,
                "formats": settings.formats.iter().map(|f| f.as_str()).collect::<Vec<_>>(),
                "framing": settings.framing,
                "encoding": settings.encoding,
                "duplicates": settings.duplicates,
                "invalid": settings.invalid,
                "items": settings.items,
                "users": settings.users,
                "connections": self.job.schedule.connections,
                "ack": self.job.schedule.ack.as_str(),
                "rate": self.job.schedule.rate,
            },
            "passes": self.passes.iter().map(Tally::json).collect::<Vec<_>>(),
            "check": self.findings,
            "failures": self.failures(),
            "unfinished": self.unfinished(),
        })
    }
}

fn latency_json(histogram: &Histogram<u64>) -> Value {
    let mut object = json!(Latency::of(histogram));
    if object.is_object() {
        object["mean"] = (histogram.mean() / 1e3).into();
    }
    object
}
