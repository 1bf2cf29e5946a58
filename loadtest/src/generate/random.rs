//! Numbers that look random and are a function of where they are asked for.
//!
//! Keeps one invariant: the same seed and place give the same draws, in any order,
//! so that a run can be posted and checked again.

/// An odd constant far from any pattern: the golden ratio's fraction in 64 bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads every bit of `x` over all bits (the finalizer of SplitMix64).
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[derive(Clone, Copy, Debug)]
pub struct Draws {
    state: u64,
}

impl Draws {
    /// The draws of place `at` in the `purpose` of a run.
    pub fn new(seed: u64, purpose: u64, at: u32) -> Self {
        let at = mix(u64::from(at).wrapping_add(STEP));
        Self {
            state: mix(seed ^ mix(purpose.wrapping_mul(STEP) ^ at)),
        }
    }

    pub const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub const fn below(&mut self, n: u32) -> u32 {
        let wide = (self.next() >> 32) * n as u64;
        (wide >> 32) as u32
    }

    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        let n = u32::try_from(list.len()).expect("lists are short");
        list[self.below(n) as usize]
    }

    /// Whether something happens that happens `share` of the time.
    pub fn happens(&mut self, share: f64) -> bool {
        f64::from(self.below(u32::MAX)) < share * f64::from(u32::MAX)
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
        let quantile = f64::from(self.below(u32::MAX)) / f64::from(u32::MAX);
        // The inverse of ln(1 + k) / ln(1 + n), the sum of 1/k made smooth.
        let rank = (quantile * (f64::from(n) + 1.0).ln()).exp() - 1.0;
        (rank as u32).min(n.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_purpose_and_place_only() {
        let draw = |seed, purpose, at| Draws::new(seed, purpose, at).next();
        assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
        for other in [draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4)] {
            assert_ne!(draw(1, 2, 3), other);
        }
    }

    #[test]
    fn a_share_happens_about_that_often() {
        for (share, due) in [(0.0, 0_usize), (0.01, 1_000), (0.5, 50_000), (1.0, 100_000)] {
            let mut draws = Draws::new(7, 0, 0);
            let hits = (0..100_000).filter(|_| draws.happens(share)).count();
            assert!(hits.abs_diff(due) <= 1_000, "{hits} instead of {due}");
        }
    }

    #[test]
    fn popular_ranks_come_up_more_often_and_all_stay_in_range() {
        for n in [1, 2, 10, 1_000_000] {
            let mut draws = Draws::new(1, 1, 1);
            let ranks: Vec<_> = (0..50_000).map(|_| draws.popular(n)).collect();
            assert!(ranks.iter().all(|&rank| rank < n));
            let of = |rank| ranks.iter().filter(|&&r| r == rank).count();
            if n > 2 {
                assert!(of(0) > of(2), "rank 0 came {} times", of(0));
                assert!(ranks.iter().any(|&rank| rank >= n / 2));
            }
        }
    }
}
