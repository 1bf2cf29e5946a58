//! Settings of the log.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};

/// Settings of the log between intake and writers.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Log between intake and writers")]
pub struct Kafka {
    /// Where events are from their answer to their COMMIT
    #[arg(
        long,
        env = "INGEST_LOG",
        default_value = "spool",
        ignore_case = true,
        value_enum
    )]
    pub log: Kind,

    /// What this instance does
    #[arg(
        long,
        env = "INGEST_ROLE",
        default_value = "all",
        ignore_case = true,
        value_enum
    )]
    pub role: Role,

    /// Kafka's brokers to begin with, HOST:PORT with commas between
    #[arg(long, env = "INGEST_KAFKA_BROKERS", value_name = "BROKERS")]
    pub kafka_brokers: Option<String>,

    /// Take events onto the disk of this machine while Kafka acknowledges nothing
    #[arg(
        long,
        env = "INGEST_SPOOL_FALLBACK",
        default_value = "false",
        action = ArgAction::Set,
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new()
    )]
    pub spool_fallback: bool,

    /// How the names of the topics begin; instances with the same one share a log
    #[arg(
        long,
        env = "INGEST_KAFKA_TOPIC_PREFIX",
        default_value = "recsys",
        value_name = "PREFIX"
    )]
    pub kafka_topic_prefix: String,

    /// Partitions of topics that do not exist yet, and so the most writers that share a table
    #[arg(long, env = "INGEST_KAFKA_PARTITIONS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "NUMBER")]
    pub kafka_partitions: u16,

    /// Replicas of topics that do not exist yet [default: the brokers' own]
    #[arg(long, env = "INGEST_KAFKA_REPLICAS", value_parser = clap::value_parser!(u16).range(1..=100), value_name = "NUMBER")]
    pub kafka_replicas: Option<u16>,

    /// A property of librdkafka, NAME=VALUE, several with commas between: security.protocol=SASL_SSL
    #[arg(
        long,
        env = "INGEST_KAFKA_PROPERTIES",
        value_delimiter = ',',
        value_name = "NAME=VALUE"
    )]
    pub kafka_property: Vec<String>,

    /// A file with such properties, one a line; for those that are secret
    #[arg(long, env = "INGEST_KAFKA_PROPERTIES_FILE", value_name = "FILE")]
    pub kafka_properties_file: Option<PathBuf>,
}

/// A kind of log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// On the local disk
    Spool,
    /// In Kafka
    Kafka,
}

/// What an instance does. With the spool it does everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Takes events and stores them
    All,
    /// Takes events
    Intake,
    /// Stores events that others take
    Writer,
}

impl Role {
    /// Whether events are taken here.
    pub fn takes(self) -> bool {
        self != Self::Writer
    }

    /// Whether events are stored here.
    pub fn stores(self) -> bool {
        self != Self::Intake
    }
}

impl Kafka {
    /// The brokers, and the properties of librdkafka that were set: those of the file, then those of
    /// the command line.
    ///
    /// # Errors
    /// Names the setting that is missing or cannot be read.
    pub fn properties(&self) -> Result<Vec<(String, String)>> {
        let Some(brokers) = &self.kafka_brokers else {
            bail!(
                "--log kafka needs --kafka-brokers (INGEST_KAFKA_BROKERS): HOST:PORT of a broker"
            );
        };
        let mut all = vec![("bootstrap.servers".to_owned(), brokers.clone())];
        if let Some(path) = &self.kafka_properties_file {
            let text = std::fs::read_to_string(path).with_context(|| {
                format!("cannot read --kafka-properties-file {}", path.display())
            })?;
            let lines = text.lines().map(str::trim);
            for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
                // The line may be a secret.
                let pair = property(line)
                    .with_context(|| format!("in --kafka-properties-file {}", path.display()))?;
                all.push(pair);
            }
        }
        for text in &self.kafka_property {
            all.push(property(text).context("in --kafka-property")?);
        }
        for (name, _) in &all[1..] {
            ensure!(
                !OURS.contains(&name.as_str()),
                "the property {name} is this program's to set"
            );
        }
        Ok(all)
    }
}

/// Properties that what this program promises depends on.
const OURS: [&str; 11] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "acks",
    "request.required.acks",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "group.id",
    "transactional.id",
];

fn property(text: &str) -> Result<(String, String)> {
    let (name, value) = text
        .split_once('=')
        .context("a property is NAME=VALUE, and one has no =")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Kafka {
        Kafka {
            log: Kind::Kafka,
            role: Role::All,
            kafka_brokers: Some("a:1".to_owned()),
            spool_fallback: false,
            kafka_topic_prefix: "t".to_owned(),
            kafka_partitions: 1,
            kafka_replicas: None,
            kafka_property: Vec::new(),
            kafka_properties_file: None,
        }
    }

    #[test]
    fn the_page_has_every_setting_with_its_variable_and_default() {
        let page = include_str!("../../docs/kafka.md");
        let command = Kafka::augment_args(clap::Command::new("serve"));
        for setting in command.get_arguments() {
            let flag = setting.get_long().expect("a flag");
            let variable = setting.get_env().and_then(|name| name.to_str());
            let row = format!("| `--{flag}` | `{}` |", variable.expect("a variable"));
            let found = page.lines().find(|line| line.starts_with(&row));
            let line = found.unwrap_or_else(|| panic!("docs/kafka.md has no row {row}"));
            for value in setting.get_default_values() {
                let value = format!("| `{}` |", value.to_string_lossy());
                assert!(line.contains(&value), "{line}: not {value}");
            }
        }
    }

    #[test]
    fn a_property_that_is_none_or_is_ours_is_refused_by_name() {
        for (given, said) in [
            ("linger.ms", "NAME=VALUE"),
            ("acks=1", "the property acks is this program's"),
            ("group.id=x", "group.id"),
            ("metadata.broker.list=b:1", "metadata.broker.list"),
            ("delivery.timeout.ms=1", "delivery.timeout.ms"),
        ] {
            let mut kafka = settings();
            kafka.kafka_property = vec![given.to_owned()];
            let error = format!("{:#}", kafka.properties().expect_err(given));
            assert!(error.contains(said), "{given}: {error}");
        }
        let mut kafka = settings();
        kafka.kafka_property = vec!["ssl.ca.location = /a=b".to_owned()];
        let expected = [("bootstrap.servers", "a:1"), ("ssl.ca.location", "/a=b")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(kafka.properties().expect("sound"), expected);
        kafka.kafka_brokers = None;
        let error = kafka.properties().expect_err("no brokers").to_string();
        assert!(error.contains("--kafka-brokers"), "{error}");
    }
}
