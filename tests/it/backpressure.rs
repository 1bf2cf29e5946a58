//! Promise: past its bounds the service refuses at once and says when to come
//! back; nothing hangs, nothing is dropped in silence.

use std::time::{Duration, Instant};

use crate::harness::{Plan, Rig, Sent, Told, Traffic, eventually};

/// Takes the server away under load, and waits until the spool is full.
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

/// Ends a time of refusals: the server comes back, and so many more bodies are taken.
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
    // A tenth of a second is generous: the machine does other things as well.
    let within = sent.tally.refused_within(0.9);
    assert!(within < Duration::from_millis(100), "{within:?}");
    assert_eq!(sent.count(Told::Unknown), 0);
    rig.assert_kept(&[&sent]).await;
}
