//! Promise: a record that this version cannot read is kept and reported; records before it are
//! stored, and events after it are accepted.

use std::path::Path;

use bytes::Bytes;
use recsys_ingest::admission;
use recsys_ingest::event::table::Table;
use recsys_ingest::log::record::{Record, Turn};
use recsys_ingest::log::spool;

use crate::harness::{Client, Process, Rig, click, eventually};

/// Appends a record of interactions with a row format of a future version.
fn append_frame_of_the_future(directory: &Path) {
    let (sender, entries) = flume::bounded::<Record<(), ()>>(1);
    let settings = spool::settings::Settings {
        streams: vec![0, 1],
        ..spool::settings::Settings::default()
    };
    let opened = spool::recover::open::open(directory, settings, entries).unwrap();
    let (durable, answer) = tokio::sync::oneshot::channel();
    let entry = Record {
        stream: admission::record::stream(Table::Interactions, 0),
        items: 1,
        payload: Bytes::from_static(&[99, Table::Interactions as u8, 1, 2, 3]),
        turn: Turn::default(),
        durable: Some(durable),
        memory: (),
        result: None,
    };
    assert!(sender.send(entry).is_ok());
    drop(sender);
    opened.committer.run();
    assert_eq!(answer.blocking_recv().unwrap(), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_another_version_stops_its_lane_and_costs_no_event() {
    let mut rig = Rig::start(|settings| settings.with("--writers", "1")).await;
    rig.cluster.crash();
    let post = async |client: &Client, name: &str| {
        let durable = client.query("ack=durable");
        let reply = durable.post("/v1/interactions", &click(name)).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
    };
    post(&rig.client, "before").await;
    rig.process.kill();
    let directory = rig.settings.spool.path().to_owned();
    tokio::task::spawn_blocking(move || append_frame_of_the_future(&directory))
        .await
        .unwrap();

    rig.cluster.restart();
    rig.process = Process::run(rig.settings.arguments());
    rig.client = Client::new(rig.process.listening());
    eventually("what came before", async || {
        rig.database.count("interaction_events").await == 1
    })
    .await;
    // A successful store does not hide the fault.
    eventually("the fault to be told", async || {
        let reply = rig.client.get("/readyz?verbose").await;
        reply.status == 200 && reply.text.contains("until an operator mends something")
    })
    .await;
    assert!(
        rig.process.log().contains("the rows are in format 99"),
        "{}",
        rig.process.log()
    );
    post(&rig.client, "after").await;
    let [accepted, stored, .., spooled] = rig.rows().await;
    assert_eq!((accepted, stored, spooled), (3, 1, 2));
    let reply = rig.client.get("/readyz").await;
    assert!(reply.text.contains("operator"), "{}", reply.text);
}
