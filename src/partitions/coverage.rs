//! The times that partitions cover.

use super::range::Range;

/// The ranges of time for which a table has partitions.
///
/// A default partition does not count: it accepts rows, but those rows are in the way of the
/// partition that they belong to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Sorted, with neighbours merged. Usually one range.
    stretches: Vec<Range>,
}

impl Coverage {
    /// The union of ranges, which may touch and overlap.
    pub fn of(ranges: impl IntoIterator<Item = Range>) -> Self {
        let mut sorted: Vec<Range> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut stretches: Vec<Range> = Vec::new();
        for range in sorted {
            match stretches.last_mut() {
                Some(last) if range.from_us <= last.to_us => {
                    last.to_us = last.to_us.max(range.to_us);
                }
                _ => stretches.push(range),
            }
        }
        Self { stretches }
    }

    /// Whether there is a partition for an instant.
    pub fn covers(&self, occurred_us: i64) -> bool {
        let after = self
            .stretches
            .partition_point(|range| range.from_us <= occurred_us);
        after > 0 && self.stretches[after - 1].contains(occurred_us)
    }

    /// The ranges of `wanted` that are not fully covered, each once, in order of time.
    pub fn missing(&self, wanted: impl IntoIterator<Item = Range>) -> Vec<Range> {
        let mut missing: Vec<Range> = wanted
            .into_iter()
            .filter(|&range| !self.gaps(range).is_empty())
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// The parts of `range` that have no partition.
    pub fn gaps(&self, range: Range) -> Vec<Range> {
        let mut gaps = Vec::new();
        let mut from_us = range.from_us;
        for stretch in self.stretches.iter().filter(|s| s.overlaps(range)) {
            if from_us < stretch.from_us {
                gaps.push(Range {
                    from_us,
                    to_us: stretch.from_us,
                });
            }
            from_us = stretch.to_us;
        }
        if from_us < range.to_us {
            gaps.push(Range {
                from_us,
                to_us: range.to_us,
            });
        }
        gaps
    }

    /// Adds a range that is now covered.
    pub fn add(&mut self, range: Range) {
        let stretches = std::mem::take(&mut self.stretches);
        *self = Self::of(stretches.into_iter().chain([range]));
    }

    /// The end of the covered time from an instant on: the first instant without a partition.
    /// `occurred_us` itself if it has none.
    pub fn end_from(&self, occurred_us: i64) -> i64 {
        self.stretches
            .iter()
            .find(|range| range.contains(occurred_us))
            .map_or(occurred_us, |range| range.to_us)
    }
}
