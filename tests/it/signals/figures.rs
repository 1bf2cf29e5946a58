//! What the signals of a large day cost, against receiving it and against the plain SQL.
//!
//! Prints figures and asserts none of them: how to run it is in `docs/signals.md`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::signals;
use crate::harness::{Rig, one};

/// The straightforward query for co-visitation, with what the suite keeps of it.
const PLAIN: &str = "
    CREATE TEMPORARY TABLE plain AS
    WITH seen AS (
        SELECT DISTINCT e.surface, e.session_id, item ->> 'item_id' AS item_id
          FROM exposure_events AS e, jsonb_array_elements(e.response -> 'items') AS item),
    pairs AS (
        SELECT a.surface, a.item_id, b.item_id AS neighbor_id, count(*) AS sessions
          FROM seen AS a JOIN seen AS b USING (surface, session_id)
         WHERE a.item_id <> b.item_id
         GROUP BY 1, 2, 3 HAVING count(*) >= 2),
    ranked AS (
        SELECT *, row_number() OVER (PARTITION BY surface, item_id
                                     ORDER BY sessions DESC, neighbor_id COLLATE \"C\") AS place
          FROM pairs)
    SELECT surface, item_id, neighbor_id, sessions FROM ranked WHERE place <= 50";

/// Items shown, from RECSYS_SIGNALS_ITEMS.
fn items() -> u64 {
    std::env::var("RECSYS_SIGNALS_ITEMS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000_000)
}

/// A body of `lists` lists of twenty items. A session has three lists, the items of a popular shop.
fn body(from: u64, lists: u64) -> Value {
    let list = |n: u64| {
        let items: Vec<Value> = (0..20_u64)
            .map(|rank| {
                // A hash, so that each run has the same items.
                let mut hash = (n * 20 + rank).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                hash ^= hash >> 29;
                let share = (hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f64 / 16_777_216.0;
                let item = (20_000.0 * share.powi(3)).floor();
                json!({"item_id": format!("item-{item}"), "rank": rank + 1, "score": share})
            })
            .collect();
        json!({
            "event_id": format!("list {n}"), "request_id": format!("list {n}"),
            "occurred_at": "2026-03-10T08:00:00Z", "surface": if (n / 3).is_multiple_of(2) { "home" } else { "product" },
            "session_id": format!("session {}", n / 3), "items": items,
        })
    };
    (from..from + lists).map(list).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of many minutes: docs/signals.md"]
async fn figures_of_a_large_day() {
    let rig = Rig::start(|settings| settings.with("--spool-bytes-max", "8GiB")).await;
    let lists = items() / 20;
    let started = Instant::now();
    let mut posts = tokio::task::JoinSet::new();
    for sender in 0..4 {
        let client = rig.client.query("ack=committed");
        posts.spawn(async move {
            let mut spent = Duration::ZERO;
            for from in (sender * 500..lists).step_by(2000) {
                let body = body(from, 500_u64.min(lists - from));
                let posted = Instant::now();
                let reply = client.post("/v1/exposures", &body).await;
                assert_eq!(reply.status, 200, "{}", reply.text);
                spent += posted.elapsed();
            }
            spent
        });
    }
    let spent = posts.join_all().await;
    println!(
        "received {lists} lists of 20 in {:.1} s",
        started.elapsed().as_secs_f64()
    );
    println!(
        "of which senders waited {:.1} s on average",
        spent.iter().sum::<Duration>().as_secs_f64() / 4.0
    );
    let done = signals(&rig.database, &["--changed"]);
    println!("signals: {}", done[0]);
    let all = ["--day", "2026-03-10", "--items-max", "1000000"];
    let done = signals(&rig.database, &all);
    println!("signals of all items: {}", done[0]);
    let client = rig.database.connect().await;
    let started = Instant::now();
    client
        .batch_execute("SET work_mem = '64MB'; SET jit = off")
        .await
        .unwrap();
    client.batch_execute(PLAIN).await.unwrap();
    println!(
        "the plain SQL of co-visitation took {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let differ: i64 = one(
        &client,
        "SELECT count(*) FROM plain AS p FULL JOIN item_covisit_daily AS c
             ON (p.surface, p.item_id, p.neighbor_id) = (c.namespace, c.item_id, c.neighbor_id)
          WHERE p.sessions IS DISTINCT FROM c.score::bigint",
    )
    .await;
    assert_eq!(differ, 0);
    let spilled: i64 = one(
        &client,
        "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()",
    )
    .await;
    println!("temporary files: {} MB", spilled >> 20);
}
