//! Reads a partition from the offset that the ledger has.
//!
//! A record's sequence is its offset + 1, so a watermark is the offset to read next, and 0 is the
//! beginning. Offsets have no gaps: there are no transactions, and nothing is compacted.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::FutureExt as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use recsys_ingest::admission::record::InMemory;
use recsys_ingest::event::result::RecordResult;
use recsys_ingest::event::row::rows::Rows;
use recsys_ingest::log::read::{Next, Read, Start};
use recsys_ingest::log::record::Delivered;
use tokio::sync::oneshot;
use tracing::debug;

use crate::acks::Acks;
use crate::client::Context;
use crate::message::Raw;
use crate::place::Place;
use crate::replies::Asked;
use crate::turn::{Queue, Turn, empty};
use crate::windows::{TAKEN_BYTES, Windows};

/// Longest wait for the ends of a partition.
const LIMIT: Duration = Duration::from_secs(5);

/// Pause before the next look whether the lane has stored what it took.
const AGAIN: Duration = Duration::from_millis(100);

/// Messages that are taken from the library at a time.
const TAKEN_MAX: usize = 128;

/// Attempts to read on at the same offset before a gap is a fault.
const GAPS_MAX: u32 = 3;

/// A record as the log delivers it.
type FromLog = Delivered<Option<InMemory>, RecordResult>;

/// The reader of a partition, for as long as this process has its lease.
pub struct Reader {
    place: Place,
    consumer: Arc<StreamConsumer<Context>>,
    /// Set while the partition is assigned.
    queue: Option<Queue>,
    /// The offset after the last record in `taken`.
    next: u64,
    taken: VecDeque<FromLog>,
    /// The partition has to be assigned again.
    lost: Option<Lost>,
    gaps: u32,
    /// The library says that `next` is none of the partition's offsets.
    is_outside: bool,
    /// What the partition lost is dealt with: it is read from its beginning.
    begins_again: bool,
    turn: Turn,
    acks: Arc<Acks>,
    asked: flume::Sender<Asked>,
}

/// Why nothing more comes from the library.
enum Lost {
    Failed(KafkaError),
    /// The library passed over `next` and went on here.
    Gap(u64),
}

impl Reader {
    /// A reader of the partition; [`Read::start`] says from where.
    pub fn new(
        place: Place,
        consumer: Arc<StreamConsumer<Context>>,
        windows: Arc<Windows>,
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
            is_outside: false,
            begins_again: false,
            turn: Turn::new(windows),
            acks,
            asked,
        }
    }

    /// Has the library fetch from `next` on, or says what to wait for before that. Blocks.
    fn assign(&mut self) -> Result<()> {
        let Place {
            topic, partition, ..
        } = &self.place;
        let number = i32::from(*partition);
        let ends = self.consumer.fetch_watermarks(topic, number, LIMIT);
        let (begin, end) = ends.map_err(|error| self.place.failed(error))?;
        self.acks.unacked.ends_at(end);
        let next = i64::try_from(self.next).context("the ledger's offset is none of Kafka's")?;
        self.place.check(next, begin)?;
        if std::mem::take(&mut self.is_outside) || next > end {
            self.begins_again = false;
            if self.acks.unacked.note_cut() {
                self.place.say_cut(self.next, end);
            }
        }
        if self.acks.unacked.is_cut() && !self.begins_again {
            let begin = u64::try_from(begin).unwrap_or(0);
            if !self.acks.begin_again(begin) {
                std::thread::sleep(AGAIN);
                return Ok(());
            }
            (self.next, self.begins_again) = (begin, true);
        }
        let next = i64::try_from(self.next).context("an offset is none of Kafka's")?;
        if !self.turn.take_window(next < end) {
            return Ok(());
        }
        let Place {
            topic, partition, ..
        } = &self.place;
        let doing = || format!("cannot read partition {partition} of the topic {topic}");
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
        self.turn.begin();
        Ok(())
    }

    /// Has the library fetch no more. Returns its queue.
    fn unassign(&mut self) -> Option<Queue> {
        if let Some(first) = self.taken.front() {
            self.next = first.sequence - 1;
        }
        self.taken.clear();
        let queue = self.queue.take()?;
        let Place {
            topic, partition, ..
        } = &self.place;
        let mut this = TopicPartitionList::new();
        this.add_partition(topic, i32::from(*partition));
        if let Err(error) = self.consumer.incremental_unassign(&this) {
            debug!(%error, topic, partition, "cannot let go of a partition");
        }
        // The library keeps it until the partition is assigned again.
        empty(&queue);
        Some(queue)
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
            memory: traced(&raw),
            payload: raw.payload,
            result,
        });
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
            None if self.turn.is_pausing() => Next::Empty,
            None if self.queue.is_none() || self.lost.is_some() || self.turn.is_over() => {
                Next::Fetch
            }
            None => Next::Empty,
        }
    }

    async fn wait(&mut self) {
        if self.turn.is_pausing() {
            return self.turn.wait(&self.acks).await;
        }
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
                drop(self.unassign());
                if matches!(
                    error.rdkafka_error_code(),
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::LogTruncation)
                ) {
                    // By the time that it is looked at, the partition may reach beyond `next` again.
                    self.is_outside = true;
                    return Ok(Vec::new());
                }
                return Err(self.place.failed(error));
            }
            Some(Lost::Gap(at)) => {
                drop(self.unassign());
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
        if self.queue.is_some() && self.turn.is_over() {
            let queue = self.unassign();
            self.turn.give_way(queue);
        } else if self.queue.is_none() {
            let assigned = self.assign();
            if self.queue.is_none() {
                // Others can read while this one cannot.
                self.turn.give_up(&self.acks);
            }
            assigned?;
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
    queue: Option<Queue>,
}

impl Holder<'_> {
    async fn receive(&mut self) {
        let Some(queue) = &self.queue else { return };
        let first = tokio::select! {
            biased;
            first = queue.recv() => first.map(|message| Raw::of(&message)),
            () = self.reader.turn.is_wanted() => return self.reader.turn.end(),
        };
        let mut bytes = bytes_of(&first);
        self.reader.take(first);
        while self.reader.lost.is_none()
            && self.reader.taken.len() < TAKEN_MAX
            && bytes < TAKEN_BYTES
        {
            let more = queue.recv().now_or_never();
            match more.map(|more| more.map(|message| Raw::of(&message))) {
                Some(received) => {
                    bytes += bytes_of(&received);
                    self.reader.take(received);
                }
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
        drop(self.unassign());
    }
}

/// The rows of a message that has a place in a trace. The lane parses those of others, and says what is
/// wrong with those that cannot be read.
fn traced(raw: &Raw) -> Option<InMemory> {
    let trace = Some(raw.trace.clone()?);
    let rows = Rows::parse(raw.payload.clone()).ok()?;
    Some(InMemory {
        rows,
        reservation: None,
        trace,
        aside: None,
    })
}

fn bytes_of(received: &Result<Raw, KafkaError>) -> usize {
    received.as_ref().map_or(0, |raw| raw.payload.len())
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("place", &self.place)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
