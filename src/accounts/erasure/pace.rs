//! How much is done in one step, and how long the pause after it is.
//!
//! A step that takes long delays other work on the same core and disk, so its size follows from
//! what the steps before it took. Pure: times are passed in.

use std::time::Duration;

/// What a step is to take. Some take twice as long, as the next one may find more to do.
const STEP: Duration = Duration::from_millis(10);

/// The pause after a step, in steps: of a core and of the disk, a fifth is taken.
const PAUSE_STEPS: u32 = 4;

/// The shortest pause.
const PAUSE_LEAST: Duration = Duration::from_millis(2);

/// The longest pause: a step that waited for a lock was no load.
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// The size of the next step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    size: i64,
    least: i64,
    most: i64,
}

impl Pace {
    /// Steps of rows that are found by an index.
    ///
    /// Each row may stand in its own block, and that block's first change after a checkpoint writes it to the
    /// log as a whole. With fewer rows in a step, a slow disk would spend its time on COMMITs.
    pub(super) const fn of_rows() -> Self {
        Self::between(64, 1_000)
    }

    /// Steps of blocks that are read as a whole: from 1 MiB to 16 MiB.
    pub(super) const fn of_blocks() -> Self {
        Self::between(128, 2_048)
    }

    const fn between(least: i64, most: i64) -> Self {
        Self {
            size: least,
            least,
            most,
        }
    }

    /// Rows or blocks of the next step.
    pub(super) const fn size(&self) -> i64 {
        self.size
    }

    /// Adapts the size to what a step took. Returns the pause after it.
    pub(super) fn after(&mut self, took: Duration) -> Duration {
        let us = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let fitting = self.size.saturating_mul(us(STEP)) / us(took).max(1);
        // A step that was quick may have had nothing to do, as the next one may.
        let next = fitting.min(self.size * 2);
        self.size = next.clamp(self.least, self.most);
        let pause = took.saturating_mul(PAUSE_STEPS);
        pause.clamp(PAUSE_LEAST, PAUSE_MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps that take `us` for each block; returns their times, and pauses, in µs.
    fn steps(us: i64, count: usize) -> Vec<(i64, u128)> {
        let mut pace = Pace::of_blocks();
        let step = |_| {
            let took = pace.size() * us;
            let pause = pace.after(Duration::from_micros(took.unsigned_abs()));
            (took, pause.as_micros())
        };
        (0..count).map(step).collect()
    }

    #[test]
    fn steps_grow_to_what_they_may_take_and_are_followed_by_four_times_their_time() {
        for (us, last) in [
            // A fast disk: 16 MiB at most.
            (1, 2_048),
            // As many blocks as take ten milliseconds.
            (10, 10_000),
            (25, 10_000),
            // A slow disk: 1 MiB at least.
            (1_000, 128_000),
        ] {
            let steps = steps(us, 20);
            let (took, pause) = steps[19];
            assert!((last - us..=last).contains(&took), "{us}: {steps:?}");
            for (took, pause) in &steps {
                let wanted = (took * 4).clamp(2_000, 1_000_000);
                assert_eq!(*pause, wanted.unsigned_abs().into(), "{us}: {steps:?}");
            }
            assert!(pause >= 2_000);
        }
    }

    #[test]
    fn a_step_that_was_held_up_is_followed_by_a_small_one_and_no_long_pause() {
        let mut pace = Pace::of_rows();
        for _ in 0..10 {
            pace.after(Duration::from_micros(1));
        }
        assert_eq!(pace.size(), 1_000);
        assert_eq!(pace.after(Duration::from_secs(3_600)), PAUSE_MOST);
        assert_eq!(pace.size(), 64);
        assert_eq!(pace.after(Duration::ZERO), PAUSE_LEAST);
        assert_eq!(pace.size(), 128);
        pace.after(Duration::MAX);
        assert_eq!(pace.size(), 64);
    }
}
