//! What the check found, in numbers and a few examples.

use std::collections::BTreeMap;

use serde::Serialize;

use super::slots::Slots;
use crate::generate::Plan;
use crate::report::{Counts, Tally, count, line};
use crate::service::Format;

/// Examples that are kept of each kind.
const EXAMPLES_MAX: usize = 5;

/// What the check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// Events that an answer promised to store, each counted once.
    pub promised: u64,
    /// Rows of the run's events, each event counted once.
    pub found: u64,
    /// Rows that were looked at.
    pub rows_read: u64,
    /// Promised, and not there.
    pub missing: u64,
    /// Promised, and not there because the service still has them in its spool, as far as
    /// its own count goes.
    pub spooled: u64,
    /// There more than once.
    pub twice: u64,
    /// There, though invalid or never posted.
    pub unexpected: u64,
    /// There, of bodies that were refused or never answered: allowed, as no answer denies it.
    pub unanswered_stored: u64,
    /// There with another tenant, time, item or table.
    pub wrong_key: u64,
    /// In a partition that is not theirs.
    pub wrong_partition: u64,
    /// Rows that were compared column by column.
    pub sampled: u64,
    /// Of these, rows that differ.
    pub wrong_columns: u64,
    /// Counts in answers that the tables contradict.
    pub contradictions: Vec<String>,
    examples: BTreeMap<&'static str, Vec<String>>,
}

impl Findings {
    /// Of the missing, up to `rows` are on their way.
    pub fn set_spooled(&mut self, rows: u64) {
        self.spooled = self.missing.min(rows);
        self.missing -= self.spooled;
        if self.missing == 0 {
            self.examples.remove("missing");
        }
    }

    /// Keeps the first few of a kind.
    pub fn example(&mut self, kind: &'static str, text: impl FnOnce() -> String) {
        let kept = self.examples.entry(kind).or_default();
        if kept.len() < EXAMPLES_MAX {
            kept.push(text());
        }
    }

    /// Compares the counts in the answers with the rows that the run added.
    ///
    /// Where an answer says less than `committed`, or is missing, the tables may
    /// hold up to as many rows more as it has events.
    pub fn compare_counts(&mut self, plan: &Plan, slots: &Slots, passes: &[Tally]) {
        for odd in passes.iter().flat_map(|pass| &pass.odd) {
            self.example("odd answer", || format!("body {}: {}", odd.body, odd.why));
        }
        for (kind, (rows, events)) in slots.stored(plan) {
            let mut counts = Counts::default();
            for tally in passes {
                counts.add(&tally.counts.get(&kind).copied().unwrap_or_default());
            }
            let (committed, open) = (counts.committed, counts.undecided());
            let decided = |stored: u64| (committed..=committed + open).contains(&stored);
            let (table, format) = (kind.0, Format::ALL[kind.1]);
            // Several lines are one row there; the answers count lines.
            let is_list = format == Format::PipelinesV1;
            if !(decided(events) || is_list && decided(rows)) {
                let left = match open {
                    0 => String::new(),
                    open => format!(" and leave {open} open"),
                };
                self.contradictions.push(format!(
                    "{table} {}: the answers say {committed} committed{left}, the table has {events} new ones",
                    format.as_str(),
                ));
            }
        }
    }

    /// What could not be checked, in words.
    pub fn unfinished(&self) -> Option<String> {
        let spooled = count(self.spooled);
        (self.spooled > 0).then(|| {
            format!("{spooled} events acknowledged are still in the service's spool: check again once they are stored")
        })
    }

    /// What is wrong, in words.
    pub fn failures(&self) -> Vec<String> {
        let counted = [
            (self.missing, "events acknowledged are missing"),
            (self.twice, "events are stored twice"),
            (self.unexpected, "events are stored that should not be"),
            (self.wrong_key, "rows have a wrong key"),
            (self.wrong_partition, "rows lie in a wrong partition"),
            (
                self.wrong_columns,
                "rows of the sample differ from what was posted",
            ),
        ];
        let wrong = counted.into_iter().filter(|(n, _)| *n > 0);
        let wrong = wrong.map(|(n, what)| format!("{} {what}", count(n)));
        wrong.chain(self.contradictions.iter().cloned()).collect()
    }

    /// Appends the lines for people.
    pub fn render(&self, out: &mut String) {
        let check = format!(
            "{} promised, {} found, {} missing, {} still spooled, {} twice, {} unexpected, {} stored without an answer",
            count(self.promised),
            count(self.found),
            count(self.missing),
            count(self.spooled),
            count(self.twice),
            count(self.unexpected),
            count(self.unanswered_stored)
        );
        line(out, "check", &check);
        let rows = format!(
            "{} rows read: {} wrong keys, {} in wrong partitions; {} compared whole, {} differ",
            count(self.rows_read),
            count(self.wrong_key),
            count(self.wrong_partition),
            count(self.sampled),
            count(self.wrong_columns)
        );
        line(out, "", &rows);
        for (kind, examples) in &self.examples {
            for example in examples {
                line(out, &format!("  {kind}"), example);
            }
        }
    }
}
