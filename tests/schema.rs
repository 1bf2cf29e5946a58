//! The schema on a real PostgreSQL: migrations, adoption, views, partitions.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use recsys_ingest::event::Table;
use recsys_ingest::store::migrate::{Report, migrate, migrate_within};
use recsys_ingest::store::partition::{
    Coverage, Ensured, Error, Interval, Range, ensure, ensure_ahead, list, read_coverage,
};
use tokio_postgres::{Client, Config, NoTls};

const TENANT: &str = "00000000-0000-4000-8000-000000000001";
const SUITE_SCHEMA: &str = include_str!("fixtures/suite_schema.sql");

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
struct Database {
    name: String,
}

impl Database {
    async fn empty() -> Self {
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

    async fn migrated() -> Self {
        let database = Self::empty().await;
        migrate(&mut database.connect().await).await.unwrap();
        database
    }

    /// A database that the suite built, migrated by us.
    async fn adopted() -> (Self, Report) {
        let database = Self::empty().await;
        let mut client = database.connect().await;
        client.batch_execute(SUITE_SCHEMA).await.unwrap();
        let report = migrate(&mut client).await.unwrap();
        (database, report)
    }

    async fn connect(&self) -> Client {
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

async fn one<T>(client: &Client, sql: &str) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    client
        .query_one(sql, &[])
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
        .get(0)
}

async fn texts(client: &Client, sql: &str) -> Vec<String> {
    let rows = client
        .query(sql, &[])
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

fn at(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

fn day(text: &str) -> Range {
    Interval::Day.range_of(at(&format!("{text}T12:00:00Z")))
}

async fn names(client: &mut Client, table: Table) -> Vec<String> {
    list(client, table)
        .await
        .unwrap()
        .into_iter()
        .map(|p| p.name)
        .collect()
}

const INTERACTION: &str = "INSERT INTO interaction_events
    (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
    VALUES ('00000000-0000-4000-8000-000000000001', $1::text::timestamptz, gen_random_uuid(), now(), 'view', 'a')";

// ---- migrations ----

#[tokio::test]
async fn an_empty_database_gets_the_whole_schema_and_a_second_run_does_nothing() {
    let database = Database::empty().await;
    let mut client = database.connect().await;
    let report = migrate(&mut client).await.unwrap();
    assert_eq!(report.applied.len(), 4, "{report:?}");
    assert!(!report.is_adopted());
    let again = migrate(&mut client).await.unwrap();
    assert_eq!(
        again,
        Report {
            applied: vec![],
            adopted: vec![]
        }
    );

    let tables = texts(
        &client,
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p', 'v')
         AND relnamespace = 'public'::regnamespace ORDER BY relname",
    )
    .await;
    assert_eq!(
        tables,
        [
            "audit_log",
            "cache_invalidation_events",
            "experiment_assignments",
            "exposure_events",
            "ingest_ledger",
            "ingest_partition_log",
            "ingest_quarantine",
            "ingest_schema_history",
            "interaction_events",
            "item_covisit_daily",
            "item_popularity_daily",
            "item_tags",
            "recsys_exposures",
            "recsys_outcomes",
            "tenant_api_keys",
            "tenant_config_versions",
            "tenant_configs_current",
            "tenant_rule_versions",
            "tenant_rules_current",
            "tenants",
        ]
    );
    let timeout: String = one(&client, "SHOW lock_timeout").await;
    assert_eq!(timeout, "0", "the session is left as it was");
    let locks: i64 = one(
        &client,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
    )
    .await;
    assert_eq!(locks, 0);
}

#[tokio::test]
async fn the_event_tables_have_the_columns_in_the_order_of_a_row() {
    let database = Database::migrated().await;
    let client = database.connect().await;
    let columns = |table: &str| {
        format!(
            "SELECT attname || ' ' || format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' !' ELSE '' END
             FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY attnum"
        )
    };
    assert_eq!(
        texts(&client, &columns("exposure_events")).await,
        [
            "tenant_id uuid !",
            "occurred_at timestamp with time zone !",
            "event_id uuid !",
            "received_at timestamp with time zone !",
            "request_id uuid !",
            "surface text !",
            "segment text !",
            "user_key bytea",
            "session_id text",
            "experiment_id text",
            "experiment_variant text",
            "algo_version text !",
            "config_etag text",
            "rules_etag text",
            "request jsonb !",
            "response jsonb !",
            "meta jsonb",
        ]
    );
    assert_eq!(
        texts(&client, &columns("interaction_events")).await,
        [
            "tenant_id uuid !",
            "occurred_at timestamp with time zone !",
            "event_id uuid !",
            "received_at timestamp with time zone !",
            "request_id uuid",
            "user_key bytea",
            "session_id text",
            "surface text",
            "segment text",
            "event_type interaction_type !",
            "item_id text !",
            "position integer",
            "value numeric(18,6)",
            "meta jsonb",
        ]
    );
    let indexes: i64 =
        one(&client, "SELECT count(*) FROM pg_index WHERE indrelid IN ('exposure_events'::regclass, 'interaction_events'::regclass)").await;
    assert_eq!(indexes, 2, "the key and nothing else");
}

#[tokio::test]
async fn eight_instances_that_start_at_once_migrate_an_empty_database_once() {
    let database = Database::empty().await;
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = database.connect().await;
        runs.spawn(async move { migrate(&mut client).await });
    }
    let reports: Vec<Report> = runs
        .join_all()
        .await
        .into_iter()
        .map(|r| r.unwrap())
        .collect();
    assert_eq!(reports.iter().filter(|r| r.applied.len() == 4).count(), 1);
    assert_eq!(reports.iter().filter(|r| r.applied.is_empty()).count(), 7);
}

#[tokio::test]
async fn the_wait_for_another_migration_ends_and_names_who_holds_the_lock() {
    let database = Database::empty().await;
    let holder = database.connect().await;
    let key = i64::from_be_bytes(*b"ingestDB");
    holder
        .execute("SELECT pg_advisory_lock($1)", &[&key])
        .await
        .unwrap();
    let pid: i32 = one(&holder, "SELECT pg_backend_pid()").await;
    let mut client = database.connect().await;
    let error = migrate_within(&mut client, Duration::from_millis(250))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("backend {pid} (schema test)")),
        "{error}"
    );

    drop(holder);
    migrate(&mut client).await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_with_advice() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "INSERT INTO ingest_schema_history (version, name, applied_on, checksum)
             SELECT 999, 'from_the_future', applied_on, '1' FROM ingest_schema_history WHERE version = 1",
        )
        .await
        .unwrap();
    let error = migrate(&mut client).await.unwrap_err();
    assert!(error.to_string().contains("newer version"), "{error:?}");
    let locks: i64 = one(
        &client,
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
    )
    .await;
    assert_eq!(locks, 0, "a failure gives the lock back");
}

#[tokio::test]
async fn a_role_that_may_not_change_the_schema_is_told_so() {
    let database = Database::empty().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "CREATE ROLE weak; REVOKE CREATE ON SCHEMA public FROM PUBLIC; SET ROLE weak",
        )
        .await
        .unwrap();
    let error = migrate(&mut client).await.unwrap_err();
    assert!(
        error.to_string().contains("connect as the owner"),
        "{error:?}"
    );
}

#[tokio::test]
async fn configuration_versions_have_the_suites_etag_and_cannot_be_changed() {
    let database = Database::migrated().await;
    let client = database.connect().await;
    client
        .batch_execute(&format!(
            "INSERT INTO tenants (id, external_id, name) VALUES ('{TENANT}', 'demo', 'Demo');
             INSERT INTO tenant_config_versions (tenant_id, config, created_by_sub)
             VALUES ('{TENANT}', '{{\"b\":  \"\\\\ü\", \"a\": 1}}', 'me')"
        ))
        .await
        .unwrap();
    let text: String = one(&client, "SELECT config::text FROM tenant_config_versions").await;
    let etag: String = one(&client, "SELECT etag FROM tenant_config_versions").await;
    assert_eq!(
        etag,
        hex::encode(<sha2::Sha256 as sha2::Digest>::digest(text.as_bytes()))
    );
    let refused = client
        .batch_execute("UPDATE tenant_config_versions SET comment = 'x'")
        .await
        .unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "0A000");
    client
        .batch_execute("UPDATE tenants SET updated_at = '2000-01-01', name = 'x'")
        .await
        .unwrap();
    let touched: bool = one(
        &client,
        "SELECT updated_at > now() - interval '1 minute' FROM tenants",
    )
    .await;
    assert!(touched);
}

// ---- adoption ----

#[tokio::test]
async fn a_suite_database_is_adopted_with_its_rows_keys_and_indexes() {
    let (database, report) = Database::adopted().await;
    assert_eq!(report.adopted, Table::ALL);
    let mut client = database.connect().await;
    let rows: i64 = one(
        &client,
        "SELECT count(*) FROM exposure_events_default WHERE event_id IS NULL",
    )
    .await;
    assert_eq!(rows, 4);
    let indexes: i64 = one(
        &client,
        "SELECT count(*) FROM pg_index WHERE indrelid = 'exposure_events'::regclass",
    )
    .await;
    assert_eq!(indexes, 8, "the suite's seven and our unique one");
    let history: i64 = one(&client, "SELECT count(*) FROM schema_migrations").await;
    assert_eq!(history, 1);
    let again = migrate(&mut client).await.unwrap();
    assert_eq!(
        again,
        Report {
            applied: vec![],
            adopted: Table::ALL.to_vec()
        }
    );
}

#[tokio::test]
async fn copy_with_a_list_of_columns_and_a_replay_work_on_both_shapes() {
    let fresh = Database::migrated().await;
    let (adopted, _) = Database::adopted().await;
    for database in [fresh, adopted] {
        let mut client = database.connect().await;
        ensure(&mut client, Table::Interactions, day("2026-03-12"), "test")
            .await
            .unwrap();
        let copy = "COPY interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id) FROM STDIN";
        let line = format!(
            "{TENANT}\t2026-03-12 10:00:00+00\t00000000-0000-4000-8000-00000000000a\t2026-03-12 10:00:01+00\tview\ta\n"
        );
        for expect_new in [true, false] {
            let sink = client.copy_in::<_, bytes::Bytes>(copy).await.unwrap();
            let mut sink = std::pin::pin!(sink);
            futures_util::SinkExt::send(&mut sink, line.clone().into())
                .await
                .unwrap();
            let outcome = sink.finish().await;
            match outcome {
                Ok(rows) => assert!(expect_new && rows == 1),
                Err(error) => assert!(
                    !expect_new && error.code().unwrap().code() == "23505",
                    "{error:?}"
                ),
            }
        }
        let merged = client
            .execute(
                "INSERT INTO interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
                 SELECT tenant_id, occurred_at, event_id, received_at, event_type, item_id FROM interaction_events
                 WHERE event_id IS NOT NULL ON CONFLICT DO NOTHING",
                &[],
            )
            .await
            .unwrap();
        assert_eq!(merged, 0);
    }
}

#[tokio::test]
async fn rows_in_the_default_partition_move_into_the_partition_that_is_made_for_them() {
    let (database, _) = Database::adopted().await;
    let mut client = database.connect().await;
    let ensured = ensure(&mut client, Table::Exposures, day("2026-03-10"), "test")
        .await
        .unwrap();
    let Ensured::Created(created) = ensured else {
        panic!("{ensured:?}")
    };
    assert_eq!(
        (created.name.as_str(), created.moved_rows),
        ("exposure_events_2026_03_10", 3)
    );
    let counts = "SELECT (SELECT count(*) FROM exposure_events) || ' ' || (SELECT count(*) FROM exposure_events_default)
         || ' ' || (SELECT count(*) FROM exposure_events_2026_03_10)";
    let counts: String = one(&client, counts).await;
    assert_eq!(counts, "4 1 3");
    let reason: String = one(&client, "SELECT reason FROM ingest_partition_log").await;
    assert_eq!(reason, "test; moved 3 rows out of exposure_events_default");
    // The foreign key came with ATTACH, and so did the sequence with LIKE.
    let refused = client
        .execute(
            "INSERT INTO exposure_events (tenant_id, occurred_at, request_id, surface, segment, algo_version, request, response)
             VALUES (gen_random_uuid(), '2026-03-10', gen_random_uuid(), 's', 's', 'v', '{}', '{}')",
            &[],
        )
        .await
        .unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "23503");
    let ids: bool = one(
        &client,
        "SELECT count(DISTINCT id) = 4 FROM exposure_events",
    )
    .await;
    assert!(ids);
    let infos = list(&mut client, Table::Exposures).await.unwrap();
    assert_eq!(
        infos.iter().map(|i| i.is_default).collect::<Vec<_>>(),
        [false, true]
    );
}

// ---- views ----

#[tokio::test]
async fn the_views_give_documents_that_the_evaluator_can_decode() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    for table in Table::ALL {
        ensure(&mut client, table, day("2026-03-10"), "test")
            .await
            .unwrap();
    }
    client
        .batch_execute(&format!(
            r#"INSERT INTO tenants (id, external_id, name) VALUES ('{TENANT}', 'demo', 'Demo');
            SET TimeZone = 'Asia/Kathmandu';
            INSERT INTO exposure_events VALUES
            ('{TENANT}', '2026-03-10 08:00:00.25+00', gen_random_uuid(), now(),
             '00000000-0000-4000-8000-0000000000aa', 'home', 'default', '\xabcd', 's1', 'exp', 'B', 'v7', 'c1', NULL,
             '{{"context": {{"locale": "de", "n": 3, "none": null}}}}',
             '{{"items": [{{"item_id": "a", "rank": 1, "propensity": 0.5, "score": 2}}, {{"item_id": "b", "rank": "x"}}, {{"item_id": ""}}, 7]}}',
             '{{"request_id": "req-1", "latency_ms": "slow", "error": true}}'),
            ('{TENANT}', '2026-03-10 09:00:00+00', gen_random_uuid(), now(),
             '00000000-0000-4000-8000-0000000000bb', 'home', 'default', NULL, '', NULL, NULL, 'v7', NULL, NULL,
             '[]', '{{"items": {{}}}}', NULL);
            INSERT INTO interaction_events VALUES
            ('{TENANT}', '2026-03-10 08:01:00+00', gen_random_uuid(), now(), '00000000-0000-4000-8000-0000000000aa',
             '\xabcd', NULL, 'home', NULL, 'purchase', 'a', 1, 19.90, '{{"request_id": "req-1"}}'),
            ('{TENANT}', '2026-03-10 08:02:00+00', gen_random_uuid(), now(), '00000000-0000-4000-8000-0000000000bb',
             NULL, 's2', NULL, NULL, 'click', 'b', NULL, NULL, NULL),
            ('{TENANT}', '2026-03-10 08:03:00+00', gen_random_uuid(), now(), NULL,
             NULL, 's2', NULL, NULL, 'click', 'b', NULL, NULL, NULL),
            ('{TENANT}', '2026-03-10 08:04:00+00', gen_random_uuid(), now(), '00000000-0000-4000-8000-0000000000bb',
             NULL, 's2', NULL, NULL, 'view', 'b', NULL, NULL, NULL)"#
        ))
        .await
        .unwrap();
    let documents = async |view: &str| -> Vec<serde_json::Value> {
        let rows = client
            .query(
                &format!("SELECT data FROM {view} WHERE tenant = 'demo' ORDER BY ts"),
                &[],
            )
            .await;
        rows.unwrap().iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(
        documents("recsys_exposures").await,
        [
            serde_json::json!({
                "request_id": "req-1", "user_id": "abcd", "ts": "2026-03-10T08:00:00.250000Z",
                "items": [{"item_id": "a", "rank": 1, "propensity": 0.5}, {"item_id": "b", "rank": 2}],
                "context": {
                    "locale": "de", "n": "3", "tenant": "demo", "tenant_id": "demo", "surface": "home",
                    "segment": "default", "algo_version": "v7", "config_version": "c1",
                    "experiment_id": "exp", "experiment_variant": "B"
                },
                "error": true
            }),
            serde_json::json!({
                "request_id": "00000000-0000-4000-8000-0000000000bb",
                "user_id": "00000000-0000-4000-8000-0000000000bb",
                "ts": "2026-03-10T09:00:00.000000Z",
                "items": [],
                "context": {
                    "tenant": "demo", "tenant_id": "demo", "surface": "home",
                    "segment": "default", "algo_version": "v7"
                }
            }),
        ]
    );
    assert_eq!(
        documents("recsys_outcomes").await,
        [
            serde_json::json!({
                "request_id": "req-1", "user_id": "abcd", "item_id": "a", "event_type": "conversion",
                "value": 19.9, "ts": "2026-03-10T08:01:00.000000Z"
            }),
            serde_json::json!({
                "request_id": "00000000-0000-4000-8000-0000000000bb", "user_id": "s2", "item_id": "b",
                "event_type": "click", "ts": "2026-03-10T08:02:00.000000Z"
            }),
        ]
    );
    assert_eq!(
        documents("experiment_assignments").await,
        [serde_json::json!({
            "experiment_id": "exp", "variant": "B", "request_id": "req-1", "user_id": "abcd",
            "ts": "2026-03-10T08:00:00.250000Z", "context": {"tenant": "demo", "surface": "home"}
        })]
    );
    let plan = texts(
        &client,
        "EXPLAIN SELECT data FROM recsys_exposures WHERE ts >= '2026-03-12' AND ts < '2026-03-13'",
    )
    .await;
    assert!(
        !plan.join("\n").contains("exposure_events_2026_03_10"),
        "{plan:#?}"
    );
}

// ---- partitions ----

#[tokio::test]
async fn the_monthly_helper_cuts_months_in_utc_beside_the_parent() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "SET TimeZone = 'America/Los_Angeles'; SET DateStyle = 'German'; CREATE SCHEMA other; SET search_path = other, public;
             SELECT ensure_monthly_partitions('public.exposure_events', '2026-11-30', 3);
             SELECT ensure_monthly_partitions('exposure_events', '2026-12-01', 2)",
        )
        .await
        .unwrap();
    assert_eq!(
        texts(&client, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'exposure_events'::regclass ORDER BY 1").await,
        ["exposure_events_2026_11", "exposure_events_2026_12", "exposure_events_2027_01"]
    );
    assert_eq!(
        read_coverage(&mut client, Table::Exposures).await.unwrap(),
        Coverage::of([Range {
            from_us: at("2026-11-01T00:00:00Z"),
            to_us: at("2027-02-01T00:00:00Z")
        }])
    );
    let refused = client
        .batch_execute("SELECT ensure_monthly_partitions('exposure_events', '2026-11-30', 0)")
        .await;
    refused.unwrap_err();
}

#[tokio::test]
async fn a_partition_is_made_once_with_its_key_attached_and_no_check_left_behind() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    let range = day("2026-03-10");
    assert!(
        !read_coverage(&mut client, Table::Interactions)
            .await
            .unwrap()
            .covers(range.from_us)
    );
    let ensured = ensure(
        &mut client,
        Table::Interactions,
        range,
        "first row of the day",
    )
    .await
    .unwrap();
    assert_eq!(ensured.created()[0].name, "interaction_events_2026_03_10");
    assert_eq!(
        ensure(&mut client, Table::Interactions, range, "again")
            .await
            .unwrap(),
        Ensured::Existed
    );
    let coverage = read_coverage(&mut client, Table::Interactions)
        .await
        .unwrap();
    assert!(coverage.covers(range.from_us) && coverage.covers(range.to_us - 1));
    assert!(!coverage.covers(range.from_us - 1) && !coverage.covers(range.to_us));
    for instant in ["2026-03-10 00:00:00+00", "2026-03-10 23:59:59.999999+00"] {
        client.execute(INTERACTION, &[&instant]).await.unwrap();
    }
    client
        .execute(INTERACTION, &[&"2026-03-11 00:00:00+00"])
        .await
        .unwrap_err();

    let attached: i64 = one(
        &client,
        "SELECT count(*) FROM pg_index x JOIN pg_inherits i ON i.inhrelid = x.indexrelid
         WHERE x.indrelid = 'interaction_events_2026_03_10'::regclass AND x.indisprimary",
    )
    .await;
    assert_eq!(attached, 1);
    let indexes: i64 = one(
        &client,
        "SELECT count(*) FROM pg_index WHERE indrelid = 'interaction_events_2026_03_10'::regclass",
    )
    .await;
    assert_eq!(indexes, 1, "the parent's key was matched, not built again");
    let checks: i64 =
        one(&client, "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conrelid = 'interaction_events_2026_03_10'::regclass").await;
    assert_eq!(checks, 0);
    let logged: String = one(
        &client,
        "SELECT concat_ws('|', table_name, partition_name, action, range_to - range_from, instance, reason) FROM ingest_partition_log",
    )
    .await;
    assert_eq!(
        logged,
        "interaction_events|interaction_events_2026_03_10|create|1 day|schema test|first row of the day"
    );
    let compression = "SELECT count(DISTINCT attcompression) FROM pg_attribute WHERE attname = 'meta'
         AND attrelid IN ('interaction_events'::regclass, 'interaction_events_2026_03_10'::regclass)";
    let compression: i64 = one(&client, compression).await;
    assert_eq!(compression, 1);
}

#[tokio::test]
async fn bounds_are_read_right_whatever_the_sessions_zone_and_date_style() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    client
        .batch_execute("CREATE TABLE early PARTITION OF exposure_events FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00')")
        .await
        .unwrap();
    ensure(&mut client, Table::Exposures, day("2026-03-29"), "test")
        .await
        .unwrap();
    let expected = Coverage::of([
        Range {
            from_us: i64::MIN,
            to_us: at("2020-01-01T00:00:00Z"),
        },
        day("2026-03-29"),
    ]);
    for style in ["SQL, DMY", "German", "Postgres, MDY", "ISO, YMD"] {
        for zone in ["Asia/Kolkata", "Europe/Berlin", "America/St_Johns"] {
            client
                .batch_execute(&format!(
                    "SET DateStyle = '{style}'; SET TimeZone = '{zone}'"
                ))
                .await
                .unwrap();
            assert_eq!(
                read_coverage(&mut client, Table::Exposures).await.unwrap(),
                expected,
                "{style} {zone}"
            );
            let made = ensure(&mut client, Table::Exposures, day("2026-03-29"), "test")
                .await
                .unwrap();
            assert_eq!(made, Ensured::Existed);
            let still: String = one(&client, "SHOW TimeZone").await;
            assert_eq!(still, zone);
        }
    }
    let infos = list(&mut client, Table::Exposures).await.unwrap();
    assert_eq!((infos[0].name.as_str(), infos[0].from_us), ("early", None));
}

#[tokio::test]
async fn a_long_reading_transaction_and_a_new_partition_do_not_wait_for_each_other() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    ensure(&mut client, Table::Interactions, day("2026-03-10"), "test")
        .await
        .unwrap();

    // A reader, and a writer, that stay open: ensure passes them.
    let mut reader = database.connect().await;
    let reading = reader.transaction().await.unwrap();
    reading
        .query("SELECT * FROM interaction_events", &[])
        .await
        .unwrap();
    reading
        .execute(INTERACTION, &[&"2026-03-10 10:00:00+00"])
        .await
        .unwrap();
    let start = Instant::now();
    ensure(&mut client, Table::Interactions, day("2026-03-11"), "test")
        .await
        .unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );

    // An ensure that is held up after it attached: reader and writer pass it.
    let mut blocker = database.connect().await;
    let blocking = blocker.transaction().await.unwrap();
    blocking
        .batch_execute("LOCK TABLE ingest_partition_log IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let pid: i32 = one(&client, "SELECT pg_backend_pid()").await;
    let held = tokio::spawn(async move {
        ensure(&mut client, Table::Interactions, day("2026-03-12"), "test").await
    });
    let watcher = database.connect().await;
    let locks = format!(
        "SELECT mode FROM pg_locks WHERE pid = {pid} AND relation = 'interaction_events'::regclass AND granted ORDER BY 1"
    );
    let waiting = format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)");
    while !one::<bool>(&watcher, &waiting).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        texts(&watcher, &locks).await,
        ["AccessShareLock", "ShareUpdateExclusiveLock"]
    );
    watcher
        .batch_execute("SET lock_timeout = '500ms'")
        .await
        .unwrap();
    let rows: i64 = one(&watcher, "SELECT count(*) FROM interaction_events").await;
    assert_eq!(rows, 0);
    watcher
        .execute(INTERACTION, &[&"2026-03-11 10:00:00+00"])
        .await
        .unwrap();
    reading
        .execute(INTERACTION, &[&"2026-03-10 11:00:00+00"])
        .await
        .unwrap();
    blocking.rollback().await.unwrap();
    assert_eq!(held.await.unwrap().unwrap().created().len(), 1);
    reading.commit().await.unwrap();
}

#[tokio::test]
async fn a_table_that_stays_locked_is_busy_and_nothing_is_left_behind() {
    let database = Database::migrated().await;
    let mut other = database.connect().await;
    let tx = other.transaction().await.unwrap();
    tx.batch_execute("LOCK TABLE ONLY exposure_events IN SHARE UPDATE EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut client = database.connect().await;
    let error = ensure(&mut client, Table::Exposures, day("2026-03-10"), "test")
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Busy {
                table: Table::Exposures,
                ..
            }
        ),
        "{error:?}"
    );
    tx.rollback().await.unwrap();
    ensure(&mut client, Table::Exposures, day("2026-03-10"), "test")
        .await
        .unwrap();
}

#[tokio::test]
async fn instances_that_race_for_the_same_and_neighbouring_ranges_make_each_once() {
    for count in [2, 8] {
        for is_adopted in [false, true] {
            let database = if is_adopted {
                Database::adopted().await.0
            } else {
                Database::migrated().await
            };
            let mut races = tokio::task::JoinSet::new();
            for _ in 0..count {
                let mut client = database.connect().await;
                races.spawn(async move {
                    let mut made = 0;
                    for date in ["2026-03-10", "2026-03-11", "2026-03-12"] {
                        made += ensure(&mut client, Table::Exposures, day(date), "race")
                            .await
                            .unwrap()
                            .created()
                            .len();
                    }
                    made
                });
            }
            assert_eq!(races.join_all().await.into_iter().sum::<usize>(), 3);
            let mut client = database.connect().await;
            let mut expected = vec![
                "exposure_events_2026_03_10",
                "exposure_events_2026_03_11",
                "exposure_events_2026_03_12",
            ];
            if is_adopted {
                expected.push("exposure_events_default");
            }
            assert_eq!(names(&mut client, Table::Exposures).await, expected);
        }
    }
}

#[tokio::test]
async fn a_race_with_a_tool_that_takes_none_of_our_locks_ends_well() {
    let database = Database::migrated().await;
    for month in 1..=6 {
        let range = Interval::Month.range_of(at(&format!("2026-{month:02}-10T00:00:00Z")));
        let (mut client, tool) = (database.connect().await, database.connect().await);
        let sql =
            format!("SELECT ensure_monthly_partitions('exposure_events', '2026-{month:02}-01', 1)");
        let (ours, _theirs) = tokio::join!(
            ensure(&mut client, Table::Exposures, range, "race"),
            tool.batch_execute(&sql),
        );
        ours.unwrap();
        assert!(
            read_coverage(&mut client, Table::Exposures)
                .await
                .unwrap()
                .gaps(range)
                .is_empty()
        );
    }
    let mut client = database.connect().await;
    assert_eq!(names(&mut client, Table::Exposures).await.len(), 6);
}

#[tokio::test]
async fn only_the_gaps_between_an_operators_partitions_are_filled() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE odd PARTITION OF exposure_events
                 FOR VALUES FROM ('2026-03-09 18:00:00+00') TO ('2026-03-10 06:00:00+00');
             CREATE TABLE odder PARTITION OF exposure_events
                 FOR VALUES FROM ('2026-03-10 12:00:00+00') TO ('2026-03-10 13:30:00+00')",
        )
        .await
        .unwrap();
    let range = day("2026-03-10");
    let ensured = ensure(&mut client, Table::Exposures, range, "test")
        .await
        .unwrap();
    assert!(matches!(ensured, Ensured::Filled(_)));
    let made: Vec<&str> = ensured.created().iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        made,
        [
            "exposure_events_2026_03_10_060000",
            "exposure_events_2026_03_10_133000"
        ]
    );
    assert!(
        read_coverage(&mut client, Table::Exposures)
            .await
            .unwrap()
            .gaps(range)
            .is_empty()
    );

    client
        .batch_execute("CREATE TABLE april PARTITION OF exposure_events FOR VALUES FROM ('2026-04-01+00') TO ('2026-05-01+00')")
        .await
        .unwrap();
    assert_eq!(
        ensure(&mut client, Table::Exposures, day("2026-04-15"), "test")
            .await
            .unwrap(),
        Ensured::Existed
    );
}

#[tokio::test]
async fn a_name_that_something_else_has_gets_a_number() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    client
        .batch_execute(
            "CREATE TABLE exposure_events_2026_03_10 (kept text);
             CREATE TABLE exposure_events_2026_03_11 PARTITION OF exposure_events
                 FOR VALUES FROM ('2025-01-01+00') TO ('2025-01-02+00');
             CREATE VIEW exposure_events_2026_03_12 AS SELECT 1;
             CREATE TYPE exposure_events_2026_03_13 AS ENUM ('a')",
        )
        .await
        .unwrap();
    for date in ["2026-03-10", "2026-03-11", "2026-03-12", "2026-03-13"] {
        let ensured = ensure(&mut client, Table::Exposures, day(date), "test")
            .await
            .unwrap();
        assert_eq!(
            ensured.created()[0].name,
            format!("exposure_events_{}_2", date.replace('-', "_"))
        );
    }
}

#[tokio::test]
async fn partitions_are_made_ahead_and_only_where_they_are_missing() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    let now = at("2026-12-30T15:00:00Z");
    ensure(&mut client, Table::Interactions, day("2026-12-31"), "test")
        .await
        .unwrap();
    let made = ensure_ahead(&mut client, Table::Interactions, Interval::Day, now, 3)
        .await
        .unwrap();
    let made: Vec<&str> = made.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        made,
        [
            "interaction_events_2026_12_30",
            "interaction_events_2027_01_01",
            "interaction_events_2027_01_02"
        ]
    );
    assert!(
        ensure_ahead(&mut client, Table::Interactions, Interval::Day, now, 3)
            .await
            .unwrap()
            .is_empty()
    );
    // A change of interval keeps what there is and fills up the rest of the month.
    let made = ensure_ahead(&mut client, Table::Interactions, Interval::Month, now, 1)
        .await
        .unwrap();
    assert_eq!(made.len(), 2);
    let coverage = read_coverage(&mut client, Table::Interactions)
        .await
        .unwrap();
    assert_eq!(coverage.end_from(now), at("2027-02-01T00:00:00Z"));
}

#[tokio::test]
async fn a_half_detached_partition_does_not_count_and_is_named() {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    let range = day("2026-03-10");
    ensure(&mut client, Table::Exposures, range, "test")
        .await
        .unwrap();
    let mut reader = database.connect().await;
    let reading = reader.transaction().await.unwrap();
    reading
        .query("SELECT count(*) FROM exposure_events", &[])
        .await
        .unwrap();
    let janitor = database.connect().await;
    janitor
        .batch_execute("SET lock_timeout = '200ms'")
        .await
        .unwrap();
    janitor
        .batch_execute(
            "ALTER TABLE exposure_events DETACH PARTITION exposure_events_2026_03_10 CONCURRENTLY",
        )
        .await
        .unwrap_err();
    reading.rollback().await.unwrap();
    assert!(
        !read_coverage(&mut client, Table::Exposures)
            .await
            .unwrap()
            .covers(range.from_us)
    );
    let error = ensure(&mut client, Table::Exposures, range, "test")
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Detaching { partition, .. } if partition == "exposure_events_2026_03_10"),
        "{error:?}"
    );
    janitor
        .batch_execute(
            "ALTER TABLE exposure_events DETACH PARTITION exposure_events_2026_03_10 FINALIZE",
        )
        .await
        .unwrap();
    let ensured = ensure(&mut client, Table::Exposures, range, "test")
        .await
        .unwrap();
    assert_eq!(ensured.created()[0].name, "exposure_events_2026_03_10_2");
}

#[tokio::test]
async fn a_table_that_is_missing_or_plain_is_told_apart() {
    let database = Database::empty().await;
    let mut client = database.connect().await;
    let missing = read_coverage(&mut client, Table::Exposures)
        .await
        .unwrap_err();
    assert!(
        missing.to_string().contains("nowhere to be found"),
        "{missing}"
    );
    client
        .batch_execute("CREATE TABLE exposure_events (occurred_at timestamptz)")
        .await
        .unwrap();
    let plain = ensure(&mut client, Table::Exposures, day("2026-03-10"), "test")
        .await
        .unwrap_err();
    assert!(
        matches!(&plain, Error::NotPartitioned { found, .. } if found == "a plain table"),
        "{plain}"
    );
}
