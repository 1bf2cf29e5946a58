//! Promise: the suite's own migrations and this service share a database, whichever comes first,
//! and neither makes the other's work dearer without a word.

use std::io::Write as _;
use std::process::{Command, Stdio};

use recsys_ingest::event::table::Table;
use recsys_ingest::partitions::create::ensure;
use recsys_ingest::postgres::checks::inspect;
use recsys_ingest::postgres::migrate::migrate;

use crate::harness::{Database, Process, Settings, click, eventually, one, texts};
use crate::schema::words::day;

/// What the suite's migrations do to a database that `migrate` made.
pub const SUITE_MIGRATIONS: &str = include_str!("fixtures/suite_migrations_on_ours.sql");

/// Indexes and triggers of all tables but those of events, with their definitions.
const OTHERS: &str = "
    SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
     WHERE c.relnamespace = 'public'::regnamespace AND (c.relname !~ '_events(_|$)' OR c.relname ~ '^cache')
     UNION ALL
    SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t WHERE NOT t.tgisinternal
     ORDER BY 1";

/// Runs a command with an answer on its standard input. Returns its exit code, standard output and
/// standard error.
fn cli(database: &Database, arguments: &[&str], answer: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(arguments)
        .env("DATABASE_URL", database.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not ask has closed its input by now.
    drop(child.stdin.take().unwrap().write_all(answer.as_bytes()));
    let output = child.wait_with_output().unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

async fn codes(database: &Database) -> Vec<&'static str> {
    let findings = inspect(&database.connect().await, 7).await.unwrap();
    findings.iter().map(|finding| finding.code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suites_migrations_change_only_the_event_tables_and_adopt_lean_undoes_that() {
    let database = Database::with_tenants().await;
    let mut client = database.connect().await;
    let (before, today) = (texts(&client, OTHERS).await, day("2026-03-10"));
    for table in Table::OF_SUITE {
        ensure(&mut client, table, today, "test").await.unwrap();
    }
    let key_only =
        "SELECT count(*) FROM pg_index WHERE indrelid = 'exposure_events_2026_03_10'::regclass";
    assert_eq!(codes(&database).await, [""; 0]);
    client.batch_execute(SUITE_MIGRATIONS).await.unwrap();
    assert_eq!(texts(&client, OTHERS).await, before);

    // It is said at the start, in readiness and in the list; a row goes on being stored.
    let expected = [
        "parent_indexes", "default_partition", "parent_indexes", "default_partition",
    ];
    assert_eq!(codes(&database).await, expected);
    let (process, service) = Process::serve(&Settings::new(&database));
    eventually("the warnings in the log", async || {
        let log = process.log();
        log.lines()
            .filter(|line| line.contains("adopt --lean") && line.contains("WARN"))
            .count()
            == 4
    })
    .await;
    let ready = service.get("/readyz").await;
    assert_eq!(ready.json["status"], "ready", "{}", ready.text);
    let notes = ready.json["notes"].to_string();
    for name in ["exposure_events_response_gin", "interaction_events_default"] {
        assert!(notes.contains(name), "{notes}");
    }
    let (code, _, err) = cli(&database, &["partitions", "list"], "");
    assert!(
        code == 0 && err.matches("recsys-ingest adopt --lean").count() == 4,
        "{err}"
    );
    assert_eq!(
        service
            .post("/v1/interactions", &click("a"))
            .await
            .settled(),
        (1, 0, 0, 0)
    );

    // The SQL is shown first, and nothing is done without a yes.
    for answer in ["", "n\n", "what?\n"] {
        let (code, out, err) = cli(&database, &["adopt", "--lean"], answer);
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("nothing was removed"), "{err}");
        let drops = |what: &str| out.matches(what).count();
        assert_eq!((drops("DROP INDEX"), drops("DROP TABLE")), (11, 2), "{out}");
    }
    assert_eq!(codes(&database).await, expected);
    let (code, out, err) = cli(&database, &["adopt", "--lean"], "y\n");
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("exposure_events: 6 indexes dropped, an empty DEFAULT partition dropped"),
        "{out}"
    );
    assert_eq!(codes(&database).await, [""; 0]);
    assert_eq!(one::<i64>(&client, key_only).await, 1);
    assert_eq!(database.count("interaction_events").await, 1);
    let (code, out, _) = cli(&database, &["adopt", "--lean", "--yes"], "");
    assert_eq!((code, out.trim()), (0, "nothing to remove"));
    assert_eq!(
        service
            .post("/v1/interactions", &click("b"))
            .await
            .settled(),
        (1, 0, 0, 0)
    );
}

#[tokio::test]
async fn a_default_partition_with_rows_stays_until_they_have_been_moved() {
    let database = Database::with_tenants().await;
    let client = database.connect().await;
    client.batch_execute(SUITE_MIGRATIONS).await.unwrap();
    client
        .execute(
            crate::schema::words::INTERACTION,
            &[&"2026-03-10 10:00:00+00"],
        )
        .await
        .unwrap();
    let (code, out, err) = cli(&database, &["adopt", "--lean", "--yes"], "");
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        err.contains("interaction_events_default holds rows and stays"),
        "{err}"
    );
    assert_eq!(codes(&database).await, ["default_partition"]);
    assert_eq!(database.count("interaction_events").await, 1);
}

const RENAMING: &str = include_str!("../../migrations/V8__names_beside_the_suite.sql");

#[tokio::test]
async fn a_database_with_the_former_names_gets_the_suites() {
    /// V1 and V2 as they were, as far as names go, and what a database then had.
    const FORMER: &str = "
        ALTER INDEX audit_log_tenant_time_idx RENAME TO audit_log_tenant_occurred_idx;
        ALTER INDEX item_tags_tags_gin RENAME TO item_tags_tags_idx;
        ALTER INDEX tenant_api_keys_active_idx RENAME TO tenant_api_keys_live_idx;
        ALTER TRIGGER audit_log_immutable_ud ON audit_log RENAME TO audit_log_immutable;
        ALTER TRIGGER tenant_rule_versions_immutable_ud ON tenant_rule_versions RENAME TO tenant_rule_versions_immutable;
        ALTER FUNCTION ingest_ensure_monthly_partitions RENAME TO ensure_monthly_partitions;
        UPDATE ingest_schema_history SET checksum = '794973743936338952' WHERE version = 1;
        UPDATE ingest_schema_history SET checksum = '12531715001534498653' WHERE version = 2";
    const FUNCTIONS: &str = "SELECT proname::text FROM pg_proc WHERE proname LIKE '%ensure_monthly_partitions' ORDER BY 1";
    let fresh = Database::migrated().await;
    let expected = texts(&fresh.connect().await, OTHERS).await;
    for suite_came_since in [false, true] {
        let database = Database::migrated().await;
        let mut client = database.connect().await;
        client.batch_execute(FORMER).await.unwrap();
        assert_ne!(texts(&client, OTHERS).await, expected);
        let mut functions = vec!["ingest_ensure_monthly_partitions".to_owned()];
        if suite_came_since {
            // It adds what it does not find under its own names.
            client.batch_execute(SUITE_MIGRATIONS).await.unwrap();
            functions.insert(0, "ensure_monthly_partitions".to_owned());
        }
        client.batch_execute(RENAMING).await.unwrap();
        // The former checksums of V1 and V2 are no reason to refuse the database.
        let report = migrate(&mut client).await.unwrap();
        assert_eq!(report.applied, [""; 0]);
        assert_eq!(texts(&client, OTHERS).await, expected, "{suite_came_since}");
        assert_eq!(texts(&client, FUNCTIONS).await, functions);
    }
}
