//! Opens Kafka as the log of a service.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::BoxFuture;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord, ThreadedProducer};
use recsys_ingest::accounts::ledger::Stream;
use recsys_ingest::admission::record::Record;
use recsys_ingest::config::Serve;
use recsys_ingest::log::read::Acknowledge;
use recsys_ingest::log::spool::directory_lock::DirectoryLock;
use recsys_ingest::service::engine::{Engine, Lanes, Open, Opened};
use tracing::{debug, info};
use uuid::Uuid;

use crate::acks::{Acks, Unacked};
use crate::appender::Appender;
use crate::capacity::KafkaCapacity;
use crate::client::{self, Brokers, Context};
use crate::delivery::Produced;
use crate::limit::Limit;
use crate::place::Place;
use crate::producers::{Makings, Producers};
use crate::reader::Reader;
use crate::replies::{self, ASKED_MAX, Waiting};
use crate::settings::Kafka;
use crate::topics::Topics;
use crate::windows::{Plan, Windows};

/// While the brokers are away, they are asked this often whether they are back.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What waits in the queue of replies; they are small.
const REPLIES_QUEUED_BYTES: usize = 1 << 20;

/// How often to look where partitions end.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Longest wait for their answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// Admission computes from it how long a refused client should wait.
const FREED_BYTES: u64 = 1 << 20;

/// Kafka as the log.
#[derive(Clone, Debug)]
pub struct KafkaLog {
    settings: Kafka,
}

type Helpers = Vec<(&'static str, BoxFuture<'static, ()>)>;

impl KafkaLog {
    /// The log that these settings name.
    pub fn new(settings: Kafka) -> Self {
        Self { settings }
    }
}

impl Engine for KafkaLog {
    type Appender = Appender;
    type Reader = Reader;

    fn check(&self, _config: &Serve) -> Result<()> {
        self.settings.properties().map(drop)
    }

    async fn open(
        self,
        config: &Serve,
        entries: flume::Receiver<Record>,
    ) -> Result<Opened<Appender, Reader>> {
        // The keys' copy is there.
        let directory = &config.spool.spool_dir;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
        let lock = DirectoryLock::acquire(directory)?;
        let brokers = Brokers::default();
        let topics = Arc::new(Topics::prepare(&self.settings, &brokers).await?);
        let limit = Arc::new(Limit::new(topics.message_bytes_max));
        info!(
            prefix = self.settings.kafka_topic_prefix,
            record_bytes_max = limit.payload_bytes_max(),
            role = ?self.settings.role,
            "the log is in Kafka"
        );
        let mut opening = Opening {
            role_takes: self.settings.role.takes(),
            properties: self.settings.properties()?,
            prefix: self.settings.kafka_topic_prefix.clone(),
            brokers: brokers.clone(),
            topics,
            limit: Arc::clone(&limit),
            intake: Uuid::new_v4(),
            helpers: Vec::new(),
        };
        let (appender, produced) = opening.intake(entries)?;
        let (lanes, unacked) = match self.settings.role.stores() {
            true => opening.lanes()?,
            false => (Lanes::none(), HashMap::new()),
        };
        Ok(Opened {
            capacity: Arc::new(KafkaCapacity {
                intake: opening.intake,
                brokers,
                limit,
                takes: opening.role_takes,
                produced,
                lanes: unacked,
            }),
            appender,
            freed_bytes: FREED_BYTES,
            lanes,
            stores: self.settings.role.stores(),
            helpers: opening.helpers,
            finish: Box::new(move || drop(lock)),
        })
    }
}

/// What the parts of the log are made of.
struct Opening {
    role_takes: bool,
    properties: Vec<(String, String)>,
    prefix: String,
    brokers: Brokers,
    topics: Arc<Topics>,
    limit: Arc<Limit>,
    intake: Uuid,
    helpers: Helpers,
}

type LanesAndUsage = (Lanes<Reader>, HashMap<(Uuid, u16), Arc<Unacked>>);

impl Opening {
    fn context(&self) -> Context {
        Context {
            brokers: self.brokers.clone(),
        }
    }

    fn consumer(&self, group: &str, queued_bytes: usize) -> Result<StreamConsumer<Context>> {
        let group = format!("{}.{group}", self.prefix);
        let config = client::consumer(&self.properties, &group, queued_bytes);
        StreamConsumer::from_config_and_context(&config, self.context())
            .context("cannot make a consumer of Kafka from its properties")
    }

    /// What takes records and produces them, and reads the replies.
    fn intake(&mut self, entries: flume::Receiver<Record>) -> Result<(Appender, Arc<Produced>)> {
        let waiting = Arc::new(Waiting::default());
        let produced = Arc::new(Produced::default());
        let producers = Producers::new(Makings {
            properties: self.properties.clone(),
            topics: Arc::clone(&self.topics),
            context: self.context(),
            produced: Arc::clone(&produced),
            waiting: Arc::clone(&waiting),
            limit: Arc::clone(&self.limit),
        })?;
        let partitions = u128::from(self.topics.replies_partitions);
        let partition = i32::try_from(self.intake.as_u128() % partitions)?;
        if self.role_takes {
            let consumer = self.consumer("replies", REPLIES_QUEUED_BYTES)?;
            let topic = &self.topics.replies;
            tokio::task::block_in_place(|| replies::listen(&consumer, topic, partition))?;
            let receiving = replies::receive(consumer, self.intake, Arc::clone(&waiting));
            self.helpers
                .push(("the reading of replies", Box::pin(receiving)));
            let keeping = Arc::clone(&self.limit).keep(
                Arc::clone(&self.topics),
                self.properties.clone(),
                self.brokers.clone(),
            );
            self.helpers
                .push(("the look at the limit on messages", Box::pin(keeping)));
        }
        let probing = client::probe(&self.properties);
        let probing = FutureProducer::from_config_and_context(&probing, self.context())
            .context("cannot make a producer of Kafka from its properties")?;
        let to = (self.topics.replies.clone(), partition);
        let asking = ask_while_away(self.brokers.clone(), probing, to);
        self.helpers
            .push(("the look for brokers", Box::pin(asking)));
        let appender = Appender {
            entries,
            producers,
            topics: Arc::clone(&self.topics),
            intake: self.intake,
            reply_partition: partition,
            waiting,
        };
        Ok((appender, produced))
    }

    /// What lanes read.
    fn lanes(&mut self) -> Result<LanesAndUsage> {
        let topics = self.topics.events.iter();
        let partitions: Vec<usize> = topics.map(|topic| topic.partitions.into()).collect();
        let plan = Plan::of(&partitions, self.limit.message_bytes_max());
        let most = partitions.iter().copied().max().unwrap_or(1);
        let at_once = u8::try_from(plan.per_topic.min(most)).unwrap_or(u8::MAX);
        let consumer = Arc::new(self.consumer("writers", plan.queued_bytes)?);
        let serving = serve_events(Arc::clone(&consumer));
        self.helpers
            .push(("the events of the consumer", Box::pin(serving)));
        let mut config = client::config(&self.properties);
        config.set("acks", "1").set("linger.ms", "0");
        let producer = ThreadedProducer::from_config_and_context(&config, DefaultProducerContext)
            .context("cannot make a producer of Kafka from its properties")?;
        let (asked, to_answer) = flume::bounded(ASKED_MAX);
        let answering = replies::answer(to_answer, producer, self.topics.replies.clone());
        self.helpers
            .push(("the answers to intakes", Box::pin(answering)));
        let mut streams = Vec::new();
        let mut unacked = HashMap::new();
        let mut places = HashMap::new();
        for topic in &self.topics.events {
            for partition in 0..topic.partitions {
                streams.push(Stream {
                    log: topic.id,
                    lineage: Uuid::nil(),
                    number: partition,
                    shard: partition,
                    table: topic.table,
                });
                let place = Place {
                    id: topic.id,
                    topic: topic.name.clone(),
                    partition,
                };
                places.insert((topic.id, partition), place);
                unacked.insert((topic.id, partition), Arc::new(Unacked::default()));
            }
        }
        let mut ids: Vec<Uuid> = self.topics.events.iter().map(|topic| topic.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ensure!(
            ids.len() == self.topics.events.len(),
            "two topics have one id"
        );
        let counted = unacked.clone();
        let ends = places
            .iter()
            .map(|(key, place): (_, &Place)| (place.clone(), Arc::clone(&unacked[key])));
        let looking = look_at_ends(Arc::clone(&consumer), ends.collect());
        self.helpers
            .push(("the look at the ends of partitions", Box::pin(looking)));
        let topics = self.topics.events.iter();
        let windows: HashMap<Uuid, Arc<Windows>> = topics
            .map(|topic| (topic.id, Arc::new(Windows::new(plan.per_topic))))
            .collect();
        let open: Open<Reader> = Arc::new(move |stream: &Stream| {
            let key = (stream.log, stream.number);
            let (place, unacked) = (&places[&key], Arc::clone(&counted[&key]));
            let acks = Arc::new(Acks::new(place.clone(), unacked));
            let reader = Reader::new(
                place.clone(),
                Arc::clone(&consumer),
                Arc::clone(&windows[&stream.log]),
                Arc::clone(&acks),
                asked.clone(),
            );
            let acks: Arc<dyn Acknowledge> = acks;
            (reader, acks)
        });
        let lanes = Lanes::Shared {
            streams,
            at_once,
            open,
        };
        Ok((lanes, unacked))
    }
}

/// Serves what the library tells of all partitions. Messages come by the partitions' own queues; one
/// that was fetched before its queue was there is read again.
async fn serve_events(consumer: Arc<StreamConsumer<Context>>) {
    loop {
        if let Err(error) = consumer.recv().await {
            debug!(%error, "librdkafka: the consumer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Looks where the partitions that are read here end, for the count of records that are not stored.
async fn look_at_ends(client: Arc<StreamConsumer<Context>>, lanes: Vec<(Place, Arc<Unacked>)>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let read = lanes.iter().filter(|(_, lane)| lane.is_read());
        for (
            Place {
                topic, partition, ..
            },
            lane,
        ) in read
        {
            let (client, topic, number) =
                (Arc::clone(&client), topic.clone(), i32::from(*partition));
            let asked = tokio::task::spawn_blocking(move || {
                client.fetch_watermarks(&topic, number, ASK_LIMIT)
            });
            if let Ok(Ok((_, end))) = asked.await {
                lane.ends_at(end);
            }
        }
    }
}

/// Asks the brokers whether they are back while they are away: nothing is sent then that would tell.
///
/// Only an acknowledgement tells. Brokers that answer may still have too few replicas in sync. The
/// message goes to the replies, whose readers pass over one that is no reply.
async fn ask_while_away(
    brokers: Brokers,
    producer: FutureProducer<Context>,
    (topic, partition): (String, i32),
) {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        if !brokers.are_away() {
            continue;
        }
        let message = FutureRecord::<(), [u8]>::to(&topic)
            .partition(partition)
            .payload(&[]);
        match producer.send(message, Duration::ZERO).await {
            Ok(_) => brokers.come_back(),
            Err((error, _)) => debug!(%error, "Kafka has not acknowledged a message yet"),
        }
    }
}
