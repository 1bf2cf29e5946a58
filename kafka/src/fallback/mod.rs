//! The spool on this machine's disk that takes records while the brokers acknowledge nothing, and passes
//! them on once they do.
//!
//! Invariant: a record leaves the spool only after the brokers acknowledged it. It may reach them
//! more than once; the table's key settles that.

pub mod drain;
mod positions;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use recsys_ingest::admission::record::{Aside, Record, Reservation, stream};
use recsys_ingest::config::spool::Spool as SpoolSettings;
use recsys_ingest::event::table::Table;
use recsys_ingest::log::record;
use recsys_ingest::log::record::{AppendError, Turn};
use recsys_ingest::log::spool::deliver::reader::LaneReader;
use recsys_ingest::log::spool::recover::open::open as open_spool;
use recsys_ingest::log::spool::settings::Settings;
use recsys_ingest::log::spool::shared::Spool;
use tokio::sync::oneshot;
use tracing::info;

pub use positions::Positions;

/// Its directory, in that of the service.
const DIRECTORY: &str = "fallback";

/// Beside the directory: what of it is passed on.
const POSITIONS: &str = "fallback.positions";

/// Segments are deleted as a whole: small ones are gone soon.
const SEGMENT_BYTES: u64 = 8 << 20;

/// The least size of the largest record: topics may take larger messages later.
const RECORD_BYTES_LEAST: usize = 4 << 20;

/// What a stream holds in memory of what was just taken. The rest is read again from the disk.
const LANE_BYTES_MAX: usize = 1 << 20;

/// Records that wait for a sync.
const ENTRIES_MAX: usize = 4096;

/// What is held while a record is in memory.
type Memory = Option<Reservation>;

type Kept = record::Record<Memory, ()>;

/// The reader of a stream.
pub type Reader = LaneReader<Memory, ()>;

/// The way into the spool. It ends with the last of them.
#[derive(Clone)]
pub struct Keeper {
    entries: flume::Sender<Kept>,
}

/// A spool that was opened.
pub struct Fallback {
    pub keeper: Keeper,
    pub spool: Spool,
    pub readers: Vec<Reader>,
    pub positions: Arc<Positions>,
    /// Ends after the last keeper.
    pub committing: JoinHandle<()>,
}

/// A record that goes into the spool.
pub struct Entry {
    pub table: Table,
    pub items: u32,
    pub payload: Bytes,
    pub turn: Turn,
    pub durable: Option<oneshot::Sender<Result<(), AppendError>>>,
    pub memory: Memory,
    pub aside: Option<Aside>,
}

impl Keeper {
    /// Passes a record to the spool, which answers it. Waits while too many wait for the disk.
    pub fn keep(&self, entry: Entry) {
        if let Some(aside) = &entry.aside {
            aside.note();
        }
        let kept = Kept {
            stream: stream(entry.table, 0),
            items: entry.items,
            payload: entry.payload,
            turn: entry.turn,
            durable: entry.durable,
            memory: entry.memory,
            result: None,
        };
        // The committing thread ends only after this.
        self.entries.send(kept).ok();
    }
}

impl From<Record> for Entry {
    fn from(record: Record) -> Self {
        let memory = record.memory;
        Self {
            table: memory.rows.table(),
            items: record.items,
            payload: record.payload,
            turn: record.turn,
            durable: record.durable,
            memory: memory.reservation,
            aside: memory.aside,
        }
    }
}

impl Fallback {
    /// Opens the spool in `directory`. Without one there, and unless records are to be `kept`, there is
    /// none. Blocks.
    ///
    /// # Errors
    /// The spool cannot be opened, or its settings do not fit.
    pub fn open(
        directory: &Path,
        settings: &SpoolSettings,
        kept: bool,
        payload_bytes_max: usize,
    ) -> Result<Option<Self>> {
        let place = directory.join(DIRECTORY);
        if !kept && !place.exists() {
            return Ok(None);
        }
        let bytes_max = settings.spool_bytes_max.as_u64();
        let record_bytes = payload_bytes_max.max(RECORD_BYTES_LEAST);
        let record_bytes = u32::try_from(record_bytes).unwrap_or(u32::MAX);
        let settings = Settings {
            streams: Table::ALL.map(|table| stream(table, 0)).to_vec(),
            segment_bytes: SEGMENT_BYTES.min(bytes_max / 8),
            frame_bytes_max: record_bytes,
            frame_bytes_least: record_bytes,
            bytes_max,
            disk_reserve_bytes: settings.spool_disk_reserve.as_u64(),
            lane_bytes_max: LANE_BYTES_MAX,
            ..Settings::default()
        };
        let (entries, waiting) = flume::bounded(ENTRIES_MAX);
        let opened = open_spool::<Memory, ()>(&place, settings, waiting)?;
        let (spool, committer) = (opened.spool, opened.committer);
        let positions = Positions::read(directory.join(POSITIONS), spool.id());
        let mut readers = opened.readers;
        for reader in &mut readers {
            // One that the spool never reached is none of it.
            reader.skip_to(positions.of(reader.stream()));
        }
        let committing = std::thread::Builder::new()
            .name("fallback".to_owned())
            .spawn(move || committer.run())
            .context("cannot start the thread of the local spool")?;
        info!(
            directory = %place.display(),
            kept,
            "opened the local spool for the time when Kafka is away"
        );
        Ok(Some(Self {
            keeper: Keeper { entries },
            spool,
            readers,
            positions: Arc::new(positions),
            committing,
        }))
    }
}
