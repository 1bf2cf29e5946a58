//! Privileges of the service's role.

use recsys_ingest::clock;
use recsys_ingest::event::table::Table;
use recsys_ingest::finding::Severity;
use recsys_ingest::partitions::create::ensure_ahead;
use recsys_ingest::partitions::range::Interval;
use recsys_ingest::postgres::checks::inspect;

use serde_json::Value;

use super::{is_ready, readiness, refusal, says};
use crate::harness::{Database, Process, Settings, one, shown};

/// An exposure of now: its partition exists.
fn shown_now(event_id: &str) -> Value {
    let mut event = shown(event_id);
    event["occurred_at"] = jiff::Timestamp::now().to_string().into();
    event
}

/// The grants for a role that creates no partitions.
fn grants() -> String {
    include_str!("../../../deploy/role.sql").replace(" TO ingest", " TO $role")
}

/// A database, and a role with few privileges on it.
struct Limited {
    /// The database as the superuser sees it.
    database: Database,
    role: String,
}

impl Limited {
    async fn new() -> Self {
        let database = Database::with_tenants().await;
        let mut client = database.connect().await;
        for table in Table::ALL {
            let now = clock::now().0;
            ensure_ahead(&mut client, table, Interval::Day, now, 3)
                .await
                .unwrap();
        }
        let name: String = one(&client, "SELECT current_database()::text").await;
        let role = format!("few_rights_{name}");
        let limited = Self { database, role };
        limited.execute("CREATE ROLE $role LOGIN").await;
        limited
            .execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
            .await;
        limited.execute(&grants()).await;
        limited
    }

    async fn execute(&self, sql: &str) {
        self.database
            .execute(&sql.replace("$role", &self.role))
            .await;
    }

    fn as_role(&self) -> Database {
        let url = self
            .database
            .url()
            .replace("postgres@", &format!("{}@", self.role));
        Database::by(url)
    }

    /// Code, severity and text of all findings.
    async fn found(&self) -> Vec<(&'static str, Severity, String)> {
        let client = self.as_role().connect().await;
        let found = inspect(&client, 7).await.unwrap();
        found
            .into_iter()
            .map(|one| (one.code, one.severity, one.seen))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_create_is_ready_on_a_schema_that_is_up_to_date() {
    let limited = Limited::new().await;
    let (process, client) = Process::listen(&Settings::new(&limited.as_role()));
    is_ready(&process, &client).await;
    let stored = client.post("/v1/exposures", &shown_now("a")).await;
    assert_eq!(stored.settled(), (1, 0, 0, 0), "{}", stored.text);
    let (status, sentences) = readiness(&client).await;
    assert_eq!(status, "ready");
    let role = &limited.role;
    for table in Table::ALL {
        let sentence = format!(
            "the role {role} does not own {table} and may not create in the schema public: \
             the partitions of {table} are neither made nor sealed by this service"
        );
        assert!(sentences.contains(&sentence), "{sentences}");
    }
    // One of a user who was erased is left out, and booked.
    limited
        .execute(
            "INSERT INTO ingest_erased_subjects (tenant_id, user_key, before)
             SELECT id, '\\x0000000000000000000000000000000000000000000000000000000000000000', 'infinity' FROM tenants;
             UPDATE ingest_ledger SET erasures = erasures + 1",
        )
        .await;
    let mut erased = shown_now("e");
    erased["user_id_hash"] = "0".repeat(64).into();
    let stored = client.post("/v1/exposures", &erased).await;
    assert_eq!(stored.settled(), (1, 0, 0, 0), "{}", stored.text);
    assert_eq!(limited.database.count("exposure_events").await, 1);
    assert_eq!(limited.database.count("ingest_removed_rows").await, 1);
    // An event without a partition affects no other event.
    let mut old = shown("b");
    old["occurred_at"] = "2020-01-01T00:00:00Z".into();
    let reply = client.post("/v1/exposures", &old).await;
    assert_eq!(reply.settled(), (0, 0, 1, 0), "{}", reply.text);
    let stored = client.post("/v1/exposures", &shown_now("c")).await;
    assert_eq!(stored.settled(), (1, 0, 0, 0), "{}", stored.text);
    is_ready(&process, &client).await;
}

#[tokio::test]
async fn each_right_that_is_missing_is_named_with_what_it_keeps_from_working() {
    use Severity::{Degraded, Fault, Note};
    let limited = Limited::new().await;
    let note = |found: &[(&str, Severity, String)]| {
        found
            .iter()
            .all(|(code, severity, _)| (*code, *severity) == ("partitions_not_made", Note))
    };
    assert!(note(&limited.found().await), "{:?}", limited.found().await);
    for (revoke, severity, may_not) in [
        (
            "INSERT ON exposure_events",
            Fault,
            "may not INSERT on exposure_events",
        ),
        (
            "SELECT ON interaction_events",
            Fault,
            "may not SELECT on interaction_events",
        ),
        (
            "UPDATE ON ingest_ledger",
            Fault,
            "may not UPDATE on ingest_ledger",
        ),
        (
            "SELECT, INSERT ON ingest_ledger",
            Fault,
            "may not SELECT, INSERT on ingest_ledger",
        ),
        (
            "UPDATE ON ingest_holders",
            Fault,
            "may not UPDATE on ingest_holders",
        ),
        (
            "UPDATE ON ingest_changed_days",
            Fault,
            "may not UPDATE on ingest_changed_days",
        ),
        (
            "SELECT ON ingest_erased_subjects",
            Fault,
            "may not SELECT on ingest_erased_subjects",
        ),
        (
            "INSERT ON ingest_removed_rows",
            Degraded,
            "may not INSERT on ingest_removed_rows",
        ),
        (
            "SELECT ON ingest_retention",
            Fault,
            "may not SELECT on ingest_retention",
        ),
        (
            "INSERT ON ingest_quarantine",
            Degraded,
            "may not INSERT on ingest_quarantine",
        ),
        (
            "DELETE ON ingest_quarantine",
            Degraded,
            "may not DELETE on ingest_quarantine",
        ),
        ("SELECT ON tenants", Degraded, "may not SELECT on tenants"),
        (
            "SELECT ON tenant_api_keys",
            Degraded,
            "may not SELECT on tenant_api_keys",
        ),
        (
            "SELECT ON ingest_publish_keys",
            Degraded,
            "may not SELECT on ingest_publish_keys",
        ),
        (
            "SELECT ON ingest_key_settings",
            Degraded,
            "may not SELECT on ingest_key_settings",
        ),
        (
            "SELECT ON ingest_tenant_settings",
            Degraded,
            "may not SELECT on ingest_tenant_settings",
        ),
        (
            "INSERT ON ingest_partition_log",
            Note,
            "may not INSERT on ingest_partition_log",
        ),
        (
            "USAGE ON SCHEMA public",
            Fault,
            "may not use the schema of exposure_events (public)",
        ),
    ] {
        limited
            .execute(&format!("REVOKE {revoke} FROM $role"))
            .await;
        let found = limited.found().await;
        let seen = format!("the role {} {may_not}", limited.role);
        let expected = ("privilege_missing", severity, seen);
        assert!(found.contains(&expected), "{revoke}: {found:?}");
        limited.execute(&grants()).await;
        assert!(note(&limited.found().await), "{revoke}");
    }
    // Privileges on columns are enough.
    limited
        .execute(
            "REVOKE INSERT, SELECT ON interaction_events FROM $role;
             GRANT SELECT (tenant_id, occurred_at, event_id) ON interaction_events TO $role;
             GRANT INSERT (tenant_id, occurred_at, event_id, received_at, request_id, user_key, session_id,
                           surface, segment, event_type, item_id, position, value, meta)
                 ON interaction_events TO $role",
        )
        .await;
    assert!(note(&limited.found().await));
    limited
        .execute("REVOKE INSERT (value) ON interaction_events FROM $role")
        .await;
    let (code, _, seen) = &limited.found().await[0];
    assert_eq!(*code, "privilege_missing");
    assert!(
        seen.ends_with("may not INSERT on interaction_events (value)"),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_at_the_start_takes_no_event_until_it_is_granted() {
    let limited = Limited::new().await;
    limited
        .execute("REVOKE INSERT ON ingest_ledger FROM $role")
        .await;
    let (process, client) = Process::listen(&Settings::new(&limited.as_role()));
    says(
        &process,
        &client,
        "unready",
        "may not INSERT on ingest_ledger",
    )
    .await;
    refusal(&client, "/v1/exposures", &shown_now("a")).await;
    limited
        .execute("GRANT INSERT ON ingest_ledger TO $role")
        .await;
    is_ready(&process, &client).await;
    let stored = client.post("/v1/exposures", &shown_now("a")).await;
    assert_eq!(stored.settled(), (1, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_level_security_is_a_fault_where_copy_is_refused_and_nowhere_else() {
    let limited = Limited::new().await;
    // COPY goes through the parent, so policies of the partitions do not apply.
    limited
        .execute(
            "DO $$ DECLARE leaf regclass; BEGIN
                 FOR leaf IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'exposure_events'::regclass LOOP
                     EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', leaf);
                 END LOOP;
             END $$",
        )
        .await;
    let (process, client) = Process::listen(&Settings::new(&limited.as_role()));
    is_ready(&process, &client).await;
    let stored = client.post("/v1/exposures", &shown_now("a")).await;
    assert_eq!(stored.settled(), (1, 0, 0, 0), "{}", stored.text);

    limited
        .execute("ALTER TABLE exposure_events ENABLE ROW LEVEL SECURITY")
        .await;
    let taken = client
        .query("ack=durable")
        .post("/v1/exposures", &shown_now("b"))
        .await;
    assert_eq!(taken.status, 202, "{}", taken.text);
    let sentence = format!(
        "row-level security of exposure_events applies to the role {}",
        limited.role
    );
    says(&process, &client, "degraded", &sentence).await;
    // A service that starts now accepts no event.
    let (second, other) = Process::listen(&Settings::new(&limited.as_role()));
    says(&second, &other, "unready", &sentence).await;
    limited.execute("ALTER ROLE $role BYPASSRLS").await;
    is_ready(&second, &other).await;
    is_ready(&process, &client).await;
}

#[tokio::test]
async fn a_limit_on_connections_below_what_is_needed_is_named() {
    let limited = Limited::new().await;
    limited.execute("ALTER ROLE $role CONNECTION LIMIT 3").await;
    let found = limited.found().await;
    let seen = format!(
        "the role {} may have 3 connections; the service needs 7",
        limited.role
    );
    assert!(
        found.contains(&("connections_too_few", Severity::Degraded, seen)),
        "{found:?}"
    );
    limited
        .execute("ALTER ROLE $role CONNECTION LIMIT -1")
        .await;
    let name: String = one(
        &limited.database.connect().await,
        "SELECT current_database()::text",
    )
    .await;
    limited
        .execute(&format!("ALTER DATABASE {name} CONNECTION LIMIT 6"))
        .await;
    let seen = format!("the database {name} may have 6 connections; the service needs 7");
    let found = limited.found().await;
    assert!(
        found.contains(&("connections_too_few", Severity::Degraded, seen)),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_that_may_not_run_are_named_and_nothing_is_taken_until_they_ran() {
    let limited = Limited::new().await;
    limited.execute("DELETE FROM ingest_schema_history WHERE version = (SELECT max(version) FROM ingest_schema_history)").await;
    for migrates in ["true", "false"] {
        let settings = Settings::new(&limited.as_role()).with("--migrate-on-start", migrates);
        let (process, client) = Process::listen(&settings);
        says(&process, &client, "unready", "the schema").await;
        let refused = client
            .query("ack=durable")
            .post("/v1/exposures", &shown_now("a"))
            .await;
        assert_eq!(refused.status, 503, "{}", refused.text);
    }
}
