//! A disk in memory that fails, tears writes and loses what was not synced, as disks do.
//!
//! Keeps apart what was written and what is durable. [`FaultyDisk::crash`] returns what a power
//! loss could leave, chosen by seed: each write since the last sync of its file is kept,
//! dropped or torn; each change of a name since the last sync of the directory is kept or
//! dropped. After a failed sync the writes before it stay uncertain, however many syncs succeed
//! later.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, DiskFile, FileId, Listed};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The operation fails; a write may be done in part.
    Fails,
    /// This operation and all later ones fail without effect: the disk is gone.
    Freezes,
    /// A read or write is interrupted by a signal.
    Interrupted,
    /// A read or write transfers fewer bytes than asked for.
    Short,
    /// The disk is full.
    NoSpace,
}

/// A disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<File>,
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    /// Changes of names since the last sync of the directory.
    unsynced_names: Vec<NameChange>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    free_bytes: Option<u64>,
    moved_away: bool,
}

#[derive(Debug, Default)]
struct File {
    /// What a read returns.
    live: Vec<u8>,
    /// What has reached the disk for certain.
    durable: Vec<u8>,
    unsynced: Vec<Write>,
    /// Writes covered by a failed sync: a crash may keep or drop each of them, always.
    doubtful: Vec<Write>,
}

#[derive(Clone, Debug)]
struct Write {
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Linked(String, usize),
    Unlinked(String),
    Renamed(String, String, usize),
}

#[derive(Debug)]
struct OpenFile {
    disk: FaultyDisk,
    file: usize,
}

const SECTOR: usize = 512;

impl FaultyDisk {
    /// Makes the `n`-th operation from now, counted from 1, go wrong.
    pub(crate) fn fail(&self, n: u64, fault: Fault) {
        let mut state = self.lock();
        state.fault = Some((state.operations + n, fault));
    }

    /// No operation goes wrong from now on.
    pub(crate) fn mend(&self) {
        self.lock().fault = None;
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Sets the free space that the disk reports.
    pub(crate) fn set_free_bytes(&self, bytes: u64) {
        self.lock().free_bytes = Some(bytes);
    }

    /// Another directory takes the place of this one.
    pub(crate) fn move_away(&self) {
        self.lock().moved_away = true;
    }

    /// The content of a file, as a read returns it.
    pub(crate) fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let file = *state.live.get(name)?;
        Some(state.files[file].live.clone())
    }

    /// Creates a file durably, or removes it.
    pub(crate) fn place(&self, name: &str, content: Option<&[u8]>) {
        let mut state = self.lock();
        state.live.remove(name);
        state.durable.remove(name);
        if let Some(content) = content {
            let file = state.files.len();
            state.files.push(File {
                live: content.to_vec(),
                durable: content.to_vec(),
                ..File::default()
            });
            state.live.insert(name.to_owned(), file);
            state.durable.insert(name.to_owned(), file);
        }
    }

    /// Flips a bit of a file in place, as bit rot does, also under open handles.
    pub(crate) fn flip(&self, name: &str, offset: usize) {
        let mut state = self.lock();
        let file = state.live[name];
        state.files[file].live[offset] ^= 0x10;
        state.files[file].durable[offset] ^= 0x10;
    }

    /// Names of all files.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().live.keys().cloned().collect()
    }

    /// The disk as a power loss may leave it.
    pub(crate) fn crash(&self, seed: u64) -> Self {
        let state = self.lock();
        let mut random = StdRng::seed_from_u64(seed);
        let mut names = state.durable.clone();
        for change in &state.unsynced_names {
            if random.random_bool(0.5) {
                change.apply(&mut names);
            }
        }
        let after = Self::default();
        for (name, file) in names {
            after.place(&name, Some(&state.files[file].crashed(&mut random)));
        }
        after
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation; returns what goes wrong with it.
    fn operate(&self) -> (MutexGuard<'_, State>, Option<Fault>) {
        let mut state = self.lock();
        state.operations += 1;
        let now = state.operations;
        let fault = state.fault.and_then(|(at, fault)| match fault {
            Fault::Freezes => (now >= at).then_some(fault),
            _ => (now == at).then_some(fault),
        });
        (state, fault)
    }

    fn operate_or_fail(&self) -> io::Result<MutexGuard<'_, State>> {
        let (state, fault) = self.operate();
        match fault {
            None | Some(Fault::Short | Fault::Interrupted) => Ok(state),
            Some(Fault::NoSpace) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Fails | Fault::Freezes) => Err(broken()),
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Linked(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Unlinked(name) => {
                names.remove(name);
            }
            Self::Renamed(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl File {
    fn crashed(&self, random: &mut StdRng) -> Vec<u8> {
        let mut content = self.durable.clone();
        for write in self.doubtful.iter().chain(&self.unsynced) {
            match random.random_range(0..4) {
                0 => {}
                1 => write.apply(&mut content, 0..write.bytes.len()),
                2 => write.apply(&mut content, 0..random.random_range(0..=write.bytes.len())),
                _ => {
                    // Sectors are written whole, in any order.
                    let mut from = 0;
                    while from < write.bytes.len() {
                        let to =
                            (from + SECTOR - (write.offset + from) % SECTOR).min(write.bytes.len());
                        if random.random_bool(0.5) {
                            write.apply(&mut content, from..to);
                        }
                        from = to;
                    }
                }
            }
        }
        content
    }
}

impl Write {
    fn apply(&self, content: &mut Vec<u8>, range: std::ops::Range<usize>) {
        let end = self.offset + range.end;
        if content.len() < end {
            content.resize(end, 0);
        }
        content[self.offset + range.start..end].copy_from_slice(&self.bytes[range]);
    }
}

impl Disk for FaultyDisk {
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.operate_or_fail()?;
        if state.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        let zeros = Write {
            offset: 0,
            bytes: vec![0; usize::try_from(bytes).unwrap()],
        };
        let mut live = Vec::new();
        zeros.apply(&mut live, 0..zeros.bytes.len());
        state.files.push(File {
            live,
            unsynced: vec![zeros],
            ..File::default()
        });
        state.live.insert(name.to_owned(), file);
        state
            .unsynced_names
            .push(NameChange::Linked(name.to_owned(), file));
        drop(state);
        Ok(Box::new(OpenFile {
            disk: self.clone(),
            file,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.operate_or_fail()?;
        let file = *state.live.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(OpenFile {
            disk: self.clone(),
            file,
        }))
    }

    fn reopen(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.open(name)
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        let state = self.operate_or_fail()?;
        let listed = state.live.iter().map(|(name, &file)| Listed {
            name: name.clone(),
            bytes: state.files[file].live.len() as u64,
        });
        Ok(listed.collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.operate_or_fail()?;
        let file = state.live.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.live.insert(to.to_owned(), file);
        let change = NameChange::Renamed(from.to_owned(), to.to_owned(), file);
        state.unsynced_names.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.operate_or_fail()?;
        state.live.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state
            .unsynced_names
            .push(NameChange::Unlinked(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.operate_or_fail()?;
        let changes = std::mem::take(&mut state.unsynced_names);
        for change in changes {
            change.apply(&mut state.durable);
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.operate_or_fail()?;
        Ok(state.free_bytes.unwrap_or(u64::MAX))
    }

    // These two are not counted and never fail: the spool calls them by the clock, and a test's
    // operations must be the same in each run.
    fn find(&self, name: &str) -> io::Result<Option<FileId>> {
        let state = self.lock();
        Ok(state.live.get(name).map(|&file| id_of(file)))
    }

    fn is_in_place(&self) -> io::Result<bool> {
        Ok(!self.lock().moved_away)
    }
}

impl DiskFile for OpenFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let (mut state, fault) = self.disk.operate();
        let (bytes, result) = match fault {
            None => (bytes, Ok(bytes.len())),
            Some(Fault::Interrupted) => return Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::Freezes) => return Err(broken()),
            Some(Fault::NoSpace) => (&bytes[..0], Err(io::ErrorKind::StorageFull.into())),
            Some(Fault::Fails) => (&bytes[..bytes.len() / 2], Err(broken())),
            Some(Fault::Short) => {
                let part = bytes.len().div_ceil(3);
                (&bytes[..part], Ok(part))
            }
        };
        let write = Write {
            offset: usize::try_from(offset).unwrap(),
            bytes: bytes.to_vec(),
        };
        let file = &mut state.files[self.file];
        write.apply(&mut file.live, 0..write.bytes.len());
        file.unsynced.push(write);
        result
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let (state, fault) = self.disk.operate();
        let wanted = match fault {
            None => into.len(),
            Some(Fault::Interrupted) => return Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::Fails | Fault::Freezes | Fault::NoSpace) => return Err(broken()),
            Some(Fault::Short) => into.len().div_ceil(3),
        };
        let offset = usize::try_from(offset).unwrap();
        let there = state.files[self.file].live.get(offset..).unwrap_or(&[]);
        let read = wanted.min(there.len());
        into[..read].copy_from_slice(&there[..read]);
        Ok(read)
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(id_of(self.file))
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, fault) = self.disk.operate();
        let file = &mut state.files[self.file];
        let writes = std::mem::take(&mut file.unsynced);
        match fault {
            None | Some(Fault::Short | Fault::Interrupted) => {
                for write in writes {
                    write.apply(&mut file.durable, 0..write.bytes.len());
                }
                Ok(())
            }
            Some(Fault::Freezes) => {
                file.unsynced = writes;
                Err(broken())
            }
            Some(Fault::Fails | Fault::NoSpace) => {
                file.doubtful.extend(writes);
                Err(broken())
            }
        }
    }
}

fn id_of(file: usize) -> FileId {
    FileId {
        device: 0,
        number: file as u64,
    }
}

fn broken() -> io::Error {
    io::Error::other("the disk is broken")
}
