//! How a request learns what became of its rows: the writer produces a reply after the COMMIT, and
//! the intake that waits reads it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use recsys_ingest::event::result::RecordResult;
use tokio::sync::oneshot;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::client::Context;
use crate::reply::Reply;

/// Messages whose result is awaited here at the same time. A reply beyond them is not sent, and the
/// request is answered as durable.
pub const ASKED_MAX: usize = 16_384;

/// With fewer senders than this, the closed ones are not worth a search.
const PRUNE_AT_LEAST: usize = 1024;

/// Longest wait for the brokers at the start.
const LIMIT: Duration = Duration::from_secs(10);

/// Longest wait at the end for the last replies.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// Pause between two attempts.
const AGAIN: Duration = Duration::from_millis(200);

/// The producer of replies.
pub type Replies = ThreadedProducer<DefaultProducerContext>;

/// Requests of this intake that wait for what becomes of their rows, by the message's number.
#[derive(Debug, Default)]
pub struct Waiting {
    results: Mutex<Results>,
}

#[derive(Debug, Default)]
struct Results {
    senders: HashMap<u64, oneshot::Sender<RecordResult>>,
    /// Number of senders at which closed ones are removed.
    prune_at: usize,
}

impl Waiting {
    /// Keeps the sender until the reply comes. Clients give up long before a long outage ends:
    /// removing their senders each time the map has doubled bounds it by twice their number.
    pub fn insert(&self, number: u64, result: oneshot::Sender<RecordResult>) {
        let mut results = self.lock();
        if results.senders.len() >= results.prune_at.max(PRUNE_AT_LEAST) {
            results.senders.retain(|_, result| !result.is_closed());
            results.prune_at = 2 * results.senders.len();
        }
        results.senders.insert(number, result);
    }

    /// Takes the sender of a message's result.
    pub fn take(&self, number: u64) -> Option<oneshot::Sender<RecordResult>> {
        self.lock().senders.remove(&number)
    }

    fn lock(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message of an intake that waits for its result.
#[derive(Debug)]
pub struct Asked {
    pub intake: Uuid,
    pub partition: i32,
    pub number: u64,
    pub result: oneshot::Receiver<RecordResult>,
}

/// Sends replies for what is `asked`, those that are there together as one message.
pub async fn answer(asked: flume::Receiver<Asked>, producer: Replies, topic: String) {
    let mut answers = Answers {
        asked,
        open: FuturesUnordered::new(),
        producer,
        topic,
    };
    loop {
        let is_full = answers.open.len() >= ASKED_MAX;
        let done = tokio::select! {
            next = answers.asked.recv_async(), if !is_full => {
                match next {
                    Ok(next) => answers.take(next),
                    // No lane is left that could ask.
                    Err(_) => {
                        while let Some(done) = answers.open.next().await {
                            answers.send_with(done);
                        }
                        std::future::pending::<()>().await;
                    }
                }
                continue;
            }
            Some(done) = answers.open.next(), if !answers.open.is_empty() => done,
        };
        answers.send_with(done);
    }
}

/// The intake and the partition that a result goes to, the message's number, and the result.
type Done = (
    (Uuid, i32),
    u64,
    Result<RecordResult, oneshot::error::RecvError>,
);

/// Results that are awaited. Those that are there when it is dropped are sent.
struct Answers {
    asked: flume::Receiver<Asked>,
    open: FuturesUnordered<BoxFuture<'static, Done>>,
    producer: Replies,
    topic: String,
}

impl Answers {
    fn take(&self, asked: Asked) {
        let Asked {
            intake,
            partition,
            number,
            result,
        } = asked;
        let result = async move { ((intake, partition), number, result.await) };
        self.open.push(Box::pin(result));
    }

    /// Sends what is done together with all that is done by now.
    fn send_with(&mut self, done: Done) {
        let mut by_intake: HashMap<(Uuid, i32), Vec<(u64, RecordResult)>> = HashMap::new();
        let mut next = Some(done);
        while let Some((to, number, result)) = next {
            // Without a result the lane has left the stream, and another one stores the message.
            if let Ok(result) = result {
                by_intake.entry(to).or_default().push((number, result));
            }
            next = self.open.next().now_or_never().flatten();
        }
        for ((intake, partition), results) in by_intake {
            for reply in Reply::split(intake, results) {
                let bytes = reply.encode();
                let message = BaseRecord::<(), _>::to(&self.topic)
                    .partition(partition)
                    .payload(&bytes);
                if let Err((error, _)) = self.producer.send(message) {
                    debug!(%error, "cannot tell an intake what became of its events");
                }
            }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        while let Ok(asked) = self.asked.try_recv() {
            self.take(asked);
        }
        while let Some(done) = self.open.next().now_or_never().flatten() {
            self.send_with(done);
        }
        // Else the producer's own end purges them.
        if let Err(error) = self.producer.flush(FLUSH_LIMIT) {
            debug!(%error, "cannot tell intakes what became of their last events");
        }
    }
}

/// Reads the partition of the replies from now on. Blocks.
///
/// # Errors
/// The brokers do not answer.
pub fn listen(consumer: &StreamConsumer<Context>, topic: &str, partition: i32) -> Result<()> {
    let doing = || format!("cannot read partition {partition} of the topic {topic}");
    let began = Instant::now();
    let (_, end) = loop {
        match consumer.fetch_watermarks(topic, partition, LIMIT) {
            Ok(ends) => break ends,
            Err(error) if began.elapsed() > LIMIT => return Err(error).with_context(doing),
            // A partition of a topic that was just made has no leader yet.
            Err(_) => std::thread::sleep(AGAIN),
        }
    };
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, partition, Offset::Offset(end))
        .with_context(doing)?;
    consumer.assign(&from).with_context(doing)
}

/// Passes replies to the requests that wait, for ever.
pub async fn receive(consumer: StreamConsumer<Context>, intake: Uuid, waiting: Arc<Waiting>) {
    loop {
        let message = match consumer.recv().await {
            Ok(message) => message,
            Err(error) => {
                debug!(%error, "cannot read replies");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let bytes = message.payload().unwrap_or_default();
        if Reply::intake_of(bytes) != Some(intake) {
            continue;
        }
        let Some(reply) = Reply::decode(bytes) else {
            warn!("a reply to this intake is damaged; its requests are answered as durable");
            continue;
        };
        for (number, result) in reply.results {
            if let Some(sender) = waiting.take(number) {
                // The request may have given up.
                sender.send(result).ok();
            }
        }
    }
}
