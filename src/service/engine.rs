//! The log that a service runs on: how it is opened, and what the stages take of it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;

use super::build::spool_settings;
use crate::accounts::ledger::Stream;
use crate::admission::record::{InMemory, Record, shard_of, table_of};
use crate::config::Serve;
use crate::event::result::RecordResult;
use crate::event::table::Table;
use crate::log::append::{Append, Capacity};
use crate::log::read::{Acknowledge, Read};
use crate::log::spool;
use crate::log::spool::append::group_committer::GroupCommitter;
use crate::log::spool::deliver::reader::LaneReader;
use crate::log::spool::settings::Settings;

/// A kind of log.
pub trait Engine: Send {
    /// Makes records durable.
    type Appender: Append;
    /// Reads a stream.
    type Reader: Read<InMemory, RecordResult>;

    /// Refuses settings that the log cannot work with, before anything else is done.
    ///
    /// # Errors
    /// Names the settings, what they are, and what would be accepted.
    fn check(&self, config: &Serve) -> Result<()>;

    /// Opens the log. Records come through `entries`.
    fn open(
        self,
        config: &Serve,
        entries: flume::Receiver<Record>,
    ) -> impl Future<Output = Result<Opened<Self::Appender, Self::Reader>>> + Send;
}

/// A log that was opened.
pub struct Opened<A, L> {
    /// For admission, metrics and reports.
    pub capacity: Arc<dyn Capacity>,
    /// Runs on its own thread until the last sender of records is gone.
    pub appender: A,
    /// Bytes that become free at once when events leave the log.
    pub freed_bytes: u64,
    /// What the lanes read.
    pub lanes: Lanes<L>,
    /// Whether events are stored here, and Postgres's partitions are cared for.
    pub stores: bool,
    /// Further tasks, with their names. Ends when the service ends.
    pub helpers: Vec<(&'static str, BoxFuture<'static, ()>)>,
    /// Clears up once everything has ended; may block.
    pub finish: Box<dyn FnOnce() + Send>,
}

/// The streams that lanes read.
pub enum Lanes<L> {
    /// No other process reads the log.
    Own {
        /// Receives the acks.
        log: Arc<dyn Acknowledge>,
        /// A reader for each lane.
        readers: Vec<(Stream, L)>,
        /// The streams; this process takes over their ledger rows.
        streams: Vec<(u16, Table)>,
    },
    /// Other processes read streams of the log, and take over from this one.
    Shared {
        /// All streams of the log, including those that other processes read now.
        streams: Vec<Stream>,
        /// How many lanes of a table hold records at the same time, at least one.
        at_once: u8,
        /// Begins to read one of them.
        open: Open<L>,
    },
}

impl<L> Lanes<L> {
    /// Nothing is read here.
    pub fn none() -> Self {
        Self::Shared {
            streams: Vec::new(),
            at_once: 1,
            open: Arc::new(|_| unreachable!("there is no stream to open")),
        }
    }
}

impl<L> Lanes<L> {
    /// How many lanes of a table hold records at the same time, if the log's own lanes are `own` of each.
    pub(super) fn at_once(&self, own: u8) -> u8 {
        match self {
            Lanes::Own { .. } => own,
            Lanes::Shared { at_once, .. } => *at_once,
        }
    }
}

/// Begins to read a stream of a log that others read as well.
pub type Open<L> = Arc<dyn Fn(&Stream) -> (L, Arc<dyn Acknowledge>) + Send + Sync>;

type Committer = GroupCommitter<InMemory, RecordResult>;
type Reader = LaneReader<InMemory, RecordResult>;

/// The log on the local disk.
#[derive(Clone, Copy, Debug)]
pub struct LocalSpool;

impl Engine for LocalSpool {
    type Appender = Committer;
    type Reader = Reader;

    fn check(&self, config: &Serve) -> Result<()> {
        spool_settings(config).map(drop)
    }

    async fn open(
        self,
        config: &Serve,
        entries: flume::Receiver<Record>,
    ) -> Result<Opened<Self::Appender, Self::Reader>> {
        open_spool(
            config.spool.spool_dir.clone(),
            spool_settings(config)?,
            entries,
        )
        .await
    }
}

/// Opens the spool in `directory`, on a blocking thread, as reading its segments takes a while.
pub(super) async fn open_spool(
    directory: PathBuf,
    settings: Settings,
    entries: flume::Receiver<Record>,
) -> Result<Opened<Committer, Reader>> {
    let freed_bytes = settings.segment_bytes;
    let opening = tokio::task::spawn_blocking(move || {
        spool::recover::open::open(&directory, settings, entries)
    });
    let opened = opening
        .await
        .context("opening the spool was interrupted")??;
    let spool = opened.spool;
    let history = spool.history();
    let readers: Vec<_> = opened
        .readers
        .into_iter()
        .map(|reader| {
            let number = reader.stream();
            let stream = Stream {
                log: spool.id(),
                lineage: history.lineage(),
                number: number.into(),
                shard: shard_of(number).into(),
                table: table_of(number),
            };
            (stream, reader)
        })
        .collect();
    // A fork's inherited counts belong to its ledger rows, even for a stream that is not in use
    // now.
    let inherits = |number: &u8| history.inherited(*number) > 0;
    let used = readers
        .iter()
        .map(|(stream, _)| (stream.number, stream.table));
    let inherited = (0..u8::MAX).filter(inherits);
    let inherited = inherited.map(|number| (number.into(), table_of(number)));
    let mut streams: Vec<(u16, Table)> = used.chain(inherited).collect();
    streams.sort_unstable_by_key(|(number, _)| *number);
    streams.dedup_by_key(|(number, _)| *number);
    let finish = {
        let spool = spool.clone();
        Box::new(move || {
            spool.reclaim();
        })
    };
    Ok(Opened {
        capacity: Arc::new(spool.clone()),
        appender: opened.committer,
        freed_bytes,
        lanes: Lanes::Own {
            log: Arc::new(spool),
            readers,
            streams,
        },
        stores: true,
        helpers: Vec::new(),
        finish,
    })
}
