//! Passes the records of the local spool on to the brokers, stream by stream, in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::message::{Header as MessageHeader, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use recsys_ingest::admission::record::table_of;
use recsys_ingest::log::read::Next;
use recsys_ingest::log::record::Delivered;
use recsys_ingest::log::spool::shared::Spool;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Memory, Positions, Reader};
use crate::client::{Brokers, Context};
use crate::header::{Header, NAME};
use crate::topics::{Topic, Topics};

/// Messages without an answer.
const AT_ONCE: usize = 64;

/// Bytes that are read from the disk at a time, and sent at a time.
const BYTES_AT_ONCE: usize = 1 << 20;

/// Pause while the brokers are away, and after a failure.
const AGAIN: Duration = Duration::from_millis(500);

type Record = Delivered<Option<Memory>, ()>;

/// What passes on a stream.
pub struct Drain {
    pub reader: Reader,
    pub spool: Spool,
    pub positions: Arc<Positions>,
    pub producer: FutureProducer<Context>,
    pub topics: Arc<Topics>,
    pub intake: Uuid,
    pub brokers: Brokers,
}

/// The records of a stream, in memory or from the disk.
struct Source {
    /// `None` while a thread reads.
    reader: Option<Reader>,
    read: VecDeque<Record>,
}

impl Drain {
    /// Passes records on, for ever.
    pub async fn run(self) {
        let Self {
            reader,
            spool,
            positions,
            producer,
            topics,
            intake,
            brokers,
        } = self;
        let stream = reader.stream();
        let topic = topics.of(table_of(stream));
        let mut source = Source {
            reader: Some(reader),
            read: VecDeque::new(),
        };
        let mut sending = VecDeque::new();
        let (mut turn, mut is_failing) = (0_u32, false);
        loop {
            if sending.is_empty() {
                source.take(&mut sending).await;
            }
            while brokers.are_away() {
                tokio::time::sleep(AGAIN).await;
            }
            let sent = sending.iter().map(|record| {
                turn = turn.wrapping_add(1);
                send(&producer, topic, intake, turn, record)
            });
            let sent = futures_util::future::join_all(sent).await;
            let acked = sent.iter().take_while(|sent| sent.is_ok()).count();
            if let Some(last) = sending.drain(..acked).next_back() {
                spool.ack(stream, last.sequence);
                positions.set(stream, last.sequence);
            }
            match sent.into_iter().find_map(Result::err) {
                None if std::mem::take(&mut is_failing) => {
                    info!(
                        topic = topic.name,
                        "records of the local spool are passed on again"
                    );
                }
                None => {}
                Some(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        warn!(topic = topic.name, %error, "cannot pass on records of the local spool; they stay there");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Sends a record, and waits for the acknowledgement.
async fn send(
    producer: &FutureProducer<Context>,
    topic: &Topic,
    intake: Uuid,
    turn: u32,
    record: &Record,
) -> Result<(), rdkafka::error::KafkaError> {
    let header = Header {
        items: record.items,
        intake,
        number: 0,
        reply_to: None,
    };
    let header = header.encode();
    let headers = OwnedHeaders::new_with_capacity(1).insert(MessageHeader {
        key: NAME,
        value: Some(&header[..]),
    });
    let partition = turn % u32::from(topic.partitions.max(1));
    let message = FutureRecord::<(), [u8]>::to(&topic.name)
        .partition(i32::try_from(partition).unwrap_or(0))
        .payload(&record.payload)
        .headers(headers);
    let sent = producer.send(message, AGAIN).await;
    sent.map(drop).map_err(|(error, _)| error)
}

impl Source {
    /// Takes records, at least one.
    async fn take(&mut self, into: &mut VecDeque<Record>) {
        let mut bytes = 0;
        let mut next = Some(self.next().await);
        while let Some(record) = next {
            bytes += record.payload.len();
            into.push_back(record);
            let is_full = into.len() >= AT_ONCE || bytes >= BYTES_AT_ONCE;
            next = if is_full { None } else { self.ready() };
        }
    }

    /// A record that is in memory.
    fn ready(&mut self) -> Option<Record> {
        if let Some(record) = self.read.pop_front() {
            return Some(record);
        }
        match self.reader.as_mut()?.try_next() {
            Next::Record(record) => Some(record),
            Next::Fetch | Next::Empty | Next::Ended => None,
        }
    }

    async fn next(&mut self) -> Record {
        loop {
            if let Some(record) = self.read.pop_front() {
                return record;
            }
            let mut reader = self.reader.take().expect("nobody else reads");
            match reader.try_next() {
                Next::Record(record) => {
                    self.reader = Some(reader);
                    return record;
                }
                Next::Fetch => {
                    let reading = tokio::task::spawn_blocking(move || {
                        let read = reader.read_from_disk(BYTES_AT_ONCE);
                        (reader, read)
                    });
                    let (reader, read) = reading.await.expect("reading does not panic");
                    self.reader = Some(reader);
                    match read {
                        Ok(records) => self.read.extend(records),
                        Err(error) => {
                            debug!("cannot read the local spool: {error:#}");
                            tokio::time::sleep(AGAIN).await;
                        }
                    }
                }
                Next::Empty => {
                    reader.wait().await;
                    self.reader = Some(reader);
                }
                // Nothing more comes in: the service stops.
                Next::Ended => std::future::pending().await,
            }
        }
    }
}
