//! A comparison as one HTML file to look at: no scripts, nothing from elsewhere.
//!
//! Keeps one invariant: what comes from outside (names, versions) is escaped.

mod chart;
mod lines;
#[cfg(test)]
mod tests;

use super::Comparison;
use super::sample::{Figure, Latency, Section, Series, Spread, ratio};
use super::targets::{Judged, WHERE_NOTHING_ELSE};
use super::text;
use crate::report::grouped;
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
    let mut tiles = Vec::new();
    if !judged.is_empty() {
        let met = judged.iter().filter(|judged| judged.is_met()).count();
        let class = if met == judged.len() { "good" } else { "bad" };
        tiles.push((
            class,
            format!("{met} of {}", judged.len()),
            "targets are met",
        ));
    }
    let median = |id: &str, figure: Figure| Some(comparison.find(id)?.spread(figure)?.median);
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
        tiles.extend(median(id, Figure::Rate).map(|rate| ("", grouped(rate), words)));
    }
    let p99 = median("interactions/half_rate_durable", Figure::P99);
    let words = "p99 of a durable answer at half the held rate";
    tiles.extend(p99.map(|p99| ("", format!("{p99:.1} ms"), words)));
    if tiles.is_empty() {
        return;
    }
    *page += "<div class=\"tiles\">\n";
    for (class, number, words) in tiles {
        let number = escape(&number);
        *page += &format!("<div class=\"tile {class}\"><b>{number}</b>{words}</div>\n");
    }
    *page += "</div>\n";
}

/// The targets, and how far they are met.
fn targets(page: &mut String, judged: &[Judged]) {
    if judged.is_empty() {
        return;
    }
    heading(page, "Targets");
    let rates = format!(
        "Rates of {WHERE_NOTHING_ELSE}: a bar that reaches the dashed line is at least as fast as its target."
    );
    let others =
        "Latency and memory: a bar that stays before the dashed line is as low as its target.";
    for (caption, is_least) in [(rates.as_str(), true), (others, false)] {
        let of_kind = judged.iter().filter(|judged| judged.is_least() == is_least);
        let bars: Vec<Bar> = of_kind.map(judged_bar).collect();
        if !bars.is_empty() {
            figure(
                page,
                caption,
                &[],
                &chart::against(caption, "target", &bars),
            );
        }
    }
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
    if section.throughput.is_empty() {
        return;
    }
    heading(page, &format!("{}: rate", section.title));
    let keys = [("--ours", "recsys-ingest"), ("--theirs", "without it")];
    let keys = if section.is_growth() { &[][..] } else { &keys };
    let rows = "Rows a second, until the last one is committed.";
    let requests =
        "Requests of a single event a second; the service's until the last event is committed.";
    for (is_single, caption) in [(false, rows), (true, requests)] {
        let bars = bars_of(of_kind(section, is_single), Figure::Rate, "");
        if !bars.is_empty() {
            figure(page, caption, keys, &chart::bars(caption, &bars));
        }
    }
}

/// Requests of single events, or all else: next to each other neither could be read.
fn of_kind(section: &Section, is_single: bool) -> impl Iterator<Item = &Series> {
    section.throughput.iter().filter(move |series| {
        let id = &series.id;
        (id.ends_with("/http_durable_1") || id.ends_with("/empty_handler")) == is_single
    })
}

fn latency(page: &mut String, section: &Section) {
    let classes = ["ours", "postgres"].into_iter().cycle();
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
    let lines: Vec<Line> = section.paced.iter().zip(classes).filter_map(line).collect();
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
    if section.throughput.is_empty() {
        return;
    }
    heading(page, &format!("{}: cost of an event", section.title));
    let keys = [
        ("--service", "service"),
        ("--postgres", "PostgreSQL"),
        ("--client", "client"),
    ];
    let rows = "Microseconds of CPU for each row. The client is this load generator, or psql.";
    let requests = "Microseconds of CPU for each request of a single event; the empty handler counts as the service.";
    for (is_single, caption) in [(false, rows), (true, requests)] {
        let cpu: Vec<Bar> = of_kind(section, is_single).map(cpu_stack).collect();
        if !cpu.is_empty() {
            figure(page, caption, &keys, &chart::bars(caption, &cpu));
        }
    }
    let wal = bars_of(section.throughput.iter(), Figure::Wal, " B");
    let caption = "Bytes of write-ahead log that PostgreSQL wrote for each row.";
    figure(page, caption, &[], &chart::bars(caption, &wal));
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
    let bars = bars_of(section.throughput.iter(), Figure::Memory, " MiB");
    if !bars.is_empty() {
        heading(page, &format!("{}: memory", section.title));
        let caption = "The most memory that the service had, in MiB.";
        figure(page, caption, &[], &chart::bars(caption, &bars));
    }
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

fn heading(page: &mut String, text: &str) {
    *page += &format!("<h2>{}</h2>\n", escape(text));
}

/// A chart in its frame; keys are colours and what they stand for.
fn figure(page: &mut String, caption: &str, keys: &[(&str, &str)], svg: &str) {
    *page += &format!("<figure><figcaption>{}</figcaption>\n", escape(caption));
    let key = |(color, words): &(&str, &str)| {
        format!("<span style=\"--c:var({color})\">{}</span>", escape(words))
    };
    if !keys.is_empty() {
        let keys: String = keys.iter().map(key).collect();
        *page += &format!("<div class=\"keys\">{keys}</div>\n");
    }
    *page += svg;
    *page += "</figure>\n";
}
