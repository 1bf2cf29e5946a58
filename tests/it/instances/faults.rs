//! Behind a load balancer, while clients send again what they have no answer for.

use std::time::Duration;

use recsys_ingest::event::table::Table;
use rustix::process::Signal;
use tokio::task::block_in_place;

use super::words::{Instance, addresses, assert_all_verified, three};
use crate::harness::{
    Audit, Balancer, Cluster, Database, Plan, Proxy, Sent, Stored, Traffic, Wire,
};

/// What is sent at the same time: the table, the level, senders, bodies a second.
const PLANS: [(Table, &str, u64, u64); 3] = [
    (Table::Interactions, "durable", 6, 40),
    (Table::Exposures, "committed", 3, 10),
    (Table::Assignments, "durable", 1, 5),
];

/// Between two faults.
const BODIES: u64 = 40;

fn start_traffic(balancer: &Balancer) -> Vec<Traffic> {
    let start = |(table, ack, senders, bodies_per_second)| {
        Traffic::start(
            balancer.address(),
            Plan {
                table,
                ack,
                senders,
                bodies_per_second,
                bodies: 20_000,
                // Every body is sent until it is acknowledged, by whichever instance.
                abandon_every: 0,
                ..Plan::default()
            },
        )
    };
    PLANS.map(start).into()
}

/// Every acknowledged event is there, and no event twice.
async fn assert_kept(database: &Database, all: &[Sent]) {
    for sent in all {
        assert!(sent.tally.strange.is_empty(), "{:?}", sent.tally.strange);
        let numbers = sent.plan.mix.numbers(sent.plan.bodies);
        let stored = Stored::read(database, sent.plan.table.as_str(), numbers).await;
        let audit = Audit::of(&[sent], &stored, None);
        assert!(audit.is_good(), "{}: {audit:?}", sent.plan.table);
        assert!(audit.acknowledged > 0, "{}", sent.plan.table);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_is_killed_one_frozen_and_one_cut_off_and_each_event_is_stored_once() {
    let cluster = block_in_place(|| Cluster::start(&[("autovacuum", "off")]));
    let database = Database::on(&cluster).await;
    let proxy = Proxy::start(&cluster).await;
    let behind = proxy.url(database.url());
    let urls = [database.url(), database.url(), behind.as_str()];
    let mut instances: Vec<Instance> = block_in_place(|| {
        let settings = three(urls, |settings| settings.with("--writers", 1));
        settings.into_iter().map(Instance::start).collect()
    });
    let balancer = Balancer::start(addresses(&instances));
    let traffic = start_traffic(&balancer);
    let interactions = &traffic[0];
    let mut goal = BODIES;
    let mut go_on = || {
        block_in_place(|| interactions.reach(goal));
        goal = interactions.acknowledged() + BODIES;
    };

    // Killed: what it had taken is on its disk, and its senders go elsewhere.
    go_on();
    block_in_place(|| instances[0].process.kill());
    go_on();
    block_in_place(|| {
        let settings = instances[0].settings.clone();
        instances[0] = Instance::start(settings);
    });
    balancer.aim(0, instances[0].client.address);

    // Frozen: connections stay open and get no answer, in the middle of its work.
    go_on();
    instances[1].process.signal(Signal::STOP);
    go_on();
    tokio::time::sleep(Duration::from_secs(3)).await;
    instances[1].process.signal(Signal::CONT);

    // Cut off from PostgreSQL, in silence and then by resets: it goes on taking events.
    go_on();
    proxy.set(Wire::BlackHole);
    go_on();
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.set(Wire::Reset);
    go_on();
    proxy.set(Wire::Pass);
    go_on();
    // All at once: killed while the others are not what they should be, either.
    instances[1].process.signal(Signal::STOP);
    proxy.set(Wire::Reset);
    block_in_place(|| instances[0].kill_and_start());
    balancer.aim(0, instances[0].client.address);
    go_on();
    instances[1].process.signal(Signal::CONT);
    proxy.set(Wire::Pass);
    go_on();

    let sent: Vec<Sent> = block_in_place(|| traffic.into_iter().map(Traffic::stop).collect());
    assert!(balancer.lost() > 0 && balancer.given_up() > 0);
    assert_all_verified(&instances).await;
    assert_kept(&database, &sent).await;
    // Bodies crossed over: an event that one instance had was posted to another.
    let client = database.connect().await;
    let sql = "SELECT sum(duplicates)::bigint FROM ingest_ledger";
    let duplicates: i64 = crate::harness::one(&client, sql).await;
    assert!(duplicates > 0);
    for mut instance in instances {
        assert!(block_in_place(|| instance.process.stop()).success());
        instance.settings.assert_verified();
    }
}
