//! Promise: while PostgreSQL is away, in any way, events are accepted; afterwards all of them are
//! stored.

use std::time::{Duration, Instant};

use recsys_ingest::event::table::Table;

use crate::delivery::behind_proxy;
use crate::harness::{
    Audit, BODY_EVENTS, Cluster, Database, Plan, Proxy, Rig, Told, Traffic, Wire, click,
    eventually, one,
};

/// How a server is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// It crashed: connections break, and new ones are refused.
    Crashed,
    /// All its processes are frozen: connections stay open and get no answers.
    Frozen,
}

/// The rate of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// The rate at which rows are stored. A higher rate would build up a backlog without an
    /// outage.
    AsStored,
    /// As much as the service accepts.
    AsTaken,
}

/// An outage under full load.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// How the server is away.
    pub how: Away,
    /// The rate of events from the start of the outage until the drain rate is measured.
    pub load: Load,
    /// Time before the outage, to measure the steady rate.
    pub steady: Duration,
    /// Time without a server.
    pub away: Duration,
    /// Time after the outage, to measure the rate at which the backlog drains.
    pub drain: Duration,
    /// Number of senders.
    pub senders: u64,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Rows stored a second before the outage, at full load.
    pub steady_per_second: f64,
    /// Rows stored a second after the outage, while events keep arriving.
    pub drained_per_second: f64,
    /// Rows in the spool when the server came back.
    pub backlog: u64,
    /// The peak memory of the service.
    pub memory_bytes: u64,
    /// Answers with 503.
    pub refusals: u64,
    /// `/readyz` at the end of the time without a server.
    pub readiness: (u16, String),
    /// The comparison of answers and tables.
    pub audit: Audit,
}

/// Takes the server away under load, brings it back, and measures and compares everything.
pub async fn outage(rig: &mut Rig, plan: Outage) -> Seen {
    let traffic = rig.traffic(Plan {
        bodies: 800_000,
        senders: plan.senders,
        ..Plan::default()
    });
    // Creates partitions and warms caches.
    tokio::time::sleep(plan.steady / 3).await;
    let steady_per_second = stored_per_second(rig, plan.steady).await;
    if plan.load == Load::AsStored {
        pace(&traffic, steady_per_second);
    }
    match plan.how {
        Away::Crashed => rig.cluster.crash(),
        Away::Frozen => rig.cluster.suspend(),
    }
    tokio::time::sleep(plan.away).await;
    let readiness = rig.ready().await;
    match plan.how {
        Away::Crashed => rig.cluster.restart(),
        Away::Frozen => rig.cluster.resume(),
    }
    eventually("the service to find its server", async || {
        rig.ready().await.1 == "ready"
    })
    .await;
    let backlog = rig.rows().await[4];
    let drained_per_second = stored_per_second(rig, plan.drain).await;
    // Now fewer rows arrive than are stored, so the backlog drains.
    pace(&traffic, steady_per_second / 4.0);
    eventually_drained(rig, &traffic).await;
    let memory_bytes = rig.process.memory("VmHWM");
    let sent = traffic.stop();
    let audit = rig.audit(&[&sent]).await;
    Seen {
        steady_per_second,
        drained_per_second,
        backlog,
        memory_bytes,
        refusals: sent.tally.refusals.len() as u64,
        readiness,
        audit,
    }
}

fn pace(traffic: &Traffic, events_per_second: f64) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate in whole bodies"
    )]
    let events = events_per_second as u64;
    traffic.pace((events / BODY_EVENTS).max(1));
}

async fn stored_per_second(rig: &Rig, during: Duration) -> f64 {
    let (started, before) = (Instant::now(), rig.rows().await[1]);
    tokio::time::sleep(during).await;
    let stored = u32::try_from(rig.rows().await[1] - before).unwrap();
    f64::from(stored) / started.elapsed().as_secs_f64()
}

/// Waits until the spool is almost empty while traffic goes on.
async fn eventually_drained(rig: &Rig, traffic: &Traffic) {
    let mut least = (Instant::now(), u64::MAX);
    loop {
        let spooled = rig.rows().await[4];
        if spooled < 20_000 {
            return;
        }
        if spooled < least.1 {
            least = (Instant::now(), spooled);
        }
        let patience = Duration::from_secs(30);
        let acknowledged = traffic.acknowledged();
        assert!(
            least.0.elapsed() < patience,
            "a backlog of {spooled} rows does not shrink, {acknowledged} bodies in"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_under_load_refuses_nothing_and_loses_nothing() {
    let mut rig = Rig::start(|settings| settings).await;
    let seen = outage(
        &mut rig,
        Outage {
            how: Away::Crashed,
            load: Load::AsStored,
            steady: Duration::from_secs(1),
            away: Duration::from_secs(4),
            drain: Duration::from_secs(1),
            senders: 4,
        },
    )
    .await;
    assert_eq!(seen.refusals, 0, "{seen:?}");
    assert!(seen.memory_bytes < 300 << 20, "{seen:?}");
    assert!(seen.backlog > 0, "{seen:?}");
    assert_eq!(seen.readiness, (200, "degraded".to_owned()));
    assert!(seen.audit.is_good(), "{seen:?}\n{}", rig.process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_survives_a_crash_of_a_server_that_does_not_wait_for_its_disk() {
    // With these settings a COMMIT returns long before its WAL is on disk, unless the session
    // turns `synchronous_commit` on.
    let lazy = [("synchronous_commit", "off"), ("wal_writer_delay", "10s")];
    let mut rig = Rig::on(Cluster::start(&lazy), |settings| settings).await;
    let plan = Plan {
        ack: "committed",
        bodies: 20,
        senders: 1,
        ..Plan::default()
    };
    let sent = rig.traffic(plan).finish();
    assert_eq!(sent.count(Told::Committed), 20);
    rig.crash_postgres();
    rig.assert_kept(&[&sent]).await;
}

/// Asserts that each sender is served during `trouble`, and that all events are stored
/// afterwards.
async fn rides_out(rig: &mut Rig, trouble: impl AsyncFnOnce(&mut Rig, &Traffic)) {
    let traffic = rig.traffic(Plan {
        bodies: 100_000,
        bodies_per_second: 200,
        senders: 4,
        ..Plan::default()
    });
    traffic.reach(50);
    trouble(rig, &traffic).await;
    traffic.reach(traffic.acknowledged() + 50);
    let sent = traffic.stop();
    assert_eq!(sent.tally.refusals.len(), 0, "{:?}", sent.tally.codes);
    assert_eq!(sent.tally.broken, 0);
    rig.assert_kept(&[&sent]).await;
    // Lanes without traffic notice at their next ping.
    eventually("all lanes to find their server", async || {
        rig.ready().await == (200, "ready".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_frozen_is_waited_for() {
    let mut rig = Rig::start(|settings| settings).await;
    rides_out(&mut rig, async |rig, traffic| {
        rig.cluster.suspend();
        let before = traffic.acknowledged();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let meanwhile = traffic.acknowledged() - before;
        rig.cluster.resume();
        assert!(meanwhile > 50, "{meanwhile} bodies while it was frozen");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_notices_a_server_that_has_fallen_silent() {
    let mut rig = Rig::start(|settings| settings).await;
    rig.cluster.suspend();
    // Without rows to store, no request goes to the server yet.
    assert_eq!(rig.ready().await, (200, "ready".to_owned()));
    let durable = rig.client.query("ack=durable");
    let reply = durable.post("/v1/interactions", &click("one")).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    eventually("the service to be degraded", async || {
        rig.ready().await == (200, "degraded".to_owned())
    })
    .await;
    rig.cluster.resume();
    rig.settle().await;
    // The row counts change a moment before the writer has finished the batch.
    eventually("the service to be ready", async || {
        rig.ready().await == (200, "ready".to_owned())
    })
    .await;
    assert_eq!(rig.database.count("interaction_events").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_terminated_again_and_again_are_opened_again() {
    let mut rig = Rig::start(|settings| settings).await;
    rides_out(&mut rig, async |rig, _| {
        let admin = rig.database.connect().await;
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE application_name = 'recsys-ingest' AND pid <> pg_backend_pid()";
        let mut ended: i64 = 0;
        for _ in 0..30 {
            ended += one::<i64>(&admin, sql).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(ended > 10, "{ended} sessions were terminated");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_restarted_again_and_again_is_found_again() {
    let mut rig = Rig::start(|settings| settings).await;
    rides_out(&mut rig, async |rig, _| {
        for _ in 0..5 {
            rig.cluster.restart();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_free_connection_is_waited_for() {
    let cluster = Cluster::start(&[("max_connections", "14"), ("autovacuum", "off")]);
    let mut rig = Rig::on(cluster, |settings| settings).await;
    rides_out(&mut rig, async |rig, _| {
        let admin = rig.database.connect().await;
        let url = rig.database.url();
        let mut greedy = Vec::new();
        // Takes each connection that the service gives up.
        let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                          WHERE application_name = 'recsys-ingest'";
        for _ in 0..200 {
            let _ended: i64 = one(&admin, terminate).await;
            if let Ok((client, connection)) =
                tokio_postgres::connect(url, tokio_postgres::NoTls).await
            {
                greedy.push((client, tokio::spawn(connection)));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(rig.ready().await, (200, "degraded".to_owned()));
        for (client, connection) in greedy {
            drop(client);
            connection.await.unwrap().unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_locked_does_not_stall_the_other() {
    // Little memory, so that the test shows that the rows of one table cannot take all of it.
    let rig = Rig::start(|settings| {
        settings
            .with("--queue-bytes-max", "24MiB")
            .with("--body-bytes-max", "1MiB")
            .with("--writers", 3)
    })
    .await;
    let mut admin = rig.database.connect().await;
    let lock = admin.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE exposure_events IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let plan = Plan {
        senders: 3,
        ..Plan::default()
    };
    let shown = Plan {
        table: Table::Exposures,
        bodies: 800,
        ..plan
    };
    let shown = rig.traffic(shown).finish();
    assert_eq!(shown.tally.codes, std::collections::BTreeMap::new());
    let done = Plan {
        ack: "committed",
        bodies: 50,
        ..plan
    };
    let done = rig.traffic(done).finish();
    assert_eq!(done.count(Told::Committed), 50);
    assert_eq!(done.tally.codes, std::collections::BTreeMap::new());
    lock.rollback().await.unwrap();
    rig.assert_kept(&[&shown]).await;
    rig.assert_kept(&[&done]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_in_silence_is_given_up_once_and_ended_at_the_server() {
    let (rig, proxy, warm_up) = behind_proxy(|settings| settings).await;
    let watcher = rig.database.connect().await;
    let copying = "SELECT count(*) FROM pg_stat_activity
                    WHERE application_name = 'recsys-ingest' AND state = 'active'
                      AND query LIKE 'COPY%'";
    // Slow, so that the server is in the middle of a COPY when its client disappears.
    proxy.set(Wire::Throttle(200_000));
    let sent = rig.traffic(Plan {
        first: 2000,
        bodies: 60,
        senders: 1,
        ..Plan::default()
    });
    eventually("a COPY to be under way", async || {
        one::<i64>(&watcher, copying).await > 0
    })
    .await;
    proxy.forget();
    proxy.set(Wire::Pass);
    let since = Instant::now();
    let sent = sent.finish();
    while rig.rows().await[4] > 0 {
        assert!(
            since.elapsed() < Duration::from_secs(110),
            "{}",
            rig.process.log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("the server to end what was left", async || {
        one::<i64>(&watcher, copying).await == 0
    })
    .await;
    rig.assert_kept(&[&warm_up, &sent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_connection_broke_on_this_side_is_ended_at_the_server() {
    use recsys_ingest::postgres::connect::Target;
    use recsys_ingest::postgres::session::Session;
    let cluster = Cluster::start(&[]);
    let database = Database::on(&cluster).await;
    let proxy = Proxy::start(&cluster).await;
    let target = Target::parse(&proxy.url(database.url())).unwrap();
    let session = Session::open(&target, None).await.unwrap();
    // A lock of the session, outside of a transaction: no timeout of the server's ends it.
    let lock = "SELECT pg_advisory_lock(7)";
    session.client.batch_execute(lock).await.unwrap();
    let watcher = database.connect().await;
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(one::<i64>(&watcher, held).await, 1);
    proxy.hang_up();
    session.over().await;
    eventually("the server to end the session", async || {
        one::<i64>(&watcher, held).await == 0
    })
    .await;
}

#[tokio::test]
async fn a_session_that_the_server_ends_for_its_age_is_one_that_is_away() {
    use recsys_ingest::postgres::sqlstate::passes_by_itself;
    let database = crate::harness::Database::empty().await;
    let client = database.connect().await;
    // 25P02 is the state of a session after an error that was already reported.
    for code in ["25P02", "25P03", "25P04", "57P05", "57P01"] {
        let sql = format!("DO $$ BEGIN RAISE EXCEPTION 'over' USING ERRCODE = '{code}'; END $$");
        let error = client.batch_execute(&sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), code);
        assert!(passes_by_itself(&error), "{code}");
    }
}
