//! Promise: trouble with the spool's disk (it hangs, disappears, or is too small) is reported
//! within seconds, and no answer says `durable` of events that are not on it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Client, Database, Process, Reply, Rig, Settings, SlowDisk, SmallDisk, click, eventually,
};

async fn post(client: &Client, name: &str) -> Reply {
    let durable = client.query("ack=durable");
    durable.post("/v1/interactions", &click(name)).await
}

fn code(reply: &Reply) -> (u16, &str) {
    let code = reply.json["code"].as_str();
    (reply.status, code.unwrap_or_default())
}

fn lines(log: &str, words: &str) -> usize {
    log.lines().filter(|line| line.contains(words)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_an_event_leaves_no_warning_and_an_emptied_directory_does() {
    const LOST: &str = "the spool directory holds no segment";
    let database = Database::with_tenants().await;
    let settings = Settings::new(&database);
    for _ in 0..2 {
        let (mut process, _) = Process::serve(&settings);
        assert!(process.stop().success());
        assert_eq!(lines(&process.log(), LOST), 0, "{}", process.log());
    }
    let (mut process, client) = Process::serve(&settings);
    assert_eq!(post(&client, "a").await.status, 202);
    assert!(process.stop().success());
    let segments = std::fs::read_dir(settings.spool.path()).unwrap();
    for path in segments.map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|kind| kind == "seg") {
            std::fs::remove_file(path).unwrap();
        }
    }
    for told in [1, 0] {
        let (mut process, _) = Process::serve(&settings);
        assert!(process.stop().success());
        assert_eq!(lines(&process.log(), LOST), told, "{}", process.log());
    }
}

/// A name, and what happens to the directory of a running service.
type Removal = (&'static str, fn(&Path));

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_directory_that_goes_is_noticed_within_two_seconds() {
    let removals: [Removal; 4] = [
        ("rm -rf", |path| std::fs::remove_dir_all(path).unwrap()),
        ("rm -rf of the content", |path| {
            for entry in std::fs::read_dir(path).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }),
        ("mv", |path| {
            std::fs::rename(path, path.with_extension("away")).unwrap()
        }),
        ("replaced", |path| {
            std::fs::rename(path, path.with_extension("old")).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
    ];
    for (what, remove) in removals {
        let parent = tempfile::tempdir().unwrap();
        let spool = parent.path().join("spool");
        let mut rig = Rig::start(|settings| settings.with("--spool-dir", spool.display())).await;
        assert_eq!(post(&rig.client, "before").await.status, 202);
        remove(&spool);
        tokio::time::sleep(Duration::from_secs(2)).await;
        for n in 0..20 {
            let reply = post(&rig.client, &format!("after {n}")).await;
            assert_eq!(code(&reply), (503, "disk_failed"), "{what}: {}", reply.text);
        }
        let ready = rig.client.get("/readyz").await;
        assert_eq!(ready.status, 503, "{what}: {}", ready.text);
        assert!(ready.text.contains("directory"), "{what}: {}", ready.text);
        let log = rig.process.log();
        assert_eq!(lines(&log, "\"level\":\"ERROR\""), 1, "{what}: {log}");
        // Events accepted before are still in memory, and are stored.
        eventually("what came before", async || {
            rig.database.count("interaction_events").await == 1
        })
        .await;
        assert!(rig.process.stop().success(), "{what}");
        assert!(!spool.join("instance").exists());
        rig.serve();
        assert_eq!(post(&rig.client, "again").await.status, 202, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_degrades_then_refuses_at_once_and_recovers() {
    let Some(disk) = SlowDisk::make() else { return };
    let database = Database::with_tenants().await;
    let settings = Settings::new(&database).with("--default-ack", "durable");
    let process = Process::run_with(settings.arguments(), disk.environment());
    let client = Client::new(process.ready());
    assert_eq!(post(&client, "one").await.status, 202);
    disk.hang();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move {
            let began = Instant::now();
            (post(&client, "two").await.status, began.elapsed())
        }
    });
    eventually("the hanging disk to be told", async || {
        let ready = client.get("/readyz").await;
        ready.json["status"] == "degraded" && ready.text.contains("disk")
    })
    .await;
    eventually("new events to be refused", async || {
        client.get("/readyz").await.json["status"] == "unready"
    })
    .await;
    let began = Instant::now();
    let reply = post(&client, "three").await;
    assert_eq!(code(&reply), (503, "disk_stalled"), "{}", reply.text);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let (status, waited) = waiting.await.unwrap();
    assert_eq!(status, 503);
    assert!(waited < Duration::from_secs(15), "{waited:?}");
    assert_eq!(
        lines(&process.log(), "\"level\":\"WARN\""),
        1,
        "{}",
        process.log()
    );
    disk.release();
    eventually("the disk to be used again", async || {
        client.get("/readyz").await.json["status"] == "ready"
    })
    .await;
    assert_eq!(post(&client, "four").await.status, 202);
    // A short hang causes no refusal.
    disk.hang();
    let (reply, ()) = tokio::join!(post(&client, "five"), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        disk.release();
    });
    assert_eq!(reply.status, 202, "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_does_not_hold_up_a_stop() {
    let Some(disk) = SlowDisk::make() else { return };
    let database = Database::with_tenants().await;
    let settings = Settings::new(&database)
        .with("--default-ack", "durable")
        .with("--shutdown-grace", "2s");
    let mut process = Process::run_with(settings.arguments(), disk.environment());
    let client = Client::new(process.ready());
    assert_eq!(post(&client, "one").await.status, 202);
    disk.hang();
    let received = client.query("ack=received");
    let reply = received.post("/v1/interactions", &click("two")).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    let status = process.stop();
    // The grace is 2 s; the rest is slack for a busy machine.
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert!(status.success(), "{}", process.log());
    let report = process.report();
    assert_eq!(report["in_time"], false, "{report}");
    assert_eq!(report["accepted"], 1, "{report}");
    assert!(
        process.log().contains("the disk of the spool"),
        "{}",
        process.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_too_small_is_said_at_the_start_with_numbers_and_what_to_set() {
    let Some(small) = SmallDisk::mount(51) else {
        return;
    };
    let spool = small.path().join("spool");
    let database = Database::with_tenants().await;
    let settings = Settings::new(&database)
        .with("--spool-dir", spool.display())
        .with("--spool-bytes-max", "8GiB")
        .with("--spool-disk-reserve", "1MiB");
    let mut process = Process::run(settings.arguments());
    let client = Client::new(process.listening());
    eventually("the keys to be read", async || {
        client.get("/readyz?verbose").await.json["keys"]["from"] == "database"
    })
    .await;
    let ready = client.get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text);
    let (reasons, log) = (ready.json["reasons"].to_string(), process.log());
    for text in [&reasons, &log] {
        for words in [
            "51.0 MiB", "64.0 MiB", "1.0 MiB", "--spool-bytes-max", "--spool-disk-reserve",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
    assert_eq!(code(&post(&client, "one").await), (503, "spool_full"));
    process.stop();
    // The value that the log suggests works.
    let to_set = log.split("--spool-bytes-max to ").nth(1).unwrap();
    let to_set = to_set
        .split(|c: char| !c.is_ascii_alphanumeric())
        .next()
        .unwrap();
    let (_process, client) = Process::serve(&settings.with("--spool-bytes-max", to_set));
    assert_eq!(client.get("/readyz").await.json["status"], "ready");
    assert_eq!(post(&client, "two").await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_while_no_one_posts_is_said() {
    let Some(small) = SmallDisk::mount(200) else {
        return;
    };
    let spool = small.path().join("spool");
    let rig = Rig::start(|settings| {
        settings
            .with("--spool-dir", spool.display())
            .with("--spool-disk-reserve", "1MiB")
    })
    .await;
    assert_eq!(rig.ready().await.1, "ready");
    std::fs::write(small.path().join("other"), vec![1; 195 << 20]).unwrap();
    eventually("the small disk to be told", async || {
        let ready = rig.client.get("/readyz").await;
        ready.status == 503 && ready.text.contains("MiB")
    })
    .await;
    assert_eq!(code(&post(&rig.client, "one").await), (503, "spool_full"));
    std::fs::remove_file(small.path().join("other")).unwrap();
    eventually("space again", async || rig.ready().await.1 == "ready").await;
    assert_eq!(post(&rig.client, "two").await.status, 202);
}

/// A process that is killed when dropped.
struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn modes(directory: &Path, into: &mut Vec<(PathBuf, u32, bool)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        into.push((path.clone(), mode, metadata.is_dir()));
        if metadata.is_dir() && !path.ends_with("cluster") {
            modes(&path, into);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_made_can_be_read_by_others_whatever_the_umask() {
    let program = env!("CARGO_BIN_EXE_recsys-ingest");
    for umask in ["022", "000"] {
        let parent = tempfile::tempdir().unwrap();
        // Other users may enter the parent, as in /srv.
        std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let data = parent.path().join("data");
        let child = Command::new("/bin/sh")
            .args(["-c", "umask \"$0\"; exec \"$@\"", umask, program, "dev"])
            .args([
                "--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir",
            ])
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = Guard(child);
        let child = &mut child.0;
        let log = crate::harness::read_until(child.stderr.take().unwrap(), "\"ready\"");
        let listening = log.lines().find(|line| line.contains("listening")).unwrap();
        let listening: serde_json::Value = serde_json::from_str(listening).unwrap();
        let client = Client::new(listening["address"].as_str().unwrap().parse().unwrap());
        eventually("dev.env", async || data.join("dev.env").exists()).await;
        let env = crate::harness::env_file(&data.join("dev.env"));
        let client = client.header("x-api-key", &env["INGEST_API_KEY"]);
        // `dev` rejects events that are months old.
        let mut now = click("one");
        now["occurred_at"] = jiff::Timestamp::now().to_string().into();
        let reply = client.post("/v1/interactions", &now).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        eventually("the copy of the keys", async || {
            data.join("spool/keys").exists()
        })
        .await;
        let top = std::fs::metadata(&data).unwrap().permissions().mode() & 0o777;
        let mut found = vec![(data.clone(), top, true)];
        modes(&data, &mut found);
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(found.len() >= 8, "{found:?}");
        for (path, mode, is_dir) in found {
            let expected = if is_dir { 0o700 } else { 0o600 };
            // PostgreSQL creates its socket for all users, in a directory that only its owner may
            // enter.
            if path.to_string_lossy().contains("socket/") || path.ends_with("cluster") {
                continue;
            }
            assert_eq!(mode, expected, "umask {umask}: {} {mode:o}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_after_a_clean_stop_does_not_say_that_something_is_left_to_store() {
    let mut rig = Rig::start(|settings| settings).await;
    let body: Vec<_> = (0..10).map(|n| click(&format!("{n}"))).collect();
    let committed = rig.client.query("ack=committed");
    assert_eq!(
        committed
            .post("/v1/interactions", &json!(body))
            .await
            .status,
        200
    );
    assert!(rig.process.stop().success());
    rig.serve();
    let log = rig.process.log();
    assert!(!log.contains("not yet settled"), "{log}");
    assert!(log.contains("found records in the spool"), "{log}");
}
