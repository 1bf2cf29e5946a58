//! What Kafka says of itself while records go in.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recsys_ingest::log::append::{Capacity, StreamUsage, Usage};
use recsys_ingest::log::record::AppendError;
use uuid::Uuid;

use crate::acks::Unacked;
use crate::client::Brokers;
use crate::delivery::Produced;
use crate::limit::Limit;

/// The log as admission, metrics and reports see it.
#[derive(Debug)]
pub struct KafkaCapacity {
    /// Identifies this process as an intake.
    pub intake: Uuid,
    pub brokers: Brokers,
    pub limit: Arc<Limit>,
    /// Whether events are taken here.
    pub takes: bool,
    pub produced: Arc<Produced>,
    /// By topic and partition.
    pub lanes: HashMap<(Uuid, u16), Arc<Unacked>>,
}

impl Capacity for KafkaCapacity {
    fn id(&self) -> Uuid {
        self.intake
    }

    fn lineage(&self) -> Uuid {
        Uuid::nil()
    }

    fn medium(&self) -> &'static str {
        "Kafka"
    }

    fn carries_traces(&self) -> bool {
        true
    }

    fn payload_bytes_max(&self) -> usize {
        self.limit.payload_bytes_max()
    }

    // A body may be larger than its rows: what does not fit is known once they are counted.
    fn has_room(&self, _payload_bytes: usize) -> Result<(), AppendError> {
        if !self.takes {
            return Err(AppendError::NotHere);
        }
        match self.brokers.are_away() {
            true => Err(AppendError::Away),
            false => Ok(()),
        }
    }

    fn room(&self) -> (u64, u64) {
        // Retention bounds a topic, not this process.
        (u64::MAX, u64::MAX)
    }

    fn shortage(&self) -> Option<String> {
        None
    }

    fn stalled(&self) -> Option<Duration> {
        None
    }

    fn usage(&self) -> Usage {
        let Produced {
            items,
            unanswered,
            unanswered_items,
            refused,
        } = &*self.produced;
        let whole = |count: i64| u64::try_from(count).unwrap_or(0);
        Usage {
            records: whole(unanswered.load(Ordering::Relaxed)),
            items: whole(unanswered_items.load(Ordering::Relaxed)),
            accepted: items.load(Ordering::Relaxed),
            refused: refused.load(Ordering::Relaxed),
            ..Usage::default()
        }
    }

    fn usage_of(&self, log: Uuid, stream: u16) -> StreamUsage {
        let lane = self.lanes.get(&(log, stream));
        StreamUsage {
            records: lane.map_or(0, |lane| lane.records()),
            // Of what was read: what else the partition holds is counted in records alone.
            items: lane.map_or(0, |lane| lane.items.load(Ordering::Relaxed)),
            ..StreamUsage::default()
        }
    }
}
