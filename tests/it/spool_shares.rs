//! Promise: while Postgres is away, a tenant that fills the spool leaves room for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use recsys_ingest::tenants::role::Role;

use crate::backpressure::fill_up;
use crate::harness::{Rig, click};

const PATH: &str = "/v1/interactions";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_fills_the_spool_is_refused_before_another_is() {
    let mut rig = Rig::start(|settings| settings.with("--spool-bytes-max", "36MiB")).await;
    let small = rig.client.role("other", Role::Ingest).query("ack=durable");
    let (ends, mut posts) = (
        Arc::new(AtomicBool::new(false)),
        tokio::task::JoinSet::new(),
    );
    let (ended, client) = (Arc::clone(&ends), small.clone());
    posts.spawn(async move {
        let mut stored = 0;
        while !ended.load(Ordering::Relaxed) {
            let reply = client.post(PATH, &click(&format!("small {stored}"))).await;
            assert_eq!(reply.status, 202, "{}", reply.text);
            stored += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stored
    });
    let traffic = tokio::task::block_in_place(|| fill_up(&mut rig, 4));
    let large = rig.client.query("ack=durable");
    let body = (0..100).map(|n| click(&format!("large {n}"))).collect();
    // A body smaller than those that were refused may still fit.
    let reply = loop {
        let reply = large.post(PATH, &body).await;
        if reply.status != 202 {
            break reply;
        }
    };
    assert_eq!(reply.problem(), (503, "spool_full"), "{}", reply.text);
    let detail = reply.json["detail"].as_str().unwrap();
    assert!(detail.contains("its share of the spool"), "{detail}");
    assert!(detail.contains("Postgres is away"), "{detail}");
    assert_ne!(reply.header("retry-after"), "");
    // The other's posts go on, also of many events at once.
    let reply = small.post(PATH, &body).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    ends.store(true, Ordering::Relaxed);
    let stored = posts.join_next().await.unwrap().unwrap();
    assert!(stored > 0);
    // Once Postgres is back, all is stored, and the large tenant is let in again.
    rig.cluster.restart();
    traffic.reach(traffic.acknowledged() + 50);
    let sent = traffic.stop();
    rig.settle().await;
    let found = rig
        .database
        .count(&format!(
            "interaction_events WHERE tenant_id = '{}'",
            crate::harness::OTHER
        ))
        .await;
    assert_eq!(found, stored + 100);
    assert!(sent.tally.codes.keys().all(|code| code == "spool_full"));
}
