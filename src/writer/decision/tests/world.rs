//! Several copies of a spool and the processes that run on them. These do what `lane` and `opening` do, with
//! the same pure functions.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::*;
use super::database::{Database, Entry, Event, Pending, Row};
use crate::log::spool::format::STREAMS_MAX;
use crate::log::spool::recover::openings::History;

/// Directories with copies of one spool.
const DIRECTORIES: usize = 3;
const STREAM: u8 = 0;

/// A spool directory.
#[derive(Clone, Debug)]
struct Directory {
    history: History,
    frames: Vec<(u64, Event)>,
    next: u64,
    accepted: u64,
}

/// A process with an open directory.
#[derive(Clone, Debug)]
struct Life {
    me: Option<Opening>,
    /// Items that were no longer in the directory when it was opened.
    passed: u64,
    /// Records up to here are committed or were skipped.
    done: u64,
    connected: bool,
    seen: u64,
    /// The last record of the current batch.
    batch: Option<u64>,
    sent: bool,
    fenced: bool,
}

#[derive(Debug)]
pub(super) struct World {
    random: StdRng,
    database: Database,
    backup: Option<Database>,
    pending: Vec<Pending>,
    directories: [Option<Directory>; DIRECTORIES],
    saved: Option<(usize, Directory)>,
    lives: [Option<Life>; DIRECTORIES],
    events: Event,
    durable: BTreeSet<Event>,
    /// Events that an operator deleted, or that a restored database lost.
    exempt: BTreeSet<Event>,
    database_restored: bool,
    /// A directory was copied between its start and the take-over. If the copy takes over first,
    /// the original's counts become the copy's: its totals may then be short, though nothing is
    /// lost.
    copied_early: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            database: Database::default(),
            backup: None,
            pending: Vec::new(),
            directories: [const { None }; DIRECTORIES],
            saved: None,
            lives: [const { None }; DIRECTORIES],
            events: 0,
            durable: BTreeSet::new(),
            exempt: BTreeSet::new(),
            database_restored: false,
            copied_early: false,
        };
        world.directories[0] = Some(Directory {
            history: History::unrecorded(Uuid::new_v4(), false),
            frames: Vec::new(),
            next: 1,
            accepted: 0,
        });
        world.start(0);
        world
    }

    fn chance(&mut self, of: u32) -> bool {
        self.random.random_range(0..of) == 0
    }

    pub(super) fn step(&mut self) {
        let at = self.random.random_range(0..DIRECTORIES);
        match self.random.random_range(0..100) {
            0..30 => self.post(at),
            30..65 => self.work(at),
            65..72 => self.break_off(at),
            72..78 => self.lives[at] = None,
            78..86 => self.start(at),
            86..91 => self.copy(at),
            91..93 => self.save_or_restore(at),
            93..95 => self.fork(at),
            95..97 => self.resolve(None),
            97..98 if self.backup.is_none() => self.backup = Some(self.database.clone()),
            97..98 => self.restore_database(),
            _ => {
                for _ in 0..4 {
                    self.work(at);
                }
            }
        }
    }

    fn post(&mut self, at: usize) {
        let serves = self.lives[at].as_ref().is_some_and(|life| !life.fenced);
        if !serves {
            return;
        }
        // Sometimes a sender posts an event again, to any process.
        let event = match self.events > 0 && self.chance(6) {
            true => self.random.random_range(0..self.events),
            false => {
                self.events += 1;
                self.events - 1
            }
        };
        let directory = self.directories[at].as_mut().expect("it is open");
        directory.frames.push((directory.next, event));
        directory.next += 1;
        directory.accepted += 1;
        self.durable.insert(event);
        // An event that was lost and is sent again is durable again.
        self.exempt.remove(&event);
    }

    fn start(&mut self, at: usize) {
        let Some(directory) = self.directories[at].as_mut() else {
            return;
        };
        if self.lives[at].is_some() {
            return;
        }
        let oldest = directory.frames.first().map(|&(sequence, _)| sequence);
        let mut accepted = [0; STREAMS_MAX];
        accepted[usize::from(STREAM)] = directory.accepted;
        directory.next = directory.history.begin(directory.next, accepted, oldest);
        self.lives[at] = Some(Life {
            me: None,
            passed: directory.accepted - directory.frames.len() as u64,
            done: 0,
            connected: false,
            seen: 0,
            batch: None,
            sent: false,
            fenced: false,
        });
    }

    fn break_off(&mut self, at: usize) {
        if let Some(life) = &mut self.lives[at] {
            life.connected = false;
        }
    }

    /// Copies a directory, whether or not a process has it open.
    fn copy(&mut self, from: usize) {
        let to = (from + 1) % DIRECTORIES;
        if self.directories[to].is_none() {
            self.note_early_copy(from);
            self.directories[to] = self.directories[from].clone();
        }
    }

    fn note_early_copy(&mut self, at: usize) {
        let life = self.lives[at].as_ref();
        self.copied_early |= life.is_some_and(|life| life.me.is_none());
    }

    /// Saves a directory, or ends its process and restores the saved copy.
    fn save_or_restore(&mut self, at: usize) {
        match self.saved.take() {
            None => {
                self.note_early_copy(at);
                self.saved = self.directories[at].clone().map(|saved| (at, saved));
            }
            Some((at, saved)) => {
                self.lives[at] = None;
                let replaced = self.directories[at].replace(saved);
                let frames = replaced.map(|replaced| replaced.frames).unwrap_or_default();
                self.exempt.extend(frames.iter().map(|&(_, event)| event));
            }
        }
    }

    fn fork(&mut self, at: usize) {
        if self.lives[at].is_none()
            && let Some(directory) = &mut self.directories[at]
        {
            let mut inherited = [0; STREAMS_MAX];
            inherited[usize::from(STREAM)] = directory.accepted - directory.frames.len() as u64;
            directory.history = directory.history.clone().fork(inherited);
        }
    }

    fn restore_database(&mut self) {
        let Some(backup) = self.backup.take() else {
            return;
        };
        self.pending.clear();
        let lost: Vec<_> = self
            .database
            .table
            .difference(&backup.table)
            .copied()
            .collect();
        self.exempt.extend(lost);
        self.database = backup;
        self.database_restored = true;
        for life in self.lives.iter_mut().flatten() {
            life.connected = false;
        }
    }

    /// Each open COMMIT takes effect or its transaction aborts: all of them, or those of `lineage`.
    fn resolve(&mut self, lineage: Option<Uuid>) {
        let wanted = |pending: &Pending| lineage.is_none_or(|lineage| pending.lineage == lineage);
        while let Some(at) = self.pending.iter().position(wanted) {
            let Pending { lineage, entry } = self.pending.remove(at);
            if self.chance(2) {
                self.database.commit(lineage, entry);
            }
        }
    }

    /// One step of a lane.
    fn work(&mut self, at: usize) {
        let Some(life) = self.lives[at].clone().filter(|life| !life.fenced) else {
            return;
        };
        if !life.connected {
            self.connect(at);
            return;
        }
        let directory = self.directories[at].as_ref().expect("it is open");
        let lineage = directory.history.lineage();
        let waiting: Vec<_> = directory
            .frames
            .iter()
            .copied()
            .filter(|&(sequence, _)| sequence > life.done)
            .collect();
        let last = life.batch.or_else(|| {
            let frames = self.random.random_range(1..4).min(waiting.len());
            waiting[..frames].last().map(|&(sequence, _)| sequence)
        });
        let Some(last) = last else { return };
        let batch = waiting.iter().filter(|&&(sequence, _)| sequence <= last);
        let batch: Vec<Event> = batch.map(|&(_, event)| event).collect();
        // The COPY waits for every open transaction with equal keys, whichever its stream.
        self.resolve(None);
        let mut fresh: Vec<Event> = Vec::new();
        for &event in &batch {
            if !self.database.table.contains(&event) && !fresh.contains(&event) {
                fresh.push(event);
            }
        }
        let entry = Entry {
            duplicates: (batch.len() - fresh.len()) as i64,
            fresh,
            last,
        };
        let me = life.me.expect("it is connected");
        let row = self.database.rows.get(&lineage);
        let entered = row
            .is_some_and(|row| row.mark.opening == Some(me.id) && row.mark.watermark == life.seen);
        let fate = self.random.random_range(0..10);
        let life = self.lives[at].as_mut().expect("it was there");
        life.batch = Some(last);
        if !entered || fate == 0 {
            // Refused, or disconnected before the COMMIT.
            life.connected = false;
            return;
        }
        life.sent = true;
        match fate {
            // The COMMIT never arrived.
            1 => life.connected = false,
            // The answer was lost.
            2 | 3 => {
                life.connected = false;
                self.database.commit(lineage, entry);
            }
            // The COMMIT is still under way when the connection breaks.
            4 => {
                life.connected = false;
                self.pending.push(Pending { lineage, entry });
            }
            _ => {
                life.seen = last;
                self.database.commit(lineage, entry);
                self.committed(at, &batch, last);
            }
        }
    }

    fn connect(&mut self, at: usize) {
        if self.lives[at]
            .as_ref()
            .is_some_and(|life| life.me.is_none())
        {
            let found = self.take_over(at);
            let life = self.lives[at].as_mut().expect("it was there");
            life.done = found.watermark;
        }
        loop {
            let directory = self.directories[at].as_ref().expect("it is open");
            let lineage = directory.history.lineage();
            let life = self.lives[at].as_mut().expect("it was there");
            let me = life.me.expect("it has taken over");
            let row = self.database.rows.get(&lineage).map(|row| row.mark);
            let last = life.batch.unwrap_or(u64::MAX);
            match decide(row, me, last, life.sent) {
                Decision::Store { seen } => {
                    (life.seen, life.connected) = (seen, true);
                    return;
                }
                Decision::Committed => {
                    (life.seen, life.connected) = (last, true);
                    let done = life.done;
                    let frames = directory.frames.iter();
                    let batch: Vec<_> = frames
                        .filter(|&&(sequence, _)| sequence > done && sequence <= last)
                        .map(|&(_, event)| event)
                        .collect();
                    self.committed(at, &batch, last);
                    return;
                }
                Decision::TakeOver => drop(self.take_over(at)),
                Decision::Fenced => {
                    life.fenced = true;
                    return;
                }
            }
        }
    }

    fn take_over(&mut self, at: usize) -> TakenOver {
        let directory = self.directories[at].as_ref().expect("it is open");
        let lineage = directory.history.lineage();
        self.resolve(Some(lineage));
        let directory = self.directories[at].as_ref().expect("it is open");
        let history = &directory.history;
        let life = self.lives[at].as_mut().expect("it was there");
        let again = life.me.is_some();
        let epoch = self.database.epochs.entry(lineage).or_default();
        *epoch = life.me.map_or(0, |me| me.epoch).max(*epoch) + 1;
        let me = Opening {
            id: history.opening(),
            epoch: *epoch,
        };
        let row = self.database.rows.entry(lineage).or_insert_with(|| Row {
            mark: Mark {
                watermark: 0,
                opening: None,
                epoch: 0,
            },
            stored: 0,
            duplicates: 0,
            inherited: history.inherited(STREAM) as i64,
        });
        let proof = history.proof(STREAM.into(), row.mark.opening, row.mark.watermark);
        let taken = take_over(row.mark.watermark, proof, life.passed);
        row.mark = Mark {
            watermark: taken.watermark,
            opening: Some(me.id),
            epoch: me.epoch,
        };
        if let Some(passed) = taken.passed.filter(|_| !again) {
            let rows = row.stored + row.duplicates;
            row.inherited = (history.inherited(STREAM) as i64).min(passed as i64 - rows);
        }
        life.me = Some(me);
        taken
    }

    /// Acknowledges a batch.
    fn committed(&mut self, at: usize, batch: &[Event], last: u64) {
        for event in batch {
            assert!(
                self.database.table.contains(event),
                "event {event} was said to be committed, and is not there"
            );
        }
        let life = self.lives[at].as_mut().expect("it was there");
        (life.done, life.batch, life.sent) = (last, None, false);
        // A segment is deleted some time after its records are acknowledged.
        if self.chance(2) {
            let directory = self.directories[at].as_mut().expect("it is open");
            directory.frames.retain(|&(sequence, _)| sequence > last);
        }
    }

    /// Whether a process has stored all its records.
    fn is_done(&self, at: usize) -> bool {
        let (Some(life), Some(directory)) = (&self.lives[at], &self.directories[at]) else {
            return true;
        };
        let last = directory.frames.last().map_or(0, |&(sequence, _)| sequence);
        life.fenced || (life.me.is_some() && last <= life.done)
    }

    /// Opens each directory in turn and lets it finish.
    pub(super) fn end(&mut self) {
        self.lives = [const { None }; DIRECTORIES];
        for at in 0..DIRECTORIES {
            if self.directories[at].is_none() {
                continue;
            }
            self.start(at);
            for _ in 0..2000 {
                if self.is_done(at) {
                    break;
                }
                self.work(at);
            }
            let directory = self.directories[at].as_ref().expect("it is open");
            let life = self.lives[at].take().expect("it was started");
            assert!(!life.fenced, "the latest opening was fenced off");
            let left = directory
                .frames
                .iter()
                .filter(|&&(sequence, _)| sequence > life.done);
            assert_eq!(left.count(), 0, "frames are not stored");
            let row = self.database.rows[&directory.history.lineage()];
            if !self.database_restored && !self.copied_early {
                assert_eq!(
                    row.decided(),
                    directory.accepted as i64,
                    "the accounts do not balance: {row:?}"
                );
            }
            self.resolve(None);
        }
        let missing: Vec<_> = self
            .durable
            .iter()
            .filter(|event| !self.database.table.contains(event) && !self.exempt.contains(event))
            .collect();
        assert!(missing.is_empty(), "lost: {missing:?}");
        let stored: i64 = self.database.rows.values().map(|row| row.stored).sum();
        assert_eq!(
            stored,
            self.database.table.len() as i64,
            "rows as the ledger says"
        );
    }
}
