//! How a lane's connection begins: what the ledger says of the lane's batch, and of its records at
//! the start.

use tokio_postgres::Client;

use super::connection::{CLEAN_BATCHES_TO_TRUST, LaneConnection, OpenConnection};
use super::{BACKOFF, FencedOff, Writer};
use crate::accounts::erasure::subjects::ErasedSubjects;
use crate::accounts::ledger::{LedgerRow, Stream, spool_lock};
use crate::accounts::status::Health;
use crate::postgres::error::limited;
use crate::postgres::session::Session;
use crate::writer::decision::{Decision, decide};
use crate::writer::error::Error;
use crate::writer::gather::{Records, Source};
use crate::writer::opening::Held;
use crate::writer::statements::Statements;
use crate::writer::transaction::{READ_ONLY_UNLESS_BEGUN, STATEMENT_LIMIT};

impl Writer {
    /// Takes the ledger rows over and reads the stream's watermark, before any of its records is
    /// read.
    pub(super) async fn resume(&self, source: &mut Source) -> Result<LaneConnection, FencedOff> {
        let mut backoff = BACKOFF;
        loop {
            match self.connect_and_ask(u64::MAX, false).await {
                Ok((open, _)) => {
                    let records = source.reader().expect("nothing was read yet");
                    let checks_left = match is_passed_over(records, &open.held, self.stream) {
                        true => 0,
                        false => CLEAN_BATCHES_TO_TRUST,
                    };
                    records.reconcile(self.status.totals().decided_items());
                    self.status.set(Health::Good);
                    return Ok(LaneConnection::new(open, checks_left, BACKOFF));
                }
                Err(Error::Fenced(by)) => return Err(FencedOff(by)),
                Err(error) => self.pause_after(&error, &mut backoff).await,
            }
        }
    }

    /// Connects and decides from the ledger what to do with the batch that ends with record `last`.
    /// `sent`: a COMMIT was sent for it and its answer was lost.
    pub(super) async fn connect_and_ask(
        &self,
        last: u64,
        sent: bool,
    ) -> Result<(OpenConnection, Decision), Error> {
        let session = Session::open(&self.target, None).await?;
        self.checks.note_transport(session.clear_text.as_deref());
        self.checks
            .admit(&session.client, self.stream.table, STATEMENT_LIMIT)
            .await?;
        let client = &session.client;
        let prepared = async {
            let lock = spool_lock(self.stream.spool, self.stream.lineage);
            let begin = format!("{READ_ONLY_UNLESS_BEGUN}; SELECT pg_advisory_lock_shared({lock})");
            client.batch_execute(&begin).await?;
            Statements::prepare(client, self.stream.table).await
        };
        let doing = "prepare statements";
        let statements = limited(doing, STATEMENT_LIMIT, prepared).await?;
        let mut held = self.opening.take(client, None).await?;
        loop {
            let row = self.read(client).await?;
            match decide(row.as_ref().map(|row| row.mark), held.me, last, sent) {
                decision @ (Decision::Committed | Decision::Store { .. }) => {
                    let erasures = row.as_ref().map_or(0, |row| row.erasures);
                    let totals = row.map(|row| row.totals).unwrap_or_default();
                    // After their number: who is erased in between changes it.
                    let reading = ErasedSubjects::read(client);
                    let doing = "read the erased users";
                    let erased = limited(doing, STATEMENT_LIMIT, reading).await?;
                    self.status.update(totals);
                    let open = OpenConnection {
                        session,
                        statements,
                        held,
                        seen: totals.watermark,
                        erased,
                        erasures,
                    };
                    return Ok((open, decision));
                }
                // This ends: each take-over gives a higher epoch than the row had.
                Decision::TakeOver => held = self.opening.take(client, Some(held.me.epoch)).await?,
                Decision::Fenced => return Err(Error::Fenced(row.and_then(|row| row.holder))),
            }
        }
    }

    /// Reads the stream's ledger row.
    async fn read(&self, client: &Client) -> Result<Option<LedgerRow>, Error> {
        let reading = self.stream.read(client);
        Ok(limited("read the ledger", STATEMENT_LIMIT, reading).await?)
    }
}

/// Skips the lane's records that the ledger shows as stored. `false`: records in the directory may
/// be stored already, by another copy of this spool.
fn is_passed_over(records: &mut Records, held: &Held, stream: Stream) -> bool {
    let Some(found) = held.found(stream.number) else {
        return false;
    };
    let trusted = records.skip_to(found.taken.watermark) && found.taken.passed.is_none();
    if !trusted {
        records.number_beyond(found.watermark);
    }
    // A fork's ledger rows begin without a watermark, though its records may be stored.
    trusted && (stream.lineage.is_nil() || found.watermark > 0)
}
