//! What an answer waits for.

use clap::ValueEnum;

/// What an answer says was reached, and so what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Ack {
    /// The events are valid and in memory
    Received,
    /// The events are on disk
    Durable,
    /// The events are committed in Postgres
    Committed,
}

impl Ack {
    /// The level as it stands in requests and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ack::Received => "received",
            Ack::Durable => "durable",
            Ack::Committed => "committed",
        }
    }
}

impl std::fmt::Display for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
