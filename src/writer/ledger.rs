//! What became of every accepted row, and which days have changed, recorded in the transaction that
//! stores the rows.
//!
//! Invariant: a batch is committed exactly if the ledger says so. One row of `ingest_ledger` for
//! each stream of each spool holds the stream's watermark, and the opening of the spool that may
//! advance it. After a crash the records up to the watermark are skipped; after a lost answer to
//! COMMIT the ledger has the answer. [`super::decision`] says what the row means.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use crate::accounts::changes::{self, ChangedDays};
use crate::accounts::ledger::Stream;
use crate::accounts::ledger::Totals;

use super::batch::{Batch, BatchResult, RowCounts};

/// Updates no row unless it is as this opening left it, and no user was erased since the list was
/// read. May set the watermark back: after the
/// database or the directory was restored from a backup.
const ENTER: &str = "
    UPDATE ingest_ledger
       SET settled = $6,
           stored = stored + $7,
           duplicates = duplicates + $8,
           quarantined = quarantined + $9,
           updated_at = now()
     WHERE instance_id = $1 AND lineage = $2 AND stream = $3 AND opening = $4 AND settled = $5
       AND erasures = $13
 RETURNING settled, stored, duplicates, quarantined, dropped, inherited";

/// The ledger update, and with it the marks of the days that the batch adds rows to: one statement,
/// so that they cost no round trip of their own.
fn enter() -> String {
    let days = ["$11", "$12"];
    let mark = changes::mark(days, ["$10", "$1", "$2", "$3"], "entered");
    format!(
        "WITH entered AS ({ENTER}), marked AS ({mark})
         SELECT settled, stored, duplicates, quarantined, dropped, inherited FROM entered"
    )
}

/// The condition for entering a batch into the ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// The opening that enters it.
    pub(crate) opening: Uuid,
    /// The watermark when it was last read.
    pub(crate) seen: u64,
    /// The number of erasures before the list of erased users was read.
    pub(crate) erasures: i64,
}

/// What one batch adds to the ledger row.
#[derive(Clone, Debug)]
pub(crate) struct LedgerEntry<'s> {
    stream: &'s Stream,
    claim: Claim,
    watermark: i64,
    stored: i64,
    duplicates: i64,
    quarantined: i64,
    changed: ChangedDays,
}

impl Stream {
    /// The ledger update for a batch, in the transaction that stores it.
    pub(crate) fn enter(
        &self,
        claim: Claim,
        batch: &Batch,
        result: &BatchResult,
    ) -> LedgerEntry<'_> {
        result.check(batch.len());
        let count = |n: usize| i64::try_from(n).expect("a batch is far smaller than 2^63 rows");
        let RowCounts {
            stored,
            duplicates,
            quarantined,
        } = result.counts();
        LedgerEntry {
            stream: self,
            claim,
            watermark: sequence(batch.last_sequence()),
            stored: count(stored),
            duplicates: count(duplicates),
            quarantined: count(quarantined),
            changed: batch.changed_days(result),
        }
    }
}

impl LedgerEntry<'_> {
    pub(crate) async fn prepare(client: &Client) -> Result<Statement, Error> {
        client.prepare(&enter()).await
    }

    /// Updates the ledger row. `None` if it no longer matches the claim.
    pub(crate) async fn write(
        &self,
        client: &Client,
        statement: &Statement,
    ) -> Result<Option<Totals>, Error> {
        let number = self.stream.column();
        let seen = sequence(self.claim.seen);
        let parameters: [&(dyn ToSql + Sync); 13] = [
            &self.stream.log,
            &self.stream.lineage,
            &number,
            &self.claim.opening,
            &seen,
            &self.watermark,
            &self.stored,
            &self.duplicates,
            &self.quarantined,
            &self.stream.table.as_str(),
            &self.changed.tenants,
            &self.changed.days,
            &self.claim.erasures,
        ];
        let row = client.query_opt(statement, &parameters).await?;
        Ok(row.as_ref().map(Totals::of_row))
    }
}

/// A sequence in the ledger's type.
pub(crate) fn sequence(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
