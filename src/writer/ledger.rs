//! What became of every accepted row, kept in the transaction that decides it.
//!
//! One row of `ingest_ledger` for each stream of each spool says how far the
//! stream is settled, and which opening of the spool may move it on. So a batch
//! is settled exactly when the ledger says so: after a crash the settled part of
//! the spool is passed over, and after a lost answer to COMMIT there is someone
//! to ask. What its answer means is decided in [`super::decision`].

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use crate::accounts::ledger::Stream;
use crate::accounts::ledger::Totals;

use super::batch::{Batch, BatchResult};

/// Changes no row unless the row still is as this opening left it. May set the
/// watermark back: after a restored backup, or in a restored older directory.
const ENTER: &str = "
    UPDATE ingest_ledger
       SET settled = $6,
           stored = stored + $7,
           duplicates = duplicates + $8,
           quarantined = quarantined + $9,
           updated_at = now()
     WHERE instance_id = $1 AND lineage = $2 AND stream = $3 AND opening = $4 AND settled = $5
 RETURNING settled, stored, duplicates, quarantined, dropped, inherited";

/// On what condition a batch is entered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// The opening that enters it.
    pub(crate) opening: Uuid,
    /// The watermark as it was last seen.
    pub(crate) seen: u64,
}

/// What one batch adds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LedgerEntry<'s> {
    stream: &'s Stream,
    claim: Claim,
    settled: i64,
    stored: i64,
    duplicates: i64,
    quarantined: i64,
}

impl Stream {
    /// What a settled batch adds to the stream's row.
    pub(crate) fn enter(
        &self,
        claim: Claim,
        batch: &Batch,
        settled: &BatchResult,
    ) -> LedgerEntry<'_> {
        let count = |n: usize| i64::try_from(n).expect("a batch is far smaller than 2^63 rows");
        let (duplicates, quarantined) = settled.counts();
        LedgerEntry {
            stream: self,
            claim,
            settled: sequence(batch.last_sequence()),
            stored: count(batch.len() - duplicates - quarantined),
            duplicates: count(duplicates),
            quarantined: count(quarantined),
        }
    }
}

impl LedgerEntry<'_> {
    pub(crate) async fn prepare(client: &Client) -> Result<Statement, Error> {
        client.prepare(ENTER).await
    }

    /// Enters the batch; `None` if the row is not as the claim has it.
    pub(crate) async fn write(
        &self,
        client: &Client,
        statement: &Statement,
    ) -> Result<Option<Totals>, Error> {
        let number = i16::from(self.stream.number);
        let seen = sequence(self.claim.seen);
        let parameters: [&(dyn ToSql + Sync); 9] = [
            &self.stream.instance, &self.stream.lineage, &number, &self.claim.opening, &seen,
            &self.settled, &self.stored, &self.duplicates, &self.quarantined,
        ];
        let row = client.query_opt(statement, &parameters).await?;
        Ok(row.as_ref().map(Totals::of_row))
    }
}

/// A sequence as the ledger has it.
pub(crate) fn sequence(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
