//! The producer of events, which is made again when the topics' limit on messages changes: the library
//! makes batches as large as the limit that it was given.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::producer::{Producer as _, ThreadedProducer};
use tracing::{debug, error, info};

use crate::client::{self, Context};
use crate::delivery::{Delivery, Produced, Turns};
use crate::fallback::Keeper;
use crate::limit::Limit;
use crate::replies::Waiting;
use crate::topics::Topics;

/// A producer of events.
pub type Producer = ThreadedProducer<Delivery, Turns>;

/// What a producer is made of.
pub struct Makings {
    pub properties: Vec<(String, String)>,
    pub topics: Arc<Topics>,
    pub context: Context,
    pub produced: Arc<Produced>,
    pub waiting: Arc<Waiting>,
    pub limit: Arc<Limit>,
    /// Where records go that are not acknowledged in time.
    pub keeper: Option<Keeper>,
    pub timeout_ms: u32,
}

/// The producer for the limit as it is known now, and those before it that are not done.
pub struct Producers {
    makings: Makings,
    current: Producer,
    /// The largest message when it was made, in bytes.
    made_for: usize,
    earlier: Vec<Producer>,
}

impl Makings {
    fn make(&self, message_bytes_max: usize) -> Result<Producer> {
        let delivery = Delivery {
            context: self.context.clone(),
            produced: Arc::clone(&self.produced),
            waiting: Arc::clone(&self.waiting),
            turns: Turns::new(&self.topics),
            limit: Arc::clone(&self.limit),
            keeper: self.keeper.clone(),
        };
        let config = client::producer(&self.properties, message_bytes_max, self.timeout_ms);
        ThreadedProducer::from_config_and_context(&config, delivery)
            .context("cannot make a producer of Kafka from its properties")
    }
}

impl Producers {
    /// Makes the first one.
    ///
    /// # Errors
    /// The library refuses its properties.
    pub fn new(makings: Makings) -> Result<Self> {
        let made_for = makings.limit.message_bytes_max();
        Ok(Self {
            current: makings.make(made_for)?,
            makings,
            made_for,
            earlier: Vec::new(),
        })
    }

    /// The producer for the next message.
    pub fn current(&mut self) -> &Producer {
        let limit = self.makings.limit.message_bytes_max();
        if limit != self.made_for {
            // Tried once: the earlier one still works for what fits.
            self.made_for = limit;
            match self.makings.make(limit) {
                Ok(next) => {
                    info!(message_bytes_max = limit, "made the producer again");
                    let before = std::mem::replace(&mut self.current, next);
                    self.earlier.push(before);
                }
                Err(error) => error!("{error:#}"),
            }
        }
        if !self.earlier.is_empty() {
            self.earlier.retain(|earlier| earlier.in_flight_count() > 0);
        }
        &self.current
    }

    /// Waits until every message has its answer, or until `limit`. Blocks.
    pub fn flush(&self, limit: Duration) {
        for producer in self.earlier.iter().chain([&self.current]) {
            if let Err(error) = producer.flush(limit) {
                debug!(%error, "messages are left without an answer");
            }
        }
    }
}
