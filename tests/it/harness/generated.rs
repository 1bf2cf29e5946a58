//! Many values from a proptest strategy at once: a body holds hundreds of them.

use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::{Config, TestRng, TestRunner};

/// `count` values, the same ones in each run.
pub fn generated<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let config = Config::default();
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = TestRunner::new_with_rng(config, rng);
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}
