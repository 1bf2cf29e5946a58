//! The level that a response waits for.

use clap::ValueEnum;

/// The level that a response reports, and so waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Ack {
    /// The events are valid and in memory
    Received,
    /// The events are on disk
    Durable,
    /// The events are committed in Postgres
    Committed,
}

/// What stands in a level's place in an answer to `?validate=true`.
pub(crate) const NOTHING_REACHED: &str = "none";

impl Ack {
    /// The level's name in requests and responses.
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
