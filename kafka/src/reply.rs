//! What became of messages, as it goes back to the intake that produced them.
//!
//! ```text
//! version u8 = 1 · intake 16 bytes · for each message:
//!     number u64 · duplicates u32 · their rows u32 … · quarantined u32 · for each of those:
//!         row u32 · length u16 · sqlstate · length u16 · message
//! ```
//!
//! Numbers are big endian.

use recsys_ingest::event::result::{QuarantinedRow, RecordResult};
use uuid::Uuid;

const VERSION: u8 = 1;

/// The bytes of a text beyond this are cut off; Postgres's messages are shorter.
const TEXT_BYTES_MAX: usize = 2000;

/// A message of Kafka is 1 MB at most, unless that was changed.
const REPLY_BYTES_MAX: usize = 256 << 10;

/// What became of messages of one intake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The intake that produced the messages.
    pub intake: Uuid,
    /// The messages' numbers, and what became of their rows.
    pub results: Vec<(u64, RecordResult)>,
}

impl Reply {
    /// Results of one intake as replies of which each fits into a message: it has one result, or about
    /// [`REPLY_BYTES_MAX`].
    pub fn split(intake: Uuid, results: Vec<(u64, RecordResult)>) -> Vec<Self> {
        let mut replies: Vec<Self> = Vec::new();
        let mut bytes = REPLY_BYTES_MAX;
        for (number, result) in results {
            let more = bytes_of(&result);
            match replies.last_mut() {
                Some(reply) if bytes + more <= REPLY_BYTES_MAX => {
                    bytes += more;
                    reply.results.push((number, result));
                }
                _ => {
                    bytes = more;
                    let results = vec![(number, result)];
                    replies.push(Self { intake, results });
                }
            }
        }
        replies
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.intake.as_bytes());
        for (number, result) in &self.results {
            bytes.extend(number.to_be_bytes());
            bytes.extend(length(result.duplicates.len()).to_be_bytes());
            for row in &result.duplicates {
                bytes.extend(row.to_be_bytes());
            }
            bytes.extend(length(result.quarantined.len()).to_be_bytes());
            for row in &result.quarantined {
                bytes.extend(row.row.to_be_bytes());
                put_text(&mut bytes, &row.sqlstate);
                put_text(&mut bytes, &row.message);
            }
        }
        bytes
    }

    /// The intake that a reply is for; `None` if this version cannot read it.
    pub fn intake_of(bytes: &[u8]) -> Option<Uuid> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION)
            .then(|| Uuid::from_slice(rest.get(..16)?).ok())
            .flatten()
    }

    /// Reads it; `None` if it is damaged, or of another version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let intake = Self::intake_of(bytes)?;
        let mut rest = Rest(bytes.get(17..)?);
        let mut results = Vec::new();
        while !rest.0.is_empty() {
            let number = u64::from_be_bytes(rest.take()?);
            let mut result = RecordResult::default();
            for _ in 0..rest.number()? {
                result.duplicates.push(rest.number()?);
            }
            for _ in 0..rest.number()? {
                result.quarantined.push(QuarantinedRow {
                    row: rest.number()?,
                    sqlstate: rest.text()?,
                    message: rest.text()?,
                });
            }
            results.push((number, result));
        }
        Some(Self { intake, results })
    }
}

/// What is left to read.
struct Rest<'b>(&'b [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(u16::from_be_bytes(self.take()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

/// The most that a result takes in a reply.
fn bytes_of(result: &RecordResult) -> usize {
    let text = |text: &str| 2 + text.len().min(TEXT_BYTES_MAX);
    let rows = result.quarantined.iter();
    let quarantined: usize = rows
        .map(|row| 4 + text(&row.sqlstate) + text(&row.message))
        .sum();
    16 + 4 * result.duplicates.len() + quarantined
}

fn length(of: usize) -> u32 {
    u32::try_from(of).expect("a record has fewer than 2^32 rows")
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    let length = u16::try_from(end).expect("texts are cut off below 64 KiB");
    bytes.extend(length.to_be_bytes());
    bytes.extend(&text.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_as_it_was_written_and_damage_reads_as_nothing() {
        let bad = |row, message: &str| QuarantinedRow {
            row,
            sqlstate: "22P02".to_owned(),
            message: message.to_owned(),
        };
        let reply = Reply {
            intake: Uuid::from_u128(1 << 90),
            results: vec![
                (7, RecordResult::default()),
                (
                    u64::MAX,
                    RecordResult {
                        duplicates: vec![0, 3, u32::MAX],
                        quarantined: vec![bad(1, ""), bad(2, "ungültig")],
                    },
                ),
            ],
        };
        let bytes = reply.encode();
        assert_eq!(Reply::decode(&bytes), Some(reply.clone()));
        let first = 17 + 8 + 4 + 4;
        for cut in (0..bytes.len()).filter(|cut| ![17, first].contains(cut)) {
            assert_eq!(Reply::decode(&bytes[..cut]), None, "{cut} bytes");
        }
        // No length is believed beyond the bytes that are there.
        let mut lying = bytes.clone();
        lying[17 + 8..17 + 12].fill(0xff);
        assert_eq!(Reply::decode(&lying), None);
    }

    #[test]
    fn replies_are_split_by_their_bytes() {
        let result = |duplicates: u32| RecordResult {
            duplicates: (0..duplicates).collect(),
            quarantined: Vec::new(),
        };
        // Of 4 bytes each.
        let results: Vec<_> = [10, 100_000, 0, 30_000, 30_000, 30_000]
            .into_iter()
            .zip(0..)
            .map(|(duplicates, number)| (number, result(duplicates)))
            .collect();
        let replies = Reply::split(Uuid::nil(), results.clone());
        let counts: Vec<_> = replies.iter().map(|reply| reply.results.len()).collect();
        assert_eq!(counts, [1, 1, 3, 1]);
        for reply in &replies {
            let sum: usize = reply
                .results
                .iter()
                .map(|(_, result)| bytes_of(result))
                .sum();
            assert_eq!(reply.encode().len(), 17 + sum);
        }
        let together: Vec<_> = replies
            .into_iter()
            .flat_map(|reply| reply.results)
            .collect();
        assert_eq!(together, results);
        assert!(Reply::split(Uuid::nil(), Vec::new()).is_empty());
    }

    #[test]
    fn a_long_text_is_cut_between_letters() {
        let mut bytes = Vec::new();
        put_text(&mut bytes, &"ü".repeat(TEXT_BYTES_MAX));
        let text = Rest(&bytes).text().expect("a text");
        assert_eq!(text, "ü".repeat(TEXT_BYTES_MAX / 2));
    }
}
