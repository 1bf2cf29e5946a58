//! Years of days, with the clock passed in: no gap, no overlap, names that tell what they hold, and
//! exactly what is to be kept, also while a sender floods the service with wild times.

use recsys_ingest::accounts::retention::run::retain;
use recsys_ingest::event::table::Table;
use recsys_ingest::event::time::Micros;
use recsys_ingest::partitions::catalog::list;
use recsys_ingest::partitions::create::ensure_ahead;
use recsys_ingest::partitions::range::{Interval, Range};

use super::wild::WrongClock;
use super::words::{differences, keep, time};
use crate::harness::{Database, one};

const DAY_US: i64 = 86_400_000_000;
const KEPT_DAYS: u64 = 30;
const AHEAD: u32 = 3;

/// Days from one flood of wild times to the next.
const FLOOD_DAYS: i64 = 19;

/// Lives through `days`, with rows around each midnight, some that come late and now and then many at
/// wild times, and changes the interval three times.
async fn live_through(days: i64) {
    let database = Database::migrated().await;
    let mut client = database.connect().await;
    let start = time("2026-01-20T00:00:00Z").0;
    let table = Table::Interactions;
    let mut stored: i64 = 0;
    let mut sender = WrongClock::new(&database, start).await;
    let mut maintainer = WrongClock::maintainer(Interval::Day);
    let mut last_interval = Interval::Day;
    let (mut set_aside, mut rejected, mut exhausted) = (0, 0, 0);
    for day in 0..days {
        let now = start + day * DAY_US;
        let interval = match day * 4 / days {
            1 => Interval::Week,
            2 => Interval::Month,
            _ => Interval::Day,
        };
        if std::mem::replace(&mut last_interval, interval) != interval {
            // The service is started with another setting.
            maintainer = WrongClock::maintainer(interval);
        }
        // At the end of the day before, and at midnight.
        for tick in [now - 1, now] {
            ensure_ahead(&mut client, table, interval, tick, AHEAD)
                .await
                .unwrap();
        }
        let mut times = vec![now - 1, now, now + 1, now + DAY_US - 1];
        // Late ones, as far as they are kept and there was a service already.
        times.extend(
            [1, 7, 29]
                .map(|late| now - late * DAY_US)
                .into_iter()
                .filter(|&at| at >= start),
        );
        if day == 0 {
            times.remove(0);
        }
        let mut times: Vec<Micros> = times.into_iter().map(Micros).collect();
        if day % FLOOD_DAYS == FLOOD_DAYS / 2 {
            let flood = sender.flood(&maintainer, now).await;
            times.extend(flood.stored);
            set_aside += flood.set_aside;
            rejected += flood.rejected;
            exhausted += usize::from(flood.is_exhausted);
        }
        let sql = "WITH stored AS (
                       INSERT INTO interaction_events
                           (tenant_id, occurred_at, event_id, received_at, event_type, item_id)
                       SELECT '00000000-0000-4000-8000-000000000001', at, gen_random_uuid(), now(), 'view', 'a'
                         FROM unnest($1::timestamptz[]) AS at RETURNING 1)
                   INSERT INTO ingest_ledger AS entered (instance_id, stream, table_name, settled, stored)
                   SELECT '00000000-0000-4000-8000-00000000000a', 1, 'interaction_events', 0, count(*) FROM stored
                       ON CONFLICT (instance_id, lineage, stream) DO UPDATE
                      SET stored = entered.stored + excluded.stored";
        client.execute(sql, &[&times]).await.unwrap();
        stored += i64::try_from(times.len()).unwrap();

        let report = retain(&mut client, &keep(KEPT_DAYS), Micros(now))
            .await
            .unwrap();
        assert!(report.failed.is_empty(), "day {day}: {report:?}");
        let cutoff = now - i64::try_from(KEPT_DAYS).unwrap() * DAY_US;
        let infos = list(&mut client, table).await.unwrap();
        let ranges: Vec<Range> = infos
            .iter()
            .map(|info| Range {
                from_us: info.from_us.unwrap(),
                to_us: info.to_us.unwrap(),
            })
            .collect();
        for (info, range) in infos.iter().zip(&ranges) {
            assert_eq!(info.name, range.partition_name(table), "day {day}");
            assert!(
                range.to_us > cutoff,
                "day {day}: {} is still there",
                info.name
            );
        }
        for pair in ranges.windows(2) {
            assert!(pair[0].to_us <= pair[1].from_us, "day {day}: {ranges:?}");
        }
        // Wild times may have partitions before and after those.
        let from = cutoff.max(start);
        let mut covered = from;
        for range in ranges.iter().filter(|range| range.to_us > from) {
            if range.from_us > covered {
                break;
            }
            covered = range.to_us;
        }
        assert!(covered > now + DAY_US, "day {day}: {covered} {ranges:?}");
    }
    println!(
        "wild times: {rejected} rejected, {set_aside} set aside, {exhausted} floods spent the limit"
    );
    assert!(rejected > 0 && set_aside > 0 && exhausted > 0);
    let left = database.count("interaction_events").await;
    let booked: i64 = one(
        &client,
        "SELECT coalesce(sum(row_count), 0)::bigint FROM ingest_removed_rows",
    )
    .await;
    assert_eq!(left + booked, stored);
    assert!(booked > 0);
    assert!(differences(&database).await.is_empty());
}

#[tokio::test]
async fn sixty_days_pass_and_each_midnight_finds_its_partition() {
    live_through(60).await;
}

#[tokio::test]
#[ignore = "three years of days: cargo test --test it three_years -- --ignored"]
async fn three_years_pass_and_each_midnight_finds_its_partition() {
    live_through(3 * 365).await;
}
