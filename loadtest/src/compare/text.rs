//! The tables at the end of a comparison.

use std::fmt::Write as _;

use super::asks::Judged;
use super::outcome::{Outcome, Section};
use super::sample::{Sample, Series, Spread, ratio};
use crate::report::float;

const MIB: f64 = 1_048_576.0;
const HEAD: [&str; 11] = [
    "median of rows/s", "min–max", "acked/s", "service", "postgres", "client", "WAL B", "MiB",
    "p50 ms", "p99 ms", "p99.9 ms",
];

/// The whole report.
pub(crate) fn render(outcome: &Outcome) -> String {
    let mut out = String::new();
    line(&mut out, &outcome.summary());
    line(
        &mut out,
        "CPU is in microseconds a row, WAL in bytes a row.",
    );
    for section in &outcome.sections {
        line(&mut out, "");
        table(&mut out, section);
        ratios(&mut out, section);
    }
    line(&mut out, "");
    line(&mut out, "asked");
    for judged in outcome.judged() {
        line(&mut out, &verdict(&judged));
    }
    line(
        &mut out,
        &format!("\ntook {:.0} s", outcome.took.as_secs_f64()),
    );
    out
}

/// The table of a section: a head, then a row for each series.
pub(crate) fn rows_of(section: &Section) -> Vec<Vec<String>> {
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    rows[0].insert(0, section.title.clone());
    rows.extend(section.series().map(cells));
    rows
}

fn table(out: &mut String, section: &Section) {
    let rows = rows_of(section);
    let columns = rows[0].len();
    let widths: Vec<usize> = (0..columns)
        .map(|at| rows.iter().map(|row| width(&row[at])).max().unwrap_or(0))
        .collect();
    for row in rows {
        let mut text = String::new();
        for (at, (cell, wide)) in row.iter().zip(&widths).enumerate() {
            let blank = " ".repeat(wide - width(cell));
            // Names to the left, numbers to the right.
            match at {
                0 => text.extend([cell.as_str(), &blank]),
                _ => text.extend(["  ", &blank, cell]),
            }
        }
        line(out, text.trim_end());
    }
}

fn cells(series: &Series) -> Vec<String> {
    let show = |spread: Option<Spread>, digits: usize| {
        spread.map_or("-".to_owned(), |spread| {
            format!("{:.digits$}", spread.median)
        })
    };
    let latency = |pick: fn(&super::sample::Latency) -> f64| {
        show(series.spread(|s| s.latency.as_ref().map(pick)), 1)
    };
    let rate = series.rate();
    vec![
        series.title.clone(),
        rate.map_or("-".to_owned(), |rate| grouped(rate.median)),
        rate.map_or("-".to_owned(), |rate| {
            format!("{}–{}", grouped(rate.min), grouped(rate.max))
        }),
        series
            .spread(Sample::acked_rate)
            .map_or("-".to_owned(), |rate| grouped(rate.median)),
        show(series.spread(|s| s.cpu_us(s.service_cpu)), 2),
        show(series.spread(|s| s.cpu_us(s.postgres_cpu)), 2),
        show(series.spread(|s| s.cpu_us(Some(s.client_cpu))), 2),
        show(series.spread(Sample::wal_bytes_a_row), 0),
        show(
            series.spread(|s| s.service_peak_bytes.map(|bytes| float(bytes) / MIB)),
            0,
        ),
        latency(|latency| latency.p50),
        latency(|latency| latency.p99),
        latency(|latency| latency.p999),
    ]
}

/// The HTTP loads against those without; along an axis, all against the first.
fn ratios(out: &mut String, section: &Section) {
    if let Some((first, others)) = section.throughput.split_first()
        && section.is_growth()
    {
        for series in others {
            if let Some(ratio) = ratio(series, first) {
                let (to, of) = (&first.title, &series.title);
                line(out, &format!("  {of}: {:.2} × {to}", ratio.median));
            }
        }
        return;
    }
    if section.is_pair() {
        for pair in section.throughput.as_chunks::<2>().0 {
            line(out, &to_baseline(pair));
        }
        return;
    }
    let is_http = |series: &&Series| series.id.contains("/http_");
    for http in section.throughput.iter().filter(is_http) {
        let against: Vec<String> = section
            .throughput
            .iter()
            .filter(|series| !is_http(series))
            // Single events are set against an empty handler, and nothing else is.
            .filter(|series| series.id.ends_with("/empty_handler") == http.id.ends_with("_1"))
            .filter_map(|copy| {
                let ratio = ratio(http, copy)?;
                Some(format!("{:.2} × {}", ratio.median, copy.title))
            })
            .collect();
        if !against.is_empty() {
            line(out, &format!("  {}: {}", http.title, against.join(", ")));
        }
    }
}

/// A build's rate and CPU to those of the baseline, paired round by round.
fn to_baseline([new, old]: &[Series; 2]) -> String {
    let show = |spread: Option<Spread>| match spread {
        Some(Spread { median, min, max }) => format!("{median:.3} ({min:.2}–{max:.2})"),
        None => "-".to_owned(),
    };
    let cpu = |sample: &Sample| sample.cpu_us(sample.service_cpu).unwrap_or(f64::NAN);
    let pairs = new.samples.iter().zip(&old.samples);
    let cpu = Spread::of(pairs.map(|(new, old)| cpu(new) / cpu(old)));
    let (rate, cpu) = (show(ratio(new, old)), show(cpu));
    format!(
        "  {}: rate {rate}, CPU of the service {cpu} × the baseline",
        new.title
    )
}

fn verdict(judged: &Judged) -> String {
    let unit = judged.unit;
    let range = if judged.measured.min < judged.measured.max {
        format!(
            " ({}–{})",
            unit.show(judged.measured.min),
            unit.show(judged.measured.max)
        )
    } else {
        String::new()
    };
    format!(
        "  {} {}: {}{range}, asked {} {}",
        if judged.is_met() { "ok  " } else { "MISS" },
        judged.title,
        unit.show(judged.measured.median),
        judged.bound.sign(),
        unit.show(judged.bound.value()),
    )
}

/// A large number, in groups of three digits.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("writing to a String cannot fail");
}
