//! Produces records, and answers each once the in-sync replicas have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header as MessageHeader, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, Partitioner, Producer as _, ProducerContext, ThreadedProducer,
};
use recsys_ingest::admission::record::{InMemory, Record};
use recsys_ingest::log::append::Append;
use recsys_ingest::log::record::{AppendError, Turn};
use tokio::sync::oneshot;
use tracing::debug;
use uuid::Uuid;

use crate::client::{Context, MESSAGE_TIMEOUT_MS};
use crate::header::{Header, NAME};
use crate::replies::Waiting;
use crate::topics::{Topic, Topics};

/// Pause while librdkafka's queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// The producer of events.
pub type Producer = ThreadedProducer<Delivery, Turns>;

/// Takes records and produces each as a message.
pub struct Appender {
    pub entries: flume::Receiver<Record>,
    pub producer: Producer,
    pub topics: Arc<Topics>,
    pub intake: Uuid,
    /// Where replies to this intake go.
    pub reply_partition: i32,
    pub waiting: Arc<Waiting>,
}

/// What this process has produced.
#[derive(Debug, Default)]
pub struct Produced {
    /// Rows that were acknowledged.
    pub items: AtomicU64,
    /// Messages without an answer.
    pub unanswered: AtomicI64,
    /// Rows in them.
    pub unanswered_items: AtomicI64,
    /// Messages that were refused without a receiver for the answer.
    pub refused: AtomicU64,
}

/// A message without an answer.
pub struct Pending {
    durable: Option<oneshot::Sender<Result<(), AppendError>>>,
    /// Set if a request waits for what becomes of it.
    number: Option<u64>,
    items: u32,
    /// Held until then: the library has a copy of the payload.
    _memory: InMemory,
    _turn: Turn,
}

/// Answers records once the brokers have answered.
pub struct Delivery {
    pub context: Context,
    pub produced: Arc<Produced>,
    pub waiting: Arc<Waiting>,
    pub turns: Turns,
}

/// Partitions of a topic take turns, without those that have no leader and those that were added since
/// the start: the writers may not know them yet.
pub struct Turns {
    topics: Vec<TopicTurns>,
}

struct TopicTurns {
    name: String,
    partitions: i32,
    turn: AtomicU32,
}

impl Turns {
    /// Turns of the partitions of these topics.
    pub fn new(topics: &Topics) -> Self {
        let of = |topic: &Topic| TopicTurns {
            name: topic.name.clone(),
            partitions: topic.partitions.into(),
            turn: AtomicU32::new(0),
        };
        Self {
            topics: topics.events.iter().map(of).collect(),
        }
    }
}

impl Partitioner for Turns {
    fn partition(
        &self,
        topic: &str,
        _key: Option<&[u8]>,
        partitions: i32,
        has_leader: impl Fn(i32) -> bool,
    ) -> i32 {
        let Some(known) = self.topics.iter().find(|known| known.name == topic) else {
            return 0;
        };
        let partitions = partitions.min(known.partitions).max(1);
        let turn = known.turn.fetch_add(1, Ordering::Relaxed);
        let from = i32::try_from(turn % partitions.unsigned_abs()).unwrap_or(0);
        let mut order = (0..partitions).map(|step| (from + step) % partitions);
        // If none has a leader, the message waits for one.
        order
            .find(|&partition| has_leader(partition))
            .unwrap_or(from)
    }
}

impl Append for Appender {
    fn run(self) {
        let mut number = 0;
        while let Ok(record) = self.entries.recv() {
            number += 1;
            self.produce(record, number);
        }
        // The library answers each message within its timeout.
        let limit = Duration::from_millis(u64::from(MESSAGE_TIMEOUT_MS) + 2000);
        if let Err(error) = self.producer.flush(limit) {
            debug!(%error, "messages are left without an answer");
        }
    }
}

impl Appender {
    fn produce(&self, record: Record, number: u64) {
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
        let headers = OwnedHeaders::new_with_capacity(1).insert(MessageHeader {
            key: NAME,
            value: Some(&header[..]),
        });
        let pending = Box::new(Pending {
            durable,
            number: is_waited_for.then_some(number),
            items,
            _memory: memory,
            _turn: turn,
        });
        let context = self.producer.context();
        context.begins(&pending);
        let mut message = BaseRecord::<(), [u8], _>::with_opaque_to(topic, pending)
            .payload(&payload[..])
            .headers(headers);
        while let Err((error, returned)) = self.producer.send(message) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                context.ends(*returned.delivery_opaque, Err(&error));
                return;
            }
            // Messages leave it as they are answered, or by their timeout.
            message = returned;
            std::thread::sleep(FULL_PAUSE);
        }
    }
}

impl Delivery {
    fn begins(&self, pending: &Pending) {
        let Produced {
            unanswered,
            unanswered_items,
            ..
        } = &*self.produced;
        unanswered.fetch_add(1, Ordering::Relaxed);
        unanswered_items.fetch_add(pending.items.into(), Ordering::Relaxed);
    }

    fn ends(&self, pending: Pending, outcome: Result<(), &KafkaError>) {
        let Produced {
            items,
            unanswered,
            unanswered_items,
            refused,
        } = &*self.produced;
        unanswered.fetch_sub(1, Ordering::Relaxed);
        unanswered_items.fetch_sub(pending.items.into(), Ordering::Relaxed);
        let answer = match outcome {
            Ok(()) => {
                self.context.brokers.come_back();
                items.fetch_add(pending.items.into(), Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                if let Some(number) = pending.number {
                    drop(self.waiting.take(number));
                }
                match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::MessageSizeTooLarge) => Err(AppendError::TooLarge),
                    _ => {
                        self.context.brokers.leave(&error.to_string());
                        Err(AppendError::Away)
                    }
                }
            }
        };
        match pending.durable {
            // The receiver may be gone.
            Some(durable) => {
                durable.send(answer).ok();
            }
            None if answer.is_err() => {
                refused.fetch_add(1, Ordering::Relaxed);
            }
            None => {}
        }
    }
}

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.context.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext<Turns> for Delivery {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Box<Pending>) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error),
        };
        self.ends(*pending, outcome);
    }

    fn get_custom_partitioner(&self) -> Option<&Turns> {
        Some(&self.turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_take_turns_topic_by_topic_without_those_that_have_no_leader() {
        let of = |name: &str, partitions, turn| TopicTurns {
            name: name.to_owned(),
            partitions,
            turn: AtomicU32::new(turn),
        };
        let turns = Turns {
            topics: vec![of("a", 3, 0), of("b", 3, u32::MAX)],
        };
        let next = |topic: &str, dead: &[i32]| {
            turns.partition(topic, None, 3, |partition| !dead.contains(&partition))
        };
        let all: Vec<i32> = (0..4).map(|_| next("a", &[])).collect();
        assert_eq!(all, [0, 1, 2, 0]);
        // Of two topics in turn each goes on where it was.
        assert_eq!((next("b", &[]), next("a", &[])), (0, 1));
        assert_eq!(next("a", &[2]), 0);
        assert_eq!(next("a", &[0, 1, 2]), 0, "all wait for a leader");
        // Partitions that were added later are not known to the writers.
        let all: Vec<i32> = (0..3)
            .map(|_| turns.partition("b", None, 9, |_| true))
            .collect();
        assert_eq!(all, [0, 1, 2]);
    }
}
