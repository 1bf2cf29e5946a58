//! Makes way for the lanes of this process before an index is built.
//!
//! Knows this process only: others that are behind are not seen from here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

/// The longest wait before a step. Under constant load indexes would otherwise never be built, and
/// readers need them as well.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// How often to look while waiting.
const STEP: Duration = Duration::from_millis(500);

/// Whether storing events is under pressure, as the service says.
#[derive(Clone)]
pub struct Pressure {
    is_high: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pressure")
    }
}

impl Pressure {
    /// Asks `is_high` before each index.
    pub fn new(is_high: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            is_high: Arc::new(is_high),
        }
    }

    /// Waits until the lanes keep up, but not for ever.
    pub(crate) async fn wait_until_low(&self) {
        let started = Instant::now();
        while (self.is_high)() {
            if started.elapsed() >= WAIT_MAX {
                info!(
                    "the lanes were behind for {} minutes; building an index all the same",
                    WAIT_MAX.as_secs() / 60
                );
                return;
            }
            debug!("the lanes are behind; the next index waits");
            tokio::time::sleep(STEP).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_index_waits_while_the_pressure_is_high_but_not_for_ever() {
        let high = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&high);
        let pressure = Pressure::new(move || seen.load(Ordering::Relaxed));

        let started = Instant::now();
        pressure.wait_until_low().await;
        assert_eq!(started.elapsed(), Duration::ZERO);

        high.store(true, Ordering::Relaxed);
        let waiting = pressure.wait_until_low();
        let mending = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            high.store(false, Ordering::Relaxed);
        };
        tokio::join!(waiting, mending);
        assert!(started.elapsed() < Duration::from_secs(62));

        high.store(true, Ordering::Relaxed);
        pressure.wait_until_low().await;
        assert!(started.elapsed() > WAIT_MAX);
    }
}
