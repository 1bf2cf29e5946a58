//! A service with a wrong clock.

use std::sync::Arc;
use std::time::Duration;

use recsys_ingest::accounts::board::Board;
use recsys_ingest::clock;
use recsys_ingest::event::table::Table;
use recsys_ingest::event::time::Micros;
use recsys_ingest::postgres::connect::Target;
use recsys_ingest::tenants::refresh::TenantCache;
use tokio::sync::watch;

use super::{findings, says};
use crate::harness::{Client, Database, Process, Settings, eventually, texts};

const DAY: i64 = 86_400;

#[tokio::test]
async fn each_refresh_of_the_keys_compares_the_clocks() {
    fn behind() -> Micros {
        Micros(clock::now().0 - 90_000_000)
    }
    let database = Database::with_tenants().await;
    for (now, codes) in [
        (clock::now as fn() -> Micros, vec![]),
        (behind, vec!["clock_skew"]),
    ] {
        let checks = Arc::new(Board::new(Arc::default(), now, 7));
        let (_stop, stopped) = watch::channel(false);
        let directory = TenantCache::new();
        let target = Target::parse(database.url()).unwrap();
        let run = directory.run(target, Duration::from_secs(1), Arc::clone(&checks), stopped);
        let running = tokio::spawn(run);
        eventually("the clocks to be compared", async || {
            let found: Vec<_> = checks.all().iter().map(|finding| finding.code).collect();
            found == codes
        })
        .await;
        running.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_days_ahead_is_said_and_seals_and_makes_nothing() {
    let database = Database::with_tenants().await;
    // The service creates today's partition. By a clock two days ahead its day has ended, and it
    // would be due.
    let settings = Settings::new(&database).with("--seal-after", "0s");
    let Some(process) = Process::run_off(2 * DAY, settings.arguments()) else {
        return;
    };
    let client = Client::new(process.listening());
    let sentence = "the clock of this machine is 2 days ahead of PostgreSQL's";
    // The offset may be a few milliseconds short of 2 days and then reads as 1 day, so the number
    // is not checked here.
    says(
        &process,
        &client,
        "degraded",
        "the clock of this machine is",
    )
    .await;
    let [finding] = &findings(&client, "clock_skew").await[..] else {
        panic!("{}", process.log());
    };
    assert!(finding["severity"] == "degraded", "{finding} {sentence}");
    let metrics = client.get("/metrics").await.text;
    let offset = metrics
        .lines()
        .find_map(|line| line.strip_prefix("recsys_ingest_clock_offset_seconds "))
        .unwrap();
    let offset: f64 = offset.parse().unwrap();
    assert!((172_000.0..173_600.0).contains(&offset), "{offset}");
    eventually("partitions ahead of time", async || {
        database.count("ingest_partition_log").await >= 12
    })
    .await;
    let client = database.connect().await;
    let today = clock::now().0;
    for table in Table::ALL {
        let made = texts(
            &client,
            &format!(
                "SELECT range_from::text FROM ingest_partition_log WHERE table_name = '{table}'"
            ),
        )
        .await;
        assert_eq!(made.len(), 4, "{made:?} {today}");
    }
    let from = "SELECT count(*) FROM ingest_partition_log
                 WHERE range_from > now() + interval '4 days' OR range_to < now()";
    assert_eq!(crate::harness::one::<i64>(&client, from).await, 0);
    // A sealer that starts at once finds nothing due.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sealed = database
        .count("ingest_partition_log WHERE action = 'sealed'")
        .await;
    assert_eq!(sealed, 0, "{}", process.log());
}
