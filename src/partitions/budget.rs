//! Limits how many partitions are created on demand.
//!
//! Invariant: no more than `per_hour` in any hour, however wrong the senders' clocks are. Pure:
//! time is passed in. Knows no tables. Partitions that are created ahead of time do not count.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// Counts the creations of the last hour against a limit.
#[derive(Clone, Debug)]
pub struct CreationBudget {
    per_hour: usize,
    /// The time of each creation in the last hour, oldest first.
    spent: VecDeque<Instant>,
}

/// The limit of creations per hour is reached; the events wait in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "made {per_hour} partitions on demand within an hour, the next may be made in {retry_after:?}: \
     look for a sender with a wrong clock, or raise the limit"
)]
pub struct Exhausted {
    /// The limit that was reached.
    pub per_hour: usize,
    /// Time until the next creation is allowed.
    pub retry_after: Duration,
}

impl CreationBudget {
    /// A limit of `per_hour` creations in any hour.
    pub fn new(per_hour: usize) -> Self {
        Self {
            per_hour,
            spent: VecDeque::new(),
        }
    }

    /// Counts one creation, or returns how long to wait for one.
    pub fn spend(&mut self, now: Instant) -> Result<(), Exhausted> {
        while let Some(&oldest) = self.spent.front()
            && now.saturating_duration_since(oldest) >= HOUR
        {
            self.spent.pop_front();
        }
        if self.spent.len() < self.per_hour {
            self.spent.push_back(now);
            return Ok(());
        }
        let retry_after = self.spent.front().map_or(HOUR, |&oldest| {
            HOUR.saturating_sub(now.saturating_duration_since(oldest))
        });
        Err(Exhausted {
            per_hour: self.per_hour,
            retry_after,
        })
    }

    /// Takes the last creation back, as nothing was created.
    pub fn refund(&mut self) {
        self.spent.pop_back();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_spent_budget_says_when_the_next_creation_is_free() {
        let start = Instant::now();
        let mut budget = CreationBudget::new(2);
        budget.spend(start).unwrap();
        budget.spend(start + Duration::from_secs(600)).unwrap();
        let refused = budget.spend(start + Duration::from_secs(900)).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(2700));
        budget.spend(start + HOUR).unwrap();
        budget.spend(start + HOUR).unwrap_err();
        budget.refund();
        budget.spend(start + HOUR).unwrap();
    }

    #[test]
    fn a_budget_of_nothing_never_creates() {
        let refused = CreationBudget::new(0).spend(Instant::now()).unwrap_err();
        assert_eq!(refused.retry_after, HOUR);
    }

    proptest! {
        #[test]
        fn no_hour_sees_more_than_the_limit(
            per_hour in 0usize..6,
            steps in proptest::collection::vec(0u64..2000, 0..60),
        ) {
            let start = Instant::now();
            let mut budget = CreationBudget::new(per_hour);
            let (mut now, mut granted) = (start, Vec::new());
            for step in steps {
                now += Duration::from_secs(step);
                if budget.spend(now).is_ok() {
                    granted.push(now);
                }
            }
            for window in granted.windows(per_hour + 1) {
                prop_assert!(window[per_hour] - window[0] >= HOUR);
            }
        }
    }
}
