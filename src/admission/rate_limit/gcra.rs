//! A token bucket in one number: the generic cell rate algorithm.
//!
//! The number is the moment at which the bucket is full again. Pure: the time is passed in, in
//! nanoseconds from any fixed start.

use std::num::NonZeroU32;

const SECOND_NS: u64 = 1_000_000_000;

/// A rate, and how much may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units a second, in the long run.
    pub per_second: NonZeroU32,
    /// Units at once, after a pause.
    pub burst: NonZeroU32,
}

/// The state of one bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    /// When the bucket is full again. In the past: it is full.
    full_at: u64,
    /// The rate that `full_at` was computed for.
    rate: Option<Rate>,
}

impl Rate {
    /// The time in which `units` flow in.
    pub(crate) fn time_for(self, units: u64) -> u64 {
        // More than 2^64 ns are six centuries.
        units.saturating_mul(SECOND_NS) / u64::from(self.per_second.get())
    }

    /// The time in which an empty bucket is filled.
    pub(crate) fn window(self) -> u64 {
        self.time_for(u64::from(self.burst.get()))
    }
}

impl Bucket {
    /// The time until `units` may be taken; 0: now.
    ///
    /// More than a burst is taken from a full bucket, and the debt is paid back at the rate: the
    /// rate holds in the long run, and no body waits for ever.
    pub(crate) fn wait(&self, units: u64, now: u64) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        let needed = units.min(u64::from(rate.burst.get()));
        let empty_at = self.full_at.max(now).saturating_add(rate.time_for(needed));
        empty_at.saturating_sub(now + rate.window())
    }

    /// Takes `units`, also where there are fewer: the bucket then has a debt.
    pub(crate) fn take(&mut self, units: u64, now: u64) {
        if let Some(rate) = self.rate {
            self.full_at = self.full_at.max(now).saturating_add(rate.time_for(units));
        }
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&mut self, units: u64) {
        if let Some(rate) = self.rate {
            self.full_at = self.full_at.saturating_sub(rate.time_for(units));
        }
    }

    /// Units that may be taken now.
    pub(crate) fn left(&self, now: u64) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        let spent = self.full_at.saturating_sub(now);
        // One more, as the window is rounded down.
        let left = u128::from(rate.window().saturating_sub(spent)) + 1;
        let units = left * u128::from(rate.per_second.get()) / u128::from(SECOND_NS);
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    /// The time until the bucket is full.
    pub(crate) fn full_in(&self, now: u64) -> u64 {
        self.full_at.saturating_sub(now)
    }

    /// Puts a rate in force. What was spent under another rate stays spent, up to one burst: a
    /// limit that was raised is felt at once.
    pub(crate) fn set(&mut self, rate: Option<Rate>, now: u64) {
        if self.rate == rate {
            return;
        }
        let spent = match (self.rate, rate) {
            (Some(old), Some(new)) => {
                let spent = u128::from(self.full_in(now)) * u128::from(old.per_second.get())
                    / u128::from(SECOND_NS);
                let spent = u64::try_from(spent).unwrap_or(u64::MAX);
                new.time_for(spent.min(u64::from(new.burst.get())))
            }
            _ => 0,
        };
        self.full_at = now + spent;
        self.rate = rate;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate {
            per_second: NonZeroU32::new(per_second).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    fn bucket(rate: Rate) -> Bucket {
        let mut bucket = Bucket::default();
        bucket.set(Some(rate), 0);
        bucket
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = bucket(rate(10, 5));
        for left in (0..5).rev() {
            assert_eq!(bucket.wait(1, 0), 0);
            bucket.take(1, 0);
            assert_eq!(bucket.left(0), left);
        }
        assert_eq!(bucket.wait(1, 0), SECOND_NS / 10);
        assert_eq!(bucket.wait(3, 0), 3 * SECOND_NS / 10);
        assert_eq!(bucket.wait(3, 3 * SECOND_NS / 10), 0);
        assert_eq!(bucket.full_in(0), SECOND_NS / 2);
    }

    #[test]
    fn what_is_left_is_what_passes_at_rates_that_do_not_divide_a_second() {
        for per_second in [3, 7, 999, 1_000_003] {
            for burst in [1, 5, 1000] {
                let mut bucket = bucket(rate(per_second, burst));
                for taken in 0..u64::from(burst) {
                    let left = u64::from(burst) - taken;
                    assert_eq!(bucket.left(0), left, "{per_second}/s");
                    assert_eq!(bucket.wait(left, 0), 0);
                    bucket.take(1, 0);
                }
            }
        }
    }

    #[test]
    fn more_than_a_burst_passes_a_full_bucket_and_leaves_a_debt() {
        let mut bucket = bucket(rate(10, 5));
        bucket.take(1, 0);
        assert_eq!(bucket.wait(100, 0), SECOND_NS / 10, "it is not full");
        let now = SECOND_NS;
        assert_eq!(bucket.wait(100, now), 0);
        bucket.take(100, now);
        assert_eq!(bucket.wait(1, now), 96 * SECOND_NS / 10);
        assert_eq!(bucket.left(now), 0);
    }

    #[test]
    fn another_rate_keeps_what_was_spent_and_no_more_than_a_burst_of_it() {
        let mut bucket = bucket(rate(1, 1000));
        bucket.take(1000, 0);
        bucket.set(Some(rate(100, 100)), 0);
        assert_eq!(bucket.left(0), 0);
        assert_eq!(bucket.wait(1, 0), SECOND_NS / 100);
        bucket.set(Some(rate(100, 200)), 0);
        assert_eq!(bucket.left(0), 100);
        bucket.set(None, 0);
        assert_eq!(bucket.wait(u64::MAX, 0), 0);
        bucket.set(Some(rate(1, 1)), 0);
        assert_eq!(bucket.left(0), 1);
    }

    proptest! {
        #[test]
        fn in_any_window_a_burst_and_the_rate_pass_and_no_more(
            per_second in 1..1000_u32,
            burst in 1..1000_u32,
            asks in proptest::collection::vec((1..50_u64, 0..50_000_000_u64), 1..300),
        ) {
            let rate = rate(per_second, burst);
            let mut bucket = bucket(rate);
            let (mut now, mut passed) = (0, 0_u64);
            for (units, pause) in asks {
                now += pause;
                if bucket.wait(units, now) == 0 {
                    bucket.take(units, now);
                    passed += units;
                }
            }
            // The last one may have been larger than the burst.
            let most = u64::from(burst).max(50)
                + 1
                + u64::try_from(u128::from(now) * u128::from(per_second) / u128::from(SECOND_NS)).unwrap();
            prop_assert!(passed <= most, "{} of {}", passed, most);
        }
    }
}
