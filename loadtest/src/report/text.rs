//! The table at the end of a run.

use std::fmt::Write as _;

use super::{PERCENTILES, Pass, Report, float, milliseconds, time};

/// The whole report.
pub(crate) fn render(report: &Report) -> String {
    let mut out = String::new();
    let settings = &report.settings;
    line(
        &mut out,
        "run",
        format!(
            "{} events, {} connections, ack={}, seed {}, until {}",
            grouped(settings.events.into()),
            report.connections,
            report.ack,
            settings.seed,
            time(settings.until_us)
        ),
    );
    for (at, pass) in report.passes.iter().enumerate() {
        if report.passes.len() > 1 {
            line(&mut out, "pass", format!("{}", at + 1));
        }
        render_pass(&mut out, pass);
    }
    match &report.verdict {
        Some(verdict) => verdict.render(&mut out),
        None => line(
            &mut out,
            "check",
            "none: give --database-url to compare with the tables".to_owned(),
        ),
    }
    let failures = report.failures();
    for failure in &failures {
        line(&mut out, "FAILED", failure.clone());
    }
    let unfinished = report.unfinished();
    if let Some(what) = &unfinished {
        line(&mut out, "UNFINISHED", what.clone());
    }
    if failures.is_empty() && unfinished.is_none() {
        let what = match report.verdict {
            Some(_) => "every event acknowledged is stored exactly once",
            None => "every answer is what it should be",
        };
        line(&mut out, "good", what.to_owned());
    }
    out
}

fn render_pass(out: &mut String, pass: &Pass) {
    let tally = &pass.tally;
    let total = tally.total();
    let cut = if pass.finished { "" } else { ", stopped early" };
    line(
        out,
        "acknowledged",
        format!(
            "{} events/s ({} in {:.2} s, {} bodies, {:.1} MB/s{cut})",
            grouped_float(pass.rate()),
            grouped(total.accepted),
            pass.took.as_secs_f64(),
            grouped(tally.bodies),
            float(tally.bytes) / 1e6 / pass.took.as_secs_f64().max(1e-9),
        ),
    );
    for (name, histogram) in [
        ("latency ms", &tally.latency),
        ("late by ms", &tally.lateness),
    ] {
        if histogram.is_empty() {
            continue;
        }
        let mut text = String::new();
        for (label, percentile) in PERCENTILES {
            let value = milliseconds(histogram, percentile);
            write!(text, "{label} {value:.2}  ").expect("a String takes all");
        }
        write!(text, "max {:.2}", float(histogram.max()) / 1e3).expect("a String takes all");
        line(out, name, text);
    }
    if !pass.made_before {
        line(
            out,
            "note",
            "not all bodies fitted into memory: some were made while the clock ran (--prepare-mb)"
                .to_owned(),
        );
    }
    let header = [
        "accepted", "committed", "duplicates", "rejected", "refused", "unknown",
    ];
    let mut titles = String::new();
    for title in header {
        write!(titles, "{title:>12}").expect("a String takes all");
    }
    line(out, "events", titles);
    let mut row = |name: String, counts: &super::Counts| {
        let mut cells = String::new();
        for cell in [
            counts.accepted, counts.committed, counts.duplicates, counts.rejected, counts.refused,
            counts.unknown,
        ] {
            write!(cells, "{:>12}", grouped(cell)).expect("a String takes all");
        }
        line(out, &name, cells);
    };
    for ((table, format), counts) in &tally.counts {
        let table = table.path().trim_start_matches("/v1/");
        row(format!("  {table} {}", format.as_str()), counts);
    }
    row("  all".to_owned(), &total);
    let acks: Vec<_> = tally
        .acks
        .iter()
        .map(|(ack, n)| format!("{ack} {}", grouped(*n)))
        .collect();
    line(out, "answers", acks.join(", "));
    if tally.retries + tally.reconnects > 0 || !tally.refusals.is_empty() {
        let mut text = format!(
            "{} retries, {} reconnects",
            grouped(tally.retries),
            grouped(tally.reconnects)
        );
        for ((status, code), n) in &tally.refusals {
            write!(text, ", {} × {status} {code}", grouped(*n)).expect("a String takes all");
        }
        line(out, "refusals", text);
    }
    for error in &tally.errors {
        line(out, "error", error.clone());
    }
}

/// One line, its label in a column of its own.
pub(crate) fn line(out: &mut String, label: &str, text: String) {
    writeln!(out, "{label:<26} {text}").expect("a String takes all");
}

/// A number with its thousands apart.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates are positive and far below 2^53"
)]
fn grouped_float(value: f64) -> String {
    grouped(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(grouped(n), text);
        }
    }
}
