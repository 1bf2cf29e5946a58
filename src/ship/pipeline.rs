//! From batches to positions: a few deliveries at a time, applied in the order of the batches.
//!
//! Invariant: rejected lines are on disk before the position behind them is. A time that was given
//! to an event is on disk before the event is sent.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::batch::Batch;
use super::deliver::{Courier, Interrupted};
use super::positions::{Position, Positions};
use super::rejects::{Rejects, dead_letter};
use super::status::{Status, Work, add, set, take};
use crate::backoff::Backoff;

/// Batches that are delivered at once: one is read by the service while another is decoded.
const AT_ONCE: usize = 4;

/// Batches that wait for that.
pub(crate) const WAITING: usize = 2;

/// How long positions may be behind: what is done within it is sent again after a crash.
const SAVE_AFTER: Duration = Duration::from_millis(200);

/// Pauses between attempts to write.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What a source hands over, in order.
#[derive(Debug)]
pub(crate) enum Handed {
    Batch(Box<Batch>),
    /// A file has another path.
    Moved(u64, PathBuf),
    /// A file goes on where another one was.
    TakeOver(u64, Box<Position>),
    /// A file that is gone, and the link that it was kept by.
    Forget(u64, Option<PathBuf>),
}

/// The end of the line.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) courier: Arc<Courier>,
    pub(crate) positions: Positions,
    pub(crate) rejects: Rejects,
    pub(crate) now_us: fn() -> i64,
}

/// A batch, and what became of it.
struct Done {
    number: u64,
    handed: Handed,
    /// Dead letters, and how many.
    letters: Vec<u8>,
    rejected: u64,
}

impl Pipeline {
    /// Delivers what comes, until there is no more or it is told to stop; the positions are saved
    /// at the end in any case.
    ///
    /// # Errors
    /// A fault, if the courier is not patient; or a disk that cannot be written.
    pub(crate) async fn run(mut self, from: flume::Receiver<Handed>) -> Result<()> {
        let ended = self.carry(&from).await;
        let saved = self.save().await;
        match ended {
            Ok(()) | Err(Interrupted::Stopped) => saved,
            Err(Interrupted::Fault(why)) => bail!(why),
        }
    }

    async fn carry(&mut self, from: &flume::Receiver<Handed>) -> Result<(), Interrupted> {
        let mut deliveries: JoinSet<Result<Done, Interrupted>> = JoinSet::new();
        let mut done: BTreeMap<u64, Done> = BTreeMap::new();
        let (mut next_in, mut next_out) = (0, 0);
        let mut more = true;
        let mut save_at: Option<Instant> = None;
        while more || !deliveries.is_empty() {
            let saving = async move {
                match save_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = saving => {
                    self.save_patiently().await?;
                    save_at = None;
                }
                Some(delivered) = deliveries.join_next() => {
                    let delivered = delivered
                        .map_err(|error| Interrupted::Fault(format!("a delivery broke off: {error}")))??;
                    done.insert(delivered.number, delivered);
                    while let Some(first) = done.remove(&next_out) {
                        next_out += 1;
                        self.apply(first).await?;
                        save_at.get_or_insert_with(|| Instant::now() + SAVE_AFTER);
                    }
                }
                handed = from.recv_async(),
                    if more && deliveries.len() + done.len() < AT_ONCE =>
                {
                    let Ok(handed) = handed else {
                        more = false;
                        continue;
                    };
                    self.note_stamp(&handed).await?;
                    let (courier, now_us) = (Arc::clone(&self.courier), self.now_us);
                    deliveries.spawn(delivered(courier, next_in, handed, now_us));
                    next_in += 1;
                }
            }
        }
        Ok(())
    }

    /// A time that is given to events has to be known when they are sent again.
    async fn note_stamp(&mut self, handed: &Handed) -> Result<(), Interrupted> {
        let Handed::Batch(batch) = handed else {
            return Ok(());
        };
        let Some(stamp) = batch.stamp else {
            return Ok(());
        };
        let position = self.positions.files.entry(batch.file.key);
        let position = position.or_insert_with(|| Position::start(&batch.file));
        position.stamps.push(stamp);
        self.save_patiently().await
    }

    async fn apply(&mut self, done: Done) -> Result<(), Interrupted> {
        if !done.letters.is_empty() {
            self.positions.rejects_bytes = self.write_letters(done.letters).await?;
        }
        let files = &mut self.positions.files;
        match done.handed {
            Handed::Batch(batch) => {
                let position = files.entry(batch.file.key);
                let position = position.or_insert_with(|| Position::start(&batch.file));
                position.offset = batch.to;
                position.tail = batch.tail;
                position.lines += batch.lines;
                position.rejected += done.rejected;
                position.stamps.retain(|stamp| stamp.to > batch.to);
                let status = &self.courier.status;
                add(&status.lines, batch.lines);
                add(&status.rejected, done.rejected);
                set(&status.done_bytes, batch.disk_bytes);
                take(&status.in_flight_bytes, batch.bytes);
                status.progresses();
            }
            Handed::Moved(key, path) => {
                if let Some(position) = files.get_mut(&key) {
                    position.path = path;
                }
            }
            Handed::TakeOver(key, position) => {
                files.insert(key, *position);
            }
            Handed::Forget(key, link) => {
                // Before the position is forgotten: a link without one is a new file.
                if let Some(link) = link {
                    remove(link).await;
                }
                self.positions.files.remove(&key);
            }
        }
        Ok(())
    }

    /// Appends to the rejects, and tries again where they cannot be written: without them no
    /// position may move.
    async fn write_letters(&self, letters: Vec<u8>) -> Result<u64, Interrupted> {
        let letters = Arc::new(letters);
        let write = || {
            let (rejects, letters) = (self.rejects.clone(), Arc::clone(&letters));
            move || rejects.append(&letters)
        };
        patiently(&self.courier.status, &self.courier.stop, write).await
    }

    async fn save_patiently(&self) -> Result<(), Interrupted> {
        let write = || {
            let snapshot = self.positions.snapshot();
            move || snapshot.write()
        };
        patiently(&self.courier.status, &self.courier.stop, write).await
    }

    async fn save(&self) -> Result<()> {
        let snapshot = self.positions.snapshot();
        tokio::task::spawn_blocking(move || snapshot.write())
            .await
            .context("writing the positions was interrupted")?
    }
}

async fn delivered(
    courier: Arc<Courier>,
    number: u64,
    handed: Handed,
    now_us: fn() -> i64,
) -> Result<Done, Interrupted> {
    let mut letters = Vec::new();
    let mut rejected = 0;
    if let Handed::Batch(batch) = &handed {
        let path = &batch.file.path;
        for refused in &batch.refused {
            rejected += 1;
            letters.extend(dead_letter(
                path,
                refused.offset,
                &refused.line,
                refused.cut_from,
                &refused.reason,
                now_us(),
            ));
        }
        for part in &batch.parts {
            for (line, reason) in courier.deliver(part).await? {
                let line = &part.lines[line];
                rejected += 1;
                let text = line.original(&part.text);
                letters.extend(dead_letter(
                    path,
                    line.offset,
                    text,
                    None,
                    &reason,
                    now_us(),
                ));
            }
        }
    }
    Ok(Done {
        number,
        handed,
        letters,
        rejected,
    })
}

/// Removes a link; one that stays is looked at again by the next start.
async fn remove(link: PathBuf) {
    let path = link.clone();
    let removing = move || std::fs::remove_file(link).map_err(anyhow::Error::from);
    let removed = tokio::task::spawn_blocking(removing).await;
    if let Err(error) = removed.context("it was interrupted").flatten() {
        warn!(path = %path.display(), error = format!("{error:#}"),
            "the link to a file that is read and removed stays; remove it");
    }
}

/// Does blocking work until it succeeds.
async fn patiently<T, W>(
    status: &Status,
    stop: &CancellationToken,
    mut work: impl FnMut() -> W,
) -> Result<T, Interrupted>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T> + Send + 'static,
{
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    loop {
        let done = tokio::task::spawn_blocking(work()).await;
        match done.context("it was interrupted").flatten() {
            Ok(done) => {
                status.works(Work::Writing);
                return Ok(done);
            }
            Err(error) => status.fails(Work::Writing, &format!("{error:#}"), true),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.pause()) => {}
            () = stop.cancelled() => return Err(Interrupted::Stopped),
        }
    }
}
