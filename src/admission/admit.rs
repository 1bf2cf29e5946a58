//! The entry of the pipeline: the last check whether there is room for a record.

use std::cell::{Cell, RefCell};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};
use uuid::Uuid;

use super::memory::{MemoryLimit, Reservation};
use super::record::{Aside, InMemory, Record, stream};
use super::shares::{RECORDS_FACTOR, Share, Shares};
use super::spool_shares::{Room, SpoolShares};
use crate::drain_rate::DrainRate;
use crate::event::body::Memory;
use crate::event::result::RecordResult;
use crate::event::row::rows::Rows;
use crate::event::table::Table;
use crate::log::append::Capacity;
use crate::log::record::{AppendError, Turn};

/// Why there is no room for a request; the client may try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overload {
    /// The memory limit is reached.
    #[error("the memory for bodies and rows on their way (--queue-bytes-max) is spent")]
    Bytes,
    /// The tenant holds its share of the memory.
    #[error(
        "the tenant's bodies and rows on their way hold its share of the memory (--queue-bytes-max)"
    )]
    Share,
    /// Requests come in faster than the disk syncs them.
    #[error("too many requests are waiting for the disk")]
    Records,
    /// The spool has reached its cap.
    #[error("the spool has reached its cap (--spool-bytes-max)")]
    Spool,
    /// The tenant has put its share into the spool.
    #[error(
        "the tenant has its share of the spool (--spool-bytes-max), which is more than half full, and the rest is kept for others"
    )]
    SpoolShare,
    /// The disk has no free space beyond its reserve.
    #[error("the disk of the spool has no free space beyond --spool-disk-reserve")]
    Reserve,
    /// The request is larger than the limits ever allow.
    #[error("it takes more memory or more of the spool than one request may")]
    TooLarge,
    /// The disk does not work.
    #[error("writing to the disk of the spool failed, and has not worked since")]
    Disk,
    /// The disk does not answer.
    #[error("the disk of the spool has not answered for seconds")]
    Stalled,
    /// The spool's directory was removed or replaced.
    #[error(
        "the spool's directory was removed or replaced while the service ran; it has to be started again"
    )]
    Gone,
    /// A later opening of this spool took over, and stores its events.
    #[error("this instance is fenced off: a later start on a copy of its spool took over")]
    FencedOff,
    /// The log is elsewhere, and does not acknowledge.
    #[error("the log is away: it does not acknowledge events")]
    Away,
    /// The log refused the events because of others that came with them.
    #[error(
        "the log refused the events together with others as too large: its limit on messages was lowered, and is being read again"
    )]
    GroupTooLarge,
    /// This instance takes no events.
    #[error("this instance only stores events (--role writer)")]
    NotHere,
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

impl From<AppendError> for Overload {
    fn from(refused: AppendError) -> Self {
        match refused {
            AppendError::AtCap => Overload::Spool,
            AppendError::NoSpace => Overload::Reserve,
            AppendError::TooLarge => Overload::TooLarge,
            AppendError::Failed => Overload::Disk,
            AppendError::Stalled => Overload::Stalled,
            AppendError::Gone => Overload::Gone,
            AppendError::Away => Overload::Away,
            AppendError::GroupTooLarge => Overload::GroupTooLarge,
            AppendError::NotHere => Overload::NotHere,
        }
    }
}

/// Admits records into the log, and reserves memory for them. The HTTP service's handle of the
/// stages after it.
///
/// What a tenant's requests take is on the tenant's account: see [`Self::of`].
#[derive(Clone, Debug)]
pub struct Admission {
    shared: Arc<Shared>,
    share: Arc<Share>,
    /// The request's `traceparent`, if the log carries it.
    trace: Option<Arc<str>>,
}

#[derive(Debug)]
struct Shared {
    memory: MemoryLimit,
    shares: Shares,
    spool_shares: SpoolShares,
    /// Records that wait for the disk, of all tenants.
    waiting: Arc<AtomicUsize>,
    entries: flume::Sender<Record>,
    log: Arc<dyn Capacity>,
    segment_bytes: u64,
    drain: Arc<DrainRate>,
    /// By table.
    shards: [u8; Table::ALL.len()],
    turn: AtomicUsize,
    fenced_off: Arc<AtomicBool>,
}

impl Admission {
    /// Sends records into `entries`, until `fenced_off` is set. `shards` are the lanes of each table.
    pub fn new(
        memory: MemoryLimit,
        entries: flume::Sender<Record>,
        log: Arc<dyn Capacity>,
        segment_bytes: u64,
        drain: Arc<DrainRate>,
        shards: [u8; Table::ALL.len()],
        fenced_off: Arc<AtomicBool>,
    ) -> Self {
        // As many large bodies of one tenant as are decoded at once.
        let shares = Shares::new(std::thread::available_parallelism().map_or(1, NonZero::get));
        let share = shares.of(Uuid::nil());
        let shared = Shared {
            memory,
            shares,
            spool_shares: SpoolShares::default(),
            waiting: Arc::default(),
            entries,
            log,
            segment_bytes,
            drain,
            shards,
            turn: AtomicUsize::new(0),
            fenced_off,
        };
        Self {
            shared: Arc::new(shared),
            share,
            trace: None,
        }
    }

    /// Admission on the account of a tenant.
    #[must_use]
    pub fn of(&self, tenant: Uuid) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            share: self.shared.shares.of(tenant),
            trace: None,
        }
    }

    /// Admission of a request that has this place in a trace.
    #[must_use]
    pub fn traced(self, trace: Option<Arc<str>>) -> Self {
        Self { trace, ..self }
    }

    /// The tenant's turns to decode large bodies.
    pub fn decoding(&self) -> &Arc<Semaphore> {
        &self.share.decoding
    }

    /// Reserves memory for a body, its rows or its response.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, Overload> {
        let memory = &self.shared.memory;
        u32::try_from(bytes)
            .ok()
            .and_then(|bytes| memory.reserve_for(&self.share, bytes))
            .ok_or_else(|| {
                let (reserved, max) = (memory.reserved(), memory.bytes_max());
                if bytes > max {
                    Overload::TooLarge
                } else if bytes > max - reserved {
                    Overload::Bytes
                } else {
                    Overload::Share
                }
            })
    }

    /// Memory for decoding a body of `body_bytes`, which are reserved already.
    pub fn scratch(&self, body_bytes: usize) -> Scratch<'_> {
        // Above three quarters of the limit a retry does not help: the body takes most of the
        // memory by itself.
        let most = self.shared.memory.bytes_max() / 4 * 3;
        Scratch {
            admission: self,
            bytes_max: most.saturating_sub(body_bytes),
            used: Cell::new(0),
            reservation: RefCell::new(None),
            refused: Cell::new(None),
        }
    }

    /// Bytes reserved, and the memory limit.
    pub fn bytes(&self) -> (usize, usize) {
        (
            self.shared.memory.reserved(),
            self.shared.memory.bytes_max(),
        )
    }

    /// Whether a body of `bytes` fits into the spool; checked before any work is done for it.
    pub fn has_room(&self, bytes: usize) -> Result<(), Overload> {
        self.is_not_fenced_off()?;
        self.shared.log.has_room(bytes)?;
        match self.may_spool(bytes, self.spool_room()) {
            true => Ok(()),
            false => Err(Overload::SpoolShare),
        }
    }

    fn may_spool(&self, bytes: usize, room: Room) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.shared
            .spool_shares
            .allow(self.share.owner, bytes, room)
    }

    fn spool_room(&self) -> Room {
        let (free, all) = self.shared.log.room();
        Room { free, all }
    }

    /// After the fencing, records would stay in the spool until an operator acts.
    fn is_not_fenced_off(&self) -> Result<(), Overload> {
        match self.shared.fenced_off.load(Ordering::Relaxed) {
            true => Err(Overload::FencedOff),
            false => Ok(()),
        }
    }

    /// The log that records go into.
    pub fn log(&self) -> &dyn Capacity {
        self.shared.log.as_ref()
    }

    /// Passes rows on, or refuses them at once. `durable` reports the sync, `result` what became of
    /// the rows in Postgres; `aside` is for a log that keeps records aside.
    pub fn submit(
        &self,
        rows: Rows,
        reservation: Reservation,
        durable: Option<oneshot::Sender<Synced>>,
        result: Option<oneshot::Sender<RecordResult>>,
        aside: Option<Aside>,
    ) -> Result<(), Overload> {
        self.is_not_fenced_off()?;
        debug_assert!(
            reservation.bytes() >= rows.framed().len(),
            "rows go into the pipeline with less memory reserved than they hold"
        );
        let Shared {
            waiting, entries, ..
        } = &*self.shared;
        let free = entries.capacity().map_or(usize::MAX, |most| {
            most.saturating_sub(waiting.load(Ordering::Relaxed))
        });
        let own = self.share.records.load(Ordering::Relaxed);
        if own >= free.saturating_mul(RECORDS_FACTOR) {
            return Err(Overload::Records);
        }
        let (bytes, room) = (rows.framed().len(), self.spool_room());
        if !self.may_spool(bytes, room) {
            return Err(Overload::SpoolShare);
        }
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let turn = turn % usize::from(self.shared.shards[rows.table() as usize]);
        let shard = u8::try_from(turn).expect("the remainder of a u8 is one");
        let entry = Record {
            stream: stream(rows.table(), shard),
            items: u32::try_from(rows.len()).expect("a body is far smaller than 4 GiB"),
            payload: rows.framed().clone(),
            turn: Turn::new(
                self.share.owner,
                [Arc::clone(&self.share.records), Arc::clone(waiting)],
            ),
            durable,
            memory: InMemory {
                rows,
                reservation: Some(reservation),
                trace: self.trace.clone(),
                aside,
            },
            result,
        };
        entries.try_send(entry).map_err(|error| match error {
            flume::TrySendError::Full(_) => Overload::Records,
            flume::TrySendError::Disconnected(_) => Overload::Stopping,
        })?;
        let (owner, bytes) = (self.share.owner, bytes as u64);
        self.shared.spool_shares.count(owner, bytes, room);
        Ok(())
    }

    /// When a client should retry after a refusal, from the measured drain rate. Jitter keeps
    /// clients from returning together.
    pub fn retry_after(&self, full: Overload) -> Duration {
        let now = Instant::now();
        let wait = match full {
            Overload::Stopping | Overload::TooLarge => Duration::from_secs(1),
            // Brokers elect a leader within seconds.
            Overload::Away | Overload::GroupTooLarge => Duration::from_secs(2),
            Overload::Disk
            | Overload::Stalled
            | Overload::Gone
            | Overload::FencedOff
            | Overload::NotHere => Duration::from_secs(10),
            // A quarter of the memory limit is room for many bodies.
            Overload::Bytes | Overload::Share | Overload::Records => self
                .shared
                .drain
                .time_for(self.shared.memory.bytes_max() as u64 / 4, now),
            // Space in the spool is freed a segment at a time.
            Overload::Spool | Overload::SpoolShare | Overload::Reserve => {
                self.shared.drain.time_for(self.shared.segment_bytes, now)
            }
        };
        wait.max(Duration::from_secs(1))
            .mul_f64(rand::random_range(1.0..1.5))
    }
}

/// What the sync of a record came to.
pub type Synced = Result<(), AppendError>;

/// Small bodies need no more than this to be decoded, so one reservation is enough.
const SCRATCH_STEP: usize = 4096;

/// Memory for decoding one body, reserved as it is used.
#[derive(Debug)]
pub struct Scratch<'a> {
    admission: &'a Admission,
    bytes_max: usize,
    used: Cell<usize>,
    reservation: RefCell<Option<Reservation>>,
    refused: Cell<Option<Overload>>,
}

impl Memory for Scratch<'_> {
    fn take(&self, bytes: usize) -> bool {
        let used = self.used.get() + bytes;
        self.used.set(used);
        let mut reservation = self.reservation.borrow_mut();
        let reserved = reservation.as_ref().map_or(0, Reservation::bytes);
        if used <= reserved {
            return true;
        }
        if used > self.bytes_max {
            self.refused.set(Some(Overload::TooLarge));
            return false;
        }
        let more = self.admission.reserve((used - reserved).max(SCRATCH_STEP));
        match (
            more.or_else(|_| self.admission.reserve(used - reserved)),
            &mut *reservation,
        ) {
            (Ok(more), Some(reservation)) => reservation.merge(more),
            (Ok(more), none) => *none = Some(more),
            (Err(full), _) => {
                self.refused.set(Some(full));
                return false;
            }
        }
        true
    }
}

impl Scratch<'_> {
    /// Why memory could not be reserved.
    pub fn refused(&self) -> Overload {
        self.refused.get().unwrap_or(Overload::Bytes)
    }

    /// The reservation, for the rows that stay when decoding is over.
    pub fn into_reservation(self) -> Option<Reservation> {
        self.reservation.into_inner()
    }
}
