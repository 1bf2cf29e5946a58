//! Produces records, and answers each once the in-sync replicas have it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header as MessageHeader, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use recsys_ingest::admission::record::Record;
use recsys_ingest::log::append::Append;
use tracing::error;
use uuid::Uuid;

use crate::client::Brokers;
use crate::delivery::Pending;
use crate::fallback::Keeper;
use crate::header::{Header, NAME, TRACEPARENT};
use crate::producers::Producers;
use crate::replies::Waiting;
use crate::topics::Topics;

/// Pause while librdkafka's queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// Takes records and produces each as a message.
pub struct Appender {
    pub entries: flume::Receiver<Record>,
    pub producers: Producers,
    pub topics: Arc<Topics>,
    pub intake: Uuid,
    /// Where replies to this intake go.
    pub reply_partition: i32,
    pub waiting: Arc<Waiting>,
    pub brokers: Brokers,
    /// The way into the local spool, if there is one.
    pub keeper: Option<Keeper>,
    /// Whether records go there while the brokers are away.
    pub keeps: bool,
    /// Makes those durable, until the last keeper is gone.
    pub committing: Option<JoinHandle<()>>,
    pub timeout_ms: u32,
}

impl Append for Appender {
    fn run(mut self) {
        let mut number = 0;
        while let Ok(record) = self.entries.recv() {
            match &self.keeper {
                Some(keeper) if self.keeps && self.brokers.are_away() => keeper.keep(record.into()),
                _ => {
                    number += 1;
                    self.produce(record, number);
                }
            }
        }
        // The library answers each message within its timeout.
        let limit = Duration::from_millis(u64::from(self.timeout_ms) + 2000);
        self.producers.flush(limit);
        let committing = self.committing.take();
        // With the last producer and this the way into the local spool is closed.
        drop(self);
        if committing.is_some_and(|committing| committing.join().is_err()) {
            error!("the thread of the local spool panicked");
        }
    }
}

impl Appender {
    fn produce(&mut self, record: Record, number: u64) {
        let Record {
            items,
            payload,
            turn,
            durable,
            memory,
            result,
            ..
        } = record;
        let topic = &self.topics.of(memory.rows.table()).name;
        let is_waited_for = result.is_some();
        if let Some(result) = result {
            self.waiting.insert(number, result);
        }
        let header = Header {
            items,
            intake: self.intake,
            number,
            reply_to: is_waited_for.then_some(self.reply_partition),
        };
        let header = header.encode();
        let mut headers = OwnedHeaders::new_with_capacity(2).insert(MessageHeader {
            key: NAME,
            value: Some(&header[..]),
        });
        if let Some(trace) = &memory.trace {
            headers = headers.insert(MessageHeader {
                key: TRACEPARENT,
                value: Some(trace.as_bytes()),
            });
        }
        let pending = Box::new(Pending {
            table: memory.rows.table(),
            durable,
            number: is_waited_for.then_some(number),
            items,
            payload_bytes: payload.len(),
            memory: memory.reservation,
            turn,
            aside: memory.aside,
        });
        let producer = self.producers.current();
        let context = producer.context();
        context.begins(&pending);
        let mut message = BaseRecord::<(), [u8], _>::with_opaque_to(topic, pending)
            .payload(&payload[..])
            .headers(headers);
        while let Err((error, returned)) = producer.send(message) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                context.ends(*returned.delivery_opaque, Err(&error), Some(&payload[..]));
                return;
            }
            // Messages leave it as they are answered, or by their timeout.
            message = returned;
            std::thread::sleep(FULL_PAUSE);
        }
    }
}
