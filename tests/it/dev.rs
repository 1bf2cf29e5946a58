//! Promise: one command runs everything on a machine without Postgres, and its data outlives it,
//! however it ends.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use private_postgres::{Options, PrivatePostgres};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::harness::{Client, Process, blocking, click, env_file, eventually, pg_bin, pg_cache};
use crate::manners::{paste, pasted};

/// A data directory. Dropping it ends a server that a killed `dev` left behind.
struct DataDir(TempDir);

impl DataDir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn arguments(&self, listen: &str) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            "dev".into(),
            "--listen".into(),
            listen.into(),
            "--data-dir".into(),
            self.path().into(),
            "--pg-cache".into(),
            pg_cache().into(),
        ];
        if let Some(bin) = pg_bin() {
            arguments.extend(["--pg-bin".into(), bin.into()]);
        }
        arguments
    }

    /// Runs `dev` on a free port until it is ready.
    fn start(&self) -> (Process, HashMap<String, String>) {
        let process = Process::run(self.arguments("127.0.0.1:0"));
        process.ready();
        let env = self.env(&process);
        (process, env)
    }

    /// The variables of `dev.env`.
    fn env(&self, process: &Process) -> HashMap<String, String> {
        let path = self.path().join("dev.env");
        // `dev` writes the file atomically once everything is ready.
        let mut waited = 0;
        while !path.exists() {
            assert!(waited < 6000, "no dev.env:\n{}", process.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
            waited += 1;
        }
        env_file(&path)
    }

    /// Command lines of the servers that run on this directory, from /proc.
    fn servers(&self) -> Vec<String> {
        let dir = self.path().join("postgres");
        let place = std::fs::read_to_string(dir.join("cluster-is-in"))
            .unwrap_or_else(|_| dir.display().to_string());
        let mut found = Vec::new();
        for process in std::fs::read_dir("/proc").unwrap().map_while(Result::ok) {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains("postgres -D") && line.contains(place.trim()) {
                found.push(line);
            }
        }
        found
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let dir = self.path().join("postgres");
        if dir.exists() {
            let options = Options {
                bin_dir: pg_bin(),
                cache_dir: Some(pg_cache()),
                ..Options::new(dir)
            };
            // A failure to clean up does not change the result of the test.
            drop(blocking(|| {
                PrivatePostgres::start(&options).and_then(PrivatePostgres::delete)
            }));
        }
    }
}

fn client(env: &HashMap<String, String>) -> Client {
    let address = env["INGEST_URL"].strip_prefix("http://").unwrap();
    Client::new(address.parse().unwrap()).header("x-api-key", &env["INGEST_API_KEY"])
}

async fn count(env: &HashMap<String, String>) -> i64 {
    let (client, connection) = tokio_postgres::connect(&env["DATABASE_URL"], NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    crate::harness::one(&client, "SELECT count(*) FROM interaction_events").await
}

/// Variables that are the same after each start.
fn kept(env: &HashMap<String, String>) -> Vec<&String> {
    [
        "INGEST_API_KEY", "INGEST_SERVICE_KEY", "INGEST_PUBLISH_KEY", "INGEST_ADMIN_KEY",
        "API_KEY_HASH_SECRET", "EXPOSURE_HASH_SALT", "DATABASE_URL",
    ]
    .map(|name| &env[name])
    .to_vec()
}

/// Runs `serve` next to a running `dev`, with the settings of `dev.env`.
fn serve_with(env: &HashMap<String, String>) -> (Process, Client) {
    let flag = |flag: &str, name: &str| OsString::from(format!("--{flag}={}", env[name]));
    let spool = format!("--spool-dir={}-2", env["INGEST_SPOOL_DIR"]);
    let process = Process::run([
        "serve".into(),
        "--listen=127.0.0.1:0".into(),
        flag("database-url", "DATABASE_URL"),
        flag("api-key-hash-secret", "API_KEY_HASH_SECRET"),
        flag("exposure-hash-salt", "EXPOSURE_HASH_SALT"),
        spool.into(),
    ]);
    let address = process.ready();
    let client = Client::new(address).header("x-api-key", &env["INGEST_API_KEY"]);
    (process, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn data_and_keys_outlive_a_stop_and_a_kill() {
    let dir = DataDir::new();
    let mut now = click("first");
    now["occurred_at"] = jiff::Timestamp::now().to_string().into();

    let (mut process, first) = dir.start();
    assert_eq!(
        client(&first)
            .post("/v1/interactions?ack=committed", &now)
            .await
            .settled(),
        (1, 0, 0, 0)
    );
    let status = process.stop();
    assert!(status.success(), "{status}\n{}", process.log());
    assert!(
        !dir.path().join("dev.env").exists(),
        "dev.env is of a running dev"
    );

    let (mut process, second) = dir.start();
    assert_eq!(kept(&first), kept(&second));
    assert_eq!(
        client(&second)
            .post("/v1/interactions?ack=committed", &now)
            .await
            .settled(),
        (0, 1, 0, 0)
    );
    let mut another = now.clone();
    another["event_id"] = "second".into();
    assert_eq!(
        client(&second)
            .post("/v1/interactions?ack=committed", &another)
            .await
            .settled()
            .0,
        1
    );
    process.signal(Signal::KILL);
    process.wait();

    let (mut process, third) = dir.start();
    assert_eq!(kept(&first), kept(&third));
    for event in [&now, &another] {
        assert_eq!(
            client(&third)
                .post("/v1/interactions?ack=committed", event)
                .await
                .settled(),
            (0, 1, 0, 0)
        );
    }
    assert_eq!(count(&third).await, 2);
    assert!(process.stop().success(), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_dev_keeps_its_port_and_directory_and_takes_second_instances() {
    let dir = DataDir::new();
    let (mut process, env) = dir.start();
    let address = env["INGEST_URL"]
        .strip_prefix("http://")
        .unwrap()
        .to_owned();

    // The live page needs no key, and names the file; the one beside it needs one.
    let stranger = client(&env).without("x-api-key");
    let live = stranger.get("/live").await;
    assert_eq!(live.status, 200, "{}", live.text);
    let file = live.json["ingest"]["env_file"].as_str().unwrap();
    assert!(names(file, &dir.path().join("dev.env")), "{file}");
    eventually("the greeting to name the page", async || {
        let page = format!("Open http://{address}/ in a browser");
        process.answer().contains(&page)
    })
    .await;

    // The port is in use, for any data directory.
    let elsewhere = DataDir::new();
    let mut second = Process::run(elsewhere.arguments(&address));
    assert!(!second.wait().success());
    let log = second.log();
    assert!(log.contains(&address) && log.contains("--listen"), "{log}");
    assert!(!elsewhere.path().exists(), "nothing was made for it");

    // The directory is in use, on any port.
    let mut second = Process::run(dir.arguments("127.0.0.1:0"));
    assert!(!second.wait().success());
    let log = second.log();
    assert!(names(&log, &dir.path()), "{log}");
    assert!(
        log.contains(&process.pid().to_string()),
        "who uses it: {log}"
    );

    // The database can be shared with another instance of the service.
    let (mut beside, other) = serve_with(&env);
    let look = other.without("x-api-key").get("/live").await;
    assert_eq!(look.problem(), (401, "missing_api_key"));
    let admin = other.header("x-api-key", &env["INGEST_ADMIN_KEY"]);
    assert_eq!(admin.get("/live").await.status, 200);
    let mut event = click("a");
    event["occurred_at"] = jiff::Timestamp::now().to_string().into();
    assert_eq!(
        client(&env)
            .post("/v1/interactions?ack=committed", &event)
            .await
            .settled(),
        (1, 0, 0, 0)
    );
    assert_eq!(
        other
            .post("/v1/interactions?ack=committed", &event)
            .await
            .settled(),
        (0, 1, 0, 0)
    );
    assert!(beside.stop().success(), "{}", beside.log());

    // The first instance is undisturbed.
    assert_eq!(
        client(&env)
            .post("/v1/interactions?ack=committed", &event)
            .await
            .settled(),
        (0, 1, 0, 0)
    );
    assert!(process.stop().success(), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_website_whose_name_resolves_to_this_machine_reads_nothing_of_dev() {
    let dir = DataDir::new();
    let mut arguments = dir.arguments("127.0.0.1:0");
    arguments.extend(["--allow-host", "laptop.test,shop.test:8080"].map(OsString::from));
    let process = Process::run(arguments);
    process.ready();
    let env = dir.env(&process);
    let client = client(&env);
    let port = client.address.port();
    for (host, status) in [
        ("localhost", 200),
        ("localhost:1", 200),
        ("LocalHost:8080", 200),
        ("127.0.0.1", 200),
        (&format!("127.0.0.1:{port}"), 200),
        ("[::1]:8080", 200),
        ("laptop.test:9", 200),
        ("shop.test", 200),
        ("evil.test", 403),
        (&format!("evil.test:{port}"), 403),
        ("localhost.evil.test", 403),
        ("192.0.2.1", 403),
    ] {
        for path in [
            "/healthz", "/readyz", "/metrics", "/openapi.json", "/", "/live",
        ] {
            // The live page needs no key here.
            let reply = client
                .without("x-api-key")
                .header("host", host)
                .get(path)
                .await;
            assert_eq!(reply.status, status, "{host}{path}");
            if status == 403 {
                assert_eq!(reply.problem().1, "host_not_allowed");
                assert!(reply.text.contains("--allow-host"), "{}", reply.text);
            }
        }
        let mut event = click("a");
        event["occurred_at"] = jiff::Timestamp::now().to_string().into();
        let sender = client.header("host", host).query("ack=committed");
        assert_eq!(
            sender.post("/v1/interactions", &event).await.status,
            status,
            "{host}"
        );
    }
}

/// Whether a text contains the path, with symbolic links resolved or not.
fn names(text: &str, path: &Path) -> bool {
    let real = std::fs::canonicalize(path).unwrap();
    text.contains(&*real.to_string_lossy()) || text.contains(&*path.to_string_lossy())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_signal_that_can_be_caught_leaves_the_server_behind() {
    for signal in [Signal::HUP, Signal::QUIT, Signal::INT] {
        let dir = DataDir::new();
        // The log is a pipe without a reader, as after a terminal was closed.
        let (reader, log) = std::io::pipe().unwrap();
        let mut process = Process::logging_to(log.into(), dir.arguments("127.0.0.1:0"));
        drop(reader);
        dir.env(&process);
        assert_eq!(dir.servers().len(), 1);
        process.signal(signal);
        let status = process.wait();
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}");
        assert_eq!(dir.servers(), [""; 0], "{signal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_dev_and_its_server_at_once() {
    let dir = DataDir::new();
    let (mut process, env) = dir.start();
    let (admin, connection) = tokio_postgres::connect(&env["DATABASE_URL"], NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    admin
        .batch_execute("BEGIN; LOCK TABLE interaction_events IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut event = click("a");
    event["occurred_at"] = jiff::Timestamp::now().to_string().into();
    let durable = client(&env);
    let reply = durable.post("/v1/interactions?ack=durable", &event).await;
    assert_eq!(reply.status, 202, "{}", reply.text);
    process.signal(Signal::TERM);
    process.message("stopping");
    process.signal(Signal::TERM);
    let status = process.wait();
    assert_eq!(status.code(), Some(143), "{status}\n{}", process.log());
    assert_eq!(dir.servers(), [""; 0]);
    // The next start stores what was acknowledged.
    let (mut process, env) = dir.start();
    eventually("the event to be stored", async || count(&env).await == 1).await;
    assert!(process.stop().success(), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_during_the_start_leaves_no_server_behind() {
    for after_ms in [0, 300, 800, 1500] {
        let dir = DataDir::new();
        let mut process = Process::run(dir.arguments("127.0.0.1:0"));
        eventually("the start to begin", async || {
            process.log().contains("starting PostgreSQL in")
        })
        .await;
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        process.signal(Signal::TERM);
        let status = process.wait();
        assert!(status.success(), "{status}\n{}", process.log());
        assert_eq!(dir.servers(), [""; 0], "after {after_ms} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_no_server_behind() {
    let dir = DataDir::new();
    let (mut process, _) = dir.start();
    assert!(process.stop().success(), "{}", process.log());
    // A file in place of the spool directory: the start fails only after PostgreSQL runs.
    let spool = dir.path().join("spool");
    std::fs::remove_dir_all(&spool).unwrap();
    std::fs::write(&spool, "not a directory").unwrap();
    let mut process = Process::run(dir.arguments("127.0.0.1:0"));
    let status = process.wait();
    assert_eq!(status.code(), Some(1), "{status}\n{}", process.log());
    assert_eq!(dir.servers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_greeting_is_the_last_thing_on_a_screen_and_can_be_pasted_twice() {
    let dir = DataDir::new();
    let mut arguments = dir.arguments("127.0.0.1:0");
    // As a newcomer starts it: in a folder, with a setting of `serve` in the environment.
    let both = dir.0.path().join("screen");
    let screen = std::fs::File::create(&both).unwrap();
    arguments.extend(["--log-format".into(), "pretty".into()]);
    let mut dev = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"));
    dev.args(arguments)
        .env("INGEST_WRITERS", "1")
        .env("INGEST_SPOOL_DIR", "/nowhere")
        .stdin(std::process::Stdio::null())
        .stdout(screen.try_clone().unwrap())
        .stderr(screen);
    let child = dev.spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let mut child = Ends(child);
    let seen = || std::fs::read_to_string(&both).unwrap();
    eventually("the greeting", async || seen().contains("data stays.\n")).await;
    // Time for all that is logged at the start.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let text = seen();
    let greeting = &text[text.find("\nrecsys-ingest is ready on ").unwrap()..];
    assert!(greeting.ends_with("data stays.\n"), "{greeting}");
    assert!(greeting.lines().count() <= 23, "{greeting}");
    let log = &text[..text.len() - greeting.len()];
    assert!(
        log.contains("INGEST_WRITERS") && log.contains("INGEST_SPOOL_DIR"),
        "{log}"
    );

    let lines = pasted(greeting);
    assert!(
        lines.contains("curl") && lines.contains("dev.env"),
        "{lines}"
    );
    for (count, word) in [
        (1, "\"committed\":1,\"duplicates\":0"),
        (2, "\"committed\":0,\"duplicates\":1"),
    ] {
        let (code, said) = paste(&lines, dir.0.path());
        assert_eq!(code, 0, "{said}");
        assert_eq!(said.matches(word).count(), 2, "{count}: {said}");
    }
    // Every command works as it stands after the file was sourced.
    let env = dir.path().join("dev.env").display().to_string();
    for (command, expected) in [
        ("verify", 0),
        ("doctor --least degraded", 0),
        ("partitions list", 0),
        ("tenants list", 0),
        ("keys list", 0),
        ("quarantine list", 0),
        ("migrate", 0),
        ("migrate --status", 0),
        ("report join", 0),
        ("signals --changed", 0),
    ] {
        let script = format!(". {env}; recsys-ingest {command}");
        let (code, said) = paste(&script, dir.0.path());
        assert_eq!(code, expected, "{command}: {said}");
    }
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(child.0.wait().unwrap().success());
}

/// Ends a process when a test fails.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
