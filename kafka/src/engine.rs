//! Opens Kafka as the log of a service.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::BoxFuture;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::StreamConsumer;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, ThreadedProducer};
use recsys_ingest::accounts::ledger::Stream;
use recsys_ingest::admission::record::Record;
use recsys_ingest::config::Serve;
use recsys_ingest::log::read::Acknowledge;
use recsys_ingest::log::spool::directory_lock::DirectoryLock;
use recsys_ingest::service::engine::{Engine, Lanes, Open, Opened};
use tracing::info;
use uuid::Uuid;

use crate::acks::{Acks, Unacked};
use crate::appender::Appender;
use crate::capacity::KafkaCapacity;
use crate::client::{self, Brokers, Context, FALLBACK_TIMEOUT_MS, MESSAGE_TIMEOUT_MS};
use crate::delivery::Produced;
use crate::fallback::drain::Drain;
use crate::fallback::{Fallback, Keeper};
use crate::limit::Limit;
use crate::place::Place;
use crate::producers::{Makings, Producers};
use crate::reader::Reader;
use crate::replies::{self, ASKED_MAX, Waiting};
use crate::settings::Kafka;
use crate::topics::Topics;
use crate::watch::{ask_while_away, look_at_ends, serve_events};
use crate::windows::{Plan, Windows};

/// What waits in the queue of replies; they are small.
const REPLIES_QUEUED_BYTES: usize = 1 << 20;

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
        let role_takes = self.settings.role.takes();
        let keeps = self.settings.spool_fallback && role_takes;
        let brokers = Brokers::default();
        let topics = Arc::new(Topics::prepare(&self.settings, &brokers).await?);
        let limit = Arc::new(Limit::new(topics.message_bytes_max));
        // What an earlier run has left there is passed on in any case.
        let fallback = tokio::task::block_in_place(|| {
            let bytes_max = limit.payload_bytes_max();
            Fallback::open(directory, &config.spool, keeps, bytes_max)
        })?;
        let spool = fallback.as_ref().map(|fallback| fallback.spool.clone());
        let positions = fallback
            .as_ref()
            .map(|opened| Arc::clone(&opened.positions));
        info!(
            prefix = self.settings.kafka_topic_prefix,
            record_bytes_max = limit.payload_bytes_max(),
            role = ?self.settings.role,
            "the log is in Kafka"
        );
        let mut opening = Opening {
            role_takes,
            keeps,
            properties: self.settings.properties()?,
            prefix: self.settings.kafka_topic_prefix.clone(),
            brokers: brokers.clone(),
            topics,
            limit: Arc::clone(&limit),
            intake: Uuid::new_v4(),
            helpers: Vec::new(),
        };
        let (appender, produced) = opening.intake(entries, fallback)?;
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
                fallback: spool.clone(),
                keeps,
                lanes: unacked,
            }),
            appender,
            freed_bytes: FREED_BYTES,
            lanes,
            stores: self.settings.role.stores(),
            helpers: opening.helpers,
            finish: Box::new(move || {
                if let Some(positions) = positions {
                    positions.write();
                }
                if let Some(spool) = spool {
                    spool.reclaim();
                }
                drop(lock);
            }),
        })
    }
}

/// What the parts of the log are made of.
struct Opening {
    role_takes: bool,
    /// Whether records go into the local spool while the brokers are away.
    keeps: bool,
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
    fn intake(
        &mut self,
        entries: flume::Receiver<Record>,
        fallback: Option<Fallback>,
    ) -> Result<(Appender, Arc<Produced>)> {
        let waiting = Arc::new(Waiting::default());
        let produced = Arc::new(Produced::default());
        let aside = fallback.map(|fallback| self.drain(fallback)).transpose()?;
        let (keeper, committing) = aside.unzip();
        let timeout_ms = match self.keeps {
            true => FALLBACK_TIMEOUT_MS,
            false => MESSAGE_TIMEOUT_MS,
        };
        let producers = Producers::new(Makings {
            properties: self.properties.clone(),
            topics: Arc::clone(&self.topics),
            context: self.context(),
            produced: Arc::clone(&produced),
            waiting: Arc::clone(&waiting),
            limit: Arc::clone(&self.limit),
            keeper: keeper.clone().filter(|_| self.keeps),
            timeout_ms,
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
            brokers: self.brokers.clone(),
            keeper,
            keeps: self.keeps,
            committing,
            timeout_ms,
        };
        Ok((appender, produced))
    }

    /// Has the local spool passed on.
    fn drain(&mut self, fallback: Fallback) -> Result<(Keeper, JoinHandle<()>)> {
        let config = client::drain(&self.properties, self.limit.message_bytes_max());
        let producer = FutureProducer::from_config_and_context(&config, self.context())
            .context("cannot make a producer of Kafka from its properties")?;
        for reader in fallback.readers {
            let drain = Drain {
                reader,
                spool: fallback.spool.clone(),
                positions: Arc::clone(&fallback.positions),
                producer: producer.clone(),
                topics: Arc::clone(&self.topics),
                intake: self.intake,
                brokers: self.brokers.clone(),
            };
            self.helpers
                .push(("the way out of the local spool", Box::pin(drain.run())));
        }
        let keeping = fallback.positions.keep();
        self.helpers
            .push(("the positions in the local spool", Box::pin(keeping)));
        Ok((fallback.keeper, fallback.committing))
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
