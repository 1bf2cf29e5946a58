//! A PostgreSQL of the tests' own, a database for each, and words to ask it with.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use recsys_ingest::event::Table;
use recsys_ingest::store::migrate::{Report, migrate};
use recsys_ingest::store::partition::{Interval, Range, list};
use tokio_postgres::{Client, Config, NoTls};

/// The tenant of the suite's fixture.
pub const TENANT: &str = "00000000-0000-4000-8000-000000000001";
const SUITE_SCHEMA: &str = include_str!("../fixtures/suite_schema.sql");

/// Starts a server of our own, once, and returns its socket directory.
///
/// The server lives as long as the pipe to its watcher is open, which is as long
/// as this process; the watcher then stops it and clears up.
fn server() -> &'static Path {
    static SERVER: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (dir, _) = SERVER.get_or_init(|| {
        let bin = std::env::var("RECSYS_TEST_PG_BIN")
            .unwrap_or_else(|_| "/usr/lib/postgresql/15/bin".to_owned());
        let dir = std::env::temp_dir().join(format!("recsys-schema-{}", std::process::id()));
        let as_postgres = |script: &str| {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh", "-ec"])
                .args([script, "sh", &bin])
                .arg(&dir)
                .current_dir("/")
                .process_group(0);
            command
        };
        let made = as_postgres(
            "mkdir -m 700 $2; $1/initdb -D $2/data -U postgres -A trust -E UTF8 --no-locale -N >$2/initdb.log",
        );
        run(made);
        let watcher = as_postgres(
            "$1/postgres -D $2/data -k $2 -c listen_addresses= -c fsync=off -c max_connections=80 \
                 -c autovacuum=off >$2/server.log 2>&1 & pid=$!
             cat >/dev/null; kill -INT $pid; wait $pid || true; rm -rf $2",
        )
        .stdin(Stdio::piped())
        .spawn()
        .expect("spawn");
        let mut ready = as_postgres(
            "for i in $(seq 100); do $1/pg_isready -q -h $2 && exit 0; sleep 0.1; done; cat $2/server.log; exit 1",
        );
        assert!(ready.status().unwrap().success(), "the server did not start");
        (dir, watcher)
    });
    dir
}

fn run(mut command: Command) {
    let output = command.output().expect("spawn");
    std::io::stderr().write_all(&output.stderr).unwrap();
    assert!(output.status.success(), "{command:?} failed");
}

/// An empty database of a test's own.
pub struct Database {
    name: String,
}

impl Database {
    pub async fn empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let admin = Database {
            name: "template1".to_owned(),
        };
        // Two CREATE DATABASE at once disagree about who may read the template.
        static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let guard = ONE_AT_A_TIME.lock().await;
        let client = admin.connect().await;
        client
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await
            .unwrap();
        drop(guard);
        Database { name }
    }

    pub async fn migrated() -> Self {
        let database = Self::empty().await;
        migrate(&mut database.connect().await).await.unwrap();
        database
    }

    /// A database that the suite built, migrated by us.
    pub async fn adopted() -> (Self, Report) {
        let database = Self::empty().await;
        let mut client = database.connect().await;
        client.batch_execute(SUITE_SCHEMA).await.unwrap();
        let report = migrate(&mut client).await.unwrap();
        (database, report)
    }

    pub async fn connect(&self) -> Client {
        let (client, connection) = Config::new()
            .host_path(server())
            .user("postgres")
            .dbname(&self.name)
            .application_name("schema test")
            .connect(NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }
}

pub async fn one<T>(client: &Client, sql: &str) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    client
        .query_one(sql, &[])
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
        .get(0)
}

pub async fn texts(client: &Client, sql: &str) -> Vec<String> {
    let rows = client
        .query(sql, &[])
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

pub fn at(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

pub fn day(text: &str) -> Range {
    Interval::Day.range_of(at(&format!("{text}T12:00:00Z")))
}

pub async fn names(client: &mut Client, table: Table) -> Vec<String> {
    list(client, table)
        .await
        .unwrap()
        .into_iter()
        .map(|p| p.name)
        .collect()
}

pub const INTERACTION: &str = "INSERT INTO interaction_events
    (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
    VALUES ('00000000-0000-4000-8000-000000000001', $1::text::timestamptz, gen_random_uuid(), now(), 'view', 'a')";
