//! Measures how fast rows leave for Postgres, to tell clients when to retry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Rates are averages over about this long.
const WINDOW: Duration = Duration::from_secs(2);

/// Longest estimate: the rate may have changed by then.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Bytes of rows that were acked, and their rate.
#[derive(Debug)]
pub struct DrainRate {
    acked: AtomicU64,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    started: Instant,
    acked: u64,
    bytes_per_second: f64,
}

impl DrainRate {
    /// A rate without any acked rows.
    pub fn new(now: Instant) -> Self {
        Self {
            acked: AtomicU64::new(0),
            window: Mutex::new(Window {
                started: now,
                acked: 0,
                bytes_per_second: 0.0,
            }),
        }
    }

    /// Records a batch that is acked.
    pub fn acked(&self, bytes: usize) {
        self.acked.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How long it takes until `bytes` more are acked.
    pub fn time_for(&self, bytes: u64, now: Instant) -> Duration {
        let rate = self.bytes_per_second(now);
        if rate < 1.0 {
            return WAIT_MAX;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate in seconds")]
        let seconds = bytes as f64 / rate;
        Duration::from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64()))
    }

    fn bytes_per_second(&self, now: Instant) -> f64 {
        let acked = self.acked.load(Ordering::Relaxed);
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = now.saturating_duration_since(window.started);
        if elapsed >= WINDOW {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let rate = (acked - window.acked) as f64 / elapsed.as_secs_f64();
            // The old rate counts half if its window has just ended, and not at all if the rate was
            // not read for a while.
            let kept = if elapsed < WINDOW * 2 && window.bytes_per_second > 0.0 {
                0.5
            } else {
                0.0
            };
            window.bytes_per_second = window.bytes_per_second * kept + rate * (1.0 - kept);
            window.started = now;
            window.acked = acked;
        }
        window.bytes_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_rate_and_is_bounded_when_nothing_drains() {
        let start = Instant::now();
        let drain = DrainRate::new(start);
        assert_eq!(drain.time_for(1, start), WAIT_MAX);
        drain.acked(40_000_000);
        // 10 MB/s over four seconds.
        let now = start + Duration::from_secs(4);
        assert_eq!(drain.time_for(50_000_000, now), Duration::from_secs(5));
        // Then nothing for a minute.
        let later = now + Duration::from_secs(60);
        assert_eq!(drain.time_for(50_000_000, later), WAIT_MAX);
    }
}
