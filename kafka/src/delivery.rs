//! What becomes of messages: their partition, and the answer of the brokers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{Partitioner, ProducerContext};
use recsys_ingest::admission::record::{Aside, Reservation};
use recsys_ingest::event::table::Table;
use recsys_ingest::log::record::{AppendError, Turn};
use tokio::sync::oneshot;

use crate::client::Context;
use crate::fallback::{Entry, Keeper};
use crate::limit::Limit;
use crate::replies::Waiting;
use crate::topics::{Topic, Topics};

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
    pub table: Table,
    pub durable: Option<oneshot::Sender<Result<(), AppendError>>>,
    /// Set if a request waits for what becomes of it.
    pub number: Option<u64>,
    pub items: u32,
    pub payload_bytes: usize,
    /// Held until then, for the library's copy of the payload.
    pub memory: Option<Reservation>,
    pub turn: Turn,
    pub aside: Option<Aside>,
}

impl Pending {
    /// Its record, for the local spool.
    fn with(self, payload: &[u8]) -> Entry {
        Entry {
            table: self.table,
            items: self.items,
            payload: Bytes::copy_from_slice(payload),
            turn: self.turn,
            durable: self.durable,
            memory: self.memory,
            aside: self.aside,
        }
    }
}

/// Answers records once the brokers have answered.
pub struct Delivery {
    pub context: Context,
    pub produced: Arc<Produced>,
    pub waiting: Arc<Waiting>,
    pub turns: Turns,
    pub limit: Arc<Limit>,
    /// Where records go that are not acknowledged in time.
    pub keeper: Option<Keeper>,
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

impl Delivery {
    /// Counts a message that is handed to the library.
    pub fn begins(&self, pending: &Pending) {
        let Produced {
            unanswered,
            unanswered_items,
            ..
        } = &*self.produced;
        unanswered.fetch_add(1, Ordering::Relaxed);
        unanswered_items.fetch_add(pending.items.into(), Ordering::Relaxed);
    }

    /// Answers a message, or has the local spool answer it. `payload` is what it holds, if that is known.
    pub fn ends(&self, pending: Pending, outcome: Result<(), &KafkaError>, payload: Option<&[u8]>) {
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
                    // The brokers say it of the whole batch.
                    Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                        Err(self.limit.refuse(pending.payload_bytes))
                    }
                    _ => {
                        self.context.brokers.leave(&error.to_string());
                        if let (Some(keeper), Some(payload)) = (&self.keeper, payload) {
                            return keeper.keep(pending.with(payload));
                        }
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
        match result {
            Ok(_) => self.ends(*pending, Ok(()), None),
            Err((error, message)) => self.ends(*pending, Err(error), message.payload()),
        }
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
