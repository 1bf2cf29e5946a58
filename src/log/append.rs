//! The end of a log that records go into.
//!
//! Records come through a bounded channel, so appending never waits, and a log that is dropped
//! by all senders ends by itself. Each record has a sender for the answer: see
//! [`Record::durable`](super::record::Record::durable).

use std::fmt::Debug;
use std::time::Duration;

use uuid::Uuid;

use super::record::AppendError;

/// Makes records durable and answers each.
pub trait Append: Send + 'static {
    /// Takes records until their channel is closed. Blocks: run it on a dedicated thread. When it
    /// returns, every record has its answer.
    fn run(self);
}

/// What a log says of itself while records go in.
///
/// Never blocks. A request asks it a few times, so it is a trait object: no handler has to name
/// the log.
pub trait Capacity: Debug + Send + Sync {
    /// Identifies the log: see [`Acknowledge::id`](super::read::Acknowledge::id).
    fn id(&self) -> Uuid;

    /// Which of the logs with this id.
    fn lineage(&self) -> Uuid;

    /// What records are written to, as it stands in a sentence.
    fn medium(&self) -> &'static str;

    /// Whether a record's place in a trace is of use to the log.
    fn carries_traces(&self) -> bool {
        false
    }

    /// Whether records may be made durable on the local disk while the log does not answer.
    fn keeps_aside(&self) -> bool {
        false
    }

    /// What is to be said of records that are on the local disk and not in the log, in words.
    fn kept_aside(&self) -> Option<String> {
        None
    }

    /// The largest payload that is accepted.
    fn payload_bytes_max(&self) -> usize;

    /// Whether a payload of `payload_bytes` would be accepted now. An early check that saves
    /// work; the log decides when it has the record.
    ///
    /// # Errors
    /// Why it would be refused.
    fn has_room(&self, payload_bytes: usize) -> Result<(), AppendError>;

    /// Bytes of records that still fit, and those that fit into an empty log.
    fn room(&self) -> (u64, u64);

    /// What is lacking, in words, if there is no room because others have filled what the log is
    /// written to.
    fn shortage(&self) -> Option<String>;

    /// For how long the medium has not answered, if that is long enough to report.
    fn stalled(&self) -> Option<Duration>;

    /// The usage of the log.
    fn usage(&self) -> Usage;

    /// The usage by one stream of the log `log`, counted in items.
    fn usage_of(&self, log: Uuid, stream: u16) -> StreamUsage;
}

/// The usage of a log. Each number is exact; two of them may be one group of records apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all that is kept here.
    pub bytes: u64,
    /// Limit on `bytes`.
    pub bytes_max: u64,
    /// Segment files.
    pub segments: u64,
    /// Records that are not yet acked.
    pub records: u64,
    /// Items that are not yet acked.
    pub items: u64,
    /// Items that were made durable under this id.
    pub accepted: u64,
    /// Items that were accepted and are neither acked nor in the log.
    pub lost: u64,
    /// Records that were refused without a receiver for the answer, since the start.
    pub refused: u64,
}

/// Records and items of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamUsage {
    /// Records that are not yet acked; of a log elsewhere also those that this process has not
    /// read, as of some seconds ago.
    pub records: u64,
    /// Items that are not yet acked.
    pub items: u64,
    /// Items that were made durable under this id.
    pub accepted: u64,
    /// Items that were accepted and are neither acked nor in the log.
    pub lost: u64,
}
