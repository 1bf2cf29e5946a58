//! What the check found, in numbers and a few examples.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::slots::Slots;
use crate::generate::plan::Plan;
use crate::generate::settings::{Format, Settings, Table};
use crate::ledger::Ledger;
use crate::report::tally::{Counts, Tally};
use crate::report::text::{grouped, line};

/// Examples that are kept of each kind.
const EXAMPLES_MAX: usize = 5;

/// What the check found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Events whose storing an answer promised, each counted once.
    pub(crate) promised: u64,
    /// Rows of the run's events, each event counted once.
    pub(crate) found: u64,
    /// Rows that were looked at.
    pub(crate) rows_read: u64,
    /// Promised, and not there.
    pub(crate) missing: u64,
    /// Promised, and not there because the service still has them in its spool, as far as
    /// its own count goes.
    pub(crate) spooled: u64,
    /// There more than once.
    pub(crate) twice: u64,
    /// There, though invalid or never posted.
    pub(crate) unexpected: u64,
    /// There, of bodies that were refused or never answered: allowed, if nobody was told.
    pub(crate) unanswered_stored: u64,
    /// There with another tenant, time, item or table.
    pub(crate) wrong_key: u64,
    /// In a partition that is not theirs.
    pub(crate) wrong_partition: u64,
    /// Rows that were compared column by column.
    pub(crate) sampled: u64,
    /// Of these, rows that differ.
    pub(crate) wrong_columns: u64,
    /// Counts in answers that the tables contradict.
    pub(crate) contradictions: Vec<String>,
    examples: BTreeMap<&'static str, Vec<String>>,
}

impl Verdict {
    /// Of the missing, up to `rows` are on their way.
    pub(super) fn set_spooled(&mut self, rows: u64) {
        self.spooled = self.missing.min(rows);
        self.missing -= self.spooled;
        if self.missing == 0 {
            self.examples.remove("missing");
        }
    }

    /// Keeps the first few of a kind.
    pub(super) fn example(&mut self, kind: &'static str, text: impl FnOnce() -> String) {
        let kept = self.examples.entry(kind).or_default();
        if kept.len() < EXAMPLES_MAX {
            kept.push(text());
        }
    }

    /// Why odd answers were odd.
    pub(super) fn ledger(&mut self, ledger: &Ledger) {
        for odd in ledger.odd() {
            self.example("odd answer", || format!("body {}: {}", odd.body, odd.why));
        }
    }

    /// Compares the counts in the answers with the rows that the run added.
    ///
    /// Where an answer says less than `committed`, or is missing, the tables may
    /// hold up to as many rows more as it has events.
    pub(super) fn compare_counts(
        &mut self,
        settings: &Settings,
        plan: &Plan,
        slots: &Slots,
        passes: &[Tally],
    ) {
        let mut stored: BTreeMap<(Table, Format), (u64, u64)> = BTreeMap::new();
        for (at, stream) in plan.streams().iter().enumerate() {
            let (rows, events) = slots.stored(settings, plan, at);
            let sum = stored.entry((stream.table, stream.format)).or_default();
            sum.0 += rows;
            sum.1 += events;
        }
        for ((table, format), (rows, events)) in stored {
            let counts = passes
                .iter()
                .filter_map(|tally| tally.counts.get(&(table, format)));
            let (mut committed, mut open) = (0, 0);
            for counts in counts {
                committed += counts.committed;
                open += undecided(counts);
            }
            let decided = |stored: u64| (committed..=committed + open).contains(&stored);
            // Several lines are one row there; the answers count lines.
            let is_list = format == Format::PipelinesV1;
            if !(decided(events) || is_list && decided(rows)) {
                self.contradictions.push(format!(
                    "{} {}: the answers say {committed} committed{}, the table has {events} new ones",
                    table.name(),
                    format.as_str(),
                    match open {
                        0 => String::new(),
                        open => format!(" and leave {open} open"),
                    }
                ));
            }
        }
    }

    /// What could not be checked, in words.
    pub(crate) fn unfinished(&self) -> Option<String> {
        (self.spooled > 0).then(|| {
            format!(
                "{} events acknowledged are still in the service's spool: check again once they are stored",
                grouped(self.spooled)
            )
        })
    }

    /// What is wrong, in words.
    pub(crate) fn failures(&self) -> Vec<String> {
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
        let counted = counted
            .into_iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{} {what}", grouped(n)));
        counted.chain(self.contradictions.iter().cloned()).collect()
    }

    /// Appends the lines for people.
    pub(crate) fn render(&self, out: &mut String) {
        line(
            out,
            "check",
            format!(
                "{} promised, {} found, {} missing, {} still spooled, {} twice, {} unexpected, {} stored without an answer",
                grouped(self.promised),
                grouped(self.found),
                grouped(self.missing),
                grouped(self.spooled),
                grouped(self.twice),
                grouped(self.unexpected),
                grouped(self.unanswered_stored)
            ),
        );
        line(
            out,
            "",
            format!(
                "{} rows read: {} wrong keys, {} in wrong partitions; {} compared whole, {} differ",
                grouped(self.rows_read),
                grouped(self.wrong_key),
                grouped(self.wrong_partition),
                grouped(self.sampled),
                grouped(self.wrong_columns)
            ),
        );
        for (kind, examples) in &self.examples {
            for example in examples {
                line(out, &format!("  {kind}"), example.clone());
            }
        }
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "promised": self.promised,
            "found": self.found,
            "rows_read": self.rows_read,
            "missing": self.missing,
            "spooled": self.spooled,
            "twice": self.twice,
            "unexpected": self.unexpected,
            "unanswered_stored": self.unanswered_stored,
            "wrong_key": self.wrong_key,
            "wrong_partition": self.wrong_partition,
            "sampled": self.sampled,
            "wrong_columns": self.wrong_columns,
            "contradictions": self.contradictions,
            "examples": self.examples,
        })
    }
}

/// Events that may or may not be stored, for all that the answers say.
fn undecided(counts: &Counts) -> u64 {
    counts.accepted - counts.accepted_committed + counts.unknown
}
