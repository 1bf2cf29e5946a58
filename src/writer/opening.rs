//! This process's hold on ledger rows: of all streams of its spool, or of one stream of a log that
//! others read as well.
//!
//! Invariant: no record of a stream is read before this opening has taken over its ledger row, and
//! those of the other streams that it holds, in one transaction. From then on no earlier opening can
//! enter a batch. A later opening fences this one: then its lanes stop, and the records stay in the
//! log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::log::read::Acknowledge;

use super::decision;
use super::decision::TakenOver;
use super::ledger::sequence;
use super::transaction::{BEGIN, STATEMENT_LIMIT};
use crate::accounts::ledger::{Holder, Mark, column};
use crate::event::table::Table;
use crate::postgres::error::{Error, limited};

const HOLD: &str = "
    INSERT INTO ingest_holders AS holder
        (instance_id, lineage, epoch, opening, host, pid, directory, is_shared)
    VALUES ($1, $2, $3::bigint + 1, $4, $5, $6, $7, $8)
        ON CONFLICT (instance_id, lineage) DO UPDATE
       SET epoch = greatest(holder.epoch, $3::bigint) + 1,
           opening = excluded.opening,
           host = excluded.host,
           pid = excluded.pid,
           directory = excluded.directory,
           since = now()
 RETURNING epoch, to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";

const MAKE: &str = "
    INSERT INTO ingest_ledger (instance_id, lineage, stream, table_name, settled, inherited)
    SELECT $1, $2, made.stream, made.table_name, 0, made.inherited
      FROM unnest($3::smallint[], $4::text[], $5::bigint[]) AS made (stream, table_name, inherited)
        ON CONFLICT DO NOTHING";

/// Locks the rows. An earlier opening's open transaction that has entered a batch ends first; a
/// later one finds the new opening and enters nothing. Of a log that is not shared all rows, also
/// those of streams that are not in use any more.
const FIND: &str = "
    SELECT stream, settled, opening, epoch
      FROM ingest_ledger
     WHERE instance_id = $1 AND lineage = $2 AND stream = ANY (coalesce($3, ARRAY[stream]))
     ORDER BY stream
       FOR UPDATE";

/// If another copy of the spool wrote the row, the counts beyond what this directory has delivered
/// are that copy's work. A shortfall stays: `verify` reports it.
const TAKE: &str = "
    UPDATE ingest_ledger AS mine
       SET opening = $3,
           epoch = $4,
           settled = taken.settled,
           inherited = CASE WHEN taken.passed IS NULL THEN mine.inherited
                            ELSE least(taken.inherited, taken.passed - mine.stored
                                       - mine.duplicates - mine.quarantined - mine.dropped)
                       END
      FROM unnest($5::smallint[], $6::bigint[], $7::bigint[], $8::bigint[])
        AS taken (stream, settled, passed, inherited)
     WHERE mine.instance_id = $1 AND mine.lineage = $2 AND mine.stream = taken.stream";

/// The take-over that the lanes of these streams share.
#[derive(Debug)]
pub struct Opening {
    log: Arc<dyn Acknowledge>,
    streams: Vec<(u16, Table)>,
    place: Place,
    held: Mutex<Option<Arc<Held>>>,
    fenced: CancellationToken,
    closed: Arc<AtomicBool>,
}

/// Identifies this process for an operator.
#[derive(Clone, Debug)]
pub struct Place {
    pub host: String,
    pub pid: u32,
    pub directory: String,
}

/// The result of a take-over.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) me: decision::Opening,
    holder: Holder,
    streams: Vec<FoundStream>,
}

/// What the take-over found in a stream's ledger row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundStream {
    stream: i16,
    pub(crate) watermark: u64,
    pub(crate) taken: TakenOver,
}

impl Opening {
    /// The hold of these streams of a log, each once.
    ///
    /// `closed` is set when a later opening takes the rows.
    pub fn new(
        log: Arc<dyn Acknowledge>,
        streams: Vec<(u16, Table)>,
        place: Place,
        closed: Arc<AtomicBool>,
    ) -> Self {
        Self {
            log,
            streams,
            place,
            held: Mutex::default(),
            fenced: CancellationToken::new(),
            closed,
        }
    }

    /// Waits until a later opening holds the rows.
    pub(crate) async fn fenced(&self) {
        self.fenced.cancelled().await;
    }

    /// Stops all lanes because a later opening holds the rows. Logs it once.
    pub(crate) async fn fence(&self, by: Option<Holder>) {
        let held = self.held.lock().await;
        if self.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        if self.log.is_shared() {
            info!(
                "another writer stores the events of this stream now, or the database was restored"
            );
            self.fenced.cancel();
            return;
        }
        let place = &self.place;
        let mine = held.as_ref().map(|held| held.holder.to_string());
        let mine = mine.unwrap_or_else(|| place.directory.clone());
        let theirs = by.map_or_else(|| "an unknown process".to_owned(), |by| by.to_string());
        error!(
            %mine, %theirs,
            "fenced off: {theirs} opened a copy of this spool later than this one, {mine}, and \
             stores its events. This one stores and takes no more; its events stay in its spool. \
             Stop one of the two. If both directories are to be used, stop this process and run \
             `recsys-ingest spool fork --spool-dir {}`, then start it again",
            place.directory
        );
        self.fenced.cancel();
    }

    /// Takes over all ledger rows of the spool, or returns the last take-over. `since`: takes over
    /// again unless the last one has a later epoch.
    ///
    /// After an error the connection is in a transaction: close it.
    pub(crate) async fn take(
        &self,
        client: &Client,
        since: Option<u64>,
    ) -> Result<Arc<Held>, Error> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref()
            && since.is_none_or(|since| held.me.epoch > since)
        {
            return Ok(Arc::clone(held));
        }
        let again = held.as_ref().map(|held| held.me.epoch);
        let taking = self.take_rows(client, again);
        let taken = limited("take over the ledger", STATEMENT_LIMIT, taking).await?;
        let taken = Arc::new(taken);
        match again {
            None => {
                info!(epoch = taken.me.epoch, opening = %taken.me.id, "holds the ledger's rows of its log")
            }
            Some(_) => warn!(
                epoch = taken.me.epoch,
                "the ledger is older than it was: was the database restored from a backup? Events that \
                 were stored since then and have left the log are lost; `recsys-ingest verify` counts them"
            ),
        }
        *held = Some(Arc::clone(&taken));
        Ok(taken)
    }

    async fn take_rows(
        &self,
        client: &Client,
        again: Option<u64>,
    ) -> Result<Held, tokio_postgres::Error> {
        let log = &self.log;
        let (log_id, lineage, id) = (log.id(), log.lineage(), log.opening());
        let Place {
            host,
            pid,
            directory,
        } = self.place.clone();
        let pid = i64::from(pid);
        client.batch_execute(BEGIN).await?;
        // The upsert locks the holder's row: concurrent take-overs run one after the other.
        let last = sequence(again.unwrap_or(0));
        let row = client
            .query_one(
                HOLD,
                &[
                    &log_id,
                    &lineage,
                    &last,
                    &id,
                    &host,
                    &pid,
                    &directory,
                    &log.is_shared(),
                ],
            )
            .await?;
        let (epoch, since): (i64, String) = (row.get(0), row.get(1));
        let inherited_by = |&number: &i16| {
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            sequence(log.inherited(number))
        };
        let numbers: Vec<i16> = self.streams.iter().map(|&(at, _)| column(at)).collect();
        let tables: Vec<&str> = self
            .streams
            .iter()
            .map(|(_, table)| table.as_str())
            .collect();
        let inherited: Vec<i64> = numbers.iter().map(inherited_by).collect();
        client
            .execute(MAKE, &[&log_id, &lineage, &numbers, &tables, &inherited])
            .await?;
        let mine = log.is_shared().then_some(&numbers);
        let rows = client.query(FIND, &[&log_id, &lineage, &mine]).await?;
        let streams: Vec<FoundStream> = rows.iter().map(|row| self.find(row)).collect();
        let numbers: Vec<i16> = streams.iter().map(|found| found.stream).collect();
        let watermarks: Vec<i64> = streams
            .iter()
            .map(|found| sequence(found.taken.watermark))
            .collect();
        let passed: Vec<Option<i64>> = streams
            .iter()
            // `passed` counts items at the start of the process. After a later take-over it would
            // leave out what was delivered since.
            .map(|found| found.taken.passed.filter(|_| again.is_none()).map(sequence))
            .collect();
        let inherited: Vec<i64> = numbers.iter().map(inherited_by).collect();
        client
            .execute(
                TAKE,
                &[
                    &log_id, &lineage, &id, &epoch, &numbers, &watermarks, &passed, &inherited,
                ],
            )
            .await?;
        client.batch_execute("COMMIT").await?;
        Ok(Held {
            me: decision::Opening {
                id,
                epoch: u64::try_from(epoch).unwrap_or(0),
            },
            holder: Holder {
                host,
                pid,
                directory,
                since,
            },
            streams,
        })
    }

    fn find(&self, row: &tokio_postgres::Row) -> FoundStream {
        let number = |at| u64::try_from(row.get::<_, i64>(at)).unwrap_or(0);
        let stream: i16 = row.get(0);
        let mark = Mark {
            watermark: number(1),
            opening: row.get::<_, Option<Uuid>>(2),
            epoch: number(3),
        };
        let at = u16::try_from(stream).unwrap_or(u16::MAX);
        let proof = self.log.proof(at, mark.opening, mark.watermark);
        FoundStream {
            stream,
            watermark: mark.watermark,
            taken: decision::take_over(mark.watermark, proof, self.log.passed(at)),
        }
    }
}

impl Held {
    /// What the take-over found in a stream's ledger row.
    pub(crate) fn found(&self, stream: u16) -> Option<FoundStream> {
        let mut streams = self.streams.iter();
        streams
            .find(|found| found.stream == column(stream))
            .copied()
    }
}

impl Place {
    /// This process, with this spool directory.
    pub fn here(directory: &std::path::Path) -> Self {
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        Self {
            host: std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(
                |_| "an unknown host".to_owned(),
                |name| name.trim().to_owned(),
            ),
            pid: std::process::id(),
            directory: directory.display().to_string(),
        }
    }
}
