//! What became of every accepted row, kept in the transaction that decides it.
//!
//! One row of `ingest_ledger` for each stream of each instance says how far the
//! stream is settled. So a batch is settled exactly when the ledger says so:
//! after a crash the settled part of the spool is passed over, and after a lost
//! answer to COMMIT there is someone to ask.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};
use uuid::Uuid;

use crate::event::Table;

use super::batch::{Batch, Settled};

/// Nothing is entered twice: a second entry for the same stretch changes no row.
const ENTER: &str = "
    INSERT INTO ingest_ledger AS mine
        (instance_id, stream, table_name, settled, stored, duplicates, quarantined)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (instance_id, stream) DO UPDATE
       SET settled = excluded.settled,
           stored = mine.stored + excluded.stored,
           duplicates = mine.duplicates + excluded.duplicates,
           quarantined = mine.quarantined + excluded.quarantined,
           updated_at = now()
     WHERE mine.settled < excluded.settled
 RETURNING settled, stored, duplicates, quarantined, dropped";

const READ: &str = "
    SELECT settled, stored, duplicates, quarantined, dropped
      FROM ingest_ledger
     WHERE instance_id = $1 AND stream = $2";

/// A stream of this instance's spool, and the table that it goes into.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// The instance that owns the spool.
    pub instance: Uuid,
    /// The stream's number in the spool.
    pub number: u8,
    /// The table.
    pub table: Table,
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
}

/// What one batch adds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'s> {
    stream: &'s Stream,
    settled: i64,
    stored: i64,
    duplicates: i64,
    quarantined: i64,
}

impl Stream {
    /// What a settled batch adds to the stream's row.
    pub(super) fn enter(&self, batch: &Batch, settled: &Settled) -> Entry<'_> {
        let count = |n: usize| i64::try_from(n).expect("a batch is far smaller than 2^63 rows");
        let (duplicates, quarantined) = settled.counts();
        Entry {
            stream: self,
            settled: i64::try_from(batch.last_sequence()).unwrap_or(i64::MAX),
            stored: count(batch.len() - duplicates - quarantined),
            duplicates: count(duplicates),
            quarantined: count(quarantined),
        }
    }

    /// How far the stream has come, as of the last COMMIT.
    pub(super) async fn read(&self, client: &Client) -> Result<Totals, Error> {
        let number = i16::from(self.number);
        let row = client.query_opt(READ, &[&self.instance, &number]).await?;
        Ok(row.as_ref().map(Totals::of_row).unwrap_or_default())
    }
}

impl Totals {
    pub(super) fn of_row(row: &Row) -> Self {
        let count = |at| u64::try_from(row.get::<_, i64>(at)).unwrap_or(0);
        Self {
            settled: count(0),
            stored: count(1),
            duplicates: count(2),
            quarantined: count(3),
            dropped: count(4),
        }
    }

    /// Rows whose fate is decided.
    pub fn rows(&self) -> u64 {
        [self.duplicates, self.quarantined, self.dropped]
            .into_iter()
            .fold(self.stored, u64::saturating_add)
    }
}

impl Entry<'_> {
    pub(super) async fn prepare(client: &Client) -> Result<Statement, Error> {
        client.prepare(ENTER).await
    }

    /// Enters the batch; `None` if the stretch is settled already.
    pub(super) async fn write(
        &self,
        client: &Client,
        statement: &Statement,
    ) -> Result<Option<Totals>, Error> {
        let number = i16::from(self.stream.number);
        let table = self.stream.table.as_str();
        let parameters: [&(dyn ToSql + Sync); 7] = [
            &self.stream.instance, &number, &table, &self.settled, &self.stored, &self.duplicates,
            &self.quarantined,
        ];
        let row = client.query_opt(statement, &parameters).await?;
        Ok(row.as_ref().map(Totals::of_row))
    }
}
