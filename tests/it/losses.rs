//! Promise: accepted events that are lost from the disk are counted once and reported; a file
//! that is not a segment of the spool costs no event.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Client, Process, Rig, click, eventually};

const ROWS: u64 = 600;

/// Posts `ROWS` events with `ack=durable`.
async fn post(client: &Client, name: &str) {
    let body: Vec<Value> = (0..ROWS).map(|n| click(&format!("{name} {n}"))).collect();
    let reply = client
        .query("ack=durable")
        .post("/v1/interactions", &json!(body))
        .await;
    assert_eq!(reply.status, 202, "{}", reply.text);
}

/// A rig with a service that was killed `lives` times while Postgres was away. Each life wrote
/// another segment.
async fn crashed(lives: usize) -> Rig {
    let mut rig = Rig::start(|settings| settings.with("--writers", 1)).await;
    let keys = rig.settings.spool.path().join("keys");
    eventually("the copy of the keys", async || keys.exists()).await;
    rig.cluster.crash();
    for life in 0..lives {
        if life > 0 {
            rig.serve();
        }
        // In small records, so that a cut leaves some of them intact.
        for part in 0..12 {
            let body: Vec<Value> = (0..ROWS / 12)
                .map(|n| click(&format!("{life} {part} {n}")))
                .collect();
            let reply = rig
                .client
                .query("ack=durable")
                .post("/v1/interactions", &json!(body))
                .await;
            assert_eq!(reply.status, 202, "{}", reply.text);
        }
        rig.process.kill();
    }
    rig.cluster.restart();
    rig
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(to).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn flip(path: &Path, places: &[usize]) {
    let mut bytes = fs::read(path).unwrap();
    for &at in places {
        bytes[at] ^= 0xff;
    }
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

/// The end of the last record in a segment: behind it are only zeros.
fn end(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1
}

/// State once the spool is drained: lost rows by the accounts and by the spool, status, and
/// reasons.
async fn told(rig: &Rig) -> (u64, u64, String, String) {
    eventually("everything to be settled", async || {
        let [.., spooled] = rig.rows().await;
        spooled == 0
    })
    .await;
    let reply = rig.client.get("/readyz?verbose").await.json;
    let lost = |table: &Value| table["lost"].as_u64().unwrap_or(0);
    let rows = reply["rows"].as_array().unwrap();
    (
        rows.iter().map(lost).sum(),
        reply["spool"]["lost"].as_u64().unwrap(),
        reply["status"].as_str().unwrap().to_owned(),
        reply["reasons"].to_string(),
    )
}

/// A name, a way to lose records, and the words of the log that report it.
type Loss = (&'static str, fn(&[PathBuf]), &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_from_the_disk_is_counted_once_named_and_degrades() {
    let losses: [Loss; 7] = [
        ("nothing", |_| {}, ""),
        (
            "first deleted",
            |all| fs::remove_file(&all[0]).unwrap(),
            "before",
        ),
        (
            "first without headers",
            |all| flip(&all[0], &[40, 4096 + 40]),
            ".damaged",
        ),
        ("first cut to nothing", |all| cut(&all[0], 0), "before"),
        (
            "first cut inside its header",
            |all| cut(&all[0], 300),
            "before",
        ),
        (
            "first cut in its frames",
            |all| cut(&all[0], end(&all[0]) - 100),
            "is damaged",
        ),
        (
            "middle deleted",
            |all| fs::remove_file(&all[1]).unwrap(),
            "between",
        ),
    ];
    let mut rig = crashed(3).await;
    let directory = rig.settings.spool.path().to_owned();
    let kept = tempfile::tempdir().unwrap();
    copy(&directory, kept.path());
    for (what, lose, words) in losses {
        copy(kept.path(), &directory);
        for table in ["ingest_ledger", "interaction_events"] {
            rig.database.execute(&format!("DELETE FROM {table}")).await;
        }
        lose(&segments(&directory));
        rig.serve();
        let (lost, by_spool, status, reasons) = told(&rig).await;
        let stored = rig
            .database
            .count("interaction_events")
            .await
            .cast_unsigned();
        println!("{what}: lost {lost} {by_spool}, {status} {reasons}, stored {stored}");
        assert_eq!(stored + lost, 3 * ROWS, "{what}\n{}", rig.process.log());
        assert_eq!(lost, by_spool, "{what}");
        let log = rig.process.log();
        if what == "nothing" {
            assert_eq!((lost, status.as_str()), (0, "ready"), "{reasons}");
            rig.settings.assert_verified();
        } else {
            assert!(lost > 0, "{what}\n{log}");
            assert_eq!(status, "degraded", "{what}");
            assert!(reasons.contains("lost"), "{what}: {reasons}");
            assert!(log.contains(words) && log.contains(".seg"), "{what}: {log}");
            let (code, text) = rig.settings.verify();
            assert_eq!(code, 1, "{what}: {text}");
            assert!(text.contains(&format!("{lost} lost")), "{what}: {text}");
        }
        // Another start counts the same loss, and no more.
        let stopped = rig.process.stop();
        assert!(
            stopped.success(),
            "{what}: {stopped}\n{}",
            rig.process.log()
        );
        rig.serve();
        let again = told(&rig).await;
        assert_eq!((again.0, again.1), (lost, lost), "{what}");
        // Also once the gap lies before the oldest segment.
        post(&rig.client, what).await;
        assert_eq!(told(&rig).await.0, lost, "{what}");
        let stopped = rig.process.stop();
        assert!(
            stopped.success(),
            "{what}: {stopped}\n{}",
            rig.process.log()
        );
        rig.serve();
        assert_eq!(told(&rig).await.0, lost, "{what}");
        let stopped = rig.process.stop();
        assert!(
            stopped.success(),
            "{what}: {stopped}\n{}",
            rig.process.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_of_what_was_stored_already_is_no_loss() {
    let mut rig = Rig::start(|settings| settings.with("--writers", 1)).await;
    post(&rig.client, "stored").await;
    rig.settle().await;
    rig.cluster.crash();
    post(&rig.client, "spooled").await;
    rig.process.kill();
    rig.cluster.restart();
    // The first record of the segment is acknowledged, the second one is not. The first one is
    // damaged.
    let segment = segments(rig.settings.spool.path())[0].clone();
    flip(&segment, &[8192 + 100]);
    rig.serve();
    let (lost, by_spool, ..) = told(&rig).await;
    assert_eq!((lost, by_spool), (0, 0), "{}", rig.process.log());
    rig.settings.assert_verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_and_bytes_from_elsewhere_move_no_number_of_the_spool() {
    let mut rig = Rig::start(|settings| settings).await;
    post(&rig.client, "past").await;
    rig.settle().await;
    for name in ["ffffffffffffffff", "fffffffffffffffe", "7fffffffffffffff"] {
        let stopped = rig.process.stop();
        assert!(
            stopped.success(),
            "{name}: {stopped}\n{}",
            rig.process.log()
        );
        let noise: Vec<u8> = (0..20_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        let file = rig.settings.spool.path().join(format!("{name}.seg"));
        fs::write(&file, noise).unwrap();
        rig.serve();
        let log = rig.process.log();
        assert!(log.contains(name), "{log}");
        assert!(!file.exists());
        assert!(file.with_extension("seg.damaged").exists());
        let before = rig.database.count("interaction_events").await;
        for body in 0..30 {
            let events: Vec<Value> = (0..10)
                .map(|n| click(&format!("{name} {body} {n}")))
                .collect();
            let reply = rig
                .client
                .query("ack=committed")
                .post("/v1/interactions", &json!(events))
                .await;
            assert_eq!(reply.status, 200, "{}", reply.text);
        }
        let after = rig.database.count("interaction_events").await;
        assert_eq!(after - before, 300, "{name}");
        rig.settings.assert_verified();
    }
    let mut inspected = Process::run(rig.settings.arguments());
    assert_eq!(inspected.wait().code(), Some(1), "the spool is in use");
}
