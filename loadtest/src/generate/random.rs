//! Numbers that look random and are a function of where they are asked for.
//!
//! Keeps one invariant: the same seed and place give the same draws, in any order,
//! so that a run can be posted and checked again.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// Moves the places of neighbouring seeds apart: the golden ratio's fraction in 64 bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[derive(Debug)]
pub struct Draws(SmallRng);

impl Draws {
    /// The draws of place `at` in the `purpose` of a run.
    pub fn new(seed: u64, purpose: u64, at: u32) -> Self {
        let place = (purpose << 32) | u64::from(at);
        Self(SmallRng::seed_from_u64(seed.wrapping_mul(STEP) ^ place))
    }

    pub fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.0.random()
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        self.0.random_range(0..n.max(1))
    }

    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        *list.choose(&mut self.0).expect("no list is empty")
    }

    /// Whether something happens that happens `share` of the time.
    pub fn happens(&mut self, share: f64) -> bool {
        self.0.random_bool(share)
    }

    /// A value that is there `share` of the time.
    pub fn maybe<T>(&mut self, share: f64, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.happens(share).then(|| draw(self))
    }

    /// A rank below `n`, at least 1, where rank k comes up about 1/(k+1) as often as
    /// rank 0: the shape of popularity, for users as for items.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is between 0 and n"
    )]
    pub fn popular(&mut self, n: u32) -> u32 {
        let quantile: f64 = self.0.random();
        // The inverse of ln(1 + k) / ln(1 + n), the sum of 1/k made smooth.
        let rank = (quantile * (f64::from(n) + 1.0).ln()).exp() - 1.0;
        (rank as u32).min(n.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn popular_ranks_come_up_more_often_and_all_stay_in_range() {
        for n in [1, 2, 10, 1_000_000] {
            let mut draws = Draws::new(1, 1, 1);
            let ranks: Vec<_> = (0..50_000).map(|_| draws.popular(n)).collect();
            assert!(ranks.iter().all(|&rank| rank < n));
            let of = |rank| ranks.iter().filter(|&&r| r == rank).count();
            assert!(n <= 2 || of(0) > of(2) && ranks.iter().any(|&rank| rank >= n / 2));
        }
    }
}
