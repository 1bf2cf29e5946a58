//! Measurements of the promised figures: `cargo test --release --test it -- --ignored soak`.
//!
//! Takes about half an hour and 20 GB of disk. Each figure is printed as a line,
//! `soak: <name>: asked … measured …`; one that is not met is a failure. One measurement runs at
//! a time, on a server that waits for its disk. Small tests of the same promises are in the files
//! of those promises.

mod durability;

use std::fmt::Display;
use std::io::Write as _;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

use crate::backpressure::{fill_up, refuses};
use crate::crash::{Crashes, crash};
use crate::delivery::behind_proxy;
use crate::harness::{Audit, BODY_EVENTS, Cluster, Cut, Mix, Plan, Rig, Sent, Settings};
use crate::outage::{Away, Load, Outage, outage};
use crate::poison::refuse_poison;
use durability::{Durability, Postgres};

/// Lets one measurement run at a time.
async fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    ONE_AT_A_TIME.lock().await
}

async fn rig(change: impl FnOnce(Settings) -> Settings) -> Rig {
    let cluster = Cluster::durable(&[("shared_buffers", "256MB"), ("max_wal_size", "4GB")]);
    Rig::on(cluster, change).await
}

/// Prints a figure, past the test harness's capture; fails if it is not met.
fn figure(name: &str, asked: impl Display, measured: impl Display, met: bool) {
    let mut unmet = Unmet::default();
    unmet.figure(name, asked, measured, met);
    unmet.assert_none();
}

/// The figures that were not met, for tests that print all figures before they fail.
#[derive(Default)]
struct Unmet {
    lines: String,
}

impl Unmet {
    /// Prints a figure, past the test harness's capture.
    fn figure(&mut self, name: &str, asked: impl Display, measured: impl Display, met: bool) {
        let verdict = if met { "" } else { ", NOT MET" };
        let line = format!("soak: {name}: asked {asked} measured {measured}{verdict}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        if !met {
            self.lines.push_str(&line);
        }
    }

    fn assert_none(self) {
        assert!(self.lines.is_empty(), "{}", self.lines);
    }
}

/// Prints a note between the figures.
fn note(text: impl Display) {
    let line = format!("soak: ({text})\n");
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

fn per_second(events: u64, took: Duration) -> f64 {
    f64::from(u32::try_from(events).unwrap()) / took.as_secs_f64()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; see the head of this file"]
async fn crashes_lose_nothing_and_store_nothing_twice() {
    let _alone = alone().await;
    let mut rig = rig(|settings| settings).await;
    let events = 5_000_000;
    let started = Instant::now();
    let crashes = Crashes {
        service: 100,
        postgres: 20,
        events,
        senders: 16,
    };
    let sent = crash(&mut rig, crashes);
    let audit = rig.audit(&[&sent]).await;
    note(format!(
        "100 kill -9, 20 crashes of PostgreSQL in {:.0?}; {audit:?}",
        started.elapsed()
    ));
    let acknowledged = audit.acknowledged;
    figure(
        "crash events",
        ">= 5000000",
        acknowledged,
        acknowledged >= events,
    );
    figure("crash missing", 0, audit.missing, audit.missing == 0);
    figure("crash stored twice", 0, audit.twice, audit.twice == 0);
    figure(
        "crash other differences",
        "none",
        format!("{audit:?}"),
        audit.is_good(),
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; see the head of this file"]
async fn an_outage_of_a_minute_is_ridden_out() {
    let _alone = alone().await;
    // Room for more than a minute of events.
    let mut rig = rig(|settings| settings.with("--spool-bytes-max", "16GiB")).await;
    let found = outage(
        &mut rig,
        Outage {
            how: Away::Crashed,
            load: Load::AsStored,
            steady: Duration::from_secs(15),
            away: Duration::from_secs(60),
            drain: Duration::from_secs(20),
            senders: 16,
        },
    )
    .await;
    note(format!("{found:?}"));
    let mib = found.memory_bytes >> 20;
    figure(
        "outage 5xx below the cap",
        0,
        found.refusals,
        found.refusals == 0,
    );
    figure("outage memory MiB", "<= 300", mib, mib <= 300);
    let share = found.drained_per_second / found.steady_per_second;
    figure(
        "outage drain share",
        ">= 0.80",
        format!("{share:.2}"),
        share >= 0.8,
    );
    figure(
        "outage differences",
        "none",
        format!("{:?}", found.audit),
        found.audit.is_good(),
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; see the head of this file"]
async fn a_server_that_is_frozen_for_half_a_minute_is_waited_for() {
    let _alone = alone().await;
    // Room for all events of the freeze: the cap is not what is tested.
    let mut rig = rig(|settings| settings.with("--spool-bytes-max", "24GiB")).await;
    let found = outage(
        &mut rig,
        Outage {
            how: Away::Frozen,
            load: Load::AsTaken,
            steady: Duration::from_secs(6),
            away: Duration::from_secs(30),
            drain: Duration::from_secs(6),
            senders: 16,
        },
    )
    .await;
    // `outage` has waited until all rows were stored.
    note(format!("{found:?}"));
    let Audit { missing, twice, .. } = found.audit;
    let mib = found.memory_bytes >> 20;
    let (status, readiness) = &found.readiness;
    figure(
        "frozen 503 below the cap",
        0,
        found.refusals,
        found.refusals == 0,
    );
    figure(
        "frozen readiness",
        200,
        format!("{status} ({readiness})"),
        *status == 200,
    );
    figure("frozen memory MiB", "<= 300", mib, mib <= 300);
    figure("frozen missing", 0, missing, missing == 0);
    figure("frozen stored twice", 0, twice, twice == 0);
    figure(
        "frozen other differences",
        "none",
        format!("{:?}", found.audit),
        found.audit.is_good() && found.audit.acknowledged > 0,
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; see the head of this file"]
async fn a_full_spool_refuses_fast() {
    let _alone = alone().await;
    let mut rig = rig(|settings| settings.with("--spool-bytes-max", "64MiB")).await;
    let traffic = fill_up(&mut rig, 16);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let sent = refuses(&mut rig, traffic, 2000).await;
    let within = sent.tally.refused_within(0.99);
    note(format!(
        "{} refusals, {:?}, median {:?}, last {:?}",
        sent.tally.refusals.len(),
        sent.tally.codes,
        sent.tally.refused_within(0.5),
        sent.tally.refused_within(1.0)
    ));
    figure(
        "refusal p99",
        "< 10ms",
        format!("{within:.1?}"),
        within < Duration::from_millis(10),
    );
    let without = sent.tally.without_retry_after;
    figure("refusals without Retry-After", 0, without, without == 0);
    let audit = rig.audit(&[&sent]).await;
    figure(
        "missing after a full spool",
        0,
        audit.missing,
        audit.is_good(),
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; see the head of this file"]
async fn poisoned_rows_cost_others_little() {
    let _alone = alone().await;
    let rig = rig(|settings| settings).await;
    refuse_poison(&rig.database).await;
    let (rates, sent) = alternate(&rig, Mix::Poisoned { every: 1000 }).await;
    let audit = rig.audit(&sent.iter().collect::<Vec<_>>()).await;
    note(format!("{audit:?}"));
    let set_aside = rig.database.count("ingest_quarantine").await;
    figure(
        "poisoned rows set aside",
        1000,
        set_aside,
        set_aside == 1000,
    );
    figure(
        "poison differences",
        "none",
        format!("{audit:?}"),
        audit.is_good(),
    );
    figure(
        "poison share",
        ">= 0.25",
        format!("{rates:.2}"),
        rates >= 0.25,
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; see the head of this file"]
async fn duplicates_cost_little() {
    let _alone = alone().await;
    let rig = rig(|settings| settings).await;
    let (rates, sent) = alternate(&rig, Mix::Repeats { back: 64 }).await;
    let audit = rig.audit(&sent.iter().collect::<Vec<_>>()).await;
    note(format!("{audit:?}"));
    let [_, stored, duplicates, ..] = rig.rows().await;
    figure("duplicates", 300_000, duplicates, duplicates == 300_000);
    // 70 % of a million from the mix, a million clean ones, and those sent in between.
    let expected = 700_000 + 1_000_000 + ROUNDS * FORGET_BODIES * BODY_EVENTS;
    figure("stored beside them", expected, stored, stored == expected);
    figure(
        "duplicate differences",
        "none",
        format!("{audit:?}"),
        audit.is_good(),
    );
    figure(
        "duplicate share",
        ">= 0.35",
        format!("{rates:.2}"),
        rates >= 0.35,
    );
}

/// Sends a million events of a mix and a million clean ones, in alternating rounds; returns the
/// median of the mix's rate over the clean rate. A rate counts until all rows are stored.
async fn alternate(rig: &Rig, mix: Mix) -> (f64, Vec<Sent>) {
    let (mut shares, mut all) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mixed = send(rig, mix, round * BODIES, BODIES, &mut all).await;
        // Above all numbers of the mix.
        let first = ROUNDS * BODIES + round * (BODIES + FORGET_BODIES);
        // After a batch with duplicates, a writer checks each batch for duplicates before it
        // stores it, until 16 in a row had none. Clean bodies are measured only after that, since
        // the check takes time.
        send(rig, Mix::Clean, first, FORGET_BODIES, &mut all).await;
        let before = probes(rig).await;
        let clean = send(rig, Mix::Clean, first + FORGET_BODIES, BODIES, &mut all).await;
        assert_eq!(
            probes(rig).await,
            before,
            "a writer still expects duplicates"
        );
        note(format!(
            "round {round}: {mixed:.0} events/s against {clean:.0} clean"
        ));
        shares.push(mixed / clean);
    }
    (median(shares), all)
}

/// The samples of the counter of batches that were checked for duplicates first.
async fn probes(rig: &Rig) -> Vec<String> {
    let text = rig.client.get("/metrics").await.text;
    let of_probes = |line: &&str| line.starts_with("recsys_ingest_checked_batches_total");
    text.lines().filter(of_probes).map(str::to_owned).collect()
}

/// Rounds of [`alternate`].
const ROUNDS: u64 = 5;
/// Bodies of one measurement.
const BODIES: u64 = 2000;
/// Clean bodies after which no writer checks for duplicates any more: two writers with 16 batches
/// of 20,000 rows each make 640,000 events, and these are 800,000.
const FORGET_BODIES: u64 = 8000;

/// Sends bodies; returns the rate at which they were stored.
async fn send(rig: &Rig, mix: Mix, first: u64, bodies: u64, all: &mut Vec<Sent>) -> f64 {
    let plan = Plan {
        mix,
        first,
        bodies,
        senders: 16,
        ..Plan::default()
    };
    let started = Instant::now();
    all.push(rig.traffic(plan).finish());
    rig.settle().await;
    per_second(bodies * BODY_EVENTS, started.elapsed())
}

/// What waiting for the disk costs depends on the other load of the machine, so it is measured in
/// three ways, with 16 and with 64 senders.
///
/// On two cores `received` accepts events faster than Postgres stores them: its answers cost only
/// memory, Postgres gets the CPU that the senders leave, and the rest of the work follows after
/// the last answer. With `durable`, senders wait for the disk while Postgres stores, so fewer
/// events are acknowledged a second though as many are stored.
///
/// The rate *until stored* is the sustainable one and is asked of 16 senders. The rate *until
/// acknowledged* is asked of 64 senders, which fill the groups of the group commit: with few
/// senders, their own waiting is measured, and Postgres uses that time. With PostgreSQL *frozen*,
/// the cores belong to the service and its senders, and only the price of waiting for the disk is
/// left.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; see the head of this file"]
async fn durability_costs_little() {
    let _alone = alone().await;
    // Room for all that is sent while nothing is stored.
    let mut rig = rig(|settings| settings.with("--spool-bytes-max", "24GiB")).await;
    let (mut next, mut all) = (0, Vec::new());
    let mut beside = Durability::on(&rig, Postgres::Stores, &mut next, &mut all);
    let stored = [beside.shares(16).await, beside.shares(64).await];
    rig.cluster.suspend();
    let mut alone = Durability::on(&rig, Postgres::Frozen, &mut next, &mut all);
    let frozen = [alone.shares(16).await, alone.shares(64).await];
    rig.cluster.resume();
    let audit = rig.audit(&all.iter().collect::<Vec<_>>()).await;

    let mut unmet = Unmet::default();
    unmet.figure(
        "durability differences",
        "none",
        format!("{audit:?}"),
        audit.is_good(),
    );
    let until_stored = stored.map(|shares| shares.stored.unwrap());
    let asked = [
        ("until stored, 16 senders", until_stored[0]),
        ("until acknowledged, 64 senders", stored[1].acknowledged),
        (
            "PostgreSQL out of the way, 16 senders",
            frozen[0].acknowledged,
        ),
    ];
    for (what, share) in asked {
        let name = format!("durability share, {what}");
        unmet.figure(&name, ">= 0.85", format!("{share:.2}"), share >= 0.85);
    }
    let told = [
        ("until stored, 64 senders", until_stored[1]),
        ("until acknowledged, 16 senders", stored[0].acknowledged),
        (
            "PostgreSQL out of the way, 64 senders",
            frozen[1].acknowledged,
        ),
    ];
    for (what, share) in told {
        note(format!("durability share, {what}: {share:.2}"));
    }
    unmet.assert_none();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; see the head of this file"]
async fn a_connection_that_died_unnoticed_does_not_block_its_successor() {
    let _alone = alone().await;
    let (rig, proxy, warm_up) = behind_proxy(|settings| settings).await;
    // The server keeps the locks of a transaction that its client can no longer end.
    proxy.cut(Cut::Swallow, 1);
    let started = Instant::now();
    let plan = Plan {
        bodies: 50,
        ..Plan::default()
    };
    let sent = rig.traffic(plan).finish();
    rig.settle().await;
    let took = started.elapsed().as_secs();
    let audit = rig.audit(&[&warm_up, &sent]).await;
    figure(
        "dead connection differences",
        "none",
        format!("{audit:?}"),
        audit.is_good(),
    );
    figure("dead connection seconds", "<= 90", took, took <= 90);
}
