//! How a lane's connection begins: what the ledger says of the lane's batch, and of its records at
//! the start.

use std::sync::Arc;

use tokio_postgres::Client;

use super::connection::{CLEAN_BATCHES_TO_TRUST, LaneConnection, OpenConnection};
use super::{BACKOFF, FencedOff, Writer};
use crate::accounts::erasure::subjects::ErasedSubjects;
use crate::accounts::ledger::{LedgerRow, Stream, spool_lock};
use crate::accounts::status::Health;
use crate::log::read::Start;
use crate::postgres::citus::FOR_LANES;
use crate::postgres::error::limited;
use crate::postgres::session::Session;
use crate::writer::decision::{Decision, decide};
use crate::writer::error::Error;
use crate::writer::gather::{Records, Source};
use crate::writer::opening::Held;
use crate::writer::predecessor::{SOON, end_if_frozen};
use crate::writer::statements::Statements;
use crate::writer::transaction::{READ_ONLY_UNLESS_BEGUN, STATEMENT_LIMIT};

impl Writer {
    /// Takes the ledger rows over and reads the stream's watermark, before any of its records is
    /// read.
    pub(super) async fn resume(
        &self,
        source: &mut Source<impl Records>,
    ) -> Result<LaneConnection, FencedOff> {
        let mut backoff = BACKOFF;
        loop {
            match self.connect_and_ask(u64::MAX, false).await {
                Ok((open, _)) => {
                    let records = source.reader().expect("nothing was read yet");
                    let decided_items = self.status.totals().decided_items();
                    let are_new = start(records, &open.held, self.stream, decided_items);
                    let checks_left = match are_new {
                        true => 0,
                        false => CLEAN_BATCHES_TO_TRUST,
                    };
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
            let lock = spool_lock(self.stream.log, self.stream.lineage);
            let begin = format!(
                "{READ_ONLY_UNLESS_BEGUN}; {FOR_LANES}; SELECT pg_advisory_lock_shared({lock})"
            );
            client.batch_execute(&begin).await?;
            Statements::prepare(client, self.stream.table).await
        };
        let doing = "prepare statements";
        let statements = limited(doing, STATEMENT_LIMIT, prepared).await?;
        let mut held = self.take(&session, None).await?;
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
                // The database was restored, and the log still has what it lost: begin again there.
                Decision::TakeOver if self.log.is_shared() => return Err(Error::Fenced(None)),
                // This ends: each take-over gives a higher epoch than the row had.
                Decision::TakeOver => held = self.take(&session, Some(held.me.epoch)).await?,
                Decision::Fenced => return Err(Error::Fenced(row.and_then(|row| row.holder))),
            }
        }
    }

    /// Takes the ledger rows over. Of a log that others read as well, the predecessor may be frozen in
    /// a transaction: its session is ended.
    async fn take(&self, session: &Session, since: Option<u64>) -> Result<Arc<Held>, Error> {
        let taking = self.opening.take(&session.client, since);
        if !self.log.is_shared() {
            return Ok(taking.await?);
        }
        tokio::select! {
            biased;
            taken = taking => Ok(taken?),
            never = end_if_frozen(&self.target, session.pid(), &self.stream, SOON) => match never {},
        }
    }

    /// Reads the stream's ledger row.
    async fn read(&self, client: &Client) -> Result<Option<LedgerRow>, Error> {
        let reading = self.stream.read(client);
        Ok(limited("read the ledger", STATEMENT_LIMIT, reading).await?)
    }
}

/// Has reading begin after the lane's records that the ledger shows as stored. `false`: some that
/// come may be stored already, by another copy of the log.
fn start(records: &mut impl Records, held: &Held, stream: Stream, decided_items: u64) -> bool {
    let found = held
        .found(stream.number)
        .expect("a lane's ledger row is taken over before its first record is read");
    let are_new = records.start(&Start {
        watermark: found.taken.watermark,
        found: found.watermark,
        is_own: found.taken.passed.is_none(),
        decided_items,
    });
    // A fork's ledger rows begin without a watermark, though its records may be stored.
    are_new && (stream.lineage.is_nil() || found.watermark > 0)
}
