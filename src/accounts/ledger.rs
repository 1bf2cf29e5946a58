//! The ledger rows: each stream's watermark and counts, and the opening that may advance it.

use std::fmt;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Transaction};
use uuid::Uuid;

use crate::event::table::Table;
use crate::postgres::advisory_lock;

/// For one stream, or for all. Cheap, so an idle lane can ask every other second whether it still
/// holds its row; see [`Stream::read`] and `writer::decision`.
const READ: &str = "
    SELECT mine.settled, mine.stored, mine.duplicates, mine.quarantined, mine.dropped,
           mine.inherited, mine.opening, mine.epoch, holder.host, holder.pid, holder.directory,
           to_char(holder.since AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
           mine.stream, mine.erasures
      FROM ingest_ledger AS mine
      LEFT JOIN ingest_holders AS holder USING (instance_id, lineage)
     WHERE mine.instance_id = $1 AND mine.lineage = $2 AND mine.stream = coalesce($3, mine.stream)
     ORDER BY mine.stream";

/// The end of an INSERT into the ledger `AS entry`, for a row that may be there: adds to its counts.
pub(crate) const ADD: &str = "
     ON CONFLICT (instance_id, lineage, stream) DO UPDATE
    SET stored = entry.stored + excluded.stored,
        duplicates = entry.duplicates + excluded.duplicates,
        quarantined = entry.quarantined + excluded.quarantined,
        dropped = entry.dropped + excluded.dropped,
        updated_at = now()";

/// A stream of a log, and the table of its rows.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// The log's id.
    pub log: Uuid,
    /// Which of the logs with this id; see `log::spool::recover::openings`.
    pub lineage: Uuid,
    /// The stream's number in the log, at most [`STREAM_MAX`].
    pub number: u16,
    /// Its number among the streams of its table, from 0.
    pub shard: u16,
    pub table: Table,
}

/// The highest number of a stream: the ledger's column is a `smallint`, and stays one so that an
/// older version can work beside this one.
pub const STREAM_MAX: u16 = i16::MAX.cast_unsigned();

impl Stream {
    /// The stream's number in the ledger's type.
    pub(crate) fn column(&self) -> i16 {
        column(self.number)
    }

    /// The stream's ledger row as of the last COMMIT.
    pub(crate) async fn read(&self, client: &Client) -> Result<Option<LedgerRow>, Error> {
        let number = self.column();
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.log, &self.lineage, &Some(number)];
        let row = client.query_opt(READ, &parameters).await?;
        Ok(row.as_ref().map(LedgerRow::of_row))
    }
}

/// The number of a stream in the ledger's type.
pub(crate) fn column(number: u16) -> i16 {
    i16::try_from(number).expect("numbers of streams are checked when a log is opened")
}

/// A stream's watermark and counts in the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The watermark: all records up to this sequence are committed.
    pub watermark: u64,
    /// Rows that were stored.
    pub stored: u64,
    /// Rows that were already stored.
    pub duplicates: u64,
    /// Rows that were quarantined.
    pub quarantined: u64,
    /// Rows that an operator accepted as lost, or, before that was booked in `ingest_removed_rows`,
    /// discarded from quarantine.
    pub dropped: u64,
    /// Accepted rows that another lineage counts. Negative: rows of other copies of the spool that
    /// this row counts.
    pub inherited: i64,
}

impl Totals {
    pub(crate) fn of_row(row: &Row) -> Self {
        Self {
            watermark: count(row, 0),
            stored: count(row, 1),
            duplicates: count(row, 2),
            quarantined: count(row, 3),
            dropped: count(row, 4),
            inherited: row.get(5),
        }
    }

    /// Accepted rows that are no longer in the spool, according to this row.
    pub fn decided(&self) -> i128 {
        let counted = [self.stored, self.duplicates, self.quarantined, self.dropped];
        i128::from(self.inherited) + counted.iter().copied().map(i128::from).sum::<i128>()
    }

    /// [`decided`](Self::decided) as a count.
    pub fn decided_items(&self) -> u64 {
        u64::try_from(self.decided().max(0)).unwrap_or(u64::MAX)
    }

    /// Of `accepted` rows, the number that is still in the spool.
    pub fn spooled(&self, accepted: u64) -> u64 {
        let spooled = i128::from(accepted) - self.decided();
        u64::try_from(spooled.max(0)).unwrap_or(u64::MAX)
    }
}

/// A process that has, or had, a spool open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub host: String,
    pub pid: i64,
    pub directory: String,
    /// When it took over the ledger rows, in UTC.
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
    /// The process that may advance the row; `None` for a row from before openings were recorded.
    pub(crate) holder: Option<Holder>,
    /// The number of erasures that the row was told of.
    pub(crate) erasures: i64,
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
                watermark: totals.watermark,
                opening: row.get(6),
                epoch: count(row, 7),
            },
            holder,
            erasures: row.get(13),
        }
    }
}

/// The key of the advisory lock that each lane of a spool shares, as long as it is connected: no process
/// adds up the accounts of a spool that is in use.
pub(crate) fn spool_lock(spool: Uuid, lineage: Uuid) -> i64 {
    // The halves without the time that an id may begin with.
    let (_, spool) = spool.as_u64_pair();
    let (_, lineage) = lineage.as_u64_pair();
    i64::from_be_bytes((spool ^ lineage ^ u64::from_be_bytes(*b"ingestSP")).to_be_bytes())
}

/// A session that is connected as a lane of the spool, if there is one.
///
/// # Errors
///
/// When the connection is lost.
pub async fn connected_for(
    client: &Client,
    spool: Uuid,
    lineage: Uuid,
) -> Result<Option<advisory_lock::Holder>, Error> {
    advisory_lock::holder(client, spool_lock(spool, lineage)).await
}

/// The ledger rows of all streams of a spool, with their numbers.
pub(crate) async fn read_all(
    client: &Transaction<'_>,
    spool_id: Uuid,
    lineage: Uuid,
) -> Result<Vec<(i16, LedgerRow)>, Error> {
    let rows = client
        .query(READ, &[&spool_id, &lineage, &None::<i16>])
        .await?;
    Ok(rows
        .iter()
        .map(|row| (row.get(12), LedgerRow::of_row(row)))
        .collect())
}

pub(crate) fn count(row: &Row, at: usize) -> u64 {
    u64::try_from(row.get::<_, i64>(at)).unwrap_or(0)
}

/// The part of a stream's ledger row that decides whether a batch may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The watermark, in the sequences of the opening's directory.
    pub(crate) watermark: u64,
    /// The opening that may advance it; `None` for a row that no opening has taken over.
    pub(crate) opening: Option<Uuid>,
    /// Rises with each take-over.
    pub(crate) epoch: u64,
}
