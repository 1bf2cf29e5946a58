//! Promise: what was acknowledged as durable is stored exactly once, through
//! crashes of the service and of PostgreSQL.

use crate::harness::{BODY_EVENTS, Mix, Plan, Rig, Sent, Told};

/// Crashes under load.
#[derive(Clone, Copy, Debug)]
pub struct Crashes {
    /// Times that the service is killed with SIGKILL.
    pub service: u64,
    /// Times that PostgreSQL is stopped with an immediate shutdown.
    pub postgres: u64,
    /// Events that have to be acknowledged.
    pub events: u64,
    /// Number of senders.
    pub senders: u64,
}

/// Crashes a service and its server while senders go on; returns what was sent.
pub fn crash(rig: &mut Rig, crashes: Crashes) -> Sent {
    let bodies = crashes.events / BODY_EVENTS;
    let traffic = rig.traffic(Plan {
        // Some bodies are abandoned, so the plan has more bodies than are acknowledged.
        bodies: bodies * 4 + 100_000,
        senders: crashes.senders,
        ..Plan::default()
    });
    let every = crashes.service.div_ceil(crashes.postgres.max(1)).max(1);
    let mut postgres_left = crashes.postgres;
    for cycle in 0..crashes.service {
        // Each crash hits another moment of a group commit and of a batch.
        let share = bodies / crashes.service;
        traffic.reach(cycle * share + share / 2 + cycle * 7 % share.max(1) / 2);
        let takes_postgres_along = cycle % every == every / 2 && postgres_left > 0;
        match (takes_postgres_along, postgres_left % 3) {
            (false, _) => rig.kill(&traffic),
            // PostgreSQL first, the service first, or both at once.
            (true, 0) => {
                rig.crash_postgres();
                rig.kill(&traffic);
            }
            (true, 1) => {
                rig.kill(&traffic);
                rig.crash_postgres();
            }
            (true, _) => {
                rig.process.kill();
                rig.crash_postgres();
                rig.serve();
                traffic.aim(rig.address());
            }
        }
        postgres_left -= u64::from(takes_postgres_along);
    }
    traffic.reach(bodies);
    traffic.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9_and_crashes_of_postgres() {
    let mut rig = Rig::start(|settings| settings).await;
    let crashes = Crashes {
        service: 4,
        postgres: 3,
        events: 40_000,
        senders: 8,
    };
    let sent = crash(&mut rig, crashes);
    assert!(sent.count(Told::Unknown) > 0, "no sender was cut off");
    let audit = rig.assert_kept(&[&sent]).await;
    assert!(audit.acknowledged >= 40_000, "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_postgres_is_away_loses_nothing() {
    let mut rig = Rig::start(|settings| settings).await;
    rig.cluster.crash();
    let plan = Plan {
        bodies: 300,
        mix: Mix::Clean,
        ..Plan::default()
    };
    let sent = rig.traffic(plan).finish();
    assert_eq!(sent.count(Told::Durable), 300);
    rig.process.kill();
    rig.cluster.restart();
    rig.serve();
    let audit = rig.assert_kept(&[&sent]).await;
    assert_eq!(audit.acknowledged, 30_000);
    let [accepted, stored, duplicates, ..] = rig.rows().await;
    assert_eq!((accepted, stored, duplicates), (30_000, 30_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_writers_after_a_restart_still_store_what_all_streams_hold() {
    let mut rig = Rig::start(|settings| settings.with("--writers", 4)).await;
    rig.cluster.crash();
    let plan = Plan {
        bodies: 200,
        ..Plan::default()
    };
    let sent = rig.traffic(plan).finish();
    rig.process.kill();
    rig.cluster.restart();
    rig.settings = rig.settings.clone().with("--writers", 1);
    rig.serve();
    rig.assert_kept(&[&sent]).await;
    // More writers again.
    rig.settings = rig.settings.clone().with("--writers", 3);
    assert!(rig.process.stop().success());
    rig.serve();
    let more = Plan { first: 200, ..plan };
    let more = rig.traffic(more).finish();
    rig.assert_kept(&[&sent, &more]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_only_received_arrives_whole_or_not_at_all() {
    let mut rig = Rig::start(|settings| settings).await;
    let traffic = rig.traffic(Plan {
        ack: "received",
        bodies: 100_000,
        ..Plan::default()
    });
    for cycle in 1..3 {
        traffic.reach(cycle * 150);
        rig.kill(&traffic);
    }
    traffic.reach(450);
    let sent = traffic.stop();
    let audit = rig.audit(&[&sent]).await;
    assert!(audit.is_good(), "{audit:?}");
}
