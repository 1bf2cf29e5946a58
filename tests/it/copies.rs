//! Promise: `committed` is answered only for rows that are in the table, even if several copies
//! of a spool directory are in use, however old they are.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Client, DEMO, Process, Rig, Settings, click, eventually, one, uuid_of};

/// Copies a spool directory as an operator might: file by file, while a process uses it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let mut names: Vec<PathBuf> = std::fs::read_dir(from)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    for path in names {
        // The service may remove a file after it was listed.
        drop(std::fs::copy(&path, to.join(path.file_name().unwrap())));
    }
}

/// Posts an event at `ack`; returns the status, and the ack level or the code of the refusal.
async fn post(client: &Client, ack: &str, name: &str) -> (u16, String) {
    let client = client.query(&format!("ack={ack}"));
    let reply = client.post("/v1/interactions", &click(name)).await;
    let word = if reply.status < 300 { "ack" } else { "code" };
    let word = reply.json[word].as_str().unwrap_or_default().to_owned();
    (reply.status, word)
}

async fn commit(client: &Client, name: &str) {
    let reached = post(client, "committed", name).await;
    assert_eq!(reached, (200, "committed".to_owned()), "{name}");
}

async fn is_stored(rig: &Rig, name: &str) -> bool {
    let id = uuid_of(DEMO, name);
    let sql = format!("SELECT count(*) FROM interaction_events WHERE event_id = '{id}'");
    one::<i64>(&rig.database.connect().await, &sql).await == 1
}

fn with_directory(settings: &Settings, directory: &Path) -> Settings {
    settings.clone().with("--spool-dir", directory.display())
}

/// Runs `spool fork` on a directory; returns whether it succeeded.
fn fork(directory: &Path) -> bool {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(["spool", "fork", "--spool-dir"])
        .arg(directory)
        .output()
        .unwrap();
    output.status.success()
}

/// The log line that names the service that was fenced off and the one that took over.
fn fenced_off(process: &Process) -> Option<String> {
    let log = process.log();
    let mut lines = log.lines().filter(|line| line.contains("fenced off: "));
    let line = lines.next()?;
    assert_eq!(lines.next(), None, "it is said once");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["level"], "ERROR");
    Some(line["message"].as_str().unwrap().to_owned())
}

async fn settled(client: &Client) {
    eventually("the spool to be empty", async || {
        let verbose = client.get("/readyz?verbose").await.json;
        let tables = verbose["rows"].as_array().unwrap();
        tables.iter().all(|table| table["spooled"] == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_fenced_off_finds_out_without_an_event() {
    let rig = Rig::start(|settings| settings).await;
    commit(&rig.client, "before").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let directory = elsewhere.path().join("copy");
    copy(rig.settings.spool.path(), &directory);
    let (_second, client) = Process::serve(&with_directory(&rig.settings, &directory));
    eventually("the first to be unready", async || {
        rig.ready().await == (503, "unready".to_owned())
    })
    .await;
    assert!(fenced_off(&rig.process).is_some());
    let refused = post(&rig.client, "durable", "late").await;
    assert_eq!(refused, (503, "fenced_off".to_owned()));
    commit(&client, "the second's").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_services_on_copies_of_a_spool_only_the_later_one_says_committed() {
    let mut rig = Rig::start(|settings| settings.with("--writers", 2)).await;
    commit(&rig.client, "before").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let directory = elsewhere.path().join("copy");
    copy(rig.settings.spool.path(), &directory);
    // Stored after the copy was made: the copy does not contain it.
    commit(&rig.client, "between").await;
    let settings = with_directory(&rig.settings, &directory);
    let (mut second, client) = Process::serve(&settings);
    commit(&client, "the second's").await;

    let (mut durable, mut refused) = (Vec::new(), 0);
    for n in 0..12 {
        let name = format!("first {n}");
        match post(&rig.client, "committed", &name).await {
            (202, ack) => {
                assert_eq!(ack, "durable");
                durable.push(name);
            }
            refusal => {
                assert_eq!(refusal, (503, "fenced_off".to_owned()));
                refused += 1;
            }
        }
    }
    // `durable` may be empty: idle lanes can notice the fence before the first post.
    assert!(refused > 0, "{durable:?}");
    for n in 0..6 {
        let name = format!("second {n}");
        commit(&client, &name).await;
        assert!(is_stored(&rig, &name).await, "{name}");
    }
    // The log line names both processes and their directories.
    let said = fenced_off(&rig.process).expect("it is said");
    let own = rig.settings.spool.path().display().to_string();
    for (pid, place) in [
        (rig.process.pid(), own.clone()),
        (second.pid(), directory.display().to_string()),
    ] {
        assert!(said.contains(&format!("process {pid} on ")), "{said}");
        assert!(
            said.contains(&format!("the spool directory {place} (since 2")),
            "{said}"
        );
    }
    assert!(
        said.contains(&format!("spool fork --spool-dir {own}")),
        "{said}"
    );
    let readiness = rig.client.get("/readyz").await;
    assert_eq!(
        (readiness.status, &readiness.json["status"]),
        (503, &"unready".into())
    );
    assert!(readiness.text.contains("fenced off"), "{}", readiness.text);
    assert_eq!(readiness.json["reasons"].as_array().unwrap().len(), 1);
    // The acknowledged events stay in its spool, and its accounts count them.
    let [_, _, _, _, spooled] = rig.rows().await;
    assert_eq!(spooled, durable.len() as u64);
    let (code, text) = rig.settings.verify();
    assert!(code == 1 && text.contains("FENCED OFF"), "{text}");
    let output = rig.settings.verify_with(&["--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&said["holds"], output.status.code()),
        (&false.into(), Some(1))
    );
    let mut lanes = said["lanes"].as_array().unwrap().iter();
    let fenced_off = lanes
        .find(|lane| lane["fenced_off_by"].is_string())
        .unwrap();
    assert_eq!(fenced_off["difference"], serde_json::Value::Null);
    assert_eq!(settings.verify().0, 0, "{}", settings.verify().1);
    assert!(!fork(rig.settings.spool.path()), "it is in use");
    assert!(rig.process.stop().success());
    assert_eq!(rig.process.report()["spooled"], durable.len() as u64);

    // After `spool fork` both directories can be used.
    assert!(fork(rig.settings.spool.path()));
    rig.serve();
    settled(&rig.client).await;
    for name in &durable {
        assert!(is_stored(&rig, name).await, "{name}");
    }
    commit(&rig.client, "afterwards").await;
    commit(&client, "afterwards, too").await;
    rig.settings.assert_verified();
    settings.assert_verified();
    assert!(second.stop().success());
    assert!(rig.process.stop().success());
    settings.assert_verified();
    rig.settings.assert_verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_the_one_that_was_fenced_off_stores_what_it_kept() {
    let mut rig = Rig::start(|settings| settings.with("--writers", 1)).await;
    commit(&rig.client, "before").await;
    let elsewhere = tempfile::tempdir().unwrap();
    copy(rig.settings.spool.path(), elsewhere.path());
    let settings = with_directory(&rig.settings, elsewhere.path());
    // The lock holds the batch back while the second service takes over the ledger's rows.
    let holder = rig.database.connect().await;
    let hold = "BEGIN; LOCK TABLE interaction_events IN SHARE ROW EXCLUSIVE MODE";
    holder.batch_execute(hold).await.unwrap();
    assert_eq!(post(&rig.client, "durable", "kept").await.0, 202);
    let (mut second, client) = Process::serve(&settings);
    holder.batch_execute("ROLLBACK").await.unwrap();
    eventually("the first to be fenced off", async || {
        rig.ready().await.0 == 503
    })
    .await;
    for n in 0..20 {
        commit(&client, &format!("second {n}")).await;
    }
    second.kill();
    rig.process.kill();
    // The record has a sequence number that the second service has committed past.
    rig.serve();
    settled(&rig.client).await;
    assert!(is_stored(&rig, "kept").await);
    rig.settings.assert_verified();
    assert!(fenced_off(&rig.process).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_took_events_while_postgres_was_away_lose_none_of_them() {
    let mut rig = Rig::start(|settings| settings.with("--writers", 1)).await;
    commit(&rig.client, "before").await;
    eventually("the copy of the keys", async || {
        rig.settings.spool.path().join("keys").exists()
    })
    .await;
    rig.cluster.crash();
    let elsewhere = tempfile::tempdir().unwrap();
    copy(rig.settings.spool.path(), elsewhere.path());
    let settings = with_directory(&rig.settings, elsewhere.path());
    let (mut second, mut client) = Process::serve(&settings);
    let mut names = Vec::new();
    for round in 0..2 {
        for (client, whose) in [(&rig.client, "first"), (&client, "second")] {
            for n in 0..5 {
                let name = format!("{whose} {round} {n}");
                assert_eq!(post(client, "durable", &name).await.0, 202);
                names.push(name);
            }
        }
        // Both spools now hold different records with equal sequence numbers.
        rig.process.kill();
        second.kill();
        rig.serve();
        (second, client) = Process::serve(&settings);
    }
    rig.cluster.restart();
    eventually("one to be fenced off", async || {
        let mut unready = 0;
        for client in [&rig.client, &client] {
            unready += u32::from(client.get("/readyz").await.status == 503);
        }
        unready == 1
    })
    .await;
    rig.process.kill();
    second.kill();
    for settings in [&rig.settings, &settings] {
        let (mut process, client) = Process::serve(settings);
        settled(&client).await;
        settings.assert_verified();
        assert!(process.stop().success());
    }
    for name in &names {
        assert!(is_stored(&rig, name).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_that_replaces_the_directory_goes_on_and_loses_nothing() {
    let mut rig = Rig::start(|settings| settings.with("--writers", 1)).await;
    commit(&rig.client, "before").await;
    let saved = tempfile::tempdir().unwrap();
    copy(rig.settings.spool.path(), saved.path());
    for n in 0..10 {
        commit(&rig.client, &format!("later {n}")).await;
    }
    assert!(rig.process.stop().success());
    let settings = with_directory(&rig.settings, saved.path());
    rig.settings = settings;
    rig.serve();
    for n in 0..5 {
        commit(&rig.client, &format!("again {n}")).await;
    }
    rig.settings.assert_verified();
    rig.process.kill();
    rig.serve();
    commit(&rig.client, "and again").await;
    rig.settings.assert_verified();
    let log = rig.process.log();
    assert!(!log.contains("\"level\":\"ERROR\""), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_version_without_openings_has_settled_is_passed_over() {
    let mut rig = Rig::start(|settings| settings.with("--writers", 1)).await;
    for n in 0..10 {
        commit(&rig.client, &format!("before {n}")).await;
    }
    assert!(rig.process.stop().success());
    let restart = async |rig: &mut Rig| {
        rig.serve();
        settled(&rig.client).await;
        rig.settings.assert_verified();
        assert!(rig.process.stop().success());
        rig.process.report()["duplicates"].clone()
    };
    std::fs::remove_file(rig.settings.spool.path().join("openings")).unwrap();
    rig.database
        .execute("UPDATE ingest_ledger SET opening = NULL, epoch = 0; DELETE FROM ingest_holders")
        .await;
    assert_eq!(restart(&mut rig).await, 0);
    let log = rig.process.log();
    assert!(!log.contains("\"level\":\"ERROR\""), "{log}");
    // Only the `openings` file is lost: the ledger's watermark is not trusted, and all ten rows
    // turn out to be duplicates.
    std::fs::remove_file(rig.settings.spool.path().join("openings")).unwrap();
    assert_eq!(restart(&mut rig).await, 10);
    assert_eq!(rig.database.count("interaction_events").await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_from_a_backup_is_taken_over_again() {
    let rig = Rig::start(|settings| settings.with("--writers", 1)).await;
    commit(&rig.client, "before").await;
    // An older epoch of another opening, as in a backup from before this start.
    rig.database
        .execute(
            "UPDATE ingest_holders SET epoch = 0, opening = gen_random_uuid();
             UPDATE ingest_ledger SET epoch = 0, opening = gen_random_uuid(), settled = 0",
        )
        .await;
    for n in 0..3 {
        commit(&rig.client, &format!("after {n}")).await;
    }
    let log = rig.process.log();
    assert!(log.contains("restored from a backup"), "{log}");
    // A ledger without rows, as in a database that was emptied.
    rig.database
        .execute("DELETE FROM ingest_ledger; DELETE FROM ingest_holders")
        .await;
    commit(&rig.client, "anew").await;
    assert_eq!(rig.database.count("interaction_events").await, 5);
    eventually("readiness", async || {
        rig.ready().await == (200, "ready".to_owned())
    })
    .await;
}
