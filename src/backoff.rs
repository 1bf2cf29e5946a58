//! Pauses between attempts, and one log line for a run of failures.

use std::time::Duration;

/// A pause that doubles with each failure, up to a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            next: min,
        }
    }

    /// The pause after one more failure, jittered.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        jittered(pause)
    }

    /// The failures are over.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

/// Between half of `pause` and all of it, so that those who failed together do not all retry at
/// once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

/// Whether a loop is failing, so that a run of failures is logged once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Failing(bool);

impl Failing {
    /// An attempt failed; true for the first one in a row.
    pub(crate) fn begins(&mut self) -> bool {
        !std::mem::replace(&mut self.0, true)
    }

    /// An attempt succeeded; true if the one before failed.
    pub(crate) fn ends(&mut self) -> bool {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_begin_anew_after_a_reset() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(50), ms(150));
        for most in [50, 100, 150, 150] {
            let pause = backoff.pause();
            assert!(
                (ms(most) / 2..=ms(most)).contains(&pause),
                "{pause:?} of {most} ms"
            );
        }
        backoff.reset();
        assert!(backoff.pause() <= ms(50));
    }

    #[test]
    fn a_run_of_failures_begins_once_and_ends_once() {
        let mut failing = Failing::default();
        assert!(!failing.ends());
        assert!(failing.begins() && !failing.begins());
        assert!(failing.ends() && !failing.ends());
    }
}
