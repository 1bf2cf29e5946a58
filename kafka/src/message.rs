//! A message as the reader takes it.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use tracing::warn;

use crate::header::{Header, NAME, TRACEPARENT};

/// Bytes of a `traceparent` in version 00, which intakes write.
const TRACE_BYTES: usize = 55;

/// A message.
pub struct Raw {
    pub offset: u64,
    /// `None` if it has none that this version can read.
    pub header: Option<Header>,
    /// The `traceparent` of its request.
    pub trace: Option<Arc<str>>,
    pub payload: Bytes,
}

impl Raw {
    /// Copies it out of the library.
    pub fn of(message: &BorrowedMessage<'_>) -> Self {
        let offset = u64::try_from(message.offset()).unwrap_or(0);
        let value = |name: &str| {
            let mut headers = message.headers()?.iter();
            headers.find(|header| header.key == name)?.value
        };
        let header = value(NAME).and_then(|bytes| Header::decode(bytes).ok());
        if header.is_none() {
            warn!(offset, "a message has no header of this program's");
        }
        Self {
            offset,
            header,
            trace: value(TRACEPARENT).and_then(trace),
            payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        }
    }
}

/// A `traceparent` as intakes write it: it goes into the log.
fn trace(bytes: &[u8]) -> Option<Arc<str>> {
    let is_expected = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
    let is_sound = bytes.len() == TRACE_BYTES && bytes.iter().all(is_expected);
    Some(std::str::from_utf8(bytes).ok().filter(|_| is_sound)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_no_intake_wrote_does_not_reach_the_log() {
        let sound = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace(sound.as_bytes()).as_deref(), Some(sound));
        for other in [
            "",
            "00",
            &sound[1..],
            &sound.to_uppercase(),
            &sound.replace("01", "0\n"),
        ] {
            assert_eq!(trace(other.as_bytes()), None, "{other:?}");
        }
    }
}
