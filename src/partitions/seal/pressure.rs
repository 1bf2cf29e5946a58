//! Whether this process is too loaded to build indexes.
//!
//! Knows only this process, not the lanes of others.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use crate::log::spool::shared::Spool;

use crate::accounts::status::{Health, LaneStatus};

/// A lane with more spooled batches than this lags: one is being stored, one is being gathered, and
/// the rest is half a second's work.
const BATCHES_MAX: u64 = 8;

/// The longest wait before a step. Under constant load indexes would otherwise never be built, and
/// readers need them as well.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// The polling interval while waiting.
const STEP: Duration = Duration::from_millis(500);

/// How far the lanes lag.
#[derive(Clone, Debug)]
pub struct Pressure {
    lanes: Vec<Arc<LaneStatus>>,
    spool: Spool,
    rows_max: u64,
}

impl Pressure {
    /// The pressure of these lanes. `batch_rows` is the maximum of rows in a batch.
    pub fn new(lanes: Vec<Arc<LaneStatus>>, spool: Spool, batch_rows: usize) -> Self {
        Self {
            lanes,
            spool,
            rows_max: BATCHES_MAX * batch_rows as u64,
        }
    }

    /// Whether a lane lags or cannot store to Postgres.
    pub fn is_high(&self) -> bool {
        let rows = self.spool.usage().items;
        rows.iter().any(|&rows| rows > self.rows_max)
            || self.lanes.iter().any(|lane| lane.health() >= Health::Away)
    }

    /// Waits until the lanes keep up, at most for [`WAIT_MAX`].
    pub(crate) async fn wait_until_low(&self) {
        let started = Instant::now();
        while self.is_high() {
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
    use uuid::Uuid;

    use crate::accounts::ledger::Stream;
    use crate::admission::record::InMemory;
    use crate::event::result::RecordResult;
    use crate::event::table::Table;
    use crate::log::spool;
    use crate::log::spool::settings::Settings;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_index_waits_while_a_lane_does_not_get_through_but_not_for_ever() {
        let folder = tempfile::tempdir().expect("a directory");
        let (_entries, waiting) = flume::bounded(1);
        let opened = spool::recover::open::open::<InMemory, RecordResult>(
            folder.path(),
            Settings::default(),
            waiting,
        )
        .expect("a spool");
        let lane = Arc::new(LaneStatus::new(Stream {
            instance: Uuid::nil(),
            lineage: uuid::Uuid::nil(),
            number: 0,
            table: Table::Exposures,
        }));
        let pressure = Pressure::new(vec![Arc::clone(&lane)], opened.spool, 10);

        let started = Instant::now();
        pressure.wait_until_low().await;
        assert_eq!(started.elapsed(), Duration::ZERO);

        lane.set(Health::Away);
        assert!(pressure.is_high());
        let waiting = pressure.wait_until_low();
        let mending = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            lane.set(Health::Good);
        };
        tokio::join!(waiting, mending);
        assert!(started.elapsed() < Duration::from_secs(62));

        lane.set(Health::Fault);
        pressure.wait_until_low().await;
        assert!(started.elapsed() > WAIT_MAX);
    }
}
