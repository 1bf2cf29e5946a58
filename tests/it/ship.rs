//! Promise: `ship` stores every complete line of growing files once, through rotation, truncation,
//! removal, its own crashes and a service that is away.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use recsys_ingest::tenants::role::Role;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Client, Database, Process, Settings, eventually, key, texts};
use crate::transport::client::Certificates;

/// A folder that is shipped, and where to.
struct Shipped {
    database: Database,
    settings: Settings,
    dir: TempDir,
    state: TempDir,
    url: String,
    written: u64,
}

impl Shipped {
    async fn new() -> Self {
        let database = Database::with_tenants().await;
        // A port that stays the same when the service is started again.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let settings = Settings::new(&database).with("--listen", address);
        Self {
            database,
            settings,
            dir: tempfile::tempdir().unwrap(),
            state: tempfile::tempdir().unwrap(),
            url: format!("http://{address}"),
            written: 0,
        }
    }

    fn ship(&self) -> Process {
        self.ship_with(&[])
    }

    fn ship_with(&self, more: &[&OsStr]) -> Process {
        let mut arguments: Vec<OsString> = ["ship", "--ops-listen", "127.0.0.1:0", "--url"]
            .map(OsString::from)
            .to_vec();
        arguments.push(self.url.clone().into());
        arguments.extend(["--api-key".into(), key("demo", Role::Ingest).into()]);
        arguments.extend(["--dir".into(), self.dir.path().into()]);
        arguments.extend(["--state-dir".into(), self.state.path().into()]);
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let process = Process::run(arguments);
        process.message("shipping");
        process
    }

    /// The next line: a click without id and time, on a new item.
    fn line(&mut self) -> String {
        self.written += 1;
        format!(
            "{{\"event_type\":\"click\",\"item_id\":\"{:06}\"}}\n",
            self.written - 1
        )
    }

    fn append(&mut self, name: &str, lines: u64) {
        let text: String = (0..lines).map(|_| self.line()).collect();
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        append(&path, text.as_bytes());
    }

    /// Waits until every line that was written is stored, once.
    async fn arrived(&self) {
        let client = self.database.connect().await;
        let mut seen = (Vec::new(), Instant::now());
        loop {
            let items = texts(
                &client,
                "SELECT item_id FROM interaction_events ORDER BY item_id",
            )
            .await;
            if items.len() as u64 >= self.written {
                let expected: Vec<_> = (0..self.written).map(|n| format!("{n:06}")).collect();
                assert_eq!(items, expected);
                return;
            }
            if items.len() != seen.0.len() {
                seen = (items, Instant::now());
            }
            let waited = seen.1.elapsed();
            assert!(
                waited < Duration::from_secs(60),
                "{} of {}",
                seen.0.len(),
                self.written
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The links to files that are not read to their end.
    fn links(&self) -> usize {
        let unread = fs::read_dir(self.state.path().join("unread"));
        unread.map_or(0, |links| links.count())
    }

    /// Removes a file that was not written to for a while, once it has a link.
    async fn remove(&self, name: &str) {
        let path = self.dir.path().join(name);
        self.leave_alone(name);

        let is_linked = |path: &Path| {
            let inode = fs::metadata(path).unwrap().ino();
            let links = fs::read_dir(self.state.path().join("unread"));
            let mut links = links.into_iter().flatten();
            links.any(|link| link.unwrap().ino() == inode)
        };
        eventually("the link to a file", async || is_linked(&path)).await;
        fs::remove_file(path).unwrap();
    }

    /// Has a file say that it was last written to minutes ago.
    fn leave_alone(&self, name: &str) {
        let file = File::options()
            .append(true)
            .open(self.dir.path().join(name));
        let long_ago = SystemTime::now() - Duration::from_secs(300);
        file.unwrap().set_modified(long_ago).unwrap();
    }

    fn rejected(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.state.path().join("rejected.jsonl"));
        let text = text.unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(bytes).unwrap();
}

async fn ready(address: SocketAddr) -> (u16, Value) {
    let reply = Client::new(address).get("/readyz").await;
    (reply.status, reply.json)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_followed_through_all_that_is_done_to_files() {
    let mut shipped = Shipped::new().await;
    let (_service, _) = Process::serve(&shipped.settings);
    let at = |shipped: &Shipped, name: &str| shipped.dir.path().join(name);
    shipped.append("exposure-1.jsonl", 20);
    let mut ship = shipped.ship();
    shipped.arrived().await;

    // A torn line waits for its end.
    let line = shipped.line();
    append(&at(&shipped, "exposure-1.jsonl"), &line.as_bytes()[..9]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(shipped.database.count("interaction_events").await, 20);
    append(&at(&shipped, "exposure-1.jsonl"), &line.as_bytes()[9..]);
    shipped.arrived().await;

    // Renamed, with more behind it and a new file in its place; and a file of the next day.
    shipped.append("exposure-1.jsonl", 5);
    fs::rename(
        at(&shipped, "exposure-1.jsonl"),
        at(&shipped, "exposure-1.jsonl.1"),
    )
    .unwrap();
    shipped.append("exposure-1.jsonl.1", 5);
    shipped.append("exposure-1.jsonl", 5);
    shipped.append("below/exposure-2.jsonl", 5);
    shipped.arrived().await;

    // copytruncate, with lines that are not read before it.
    shipped.append("exposure-1.jsonl", 3);
    fs::copy(
        at(&shipped, "exposure-1.jsonl"),
        at(&shipped, "exposure-1.jsonl.2"),
    )
    .unwrap();
    File::create(at(&shipped, "exposure-1.jsonl")).unwrap();
    shipped.append("exposure-1.jsonl", 2);
    shipped.arrived().await;

    // Truncated and written over, with as much as before.
    File::create(at(&shipped, "exposure-1.jsonl")).unwrap();
    shipped.append("exposure-1.jsonl", 40);
    shipped.arrived().await;

    // The same of a file that was read to its end: it is as long as before, and not a byte longer.
    shipped.append("same.jsonl", 4);
    shipped.arrived().await;
    let as_long = |shipped: &mut Shipped| -> String { (0..4).map(|_| shipped.line()).collect() };
    let text = as_long(&mut shipped);
    fs::write(at(&shipped, "same.jsonl"), text).unwrap();
    shipped.arrived().await;

    // Each wrong line is rejected alone.
    let bad: [&[u8]; 5] = [
        b"{\"event_type\":\"stare\",\"item_id\":\"x\"}",
        b"\xff\xfe{\0}\0",
        b"{\"a\":",
        b"{\0\"\0a\0",
        b"[]",
    ];
    for line in bad {
        append(&at(&shipped, "bad.jsonl"), line);
        append(&at(&shipped, "bad.jsonl"), b"\n");
        shipped.append("bad.jsonl", 1);
    }
    shipped.arrived().await;
    eventually("the rejects", async || {
        shipped.rejected().len() == bad.len()
    })
    .await;
    for letter in shipped.rejected() {
        assert!(!letter["code"].as_str().unwrap().is_empty(), "{letter}");
        assert!(letter["message"].is_string(), "{letter}");
    }

    // Stopped, and while it is away: more, a rotation.
    assert_eq!(ship.stop().code(), Some(0), "{}", ship.log());
    shipped.append("exposure-1.jsonl", 5);
    fs::rename(
        at(&shipped, "exposure-1.jsonl"),
        at(&shipped, "exposure-1.jsonl-20260524"),
    )
    .unwrap();
    shipped.append("exposure-1.jsonl", 5);
    let text = as_long(&mut shipped);
    fs::write(at(&shipped, "same.jsonl"), text).unwrap();
    let ship = shipped.ship();
    shipped.arrived().await;
    assert_eq!(shipped.rejected().len(), bad.len());

    let operators = ship.listening();
    let (status, body) = ready(operators).await;
    assert_eq!((status, &body["status"]), (200, &"ready".into()), "{body}");
    let metrics = Client::new(operators).get("/metrics").await.text;
    for sample in [
        "# TYPE recsys_ingest_ship_lines_total counter",
        "recsys_ingest_ship_lines_total 14",
        "recsys_ingest_ship_failing 0",
    ] {
        assert!(metrics.contains(sample), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_is_waited_for_and_removed_files_are_read() {
    let mut shipped = Shipped::new().await;
    shipped.append("a.jsonl", 1000);
    let mut ship = shipped.ship();
    let operators = ship.listening();
    eventually("the trouble", async || {
        let (status, body) = ready(operators).await;
        let behind = body["behind_bytes"].as_u64().unwrap() > 0;
        status == 200 && body["status"] == "degraded" && behind
    })
    .await;
    // While nothing can be sent: files come, are read and removed.
    for name in ["b.jsonl", "c.jsonl"] {
        shipped.append(name, 10);
        tokio::time::sleep(Duration::from_secs(1)).await;
        fs::remove_file(shipped.dir.path().join(name)).unwrap();
    }
    let (_service, _) = Process::serve(&shipped.settings);
    shipped.arrived().await;
    assert_eq!(ship.stop().code(), Some(0), "{}", ship.log());
    let report = ship.report();
    assert_eq!(report["accepted"], 1020, "{report}");
    assert!(report["retries"].as_u64().unwrap() > 0, "{report}");

    // Two at once would send everything twice.
    let _first = shipped.ship();
    let mut arguments: Vec<OsString> = ["ship", "--api-key", "k", "--ops-listen", "127.0.0.1:0"]
        .map(OsString::from)
        .to_vec();
    arguments.extend(["--dir".into(), shipped.dir.path().into()]);
    arguments.extend(["--state-dir".into(), shipped.state.path().into()]);
    let mut second = Process::run(arguments);
    assert_eq!(second.wait().code(), Some(1));
    assert!(
        second.log().contains("another process uses"),
        "{}",
        second.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_before_it_was_read_outlives_a_kill() {
    let mut shipped = Shipped::new().await;
    // Nothing can be sent: one file is removed while its lines wait, one after a kill, and one ends
    // within a line.
    shipped.append("a.jsonl", 7_000);
    let mut ship = shipped.ship();
    shipped.remove("a.jsonl").await;
    shipped.append("b.jsonl", 10);
    append(&shipped.dir.path().join("torn.jsonl"), b"{\"event_type\":");
    shipped.remove("torn.jsonl").await;
    eventually("the link to another", async || shipped.links() == 3).await;
    ship.kill();
    shipped.leave_alone("b.jsonl");
    fs::remove_file(shipped.dir.path().join("b.jsonl")).unwrap();
    // Another file has the name of one of them.
    shipped.append("a.jsonl", 10);
    let mut ship = shipped.ship();
    eventually("the link to the next", async || shipped.links() == 4).await;
    ship.kill();

    let (_service, _) = Process::serve(&shipped.settings);
    let mut ship = shipped.ship();
    shipped.arrived().await;
    eventually("the end without a line end", async || {
        shipped.rejected().len() == 1
    })
    .await;
    assert_eq!(shipped.rejected()[0]["code"], "torn_line");
    // What is read is let go of.
    shipped.remove("a.jsonl").await;
    eventually("the links to go", async || shipped.links() == 0).await;
    assert_eq!(ship.stop().code(), Some(0), "{}", ship.log());
    let _ship = shipped.ship();
    shipped.append("c.jsonl", 5);
    shipped.arrived().await;
    assert_eq!(shipped.rejected().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_shipped_over_https_to_who_has_the_certificate_of_a_ca_that_is_trusted() {
    let Some(certificates) = Certificates::new() else {
        return;
    };
    let mut shipped = Shipped::new().await;
    shipped.settings = certificates.on(shipped.settings, "chain.crt", "pkcs8.key");
    shipped.url = shipped.url.replace("http://127.0.0.1", "https://localhost");
    let (_service, _) = Process::serve(&shipped.settings);
    shipped.append("a.jsonl", 20);
    // A CA of one's own is trusted if it is named, and no other one is.
    let [ca, stranger] = ["ca.crt", "stranger.crt"].map(|file| certificates.path(file));
    let mut ship = shipped.ship_with(&[OsStr::new("--tls-ca"), stranger.as_os_str()]);
    let operators = ship.listening();
    eventually("the certificate to be refused", async || {
        let (_, body) = ready(operators).await;
        body["status"] == "degraded" && body.to_string().contains("certificate")
    })
    .await;
    assert_eq!(shipped.database.count("interaction_events").await, 0);
    ship.kill();
    let mut ship = shipped.ship_with(&[OsStr::new("--tls-ca"), ca.as_os_str()]);
    shipped.arrived().await;
    shipped.append("a.jsonl", 20);
    shipped.arrived().await;
    assert_eq!(ship.stop().code(), Some(0), "{}", ship.log());
}

/// Writes and rotates while the shipper is killed, and the service with every fourth time.
async fn killed(kills: u64, every: Duration) {
    let mut shipped = Shipped::new().await;
    let (mut service, _) = Process::serve(&shipped.settings);
    let mut ship = shipped.ship();
    for kill in 0..kills {
        let until = Instant::now() + every;
        while Instant::now() < until {
            shipped.append("clicks.jsonl", 50);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let rotated = shipped.dir.path().join(format!("clicks.jsonl.{kill}"));
        fs::rename(shipped.dir.path().join("clicks.jsonl"), rotated).unwrap();
        ship.kill();
        if kill % 4 == 1 {
            service.kill();
            ship = shipped.ship();
            tokio::time::sleep(every / 4).await;
            (service, _) = Process::serve(&shipped.settings);
        } else {
            ship = shipped.ship();
        }
    }
    shipped.append("clicks.jsonl", 50);
    shipped.arrived().await;
    assert!(shipped.rejected().is_empty());
    assert_eq!(ship.stop().code(), Some(0), "{}", ship.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_stored_once_through_kill_9_and_rotation() {
    killed(4, Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn every_line_is_stored_once_through_many_kills() {
    killed(60, Duration::from_secs(2)).await;
}
