//! The ledger's rows: how far each stream has come, and who may move it on.

use std::fmt;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Transaction};
use uuid::Uuid;

use crate::event::table::Table;

/// Of one stream, or of all. Cheap: an idle lane can ask every other second
/// whether it is still the holder; see [`Stream::read`] and [`super::decision::decide`].
const READ: &str = "
    SELECT mine.settled, mine.stored, mine.duplicates, mine.quarantined, mine.dropped,
           mine.inherited, mine.opening, mine.epoch, holder.host, holder.pid, holder.directory,
           to_char(holder.since AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
           mine.stream
      FROM ingest_ledger AS mine
      LEFT JOIN ingest_holders AS holder USING (instance_id, lineage)
     WHERE mine.instance_id = $1 AND mine.lineage = $2 AND mine.stream = coalesce($3, mine.stream)
     ORDER BY mine.stream";

/// A stream of this spool, and the table that it goes into.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// The spool's id.
    pub instance: Uuid,
    /// Which of the spools with this id; see [`crate::spool::History::lineage`].
    pub lineage: Uuid,
    /// The stream's number in the spool.
    pub number: u8,
    /// The table.
    pub table: Table,
}

impl Stream {
    /// How far the stream has come, as of the last COMMIT, and who holds it.
    pub(crate) async fn read(&self, client: &Client) -> Result<Option<LedgerRow>, Error> {
        let number = i16::from(self.number);
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.instance, &self.lineage, &Some(number)];
        let row = client.query_opt(READ, &parameters).await?;
        Ok(row.as_ref().map(LedgerRow::of_row))
    }
}

/// What the ledger says of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The last frame that is settled; all before it are too.
    pub settled: u64,
    /// Rows that were new.
    pub stored: u64,
    /// Rows that were there already.
    pub duplicates: u64,
    /// Rows that were set aside.
    pub quarantined: u64,
    /// Rows that an operator threw away.
    pub dropped: u64,
    /// Accepted rows that another lineage accounts for; below zero: rows of
    /// other copies of the spool that are in this account.
    pub inherited: i64,
}

impl Totals {
    pub(crate) fn of_row(row: &Row) -> Self {
        Self {
            settled: count(row, 0),
            stored: count(row, 1),
            duplicates: count(row, 2),
            quarantined: count(row, 3),
            dropped: count(row, 4),
            inherited: row.get(5),
        }
    }

    /// Accepted rows that are no longer in the spool, as this account has it.
    pub fn decided(&self) -> i128 {
        let counted = [self.stored, self.duplicates, self.quarantined, self.dropped];
        i128::from(self.inherited) + counted.iter().copied().map(i128::from).sum::<i128>()
    }

    /// The same as a count.
    pub fn decided_items(&self) -> u64 {
        u64::try_from(self.decided().max(0)).unwrap_or(u64::MAX)
    }

    /// Of so many accepted rows, those that are still in the spool.
    pub fn spooled(&self, accepted: u64) -> u64 {
        let spooled = i128::from(accepted) - self.decided();
        u64::try_from(spooled.max(0)).unwrap_or(u64::MAX)
    }
}

/// A process that had, or has, a spool open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its machine.
    pub host: String,
    /// Its process.
    pub pid: i64,
    /// Its spool directory.
    pub directory: String,
    /// Since when it holds the ledger's rows, in UTC.
    pub since: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            pid,
            directory,
            since,
        } = self;
        write!(
            f,
            "process {pid} on {host} with the spool directory {directory} (since {since})"
        )
    }
}

/// A stream's row in the ledger.
#[derive(Clone, Debug)]
pub(crate) struct LedgerRow {
    pub(crate) totals: Totals,
    pub(crate) mark: Mark,
    /// Who may move it on; unknown for a row from before openings were recorded.
    pub(crate) holder: Option<Holder>,
}

impl LedgerRow {
    fn of_row(row: &Row) -> Self {
        let totals = Totals::of_row(row);
        let holder = row.get::<_, Option<String>>(8).map(|host| Holder {
            host,
            pid: row.get(9),
            directory: row.get(10),
            since: row.get(11),
        });
        Self {
            totals,
            mark: Mark {
                settled: totals.settled,
                opening: row.get(6),
                epoch: count(row, 7),
            },
            holder,
        }
    }
}

/// The rows of all streams of a spool, with their numbers.
pub(crate) async fn read_all(
    client: &Transaction<'_>,
    instance: Uuid,
    lineage: Uuid,
) -> Result<Vec<(i16, LedgerRow)>, Error> {
    let rows = client
        .query(READ, &[&instance, &lineage, &None::<i16>])
        .await?;
    Ok(rows
        .iter()
        .map(|row| (row.get(12), LedgerRow::of_row(row)))
        .collect())
}

pub(crate) fn count(row: &Row, at: usize) -> u64 {
    u64::try_from(row.get::<_, i64>(at)).unwrap_or(0)
}

/// A stream's row in the ledger, as far as it decides anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// All frames up to here are settled, in the directory of the opening.
    pub(crate) settled: u64,
    /// Who may move it; none: a row that no opening has taken over yet.
    pub(crate) opening: Option<Uuid>,
    /// Raised with each opening.
    pub(crate) epoch: u64,
}
