//! The database of a history: a few rows, with the one lock that matters.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::super::Mark;

pub(super) type Event = u32;

/// A ledger row with its counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) mark: Mark,
    pub(super) stored: i64,
    pub(super) duplicates: i64,
    pub(super) inherited: i64,
}

/// The state of the database.
#[derive(Clone, Debug, Default)]
pub(super) struct Database {
    pub(super) table: BTreeSet<Event>,
    pub(super) rows: BTreeMap<Uuid, Row>,
    pub(super) epochs: BTreeMap<Uuid, u64>,
}

/// A transaction with a COMMIT that has no answer yet. It holds the row.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) lineage: Uuid,
    pub(super) entry: Entry,
}

/// The writes of a transaction.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) fresh: Vec<Event>,
    pub(super) duplicates: i64,
    pub(super) last: u64,
}

impl Row {
    pub(super) fn decided(&self) -> i64 {
        self.inherited + self.stored + self.duplicates
    }
}

impl Database {
    pub(super) fn commit(&mut self, lineage: Uuid, entry: Entry) {
        let row = self.rows.get_mut(&lineage).expect("it was entered into");
        row.stored += entry.fresh.len() as i64;
        row.duplicates += entry.duplicates;
        row.mark.watermark = entry.last;
        for event in entry.fresh {
            assert!(self.table.insert(event), "event {event} is stored twice");
        }
    }
}
