//! What is acknowledged of a partition, and whether the ledger's offset is one of its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use recsys_ingest::log::read::{Acknowledge, Proof};
use uuid::Uuid;

/// Which partition.
#[derive(Clone, Debug)]
pub struct Place {
    /// The topic's own id.
    pub id: Uuid,
    pub topic: String,
    pub partition: u16,
}

/// What is not acknowledged of one partition, while this process reads it.
#[derive(Debug, Default)]
pub struct Unacked {
    /// Rows that were read.
    pub items: AtomicU64,
    is_read: AtomicBool,
    /// The offset up to which records are stored.
    stored: AtomicU64,
    /// Where the partition ended when it was last looked at.
    end: AtomicU64,
}

impl Unacked {
    /// Records that are in the partition and not stored.
    pub fn records(&self) -> u64 {
        if !self.is_read() {
            return 0;
        }
        let stored = self.stored.load(Ordering::Relaxed);
        self.end.load(Ordering::Relaxed).saturating_sub(stored)
    }

    /// Whether this process reads the partition.
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// The partition ends here now.
    pub fn ends_at(&self, end: i64) {
        let end = u64::try_from(end).unwrap_or(0);
        self.end.store(end, Ordering::Relaxed);
    }

    /// This process reads on from there.
    pub fn begin(&self, stored: u64) {
        self.stored.store(stored, Ordering::Relaxed);
        self.end.store(stored, Ordering::Relaxed);
        self.is_read.store(true, Ordering::Relaxed);
    }

    fn reset(&self) {
        self.is_read.store(false, Ordering::Relaxed);
        for number in [&self.items, &self.stored, &self.end] {
            number.store(0, Ordering::Relaxed);
        }
    }
}

/// What is acknowledged of a partition, for as long as this process has its lease.
#[derive(Debug)]
pub struct Acks {
    place: Place,
    opening: Uuid,
    /// Records that are delivered and not acked: sequence and items.
    delivered: Mutex<VecDeque<(u64, u32)>>,
    pub unacked: Arc<Unacked>,
}

impl Acks {
    /// A hold on the partition that has just begun.
    pub fn new(place: Place, unacked: Arc<Unacked>) -> Self {
        unacked.reset();
        Self {
            place,
            opening: Uuid::new_v4(),
            delivered: Mutex::default(),
            unacked,
        }
    }

    /// A record is passed on to the lane.
    pub fn deliver(&self, sequence: u64, items: u32) {
        let mut delivered = self.lock();
        assert!(
            delivered.back().is_none_or(|&(last, _)| last < sequence),
            "a record is delivered twice, or out of order"
        );
        delivered.push_back((sequence, items));
        self.unacked
            .items
            .fetch_add(items.into(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, u32)>> {
        self.delivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acknowledge for Acks {
    fn id(&self) -> Uuid {
        self.place.id
    }

    fn lineage(&self) -> Uuid {
        Uuid::nil()
    }

    fn opening(&self) -> Uuid {
        self.opening
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn inherited(&self, _stream: u16) -> u64 {
        0
    }

    fn passed(&self, _stream: u16) -> u64 {
        0
    }

    fn proof(&self, _stream: u16, _by: Option<Uuid>, _watermark: u64) -> Proof {
        // All writers read the same partition.
        Proof::UpToWatermark
    }

    fn delivered(&self, _stream: u16, sequence: u64) -> usize {
        self.lock()
            .partition_point(|&(delivered, _)| delivered <= sequence)
    }

    fn ack(&self, _stream: u16, sequence: u64) {
        self.unacked.stored.store(sequence, Ordering::Relaxed);
        let mut delivered = self.lock();
        while let Some((_, items)) = delivered.pop_front_if(|(first, _)| *first <= sequence) {
            self.unacked
                .items
                .fetch_sub(items.into(), Ordering::Relaxed);
        }
    }
}

impl Drop for Acks {
    fn drop(&mut self) {
        self.unacked.reset();
    }
}

impl Place {
    /// Refuses to read on where records are missing.
    pub fn check(&self, next: i64, begin: i64, end: i64) -> Result<()> {
        let Self {
            id,
            topic,
            partition,
        } = self;
        if next > end {
            bail!(
                "the ledger has partition {partition} of the topic {topic} stored up to offset {next}, and \
                 it ends at {end}: the topic lost what it had, by an unclean election of a leader or a \
                 restore. Events with offsets from {end} on would be taken for stored ones. If what is \
                 there now has to be stored, UPDATE ingest_ledger SET settled = {begin} WHERE \
                 instance_id = '{id}' AND stream = {partition} and restart this writer; what is stored already is not stored twice"
            );
        }
        if next < begin {
            bail!(
                "partition {partition} of the topic {topic} begins at offset {begin}, and the ledger has it \
                 stored up to {next}: the topic's retention removed {} messages that were never stored. \
                 To go on with what is left, UPDATE ingest_ledger SET settled = {begin} WHERE \
                 instance_id = '{id}' AND stream = {partition} and restart this writer",
                begin - next
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_outside_of_the_partition_is_a_fault_that_names_its_cause() {
        let place = Place {
            id: Uuid::from_u128(5),
            topic: "t.exposures".to_owned(),
            partition: 3,
        };
        for (next, begin, end) in [(0, 0, 0), (5, 0, 9), (9, 0, 9), (5, 5, 9)] {
            assert!(
                place.check(next, begin, end).is_ok(),
                "{next} in {begin}..{end}"
            );
        }
        for (next, begin, end, cause) in [
            (10, 0, 9, "unclean election"),
            (4, 6, 9, "retention removed 2 "),
        ] {
            let error = place.check(next, begin, end).expect_err(cause).to_string();
            assert!(error.contains(cause), "{error}");
            let remedy = format!(
                "SET settled = {begin} WHERE instance_id = '{}' AND stream = 3",
                place.id
            );
            assert!(error.contains(&remedy), "{error}");
        }
    }

    #[test]
    fn what_is_acked_is_what_was_delivered_up_to_there() {
        let unacked = Arc::new(Unacked::default());
        let place = Place {
            id: Uuid::nil(),
            topic: String::new(),
            partition: 0,
        };
        let acks = Acks::new(place, Arc::clone(&unacked));
        for (sequence, items) in [(1, 10), (2, 20), (5, 50)] {
            acks.deliver(sequence, items);
        }
        let counted = || unacked.items.load(Ordering::Relaxed);
        assert_eq!((acks.delivered(0, 4), counted()), (2, 80));
        acks.ack(0, 4);
        assert_eq!((acks.delivered(0, 9), counted()), (1, 50));
        drop(acks);
        assert_eq!(counted(), 0, "another writer has the partition");
    }
}
