//! Promise: a partition gets its indexes after its time range has ended, even if a build is
//! interrupted, and a hot partition has only its key.

use std::process::{Command, Output};
use std::time::Duration;

use recsys_ingest::clock;
use recsys_ingest::event::table::Table;
use recsys_ingest::metrics::Metrics;
use recsys_ingest::partitions::catalog::list;
use recsys_ingest::partitions::create::{ensure, ensure_with};
use recsys_ingest::partitions::error::Error;
use recsys_ingest::partitions::indexes::{IndexProfile, IndexState, secondary_indexes};
use recsys_ingest::partitions::range::Interval;
use recsys_ingest::partitions::seal::lock::holder;
use recsys_ingest::partitions::seal::plan::Selection;
use recsys_ingest::partitions::seal::work::{SealReport, seal};
use recsys_ingest::postgres::connect::Target;
use recsys_ingest::postgres::session::Session;
use rustix::process::Signal;
use serde_json::json;
use tokio_postgres::Client;

use crate::harness::{Database, Process, Service, Settings, click, eventually, one, texts};
use crate::schema::words::{INTERACTION, adopted, day};

const DAY: &str = "2026-03-10";
const EXPOSURES: &str = "exposure_events_2026_03_10";
const INTERACTIONS: &str = "interaction_events_2026_03_10";

/// Rows of all kinds: with and without a user, with and without a request.
const ROWS: &str = r#"
    INSERT INTO interaction_events
        (tenant_id, occurred_at, event_id, received_at, request_id, user_key, event_type, item_id, meta)
    SELECT '00000000-0000-4000-8000-000000000001', timestamptz '2026-03-10 00:00:00+00' + n * interval '10 s',
           gen_random_uuid(), now(), CASE WHEN n % 2 = 0 THEN md5(n::text)::uuid END,
           CASE WHEN n % 3 = 0 THEN sha256((n % 500)::text::bytea) END, 'view', 'item ' || n % 700,
           jsonb_build_object('n', n)
      FROM generate_series(1, 5000) n;
    INSERT INTO exposure_events
        (tenant_id, occurred_at, event_id, received_at, request_id, surface, segment, user_key,
         algo_version, request, response)
    SELECT '00000000-0000-4000-8000-000000000001', timestamptz '2026-03-10 00:00:00+00' + n * interval '10 s',
           gen_random_uuid(), now(), md5(n::text)::uuid, 'surface ' || n % 50, 'default',
           CASE WHEN n % 3 = 0 THEN sha256((n % 500)::text::bytea) END, '1',
           jsonb_build_object('n', n), jsonb_build_object('m', n)
      FROM generate_series(1, 5000) n"#;

/// A database with rows of a day long past in both tables.
async fn with_an_old_day() -> Database {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    for table in Table::OF_SUITE {
        ensure(&mut client, table, day(DAY), "test").await.unwrap();
    }
    client.batch_execute(ROWS).await.unwrap();
    database
}

async fn session(database: &Database) -> Session {
    Session::open(&Target::parse(database.url()).unwrap(), None)
        .await
        .unwrap()
}

/// Selects what is due after a grace of `after`.
fn due(after: Duration) -> Selection {
    Selection::Due {
        profile: IndexProfile::Deferred,
        after,
        now: clock::now(),
    }
}

/// Seals what is due, without a grace.
async fn seal_due(database: &Database) -> Result<SealReport, Error> {
    seal(
        &mut session(database).await,
        &due(Duration::ZERO),
        None,
        &Metrics::new(),
    )
    .await
}

/// Seals until no other sealer is busy; fails if a partition cannot be sealed.
async fn seal_to_the_end(database: &Database) -> Vec<String> {
    let mut sealed = Vec::new();
    loop {
        let outcome = seal_due(database).await.unwrap();
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
        sealed.extend(outcome.sealed.into_iter().map(|partition| partition.name));
        if !outcome.is_busy {
            return sealed;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn state(database: &Database, partition: &str) -> Option<IndexState> {
    let mut client = database.connect().await;
    for table in Table::OF_SUITE {
        let partitions = list(&mut client, table).await.unwrap();
        if let Some(found) = partitions.into_iter().find(|info| info.name == partition) {
            return found.index_state;
        }
    }
    panic!("there is no {partition}");
}

/// The definitions of a relation's indexes, from USING on, and the names of the invalid ones.
async fn indexes(client: &Client, relation: &str) -> (Vec<String>, Vec<String>) {
    let definitions = format!(
        "SELECT substr(indexdef, strpos(indexdef, 'USING ') + 6) FROM pg_indexes
          WHERE tablename = '{relation}' ORDER BY 1"
    );
    let invalid = format!(
        "SELECT indexrelid::regclass::text FROM pg_index
          WHERE indrelid = '{relation}'::regclass AND NOT indisvalid"
    );
    (
        texts(client, &definitions).await,
        texts(client, &invalid).await,
    )
}

/// The rows of `ingest_partition_log` about sealing, as partition and reason.
async fn log(client: &Client) -> Vec<String> {
    texts(
        client,
        "SELECT partition_name || ': ' || reason FROM ingest_partition_log
          WHERE action = 'sealed' ORDER BY 1",
    )
    .await
}

#[tokio::test]
async fn a_partition_whose_time_is_over_gets_exactly_the_suites_indexes_and_statistics() {
    let database = with_an_old_day().await;
    let mut client = database.connect().await;
    let today = Interval::Day.range_of(clock::now().0);
    for table in Table::OF_SUITE {
        ensure(&mut client, table, today, "test").await.unwrap();
    }
    let keys = indexes(&client, EXPOSURES).await;
    assert_eq!(
        keys.0,
        ["btree (tenant_id, occurred_at, event_id)"],
        "hot: only the key"
    );

    let sealed = seal_to_the_end(&database).await;
    assert_eq!(sealed.len(), 2, "{sealed:?}");
    assert_eq!(
        indexes(&client, EXPOSURES).await,
        (
            vec![
                "btree (tenant_id, occurred_at, event_id)".to_owned(),
                "btree (tenant_id, request_id)".to_owned(),
                "btree (tenant_id, surface, occurred_at DESC)".to_owned(),
                "btree (tenant_id, user_key, occurred_at DESC) WHERE (user_key IS NOT NULL)"
                    .to_owned(),
                "gin (request)".to_owned(),
                "gin (response)".to_owned(),
            ],
            vec![]
        )
    );
    assert_eq!(
        indexes(&client, INTERACTIONS).await,
        (
            vec![
                "btree (tenant_id, item_id, occurred_at DESC)".to_owned(),
                "btree (tenant_id, occurred_at, event_id)".to_owned(),
                "btree (tenant_id, request_id) WHERE (request_id IS NOT NULL)".to_owned(),
                "btree (tenant_id, user_key, occurred_at DESC) WHERE (user_key IS NOT NULL)"
                    .to_owned(),
                "gin (meta)".to_owned(),
            ],
            vec![]
        )
    );
    for (table, partition) in [
        (Table::Exposures, EXPOSURES),
        (Table::Interactions, INTERACTIONS),
    ] {
        let analyzed = format!("SELECT count(*) FROM pg_stats WHERE tablename = '{partition}'");
        assert!(one::<i64>(&client, &analyzed).await > 0);
        assert_eq!(state(&database, partition).await, Some(IndexState::Sealed));
        let hot = today.partition_name(table);
        assert_eq!(state(&database, &hot).await, Some(IndexState::Hot));
        let (parents, _) = indexes(&client, table.as_str()).await;
        assert_eq!(parents.len(), 1, "the parent forces none on hot partitions");
    }
    let log_before = log(&client).await;
    assert!(
        log_before[0].starts_with("exposure_events_2026_03_10: built 5 indexes in"),
        "{log_before:?}"
    );
    assert_eq!(seal_to_the_end(&database).await, [""; 0]);
    assert_eq!(log(&client).await, log_before);
}

#[tokio::test]
async fn the_grace_runs_from_the_end_of_the_range_and_from_the_making_of_the_partition() {
    let database = with_an_old_day().await;
    let hour = due(Duration::from_secs(3600));
    let mut session = session(&database).await;
    let outcome = seal(&mut session, &hour, None, &Metrics::new())
        .await
        .unwrap();
    assert!(
        outcome.sealed.is_empty(),
        "an import of old events has just begun"
    );
    database
        .execute("UPDATE ingest_partition_log SET at = at - interval '2 h'")
        .await;
    let outcome = seal(&mut session, &hour, None, &Metrics::new())
        .await
        .unwrap();
    assert_eq!(outcome.sealed.len(), 2);
}

#[tokio::test]
async fn the_indexes_are_of_use() {
    let database = with_an_old_day().await;
    seal_to_the_end(&database).await;
    let client = database.connect().await;
    client
        .batch_execute("SET enable_seqscan = off")
        .await
        .unwrap();
    let tenant = "tenant_id = '00000000-0000-4000-8000-000000000001'";
    let user = "user_key = sha256('3'::bytea)";
    for (table, condition, index) in [
        (
            "exposure_events",
            "request_id = md5('7')::uuid",
            "request_id",
        ),
        (
            "exposure_events",
            "surface = 'surface 3' ORDER BY occurred_at DESC LIMIT 5",
            "surface_time",
        ),
        ("exposure_events", user, "user_time"),
        ("exposure_events", r#"request @> '{"n": 7}'"#, "request_gin"),
        (
            "exposure_events",
            r#"response @> '{"m": 7}'"#,
            "response_gin",
        ),
        (
            "interaction_events",
            "request_id = md5('8')::uuid",
            "request_id",
        ),
        ("interaction_events", user, "user_time"),
        (
            "interaction_events",
            "item_id = 'item 7' ORDER BY occurred_at DESC LIMIT 5",
            "item_time",
        ),
        ("interaction_events", r#"meta @> '{"n": 7}'"#, "meta_gin"),
    ] {
        let plan =
            format!("EXPLAIN (COSTS off) SELECT * FROM {table} WHERE {tenant} AND {condition}");
        let plan = texts(&client, &plan).await.join("\n");
        let index = format!("{table}_2026_03_10_{index}");
        assert!(
            plan.contains(&index),
            "{condition} does without {index}:\n{plan}"
        );
    }
}

#[tokio::test]
async fn events_come_in_while_an_index_is_built_and_are_in_it() {
    let database = with_an_old_day().await;
    // An open transaction of a writer holds up the first build.
    let mut writer = database.connect().await;
    let writing = writer.transaction().await.unwrap();
    writing
        .execute(INTERACTION, &[&"2026-03-10 10:00:00+00"])
        .await
        .unwrap();
    let sealing = tokio::spawn({
        let database = database.clone();
        async move { seal_to_the_end(&database).await }
    });
    let client = database.connect().await;
    wait_for_a_build(&client).await;
    client
        .batch_execute("SET lock_timeout = '2s'")
        .await
        .unwrap();
    for minute in 10..60 {
        let at = format!("2026-03-10 23:{minute}:00+00");
        client.execute(INTERACTION, &[&at]).await.unwrap();
    }
    assert!(!sealing.is_finished());
    writing.commit().await.unwrap();
    assert_eq!(sealing.await.unwrap().len(), 2);

    client
        .batch_execute("SET enable_seqscan = off")
        .await
        .unwrap();
    let found = "SELECT count(*) FROM interaction_events
                  WHERE tenant_id = '00000000-0000-4000-8000-000000000001' AND item_id = 'a'";
    let plan = texts(&client, &format!("EXPLAIN (COSTS off) {found}")).await;
    assert!(plan.join("\n").contains("_item_time"), "{plan:?}");
    assert_eq!(one::<i64>(&client, found).await, 51);
}

/// Waits until a session waits inside CREATE INDEX CONCURRENTLY.
async fn wait_for_a_build(client: &Client) {
    let building = "SELECT count(*) FROM pg_stat_progress_create_index
                     WHERE datname = current_database() AND phase LIKE 'waiting for%'";
    eventually("an index to be built", async || {
        one::<i64>(client, building).await > 0
    })
    .await;
}

#[tokio::test]
async fn a_build_that_was_killed_is_dropped_and_done_again() {
    let database = with_an_old_day().await;
    let mut writer = database.connect().await;
    let writing = writer.transaction().await.unwrap();
    writing
        .execute(INTERACTION, &[&"2026-03-10 10:00:00+00"])
        .await
        .unwrap();
    let sealing = tokio::spawn({
        let database = database.clone();
        async move { seal_due(&database).await }
    });
    let client = database.connect().await;
    // The exposures' partition has no writer and may be sealed before.
    wait_for_a_build(&client).await;
    let owner = holder(&client).await.unwrap().expect("somebody seals");
    client
        .execute("SELECT pg_terminate_backend($1)", &[&owner.pid])
        .await
        .unwrap();
    assert!(sealing.await.unwrap().is_err(), "the connection is gone");
    eventually("its lock to be gone with it", async || {
        holder(&client).await.unwrap().is_none()
    })
    .await;
    let invalid = indexes(&client, INTERACTIONS).await.1;
    assert_eq!(invalid.len(), 1, "{invalid:?}");
    assert_eq!(
        state(&database, INTERACTIONS).await,
        Some(IndexState::Hot),
        "what is not valid does not count"
    );

    writing.rollback().await.unwrap();
    seal_to_the_end(&database).await;
    let (all, invalid) = indexes(&client, INTERACTIONS).await;
    assert_eq!((all.len(), invalid), (5, vec![]));
    assert_eq!(log(&client).await.len(), 2);
}

#[tokio::test]
async fn a_service_that_dies_in_the_middle_of_a_build_keeps_nobody_from_going_on() {
    let database = Database::with_tenants().await;
    let mut writer = database.connect().await;
    ensure(&mut writer, Table::Interactions, day(DAY), "test")
        .await
        .unwrap();
    let writing = writer.transaction().await.unwrap();
    writing
        .execute(INTERACTION, &[&"2026-03-10 10:00:00+00"])
        .await
        .unwrap();
    let settings = Settings::new(&database).with("--seal-after", "0s");
    let (mut process, _) = Process::serve(&settings);
    let client = database.connect().await;
    wait_for_a_build(&client).await;
    process.signal(Signal::KILL);
    process.wait();
    eventually("the server to notice", async || {
        holder(&client).await.unwrap().is_none()
    })
    .await;
    assert_eq!(indexes(&client, INTERACTIONS).await.1.len(), 1);
    writing.commit().await.unwrap();
    assert_eq!(seal_to_the_end(&database).await, [INTERACTIONS]);
    assert_eq!(indexes(&client, INTERACTIONS).await.1, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sealers_at_once_take_turns_and_seal_each_partition_once() {
    let database = with_an_old_day().await;
    let mut sealers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let database = database.clone();
        sealers.spawn(async move { seal_to_the_end(&database).await });
    }
    let mut sealed = sealers.join_all().await.concat();
    sealed.sort_unstable();
    assert_eq!(sealed, [EXPOSURES, INTERACTIONS]);
    let client = database.connect().await;
    assert_eq!(log(&client).await.len(), 2);
    assert_eq!(indexes(&client, EXPOSURES).await.0.len(), 6);
}

#[tokio::test]
async fn a_partition_that_cannot_be_sealed_costs_the_others_nothing() {
    let database = with_an_old_day().await;
    let name = secondary_indexes(Table::Exposures)[2].name_on(EXPOSURES);
    database
        .execute(&format!("CREATE TABLE {name} (taken boolean)"))
        .await;
    let outcome = seal_due(&database).await.unwrap();
    assert_eq!(outcome.sealed[0].name, INTERACTIONS);
    let [failed] = &outcome.failed[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!(failed.name, EXPOSURES);
    assert!(failed.error.to_string().contains(&name), "{failed:?}");
    database.execute(&format!("DROP TABLE {name}")).await;
    assert_eq!(seal_to_the_end(&database).await, [EXPOSURES]);
}

#[tokio::test]
async fn an_adopted_database_has_its_indexes_already_and_its_default_partition_stays() {
    let (database, _) = adopted().await;
    let mut client = database.connect().await;
    for table in Table::OF_SUITE {
        ensure(&mut client, table, day(DAY), "test").await.unwrap();
    }
    let before = indexes(&client, EXPOSURES).await;
    let mut sealed = seal_to_the_end(&database).await;
    sealed.sort_unstable();
    assert_eq!(sealed, [EXPOSURES, INTERACTIONS]);
    assert_eq!(
        indexes(&client, EXPOSURES).await,
        before,
        "none was built twice"
    );
    assert_eq!(
        log(&client).await[0],
        format!("{EXPOSURES}: its indexes were there")
    );
    assert_eq!(state(&database, "exposure_events_default").await, None);
}

#[tokio::test]
async fn with_the_full_profile_partitions_have_their_indexes_from_the_start() {
    let database = Database::with_tenants().await;
    let hot = Interval::Day.range_of(clock::now().0);
    // A partition from before the profile was switched.
    let mut client = database.connect().await;
    ensure(&mut client, Table::Exposures, hot, "test")
        .await
        .unwrap();
    let service = Service::on(&database, |s| s.with("--index-profile", "full")).await;
    assert_eq!(
        service.interactions(&json!([click("a")])).await.settled().0,
        1
    );
    let ahead = hot.partition_name(Table::Interactions);
    eventually("today's partition to be made", async || {
        one(
            &client,
            &format!("SELECT to_regclass('{ahead}') IS NOT NULL"),
        )
        .await
    })
    .await;
    for partition in [INTERACTIONS, &ahead] {
        assert_eq!(state(&database, partition).await, Some(IndexState::Sealed));
    }
    let older = hot.partition_name(Table::Exposures);
    eventually("the older partition to be indexed", async || {
        state(&database, &older).await == Some(IndexState::Sealed)
    })
    .await;
    let (parents, _) = indexes(&client, "interaction_events").await;
    assert_eq!(parents.len(), 1, "so the profile can be switched back");
    assert_eq!(log(&client).await, [""; 0], "no time is over yet");
}

#[tokio::test]
async fn rows_that_waited_in_a_default_partition_are_indexed_with_their_new_one() {
    let (database, _) = adopted().await;
    let mut client = database.connect().await;
    // The parent lacks its GIN index, as after an operator dropped it.
    client
        .batch_execute(
            "DO $$ DECLARE x text; BEGIN
                 FOR x IN SELECT indexrelid::regclass::text FROM pg_index
                           WHERE indrelid = 'interaction_events'::regclass
                             AND pg_get_indexdef(indexrelid) LIKE '%gin%'
                 LOOP EXECUTE 'DROP INDEX ' || x; END LOOP; END $$",
        )
        .await
        .unwrap();
    client
        .execute(INTERACTION, &[&"2026-03-10 10:00:00+00"])
        .await
        .unwrap();
    let made = ensure_with(
        &mut client,
        Table::Interactions,
        day(DAY),
        IndexProfile::Full,
        "test",
    )
    .await
    .unwrap();
    assert!(made.created()[0].moved_rows > 0);
    let (all, invalid) = indexes(&client, INTERACTIONS).await;
    assert!(all.contains(&"gin (meta)".to_owned()), "{all:?}");
    assert!(invalid.is_empty());
    assert_eq!(
        state(&database, INTERACTIONS).await,
        Some(IndexState::Sealed)
    );
}

#[tokio::test]
async fn the_service_seals_by_itself_and_takes_events_that_come_late() {
    let database = Database::with_tenants().await;
    let mut client = database.connect().await;
    for table in Table::OF_SUITE {
        ensure(&mut client, table, day(DAY), "test").await.unwrap();
    }
    let service = Service::on(&database, |s| s.with("--seal-after", "0s")).await;
    eventually("the service to seal", async || {
        log(&client).await.len() == 2
    })
    .await;
    eventually("the service to count", async || {
        let sealed = service
            .metric("recsys_ingest_partitions_sealed_total{table=\"interaction_events\"}")
            .await;
        let unsealed = service
            .metric("recsys_ingest_partitions_unsealed{table=\"interaction_events\"}")
            .await;
        (sealed, unsealed) == (1.0, 0.0)
    })
    .await;

    let mut late = click("late");
    late["request_id"] = json!("r1");
    let body = json!([late, click("later")]);
    assert_eq!(service.interactions(&body).await.settled(), (2, 0, 0, 0));
    assert_eq!(service.interactions(&body).await.settled(), (0, 2, 0, 0));
    client
        .batch_execute("SET enable_seqscan = off")
        .await
        .unwrap();
    let found = "SELECT count(*) FROM interaction_events WHERE request_id IS NOT NULL
                  AND tenant_id = (SELECT id FROM tenants WHERE external_id = 'demo')";
    assert_eq!(one::<i64>(&client, found).await, 1);
}

#[tokio::test]
async fn a_service_that_is_told_not_to_seal_does_not() {
    let database = with_an_old_day().await;
    let service = Service::on(&database, |s| {
        s.with("--seal-after", "0s").with("--seal", "false")
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(state(&database, EXPOSURES).await, Some(IndexState::Hot));
    service.stop().await.unwrap();
}

fn partitions(database: &Database, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
        .arg("partitions")
        .args(arguments)
        .args(["--database-url", database.url()])
        .output()
        .unwrap()
}

fn column(output: &Output, partition: &str, at: usize) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains(partition));
    let line = line.unwrap_or_else(|| panic!("no {partition} in {output:?}"));
    line.split('\t').nth(at).unwrap().to_owned()
}

#[tokio::test]
async fn the_command_lists_what_is_hot_and_seals_what_is_named_or_due() {
    let database = with_an_old_day().await;
    let listed = partitions(&database, &["list"]);
    assert_eq!(column(&listed, EXPOSURES, 6), "hot");
    let refused = partitions(&database, &["seal", "exposure_events_2026_03_1"]);
    assert!(!refused.status.success());
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        words.contains("there is no partition exposure_events_2026_03_1"),
        "{words}"
    );

    // A partition that is named is sealed without a grace.
    let sealed = partitions(&database, &["seal", EXPOSURES]);
    assert!(sealed.status.success(), "{sealed:?}");
    assert_eq!(column(&sealed, EXPOSURES, 3), "5 indexes built");
    let listed = partitions(&database, &["list"]);
    assert_eq!(column(&listed, EXPOSURES, 6), "sealed");
    assert_eq!(column(&listed, INTERACTIONS, 6), "hot");
    let again = partitions(&database, &["seal", EXPOSURES]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "nothing to seal\n");

    database
        .execute(&format!(
            "CREATE INDEX mine ON {INTERACTIONS} USING gin (meta) WITH (fastupdate = off)"
        ))
        .await;
    let listed = partitions(&database, &["list"]);
    assert_eq!(column(&listed, INTERACTIONS, 6), "partly (1 of 4)");
    let sealed = partitions(&database, &["seal", "--seal-after", "0s"]);
    assert_eq!(column(&sealed, INTERACTIONS, 3), "3 indexes built");
}
