//! What a start finds of one stream, and the loss that follows.
//!
//! No loss is recorded anywhere. It is computed: accepted according to the segments' headers,
//! minus acked according to the ledger, minus what is on disk and not acked. So each restart
//! finds the same loss and counts it once, even if the gap has moved or the segments around it
//! are deleted.

use tracing::{error, warn};

use crate::log::spool::recover::scan::report::{Gap, ScanReport};

/// What the segments say of a stream.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Items accepted under this spool id.
    accepted: u64,
    /// Items of sound records on disk.
    on_disk: u64,
    /// Where items are missing.
    missing: Vec<Missing>,
    /// Items acked according to the ledger, once it was read.
    pub(crate) acked: Option<u64>,
    /// Items of records on disk that the reader skipped as acked.
    pub(crate) passed_over: u64,
}

/// A place where items are missing.
#[derive(Debug)]
struct Missing {
    place: String,
    /// All missing records have lower sequences.
    next_sequence: u64,
}

/// The loss of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) items: u64,
    /// Where the items can have been; empty if no gap shows it any more.
    places: Vec<String>,
}

/// Items that were accepted and are neither acked nor on disk. A ledger with more acked than
/// accepted items belongs to another state of the spool, and proves no loss.
fn lost(accepted: u64, acked: u64, unacked: u64) -> u64 {
    accepted.saturating_sub(acked).saturating_sub(unacked)
}

impl Found {
    pub(crate) fn of(report: &ScanReport, stream: usize, accepted: u64) -> Self {
        let between = |gap: &Gap| match &gap.after {
            Some(after) => format!("between {after} and {}", gap.before),
            None => format!("before {}", gap.before),
        };
        let gaps = report.gaps.iter().filter(|gap| gap.items[stream] > 0);
        let gaps = gaps.map(|gap| Missing {
            place: between(gap),
            next_sequence: gap.next_sequence,
        });
        let damaged = report.segments.iter();
        let damaged = damaged.filter(|segment| segment.lost_items[stream] > 0);
        let damaged = damaged.map(|segment| Missing {
            place: format!("in {}", segment.name),
            next_sequence: segment.last_sequence + 1,
        });
        Self {
            accepted,
            on_disk: report.segments.iter().fold(0, |sum: u64, segment| {
                sum.saturating_add(segment.streams[stream].items)
            }),
            missing: gaps.chain(damaged).collect(),
            acked: None,
            passed_over: 0,
        }
    }

    /// The loss, if it is known and was not returned before. Everything up to `watermark` is
    /// acked, and what is on disk of it was skipped.
    pub(crate) fn lost(&mut self, watermark: u64) -> Option<Lost> {
        let acked = self.acked.take()?;
        let unacked = self.on_disk.saturating_sub(self.passed_over);
        let unacked_places = self.missing.iter();
        let unacked_places = unacked_places.filter(|it| it.next_sequence > watermark + 1);
        Some(Lost {
            items: lost(self.accepted, acked, unacked),
            places: unacked_places.map(|it| it.place.clone()).collect(),
        })
    }
}

impl Lost {
    pub(crate) fn log(&self, stream: usize) {
        let Self { items, places } = self;
        if *items == 0 {
            return;
        }
        if places.is_empty() {
            warn!(
                stream,
                lost = items,
                "events were accepted in an earlier run, and are neither in the spool nor stored \
                 according to the ledger: segments were lost then, or the database is another one or an older copy"
            );
        } else {
            error!(
                stream,
                lost = items,
                place = places.join(", "),
                "events that were accepted are lost: they are neither in the spool nor stored \
                 according to the ledger; segments were damaged or deleted, or the database is another one or an older copy"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_accepted_is_settled_or_on_disk_or_lost(
            frames in prop::collection::vec((1..9_u64, any::<bool>()), 0..50),
            watermark in 0..50_usize,
            earlier_lost in 0..100_u64,
        ) {
            // Records in sequence order: items, and whether still on disk.
            let accepted = earlier_lost + frames.iter().map(|frame| frame.0).sum::<u64>();
            let (before, behind) = frames.split_at(watermark.min(frames.len()));
            let acked: u64 = before.iter().map(|frame| frame.0).sum();
            let sum = |frames: &[(u64, bool)], there: bool| -> u64 {
                frames.iter().filter(|frame| frame.1 == there).map(|frame| frame.0).sum()
            };
            let mut found = Found {
                accepted,
                on_disk: sum(&frames, true),
                acked: Some(acked),
                passed_over: sum(before, true),
                ..Found::default()
            };
            let lost = found.lost(watermark as u64).unwrap();
            prop_assert_eq!(lost.items, earlier_lost + sum(behind, false));
            prop_assert_eq!(found.lost(watermark as u64), None);
        }
    }

    #[test]
    fn a_ledger_that_knows_of_more_than_was_accepted_tells_of_no_loss() {
        assert_eq!(lost(10, 12, 5), 0);
        assert_eq!(lost(u64::MAX, 0, u64::MAX), 0);
    }
}
