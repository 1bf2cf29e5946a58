//! A comparison as one HTML file to look at: no scripts, nothing from elsewhere.
//!
//! Keeps one invariant: what comes from outside (names, versions) is escaped.

mod chart;
mod lines;
#[cfg(test)]
mod tests;

use super::Comparison;
use super::sample::{Figure, Section, Series, Spread, ratio};
use super::targets::{Judged, WHERE_NOTHING_ELSE};
use super::text;
use crate::report::{Latency, grouped};
use chart::Bar;
use lines::Line;

const CSS: &str = include_str!("page.css");

pub fn render(comparison: &Comparison) -> String {
    let judged = comparison.judged();
    let date = comparison.began_at.strftime("%Y-%m-%d %H:%M UTC");
    let title = escape(&headline(comparison));
    let summary = escape(&comparison.summary());
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>recsys-ingest and COPY, {date}</title>\n<style>\n{CSS}</style>\n<main>\n\
         <h1>{title}</h1>\n<p class=\"lead\">{summary}</p>\n\
         <p class=\"soft\">Bars are medians, whiskers the least and the most of all rounds. Ratios \
         pair loads of the same round. Rates count until the last row is committed. {date}.</p>\n"
    );
    tiles(&mut page, comparison, &judged);
    targets(&mut page, &judged);
    let sections = &comparison.sections;
    for section in sections {
        throughput(&mut page, section);
    }
    for section in sections {
        latency(&mut page, section);
    }
    for section in sections {
        match section.is_growth() {
            true => memory(&mut page, section),
            false => cost(&mut page, section),
        }
    }
    details(&mut page, comparison);
    page + "</main>\n</html>\n"
}

/// Text as it may stand in the page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The one thing to remember.
fn headline(comparison: &Comparison) -> String {
    let http = comparison.find("interactions/http_durable_100");
    let copy = comparison.find("interactions/copy_binary");
    let ratio = http
        .zip(copy)
        .and_then(|(http, copy)| ratio(http, copy, Figure::Rate));
    ratio.map_or("How recsys-ingest grows".to_owned(), |ratio| {
        format!("HTTP at {:.2} times the rate of binary COPY", ratio.median)
    })
}

/// The few numbers that stand out.
fn tiles(page: &mut String, comparison: &Comparison, judged: &[Judged]) {
    let mut tiles = String::new();
    let mut tile = |class: &str, number: &str, words: &str| {
        let number = escape(number);
        tiles += &format!("<div class=\"tile {class}\"><b>{number}</b>{words}</div>\n");
    };
    if !judged.is_empty() {
        let met = judged.iter().filter(|judged| judged.is_met()).count();
        let class = if met == judged.len() { "good" } else { "bad" };
        let number = format!("{met} of {}", judged.len());
        tile(class, &number, "targets are met");
    }
    let median = |id: &str, figure: Figure| Some(comparison.find(id)?.spread(figure)?.median);
    for events in ["interactions", "exposures"] {
        if let Some(rate) = median(&format!("{events}/http_durable_100"), Figure::Rate) {
            let words = format!("{events} a second over HTTP, committed");
            tile("", &grouped(rate), &words);
        }
    }
    if let Some(p99) = median("interactions/half_rate_durable", Figure::P99) {
        let words = "p99 of a durable answer at half the held rate";
        tile("", &format!("{p99:.1} ms"), words);
    }
    if !tiles.is_empty() {
        *page += &format!("<div class=\"tiles\">\n{tiles}</div>\n");
    }
}

/// The targets, and how far they are met.
fn targets(page: &mut String, judged: &[Judged]) {
    let rates = format!(
        "Rates of {WHERE_NOTHING_ELSE}: a bar that reaches the dashed line is at least as fast as its target."
    );
    let others =
        "Latency and memory: a bar that stays before the dashed line is as low as its target.";
    let figures = [(rates.as_str(), true), (others, false)].map(|(caption, is_least)| {
        let of_kind = judged.iter().filter(|judged| judged.is_least() == is_least);
        let bars: Vec<Bar> = of_kind.map(judged_bar).collect();
        figure(caption, &[], &chart::against(caption, "target", &bars))
    });
    part(page, "Targets", &figures);
}

fn judged_bar(judged: &Judged) -> Bar {
    let spread = judged.measured.over(judged.target);
    let class = if judged.is_met() { "good" } else { "bad" };
    let (median, target) = (
        judged.show(judged.measured.median),
        judged.show(judged.target),
    );
    Bar {
        name: judged.title.to_owned(),
        parts: vec![(class, spread.median)],
        whisker: Some(spread),
        label: format!("{median} ({} {target})", judged.sign()),
    }
}

/// A bar of a figure for each series that has it.
fn bars_of<'s>(series: impl Iterator<Item = &'s Series>, figure: Figure, unit: &str) -> Vec<Bar> {
    let bar = |series: &Series| {
        let is_ours = series.id.contains("/http_") || series.id.starts_with("growth");
        let spread = series.spread(figure)?;
        Some(Bar {
            name: series.title.clone(),
            parts: vec![(if is_ours { "ours" } else { "theirs" }, spread.median)],
            whisker: Some(spread),
            label: figure.show(spread.median) + unit,
        })
    };
    series.filter_map(bar).collect()
}

fn throughput(page: &mut String, section: &Section) {
    let keys = [("--ours", "recsys-ingest"), ("--theirs", "without it")];
    let keys = if section.is_growth() { &[][..] } else { &keys };
    let rows = "Rows a second, until the last one is committed.";
    let requests =
        "Requests of a single event a second; the service's until the last event is committed.";
    let figures = [(false, rows), (true, requests)].map(|(is_single, caption)| {
        let bars = bars_of(of_kind(section, is_single), Figure::Rate, "");
        figure(caption, keys, &chart::bars(caption, &bars))
    });
    part(page, &format!("{}: rate", section.title), &figures);
}

/// Requests of single events, or all else: next to each other neither could be read.
fn of_kind(section: &Section, is_single: bool) -> impl Iterator<Item = &Series> {
    section.throughput().filter(move |series| {
        let id = &series.id;
        (id.ends_with("/http_durable_1") || id.ends_with("/empty_handler")) == is_single
    })
}

fn latency(page: &mut String, section: &Section) {
    let classes = ["ours", "postgres"].into_iter().cycle();
    let paced = section.series.iter().filter(|series| series.is_paced());
    let line = |(series, class): (&Series, &'static str)| {
        let mut latency = Latency([0.0; 5]);
        for (at, median) in latency.0.iter_mut().enumerate() {
            let of_rounds = series.samples.iter().filter_map(|sample| sample.latency);
            *median = Spread::of(of_rounds.map(|latency| latency.0[at]))?.median;
        }
        let name = series.title.clone();
        Some(Line {
            name,
            latency,
            class,
        })
    };
    let lines: Vec<Line> = paced.zip(classes).filter_map(line).collect();
    let caption = "Milliseconds from when a body was due to its answer, in an open loop at half \
                   the rate that is held; medians of the rounds.";
    let figure = figure(caption, &[], &lines::lines(caption, &lines));
    part(page, &format!("{}: latency", section.title), &[figure]);
}

/// CPU and WAL.
fn cost(page: &mut String, section: &Section) {
    let keys = [
        ("--service", "service"),
        ("--postgres", "PostgreSQL"),
        ("--client", "client"),
    ];
    let rows = "Microseconds of CPU for each row. The client is this load generator, or psql.";
    let requests = "Microseconds of CPU for each request of a single event; the empty handler counts as the service.";
    let [rows, requests] = [(false, rows), (true, requests)].map(|(is_single, caption)| {
        let cpu: Vec<Bar> = of_kind(section, is_single).map(cpu_stack).collect();
        figure(caption, &keys, &chart::bars(caption, &cpu))
    });
    let wal = bars_of(section.throughput(), Figure::Wal, " B");
    let caption = "Bytes of write-ahead log that PostgreSQL wrote for each row.";
    let wal = figure(caption, &[], &chart::bars(caption, &wal));
    let title = format!("{}: cost of an event", section.title);
    part(page, &title, &[rows, requests, wal]);
}

fn cpu_stack(series: &Series) -> Bar {
    let median = |figure| series.spread(figure).map_or(0.0, |spread| spread.median);
    let parts = vec![
        ("service", median(Figure::ServiceCpu)),
        ("postgres", median(Figure::PostgresCpu)),
        ("client", median(Figure::ClientCpu)),
    ];
    Bar {
        name: series.title.clone(),
        label: format!(
            "{:.1} µs",
            parts.iter().map(|(_, value)| value).sum::<f64>()
        ),
        parts,
        whisker: None,
    }
}

fn memory(page: &mut String, section: &Section) {
    let bars = bars_of(section.throughput(), Figure::Memory, " MiB");
    let caption = "The most memory that the service had, in MiB.";
    let figure = figure(caption, &[], &chart::bars(caption, &bars));
    part(page, &format!("{}: memory", section.title), &[figure]);
}

/// All numbers, for those who want to check.
fn details(page: &mut String, comparison: &Comparison) {
    *page += "<details><summary>All figures</summary>\n";
    for section in &comparison.sections {
        *page += "<div class=\"scroll\"><table>\n";
        for (at, row) in text::rows_of(section).iter().enumerate() {
            let tag = if at == 0 { "th" } else { "td" };
            let cells = row
                .iter()
                .map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)));
            *page += &format!("<tr>{}</tr>\n", cells.collect::<String>());
        }
        *page += "</table></div>\n";
    }
    *page += &format!(
        "<p class=\"soft\">Service, postgres and client are microseconds of CPU a row; WAL is \
         bytes a row; MiB is the service's peak of memory. Linux {}; {:.0} s in all{}.</p>\n</details>\n",
        escape(&comparison.machine.kernel),
        comparison.took.as_secs_f64(),
        match comparison.service_args.as_slice() {
            [] => String::new(),
            more => format!("; service with {}", escape(&more.join(" "))),
        }
    );
}

/// A heading, and the charts below it; nothing where no chart has anything to show.
fn part(page: &mut String, title: &str, figures: &[String]) {
    if figures.iter().any(|figure| !figure.is_empty()) {
        *page += &format!("<h2>{}</h2>\n{}", escape(title), figures.concat());
    }
}

/// A chart in its frame; keys are colours and what they stand for.
fn figure(caption: &str, keys: &[(&str, &str)], svg: &str) -> String {
    if svg.is_empty() {
        return String::new();
    }
    let key = |(color, words): &(&str, &str)| {
        format!("<span style=\"--c:var({color})\">{}</span>", escape(words))
    };
    let mut keys: String = keys.iter().map(key).collect();
    if !keys.is_empty() {
        keys = format!("<div class=\"keys\">{keys}</div>\n");
    }
    let caption = escape(caption);
    format!("<figure><figcaption>{caption}</figcaption>\n{keys}{svg}</figure>\n")
}
