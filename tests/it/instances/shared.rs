//! What instances have to agree on, as they share nothing but PostgreSQL.

use recsys_ingest::event::table::Table;
use recsys_ingest::partitions::create::ensure;
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use super::words::{Instance, assert_all_verified, three};
use crate::bad_rows::event;
use crate::harness::{Client, Database, PEPPER, eventually, key, one, texts};
use crate::schema::words::day;

async fn start(database: &Database) -> Vec<Instance> {
    let urls = [database.url(); 3];
    let settings = three(urls, |settings| {
        settings
            .with("--writers", 1)
            .with("--key-refresh", "1s")
            .with("--seal-after", "0s")
            .with("--partitions-ahead", 1)
            .with("--retain-interactions", "30d")
            .with("--horizon-past", "30d")
            .with("--horizon-future", "1d")
    });
    // At the same time, as a deployment does.
    let starting = settings
        .into_iter()
        .map(|settings| tokio::task::spawn_blocking(move || Instance::start(settings)));
    let mut instances = Vec::new();
    for one in starting.collect::<Vec<_>>() {
        instances.push(one.await.unwrap());
    }
    instances
}

fn date(days_ago: i64) -> String {
    let at = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days_ago);
    at.strftime("%Y-%m-%d").to_string()
}

/// An event of the beginning of a day.
fn days_ago(table: Table, name: &str, days: i64) -> Value {
    let mut event = event(table, name, None);
    let field = match table {
        Table::Assignments => "ts",
        Table::Exposures | Table::Interactions => "occurred_at",
    };
    event[field] = json!(format!("{}T00:00:00Z", date(days)));
    event
}

/// Posts the same body to all instances at once; returns how many events were new and duplicates.
async fn post_to_all(instances: &[Instance], table: Table, body: &Value) -> (u64, u64) {
    let posting = instances.iter().map(|instance| {
        let (client, body) = (instance.client.clone(), body.clone());
        tokio::spawn(async move { client.post(table.path(), &body).await.settled() })
    });
    let (mut new, mut duplicates) = (0, 0);
    for one in posting.collect::<Vec<_>>() {
        let (stored, known, bad, rejected) = one.await.unwrap();
        assert_eq!((bad, rejected), (0, 0));
        new += stored;
        duplicates += known;
    }
    (new, duplicates)
}

fn keys(database: &Database, arguments: &[&str]) -> Value {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .arg("keys")
        .args(arguments)
        .arg("--json")
        .env("DATABASE_URL", database.url())
        .env("API_KEY_HASH_SECRET", PEPPER)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn statuses(instances: &[Instance], secret: &str) -> Vec<u16> {
    let mut statuses = Vec::new();
    for instance in instances {
        let client: Client = instance.client.header("x-api-key", secret);
        let reply = client
            .query("validate=true")
            .post("/v1/interactions", &json!([]))
            .await;
        statuses.push(reply.status);
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_partitions_keys_sealing_and_retention_are_one_for_all() {
    let database = Database::with_tenants().await;
    let client = database.connect().await;
    // A day that is older than what is kept, with rows.
    let old = "CREATE TABLE interaction_events_2020_01_01 PARTITION OF interaction_events
                    FOR VALUES FROM ('2020-01-01 UTC') TO ('2020-01-02 UTC');
               WITH stored AS (
                   INSERT INTO interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
                   SELECT '00000000-0000-4000-8000-000000000001', '2020-01-01 12:00:00+00', gen_random_uuid(), now(), 'view', 'a'
                     FROM generate_series(1, 7) RETURNING 1)
               INSERT INTO ingest_ledger (instance_id, stream, table_name, settled, stored)
               SELECT gen_random_uuid(), 1, 'interaction_events', 0, count(*) FROM stored";
    client.batch_execute(old).await.unwrap();
    // Two days that are over.
    let mut owner = database.connect().await;
    for table in Table::ALL {
        for days in [20, 21] {
            ensure(&mut owner, table, day(&date(days)), "test")
                .await
                .unwrap();
        }
    }
    let instances = start(&database).await;

    // Of each event one is new, whichever instance was first; each day got one partition.
    for table in Table::ALL {
        let body = json!(
            (0..20)
                .map(|n| days_ago(table, &format!("{table} {n}"), 3 + n % 4))
                .collect::<Vec<_>>()
        );
        assert_eq!(
            post_to_all(&instances, table, &body).await,
            (20, 40),
            "{table}"
        );
        assert_eq!(
            post_to_all(&instances, table, &body).await,
            (0, 60),
            "{table}"
        );
        let rows = format!("{table} WHERE occurred_at > '2021-01-01'");
        assert_eq!(database.count(&rows).await, 20, "{table}");
    }
    let twice = "SELECT partition_name || ' ' || action FROM ingest_partition_log
                  WHERE action IN ('create', 'drop') GROUP BY partition_name, action HAVING count(*) > 1";
    assert_eq!(texts(&client, twice).await, [""; 0]);

    // One of them seals a day that is over, and one removes the old day.
    let sealed =
        "SELECT count(DISTINCT partition_name) FROM ingest_partition_log WHERE action = 'sealed'";
    eventually("two sealed days of each table", async || {
        one::<i64>(&client, sealed).await >= 6
    })
    .await;
    let gone = "SELECT to_regclass('interaction_events_2020_01_01') IS NULL";
    eventually("the old day to be removed", async || {
        one::<bool>(&client, gone).await
    })
    .await;
    let resealed = "SELECT partition_name FROM ingest_partition_log
                     WHERE action = 'sealed' GROUP BY 1 HAVING count(*) > 1";
    assert_eq!(texts(&client, resealed).await, [""; 0]);
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(one::<i64>(&client, invalid).await, 0);
    let booked = "SELECT string_agg(kind || ' ' || row_count, ', ') FROM ingest_removed_rows";
    assert_eq!(one::<String>(&client, booked).await, "retention 7");
    assert_eq!(texts(&client, twice).await, [""; 0]);

    // A key is known and revoked everywhere; another one goes on.
    let made = keys(&database, &["create", "demo", "--role", "ingest"]);
    let (id, secret) = (
        made["id"].as_str().unwrap(),
        made["secret"].as_str().unwrap(),
    );
    eventually("the key to be known everywhere", async || {
        !statuses(&instances, secret).await.contains(&401)
    })
    .await;
    keys(&database, &["revoke", id]);
    eventually("the key to be revoked everywhere", async || {
        statuses(&instances, secret).await == [401; 3]
    })
    .await;
    assert!(
        !statuses(&instances, &key("demo", Role::Ingest))
            .await
            .contains(&401)
    );
    assert_all_verified(&instances).await;
}
