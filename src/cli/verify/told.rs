//! What `verify` has compared, as lines for people and as JSON.

use serde_json::{Value, json};

use super::looked::{Looked, Stream};
use crate::accounts::removed;
use crate::accounts::verify::TableCheck;
use crate::admission::record::{shard_of, table_of};

/// All that was compared.
pub(super) struct Told<'l> {
    pub(super) looked: &'l Looked,
    pub(super) tables: &'l [TableCheck],
    /// How many differences were booked, and why, if any were.
    pub(super) booked: Option<(usize, &'l str)>,
}

impl Told<'_> {
    /// Files of the spool that cannot be read.
    pub(super) fn unreadable(&self) -> usize {
        self.looked.unreadable.len()
    }

    /// Lanes whose ledger row another directory holds.
    pub(super) fn fenced_off(&self) -> usize {
        let lanes = self.looked.streams.iter();
        lanes.filter(|lane| lane.fenced_off_by.is_some()).count()
    }

    /// Lanes and tables that differ, and files that cannot be read.
    pub(super) fn differences(&self) -> usize {
        let lanes = self.looked.streams.iter();
        let lanes = lanes.filter(|lane| lane.fenced_off_by.is_none() && !lane.balances());
        let tables = self.tables.iter().filter(|check| check.missing() != 0);
        self.unreadable() + lanes.count() + tables.count()
    }

    /// Whether the accounts hold, if only from now on.
    pub(super) fn holds(&self) -> bool {
        let is_settled = self.differences() == 0 || self.booked.is_some();
        self.fenced_off() == 0 && self.unreadable() == 0 && is_settled
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for file in &self.looked.unreadable {
            lines.push(format!(
                "{}: CANNOT BE READ, {}; its rows are missing below",
                file.name, file.reason
            ));
        }
        lines.extend(self.looked.streams.iter().map(lane_line));
        lines.extend(self.tables.iter().map(table_line));
        lines
    }

    pub(super) fn document(&self) -> Value {
        let unreadable = self.looked.unreadable.iter();
        let unreadable: Vec<Value> = unreadable
            .map(|file| json!({"file": file.name, "reason": file.reason.to_string()}))
            .collect();
        let lanes: Vec<Value> = self.looked.streams.iter().map(lane_document).collect();
        let tables: Vec<Value> = self.tables.iter().map(table_document).collect();
        json!({
            "holds": self.holds(),
            "differences": self.differences(),
            "booked": self.booked.map(|(count, reason)| json!({"differences": count, "reason": reason})),
            "unreadable": unreadable,
            "lanes": lanes,
            "tables": tables,
        })
    }
}

/// A comparison; `missing` says where rows are that are too few.
fn compared(what: &str, found: i128, expected: i128, missing: &str) -> String {
    let outcome = match found - expected {
        0 => "ok".to_owned(),
        difference if difference < 0 && !missing.is_empty() => {
            format!("DIFFERS by {difference}: {} {missing}", -difference)
        }
        difference => format!("DIFFERS by {difference}"),
    };
    format!("{what}: {found} of {expected}, {outcome}")
}

fn lane_line(stream: &Stream) -> String {
    let Stream {
        account, totals, ..
    } = stream;
    let table = table_of(account.number);
    let lane = format!("{table} lane {}", shard_of(account.number));
    if let Some(other) = &stream.fenced_off_by {
        return format!(
            "{lane}: FENCED OFF by {other}, so its account is not this directory's; \
             accepted {}, of which up to {} may be in this directory only",
            account.accepted, account.unacked
        );
    }
    let inherited = match totals.inherited {
        0 => String::new(),
        rows => format!("inherited {rows} + "),
    };
    let dropped = match totals.dropped {
        0 => String::new(),
        rows => format!("accepted as lost {rows} + "),
    };
    compared(
        &format!(
            "{lane}: {inherited}stored {} + duplicates {} + quarantined {} + {dropped}spooled {} = accepted",
            totals.stored, totals.duplicates, totals.quarantined, account.unacked
        ),
        stream.found(),
        i128::from(account.accepted),
        "lost from the spool, or from a database that is an older copy",
    )
}

/// The members of a fenced-off lane are of two directories, so that they give no difference.
fn lane_document(stream: &Stream) -> Value {
    let Stream {
        account, totals, ..
    } = stream;
    let difference = i64::try_from(stream.surplus()).ok();
    json!({
        "table": table_of(account.number).as_str(),
        "lane": shard_of(account.number),
        "accepted": account.accepted,
        "inherited": totals.inherited,
        "stored": totals.stored,
        "duplicates": totals.duplicates,
        "quarantined": totals.quarantined,
        "accepted_as_lost": totals.dropped,
        "spooled": account.unacked,
        "difference": difference.filter(|_| stream.fenced_off_by.is_none()),
        "fenced_off_by": stream.fenced_off_by,
    })
}

fn table_line(check: &TableCheck) -> String {
    let removed = match check.removed {
        0 => String::new(),
        rows if rows < 0 => format!(" - {} accepted as too many", -rows),
        rows => format!(" + {rows} removed on purpose"),
    };
    let what = match check.table == removed::QUARANTINE {
        true => format!("{}: rows{removed}, as the ledger says", check.table),
        false => format!(
            "{}: rows in the table{removed}, as all instances stored",
            check.table
        ),
    };
    let found = i128::from(check.counted) + i128::from(check.removed);
    compared(&what, found, check.stored.into(), "")
}

/// `expected` is what the ledger says was stored, or set aside.
fn table_document(check: &TableCheck) -> Value {
    json!({
        "table": check.table,
        "rows": check.counted,
        "removed": check.removed,
        "expected": check.stored,
        "difference": -check.missing(),
    })
}
