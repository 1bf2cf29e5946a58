//! Whether this process has better things to do than to build indexes.

use std::sync::Arc;

use crate::accounts::status::{Health, LaneStatus};
use crate::log::append::Capacity;
use crate::partitions::seal::pressure::Pressure;

/// A lane with more spooled batches than this lags: one is being stored, one is being gathered, and
/// the rest is half a second's work.
const BATCHES_MAX: u64 = 8;

/// High while a lane is behind, or does not get through to Postgres. `batch_rows` is what
/// lanes store at a time.
pub(super) fn of_lanes(
    lanes: Vec<Arc<LaneStatus>>,
    log: Arc<dyn Capacity>,
    batch_rows: usize,
) -> Pressure {
    let rows_max = BATCHES_MAX * batch_rows as u64;
    Pressure::new(move || {
        lanes.iter().any(|lane| {
            let stream = lane.stream;
            lane.health() >= Health::Away
                || log.usage_of(stream.log, stream.number).items > rows_max
        })
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use crate::accounts::ledger::Stream;
    use crate::admission::record::InMemory;
    use crate::event::result::RecordResult;
    use crate::event::table::Table;
    use crate::log::spool::recover::open::open;
    use crate::log::spool::settings::Settings;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pressure_is_high_while_a_lane_does_not_get_through() {
        let folder = tempfile::tempdir().expect("a directory");
        let (_entries, waiting) = flume::bounded(1);
        let opened = open::<InMemory, RecordResult>(folder.path(), Settings::default(), waiting)
            .expect("a spool");
        let lane = Arc::new(LaneStatus::new(Stream {
            log: Uuid::nil(),
            lineage: Uuid::nil(),
            number: 0,
            shard: 0,
            table: Table::Exposures,
        }));
        let pressure = of_lanes(vec![Arc::clone(&lane)], Arc::new(opened.spool), 10);
        lane.set(Health::Away);
        let wait = Duration::from_secs(60);
        assert!(
            tokio::time::timeout(wait, pressure.wait_until_low())
                .await
                .is_err()
        );
        lane.set(Health::Good);
        assert!(
            tokio::time::timeout(wait, pressure.wait_until_low())
                .await
                .is_ok()
        );
    }
}
