//! Which process reads which stream of a log that several read.
//!
//! Each process renews the leases that it has, takes free streams up to its share, and
//! gives back what is above it. All times are Postgres's. A lease only says who should try: what
//! keeps rows exact is the ledger row, which a lane takes over before it reads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_postgres::{Client, Error as PgError};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::opening::Place;
use crate::accounts::ledger::{Stream, column};
use crate::backoff::Failing;
use crate::postgres::connect::Target;
use crate::postgres::error::{Error, ErrorChain, limited};
use crate::postgres::session::Session;

/// After this long without a renewal a stream is anyone's.
const LEASE_SECONDS: f64 = 3.0;

/// Two renewals may fail before a lease ends.
const TICK: Duration = Duration::from_millis(900);

/// Longest wait for one statement: later than that the lease is lost anyway.
const LIMIT: Duration = Duration::from_secs(3);

/// Says that this process reads these logs, and forgets those that stopped saying so.
const APPEAR: &str = "
    WITH gone AS (
        DELETE FROM ingest_log_readers WHERE until < clock_timestamp() - interval '1 minute'
    )
    INSERT INTO ingest_log_readers (log_id, reader, host, pid, until)
    SELECT log_id, $2, $3, $4, clock_timestamp() + make_interval(secs => $5)
      FROM unnest($1::uuid[]) AS mine (log_id)
        ON CONFLICT (log_id, reader) DO UPDATE SET until = excluded.until";

/// Renews the leases that this process has and keeps. All statements lock rows in one order.
const RENEW: &str = "
    WITH kept AS (
        SELECT mine.log_id, mine.stream
          FROM ingest_leases AS mine
          JOIN unnest($1::uuid[], $2::smallint[]) AS kept (log_id, stream) USING (log_id, stream)
         WHERE mine.reader = $3
         ORDER BY mine.log_id, mine.stream
           FOR UPDATE OF mine
    )
    UPDATE ingest_leases AS lease
       SET until = clock_timestamp() + make_interval(secs => $4)
      FROM kept
     WHERE lease.log_id = kept.log_id AND lease.stream = kept.stream AND lease.reader = $3
 RETURNING lease.log_id, lease.stream";

/// Gives leases back at once; without this, other processes wait until they expire.
const RETURN: &str = "
    WITH given AS (
        SELECT mine.log_id, mine.stream
          FROM ingest_leases AS mine
          JOIN unnest($1::uuid[], $2::smallint[]) AS given (log_id, stream) USING (log_id, stream)
         WHERE mine.reader = $3
         ORDER BY mine.log_id, mine.stream
           FOR UPDATE OF mine
    )
    DELETE FROM ingest_leases AS lease
     USING given
     WHERE lease.log_id = given.log_id AND lease.stream = given.stream AND lease.reader = $3";

/// How many processes read each log, and how many of them come before this one.
const COUNT: &str = "
    SELECT log_id, count(*), count(*) FILTER (WHERE reader < $2)
      FROM ingest_log_readers
     WHERE log_id = ANY ($1) AND until > clock_timestamp()
     GROUP BY log_id";

/// Takes up to `$6` of the log's free streams: random ones, so that processes that start
/// together want different ones, in the order in which all lock them.
const TAKE: &str = "
    INSERT INTO ingest_leases AS lease (log_id, stream, reader, host, pid, until)
    SELECT $1, free.stream, $3, $4, $5, clock_timestamp() + make_interval(secs => $7)
      FROM (SELECT wanted.stream
              FROM unnest($2::smallint[]) AS wanted (stream)
              LEFT JOIN ingest_leases AS held
                     ON held.log_id = $1 AND held.stream = wanted.stream
             WHERE held.until IS NULL OR held.until < clock_timestamp()
             ORDER BY random()
             LIMIT $6) AS free
     ORDER BY free.stream
        ON CONFLICT (log_id, stream) DO UPDATE
       SET reader = excluded.reader, host = excluded.host, pid = excluded.pid,
           until = excluded.until
     WHERE lease.until < clock_timestamp()
 RETURNING stream";

const LEAVE: &str = "
    WITH leases AS (DELETE FROM ingest_leases WHERE reader = $1)
    DELETE FROM ingest_log_readers WHERE reader = $1";

/// A stream of a log.
type Key = (Uuid, u16);

/// Where a lease stands.
#[derive(Clone, Debug)]
enum State {
    /// Not this process's, or given back by its lane.
    Free,
    /// This process's, until the token is cancelled.
    Held(CancellationToken),
}

/// A lane's view of its lease.
#[derive(Debug)]
pub struct Lease {
    state: watch::Receiver<State>,
    is_returned: Arc<AtomicBool>,
    changed: Arc<Notify>,
}

/// The keeper's view of a lease.
#[derive(Debug)]
struct Kept {
    state: watch::Sender<State>,
    /// Set by the lane when it gives the lease back.
    is_returned: Arc<AtomicBool>,
}

/// Renews and takes leases for all lanes of this process.
#[derive(Debug)]
pub struct Keeper {
    me: Uuid,
    place: Place,
    leases: HashMap<Key, Kept>,
    changed: Arc<Notify>,
}

/// The keeper of the leases of these streams, and a lease for each lane, in their order.
pub fn keeper(place: Place, streams: &[Stream]) -> (Keeper, Vec<Lease>) {
    let changed = Arc::new(Notify::new());
    let mut leases = HashMap::new();
    let lanes = streams.iter().map(|stream| {
        let (state, seen) = watch::channel(State::Free);
        let is_returned = Arc::new(AtomicBool::new(false));
        let kept = Kept {
            state,
            is_returned: Arc::clone(&is_returned),
        };
        leases.insert((stream.log, stream.number), kept);
        Lease {
            state: seen,
            is_returned,
            changed: Arc::clone(&changed),
        }
    });
    let lanes = lanes.collect();
    let keeper = Keeper {
        me: Uuid::new_v4(),
        place,
        leases,
        changed,
    };
    (keeper, lanes)
}

impl Lease {
    /// Waits until this process has the lease. The lane gives it back once the token is
    /// cancelled. Cancel safe.
    pub(crate) async fn held(&mut self) -> CancellationToken {
        loop {
            let held = match &*self.state.borrow_and_update() {
                State::Held(leave) if !leave.is_cancelled() => Some(leave.clone()),
                State::Held(_) | State::Free => None,
            };
            if let Some(leave) = held {
                return leave;
            }
            if self.state.changed().await.is_err() {
                // The keeper has ended: the service stops.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Gives the lease back: nothing of the stream is read any more.
    pub(crate) fn give_back(&mut self) {
        if let State::Held(leave) = &*self.state.borrow() {
            leave.cancel();
        }
        self.is_returned.store(true, Ordering::Release);
        self.changed.notify_one();
    }
}

impl Keeper {
    /// Keeps leases until `stop` is cancelled and all lanes have given theirs back.
    pub async fn run(self, target: Target, stop: CancellationToken) {
        let mut session = None;
        let mut failing = Failing::default();
        loop {
            let is_last = stop.is_cancelled() && self.is_idle();
            match self.turn(&target, &mut session, stop.is_cancelled()).await {
                Ok(()) if failing.ends() => info!("leases are renewed again"),
                Ok(()) => {}
                Err(error) => {
                    session = None;
                    if failing.begins() {
                        warn!(error = %ErrorChain(&error), "cannot renew the leases of streams; other writers may take them");
                    } else {
                        debug!(error = %ErrorChain(&error), "cannot renew the leases of streams");
                    }
                }
            }
            if is_last {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.changed.notified() => {}
                () = stop.cancelled(), if !stop.is_cancelled() => {}
            }
        }
    }

    fn is_idle(&self) -> bool {
        let mut leases = self.leases.values();
        leases.all(|kept| !kept.is_held() || kept.is_returned())
    }

    /// Renews, gives back and takes.
    async fn turn(
        &self,
        target: &Target,
        session: &mut Option<Session>,
        is_stopping: bool,
    ) -> Result<(), Error> {
        let session = match session {
            Some(session) => session,
            None => session.insert(Session::open(target, None).await?),
        };
        let client = &session.client;
        limited("renew leases", LIMIT, self.give_back(client)).await?;
        if is_stopping && self.is_idle() {
            limited(
                "give leases back",
                LIMIT,
                client.execute(LEAVE, &[&self.me]),
            )
            .await?;
            return Ok(());
        }
        limited("renew leases", LIMIT, self.renew(client)).await?;
        if !is_stopping {
            limited("take leases", LIMIT, self.take(client)).await?;
        }
        Ok(())
    }

    /// The leases that a lane has given back are anyone's.
    async fn give_back(&self, client: &Client) -> Result<(), PgError> {
        let given: Vec<Key> = self.of(Kept::is_returned).collect();
        if given.is_empty() {
            return Ok(());
        }
        let (logs, streams) = columns(&given);
        client.execute(RETURN, &[&logs, &streams, &self.me]).await?;
        for key in given {
            if let Some(kept) = self.leases.get(&key) {
                kept.forget();
            }
        }
        Ok(())
    }

    async fn renew(&self, client: &Client) -> Result<(), PgError> {
        let held: Vec<Key> = self.of(Kept::is_held).collect();
        let (logs, streams) = columns(&held);
        let rows = client
            .query(RENEW, &[&logs, &streams, &self.me, &LEASE_SECONDS])
            .await?;
        let renewed: Vec<Key> = rows.iter().map(key).collect();
        for lost in held.iter().filter(|key| !renewed.contains(key)) {
            // Another process has it by now. Its take-over of the ledger row stops the lane; this is
            // faster.
            if let Some(kept) = self.leases.get(lost) {
                kept.leave();
            }
        }
        Ok(())
    }

    async fn take(&self, client: &Client) -> Result<(), PgError> {
        let mut logs: Vec<Uuid> = self.leases.keys().map(|&(log, _)| log).collect();
        logs.sort_unstable();
        logs.dedup();
        let Place { host, pid, .. } = &self.place;
        let pid = i64::from(*pid);
        client
            .execute(APPEAR, &[&logs, &self.me, host, &pid, &LEASE_SECONDS])
            .await?;
        let readers = client.query(COUNT, &[&logs, &self.me]).await?;
        for row in &readers {
            let log: Uuid = row.get(0);
            let number = |at| usize::try_from(row.get::<_, i64>(at)).unwrap_or(0);
            let of_log = |key: &Key| key.0 == log;
            let streams = self.leases.keys().filter(|key| of_log(key)).count();
            let share = share(streams, number(1), number(2));
            let mut held: Vec<Key> = self.of(Kept::is_held).filter(of_log).collect();
            held.sort_unstable();
            for key in held.iter().skip(share) {
                if let Some(kept) = self.leases.get(key) {
                    kept.leave();
                }
            }
            let more = i64::try_from(share.saturating_sub(held.len())).unwrap_or(0);
            if more == 0 {
                continue;
            }
            let free = |key: &Key| !held.contains(key);
            let wanted: Vec<i16> = self
                .of(|kept| !kept.is_held())
                .filter(|key| of_log(key) && free(key))
                .map(|(_, stream)| column(stream))
                .collect();
            let rows = client
                .query(
                    TAKE,
                    &[&log, &wanted, &self.me, host, &pid, &more, &LEASE_SECONDS],
                )
                .await?;
            for row in &rows {
                let stream = u16::try_from(row.get::<_, i16>(0)).unwrap_or(u16::MAX);
                if let Some(kept) = self.leases.get(&(log, stream)) {
                    kept.take();
                }
            }
        }
        Ok(())
    }

    fn of(&self, holds: impl Fn(&Kept) -> bool) -> impl Iterator<Item = Key> {
        let leases = self.leases.iter();
        leases
            .filter(move |(_, kept)| holds(kept))
            .map(|(key, _)| *key)
    }
}

impl Kept {
    /// The lease is this process's from now on.
    fn take(&self) {
        let held = State::Held(CancellationToken::new());
        self.state.send_replace(held);
    }

    /// Whether this process has the lease, whether or not its lane is about to give it back.
    fn is_held(&self) -> bool {
        matches!(*self.state.borrow(), State::Held(_))
    }

    /// Tells the lane to give the lease back.
    fn leave(&self) {
        if let State::Held(leave) = &*self.state.borrow() {
            leave.cancel();
        }
    }

    /// Whether the lane has given the lease back, or has ended: a lease that is taken while the
    /// service stops finds no lane.
    fn is_returned(&self) -> bool {
        self.is_returned.load(Ordering::Acquire) || self.state.is_closed()
    }

    /// The lease is not this process's any more.
    fn forget(&self) {
        self.state.send_replace(State::Free);
        self.is_returned.store(false, Ordering::Release);
    }
}

fn key(row: &tokio_postgres::Row) -> Key {
    let stream = u16::try_from(row.get::<_, i16>(1)).unwrap_or(u16::MAX);
    (row.get(0), stream)
}

fn columns(keys: &[Key]) -> (Vec<Uuid>, Vec<i16>) {
    keys.iter()
        .map(|&(log, stream)| (log, column(stream)))
        .unzip()
}

/// The streams that are a process's, of those that share them: `before` come before it. The shares of
/// all are all streams, so what one gives back another one takes. Nothing for those beyond the streams.
fn share(streams: usize, readers: usize, before: usize) -> usize {
    let readers = readers.max(1);
    streams / readers + usize::from(before < streams % readers)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::event::table::Table;

    #[tokio::test]
    async fn a_lease_whose_lane_has_ended_is_given_back() {
        let log = Uuid::new_v4();
        let stream = |number| Stream {
            log,
            lineage: Uuid::nil(),
            number,
            table: Table::Interactions,
            shard: number,
        };
        let place = Place::here(Path::new("/"));
        let (keeper, lanes) = keeper(place, &[stream(0), stream(1)]);
        let taken = |number| keeper.leases[&(log, number)].take();
        taken(0);
        assert!(!keeper.is_idle());
        // Both lanes end with the service; the second lease comes after that.
        drop(lanes);
        taken(1);
        let given: Vec<Key> = keeper.of(Kept::is_returned).collect();
        assert_eq!(given.len(), 2);
        assert!(keeper.is_idle());
    }

    #[test]
    fn the_shares_of_all_are_all_streams_and_differ_by_one_at_most() {
        for (streams, readers) in [(4, 3), (12, 5), (4, 1), (6, 2), (4, 4), (2, 5), (0, 3)] {
            let shares: Vec<usize> = (0..readers)
                .map(|before| share(streams, readers, before))
                .collect();
            assert_eq!(shares.iter().sum::<usize>(), streams, "{shares:?}");
            let (least, most) = (shares.iter().min(), shares.iter().max());
            assert!(most.unwrap() - least.unwrap() <= 1, "{shares:?}");
        }
        assert_eq!(share(4, 0, 0), 4, "this process is not counted yet");
    }
}
