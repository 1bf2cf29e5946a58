//! What a run came to, for people and for programs.
//!
//! Knows nothing of how it came about: passes and the check hand in numbers.

mod tally;
mod words;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::check::Findings;
use crate::generate::parse_positive;
use crate::page::page;
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
    pub thresholds: Thresholds,
    /// Of the service, if it says so.
    pub version: Option<String>,
}

/// What a pass has to reach.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Thresholds {
    /// Fail if the p99 of the answers is longer.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub max_p99: Option<Duration>,
    /// Fail if fewer events a second are acknowledged.
    #[arg(long, value_name = "R", value_parser = parse_positive)]
    pub min_rate: Option<f64>,
}

/// Where a report goes, in addition to the words for people.
#[derive(Args, Clone, Debug, Default)]
pub struct Outputs {
    /// Write the report as JSON, too; - is standard output, and the words go to standard error.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report with charts, too, in one HTML file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Outputs {
    /// Says something to people.
    pub fn say(&self, text: &str) {
        let paths = [&self.json, &self.html];
        match paths.into_iter().flatten().any(|path| is_stdout(path)) {
            true => eprint!("{text}"),
            false => print!("{text}"),
        }
    }

    pub fn write(&self, report: &Value) -> anyhow::Result<()> {
        if let Some(path) = &self.json {
            write(path, &(serde_json::to_string_pretty(report)? + "\n"))?;
        }
        self.html
            .as_ref()
            .map_or(Ok(()), |path| write(path, &page(report)))
    }
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if is_stdout(path) {
        print!("{text}");
        return Ok(());
    }
    std::fs::write(path, text)
        .with_context(|| format!("cannot write the report to {}", path.display()))
}

/// What was measured with: this program, the commit of its source, and the service.
pub fn versions(service: Option<String>) -> Value {
    let mut git = Command::new("git");
    let described = git.args(["-C", env!("CARGO_MANIFEST_DIR"), "describe"]);
    let described = described
        .args(["--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .output();
    let commit = described.ok().filter(|output| output.status.success());
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    json!({"recsys-ingest": service, "loadtest": env!("CARGO_PKG_VERSION"), "commit": commit})
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
            "finished": !self.unfinished,
            "made_before": !self.made_late,
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
            "latency_ms": latency_json(&self.latency.0),
            "lateness_ms": latency_json(&self.lateness.0),
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
            if self.unfinished {
                ", stopped early"
            } else {
                ""
            },
        );
        line(out, "acknowledged", &acknowledged);
        for (name, histogram) in [
            ("latency ms", &self.latency.0),
            ("late by ms", &self.lateness.0),
        ] {
            if let Some(latency) = Latency::of(histogram) {
                let pairs = PERCENTILES.iter().zip(latency.0);
                let texts: Vec<_> = pairs.map(|(name, ms)| format!("{name} {ms:.2}")).collect();
                line(out, name, &texts.join("  "));
            }
        }
        if self.made_late {
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

impl Thresholds {
    fn missed(&self, pass: &Tally) -> impl Iterator<Item = String> {
        let p99_ms = Latency::of(&pass.latency.0).map_or(f64::INFINITY, |latency| latency.p99());
        let most_ms = self.max_p99.map(|most| most.as_secs_f64() * 1e3);
        let slow = most_ms.filter(|most| p99_ms > *most);
        let slow =
            slow.map(|most| format!("the p99 is {p99_ms:.1} ms, above --max-p99 {most:.1} ms"));
        let (rate, few) = (
            pass.rate(),
            self.min_rate.filter(|least| pass.rate() < *least),
        );
        let few = few.map(|least| {
            let (rate, least) = (grouped(rate), grouped(least));
            format!("{rate} events/s were acknowledged, below --min-rate {least}")
        });
        slow.into_iter().chain(few)
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
            if pass.unfinished {
                let why = match self.job.schedule.stop.load(Ordering::Relaxed) {
                    true => "interrupted",
                    false => "stopped",
                };
                failures.push(format!("pass {number}: {why} before everything was posted"));
            }
            failures.extend(
                self.thresholds
                    .missed(pass)
                    .map(|missed| format!("pass {number}: {missed}")),
            );
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
            "kind": "run",
            "versions": versions(self.version.clone()),
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
