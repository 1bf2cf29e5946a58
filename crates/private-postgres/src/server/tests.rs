//! Tests with real servers and killed processes.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::SimpleQueryMessage;

use super::*;

/// A directory that all users may enter, so that as root, too, the cluster stays in it.
fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Not durable, but not ephemeral: most of these tests look at what a stop leaves behind.
fn kept(dir: impl Into<PathBuf>) -> Options {
    Options {
        ephemeral: false,
        ..Options::ephemeral(dir)
    }
}

fn query_within(url: &str, sql: &str, limit: Duration) -> anyhow::Result<Vec<String>> {
    let config: tokio_postgres::Config = url.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ask = async {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        let ask = async {
            let client = client;
            client.simple_query(sql).await
        };
        let (messages, _) = tokio::join!(ask, connection);
        let first = |message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0)?.to_owned()),
            _ => None,
        };
        anyhow::Ok(messages?.into_iter().filter_map(first).collect())
    };
    runtime.block_on(async { tokio::time::timeout(limit, ask).await })?
}

fn query(postgres: &PrivatePostgres, sql: &str) -> Vec<String> {
    query_within(&postgres.url(), sql, Duration::from_secs(20)).unwrap()
}

fn message(outcome: Result<PrivatePostgres, LaunchError>) -> String {
    outcome.unwrap_err().to_string()
}

/// Runs [`process_that_keeps_a_server`] on `dir` until it is killed; returns the server's pid.
fn owner_process(dir: &Path, kind: &str) -> (Child, u32) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("server::tests::process_that_keeps_a_server")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(owner.stdin.as_mut().unwrap(), "{kind} {}", dir.display()).unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let pid = lines
        .find_map(|line| line.strip_prefix("server ")?.parse().ok())
        .unwrap();
    (owner, pid)
}

fn kill(mut owner: Child) {
    owner.kill().unwrap();
    owner.wait().unwrap();
}

#[test]
#[ignore = "not a test: the process that others kill; it reads what to start from its input"]
fn process_that_keeps_a_server() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let Some((kind, dir)) = line.trim().split_once(' ') else {
        return;
    };
    let options = if kind == "ephemeral" {
        Options::ephemeral(dir)
    } else {
        kept(dir)
    };
    let postgres = PrivatePostgres::start(&options).unwrap();
    println!("\nserver {}", postgres.pid());
    std::io::stdin().read_line(&mut line).unwrap();
}

#[test]
fn data_outlive_a_stop_a_restart_and_an_immediate_stop() {
    let dir = open_dir();
    let mut postgres = PrivatePostgres::start(&kept(dir.path())).unwrap();
    let (url, first) = (postgres.url(), postgres.pid());
    query(&postgres, "CREATE TABLE t AS SELECT 42 AS n");
    postgres.restart().unwrap();
    assert_ne!(postgres.pid(), first);
    assert_eq!(query(&postgres, "SELECT n FROM t"), ["42"]);
    postgres.stop_immediate().unwrap();
    assert!(query_within(&url, "SELECT 1", Duration::from_secs(5)).is_err());
    postgres.restart().unwrap();
    assert_eq!(query(&postgres, "SELECT n FROM t"), ["42"]);
    postgres.stop().unwrap();

    let postgres = PrivatePostgres::start(&kept(dir.path())).unwrap();
    assert_eq!(postgres.url(), url);
    assert_eq!(query(&postgres, "SELECT n FROM t"), ["42"]);
}

#[test]
fn the_url_works_with_psql_as_it_stands() {
    let dir = open_dir();
    let odd = dir.path().join("a b%c&d");
    let database = "we\"ird name".to_owned();
    let options = Options {
        database,
        settings: vec![("port".to_owned(), "5499".to_owned())],
        ..Options::ephemeral(odd)
    };
    let postgres = PrivatePostgres::start(&options).unwrap();
    assert_eq!(
        query(&postgres, "SELECT current_database()"),
        ["we\"ird name"]
    );
    let psql = postgres.bin_dir().join("psql");
    if !psql.exists() {
        println!("skipped: no psql beside the server");
        return;
    }
    let output = Command::new(psql)
        .args([
            &postgres.url(),
            "-Atc",
            "SELECT current_setting('TimeZone')",
        ])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "UTC",
        "{output:?}"
    );
}

#[test]
fn a_second_start_names_the_directory_and_the_process() {
    let dir = open_dir();
    let _first = PrivatePostgres::start(&Options::ephemeral(dir.path())).unwrap();
    match PrivatePostgres::start(&Options::ephemeral(dir.path())).unwrap_err() {
        LaunchError::InUse { data_dir, pid } => {
            assert_eq!(data_dir, fs::canonicalize(dir.path()).unwrap());
            assert_eq!(pid, Some(std::process::id()));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_server_whose_owner_was_killed_is_taken_over_and_stopped() {
    let dir = open_dir();
    let (owner, server) = owner_process(dir.path(), "kept");
    kill(owner);
    let postgres = PrivatePostgres::start(&kept(dir.path())).unwrap();
    assert_eq!(postgres.pid(), server);
    assert_eq!(query(&postgres, "SELECT 1"), ["1"]);
    let cluster = postgres.home.cluster();
    postgres.stop().unwrap();
    assert!(PidFile::read(&cluster).is_none());
}

#[test]
fn a_server_left_with_other_settings_is_started_again_with_the_new_ones() {
    let dir = open_dir();
    let (owner, server) = owner_process(dir.path(), "kept");
    kill(owner);
    let durable = Options {
        durable: true,
        ..kept(dir.path())
    };
    let postgres = PrivatePostgres::start(&durable).unwrap();
    assert_ne!(postgres.pid(), server);
    assert_eq!(query(&postgres, "SHOW fsync"), ["on"]);
}

#[test]
fn an_ephemeral_server_and_its_data_go_with_a_killed_owner() {
    let dir = open_dir();
    let (owner, _) = owner_process(dir.path(), "ephemeral");
    kill(owner);
    // The lock is free only when everything is cleared up.
    let home = Home::open(dir.path(), &Identity::detect().unwrap(), PORT).unwrap();
    assert!(!home.cluster().exists());
    assert!(!home.socket_dir().exists());
}

#[test]
fn an_ephemeral_server_finds_nothing_of_an_earlier_one() {
    let dir = open_dir();
    let postgres = PrivatePostgres::start(&kept(dir.path())).unwrap();
    query(&postgres, "CREATE TABLE t AS SELECT 42 AS n");
    postgres.stop().unwrap();
    // The same for a server that still runs.
    let (owner, left) = owner_process(dir.path(), "kept");
    kill(owner);
    let postgres = PrivatePostgres::start(&Options::ephemeral(dir.path())).unwrap();
    assert_ne!(postgres.pid(), left);
    assert_eq!(query(&postgres, "SELECT to_regclass('t') IS NULL"), ["t"]);
}

#[test]
fn what_an_ephemeral_server_has_committed_outlives_its_crash() {
    let dir = open_dir();
    let mut postgres = PrivatePostgres::start(&Options::ephemeral(dir.path())).unwrap();
    query(&postgres, "CREATE TABLE t (n int)");
    query(&postgres, "INSERT INTO t VALUES (42)");
    postgres.stop_immediate().unwrap();
    postgres.restart().unwrap();
    assert_eq!(query(&postgres, "SELECT n FROM t"), ["42"]);
}

#[test]
fn a_stale_note_with_a_strangers_pid_does_not_keep_a_server_from_starting() {
    let dir = open_dir();
    let postgres = PrivatePostgres::start(&kept(dir.path())).unwrap();
    let note = PidFile::path(&postgres.home.cluster());
    let text = fs::read_to_string(&note).unwrap();
    let server = postgres.pid().to_string();
    postgres.stop().unwrap();
    fs::write(
        &note,
        text.replacen(&server, &std::process::id().to_string(), 1),
    )
    .unwrap();
    let postgres = PrivatePostgres::start(&kept(dir.path())).unwrap();
    assert_eq!(query(&postgres, "SELECT 1"), ["1"]);
}

#[test]
fn a_path_too_long_for_a_socket_gets_one_elsewhere() {
    let dir = open_dir();
    let long = dir.path().join("d".repeat(120));
    let postgres = PrivatePostgres::start(&Options::ephemeral(&long)).unwrap();
    assert_eq!(query(&postgres, "SELECT 1"), ["1"]);
    let socket_dir = postgres.home.socket_dir();
    assert!(socket_dir.starts_with("/tmp"));
    postgres.stop().unwrap();
    assert!(
        !socket_dir.exists(),
        "nothing is left in the shared directory"
    );
}

#[test]
fn as_root_a_closed_data_directory_leads_to_the_same_cluster_at_every_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let data_dir = dir.path().join("data");
    let postgres = PrivatePostgres::start(&kept(&data_dir)).unwrap();
    query(&postgres, "CREATE TABLE t AS SELECT 7 AS n");
    let cluster = postgres.home.cluster();
    let moved = matches!(postgres.identity, Identity::Account(_));
    assert_eq!(
        moved,
        !cluster.starts_with(fs::canonicalize(&data_dir).unwrap())
    );
    postgres.stop().unwrap();

    let postgres = PrivatePostgres::start(&kept(&data_dir)).unwrap();
    assert_eq!(query(&postgres, "SELECT n FROM t"), ["7"]);
    postgres.delete().unwrap();
    assert!(!cluster.exists());

    // If the directory in `cluster-is-in` is gone, data are lost: that is an error.
    if moved {
        fs::write(
            data_dir.join("cluster-is-in"),
            cluster.parent().unwrap().as_os_str().as_encoded_bytes(),
        )
        .unwrap();
        let text = message(PrivatePostgres::start(&kept(&data_dir)));
        assert!(
            text.contains("which is gone") && text.contains("begin an empty one"),
            "{text}"
        );
    }
}

#[test]
fn as_root_a_cluster_is_run_by_the_user_who_owns_it() {
    if !matches!(Identity::detect().unwrap(), Identity::Account(_)) {
        println!("skipped: only root runs PostgreSQL as another user");
        return;
    }
    let dir = open_dir();
    PrivatePostgres::start(&kept(dir.path()))
        .unwrap()
        .stop()
        .unwrap();
    let chown = Command::new("chown")
        .args(["-R", "nobody"])
        .arg(dir.path().join("cluster"))
        .status();
    assert!(chown.unwrap().success());
    // The socket directory is made for the user who runs the server now.
    let postgres = PrivatePostgres::start(&Options::ephemeral(dir.path())).unwrap();
    assert_eq!(query(&postgres, "SELECT 1"), ["1"]);
}

#[test]
fn a_suspended_server_keeps_its_connections_and_answers_after_resume() {
    let dir = open_dir();
    let mut postgres = PrivatePostgres::start(&Options::ephemeral(dir.path())).unwrap();
    let url = postgres.url();
    let slow = std::thread::spawn({
        let url = url.clone();
        move || query_within(&url, "SELECT pg_sleep(0.5), 5", Duration::from_secs(20))
    });
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let deadline = Instant::now() + Duration::from_secs(10);
    while query(&postgres, connected) != ["1"] {
        assert!(Instant::now() < deadline);
    }
    postgres.suspend().unwrap();
    assert!(query_within(&url, "SELECT 1", Duration::from_secs(1)).is_err());
    assert!(!slow.is_finished(), "a session is frozen with the server");
    postgres.resume().unwrap();
    assert_eq!(slow.join().unwrap().unwrap().len(), 1);
    assert_eq!(query(&postgres, "SELECT 1"), ["1"]);
    postgres.suspend().unwrap();
    // A frozen server can be stopped.
    postgres.stop().unwrap();
}

#[test]
fn a_failed_start_quotes_the_end_of_the_log() {
    let dir = open_dir();
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let text = message(PrivatePostgres::start(&Options {
        settings,
        ..Options::ephemeral(dir.path())
    }));
    assert!(
        text.contains("unrecognized configuration parameter \"no_such_setting\""),
        "{text}"
    );
    assert!(!text.contains('\n'), "{text}");
}

#[tokio::test]
async fn a_start_inside_an_async_runtime_works() {
    let dir = open_dir();
    let postgres = PrivatePostgres::start(&Options::ephemeral(dir.path())).unwrap();
    assert!(postgres.version() >= binaries::MAJOR_MIN);
}

#[test]
fn a_cluster_of_another_version_asks_for_that_version() {
    let dir = open_dir();
    fs::create_dir(dir.path().join("cluster")).unwrap();
    fs::write(dir.path().join("cluster/PG_VERSION"), "9\n").unwrap();
    let text = message(PrivatePostgres::start(&kept(dir.path())));
    assert!(
        text.contains("made by PostgreSQL 9, which was not found"),
        "{text}"
    );
}

#[test]
fn the_lock_is_free_at_once_though_other_threads_start_processes() {
    let dir = open_dir();
    let identity = Identity::detect().unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    // With a user id the standard library uses fork, not posix_spawn.
                    let status = Command::new("true")
                        .uid(rustix::process::geteuid().as_raw())
                        .status();
                    assert!(status.unwrap().success());
                }
            });
        }
        let opened: Result<Vec<()>, LaunchError> = (0..200)
            .map(|_| Home::open(dir.path(), &identity, PORT).map(drop))
            .collect();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        opened.unwrap();
    });
}
