//! Readiness without traffic.

use super::{is_ready, readiness};
use crate::harness::{Rig, click, eventually};

async fn is(rig: &Rig, status: &str) {
    eventually(status, async || readiness(&rig.client).await.0 == status).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_tells_that_postgres_is_gone_and_back_while_no_events_come() {
    let mut rig = Rig::start(|settings| settings).await;
    let stored = rig.client.post("/v1/interactions", &click("a")).await;
    assert_eq!(stored.settled(), (1, 0, 0, 0));
    is_ready(&rig.process, &rig.client).await;

    rig.cluster.suspend();
    is(&rig, "degraded").await;
    rig.cluster.resume();
    is(&rig, "ready").await;

    rig.cluster.crash();
    is(&rig, "degraded").await;
    rig.cluster.restart();
    is(&rig, "ready").await;
    let stored = rig.client.post("/v1/interactions", &click("b")).await;
    assert_eq!(stored.settled(), (1, 0, 0, 0));
}
