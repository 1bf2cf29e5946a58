//! The tables at the end of a comparison.

use super::Comparison;
use super::sample::{FIGURES, Figure, Section, Series, Spread, ratio};
use super::targets::{Judged, WHERE_NOTHING_ELSE};
use crate::report::grouped;

/// What stands before a report of `--quick`.
const QUICK: &str = "QUICK: to see that it works, not to quote. ";

/// What stands before that of one that a signal ended.
const INTERRUPTED: &str = "INTERRUPTED: of what was measured until then. ";

pub fn render(comparison: &Comparison) -> String {
    let interrupted = if comparison.is_interrupted {
        INTERRUPTED
    } else {
        ""
    };
    let quick = if comparison.is_quick { QUICK } else { "" };
    let mut lines = vec![
        format!("{interrupted}{quick}{}", comparison.summary()),
        "CPU is in microseconds a row, WAL in bytes a row.".to_owned(),
    ];
    for section in &comparison.sections {
        lines.push(String::new());
        table(&mut lines, section);
        ratios(&mut lines, section);
    }
    lines.push(format!("\ntargets ({WHERE_NOTHING_ELSE})"));
    lines.extend(comparison.judged().iter().map(words));
    lines.push(format!("\ntook {:.0} s\n", comparison.took.as_secs_f64()));
    lines.join("\n")
}

/// The table of a section: a head, then a row for each series.
fn rows_of(section: &Section) -> Vec<Vec<String>> {
    let mut head: Vec<String> = FIGURES.map(|(_, _, head)| head.to_owned()).into();
    head.insert(0, section.title.clone());
    head.insert(2, "min–max".to_owned());
    let mut rows = vec![head];
    for series in &section.series {
        let show = |figure: Figure, words: &dyn Fn(Spread) -> String| {
            series.spread(figure).map_or("-".to_owned(), words)
        };
        let cell = |figure: Figure| show(figure, &|spread| figure.show(spread.median));
        let mut row: Vec<String> = FIGURES.map(|(figure, ..)| cell(figure)).into();
        row.insert(0, series.title.clone());
        let range = |rate: Spread| format!("{}–{}", grouped(rate.min), grouped(rate.max));
        row.insert(2, show(Figure::Rate, &range));
        rows.push(row);
    }
    rows
}

fn table(lines: &mut Vec<String>, section: &Section) {
    let rows = rows_of(section);
    let width = |text: &String| text.chars().count();
    let widest = |at: usize| rows.iter().map(|row| width(&row[at])).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(widest).collect();
    for row in rows {
        // Names to the left, numbers to the right.
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, wide) in row.iter().zip(&widths).skip(1) {
            line += &format!("  {cell:>wide$}");
        }
        lines.push(line);
    }
}

/// The HTTP loads against those without; along an axis, all against the first.
fn ratios(lines: &mut Vec<String>, section: &Section) {
    let times = |of: &Series, to: &Series| {
        let ratio = ratio(of, to, Figure::Rate)?;
        Some(format!("{:.2} × {}", ratio.median, to.title))
    };
    let all: Vec<&Series> = section.throughput().collect();
    if section.is_pair() {
        let pairs = section.series.as_chunks::<2>().0;
        lines.extend(pairs.iter().map(to_baseline));
        return;
    }
    let is_http = |series: &&Series| series.id.contains("/http_");
    let is_measured = |series: &&Series| section.is_growth() || is_http(series);
    for of in all.iter().copied().filter(is_measured) {
        let is_other = |to: &&Series| match section.is_growth() {
            true => to.id == all[0].id && to.id != of.id,
            // Single events are set against an empty handler, and nothing else is.
            false => !is_http(to) && to.id.ends_with("/empty_handler") == of.id.ends_with("_1"),
        };
        let others = all.iter().copied().filter(is_other);
        let against: Vec<String> = others.filter_map(|to| times(of, to)).collect();
        if !against.is_empty() {
            lines.push(format!("  {}: {}", of.title, against.join(", ")));
        }
    }
}

/// A build's rate and CPU to those of the baseline, paired round by round.
fn to_baseline([new, old]: &[Series; 2]) -> String {
    let show = |figure| match ratio(new, old, figure) {
        Some(Spread { median, min, max }) => format!("{median:.3} ({min:.2}–{max:.2})"),
        None => "-".to_owned(),
    };
    let (rate, cpu) = (show(Figure::Rate), show(Figure::ServiceCpu));
    let title = &new.title;
    format!("  {title}: rate {rate}, CPU of the service {cpu} × the baseline")
}

/// A figure and its target.
fn words(judged: &Judged) -> String {
    let Spread { median, min, max } = judged.measured;
    let range = match min < max {
        true => format!(" ({}–{})", judged.show(min), judged.show(max)),
        false => String::new(),
    };
    format!(
        "  {} {}: {}{range}, target {} {}",
        if judged.is_met() { "ok  " } else { "MISS" },
        judged.title,
        judged.show(median),
        judged.sign(),
        judged.show(judged.target),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::machine::Machine;
    use crate::compare::sample::Sample;

    #[test]
    fn an_interrupted_comparison_says_so_and_shows_what_was_measured() {
        let mut series = Series::new("interactions/http_durable_100", "HTTP");
        series.samples.push(Sample {
            rows: 1_000,
            seconds: 1.0,
            ..Sample::default()
        });
        let comparison = Comparison {
            machine: Machine {
                cpu: "a CPU".to_owned(),
                cores: 2,
                memory_bytes: 1 << 30,
                kernel: String::new(),
                postgres: "17".to_owned(),
                sync_ms: None,
            },
            began_at: jiff::Timestamp::UNIX_EPOCH,
            took: std::time::Duration::from_secs(3),
            rounds: 5,
            is_quick: false,
            is_interrupted: true,
            versions: serde_json::Value::Null,
            service_args: Vec::new(),
            sections: vec![Section {
                title: "Interactions".to_owned(),
                series: vec![series],
            }],
        };
        let text = render(&comparison);
        assert!(
            text.starts_with(INTERRUPTED) && text.contains("1,000"),
            "{text}"
        );
        assert_eq!(comparison.json()["interrupted"], true);
    }
}
