//! Promise: connections to PostgreSQL end with a Terminate message, whether a command succeeds,
//! fails or is interrupted; the server's log reports no client that vanished.

use std::ffi::OsString;

use crate::harness::{Cluster, Database, Process, Settings, click, eventually, one};

/// What a server logs about a client that vanished. Outside of a transaction some of it appears
/// only at `debug1`.
const VANISHED: [&str; 6] = [
    "unexpected EOF",
    "could not receive data",
    "could not send data",
    "Broken pipe",
    "Connection reset",
    "connection to client lost",
];

async fn server() -> (Cluster, Database) {
    let cluster = Cluster::start(&[
        ("log_min_messages", "debug1"),
        ("log_connections", "on"),
        ("log_disconnections", "on"),
    ]);
    let database = Database::on(&cluster).await;
    (cluster, database)
}

/// Fails if a client vanished; returns the number of connections in the log.
fn clients(log: &str) -> usize {
    let bad = |line: &&str| VANISHED.iter().any(|words| line.contains(words));
    let vanished: Vec<_> = log.lines().filter(bad).collect();
    assert!(vanished.is_empty(), "{vanished:#?}");
    log.matches("connection authorized").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_says_goodbye_to_the_server() {
    let (cluster, database) = server().await;
    let settings = Settings::new(&database);
    let (mut process, client) = Process::serve(&settings);
    let reply = client.post("/v1/interactions", &click("a")).await;
    assert_eq!(reply.status, 200);
    let url = format!("--database-url={}", database.url());
    let spool = format!("--spool-dir={}", settings.spool.path().display());
    let secret = "--api-key-hash-secret=pepper";
    let commands: [&[&str]; 13] = [
        &["migrate"],
        &["tenants", "list"],
        &["tenants", "create", "another"],
        // A command that fails.
        &["tenants", "create", "another"],
        &["keys", "list"],
        &["keys", "create", "another", "--role", "ingest", secret],
        &["keys", "revoke", "no-such-key"],
        &["partitions", "list"],
        &["partitions", "seal"],
        &["quarantine", "list"],
        &["quarantine", "show", "1"],
        &["quarantine", "retry", "--all"],
        &["verify", &spool],
    ];
    for command in commands {
        let before = clients(&cluster.log());
        let arguments = command.iter().map(OsString::from);
        let mut process = Process::run(arguments.chain([OsString::from(&url)]));
        process.wait();
        let after = clients(&cluster.log());
        assert!(
            after > before,
            "{command:?} did not connect: {}",
            process.log()
        );
    }
    assert!(process.stop().success());
    clients(&cluster.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_interrupted_ends_its_statement_and_says_goodbye() {
    use rustix::process::Signal;
    let (cluster, database) = server().await;
    let (mut admin, watcher) = (database.connect().await, database.connect().await);
    let lock = admin.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let url = format!("--database-url={}", database.url());
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let command = ["tenants", "list", &url].map(OsString::from);
        let mut process = Process::run(command);
        let waits = "SELECT count(*) FROM pg_stat_activity
                      WHERE wait_event_type = 'Lock' AND application_name = 'recsys-ingest'";
        eventually("the command to wait", async || {
            one::<i64>(&watcher, waits).await == 1
        })
        .await;
        process.signal(signal);
        let status = process.wait();
        assert_eq!(status.code(), Some(code), "{status}\n{}", process.log());
        eventually("the statement to end", async || {
            one::<i64>(&watcher, waits).await == 0
        })
        .await;
    }
    lock.rollback().await.unwrap();
    clients(&cluster.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_stopped_says_goodbye_on_all_its_connections() {
    let (cluster, database) = server().await;
    let (mut process, client) = Process::serve(&Settings::new(&database));
    let reply = client.post("/v1/interactions", &click("a")).await;
    assert_eq!(reply.status, 200);
    let status = process.stop();
    assert!(status.success(), "{status}");
    assert!(clients(&cluster.log()) > 0);
}
