//! The largest message that the topics take, which an operator may change while intakes run.
//!
//! It is read at the start, and again once the brokers refuse a message as too large that should fit:
//! they refuse a batch of messages as a whole, so most messages of such a batch are not to blame.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use recsys_ingest::log::record::AppendError;
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::client::Brokers;
use crate::topics::Topics;

/// Bytes of a message apart from its payload: its headers, the batch's, and room for later versions.
const OVERHEAD_BYTES: usize = 1 << 10;

/// Shortest pause between two looks at the topics' settings.
const PAUSE: Duration = Duration::from_secs(1);

/// The largest message, as it was last read.
#[derive(Debug)]
pub struct Limit {
    /// In bytes, with all that belongs to a message.
    message_bytes_max: AtomicUsize,
    is_doubted: Notify,
}

impl Limit {
    /// The limit that the brokers told.
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max: AtomicUsize::new(message_bytes_max),
            is_doubted: Notify::new(),
        }
    }

    /// The largest message, in bytes.
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max.load(Ordering::Relaxed)
    }

    /// The largest payload, in bytes.
    pub fn payload_bytes_max(&self) -> usize {
        self.message_bytes_max().saturating_sub(OVERHEAD_BYTES)
    }

    /// What to answer to a message that was refused as too large.
    pub fn refuse(&self, payload_bytes: usize) -> AppendError {
        if payload_bytes > self.payload_bytes_max() {
            return AppendError::TooLarge;
        }
        self.is_doubted.notify_one();
        AppendError::GroupTooLarge
    }

    /// Reads the limit again whenever it is in doubt, for ever.
    pub async fn keep(
        self: Arc<Self>,
        topics: Arc<Topics>,
        properties: Vec<(String, String)>,
        brokers: Brokers,
    ) {
        loop {
            self.is_doubted.notified().await;
            match topics.ask_for_limit(&properties, &brokers).await {
                Ok(bytes) => self.set(bytes),
                Err(error) => debug!("{error:#}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn set(&self, bytes: usize) {
        let before = self.message_bytes_max.swap(bytes, Ordering::Relaxed);
        if bytes == before {
            warn!(
                "the brokers refuse messages as too large that max.message.bytes of the topics allows ({bytes})"
            );
        } else {
            warn!(
                before,
                now = bytes,
                "max.message.bytes of the topics was changed; larger requests are refused from now on"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_that_is_itself_too_large_is_to_blame() {
        let limit = Limit::new(OVERHEAD_BYTES + 100);
        assert_eq!(limit.payload_bytes_max(), 100);
        assert_eq!(limit.refuse(101), AppendError::TooLarge);
        assert_eq!(limit.refuse(100), AppendError::GroupTooLarge);
        limit.set(OVERHEAD_BYTES + 50);
        assert_eq!(limit.refuse(51), AppendError::TooLarge);
        assert_eq!(limit.refuse(50), AppendError::GroupTooLarge);
    }
}
