//! The acks of a partition, and whether the partition still has the offset in the ledger.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recsys_ingest::log::read::{Acknowledge, Proof};
use uuid::Uuid;

use crate::place::Place;

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
    /// Up to which offset records were stored when the partition was seen to have lost some. Kept
    /// while other processes read the partition, until the ledger has a lower offset.
    cut_at: Mutex<Option<u64>>,
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

    /// Notes that the partition has lost records at its end. Returns whether that was not known yet.
    pub fn note_cut(&self) -> bool {
        let stored = self.stored.load(Ordering::Relaxed);
        let mut cut_at = self.cut_at();
        let is_new = cut_at.is_none();
        cut_at.get_or_insert(stored);
        is_new
    }

    /// Whether the partition lost records, and the ledger still has the offset from before.
    pub fn is_cut(&self) -> bool {
        self.cut_at().is_some()
    }

    fn cut_at(&self) -> MutexGuard<'_, Option<u64>> {
        self.cut_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process reads on from there.
    pub fn begin(&self, stored: u64) {
        // Another writer has begun again, or an operator has set the ledger back.
        self.cut_at().take_if(|cut_at| stored < *cut_at);
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
    /// The next ack is of records from the partition's beginning.
    begins_again: AtomicBool,
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
            begins_again: AtomicBool::new(false),
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

    /// Whether nothing that was delivered is left to store.
    pub fn are_all_acked(&self) -> bool {
        self.lock().is_empty()
    }

    /// Records from this offset on come next, which is the partition's beginning. `false`: records
    /// from before are not acked yet, and the lane takes no others before.
    pub fn begin_again(&self, begin: u64) -> bool {
        if !self.lock().is_empty() {
            return false;
        }
        self.unacked.stored.store(begin, Ordering::Relaxed);
        self.begins_again.store(true, Ordering::Relaxed);
        true
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
        if self.begins_again.swap(false, Ordering::Relaxed) {
            // The ledger has this lower offset from now on, and the next reader starts there.
            *self.unacked.cut_at() = None;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            id: Uuid::from_u128(5),
            topic: "t.exposures".to_owned(),
            partition: 3,
        }
    }

    #[test]
    fn a_cut_is_remembered_until_the_ledger_has_a_lower_offset() {
        let unacked = Arc::new(Unacked::default());
        let acks = Acks::new(place(), Arc::clone(&unacked));
        unacked.begin(100);
        acks.deliver(101, 1);
        assert!(unacked.note_cut());
        assert!(!unacked.note_cut(), "it is said once");
        assert!(!acks.begin_again(0), "a record from before is under way");
        acks.ack(0, 101);
        assert!(unacked.is_cut(), "the ledger has an offset from before");
        // The lease is lost and comes back, and the partition may be longer by now.
        drop(acks);
        let acks = Acks::new(place(), Arc::clone(&unacked));
        unacked.begin(101);
        assert!(unacked.is_cut());
        assert!(acks.begin_again(0));
        acks.deliver(1, 1);
        acks.ack(0, 1);
        assert!(!unacked.is_cut(), "the ledger has 1");
        // Another writer was faster.
        assert!(unacked.note_cut());
        unacked.begin(0);
        assert!(!unacked.is_cut());
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
