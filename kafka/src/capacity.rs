//! What Kafka says of itself while records go in.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use recsys_ingest::log::append::{Capacity, StreamUsage, Usage};
use recsys_ingest::log::record::AppendError;
use recsys_ingest::log::spool::shared::Spool;
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
    /// The spool on the local disk, if there is one.
    pub fallback: Option<Spool>,
    /// Whether records go into it while the brokers are away.
    pub keeps: bool,
    /// By topic and partition.
    pub lanes: HashMap<(Uuid, u16), Arc<Unacked>>,
}

impl KafkaCapacity {
    /// The spool on the local disk, if records go there.
    fn used_fallback(&self) -> Option<&Spool> {
        self.fallback.as_ref().filter(|_| self.keeps)
    }
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

    fn keeps_aside(&self) -> bool {
        self.keeps
    }

    fn kept_aside(&self) -> Option<String> {
        let left = Capacity::usage(self.fallback.as_ref()?).items;
        match self.keeps && self.brokers.are_away() {
            true => Some(format!(
                "Kafka does not acknowledge: events are taken onto the disk of this machine alone (--spool-fallback), {left} so far"
            )),
            false if left > 0 => Some(format!(
                "{left} events are on the disk of this machine alone, on their way to Kafka"
            )),
            false => None,
        }
    }

    fn carries_traces(&self) -> bool {
        true
    }

    fn payload_bytes_max(&self) -> usize {
        self.limit.payload_bytes_max()
    }

    // A body may be larger than its rows: what does not fit is known once they are counted.
    fn has_room(&self, payload_bytes: usize) -> Result<(), AppendError> {
        if !self.takes {
            return Err(AppendError::NotHere);
        }
        match (self.brokers.are_away(), self.used_fallback()) {
            (false, _) => Ok(()),
            (true, Some(spool)) => spool.has_room(payload_bytes.min(self.payload_bytes_max())),
            (true, None) => Err(AppendError::Away),
        }
    }

    fn room(&self) -> (u64, u64) {
        match self.used_fallback().filter(|_| self.brokers.are_away()) {
            Some(spool) => spool.room(),
            // Retention bounds a topic, not this process.
            None => (u64::MAX, u64::MAX),
        }
    }

    fn shortage(&self) -> Option<String> {
        self.used_fallback().and_then(Capacity::shortage)
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
        let aside = self
            .fallback
            .as_ref()
            .map(Capacity::usage)
            .unwrap_or_default();
        Usage {
            bytes: aside.bytes,
            bytes_max: aside.bytes_max,
            segments: aside.segments,
            records: whole(unanswered.load(Ordering::Relaxed)) + aside.records,
            items: whole(unanswered_items.load(Ordering::Relaxed)) + aside.items,
            accepted: items.load(Ordering::Relaxed),
            lost: aside.lost,
            refused: refused.load(Ordering::Relaxed) + aside.refused,
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
