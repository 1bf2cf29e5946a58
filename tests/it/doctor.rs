//! Promise: `doctor` finds what makes rows dear, slow or unsafe, says what it costs, and what it
//! shows mends it; it changes nothing unless it is asked to.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use recsys_ingest::clock;
use recsys_ingest::event::table::Table;
use recsys_ingest::partitions::create::{ensure, ensure_ahead};
use recsys_ingest::partitions::range::Interval;
use serde_json::{Value, json};

use crate::harness::{Cluster, Database, Process, Settings, click, eventually, one, texts};

const DAY_US: i64 = 86_400_000_000;

/// Runs a command of the program. Returns its exit code, standard output and standard error.
fn cli(database: &Database, arguments: &[&str]) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .args(arguments)
        .env_remove("INGEST_SPOOL_DIR")
        .env("DATABASE_URL", database.url())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or(-1);
    (code, text(output.stdout), text(output.stderr))
}

/// What `doctor` found.
#[derive(Debug)]
struct Found {
    code: i32,
    findings: Vec<Value>,
    text: String,
}

impl Found {
    fn codes(&self) -> BTreeSet<&str> {
        let all = self.findings.iter();
        all.map(|one| one["code"].as_str().unwrap()).collect()
    }

    fn of(&self, code: &str) -> &Value {
        let mut all = self.findings.iter();
        let found = all.find(|one| one["code"] == code);
        found.unwrap_or_else(|| panic!("no {code}: {}", self.text))
    }
}

fn doctor(database: &Database, more: &[&str]) -> Found {
    let (code, out, err) = cli(database, &[&["doctor", "--json"], more].concat());
    let document: Value =
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code}: {out}{err}"));
    Found {
        code,
        findings: document["findings"].as_array().unwrap().clone(),
        text: format!("{document:#}{err}"),
    }
}

/// A database with tenants and the partitions that a running service would have made.
async fn prepared(database: Database) -> Database {
    let mut client = database.connect().await;
    for table in Table::ALL {
        let now = clock::now().0;
        let ahead = ensure_ahead(&mut client, table, Interval::Day, now, 3);
        ahead.await.unwrap();
    }
    database
}

/// A case: what is done to a database, the finding that it causes, and words that are in it.
type Case = (&'static str, &'static str, &'static [&'static str]);

const CASES: [Case; 17] = [
    (
        "ALTER TABLE interaction_events ADD CONSTRAINT theirs FOREIGN KEY (tenant_id) REFERENCES tenants (id)",
        "foreign_key",
        &["theirs", "looked up"],
    ),
    (
        "CREATE INDEX slow ON exposure_events USING gin (response)",
        "parent_indexes",
        &["slow", "gin (response)", "on disk, never read", "costs the most CPU", "DROP INDEX slow;"],
    ),
    (
        "CREATE INDEX slow ON interaction_events (tenant_id, occurred_at DESC)",
        "parent_indexes",
        &["btree (tenant_id, occurred_at DESC)", "two to four times"],
    ),
    (
        "DO $$ DECLARE leaf regclass; BEGIN
             FOR leaf IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'exposure_events'::regclass LOOP
                 EXECUTE format('CREATE INDEX ON %s (surface)', leaf);
             END LOOP;
         END $$",
        "partition_index",
        &["4 partitions", "btree (surface)", "DROP INDEX CONCURRENTLY"],
    ),
    (
        "CREATE UNIQUE INDEX theirs ON interaction_events (occurred_at, item_id)",
        "unique_index",
        &["theirs", "set aside"],
    ),
    (
        "ALTER TABLE interaction_events ADD CONSTRAINT \"Theirs\" UNIQUE (occurred_at, item_id)",
        "unique_index",
        &["Theirs", "ALTER TABLE interaction_events DROP CONSTRAINT"],
    ),
    (
        "DO $$ DECLARE leaf regclass; BEGIN
             FOR leaf IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'exposure_events'::regclass LOOP
                 EXECUTE format('ALTER TABLE %s ADD UNIQUE (occurred_at, surface, request_id)', leaf);
             END LOOP;
         END $$",
        "partition_index",
        &["4 partitions", "DROP CONSTRAINT"],
    ),
    (
        "ALTER TABLE ingest_ledger SET UNLOGGED",
        "table_unlogged",
        &["ingest_ledger", "after a crash"],
    ),
    (
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER theirs BEFORE INSERT ON exposure_events FOR EACH ROW EXECUTE FUNCTION nothing()",
        "trigger",
        &["theirs", "each row", "DROP TRIGGER theirs ON exposure_events;"],
    ),
    (
        "ALTER TABLE ingest_ledger SET (autovacuum_enabled = false)",
        "autovacuum_off_for_table",
        &["ingest_ledger"],
    ),
    (
        "DO $$ BEGIN EXECUTE format('ALTER TABLE %s RENAME TO exposure_events_2001_01_01',
             (SELECT min(inhrelid)::regclass FROM pg_inherits WHERE inhparent = 'exposure_events'::regclass));
         END $$",
        "partition_name",
        &["exposure_events_2001_01_01", "RENAME TO"],
    ),
    (
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$",
        "synchronous_commit_off",
        &["RESET synchronous_commit"],
    ),
    (
        "CREATE TABLE exposure_events_default PARTITION OF exposure_events DEFAULT",
        "default_partition",
        &["exposure_events_default", "recsys-ingest adopt --lean"],
    ),
    (
        "DELETE FROM ingest_schema_history WHERE version = 15",
        "schema_behind",
        &["V15", "recsys-ingest migrate"],
    ),
    (
        "INSERT INTO ingest_erased_subjects (tenant_id, user_key, before)
         SELECT id, '\\x00', '2099-01-01' FROM tenants",
        "erasure_ahead",
        &["3 users", "2099-01-01", "erasures + 1"],
    ),
    (
        "DROP VIEW recsys_exposures CASCADE",
        "object_missing",
        &["view recsys_exposures", "recsys-ingest migrate"],
    ),
    (
        "DROP TABLE ingest_log_readers",
        "table_missing",
        &["ingest_log_readers", "backup", "CREATE TABLE ingest_log_readers"],
    ),
];

/// Cases that are mended by a command or described in words.
const WITHOUT_SQL: [&str; 3] = ["default_partition", "object_missing", "schema_behind"];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_is_gone_once_the_sql_that_is_shown_has_run() {
    let healthy = prepared(Database::with_tenants().await).await;
    let always: BTreeSet<String> = {
        let found = doctor(&healthy, &[]);
        // The server of the tests is fast and unsafe.
        assert_eq!(found.code, 1, "{}", found.text);
        assert!(
            found.of("fsync_off")["meaning"]
                .to_string()
                .contains("beyond repair")
        );
        assert_eq!(
            found.of("autovacuum_off")["sql"][0],
            "ALTER SYSTEM SET autovacuum = on;"
        );
        found.codes().into_iter().map(str::to_owned).collect()
    };
    let few = ["autovacuum_off", "fsync_off", "full_page_writes_off"];
    assert!(
        always.iter().all(|code| few.contains(&code.as_str())),
        "{always:?}"
    );
    for (sql, code, words) in CASES {
        let database = prepared(Database::with_tenants().await).await;
        database.execute(sql).await;
        let found = doctor(&database, &["--writers", "2"]);
        let caused: Vec<&str> = found
            .codes()
            .into_iter()
            .filter(|code| !always.contains(*code))
            .collect();
        assert_eq!(caused, [code], "{sql}: {}", found.text);
        assert_eq!(found.code, 1);
        let finding = found.of(code);
        for words in words {
            let text = format!("{finding}");
            assert!(text.contains(words), "{words}: {text}");
        }
        for part in ["seen", "meaning", "remedy"] {
            assert!(!finding[part].as_str().unwrap().is_empty(), "{finding}");
        }
        let sql: Vec<&str> = finding["sql"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one.as_str().unwrap())
            .collect();
        assert_eq!(sql.is_empty(), WITHOUT_SQL.contains(&code), "{finding}");
        if sql.is_empty() {
            continue;
        }
        let client = database.connect().await;
        for statement in sql {
            client
                .batch_execute(statement)
                .await
                .unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
        drop(client);
        let left = doctor(&database, &[]);
        assert!(!left.codes().contains(code), "{}", left.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fix_does_what_is_safe_and_shows_the_rest() {
    let database = prepared(Database::with_tenants().await).await;
    let mut client = database.connect().await;
    let later = Interval::Day.range_of(clock::now().0 + 6 * DAY_US);
    ensure(&mut client, Table::Interactions, later, "test")
        .await
        .unwrap();
    client
        .batch_execute(
            "CREATE INDEX slow ON exposure_events (surface);
             INSERT INTO ingest_partition_log (table_name, partition_name, action)
             SELECT 'x', 'x', 'x' FROM generate_series(1, 12000);
             DELETE FROM ingest_partition_log WHERE table_name = 'x'",
        )
        .await
        .unwrap();
    drop(client);
    eventually("the dead rows to be counted", async || {
        doctor(&database, &[]).codes().contains("dead_rows")
    })
    .await;
    let shown = doctor(&database, &[]);
    assert_eq!(shown.of("partition_gap")["is_safe"], true, "{}", shown.text);
    assert_eq!(shown.of("parent_indexes")["is_safe"], false);
    let before = partitions(&database).await;
    let fixed = doctor(&database, &["--fix"]);
    assert_eq!(fixed.code, 1, "the index is still there: {}", fixed.text);
    assert!(
        fixed.of("dead_rows")["mended"]
            .as_str()
            .unwrap()
            .starts_with("ran VACUUM")
    );
    assert!(
        fixed.of("partition_gap")["mended"]
            .as_str()
            .unwrap()
            .starts_with("made interaction_events_")
    );
    assert_eq!(fixed.of("parent_indexes")["mended"], Value::Null);
    assert_eq!(partitions(&database).await, before + 2);
    let left = doctor(&database, &[]);
    let codes = left.codes();
    assert!(
        !codes.contains("partition_gap") && codes.contains("parent_indexes"),
        "{}",
        left.text
    );
    // What is said in words is the same.
    let (code, out, _) = cli(&database, &["doctor"]);
    assert_eq!(code, 1);
    for words in [
        "note parent_indexes: exposure_events has the index slow",
        "\n  cost: ",
        "\n  mend: ",
        "        DROP INDEX slow;",
    ] {
        assert!(out.contains(words), "{out}");
    }
    // Notes count unless they are not to.
    database.execute("DROP INDEX slow").await;
    assert_eq!(doctor(&database, &["--least", "fault"]).code, 0);
}

async fn partitions(database: &Database) -> i64 {
    let sql = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'interaction_events'::regclass";
    one(&database.connect().await, sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_tells_nothing_found_from_something_and_from_no_look() {
    let cluster = Cluster::durable(&[]);
    let database = prepared(Database::on(&cluster).await).await;
    let settings = Settings::new(&database);
    let (mut service, client) = Process::serve(&settings);
    assert_eq!(
        client.post("/v1/interactions", &click("a")).await.status,
        200
    );
    let spool = settings.spool.path().display().to_string();
    let of_spool = [
        "--spool-dir", &spool, "--spool-bytes-max", "64MiB", "--spool-disk-reserve", "0B",
    ];
    // The event lies years back, and its partition is not sealed yet.
    eventually("the partition to be sealed", async || {
        let found = doctor(&database, &of_spool);
        found
            .findings
            .iter()
            .all(|one| one["code"] == "partition_gap")
    })
    .await;
    database.execute("DO $$ BEGIN EXECUTE format('DROP TABLE %s',
             (SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'interaction_events'::regclass)); END $$").await;
    let (code, out, err) = cli(&database, &[&["doctor"], &of_spool[..]].concat());
    assert_eq!((code, out.as_str()), (0, "nothing found\n"), "{err}");
    assert!(service.stop().success());
    drop(cluster);
    // Without a database the spool's disk can be looked at all the same.
    let (code, out, err) = cli(&database, &[&["doctor"], &of_spool[..]].concat());
    assert_eq!(code, 2, "{out}{err}");
    assert!(out.starts_with("not looked at: the database: "), "{out}");
    let (code, out, _) = cli(
        &database,
        &[
            "doctor", "--spool-dir", &spool, "--spool-bytes-max", "64MiB", "--spool-disk-reserve",
            "1000TiB",
        ],
    );
    assert!(code == 2 && out.contains("fault spool_disk_full"), "{out}");
    let (code, _, err) = cli(
        &Database::by("postgres://127.0.0.1:1/d".to_owned()),
        &["doctor", "--json"],
    );
    assert_eq!(code, 2, "{err}");
}

#[tokio::test]
async fn a_database_without_a_schema_gets_one_finding_and_every_command_the_same_advice() {
    let database = Database::empty().await;
    let found = doctor(&database, &["--least", "fault"]);
    assert_eq!(found.code, 1);
    let faults = found
        .findings
        .iter()
        .filter(|one| one["severity"] == "fault");
    assert_eq!(faults.count(), 1, "{}", found.text);
    assert_eq!(
        found.of("schema_behind")["command"],
        "recsys-ingest migrate"
    );
    let spool = tempfile::tempdir().unwrap();
    let spool = spool.path().display().to_string();
    for arguments in [
        &["tenants", "list"][..],
        &["tenants", "create", "shop"],
        &["tenants", "show", "shop"],
        &["tenants", "suspend", "shop"],
        &["tenants", "set", "shop", "--any-surface"],
        &["keys", "list"],
        &[
            "keys", "create", "shop", "--role", "ingest", "--api-key-hash-secret", "x",
        ],
        &["keys", "revoke", "rik_"],
        &["keys", "grant", "rik_", "--role", "viewer"],
        &["users", "erase", "--tenant", "shop", "--user-key", USER_KEY],
        &[
            "users", "export", "--tenant", "shop", "--user-key", USER_KEY,
        ],
        &["partitions", "list"],
        &["partitions", "ensure"],
        &["partitions", "seal"],
        &["partitions", "retain", "--retain-exposures", "3650d"],
        &["partitions", "retain", "--retain-quarantine", "365d"],
        &["quarantine", "list"],
        &["quarantine", "show", "1"],
        &["quarantine", "retry", "--all"],
        &["quarantine", "drop", "--all"],
        &["signals", "--day", "2026-05-24"],
        &["signals", "--changed"],
        &["report", "join"],
        &["adopt"],
        &["migrate", "--status"],
        &["doctor"],
        &["doctor", "--spool-dir", &spool],
    ] {
        let (code, out, err) = cli(&database, arguments);
        assert_eq!(code, 1, "{arguments:?}: {out}{err}");
        let said = format!("{out}{err}");
        assert!(
            said.contains("recsys-ingest migrate"),
            "{arguments:?}: {said}"
        );
    }
}

const USER_KEY: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_look_for_want_of_a_schema_says_what_makes_it() {
    // The spool is of a service that wrote into another database.
    let other = Database::with_tenants().await;
    let settings = Settings::new(&other);
    let (mut service, client) = Process::serve(&settings);
    let reply = client.post("/v1/interactions", &click("a")).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(service.stop().success());
    let spool = settings.spool.path().display().to_string();
    let database = Database::empty().await;
    for arguments in [
        &["verify", "--spool-dir", &spool][..],
        &["verify", "--skip-spool"],
    ] {
        let (code, out, err) = cli(&database, arguments);
        assert_eq!(code, 2, "{arguments:?}: {out}{err}");
        for words in ["could not look", "run `recsys-ingest migrate`"] {
            assert!(err.contains(words), "{arguments:?}: {err}");
        }
    }
    let (_, out, _) = cli(&database, &["doctor", "--spool-dir", &spool]);
    let why = out
        .lines()
        .find(|line| line.starts_with("not looked at: the spool"));
    let why = why.unwrap_or_else(|| panic!("{out}"));
    assert!(why.contains("run `recsys-ingest migrate`"), "{why}");
    let (code, _, err) = cli(&database, &["spool", "replay", &spool]);
    assert!(
        code == 1 && err.contains("run `recsys-ingest migrate`"),
        "{err}"
    );
}

#[tokio::test]
async fn migrate_says_what_is_missing_what_it_would_run_and_that_there_is_nothing_to_do() {
    let database = Database::empty().await;
    let run = |arguments: &[&str]| cli(&database, &[&["migrate"], arguments].concat());
    let (code, out, _) = run(&["--status"]);
    assert_eq!(code, 1);
    assert!(
        out.contains("V1__suite_schema\tmissing\n") && out.contains("15 missing"),
        "{out}"
    );
    let (code, out, _) = run(&["--status", "--json"]);
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, said.as_array().map(Vec::len)),
        (1, Some(15)),
        "{out}"
    );
    assert_eq!(
        said[0],
        json!({"migration": "V1__suite_schema", "state": "missing"})
    );
    let (code, sql, err) = run(&["--dry-run"]);
    assert_eq!(code, 0, "{err}");
    assert!(
        sql.starts_with("-- V1__suite_schema\nBEGIN;\n")
            && sql.contains("CREATE TABLE ingest_ledger"),
        "{sql}"
    );
    assert!(err.contains("Nothing was changed"), "{err}");
    let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(texts(&database.connect().await, tables).await, [""; 0]);
    // It is SQL.
    let other = Database::empty().await;
    other.execute(&sql).await;
    let (code, out, _) = run(&[]);
    assert_eq!(code, 0);
    assert!(
        out.starts_with("15 migrations ran: V1__suite_schema, "),
        "{out}"
    );
    for arguments in [&[][..], &["--status"], &["--dry-run"]] {
        let (code, out, _) = run(arguments);
        assert_eq!(code, 0);
        assert!(
            out.ends_with("nothing to do: the schema is up to date (V15__leases)\n"),
            "{out}"
        );
    }
    database
        .execute("DELETE FROM ingest_schema_history WHERE version = 15")
        .await;
    let (code, out, _) = run(&["--status"]);
    assert_eq!(code, 1);
    assert!(
        out.contains("V14__ranks_from_one\tapplied\nV15__leases\tmissing\n1 missing"),
        "{out}"
    );
    let (code, out, _) = run(&["--status", "--json"]);
    let said: Value = serde_json::from_str(&out).unwrap();
    let states = [&said[13]["state"], &said[14]["state"]];
    assert_eq!((code, states), (1, [&"applied".into(), &"missing".into()]));
    assert_eq!(run(&["--json"]).0, 2, "of the status only");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_a_default_partition_in_quarantine_and_in_an_old_spool_are_found() {
    let database = prepared(Database::with_tenants().await).await;
    database
        .execute(
            "CREATE TABLE interaction_events_default PARTITION OF interaction_events DEFAULT;
             INSERT INTO interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
             SELECT id, '2001-01-01', gen_random_uuid(), now(), 'view', 'a' FROM tenants;
             INSERT INTO ingest_quarantine (table_name, sqlstate, message) VALUES ('interaction_events', '23514', 'no')",
        )
        .await;
    let found = doctor(&database, &[]);
    let default = found.of("default_rows")["seen"].as_str().unwrap();
    assert!(
        default.starts_with("3 rows of interaction_events, from 2001-01-01"),
        "{default}"
    );
    assert_eq!(
        found.of("quarantine")["command"],
        "recsys-ingest quarantine retry --code 23514"
    );

    let settings = Settings::new(&database).with("--default-ack", "durable");
    let (mut service, client) = Process::serve(&settings);
    let lock = database.connect().await;
    lock.batch_execute("BEGIN; LOCK TABLE interaction_events IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    assert_eq!(
        client.post("/v1/interactions", &click("a")).await.status,
        202
    );
    service.kill();
    let dir = settings.spool.path();
    let spool = dir.display().to_string();
    lock.batch_execute("ROLLBACK").await.unwrap();
    let codes = |found: &Found| found.codes().contains("spool_old");
    assert!(
        !codes(&doctor(&database, &["--spool-dir", &spool])),
        "it is new"
    );
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = std::fs::File::options()
            .write(true)
            .open(entry.unwrap().path())
            .unwrap();
        file.set_modified(hour_ago).unwrap();
    }
    let found = doctor(&database, &["--spool-dir", &spool]);
    let seen = found.of("spool_old")["seen"].as_str().unwrap();
    assert!(
        seen.starts_with("1 rows wait") && seen.contains("1h"),
        "{seen}"
    );
    let (mut service, _) = Process::serve(&settings);
    eventually("the spool to be empty", async || {
        !codes(&doctor(&database, &["--spool-dir", &spool]))
    })
    .await;
    assert!(service.stop().success());
    // A directory that is not there was asked for and cannot be looked at.
    let (_, _, err) = cli(
        &database,
        &["doctor", "--least", "fault", "--spool-dir", "/nowhere"],
    );
    let (code, out, _) = cli(
        &database,
        &["doctor", "--least", "fault", "--spool-dir", "/nowhere"],
    );
    assert_eq!(code, 2, "{out}{err}");
    assert!(out.contains("not looked at: the spool"), "{out}");
}
