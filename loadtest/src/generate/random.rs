//! Numbers that look random and are a function of where they are asked for.
//!
//! Keeps one invariant: the same seed and place give the same draws, on every
//! machine and in any order, so that a run can be posted and checked again.

/// An odd constant far from any pattern: the golden ratio's fraction in 64 bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads every bit of `x` over all bits (the finalizer of SplitMix64).
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A stream of draws that belongs to one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draws {
    state: u64,
}

impl Draws {
    /// The draws of place `at` in the `purpose` of a run.
    pub(super) const fn new(seed: u64, purpose: u64, at: u64) -> Self {
        Self {
            state: mix(seed ^ mix(purpose.wrapping_mul(STEP) ^ mix(at.wrapping_add(STEP)))),
        }
    }

    /// 64 bits.
    pub(super) const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub(super) const fn below(&mut self, n: u32) -> u32 {
        let wide = (self.next() >> 32) * n as u64;
        (wide >> 32) as u32
    }

    /// One of a list.
    pub(super) fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        let n = u32::try_from(list.len()).expect("lists are short");
        list[self.below(n) as usize]
    }

    /// A value that is there in `percent` of a hundred cases.
    pub(super) fn maybe<T>(
        &mut self,
        percent: u32,
        draw: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let is_there = self.below(100) < percent;
        is_there.then(|| draw(self))
    }

    /// Whether something happens that happens `share` of the time.
    pub(super) const fn happens(&mut self, share: Share) -> bool {
        self.next() >> 32 < share.0
    }
}

/// A probability in 1/2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share(u64);

impl Share {
    /// From a number between 0 and 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is clamped to 0 ..= 2^32 first"
    )]
    pub(super) fn of(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * 4_294_967_296.0) as u64)
    }
}

/// Draws ranks from 0 so that rank k comes up about 1/(k+1) as often as rank 0:
/// the shape of popularity, for users as for items.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    /// The ranks at the quantiles i / (len - 1).
    quantiles: Vec<u32>,
}

impl Zipf {
    /// Enough that the commonest rank of a million (7 %) has hundreds of entries.
    const QUANTILES: u32 = 1 << 14;

    /// Over `n` ranks, at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is between 0 and n"
    )]
    pub(super) fn new(n: u32) -> Self {
        let n = n.max(1);
        let log = (f64::from(n) + 1.0).ln();
        let rank = |i: u32| {
            let quantile = f64::from(i) / f64::from(Self::QUANTILES);
            // The inverse of ln(1 + k) / ln(1 + n), the sum of 1/k made smooth.
            ((quantile * log).exp() - 1.0) as u32
        };
        Self {
            quantiles: (0..=Self::QUANTILES).map(|i| rank(i).min(n)).collect(),
        }
    }

    /// A rank.
    pub(super) fn draw(&self, draws: &mut Draws) -> u32 {
        let at = draws.below(Self::QUANTILES) as usize;
        let (from, to) = (self.quantiles[at], self.quantiles[at + 1]);
        from + draws.below((to - from).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_purpose_and_place_only() {
        let draw = |seed, purpose, at| Draws::new(seed, purpose, at).next();
        assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
        assert_ne!(draw(1, 2, 3), draw(2, 2, 3));
        assert_ne!(draw(1, 2, 3), draw(1, 3, 3));
        assert_ne!(draw(1, 2, 3), draw(1, 2, 4));
    }

    #[test]
    fn a_share_happens_about_that_often() {
        for share in [0.0, 0.01, 0.5, 1.0] {
            let mut draws = Draws::new(7, 0, 0);
            let hits = (0..100_000)
                .filter(|_| draws.happens(Share::of(share)))
                .count();
            let expected = share * 100_000.0;
            let hits = f64::from(u32::try_from(hits).unwrap());
            assert!(
                (hits - expected).abs() <= 1_000.0,
                "{hits} instead of {expected}"
            );
        }
    }

    #[test]
    fn popular_ranks_come_up_more_often_and_all_stay_in_range() {
        for n in [1, 2, 10, 1_000_000] {
            let zipf = Zipf::new(n);
            let mut draws = Draws::new(1, 1, 1);
            let ranks: Vec<_> = (0..50_000).map(|_| zipf.draw(&mut draws)).collect();
            assert!(ranks.iter().all(|&rank| rank < n));
            let of = |rank| ranks.iter().filter(|&&r| r == rank).count();
            if n > 2 {
                assert!(of(0) > of(2), "rank 0 came {} times", of(0));
                assert!(ranks.iter().any(|&rank| rank >= n / 2));
            }
        }
    }
}
