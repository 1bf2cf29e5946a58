//! A comparison as one HTML file to look at: no scripts, nothing from elsewhere.
//!
//! Keeps one invariant: what comes from outside (names, versions) is escaped.

mod chart;
mod lines;

use std::fmt::Write as _;

use super::asks::{Bound, Judged};
use super::outcome::{Outcome, Section};
use super::sample::{Latency, Sample, Series, Spread, ratio};
use super::text::{self, grouped};
use crate::report::float;
use chart::{Bar, Stack};
use lines::Line;

const MIB: f64 = 1_048_576.0;
const CSS: &str = include_str!("page.css");

/// The whole page.
pub(crate) fn render(outcome: &Outcome) -> String {
    let judged = outcome.judged();
    let mut page = String::new();
    put(
        &mut page,
        format_args!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>recsys-ingest and COPY, {date}</title>\n<style>\n{CSS}</style>\n<main>\n\
         <h1>{title}</h1>\n<p class=\"lead\">{summary}</p>\n\
         <p class=\"soft\">Bars are medians, whiskers the least and the most of all rounds. Ratios \
         pair loads of the same round. Rates count until the last row is committed. {date}.</p>\n",
            title = escape(&headline(outcome)),
            summary = escape(&outcome.summary()),
            date = outcome.began_at.strftime("%Y-%m-%d %H:%M UTC"),
        ),
    );
    tiles(&mut page, outcome, &judged);
    asked(&mut page, &judged);
    for section in &outcome.sections {
        throughput(&mut page, section);
    }
    for section in &outcome.sections {
        latency(&mut page, section);
    }
    for section in &outcome.sections {
        if section.is_growth() {
            memory(&mut page, section);
        } else {
            cost(&mut page, section);
        }
    }
    details(&mut page, outcome);
    page.push_str("</main>\n</html>\n");
    page
}

/// Text as it may stand in the page.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(character),
        }
    }
    out
}

/// The one thing to remember.
fn headline(outcome: &Outcome) -> String {
    let http = outcome.find("interactions/http_durable_100");
    let copy = outcome.find("interactions/copy_binary");
    http.zip(copy)
        .and_then(|(http, copy)| ratio(http, copy))
        .map_or("How recsys-ingest grows".to_owned(), |ratio| {
            format!("HTTP at {:.2} times the rate of binary COPY", ratio.median)
        })
}

/// The few numbers that stand out.
fn tiles(page: &mut String, outcome: &Outcome, judged: &[Judged]) {
    let rate = |id: &str| outcome.find(id).and_then(Series::rate);
    let p99 = |id: &str| outcome.find(id)?.spread(|sample| Some(sample.latency?.p99));
    let mut tiles = Vec::new();
    if !judged.is_empty() {
        let met = judged.iter().filter(|judged| judged.is_met()).count();
        let class = if met == judged.len() { "good" } else { "bad" };
        let number = format!("{met} of {}", judged.len());
        tiles.push((class, number, "asked figures are met"));
    }
    for (id, words) in [
        (
            "interactions/http_durable_100",
            "interactions a second over HTTP, committed",
        ),
        (
            "exposures/http_durable_100",
            "exposures a second over HTTP, committed",
        ),
    ] {
        if let Some(rate) = rate(id) {
            tiles.push(("", grouped(rate.median), words));
        }
    }
    if let Some(p99) = p99("interactions/half_rate_durable") {
        let number = format!("{:.1} ms", p99.median);
        tiles.push(("", number, "p99 of a durable answer at half the held rate"));
    }
    if tiles.is_empty() {
        return;
    }
    page.push_str("<div class=\"tiles\">\n");
    for (class, number, words) in tiles {
        put(
            page,
            format_args!(
                "<div class=\"tile {class}\"><b>{}</b>{words}</div>\n",
                escape(&number)
            ),
        );
    }
    page.push_str("</div>\n");
}

/// What is asked, and how far it is met.
fn asked(page: &mut String, judged: &[Judged]) {
    if judged.is_empty() {
        return;
    }
    heading(page, "What was asked");
    let mut kind = |caption: &str, at_least: bool| {
        let bars: Vec<Bar> = judged
            .iter()
            .filter(|judged| matches!(judged.bound, Bound::AtLeast(_)) == at_least)
            .map(judged_bar)
            .collect();
        if !bars.is_empty() {
            figure(page, caption, &[], &chart::against(caption, "asked", &bars));
        }
    };
    kind(
        "At least: a bar that reaches the dashed line is as fast as asked.",
        true,
    );
    kind(
        "At most: a bar that stays before the dashed line is as low as asked.",
        false,
    );
}

fn judged_bar(judged: &Judged) -> Bar {
    let asked = judged.bound.value();
    let share = |value: f64| value / asked;
    Bar {
        name: judged.short.to_owned(),
        value: Spread {
            median: share(judged.measured.median),
            min: share(judged.measured.min),
            max: share(judged.measured.max),
        },
        label: format!(
            "{} ({} {})",
            judged.unit.show(judged.measured.median),
            judged.bound.sign(),
            judged.unit.show(asked)
        ),
        class: if judged.is_met() { "good" } else { "bad" },
    }
}

fn throughput(page: &mut String, section: &Section) {
    let bars: Vec<Bar> = section
        .throughput
        .iter()
        .filter_map(|series| {
            let rate = series.rate()?;
            Some(Bar {
                name: series.title.clone(),
                value: rate,
                label: grouped(rate.median),
                class: class_of(series),
            })
        })
        .collect();
    if bars.is_empty() {
        return;
    }
    heading(page, &format!("{}: rate", section.title));
    let caption = "Rows a second, until the last one is committed.";
    let keys = [("--ours", "recsys-ingest"), ("--theirs", "without it")];
    figure(page, caption, &keys, &chart::bars(caption, &bars));
}

fn latency(page: &mut String, section: &Section) {
    let classes = ["ours", "postgres"].into_iter().cycle();
    let lines: Vec<Line> = section
        .paced
        .iter()
        .zip(classes)
        .filter_map(|(series, class)| {
            let median = |pick: fn(&Latency) -> f64| {
                let spread = series.spread(|sample| sample.latency.as_ref().map(pick))?;
                Some(spread.median)
            };
            Some(Line {
                name: series.title.clone(),
                latency: Latency {
                    p50: median(|latency| latency.p50)?,
                    p90: median(|latency| latency.p90)?,
                    p99: median(|latency| latency.p99)?,
                    p999: median(|latency| latency.p999)?,
                    max: median(|latency| latency.max)?,
                },
                class,
            })
        })
        .collect();
    if lines.is_empty() {
        return;
    }
    heading(page, &format!("{}: latency", section.title));
    let caption = "Milliseconds from when a body was due to its answer, in an open loop at half \
                   the rate that is held; medians of the rounds.";
    figure(page, caption, &[], &lines::lines(caption, &lines));
}

/// CPU and WAL.
fn cost(page: &mut String, section: &Section) {
    let cpu: Vec<Stack> = section.throughput.iter().filter_map(cpu_stack).collect();
    if cpu.is_empty() {
        return;
    }
    heading(page, &format!("{}: cost of an event", section.title));
    let caption = "Microseconds of CPU for each row. The client is this load generator, or psql.";
    let keys = [
        ("--service", "service"),
        ("--postgres", "PostgreSQL"),
        ("--client", "client"),
    ];
    figure(page, caption, &keys, &chart::stacks(caption, &cpu));
    let wal: Vec<Bar> = section
        .throughput
        .iter()
        .filter_map(|series| {
            let bytes = series.spread(Sample::wal_bytes_a_row)?;
            Some(Bar {
                name: series.title.clone(),
                value: bytes,
                label: grouped(bytes.median),
                class: class_of(series),
            })
        })
        .collect();
    let caption = "Bytes of write-ahead log that PostgreSQL wrote for each row.";
    figure(page, caption, &[], &chart::bars(caption, &wal));
}

fn memory(page: &mut String, section: &Section) {
    let bars: Vec<Bar> = section
        .throughput
        .iter()
        .filter_map(|series| {
            let mib = |sample: &Sample| Some(float(sample.service_peak_bytes?) / MIB);
            let peak = series.spread(mib)?;
            Some(Bar {
                name: series.title.clone(),
                value: peak,
                label: format!("{:.0} MiB", peak.median),
                class: class_of(series),
            })
        })
        .collect();
    if bars.is_empty() {
        return;
    }
    heading(page, &format!("{}: memory", section.title));
    let caption = "The most memory that the service had, in MiB.";
    figure(page, caption, &[], &chart::bars(caption, &bars));
}

fn cpu_stack(series: &Series) -> Option<Stack> {
    let median = |spread: Option<Spread>| spread.map_or(0.0, |spread| spread.median);
    let service = median(series.spread(|s| s.cpu_us(s.service_cpu)));
    let postgres = median(series.spread(|s| s.cpu_us(s.postgres_cpu)));
    let client = series.spread(|s| s.cpu_us(Some(s.client_cpu)))?.median;
    Some(Stack {
        name: series.title.clone(),
        parts: vec![
            ("service", service),
            ("postgres", postgres),
            ("client", client),
        ],
        label: format!("{service:.1} + {postgres:.1} + {client:.1}"),
    })
}

/// All numbers, for those who want to check.
fn details(page: &mut String, outcome: &Outcome) {
    page.push_str("<details><summary>All figures</summary>\n");
    for section in &outcome.sections {
        page.push_str("<div class=\"scroll\"><table>\n");
        for (at, row) in text::rows_of(section).iter().enumerate() {
            let tag = if at == 0 { "th" } else { "td" };
            page.push_str("<tr>");
            for cell in row {
                put(page, format_args!("<{tag}>{}</{tag}>", escape(cell)));
            }
            page.push_str("</tr>\n");
        }
        page.push_str("</table></div>\n");
    }
    put(
        page,
        format_args!(
            "<p class=\"soft\">Service, postgres and client are microseconds of CPU a row; WAL is \
             bytes a row; MiB is the service's peak of memory. Linux {}; {:.0} s in all{}.</p>\n</details>\n",
            escape(&outcome.machine.kernel),
            outcome.took.as_secs_f64(),
            match outcome.service_args.as_slice() {
                [] => String::new(),
                more => format!("; service with {}", escape(&more.join(" "))),
            }
        ),
    );
}

fn class_of(series: &Series) -> &'static str {
    if series.id.contains("/http_") || series.id.starts_with("growth") {
        "ours"
    } else {
        "theirs"
    }
}

fn heading(page: &mut String, text: &str) {
    put(page, format_args!("<h2>{}</h2>\n", escape(text)));
}

/// A chart in its frame; keys are colours and what they stand for.
fn figure(page: &mut String, caption: &str, keys: &[(&str, &str)], svg: &str) {
    put(
        page,
        format_args!("<figure><figcaption>{}</figcaption>\n", escape(caption)),
    );
    if !keys.is_empty() {
        page.push_str("<div class=\"keys\">");
        for (color, words) in keys {
            put(
                page,
                format_args!("<span style=\"--c:var({color})\">{}</span>", escape(words)),
            );
        }
        page.push_str("</div>\n");
    }
    page.push_str(svg);
    page.push_str("</figure>\n");
}

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text)
        .expect("writing to a String cannot fail");
}
