//! State that the group committer, the lane readers and the handles share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context;
use tracing::error;
use uuid::Uuid;

use super::append::recycled::RecycledSegments;
use super::catalog::{Catalog, Spent};
use super::directory_lock::DirectoryLock;
use super::disk::Disk;
use super::disk::space::Shortage;
use super::disk::stall;
use super::disk::stall::Stall;
use super::format::{Counts, FRAME_HEADER_BYTES, FRAMES_START, STREAMS_MAX, to_usize};
use super::mutex::locked;
use super::recover::openings::History;
use super::settings::Settings;
use super::usage::{Usage, UsageCounters};
use crate::log::record::AppendError;

/// A handle to the spool: cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Spool {
    shared: Arc<Shared>,
}

/// The state behind a [`Spool`].
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) spool_id: Uuid,
    pub(crate) settings: Settings,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) usage: UsageCounters,
    catalog: Mutex<Catalog>,
    /// Records that are delivered and not yet acked: sequence and items.
    delivered: [Mutex<VecDeque<(u64, u32)>>; STREAMS_MAX],
    /// The committed sequence of each stream: all records up to it are acked.
    acked: [AtomicU64; STREAMS_MAX],
    history: History,
    /// Items that were found at start, by stream.
    found_items: Counts,
    /// The last sequence that an earlier run used.
    pub(crate) found_last: u64,
    /// New records get sequences above this.
    pub(crate) sequence_floor: AtomicU64,
    /// Serialises deletion; true while the last attempt has failed.
    reclaiming: Mutex<bool>,
    pub(crate) recycled: RecycledSegments,
    /// Runs while the group committer waits for the disk.
    pub(crate) stall: Stall,
    /// Runs while the reader of the stream waits for the disk.
    pub(crate) reading: [Stall; STREAMS_MAX],
    lock: Option<DirectoryLock>,
}

/// What opening a spool has found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) spool_id: Uuid,
    pub(crate) settings: Settings,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) catalog: Catalog,
    pub(crate) counts: Counts,
    /// Items that were found, by stream.
    pub(crate) items: Counts,
    pub(crate) history: History,
    /// The last sequence that an earlier run used.
    pub(crate) last_sequence: u64,
    pub(crate) lock: Option<DirectoryLock>,
}

impl Spool {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The spool id. Sequences are only comparable within it.
    pub fn id(&self) -> Uuid {
        self.shared.spool_id
    }

    /// The openings of this directory.
    pub fn history(&self) -> &History {
        &self.shared.history
    }

    /// Items of a stream that were accepted before this start and are no longer in the spool.
    pub fn passed(&self, stream: u8) -> u64 {
        let accepted = self.shared.history.accepted(stream);
        let found = self.shared.found_items.get(usize::from(stream));
        accepted.saturating_sub(found.copied().unwrap_or(0))
    }

    /// The usage of the spool.
    pub fn usage(&self) -> Usage {
        let shared = &self.shared;
        shared.usage.usage(shared.settings.bytes_max)
    }

    /// The largest payload that is accepted.
    pub fn payload_bytes_max(&self) -> usize {
        to_usize(self.shared.settings.frame_bytes_max.into())
    }

    /// Whether a payload of `payload_bytes` would be accepted now. An early check that saves
    /// work; the group committer decides.
    pub fn has_room(&self, payload_bytes: usize) -> Result<(), AppendError> {
        let Shared {
            usage, settings, ..
        } = &*self.shared;
        let payload_bytes = u32::try_from(payload_bytes)
            .ok()
            .filter(|&bytes| bytes <= settings.frame_bytes_max)
            .ok_or(AppendError::TooLarge)?;
        let needed = u64::from(payload_bytes) + FRAME_HEADER_BYTES;
        if usage.gone.load(Ordering::Relaxed) {
            return Err(AppendError::Gone);
        }
        if self.shared.stall.lasts() >= stall::REFUSED_AFTER {
            return Err(AppendError::Stalled);
        }
        if usage.reserve_reached.load(Ordering::Relaxed) {
            return Err(AppendError::NoSpace);
        }
        if needed <= usage.active_free.load(Ordering::Relaxed) {
            return Ok(());
        }
        if usage.failed.load(Ordering::Relaxed) {
            return Err(AppendError::Failed);
        }
        if usage.no_space.load(Ordering::Relaxed) {
            return Err(AppendError::NoSpace);
        }
        let segment = settings.segment_bytes.max(FRAMES_START + needed);
        let bytes = usage.bytes.load(Ordering::Relaxed);
        match bytes.saturating_add(segment) <= settings.bytes_max {
            true => Ok(()),
            false => Err(AppendError::AtCap),
        }
    }

    /// Bytes of records that still fit, and those that fit into an empty spool, in whole segments.
    pub fn room(&self) -> (u64, u64) {
        let Shared {
            usage, settings, ..
        } = &*self.shared;
        let whole = |bytes: u64| bytes - bytes % settings.segment_bytes.max(1);
        let unused = settings
            .bytes_max
            .saturating_sub(usage.bytes.load(Ordering::Relaxed));
        let free = whole(unused) + usage.active_free.load(Ordering::Relaxed);
        (free, whole(settings.bytes_max))
    }

    /// For how long the disk has not answered, if that is long enough to report.
    pub fn stalled(&self) -> Option<Duration> {
        let Shared { stall, reading, .. } = &*self.shared;
        let lasts = reading.iter().chain([stall]).map(Stall::lasts).max()?;
        (lasts >= stall::TOLD_AFTER).then_some(lasts)
    }

    /// What the disk lacks, if a new segment does not fit.
    pub fn shortage(&self) -> Option<Shortage> {
        let Shared {
            usage, settings, ..
        } = &*self.shared;
        let short = [&usage.reserve_reached, &usage.no_space];
        short
            .iter()
            .any(|flag| flag.load(Ordering::Relaxed))
            .then(|| Shortage::new(usage.free_bytes.load(Ordering::Relaxed), settings))
    }

    /// Records of `stream` that are delivered and not acked, up to and including `sequence`.
    pub fn delivered(&self, stream: u8, sequence: u64) -> usize {
        let delivered = locked(&self.shared.delivered[usize::from(stream)]);
        delivered.partition_point(|&(delivered, _)| delivered <= sequence)
    }

    /// Acks all records of `stream` up to and including `sequence`. Records that are not
    /// delivered yet stay.
    pub fn ack(&self, stream: u8, sequence: u64) {
        self.shared.ack(usize::from(stream), sequence);
    }

    /// Deletes the segments without unacked records and the recycled ones; returns how many
    /// segments. The group committer does this while it runs; later the caller has to.
    pub fn reclaim(&self) -> usize {
        self.shared.reclaim(false)
    }
}

impl Shared {
    pub(crate) fn new(found: Found) -> Self {
        let recycled = RecycledSegments::new(found.settings.segment_bytes);
        let shared = Self {
            spool_id: found.spool_id,
            settings: found.settings,
            disk: found.disk,
            usage: UsageCounters::new(found.counts),
            catalog: Mutex::new(found.catalog),
            delivered: std::array::from_fn(|_| Mutex::default()),
            acked: std::array::from_fn(|_| AtomicU64::new(0)),
            history: found.history,
            found_items: found.items,
            found_last: found.last_sequence,
            sequence_floor: AtomicU64::new(0),
            reclaiming: Mutex::new(false),
            recycled,
            stall: Stall::new(),
            reading: std::array::from_fn(|_| Stall::new()),
            lock: found.lock,
        };
        shared.publish(&shared.catalog());
        shared
    }

    pub(crate) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        locked(&self.catalog)
    }

    /// Publishes the catalog's sizes as usage.
    pub(crate) fn publish(&self, catalog: &Catalog) {
        self.usage.bytes.store(catalog.bytes(), Ordering::Relaxed);
        self.usage
            .segments
            .store(catalog.len() as u64, Ordering::Relaxed);
    }

    /// Notes that a record is delivered to its writer.
    pub(crate) fn deliver(&self, stream: usize, sequence: u64, items: u32) {
        let mut delivered = locked(&self.delivered[stream]);
        assert!(
            delivered.back().is_none_or(|&(last, _)| last < sequence),
            "a record is delivered twice, or out of order"
        );
        delivered.push_back((sequence, items));
    }

    pub(crate) fn ack(&self, stream: usize, sequence: u64) {
        let mut delivered = locked(&self.delivered[stream]);
        while let Some((acked, items)) =
            delivered.pop_front_if(|(delivered, _)| *delivered <= sequence)
        {
            self.advance(stream, acked, 1, u64::from(items));
        }
    }

    /// Advances the committed sequence of `stream` to `last`, which acks `frames` more records.
    pub(crate) fn advance(&self, stream: usize, last: u64, frames: u64, items: u64) {
        self.usage.take(stream, frames, items);
        let before = self.acked[stream].swap(last, Ordering::Release);
        assert!(
            before <= last,
            "the committed sequence of a stream went back"
        );
    }

    /// Counts as lost every record of `stream` that is neither acked nor delivered. Called
    /// under the lane's lock when the reader has caught up.
    pub(crate) fn write_off(&self, stream: usize) {
        let delivered = locked(&self.delivered[stream]);
        let held: u64 = delivered.iter().map(|&(_, items)| u64::from(items)).sum();
        let (frames, items) = self.usage.of_stream(stream);
        let frames = frames.saturating_sub(delivered.len() as u64);
        let items = items.saturating_sub(held);
        if frames > 0 {
            error!(
                stream,
                records = frames,
                items,
                "accepted records are lost from the spool"
            );
            self.usage.take(stream, frames, items);
            self.usage.since_lost[stream].fetch_add(items, Ordering::Relaxed);
        }
    }

    /// Deletes segments without unacked records. With `keep`, some files become recycled
    /// segments; without it, those are deleted too.
    pub(crate) fn reclaim(&self, keep: bool) -> usize {
        let mut failing = locked(&self.reclaiming);
        let mut gone = 0;
        if !self.is_in_place() {
            return gone;
        }
        if !keep {
            self.recycled.clear(self.disk.as_ref());
        }
        // Each deletion may free a segment that had to outlive the deleted one.
        loop {
            let acked = std::array::from_fn(|at| self.acked[at].load(Ordering::Acquire));
            let spent = self.catalog().spent(&acked);
            if spent.is_empty() {
                return gone;
            }
            match self.retire(&spent, keep) {
                Ok(()) => {
                    *failing = false;
                    gone += spent.len();
                    let mut catalog = self.catalog();
                    for segment in &spent {
                        catalog.remove(segment.number);
                    }
                    self.publish(&catalog);
                }
                Err(error) => {
                    if !*failing {
                        error!(error = %format!("{error:#}"), "cannot delete spool segments that are done with; trying again until it works");
                    }
                    *failing = true;
                    return gone;
                }
            }
        }
    }

    /// Whether the directory's path still leads to this spool's files. Once it does not,
    /// nothing is written, renamed or removed: that would happen in another directory.
    pub(crate) fn is_in_place(&self) -> bool {
        if self.usage.gone.load(Ordering::Relaxed) {
            return false;
        }
        let lock = self.lock.as_ref().map(DirectoryLock::is_in_place);
        let looks = [Some(self.disk.is_in_place()), lock];
        // A check that fails says nothing: the next write or the next check finds out.
        let in_place = looks.into_iter().flatten().all(|look| look.unwrap_or(true));
        if !in_place && !self.usage.gone.swap(true, Ordering::Relaxed) {
            self.usage.failed.store(true, Ordering::Relaxed);
            error!(
                "the spool's directory was removed, moved or replaced while it was in use: events \
                 are refused until a new start; what is in memory is still stored, what was only \
                 in the directory is lost unless it comes back"
            );
        }
        in_place
    }

    fn retire(&self, spent: &[Spent], keep: bool) -> anyhow::Result<()> {
        let disk = self.disk.as_ref();
        let kept = self
            .recycled
            .retire(disk, spent, keep)
            .context("cannot remove a spool segment")?;
        disk.sync_dir().context("cannot sync the spool directory")?;
        self.recycled.keep(kept);
        Ok(())
    }
}
