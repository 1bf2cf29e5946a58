//! Reads a partition from the ledger's offset, and what is acknowledged of it.
//!
//! A record's sequence is its offset + 1, so a watermark is the offset to read next, and 0 is the
//! beginning. Offsets have no gaps: there are no transactions, and nothing is compacted.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::FutureExt as _;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use recsys_ingest::admission::record::InMemory;
use recsys_ingest::event::result::RecordResult;
use recsys_ingest::log::read::{Acknowledge, Next, Proof, Read, Start};
use recsys_ingest::log::record::Delivered;
use tokio::sync::oneshot;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::client::Context;
use crate::header::{Header, NAME};
use crate::replies::Asked;

/// Longest wait for the ends of a partition.
const LIMIT: Duration = Duration::from_secs(5);

/// Messages that are taken from the library at a time.
const TAKEN_MAX: usize = 128;

/// Attempts to read on at the same offset before a gap is a fault.
const GAPS_MAX: u32 = 3;

/// A record as the log delivers it.
type FromLog = Delivered<Option<InMemory>, RecordResult>;

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

    fn begin(&self, stored: u64) {
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

/// The reader of a partition, for as long as this process has its lease.
pub struct Reader {
    place: Place,
    consumer: Arc<StreamConsumer<Context>>,
    /// Set while the partition is assigned.
    queue: Option<StreamPartitionQueue<Context>>,
    /// The offset after the last record in `taken`.
    next: u64,
    taken: VecDeque<FromLog>,
    /// The partition has to be assigned again.
    lost: Option<Lost>,
    gaps: u32,
    acks: Arc<Acks>,
    asked: flume::Sender<Asked>,
}

/// Why nothing more comes from the library.
enum Lost {
    Failed(KafkaError),
    /// The library passed over `next` and went on here.
    Gap(u64),
}

/// What is acknowledged of a partition, for as long as this process has its lease.
#[derive(Debug)]
pub struct Acks {
    place: Place,
    opening: Uuid,
    /// Records that are delivered and not acked: sequence and items.
    delivered: Mutex<VecDeque<(u64, u32)>>,
    unacked: Arc<Unacked>,
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

    fn deliver(&self, sequence: u64, items: u32) {
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

impl Reader {
    /// A reader of the partition; [`Read::start`] says from where.
    pub fn new(
        place: Place,
        consumer: Arc<StreamConsumer<Context>>,
        acks: Arc<Acks>,
        asked: flume::Sender<Asked>,
    ) -> Self {
        Self {
            place,
            consumer,
            queue: None,
            next: 0,
            taken: VecDeque::new(),
            lost: None,
            gaps: 0,
            acks,
            asked,
        }
    }

    /// Has the library fetch from `next` on. Blocks.
    fn assign(&mut self) -> Result<()> {
        let Place {
            topic, partition, ..
        } = &self.place;
        let number = i32::from(*partition);
        let doing = || format!("cannot read partition {partition} of the topic {topic}");
        let ends = self.consumer.fetch_watermarks(topic, number, LIMIT);
        let (begin, end) = ends.with_context(doing)?;
        let next = i64::try_from(self.next).context("the ledger's offset is none of Kafka's")?;
        self.place.check(next, begin, end)?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, number, Offset::Offset(next))
            .with_context(doing)?;
        // First its own queue: the library keeps to it from the first message on.
        let queue = self.consumer.split_partition_queue(topic, number);
        ensure!(queue.is_some(), "{}: it has no queue", doing());
        self.consumer
            .incremental_assign(&from)
            .with_context(doing)?;
        self.queue = queue;
        self.acks.unacked.ends_at(end);
        Ok(())
    }

    /// Has the library fetch no more.
    fn unassign(&mut self) {
        if let Some(first) = self.taken.front() {
            self.next = first.sequence - 1;
        }
        self.taken.clear();
        if self.queue.take().is_none() {
            return;
        }
        let Place {
            topic, partition, ..
        } = &self.place;
        let mut this = TopicPartitionList::new();
        this.add_partition(topic, i32::from(*partition));
        if let Err(error) = self.consumer.incremental_unassign(&this) {
            debug!(%error, topic, partition, "cannot let go of a partition");
        }
    }

    /// Keeps a message that the library has, or notes why there is none.
    fn take(&mut self, received: Result<Raw, KafkaError>) {
        let raw = match received {
            Ok(raw) => raw,
            Err(error) => {
                self.lost = Some(Lost::Failed(error));
                return;
            }
        };
        if raw.offset < self.next {
            return;
        }
        if raw.offset > self.next {
            self.lost = Some(Lost::Gap(raw.offset));
            return;
        }
        self.gaps = 0;
        self.next += 1;
        let header = raw.header;
        let reply_to = header.and_then(|header| Some((header, header.reply_to?)));
        let result = reply_to.and_then(|(header, partition)| {
            let (sender, result) = oneshot::channel();
            let asked = Asked {
                intake: header.intake,
                partition,
                number: header.number,
                result,
            };
            // With too many, the request is answered as durable.
            self.asked.try_send(asked).is_ok().then_some(sender)
        });
        self.taken.push_back(Delivered {
            sequence: self.next,
            // Without a header the payload cannot be read either; the lane says so and stops there.
            items: header.map_or(0, |header| header.items),
            payload: raw.payload,
            memory: None,
            result,
        });
    }
}

impl Place {
    /// Refuses to read on where records are missing.
    fn check(&self, next: i64, begin: i64, end: i64) -> Result<()> {
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

impl Read<InMemory, RecordResult> for Reader {
    fn start(&mut self, start: &Start) -> bool {
        self.next = start.watermark;
        self.acks.unacked.begin(start.watermark);
        true
    }

    fn try_next(&mut self) -> Next<InMemory, RecordResult> {
        match self.taken.pop_front() {
            Some(record) => {
                self.acks.deliver(record.sequence, record.items);
                Next::Record(record)
            }
            None if self.queue.is_none() || self.lost.is_some() => Next::Fetch,
            None => Next::Empty,
        }
    }

    async fn wait(&mut self) {
        let Some(queue) = self.queue.take() else {
            return;
        };
        // Put back if this is cancelled.
        let mut holder = Holder {
            reader: self,
            queue: Some(queue),
        };
        holder.receive().await;
    }

    fn fetch(&mut self, _bytes_max: usize) -> Result<Vec<FromLog>> {
        match self.lost.take() {
            None => {}
            Some(Lost::Failed(error)) => {
                self.unassign();
                let Place {
                    topic, partition, ..
                } = &self.place;
                return Err(error).with_context(|| {
                    format!("cannot read partition {partition} of the topic {topic}")
                });
            }
            Some(Lost::Gap(at)) => {
                self.unassign();
                self.gaps += 1;
                let Place {
                    topic, partition, ..
                } = &self.place;
                ensure!(
                    self.gaps < GAPS_MAX,
                    "partition {partition} of the topic {topic} has no messages between the offsets {} and {at}",
                    self.next
                );
            }
        }
        if self.queue.is_none() {
            self.assign()?;
        }
        Ok(Vec::new())
    }

    async fn abandon(self) {
        // Dropped: the partition is let go of, and so are the results.
    }
}

/// Waits for messages while the reader is borrowed.
struct Holder<'r> {
    reader: &'r mut Reader,
    queue: Option<StreamPartitionQueue<Context>>,
}

impl Holder<'_> {
    async fn receive(&mut self) {
        let Some(queue) = &self.queue else { return };
        let first = queue.recv().await.map(|message| Raw::of(&message));
        self.reader.take(first);
        while self.reader.lost.is_none() && self.reader.taken.len() < TAKEN_MAX {
            let more = queue.recv().now_or_never();
            match more.map(|more| more.map(|message| Raw::of(&message))) {
                Some(received) => self.reader.take(received),
                None => return,
            }
        }
    }
}

impl Drop for Holder<'_> {
    fn drop(&mut self) {
        self.reader.queue = self.queue.take();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.unassign();
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("place", &self.place)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// A message, copied out of the library.
struct Raw {
    offset: u64,
    header: Option<Header>,
    payload: Bytes,
}

impl Raw {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let offset = u64::try_from(message.offset()).unwrap_or(0);
        let mut headers = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter());
        let ours = headers.find(|header| header.key == NAME);
        let header = ours.and_then(|header| Header::decode(header.value?).ok());
        if header.is_none() {
            warn!(offset, "a message has no header of this program's");
        }
        Self {
            offset,
            header,
            payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        }
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
