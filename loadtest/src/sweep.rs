//! `sweep`: the highest rate that is held with a p99 below a bound.
//!
//! Keeps one invariant: every try is an open loop, so that a service that falls
//! behind shows in the latency and cannot slow the schedule down.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;

use crate::options::RunOptions;
use crate::report::{Latency, events_of, float, versions};
use crate::run::Stop;

/// A rate counts as offered if this share of it left in time.
const OFFERED_MIN: f64 = 0.97;
/// From one event a second to more than any machine takes.
const DOUBLINGS_MAX: u32 = 24;
/// With bodies of ten, a hundred bodies: the least that has a p99.
const EVENTS_MIN: u32 = 1_000;
/// Between two tries, for what is still on its way to Postgres.
const REST: Duration = Duration::from_millis(500);

/// Find the highest rate that is held with a p99 below a bound.
///
/// Takes the settings of `run`; --events, --rate, --seed and --repeat are the sweep's to choose.
#[derive(Args, Clone, Debug)]
pub struct SweepOptions {
    /// The most that the p99 of the answers may be.
    #[arg(long, default_value = "20ms", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub p99: Duration,
    /// How long a rate has to be held.
    #[arg(long, default_value = "4s", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// Events a second to begin with.
    #[arg(long, default_value_t = 5_000.0, value_name = "R")]
    pub start: f64,
    /// How close to find the rate, as a share of it.
    #[arg(long, default_value_t = 0.05, value_name = "0..1")]
    pub precision: f64,
    #[command(flatten)]
    pub run: RunOptions,
}

#[derive(Clone, Debug, Serialize)]
struct Try {
    rate: f64,
    /// Events a second that were answered.
    achieved: f64,
    p99_ms: f64,
    held: bool,
    /// Why it is not held.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// Narrows a rate down between one that is held and one that is not.
#[derive(Clone, Copy, Debug, Default)]
struct Search {
    held: Option<f64>,
    lost: Option<f64>,
    precision: f64,
}

impl Search {
    /// The next rate to try; `None` once the answer is close enough.
    fn next(&self, start: f64) -> Option<f64> {
        match (self.held, self.lost) {
            (None, None) => Some(start),
            (Some(held), None) => Some(held * 2.0),
            // Not even this little is held.
            (None, Some(lost)) => (lost > 1.0).then_some(lost / 4.0),
            (Some(held), Some(lost)) if lost / held <= 1.0 + self.precision => None,
            (Some(held), Some(lost)) => Some(f64::midpoint(held, lost)),
        }
    }

    fn learn(&mut self, rate: f64, held: bool) {
        match held {
            true => self.held = Some(self.held.map_or(rate, |best| best.max(rate))),
            false => self.lost = Some(self.lost.map_or(rate, |least| least.min(rate))),
        }
    }
}

/// Searches until the rate is found, or `stop` is set; says whether one is held.
pub async fn sweep(options: &SweepOptions, stop: &Stop) -> anyhow::Result<bool> {
    anyhow::ensure!(
        options.start >= 1.0 && options.precision > 0.0,
        "--start is at least 1, --precision above 0"
    );
    let precision = options.precision;
    let mut search = Search {
        precision,
        ..Search::default()
    };
    let seed = options.run.settings.seed.unwrap_or_else(rand::random);
    let mut tries = Vec::new();
    let say = |text: String| options.run.outputs.say(&text);
    say(format!(
        "{:>12}  {:>12}  {:>10}\n",
        "events/s", "answered/s", "p99"
    ));
    for number in 0..u64::from(DOUBLINGS_MAX) * 2 {
        let Some(rate) = search.next(options.start) else {
            break;
        };
        // Events that were sent before would be duplicates.
        let one = attempt(options, rate, seed.wrapping_add(number), stop).await?;
        if stop.load(Ordering::Relaxed) {
            say("interrupted; of what was tried until then:\n".to_owned());
            break;
        }
        let (achieved, p99_ms) = (one.achieved, one.p99_ms);
        let held = match one.why.as_str() {
            "" => "held".to_owned(),
            why => format!("not held: {why}"),
        };
        say(format!(
            "{rate:>12.0}  {achieved:>12.0}  {p99_ms:>7.1} ms  {held}\n"
        ));
        search.learn(one.rate, one.held);
        tries.push(one);
        tokio::time::sleep(REST).await;
    }
    let p99_ms = options.p99.as_secs_f64() * 1e3;
    say(match search.held {
        Some(held) => format!("held: {held:.0} events/s with a p99 of at most {p99_ms:.1} ms\n"),
        None => "no rate was held\n".to_owned(),
    });
    let job = options.run.job(jiff::Timestamp::now(), seed, stop)?;
    let version = job.target.version().await;
    let report = json!({
        "kind": "sweep",
        "versions": versions(version),
        "p99_ms_max": p99_ms,
        "hold_seconds": options.hold.as_secs_f64(),
        "ack": options.run.ack.as_str(),
        "held": search.held,
        "tries": tries,
    });
    options.run.outputs.write(&report)?;
    Ok(search.held.is_some())
}

async fn attempt(options: &SweepOptions, rate: f64, seed: u64, stop: &Stop) -> anyhow::Result<Try> {
    let mut run = options.run.clone();
    run.settings.seed = Some(seed);
    run.settings.events = events_of(rate * options.hold.as_secs_f64(), EVENTS_MIN);
    run.duration = None;
    let mut job = run.job(jiff::Timestamp::now(), seed, stop)?;
    job.schedule.rate = Some(rate);
    job.schedule.retry = false;
    // A rate that takes four times as long is lost anyway.
    job.schedule.time_limit = options.hold * 4 + Duration::from_secs(1);
    let job = Arc::new(job);
    let made = job.make().await;
    let pass = job.post(made, &ProgressBar::hidden()).await?;
    let total = pass.total();
    anyhow::ensure!(
        total.unknown == 0 && pass.odd.is_empty(),
        "the service did not answer as it should: {}",
        pass.errors.join("; ")
    );
    let p99_ms = Latency::of(&pass.latency.0).map_or(0.0, |latency| latency.p99());
    let achieved = float(total.accepted + total.rejected) / pass.took.as_secs_f64().max(1e-9);
    let mut why = Vec::new();
    if pass.unfinished {
        why.push("it took more than four times as long".to_owned());
    }
    if total.refused > 0 {
        let codes = pass.refusals.keys();
        let codes: Vec<_> = codes
            .map(|(status, code)| format!("{status} {code}"))
            .collect();
        why.push(format!(
            "{} events were refused ({})",
            total.refused,
            codes.join(", ")
        ));
    }
    if p99_ms > options.p99.as_secs_f64() * 1e3 {
        why.push(format!(
            "the p99 is above {}",
            humantime::format_duration(options.p99)
        ));
    }
    if achieved < rate * OFFERED_MIN {
        why.push(format!("{achieved:.0} events/s were answered of {rate:.0}"));
    }
    Ok(Try {
        rate,
        achieved,
        p99_ms,
        held: why.is_empty(),
        why: why.join("; "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_found_from_below_and_from_above_and_the_search_ends_where_there_is_none() {
        for truth in [123_456.0, 900.0, 5_000.0, 0.0] {
            let precision = 0.05;
            let mut search = Search {
                precision,
                ..Search::default()
            };
            let mut tries = 0;
            while let Some(rate) = search.next(5_000.0) {
                search.learn(rate, rate <= truth);
                tries += 1;
            }
            let held = search.held.unwrap_or(0.0);
            assert!(held <= truth && held * 1.05 >= truth, "{held} for {truth}");
            assert!(tries <= DOUBLINGS_MAX, "{tries}");
        }
    }
}
