//! Promise: an acknowledged event is stored once, however the connections between its sender, the
//! service and PostgreSQL break.

use std::time::Duration;

use crate::harness::{
    BODY_EVENTS, Cluster, Cut, Database, Mix, Plan, Process, Proxy, Rig, Sent, Settings, Told,
    Traffic, Wire, click, eventually,
};

/// A rig with a proxy between the service and its server, and the one body that it has stored.
pub async fn behind_proxy(change: impl FnOnce(Settings) -> Settings) -> (Rig, Proxy, Sent) {
    let cluster = Cluster::start(&[("autovacuum", "off")]);
    let proxy = Proxy::start(&cluster).await;
    let url = proxy.url(&cluster.url("recsys"));
    let rig = Rig::on(cluster, |settings| {
        change(settings.with("--database-url", url))
    })
    .await;
    // Create the partitions first, so that later COMMITs are those of batches.
    let warm_up = Plan {
        first: 1000,
        bodies: 1,
        ..Plan::default()
    };
    let warm_up = rig.traffic(warm_up).finish();
    rig.settle().await;
    let mut commits = 0;
    while commits < proxy.commits() {
        commits = proxy.commits();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    (rig, proxy, warm_up)
}

/// Sends new and duplicate events while COMMITs are cut off.
async fn cut_at_commit(cut: Cut) {
    let (rig, proxy, warm_up) =
        behind_proxy(|settings| settings.with("--commit-timeout", "60s")).await;
    let plan = Plan {
        ack: "committed",
        mix: Mix::Repeats { back: 16 },
        bodies: 200,
        senders: 4,
        ..Plan::default()
    };
    let traffic = rig.traffic(plan);
    for round in 1..=4 {
        proxy.cut(cut, 2);
        eventually("COMMITs to be cut off", async || proxy.cuts() == 2 * round).await;
        traffic.reach(round * 30);
    }
    let sent = traffic.finish();
    assert_eq!(sent.count(Told::Committed), 200);
    rig.assert_kept(&[&warm_up, &sent]).await;
    // Answers, ledger and metrics agree with the row counts of the tables.
    let [accepted, stored, duplicates, quarantined, spooled] = rig.rows().await;
    assert_eq!((accepted, spooled, quarantined), (20_100, 0, 0));
    assert_eq!((stored, duplicates), (14_100, 6_000));
    assert_eq!(sent.tally.settled, (14_000, 6_000, 0));
    assert_eq!(rig.database.count("interaction_events").await, 14_100);
    assert_counted(&rig, 14_100, 6_000).await;
}

/// Asserts the values of the event counters.
async fn assert_counted(rig: &Rig, stored: u64, duplicates: u64) {
    let text = rig.client.get("/metrics").await.text;
    for (outcome, number) in [("stored", stored), ("duplicate", duplicates)] {
        let sample = format!(
            "recsys_ingest_events_total{{table=\"interaction_events\",outcome=\"{outcome}\"}} {number}"
        );
        assert!(text.lines().any(|line| line == sample), "{sample}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_three_round_trips() {
    let (rig, proxy, _) = behind_proxy(|settings| settings.with("--writers", "1")).await;
    proxy.set(Wire::Delay(Duration::from_millis(20)));
    let committed = rig.client.query("ack=committed");
    for name in ["one", "two", "three"] {
        let reply = committed.post("/v1/interactions", &click(name)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        // BEGIN and COPY; the rows and the ledger's row; COMMIT.
        assert_eq!(proxy.round_trips(), 3, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_is_done_again() {
    cut_at_commit(Cut::Before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_not_done_again() {
    cut_at_commit(Cut::After).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_still_under_way_when_its_connection_breaks_counts_once() {
    let (rig, proxy, warm_up) =
        behind_proxy(|settings| settings.with("--commit-timeout", "60s")).await;
    // Each COMMIT takes a second, and continues after its client has disconnected.
    rig.database
        .execute(
            "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
                 $$BEGIN PERFORM pg_sleep(1); RETURN NULL; END$$;
             CREATE CONSTRAINT TRIGGER linger AFTER INSERT OR UPDATE ON ingest_ledger
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION linger()",
        )
        .await;
    let plan = Plan {
        ack: "committed",
        mix: Mix::Repeats { back: 1 },
        bodies: 6,
        senders: 1,
        ..Plan::default()
    };
    proxy.cut(Cut::During, 2);
    let sent = rig.traffic(plan).finish();
    assert_eq!(proxy.cuts(), 2);
    rig.assert_kept(&[&warm_up, &sent]).await;
    assert_eq!(sent.count(Told::Committed), 6);
    assert_eq!(sent.tally.settled, (420, 180, 0));
    assert_eq!(rig.rows().await, [700, 520, 180, 0, 0]);
    assert_counted(&rig, 520, 180).await;
    // An error in the log calls an operator; here there is nothing to repair.
    let log = rig.process.log();
    assert!(!log.contains("\"level\":\"ERROR\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_delays_throttles_resets_and_swallows_costs_time_and_nothing_else() {
    let (rig, proxy, warm_up) = behind_proxy(|settings| settings).await;
    let traffic = rig.traffic(Plan {
        bodies: 1_000_000,
        bodies_per_second: 300,
        senders: 4,
        ..Plan::default()
    });
    let mut taken = 0;
    for wire in [
        Wire::Delay(Duration::from_millis(20)),
        Wire::Throttle(200_000),
        Wire::Reset,
        Wire::BlackHole,
        Wire::Pass,
        Wire::BlackHole,
    ] {
        proxy.set(wire);
        tokio::time::sleep(Duration::from_millis(700)).await;
        // The service accepts events during every fault.
        let now = traffic.acknowledged();
        assert!(now > taken + 20, "{wire:?}: {taken} bodies, then {now}");
        assert_eq!(rig.ready().await.0, 200, "{wire:?}");
        taken = now;
        // Like a router that forgets its connections: the swallowed bytes never arrive.
        if wire == Wire::BlackHole {
            proxy.reset();
        }
    }
    proxy.set(Wire::Pass);
    let sent = traffic.stop();
    assert_eq!(sent.tally.refusals.len(), 0);
    rig.assert_kept(&[&warm_up, &sent]).await;
    eventually("ready", async || rig.ready().await.1 == "ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_on_one_database_store_what_both_were_given_once() {
    let database = Database::with_tenants().await;
    let settings = [Settings::new(&database), Settings::new(&database)];
    let [first, second] = &settings;
    let instances = [Process::serve(first), Process::serve(second)];
    let addresses = instances.each_ref().map(|(_, client)| client.address);
    let plan = Plan {
        ack: "committed",
        bodies: 150,
        senders: 4,
        ..Plan::default()
    };
    // Both instances get each body, at about the same time.
    let traffic = addresses.map(|address| Traffic::start(address, plan));
    let sent = traffic.map(Traffic::finish);
    let total = sent.iter().fold((0, 0), |total, sent| {
        assert_eq!(sent.count(Told::Committed), 150);
        (
            total.0 + sent.tally.settled.0,
            total.1 + sent.tally.settled.1,
        )
    });
    let events = 150 * BODY_EVENTS;
    assert_eq!(total, (events, events));
    assert_eq!(
        u64::try_from(database.count("interaction_events").await),
        Ok(events)
    );
    for settings in &settings {
        settings.assert_verified();
    }
}
