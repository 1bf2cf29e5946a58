//! Two versions at the same time on one database, as during an upgrade.

use recsys_ingest::postgres::migrate::{names as migrations, sql};
use recsys_ingest::tenants::admin::keys::insert_key;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::role::Role;
use serde_json::Value;

use super::words::Instance;
use crate::harness::{
    Client, DEMO, Database, PEPPER, Process, Settings, click, eventually, key, one, texts,
};

/// What a coming version's migration may do: columns that this version does not know, a table, and
/// its line of the history.
const COMING: &str = "
    ALTER TABLE ingest_ledger ADD COLUMN coming bigint NOT NULL DEFAULT 0;
    ALTER TABLE ingest_holders ADD COLUMN coming text;
    ALTER TABLE ingest_quarantine ADD COLUMN coming text;
    ALTER TABLE interaction_events ADD COLUMN coming text;
    CREATE TABLE ingest_coming (id bigint);
    INSERT INTO ingest_schema_history (version, name, applied_on, checksum)
    VALUES (9999, 'coming', '2030-01-01T00:00:00Z', '1')";

async fn settled(client: &Client, name: &str) -> (u64, u64, usize, usize) {
    client
        .post("/v1/interactions", &click(name))
        .await
        .settled()
}

async fn readiness(client: &Client) -> (u16, Value) {
    let reply = client.get("/readyz").await;
    (reply.status, reply.json)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_goes_on_while_a_newer_version_migrates_and_is_beside_it() {
    let database = Database::with_tenants().await;
    let settings = || Settings::new(&database).with("--writers", 1);
    let mut older = Instance::start(settings());
    let newer = Instance::start(settings());
    assert_eq!(settled(&older.client, "before").await, (1, 0, 0, 0));
    database.execute(COMING).await;
    for (client, name, expected) in [
        (&older.client, "before", (0, 1, 0, 0)),
        (&older.client, "older", (1, 0, 0, 0)),
        (&newer.client, "older", (0, 1, 0, 0)),
        (&newer.client, "newer", (1, 0, 0, 0)),
        (&older.client, "newer", (0, 1, 0, 0)),
    ] {
        assert_eq!(settled(client, name).await, expected, "{name}");
    }
    // Started again, it takes nothing until it may leave the schema as it is; then it says that it
    // is not the version that made it.
    assert!(older.process.stop().success());
    let (mut process, client) = Process::listen(&older.settings);
    eventually("the reason in readiness", async || {
        let (status, said) = readiness(&client).await;
        status == 503 && said.to_string().contains("newer version")
    })
    .await;
    let refused = client.post("/v1/interactions", &click("refused")).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(process.stop().success());
    older.settings = older.settings.with("--migrate-on-start", false);
    (older.process, older.client) = Process::serve(&older.settings);
    assert_eq!(settled(&older.client, "older").await, (0, 1, 0, 0));
    assert_eq!(settled(&older.client, "again").await, (1, 0, 0, 0));
    let (status, said) = readiness(&older.client).await;
    assert_eq!(
        (status, &said["status"]),
        (200, &"degraded".into()),
        "{said}"
    );
    assert!(said.to_string().contains("another version"), "{said}");
    for instance in [&older, &newer] {
        instance.settle().await;
        instance.settings.assert_verified();
    }
    assert_eq!(database.count("interaction_events").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_newer_than_the_schema_takes_events_once_that_is_migrated() {
    let database = one_migration_behind().await;
    let settings = Settings::new(&database)
        .with("--writers", 1)
        .with("--key-refresh", "1s")
        .with("--migrate-on-start", false);
    let (_process, client) = Process::listen(&settings);
    eventually("the reason in readiness", async || {
        let (status, said) = readiness(&client).await;
        status == 503 && said.to_string().contains("the schema lacks")
    })
    .await;
    let refused = client.post("/v1/interactions", &click("early")).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .arg("migrate")
        .env("DATABASE_URL", database.url())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let tenant =
        format!("INSERT INTO tenants (id, external_id, name) VALUES ('{DEMO}', 'demo', 'demo')");
    database.execute(&tenant).await;
    let secret = key("demo", Role::Ingest);
    let hasher = ApiKeyHasher::new(PEPPER.as_bytes());
    let owner = database.connect().await;
    insert_key(&owner, &hasher, "demo", None, &[Role::Ingest], &secret)
        .await
        .unwrap();
    eventually("the instance to be ready", async || {
        readiness(&client).await.1["status"] == "ready"
    })
    .await;
    assert_eq!(settled(&client, "early").await, (1, 0, 0, 0));
    settings.assert_verified();
}

/// A database without the last migration.
async fn one_migration_behind() -> Database {
    let current = Database::migrated().await.connect().await;
    let history = "SELECT format('(%s, %L, %L, %L)', version, name, applied_on, checksum)
                     FROM ingest_schema_history ORDER BY version";
    let history = texts(&current, history).await;
    let database = Database::empty().await;
    let names = migrations();
    assert_eq!(names.len(), history.len());
    for name in &names[..names.len() - 1] {
        database.execute(sql(name).unwrap()).await;
    }
    let rows = history[..history.len() - 1].join(", ");
    database
        .execute(&format!(
            "CREATE TABLE ingest_schema_history (
                 version int4 PRIMARY KEY, name varchar(255), applied_on varchar(255), checksum varchar(255));
             INSERT INTO ingest_schema_history VALUES {rows}"
        ))
        .await;
    database
}

/// How earlier versions entered a batch of interactions into the ledger: before openings, and with
/// an opening that is not the one that holds the row.
const ENTRIES: [(&str, &str); 2] = [
    (
        "INSERT INTO ingest_ledger AS mine (instance_id, stream, table_name, settled, stored, duplicates, quarantined)
         SELECT instance_id, stream, table_name, settled + 5, 3, 0, 0 FROM ingest_ledger WHERE stream = 1
             ON CONFLICT (instance_id, stream) DO UPDATE
            SET settled = excluded.settled, stored = mine.stored + excluded.stored
          WHERE mine.settled < excluded.settled",
        "no unique or exclusion constraint",
    ),
    (
        "UPDATE ingest_ledger SET settled = settled + 5, stored = stored + 3
          WHERE stream = 1 AND opening = gen_random_uuid() AND settled = settled",
        "0 rows",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_an_earlier_version_changes_no_ledger_row() {
    let database = Database::with_tenants().await;
    let instance = Instance::start(Settings::new(&database).with("--writers", 1));
    assert_eq!(settled(&instance.client, "a").await, (1, 0, 0, 0));
    let client = database.connect().await;
    let row = "SELECT settled || ' ' || stored FROM ingest_ledger WHERE stream = 1";
    let before: String = one(&client, row).await;
    for (entry, why) in ENTRIES {
        let done = match client.execute(entry, &[]).await {
            Ok(rows) => format!("{rows} rows"),
            Err(error) => error.as_db_error().unwrap().message().to_owned(),
        };
        assert!(done.contains(why), "{done}");
        assert_eq!(one::<String>(&client, row).await, before);
    }
    assert_eq!(settled(&instance.client, "b").await, (1, 0, 0, 0));
    instance.settings.assert_verified();
}
