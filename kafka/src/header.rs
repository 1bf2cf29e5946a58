//! The header of a message: how many rows it holds, and who waits for what becomes of them.
//!
//! ```text
//! version u8 = 1 · rows u32 · intake 16 bytes · number u64 · reply partition i32, -1 if no request waits
//! ```
//!
//! Numbers are big endian. A later version adds to the end.
//!
//! Beside it stands `traceparent`, if the request had one.

use anyhow::{Result, ensure};
use uuid::Uuid;

/// The name of the message header.
pub const NAME: &str = "ingest";

/// The name of the header with the place of the request in a trace, as W3C Trace Context writes it.
pub const TRACEPARENT: &str = "traceparent";

const VERSION: u8 = 1;

/// The bytes of version 1.
const BYTES: usize = 1 + 4 + 16 + 8 + 4;

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Rows in the payload.
    pub items: u32,
    /// The intake that produced it.
    pub intake: Uuid,
    /// The message's number there.
    pub number: u64,
    /// The partition of the reply topic where the intake reads, if a request waits.
    pub reply_to: Option<i32>,
}

impl Header {
    /// Its bytes.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[0] = VERSION;
        bytes[1..5].copy_from_slice(&self.items.to_be_bytes());
        bytes[5..21].copy_from_slice(self.intake.as_bytes());
        bytes[21..29].copy_from_slice(&self.number.to_be_bytes());
        bytes[29..].copy_from_slice(&self.reply_to.unwrap_or(-1).to_be_bytes());
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is not of this program, or of a version before.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        ensure!(
            bytes.len() >= BYTES && bytes[0] >= VERSION,
            "the message header {NAME} is none that this version can read"
        );
        let number = |from: usize, to: usize| {
            let part = &bytes[from..to];
            part.iter()
                .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let partition = i32::from_be_bytes([bytes[29], bytes[30], bytes[31], bytes[32]]);
        Ok(Self {
            items: u32::try_from(number(1, 5)).expect("four bytes"),
            intake: Uuid::from_slice(&bytes[5..21]).expect("sixteen bytes"),
            number: number(21, 29),
            reply_to: (partition >= 0).then_some(partition),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written_and_a_later_one_may_be_longer() {
        for reply_to in [None, Some(0), Some(i32::MAX)] {
            let header = Header {
                items: u32::MAX - 1,
                intake: Uuid::from_u128(7 << 100 | 3),
                number: u64::MAX / 3,
                reply_to,
            };
            let mut bytes = header.encode().to_vec();
            assert_eq!(Header::decode(&bytes).expect("sound"), header);
            bytes[0] = VERSION + 1;
            bytes.push(9);
            assert_eq!(Header::decode(&bytes).expect("a later one"), header);
            assert!(Header::decode(&bytes[..BYTES - 1]).is_err());
            bytes[0] = 0;
            assert!(Header::decode(&bytes).is_err());
        }
    }
}
