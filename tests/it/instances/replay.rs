//! `spool replay`: what a machine that is gone had accepted is stored from its disk, wherever that
//! is carried, once; and the machine is told the truth if it comes back.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use recsys_ingest::event::table::Table;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::Client as Sql;

use super::words::Instance;
use crate::bad_rows::{RAISE, event};
use crate::copies::copy;
use crate::harness::{
    Client, Database, Process, Proxy, Settings, Wire, click, cluster, eventually, one, texts,
};

/// Keeps rows of interactions from being stored, and lets readers through.
const HOLD: &str = "BEGIN; LOCK TABLE interaction_events IN SHARE ROW EXCLUSIVE MODE";

/// Where the records of a segment begin.
const SEGMENT_HEADER_BYTES: usize = 8192;

/// All of the ledger, as text.
const LEDGER: &str =
    "SELECT t::text FROM (SELECT * FROM ingest_ledger AS l JOIN ingest_holders AS h
                          USING (instance_id, lineage) ORDER BY stream, since) AS t ORDER BY 1";

/// A service with a proxy before its database, and a place to carry its spool to.
struct World {
    database: Database,
    proxy: Proxy,
    instance: Instance,
    carried: TempDir,
}

impl World {
    async fn new() -> Self {
        let database = Database::with_tenants().await;
        let proxy = Proxy::start(cluster()).await;
        let behind = Database::by(proxy.url(database.url()));
        let settings = Settings::new(&behind).with("--writers", 2);
        let instance = tokio::task::block_in_place(|| Instance::start(settings));
        Self {
            database,
            proxy,
            instance,
            carried: tempfile::tempdir().unwrap(),
        }
    }

    fn original(&self) -> &Path {
        self.instance.settings.spool.path()
    }

    /// Copies the spool as it is now; returns where.
    fn carry(&self, name: &str) -> PathBuf {
        let to = self.carried.path().join(name);
        copy(self.original(), &to);
        to
    }

    /// Kills the service, and waits until PostgreSQL has noticed.
    async fn kill(&mut self) {
        self.instance.process.kill();
        let client = self.database.connect().await;
        eventually("its sessions to end", async || {
            no_lane_is_connected(&client).await
        })
        .await;
    }

    fn settings_of(&self, directory: &Path) -> Settings {
        let settings = self.instance.settings.clone();
        settings
            .with("--spool-dir", directory.display())
            .with("--database-url", self.database.url())
    }

    fn replay(&self, directory: &Path, more: &[&str]) -> Output {
        replaying(&self.database, directory, more).output().unwrap()
    }

    /// Replays a directory to its end; returns stored, duplicates and quarantined of all tables.
    fn replayed(&self, directory: &Path) -> [u64; 3] {
        let output = self.replay(directory, &["--json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("nothing is left in"), "{said}");
        counts(&output.stdout)
    }

    /// Fails unless it is refused with these words, and neither directory nor ledger are changed.
    async fn assert_refused(&self, directory: &Path, words: &str) {
        let client = self.database.connect().await;
        let openings = || std::fs::read(directory.join("openings")).unwrap_or_default();
        let before = (texts(&client, LEDGER).await, openings());
        let output = self.replay(directory, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "not {words}: {said}");
        assert!(output.stdout.is_empty());
        assert_eq!(
            (texts(&client, LEDGER).await, openings()),
            before,
            "{words}"
        );
    }
}

fn replaying(database: &Database, directory: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"));
    command
        .args(["spool", "replay"])
        .arg(directory)
        .args(more)
        .env("DATABASE_URL", database.url());
    command
}

fn counts(answer: &[u8]) -> [u64; 3] {
    let answer: Value = serde_json::from_slice(answer).unwrap();
    let tables = answer.as_array().unwrap();
    assert_eq!(tables.len(), Table::ALL.len());
    ["stored", "duplicates", "quarantined"]
        .map(|name| tables.iter().map(|of| of[name].as_u64().unwrap()).sum())
}

async fn durable(client: &Client, names: impl Iterator<Item = String>) {
    let client = client.query("ack=durable");
    for name in names {
        let reply = client.post("/v1/interactions", &click(&name)).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
    }
}

async fn commit(client: &Client, names: impl Iterator<Item = String>) {
    let body: Vec<Value> = names.map(|name| click(&name)).collect();
    let reply = client.post("/v1/interactions", &json!(body)).await;
    assert_eq!(reply.settled(), (body.len() as u64, 0, 0, 0));
}

fn names(word: &'static str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |n| format!("{word} {n}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_machine_had_accepted_is_stored_once_and_the_machine_hears_of_it() {
    let mut world = World::new().await;
    let database = world.database.clone();
    let client = world.instance.client.clone();
    commit(&client, names("stored", 30)).await;
    let holder = database.connect().await;
    holder.batch_execute(HOLD).await.unwrap();
    durable(&client, names("kept", 25)).await;
    // Of another table, and of a day that has no partition yet.
    let shown = event(Table::Exposures, "shown", None);
    let reply = client.post("/v1/exposures", &shown).await;
    assert_eq!(reply.settled(), (1, 0, 0, 0), "{}", reply.text);
    let mut late = click("another day");
    late["occurred_at"] = json!("2026-03-12T08:00:00Z");
    let reply = client
        .query("ack=durable")
        .post("/v1/interactions", &late)
        .await;
    assert_eq!(reply.status, 202);
    world.instance.process.kill();
    holder.batch_execute("ROLLBACK").await.unwrap();
    let carried = world.carry("carried");

    assert_eq!(world.replayed(&carried), [26, 0, 0]);
    assert_eq!(database.count("interaction_events").await, 56);
    // Run again, there is nothing to do, and nothing is done.
    assert_eq!(world.replayed(&carried), [0, 0, 0]);
    world.settings_of(&carried).assert_verified();

    world.proxy.set(Wire::Pass);
    // The original is told that it is not the one any more.
    let (code, said) = world.instance.settings.verify();
    assert!(
        code == 1 && said.contains("FENCED OFF by process"),
        "{said}"
    );
    assert!(said.contains(&carried.display().to_string()), "{said}");
    let original = world.original().to_owned();
    world
        .assert_refused(&original, "was fenced off by a later opening")
        .await;
    // Started again it takes the accounts back, and finds its rows there.
    (world.instance.process, world.instance.client) =
        tokio::task::block_in_place(|| Process::serve(&world.instance.settings));
    world.instance.settle().await;
    commit(&world.instance.client, names("afterwards", 3)).await;
    assert_eq!(database.count("interaction_events").await, 59);
    world.instance.settings.assert_verified();
    let log = world.instance.process.log();
    assert!(log.contains("did another copy go on?"), "{log}");
    world
        .assert_refused(&carried, "was fenced off by a later opening")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_only_seemed_dead_is_fenced_off() {
    let world = World::new().await;
    let client = world.instance.client.clone();
    commit(&client, names("stored", 5)).await;
    let holder = world.database.connect().await;
    holder.batch_execute(HOLD).await.unwrap();
    durable(&client, names("kept", 10)).await;
    world.instance.process.signal(Signal::STOP);
    holder.batch_execute("ROLLBACK").await.unwrap();
    let carried = world.carry("carried");
    // Its connections are open: it is not known to be dead.
    world
        .assert_refused(&carried, "is connected to PostgreSQL for it (backend ")
        .await;
    // A transaction that it left open ends by itself, at the latest after half a minute.
    let output = world.replay(&carried, &["--json", "--take-over"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let [stored, duplicates, quarantined] = counts(&output.stdout);
    assert_eq!((stored + duplicates, quarantined), (10, 0));
    world.instance.process.signal(Signal::CONT);
    eventually("the machine to be told", async || {
        client.get("/readyz").await.status == 503
    })
    .await;
    let refused = client.post("/v1/interactions", &click("late")).await;
    assert_eq!(refused.problem(), (503, "fenced_off"));
    let log = world.instance.process.log();
    assert!(log.contains("fenced off: process "), "{log}");
    assert_eq!(world.database.count("interaction_events").await, 15);
    world.settings_of(&carried).assert_verified();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_no_spool_or_is_in_use_is_refused_and_nothing_is_changed() {
    let world = World::new().await;
    let client = world.instance.client.clone();
    commit(&client, names("stored", 5)).await;
    let nowhere = world.carried.path().join("nowhere");
    world
        .assert_refused(&nowhere, "there is no directory")
        .await;
    assert!(!nowhere.exists());
    let empty = world.carried.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    world.assert_refused(&empty, "there is no spool in").await;
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);
    let original = world.original().to_owned();
    let pid = world.instance.process.pid();
    world
        .assert_refused(&original, &format!("is in use by process {pid}"))
        .await;
    // A copy of the spool of a running service.
    let copied = world.carry("copied");
    world
        .assert_refused(&copied, &format!("is in use: process {pid} on "))
        .await;
    commit(&client, names("afterwards", 3)).await;
    // A database without the schema.
    let empty = Database::empty().await;
    let output = replaying(&empty, &copied, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("run `recsys-ingest migrate` first"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_is_run_again_and_what_is_in_both_copies_is_stored_once() {
    let mut world = World::new().await;
    let database = world.database.clone();
    let client = world.instance.client.clone();
    commit(&client, names("stored", 5)).await;
    let holder = database.connect().await;
    holder.batch_execute(HOLD).await.unwrap();
    durable(&client, names("kept", 40)).await;
    world.instance.process.kill();
    // PostgreSQL has not noticed yet: its sessions wait for the lock.
    let [first, second] = ["first", "second"].map(|name| world.carry(name));
    let mut killed = replaying(&database, &first, &["--take-over"])
        .spawn()
        .unwrap();
    let took_over = "SELECT count(*) FROM ingest_holders WHERE directory LIKE '%/first'";
    eventually("the replay to hold the ledger's rows", async || {
        one::<i64>(&database.connect().await, took_over).await == 1
    })
    .await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    holder.batch_execute("ROLLBACK").await.unwrap();
    eventually("its sessions to end", async || {
        no_lane_is_connected(&holder).await
    })
    .await;
    let [stored, duplicates, quarantined] = world.replayed(&first);
    assert_eq!((stored + duplicates, quarantined), (40, 0));
    assert_eq!(database.count("interaction_events").await, 45);
    // The other copy has to become a spool by itself; all that it holds is there.
    world
        .assert_refused(&second, "spool fork --spool-dir")
        .await;
    let forked = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(["spool", "fork", "--spool-dir"])
        .arg(&second)
        .output()
        .unwrap();
    assert!(forked.status.success());
    let [stored, duplicates, _] = world.replayed(&second);
    assert!(stored == 0 && duplicates >= 40, "{stored} {duplicates}");
    for directory in [&first, &second] {
        world.settings_of(directory).assert_verified();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_spool_has_lost_is_said_each_time_until_it_is_booked() {
    let mut world = World::new().await;
    let client = world.instance.client.clone();
    commit(&client, names("stored", 5)).await;
    world.proxy.set(Wire::Reset);
    durable(&client, names("kept", 40)).await;
    world.kill().await;
    let carried = world.carry("carried");
    let segment = std::fs::read_dir(&carried).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        (path.extension()? == "seg").then_some(path)
    });
    let segment = segment.unwrap();
    // A byte in the middle of the records that are not stored.
    let mut bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[usize::midpoint(SEGMENT_HEADER_BYTES, end)] ^= 0xff;
    std::fs::write(&segment, bytes).unwrap();
    let refused = |words: &str| {
        let output = world.replay(&carried, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "not {words}: {said}");
        assert!(!said.contains("nothing is left"), "{said}");
    };
    // Also by a run that finds nothing more to store.
    for _ in 0..2 {
        refused("and 1 rows that were accepted are not there");
    }
    assert_eq!(world.database.count("interaction_events").await, 44);
    let unknown = carried.join("00000000000000ff.seg");
    std::fs::write(&unknown, "no segment").unwrap();
    let mut accept = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"));
    accept
        .args(["verify", "--accept", "a damaged disk", "--spool-dir"])
        .arg(&carried)
        .env("DATABASE_URL", world.database.url());
    accept.output().unwrap();
    refused("what is in 00000000000000ff.seg of");
    std::fs::remove_file(&unknown).unwrap();
    assert_eq!(world.replayed(&carried), [0, 0, 0]);
}

async fn no_lane_is_connected(client: &Sql) -> bool {
    let sql =
        "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
    one(client, sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_are_set_aside_and_a_table_that_takes_nothing_ends_the_command() {
    let mut world = World::new().await;
    let database = world.database.clone();
    let client = world.instance.client.clone();
    commit(&client, names("stored", 5)).await;
    world.proxy.set(Wire::Reset);
    durable(&client, names("kept", 24)).await;
    let bad = event(Table::Interactions, "bad", Some("poison P0001"));
    let reply = client
        .query("ack=durable")
        .post("/v1/interactions", &bad)
        .await;
    assert_eq!(reply.status, 202);
    world.kill().await;
    database
        .execute(&format!(
            "{RAISE}
             CREATE TRIGGER refuse BEFORE INSERT ON interaction_events FOR EACH ROW EXECUTE FUNCTION refuse();
             CREATE FUNCTION refuse_all() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
             CREATE TRIGGER refuse_all BEFORE INSERT ON interaction_events
                 FOR EACH ROW EXECUTE FUNCTION refuse_all()"
        ))
        .await;
    let original = world.original().to_owned();
    let output = world.replay(&original, &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot be stored, the log says why"),
        "{said}"
    );
    assert!(
        said.contains("rows are left in") && said.contains("not today"),
        "{said}"
    );
    assert_eq!(database.count("ingest_quarantine").await, 0);
    database
        .execute("DROP TRIGGER refuse_all ON interaction_events")
        .await;
    assert_eq!(world.replayed(&original), [24, 0, 1]);
    world.settings_of(&original).assert_verified();
}
