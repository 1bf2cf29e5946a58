//! The spool as a log: what admission and the writers use of it.

use std::time::Duration;

use uuid::Uuid;

use super::append::group_committer::GroupCommitter;
use super::deliver::reader::LaneReader;
use super::format::Counts;
use super::shared::Spool;
use crate::log::append::{Append, Capacity, StreamUsage, Usage};
use crate::log::read::{Acknowledge, Next, Proof, Read, Start};
use crate::log::record::{AppendError, Delivered};

impl<M: Send + 'static, R: Send + 'static> Append for GroupCommitter<M, R> {
    fn run(self) {
        Self::run(self);
    }
}

impl Capacity for Spool {
    fn id(&self) -> Uuid {
        self.id()
    }

    fn lineage(&self) -> Uuid {
        self.history().lineage()
    }

    fn medium(&self) -> &'static str {
        "the disk of the spool"
    }

    fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max()
    }

    fn has_room(&self, payload_bytes: usize) -> Result<(), AppendError> {
        self.has_room(payload_bytes)
    }

    fn room(&self) -> (u64, u64) {
        self.room()
    }

    fn shortage(&self) -> Option<String> {
        self.shortage().map(|shortage| shortage.to_string())
    }

    fn stalled(&self) -> Option<Duration> {
        self.stalled()
    }

    fn usage(&self) -> Usage {
        let usage = self.usage();
        let sum = |counts: &Counts| counts.iter().sum();
        Usage {
            bytes: usage.bytes,
            bytes_max: usage.bytes_max,
            segments: usage.segments,
            records: sum(&usage.frames),
            items: sum(&usage.items),
            accepted: sum(&usage.accepted),
            lost: usage.lost,
            refused: usage.refused,
        }
    }

    fn usage_of(&self, _log: Uuid, stream: u16) -> StreamUsage {
        let usage = self.usage();
        let of = |counts: &Counts| counts.get(usize::from(stream)).copied().unwrap_or(0);
        StreamUsage {
            records: of(&usage.frames),
            items: of(&usage.items),
            accepted: of(&usage.accepted),
            lost: of(&usage.lost_items),
        }
    }
}

impl<M: Send + 'static, R: Send + 'static> Read<M, R> for LaneReader<M, R> {
    fn start(&mut self, start: &Start) -> bool {
        let is_own = self.skip_to(start.watermark) && start.is_own;
        if !is_own {
            self.number_beyond(start.found);
        }
        self.reconcile(start.decided_items);
        is_own
    }

    fn try_next(&mut self) -> Next<M, R> {
        self.try_next()
    }

    fn wait(&mut self) -> impl Future<Output = ()> + Send {
        self.wait()
    }

    fn fetch(&mut self, bytes_max: usize) -> anyhow::Result<Vec<Delivered<Option<M>, R>>> {
        self.read_from_disk(bytes_max)
    }

    fn abandon(self) -> impl Future<Output = ()> + Send {
        self.abandon()
    }
}

impl Acknowledge for Spool {
    fn id(&self) -> Uuid {
        self.id()
    }

    fn lineage(&self) -> Uuid {
        self.history().lineage()
    }

    fn opening(&self) -> Uuid {
        self.history().opening()
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn inherited(&self, stream: u16) -> u64 {
        own(stream).map_or(0, |stream| self.history().inherited(stream))
    }

    fn passed(&self, stream: u16) -> u64 {
        own(stream).map_or(0, |stream| self.passed(stream))
    }

    fn proof(&self, stream: u16, by: Option<Uuid>, watermark: u64) -> Proof {
        self.history().proof(stream, by, watermark)
    }

    fn delivered(&self, stream: u16, sequence: u64) -> usize {
        own(stream).map_or(0, |stream| self.delivered(stream, sequence))
    }

    fn ack(&self, stream: u16, sequence: u64) {
        if let Some(stream) = own(stream) {
            self.ack(stream, sequence);
        }
    }
}

/// The spool's number of a stream.
fn own(stream: u16) -> Option<u8> {
    u8::try_from(stream).ok()
}
