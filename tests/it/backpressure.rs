//! Promise: beyond its limits the service refuses at once and says when to come back. Requests do
//! not hang, and acknowledged events are not dropped.

use std::time::{Duration, Instant};

use crate::harness::{
    Plan, Process, RawConnection, Rig, Sent, SmallDisk, Told, Traffic, click, eventually,
};

/// Crashes the server under load and waits until the spool is full: no body is acknowledged for a
/// second.
pub fn fill_up(rig: &mut Rig, senders: u64) -> Traffic {
    rig.cluster.crash();
    let traffic = rig.traffic(Plan {
        bodies: 200_000,
        senders,
        ..Plan::default()
    });
    let mut last = (Instant::now(), 0);
    while last.0.elapsed() < Duration::from_secs(1) {
        if traffic.acknowledged() > last.1 {
            last = (Instant::now(), traffic.acknowledged());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(last.1 > 0, "nothing went into the spool");
    traffic
}

/// Ends an overload: restarts the server, waits until `more` bodies are acknowledged, stops the
/// traffic and waits until the service is ready.
pub async fn refuses(rig: &mut Rig, traffic: Traffic, more: u64) -> Sent {
    assert_eq!(rig.ready().await, (503, "unready".to_owned()));
    rig.cluster.restart();
    traffic.reach(traffic.acknowledged() + more);
    let sent = traffic.stop();
    eventually("the service to be ready again", async || {
        rig.ready().await == (200, "ready".to_owned())
    })
    .await;
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_at_once_and_forgets_nothing() {
    let mut rig = Rig::start(|settings| settings.with("--spool-bytes-max", "36MiB")).await;
    let traffic = fill_up(&mut rig, 4);
    let sent = refuses(&mut rig, traffic, 100).await;
    assert!(!sent.tally.refusals.is_empty());
    assert_eq!(sent.tally.without_retry_after, 0);
    assert_eq!(Vec::from_iter(sent.tally.codes.keys()), ["spool_full"]);
    // A tenth of a second is generous: the machine is shared.
    let within = sent.tally.refused_within(0.9);
    assert!(within < Duration::from_millis(100), "{within:?}");
    assert_eq!(sent.count(Told::Unknown), 0);
    rig.assert_kept(&[&sent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_memory_and_many_writers_ride_out_an_outage_on_disk() {
    // Without the memory limit, the lanes together could hold far more than 32 MiB.
    let mut rig = Rig::start(|settings| {
        settings
            .with("--queue-bytes-max", "32MiB")
            .with("--body-bytes-max", "1MiB")
            .with("--writers", 4)
    })
    .await;
    rig.cluster.crash();
    let plan = Plan {
        bodies: 1800,
        senders: 4,
        ..Plan::default()
    };
    let sent = rig.traffic(plan).finish();
    assert_eq!(sent.tally.codes, std::collections::BTreeMap::new());
    assert_eq!(sent.count(Told::Durable), 1800);
    rig.cluster.restart();
    rig.assert_kept(&[&sent]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_space_for_the_spool_refuses_until_there_is_some() {
    let Some(small) = SmallDisk::mount(80) else {
        return;
    };
    let spool = small.path().join("spool");
    let mut rig = Rig::start(|settings| {
        settings
            .with("--spool-dir", spool.display())
            .with("--spool-bytes-max", "256MiB")
    })
    .await;
    let traffic = fill_up(&mut rig, 4);
    let sent = refuses(&mut rig, traffic, 100).await;
    assert_eq!(sent.tally.without_retry_after, 0);
    assert_eq!(Vec::from_iter(sent.tally.codes.keys()), ["spool_full"]);
    rig.assert_kept(&[&sent]).await;
    assert!(rig.process.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_space_for_postgres_is_waited_for() {
    let Some(small) = SmallDisk::mount(24) else {
        return;
    };
    let mut rig = Rig::start(|settings| settings).await;
    small.give_to(&rig.cluster);
    let space = small.path().join("space");
    rig.database
        .execute(&format!(
            "CREATE TABLESPACE small LOCATION '{}'",
            space.display()
        ))
        .await;
    rig.database
        .execute(
            "CREATE TABLE interaction_events_2026_03_10 PARTITION OF interaction_events
                 FOR VALUES FROM ('2026-03-10 00:00:00Z') TO ('2026-03-11 00:00:00Z')
                 TABLESPACE small",
        )
        .await;
    let traffic = rig.traffic(Plan {
        bodies: 100_000,
        bodies_per_second: 400,
        senders: 4,
        ..Plan::default()
    });
    eventually("Postgres to run out of space", async || {
        rig.ready().await == (200, "degraded".to_owned())
    })
    .await;
    traffic.reach(traffic.acknowledged() + 200);
    small.resize(512);
    eventually("Postgres to take rows again", async || {
        rig.ready().await == (200, "ready".to_owned())
    })
    .await;
    let sent = traffic.stop();
    assert_eq!(sent.tally.codes, std::collections::BTreeMap::new());
    rig.assert_kept(&[&sent]).await;
    // The tablespace's file system is unmounted when the test ends: stop the server first.
    rig.cluster.crash();
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_cap_the_connection_that_waits_longest_makes_room() {
    let rig = Rig::start(|settings| {
        settings
            .with("--connections-max", 2)
            .with("--trusted-proxies", "127.0.0.1")
    })
    .await;
    let mut open = [
        RawConnection::open(rig.address()).await,
        RawConnection::open(rig.address()).await,
    ];
    let body = click("a").to_string();
    for connection in &mut open {
        let reply = connection.post("/v1/interactions", &[], body.as_bytes());
        assert_eq!(reply.await.status, 200);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut third = RawConnection::open(rig.address()).await;
    let reply = third.post("/v1/interactions", &[], body.as_bytes());
    assert_eq!(reply.await.status, 200);
    assert_eq!(open[0].read_to_end().await, "");
    assert!(!open[1].is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_another_process_uses_is_a_clear_error() {
    let rig = Rig::start(|settings| settings).await;
    let mut second = Process::run(rig.settings.arguments());
    assert_eq!(second.wait().code(), Some(1));
    let log = second.log();
    let words = format!("in use by process {}", rig.process.pid());
    assert!(log.contains(&words), "{log}");
    assert!(log.contains("give each its own directory"), "{log}");
}
