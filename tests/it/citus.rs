//! Promise: the service's statements are of a kind that a distributed Postgres takes, and an error
//! that hides its cause, as that of a shard does, is judged as on one server. The errors of Citus
//! are simulated: see `harness::citus`. `nodes` tests on a real one, where there is one.

mod figures;
mod nodes;

use recsys_ingest::event::table::Table;
use serde_json::{Value, json};

use crate::bad_rows::{RAISE, event};
use crate::beside::SUITE_MIGRATIONS;
use crate::harness::{
    Citus, Client, Database, Process, Service, Settings, click, cluster, eventually, one,
};

/// A service behind a front, with one lane for each table.
struct World {
    front: Citus,
    database: Database,
    settings: Settings,
}

impl World {
    async fn new() -> Self {
        let database = Database::with_tenants().await;
        let front = Citus::start(cluster());
        let behind = Database::by(front.url(database.url()));
        let settings = Settings::new(&behind)
            .with("--writers", "1")
            .with("--flush-waited-after", "20ms");
        Self {
            front,
            database,
            settings,
        }
    }

    /// Runs a command of the program behind the front.
    fn cli(&self, arguments: &[&str]) -> String {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
            .args(arguments)
            .env("DATABASE_URL", self.front.url(self.database.url()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    fn assert_nothing_was_refused(&self) {
        let refused = self.front.refused();
        assert!(refused.is_empty(), "{refused:#?}");
    }
}

/// Raises for a row with a mark, as `RAISE` says.
async fn refuse_marked(database: &Database, table: Table) {
    let sql = format!(
        "CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    database.execute(&sql).await;
}

fn named(table: Table, names: impl IntoIterator<Item = String>) -> Vec<Value> {
    names
        .into_iter()
        .map(|name| event(table, &name, None))
        .collect()
}

async fn post(client: &Client, table: Table, events: Vec<Value>) -> (u64, u64, usize, usize) {
    client.post(table.path(), &json!(events)).await.settled()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_duplicates_and_bad_rows_are_told_apart_though_every_error_is_the_same() {
    let world = World::new().await;
    let database = &world.database;
    let (mut process, client) = Process::serve(&world.settings);
    database.execute(RAISE).await;
    for table in [Table::Exposures, Table::Interactions] {
        let many = || (0..30).map(move |n| format!("{table} {n}"));
        assert_eq!(
            post(&client, table, named(table, many())).await,
            (30, 0, 0, 0)
        );
        let again = named(table, many().chain(["new".to_owned()]));
        assert_eq!(post(&client, table, again).await, (1, 30, 0, 0));
        refuse_marked(database, table).await;
        // Of one body: two that are there, three bad ones, and twenty-five new ones.
        let mut mixed = named(table, (30..60).map(|n| format!("{table} {n}")));
        mixed[5] = event(table, &format!("{table} 5"), None);
        mixed[6] = event(table, &format!("{table} 6"), None);
        for at in [3, 17, 29] {
            mixed[at] = event(table, &format!("bad {at}"), Some("poison 23514"));
        }
        let reply = client.post(table.path(), &json!(mixed)).await;
        assert_eq!(reply.settled(), (25, 2, 3, 0), "{}", reply.text);
        for (bad, index) in reply.json["quarantined"]
            .as_array()
            .unwrap()
            .iter()
            .zip([3, 17, 29])
        {
            assert_eq!(
                (&bad["index"], &bad["code"]),
                (&json!(index), &json!("XX000"))
            );
            assert!(bad["message"].as_str().unwrap().contains("refused: poison"));
        }
        // Alone in its batch.
        let alone = vec![event(table, "bad alone", Some("poison P0001"))];
        assert_eq!(post(&client, table, alone).await, (0, 0, 1, 0));
        assert_eq!(database.count(table.as_str()).await, 56);
    }
    assert!(world.front.hidden() > 10, "{}", world.front.hidden());
    assert_eq!(database.count("ingest_quarantine").await, 8);
    world.settings.assert_verified();
    assert!(process.stop().success());
    world.assert_nothing_was_refused();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_another_instance_stores_in_between_is_a_duplicate_and_not_a_bad_row() {
    let world = World::new().await;
    let database = &world.database;
    let (mut process, client) = Process::serve(&world.settings);
    let direct = Service::on(database, |settings| settings).await;
    let table = Table::Interactions;
    assert_eq!(
        post(&client, table, vec![click("first")]).await,
        (1, 0, 0, 0)
    );
    database.execute(RAISE).await;
    refuse_marked(database, table).await;
    // The first COPY fails for the bad row. The second, after the search for duplicates, is held
    // until the other instance has stored the other row.
    world.front.hold_copy_after(1);
    let before = world.front.copies();
    let body = vec![click("race"), event(table, "bad", Some("poison P0001"))];
    let posting = tokio::spawn(async move { post(&client, table, body).await });
    eventually("the second COPY", async || {
        world.front.copies() >= before + 2
    })
    .await;
    assert_eq!(
        direct.interactions(&click("race")).await.settled(),
        (1, 0, 0, 0)
    );
    world.front.release();
    assert_eq!(posting.await.unwrap(), (0, 1, 1, 0));
    assert_eq!(database.count("interaction_events").await, 2);
    world.settings.assert_verified();
    assert!(process.stop().success());
    direct.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_went_away_is_made_again_and_a_table_that_takes_nothing_sets_nothing_aside()
 {
    let world = World::new().await;
    let database = &world.database;
    let (mut process, client) = Process::serve(&world.settings);
    let table = Table::Interactions;
    assert_eq!(
        post(&client, table, vec![click("first")]).await,
        (1, 0, 0, 0)
    );
    database
        .execute("DROP TABLE interaction_events_2026_03_10")
        .await;
    let many = named(table, (0..30).map(|n| format!("many {n}")));
    assert_eq!(post(&client, table, many).await, (30, 0, 0, 0));

    database
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON interaction_events
                 FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    let durable = client.query("ack=durable");
    let kept = json!(named(table, (0..40).map(|n| format!("kept {n}"))));
    assert_eq!(durable.post(table.path(), &kept).await.status, 202);
    eventually("a fault in readiness", async || {
        let reply = client.get("/readyz").await;
        reply.text.contains("operator")
    })
    .await;
    assert_eq!(database.count("ingest_quarantine").await, 0);
    database
        .execute("DROP TRIGGER refuse ON interaction_events")
        .await;
    eventually("the rows in the table", async || {
        database.count("interaction_events").await == 70
    })
    .await;
    assert_eq!(database.count("ingest_quarantine").await, 0);
    assert!(process.stop().success());
    world.assert_nothing_was_refused();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_partitions_is_one_command_at_a_time() {
    let world = World::new().await;
    let database = &world.database;
    // A DEFAULT partition, too large to be scanned under a lock.
    database.execute(SUITE_MIGRATIONS).await;
    database
        .execute(
            "INSERT INTO interaction_events (tenant_id, occurred_at, event_id, received_at, event_type, item_id, session_id)
             SELECT '00000000-0000-4000-8000-000000000001', date_trunc('day', now()) - interval '3 days' + n * interval '1 s',
                    gen_random_uuid(), now(), 'view', 'i' || n, repeat('s', 60)
               FROM generate_series(1, 20000) AS n",
        )
        .await;
    let settings = world.settings.clone().with("--seal-after", "0s");
    let (mut process, client) = Process::serve(&settings);
    eventually("an empty DEFAULT partition", async || {
        database.count("interaction_events_default").await == 0
    })
    .await;
    // On demand, where there is a small DEFAULT partition.
    assert_eq!(
        post(&client, Table::Interactions, vec![click("a")]).await,
        (1, 0, 0, 0)
    );
    assert!(process.stop().success());
    for arguments in [
        &["adopt", "--lean", "--yes"][..],
        &["partitions", "ensure", "--partitions-ahead", "5"],
        &["partitions", "seal", "--seal-after", "0s"],
        &[
            "partitions", "retain", "--retain-interactions", "1d", "--horizon-past", "1d",
        ],
    ] {
        world.cli(arguments);
    }
    let actions =
        "SELECT string_agg(DISTINCT action, ' ' ORDER BY action) FROM ingest_partition_log";
    let done: String = one(&database.connect().await, actions).await;
    assert_eq!(done, "create drop sealed");
    world.assert_nothing_was_refused();
}

#[tokio::test]
async fn the_front_refuses_what_citus_refuses() {
    let world = World::new().await;
    let behind = Database::by(world.front.url(world.database.url()));
    let client = behind.connect().await;
    let why = |error: tokio_postgres::Error| {
        let error = error.as_db_error().unwrap();
        format!("{}: {}", error.code().code(), error.message())
    };
    for (sql, refused) in [
        (
            "ALTER TABLE interaction_events ATTACH PARTITION p DEFAULT; ALTER TABLE p DROP CONSTRAINT c",
            true,
        ),
        (
            "SET LOCAL lock_timeout = 80; LOCK TABLE ONLY exposure_events",
            true,
        ),
        ("SAVEPOINT a; RELEASE a", false),
        ("ALTER TABLE interaction_events ADD COLUMN more text", false),
    ] {
        client.batch_execute("BEGIN").await.unwrap();
        let done = client.batch_execute(sql).await.map_err(why);
        let is_refused = done
            .as_ref()
            .is_err_and(|why| why.contains("multiple commands"));
        assert_eq!(is_refused, refused, "{sql}: {done:?}");
        // The transaction has failed as well.
        assert_eq!(client.batch_execute("SELECT 1").await.is_err(), refused);
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    let correlated = "SELECT n FROM unnest($1::uuid[]) AS wanted (n)
        WHERE (SELECT true FROM interaction_events AS stored WHERE event_id = n LIMIT 1)";
    let refused = client.prepare(correlated).await.map(drop).map_err(why);
    assert!(
        refused.as_ref().is_err_and(|why| why.starts_with("0A000")),
        "{refused:?}"
    );
    let joined =
        "SELECT n FROM unnest($1::uuid[]) AS wanted (n) JOIN interaction_events ON event_id = n";
    client.prepare(joined).await.unwrap();
    assert_eq!(world.front.refused().len(), 3);
}
