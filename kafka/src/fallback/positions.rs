//! How far each stream of the local spool is passed on, in a file.
//!
//! ```text
//! version u8 = 1 · spool 16 bytes · for each stream: number u8 · last sequence u64 · CRC32C u32
//! ```
//!
//! Numbers are big endian. Invariant: the file is never ahead of what the brokers acknowledged. What it
//! does not know of is sent again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;
use uuid::Uuid;

const VERSION: u8 = 1;

const HEAD_BYTES: usize = 17;
const STREAM_BYTES: usize = 9;
const SUM_BYTES: usize = 4;

/// How often the file is written while streams move.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// How far each stream is passed on.
#[derive(Debug)]
pub struct Positions {
    path: PathBuf,
    spool: Uuid,
    acked: Mutex<BTreeMap<u8, u64>>,
    /// Since the file was written.
    has_moved: AtomicBool,
}

impl Positions {
    /// Reads the file. Without one of this spool that is sound, nothing is passed on.
    pub fn read(path: PathBuf, spool: Uuid) -> Self {
        let acked = match fs::read(&path) {
            Ok(bytes) => match decode(&bytes) {
                Some((of, acked)) if of == spool => acked,
                Some(_) => BTreeMap::new(),
                None => {
                    warn!(
                        path = %path.display(),
                        "the file is damaged: what was passed on to Kafka before is sent again, and counts as duplicates"
                    );
                    BTreeMap::new()
                }
            },
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(path = %path.display(), %error, "cannot read the file; what was passed on to Kafka before is sent again");
                }
                BTreeMap::new()
            }
        };
        Self {
            path,
            spool,
            acked: Mutex::new(acked),
            has_moved: AtomicBool::new(false),
        }
    }

    /// The last sequence of a stream that was passed on; 0 for none.
    pub fn of(&self, stream: u8) -> u64 {
        let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        acked.get(&stream).copied().unwrap_or(0)
    }

    /// The brokers have a stream up to this sequence.
    pub fn set(&self, stream: u8, sequence: u64) {
        let mut acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
        acked.insert(stream, sequence);
        self.has_moved.store(true, Ordering::Relaxed);
    }

    /// Writes the file, if a stream has moved. Blocks.
    pub fn write(&self) {
        if !self.has_moved.swap(false, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.try_write() {
            self.has_moved.store(true, Ordering::Relaxed);
            warn!(path = %self.path.display(), %error, "cannot note what was passed on to Kafka; a start would send it again");
        }
    }

    fn try_write(&self) -> io::Result<()> {
        let bytes = {
            let acked = self.acked.lock().unwrap_or_else(PoisonError::into_inner);
            encode(self.spool, &acked)
        };
        let next = self.path.with_extension("next");
        let mut file = File::create(&next)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&next, &self.path)
    }

    /// Writes the file while streams move, for ever.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WRITE_EVERY).await;
            let this = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || this.write()).await {
                warn!(%error, "cannot note what was passed on to Kafka");
            }
        }
    }
}

fn encode(spool: Uuid, acked: &BTreeMap<u8, u64>) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(spool.as_bytes());
    for (stream, sequence) in acked {
        bytes.push(*stream);
        bytes.extend(sequence.to_be_bytes());
    }
    bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
    bytes
}

/// The spool and its streams; `None` if the bytes are damaged, or of another version.
fn decode(bytes: &[u8]) -> Option<(Uuid, BTreeMap<u8, u64>)> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM_BYTES)?)?;
    if crc32c::crc32c(body).to_be_bytes() != *sum || *body.first()? != VERSION {
        return None;
    }
    let (head, streams) = body.split_at_checked(HEAD_BYTES)?;
    let spool = Uuid::from_slice(&head[1..]).ok()?;
    let streams = streams.chunks(STREAM_BYTES).map(|stream| {
        let (number, sequence) = stream.split_first()?;
        Some((*number, u64::from_be_bytes(sequence.try_into().ok()?)))
    });
    Some((spool, streams.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_not() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("positions");
        let spool = Uuid::from_u128(7);
        let positions = Positions::read(path.clone(), spool);
        assert_eq!(positions.of(0), 0, "there is no file");
        positions.set(0, 5);
        positions.set(16, u64::MAX - 1);
        positions.write();
        let again = Positions::read(path.clone(), spool);
        assert_eq!(
            (again.of(0), again.of(1), again.of(16)),
            (5, 0, u64::MAX - 1)
        );
        let other = Positions::read(path.clone(), Uuid::from_u128(8));
        assert_eq!(other.of(0), 0, "of another spool");
        let whole = fs::read(&path).expect("the file");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert_eq!(decode(&bytes), None, "a flipped bit in byte {at}");
            assert_eq!(decode(&whole[..at]), None, "cut at {at}");
        }
        fs::write(&path, &whole[1..]).expect("written");
        assert_eq!(Positions::read(path, spool).of(0), 0);
    }
}
