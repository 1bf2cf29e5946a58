//! The topics of a log: one for each table, and one for replies. They are made where they are
//! missing, and looked at before anything is written.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::RDKafkaErrorCode;
use recsys_ingest::accounts::ledger::STREAM_MAX;
use recsys_ingest::event::table::Table;
use tracing::{info, warn};
use uuid::Uuid;

use crate::client::{self, Brokers, Context};
use crate::settings::Kafka;
use crate::topic_id::topic_id;

/// Longest wait for the brokers to describe or make topics.
const LIMIT: Duration = Duration::from_secs(15);

/// How long a topic that was just made may be unknown to other brokers.
const SPREAD: Duration = Duration::from_secs(10);

/// Replies are of use for as long as a request waits.
const REPLIES_RETENTION_MS: &str = "3600000";

/// A topic of events.
#[derive(Clone, Debug)]
pub struct Topic {
    /// The table that its rows go into.
    pub table: Table,
    pub name: String,
    /// Kafka's own: a topic that was made again has another one.
    pub id: Uuid,
    pub partitions: u16,
}

/// The topics of a log.
#[derive(Clone, Debug)]
pub struct Topics {
    /// By table.
    pub events: [Topic; Table::ALL.len()],
    pub replies: String,
    pub replies_partitions: u16,
    /// The largest message that all topics of events take, as of the start.
    pub message_bytes_max: usize,
}

/// What the brokers say of a topic.
struct Described {
    id: Uuid,
    partitions: u16,
    message_bytes_max: usize,
}

impl Topics {
    /// Finds the topics, and makes those that are missing.
    ///
    /// # Errors
    /// The brokers do not answer, or a topic cannot hold a log.
    pub async fn prepare(settings: &Kafka, brokers: &Brokers) -> Result<Self> {
        let properties = settings.properties()?;
        let context = Context {
            brokers: brokers.clone(),
        };
        let admin = AdminClient::from_config_and_context(&client::config(&properties), context)
            .context("cannot make a client of Kafka from its properties")?;
        let prefix = &settings.kafka_topic_prefix;
        let names = Table::ALL.map(|table| format!("{prefix}.{}", table.events()));
        let replies = format!("{prefix}.replies");
        let partitions = i32::from(settings.kafka_partitions);
        let replicas = settings.kafka_replicas.map_or(-1, i32::from);
        let new = |name| {
            NewTopic::new(name, partitions, TopicReplication::Fixed(replicas))
                .set("cleanup.policy", "delete")
        };
        let mut wanted: Vec<NewTopic<'_>> = names.iter().map(|name| new(name.as_str())).collect();
        wanted.push(new(replies.as_str()).set("retention.ms", REPLIES_RETENTION_MS));
        let options = AdminOptions::new().request_timeout(Some(LIMIT));
        let made = admin.create_topics(&wanted, &options).await;
        for topic in made.context("cannot ask Kafka for its topics")? {
            match topic {
                Ok(name) => info!(topic = name, partitions, "made a topic of Kafka"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                // A client that may not make topics uses those that are there.
                Err((name, error)) => warn!(topic = name, %error, "cannot make a topic of Kafka"),
            }
        }
        let mut events = Vec::new();
        let mut message_bytes_max = usize::MAX;
        for (table, name) in Table::ALL.into_iter().zip(names) {
            let described = describe(&admin, &name).await?;
            message_bytes_max = message_bytes_max.min(described.message_bytes_max);
            events.push(Topic {
                table,
                name,
                id: described.id,
                partitions: described.partitions,
            });
        }
        let replies_partitions = describe(&admin, &replies).await?.partitions;
        Ok(Self {
            events: events.try_into().expect("a topic for each table"),
            replies,
            replies_partitions,
            message_bytes_max,
        })
    }

    /// The topic of a table.
    pub fn of(&self, table: Table) -> &Topic {
        &self.events[table as usize]
    }

    /// Asks the brokers for the largest message that all topics of events take now, in bytes.
    ///
    /// # Errors
    /// The brokers do not answer.
    pub async fn ask_for_limit(
        &self,
        properties: &[(String, String)],
        brokers: &Brokers,
    ) -> Result<usize> {
        let context = Context {
            brokers: brokers.clone(),
        };
        let admin = AdminClient::from_config_and_context(&client::config(properties), context)
            .context("cannot make a client of Kafka from its properties")?;
        let mut least = usize::MAX;
        for topic in &self.events {
            least = least.min(settings(&admin, &topic.name).await?);
        }
        Ok(least)
    }
}

async fn describe(admin: &AdminClient<Context>, name: &str) -> Result<Described> {
    let began = std::time::Instant::now();
    let (id, partitions) = loop {
        // Blocks, at the start and before anything else runs.
        match tokio::task::block_in_place(|| look(admin, name)) {
            Ok(found) => break found,
            Err(error) if began.elapsed() > SPREAD => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    Ok(Described {
        id,
        partitions,
        message_bytes_max: settings(admin, name).await?,
    })
}

/// The largest message that a topic takes, in bytes, if its other settings are those of a log.
async fn settings(admin: &AdminClient<Context>, name: &str) -> Result<usize> {
    let options = AdminOptions::new().request_timeout(Some(LIMIT));
    let resource = [ResourceSpecifier::Topic(name)];
    let configs = admin.describe_configs(&resource, &options).await;
    let doing = || format!("cannot ask Kafka for the settings of the topic {name}");
    let config = configs.with_context(doing)?.into_iter().next();
    let config = config.with_context(doing)?.with_context(doing)?;
    let value = |setting: &str| config.get(setting).and_then(|entry| entry.value.as_deref());
    if let Some(policy) = value("cleanup.policy").filter(|policy| policy.contains("compact")) {
        bail!(
            "the topic {name} has cleanup.policy={policy}, which removes events that were not stored: \
             set it to delete"
        );
    }
    if value("min.insync.replicas") == Some("1") {
        info!(
            topic = name,
            "min.insync.replicas is 1: while other replicas are away, `durable` means one broker"
        );
    }
    let bytes = value("max.message.bytes").and_then(|bytes| bytes.parse().ok());
    bytes.with_context(doing)
}

/// A topic's id and partitions.
fn look(admin: &AdminClient<Context>, name: &str) -> Result<(Uuid, u16)> {
    let id = topic_id(admin.inner(), name)?;
    let metadata = admin.inner().fetch_metadata(Some(name), LIMIT);
    let metadata = metadata.with_context(|| format!("cannot ask Kafka for the topic {name}"))?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name);
    let partitions = topic.map_or(0, |topic| topic.partitions().len());
    ensure!(partitions > 0, "Kafka does not know the topic {name}");
    let most = usize::from(STREAM_MAX) + 1;
    ensure!(
        partitions <= most,
        "the topic {name} has {partitions} partitions, and the ledger takes {most} at most"
    );
    Ok((id, u16::try_from(partitions)?))
}
