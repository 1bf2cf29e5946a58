//! Promise: what there is no room for is not charged to its sender's limits, also where that shows
//! only after the charge.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::{Reply, Rig};

const PATH: &str = "/v1/interactions";

/// Events of a body. Far more than flow in while the test runs: one a second.
const EVENTS: u64 = 5000;

/// Events at once.
const BURST: u64 = 1_000_000;

/// Equal events without an id, which compress to almost nothing: by its head, such a body fits into
/// the last bytes of the spool, and its rows do not.
fn dense_body() -> Vec<u8> {
    let event = r#"{"event_type":"click","item_id":"a","occurred_at":"2026-03-10T08:00:00Z"}"#
        .to_owned()
        + "\n";
    let lines = event.repeat(usize::try_from(EVENTS).unwrap());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(lines.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// The events that the tenant may still send.
fn left(reply: &Reply) -> u64 {
    let fields = reply.header("ratelimit");
    let (_, rest) = fields.split_once(r#""tenant";r="#).unwrap();
    rest.split(';').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_503_gives_the_charge_back() {
    let limits = format!("events_per_second=1,events_burst={BURST}");
    let mut rig = Rig::start(|settings| {
        settings
            .with("--spool-bytes-max", "36MiB")
            .with("--default-ack", "durable")
            .with("--limits-tenant", limits)
    })
    .await;
    rig.cluster.crash();
    let body = dense_body();
    let lines = rig.client.header("content-type", "application/x-ndjson");
    let dense = lines.header("content-encoding", "gzip");
    let mut taken = 0;
    let refused = loop {
        let reply = dense.post_bytes(PATH, body.clone()).await;
        if reply.status != 202 {
            break reply;
        }
        taken += EVENTS;
        assert!(taken < BURST, "the spool takes more than it may hold");
    };
    assert_eq!(refused.problem(), (503, "spool_full"), "{}", refused.text);
    assert!(taken > 0);
    // Its own event is charged, too.
    let event = r#"{"event_type":"click","item_id":"a"}"#;
    let looked_at = lines.query("validate=true").post_bytes(PATH, event).await;
    assert_eq!(looked_at.status, 200, "{}", looked_at.text);
    let spent = BURST - left(&looked_at);
    assert!(spent <= taken + 1, "{spent} of {taken} that were taken");
    assert!(
        spent + EVENTS / 2 > taken,
        "{spent} of {taken} that were taken"
    );
}
