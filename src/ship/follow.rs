//! A source of lines: files in folders, followed as they grow.
//!
//! A file is known by its inode, its first line and the bytes before its position, whatever its
//! path: a file that is renamed goes on where it was, one that is truncated or written over begins
//! again, and a copy that `copytruncate` makes takes over what the original had not finished.
//! A file is held open until it is read, and has a hard link in the folder of the positions (`kept`),
//! so that removing it loses nothing.

mod copies;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flume::SendTimeoutError;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::batch::Batch;
use super::files::{self, Found, Own};
use super::followed::{Followed, Next, open_same};
use super::kept::Kept;
use super::pipeline::Handed;
use super::positions::Position;
use super::status::{Status, Work, add, set};

/// How often the folders are looked at.
const POLL: Duration = Duration::from_millis(200);
/// A file that was removed is given up once nothing was added for so long: who had it open may
/// still write.
const REMOVED_QUIET: Duration = Duration::from_secs(60);
/// A file that has not changed for so long is closed, if all of it is read.
const IDLE_OPEN: Duration = Duration::from_secs(600);
/// How long the position of a file that is gone is kept.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a file that begins as another one waits for the other one to be truncated, as
/// `copytruncate` does.
const COPY_WAIT: Duration = Duration::from_secs(5);
/// Files that are held open at once.
const OPEN_MAX: usize = 512;

/// Reads folders and hands lines over.
#[derive(Debug)]
pub(crate) struct Follower {
    folders: Vec<PathBuf>,
    own: Own,
    kept: Kept,
    line_bytes_max: usize,
    to: flume::Sender<Handed>,
    status: Arc<Status>,
    stop: CancellationToken,
    now_us: fn() -> i64,
    files: Vec<Followed>,
    next_key: u64,
    /// New files that may be copies, and since when they are known.
    suspects: HashMap<(u64, u64), Instant>,
    /// Something could not be read since the last look at everything.
    has_failed: bool,
    /// What is to be handed over before anything that is read later.
    outbox: VecDeque<Handed>,
}

/// What a follower is made of.
#[derive(Debug)]
pub(crate) struct FollowerSettings {
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) own: Own,
    pub(crate) kept: Kept,
    pub(crate) known: Vec<(u64, Position)>,
    pub(crate) next_key: u64,
    pub(crate) line_bytes_max: usize,
    pub(crate) to: flume::Sender<Handed>,
    pub(crate) status: Arc<Status>,
    pub(crate) stop: CancellationToken,
    pub(crate) now_us: fn() -> i64,
}

/// The pipeline takes nothing more.
struct Closed;

impl Follower {
    pub(crate) fn new(settings: FollowerSettings) -> Self {
        let now = Instant::now();
        let known = settings.known.into_iter();
        Self {
            folders: settings.folders,
            own: settings.own,
            kept: settings.kept,
            line_bytes_max: settings.line_bytes_max,
            to: settings.to,
            status: settings.status,
            stop: settings.stop,
            now_us: settings.now_us,
            files: known
                .map(|(key, position)| Followed::known(key, position, now))
                .collect(),
            next_key: settings.next_key,
            suspects: HashMap::new(),
            has_failed: false,
            outbox: VecDeque::new(),
        }
    }

    /// Follows until it is told to stop. Blocks.
    pub(crate) fn run(mut self) {
        drop(self.follow());
    }

    fn follow(&mut self) -> Result<(), Closed> {
        self.status.progresses();
        while !self.stop.is_cancelled() {
            self.scan();
            self.flush()?;
            let scanned = Instant::now();
            let mut any = true;
            // One batch of each file in turn.
            while any && scanned.elapsed() < POLL {
                any = false;
                let mut next = 0;
                // A look at the folders while something is handed over may remove files.
                while next < self.files.len() {
                    let at = next;
                    next += 1;
                    let now_us = (self.now_us)();
                    match self.files[at].read(self.line_bytes_max, now_us) {
                        Ok(Next::Nothing) => {}
                        Ok(Next::WrittenOver) => self.begin_again(at, "was written over"),
                        Ok(Next::Batch(batch)) => {
                            any = true;
                            self.hand_over(batch);
                            self.flush()?;
                        }
                        Err(error) => {
                            let path = self.files[at].position.path.clone();
                            self.fail(&path, &error);
                        }
                    }
                    if self.stop.is_cancelled() {
                        return Ok(());
                    }
                }
            }
            self.count();
            if !std::mem::take(&mut self.has_failed) {
                self.status.works(Work::Reading);
            }
            if !any {
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// The first failure of a look at everything is told.
    fn fail(&mut self, path: &Path, error: &io::Error) {
        if !std::mem::replace(&mut self.has_failed, true) {
            let why = format!("{}: {error}", path.display());
            self.status.fails(Work::Reading, &why, true);
        }
    }

    fn hand_over(&mut self, batch: Batch) {
        add(&self.status.in_flight_bytes, batch.bytes);
        self.outbox.push_back(Handed::Batch(Box::new(batch)));
    }

    /// Hands over what waits for it. While the pipeline is full the folders are looked at all the
    /// same, so that files that exist for a short time are opened.
    fn flush(&mut self) -> Result<(), Closed> {
        while let Some(mut first) = self.outbox.pop_front() {
            loop {
                match self.to.send_timeout(first, POLL) {
                    Ok(()) => break,
                    Err(SendTimeoutError::Disconnected(_)) => return Err(Closed),
                    Err(SendTimeoutError::Timeout(back)) => first = back,
                }
                if self.stop.is_cancelled() {
                    return Err(Closed);
                }
                self.scan();
                self.count();
            }
        }
        Ok(())
    }

    /// Looks at the folders.
    fn scan(&mut self) {
        let mut found = Vec::new();
        for folder in &self.folders {
            match files::walk(folder, &self.own) {
                Ok(more) => found.extend(more),
                Err(error) => {
                    let folder = folder.clone();
                    self.fail(&folder, &error);
                    // What is not seen is not gone.
                    return;
                }
            }
        }
        // The oldest first.
        found.sort_by(|one, other| {
            let key = |found: &Found| (found.modified_ns, found.path.clone());
            key(one).cmp(&key(other))
        });
        let now = Instant::now();
        for file in &mut self.files {
            file.is_there = false;
        }
        let mut fresh = Vec::new();
        let mut shorter = Vec::new();
        let mut replaced = Vec::new();
        let by_inode: HashMap<(u64, u64), usize> = (self.files.iter().enumerate())
            .map(|(at, file)| ((file.position.device, file.position.inode), at))
            .collect();
        for found in found {
            let known = by_inode.get(&(found.device, found.inode)).copied();
            let known = known.filter(|&at| {
                let position = &self.files[at].position;
                position.is_inode(found.device, found.inode, found.born_us)
            });
            let Some(at) = known else {
                let name = found.path.file_name().unwrap_or_default();
                if files::is_of_lines(&name.to_string_lossy(), false) {
                    fresh.push(found);
                }
                continue;
            };
            let file = &mut self.files[at];
            if file.is_there {
                // Another link to the same file.
                continue;
            }
            (file.is_there, file.seen_at) = (true, now);
            if file.position.path != found.path {
                file.position.path.clone_from(&found.path);
                let moved = Handed::Moved(file.key, found.path.clone());
                self.outbox.push_back(moved);
            }
            file.note(found.size, found.modified_ns, now);
            if found.size < file.position.offset {
                shorter.push(at);
            }
            if file.is_replaced() {
                replaced.push(at);
            }
        }
        for at in shorter {
            self.hand_to_a_copy(at, &mut fresh);
            self.begin_again(at, "is shorter than what was read of it");
        }
        for at in replaced {
            self.hand_to_a_copy(at, &mut fresh);
            self.begin_again(at, "was written over");
        }
        for found in fresh {
            if !self.may_be_a_copy(&found, now) {
                self.add(&found, now);
            }
        }
        self.suspects
            .retain(|_, since| now.duration_since(*since) < 2 * COPY_WAIT);
        self.keep_all(now);
        self.open_all();
        self.forget(now);
        set(
            &self.status.files,
            self.files.iter().filter(|file| file.is_there).count() as u64,
        );
    }

    fn add(&mut self, found: &Found, now: Instant) {
        self.files.push(Followed::new(self.next_key, found, now));
        self.next_key += 1;
        info!(path = %found.path.display(), bytes = found.size, "following a file");
    }

    /// A file is another one from now on.
    fn begin_again(&mut self, at: usize, why: &str) {
        let key = self.next_key;
        self.next_key += 1;
        let file = &mut self.files[at];
        warn!(path = %file.position.path.display(), read_bytes = file.position.offset,
            "a file {why}: it is read from its beginning");
        add(&self.status.truncated, 1);
        self.outbox.push_back(Handed::Forget(file.key, None));
        file.begin_again(key);
    }

    /// Links the files that have something to read, and follows those that are known by their links
    /// alone: they were removed before they were read.
    fn keep_all(&mut self, now: Instant) {
        for file in &mut self.files {
            file.link = None;
        }
        for found in self.kept.found() {
            let is_same = |file: &Followed| {
                (file.position).is_inode(found.device, found.inode, found.born_us)
            };
            let at = self.files.iter().position(is_same).unwrap_or_else(|| {
                self.add(&found, now);
                self.files.len() - 1
            });
            let file = &mut self.files[at];
            file.is_there &= file.position.path != found.path;
            file.link = Some(found.path);
            if !file.is_there {
                file.note(found.size, found.modified_ns, now);
                if found.size < file.position.offset {
                    self.begin_again(at, "is shorter than what was read of it");
                }
            }
        }
        for file in &mut self.files {
            let has_more = file.size > file.position.offset;
            if file.is_there && file.link.is_none() && has_more {
                let Position {
                    path,
                    device,
                    inode,
                    ..
                } = &file.position;
                file.link = self.kept.keep(path, *device, *inode);
            }
        }
    }

    /// Opens the files that have something to read.
    fn open_all(&mut self) {
        let mut open = self
            .files
            .iter()
            .filter(|file| file.handle.is_some())
            .count();
        let mut failed = None;
        for file in &mut self.files {
            let has_more = file.size > file.position.offset;
            if open >= OPEN_MAX || file.handle.is_some() || !has_more {
                continue;
            }
            let position = &file.position;
            let path = match (file.is_there, &file.link) {
                (true, _) => &position.path,
                (false, Some(link)) => link,
                (false, None) => continue,
            };
            match open_same(path, position.device, position.inode) {
                Ok(Some(handle)) => {
                    open += 1;
                    file.handle = Some(handle);
                }
                // Renamed or removed since the scan: the next one tells.
                Ok(None) => {}
                Err(error) => failed = Some((path.clone(), error)),
            }
        }
        if let Some((path, error)) = failed {
            self.fail(&path, &error);
        }
    }

    /// Closes what is read, and forgets what is gone.
    fn forget(&mut self, now: Instant) {
        let mut gone = Vec::new();
        let now_us = (self.now_us)();
        for (at, file) in self.files.iter_mut().enumerate() {
            if file.is_there {
                let is_read = file.size <= file.position.offset;
                if is_read && now.duration_since(file.changed_at) > IDLE_OPEN {
                    file.handle = None;
                }
                continue;
            }
            if file.handle.is_none() && file.link.is_none() {
                if now.duration_since(file.seen_at) > FORGET_AFTER {
                    gone.push(at);
                }
                continue;
            }
            // It was removed, and can be read until it is closed.
            if let Some(Ok(meta)) = file.handle.as_ref().map(File::metadata) {
                let found = Found::of(PathBuf::new(), &meta);
                file.note(found.size, found.modified_ns, now);
            }
            let is_read = file.size <= file.position.offset;
            let is_done = is_read || file.waits_at == Some(file.size);
            if is_done && file.is_quiet(REMOVED_QUIET, now, now_us) {
                gone.push(at);
            }
        }
        for at in gone.into_iter().rev() {
            let file = self.files.swap_remove(at);
            if let Some(batch) = file.torn_end() {
                self.hand_over(batch);
            }
            if let Some(link) = &file.link {
                self.kept.leave(link);
            }
            self.outbox.push_back(Handed::Forget(file.key, file.link));
        }
    }

    /// Tells how much is not read. What waits for the end of its line cannot be.
    fn count(&self) {
        let readable = self.files.iter();
        let readable = readable.filter(|file| file.waits_at != Some(file.size));
        let unread = readable.map(|file| file.size.saturating_sub(file.position.offset));
        set(&self.status.unread_bytes, unread.sum());
        if self.status.behind().0 == 0 {
            self.status.progresses();
        }
    }
}
