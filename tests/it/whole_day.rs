//! Promise: tables and views hold exactly what was sent in a day, in each column and each field.
//!
//! What was sent is a function of a number. The test makes events of it, and Postgres makes the rows
//! that the contract with the suite demands of it; neither knows of the program.

use std::ops::Range;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Client, Rig, one, texts};

/// The names that Postgres needs to make rows of numbers.
const WORDS: &str = "
    CREATE FUNCTION pg_temp.id(kind integer, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex(n), 8, '0') || '-0000-4000-8' || lpad(kind::text, 3, '0') || '-'
                || lpad(to_hex(n), 12, '0'))::uuid $$;
    CREATE FUNCTION pg_temp.at(n bigint, step_us bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
        SELECT '2026-03-10 00:00:00+00'::timestamptz + n * step_us * interval '1 microsecond' $$;
    CREATE FUNCTION pg_temp.written(at timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
        SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') $$;
    CREATE FUNCTION pg_temp.hash(n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS $$
        SELECT lpad(to_hex(n), 64, '0') $$;
    SET timezone = 'UTC';
    SET jit = off;
    SET work_mem = '512MB';
    CREATE TEMPORARY TABLE shown AS
    SELECT n, pg_temp.at(n, 43200) AS at, pg_temp.id(1, n) AS event_id, pg_temp.id(2, n) AS request_id,
           (ARRAY['home', 'item', 'cart'])[n % 3 + 1] AS surface, 'g' || n % 5 AS segment,
           (ARRAY['phone', 'desktop'])[n % 2 + 1] AS device, pg_temp.hash(n % 1000 + 1) AS user_hash,
           pg_temp.hash(n % 50000 + 1000000) AS session,
           CASE n % 2 WHEN 0 THEN 'ranking' END AS experiment,
           CASE n % 2 WHEN 0 THEN (ARRAY['A', 'B'])[n / 2 % 2 + 1] END AS variant,
           CASE WHEN n % 15 = 0 AND n / 15 < $assignments THEN 'C' END AS posted
      FROM generate_series(0::bigint, $exposures - 1) AS n;
    CREATE TEMPORARY TABLE done AS
    SELECT n, pg_temp.at(n, 216000) AS at, pg_temp.id(3, n) AS event_id, pg_temp.id(2, n * 5) AS request_id,
           (ARRAY['view', 'click', 'add_to_cart', 'purchase'])[n % 4 + 1] AS event_type,
           'i' || n % 5000 AS item_id, (n % 9 + 1)::integer AS position,
           CASE n % 4 WHEN 3 THEN (n % 100 + 0.25)::numeric(18, 6) END AS value,
           pg_temp.hash(n * 5 % 1000 + 1) AS user_hash, pg_temp.hash(n * 5 % 50000 + 1000000) AS session
      FROM generate_series(0::bigint, $interactions - 1) AS n;
    CREATE TEMPORARY TABLE assigned AS
    SELECT n, pg_temp.at(n, 864000) AS at, pg_temp.id(4, n) AS event_id, pg_temp.id(2, n * 15) AS request_id
      FROM generate_series(0::bigint, $assignments - 1) AS n";

/// Each relation, which of its columns count, and the rows that it has to have.
const RELATIONS: [(&str, &str, &str); 8] = [
    (
        "exposure_events",
        "to_jsonb(t) - 'received_at'",
        "SELECT $tenant AS tenant_id, at AS occurred_at, event_id, request_id, surface, segment,
                decode(user_hash, 'hex') AS user_key, session AS session_id, experiment AS experiment_id,
                variant AS experiment_variant, 'a1' AS algo_version, 'c1' AS config_etag, 'r1' AS rules_etag,
                $request AS request,
                jsonb_build_object('items', $ranked, 'meta', jsonb_build_object(
                    'tenant_id', 'demo', 'surface', surface, 'segment', segment, 'request_id', request_id,
                    'algo_version', 'a1', 'config_version', 'c1', 'rules_version', 'r1')) AS response,
                '{\"source\": \"ingest\", \"schema\": \"service_v1\", \"subject_kind\": \"user\"}'::jsonb AS meta
           FROM shown",
    ),
    (
        "interaction_events",
        "to_jsonb(t) - 'received_at'",
        "SELECT $tenant AS tenant_id, at AS occurred_at, event_id, request_id,
                decode(user_hash, 'hex') AS user_key, session AS session_id, 'home' AS surface, 'g1' AS segment,
                event_type, item_id, position, value, '{\"extra\": {\"colour\": \"red\"}}'::jsonb AS meta
           FROM done",
    ),
    (
        "ingest_assignments",
        "to_jsonb(t) - 'received_at'",
        POSTED,
    ),
    (
        "ingest_posted_assignments",
        "to_jsonb(t) - 'received_at'",
        POSTED,
    ),
    (
        "recsys_exposures",
        "to_jsonb(t)",
        "SELECT at AS ts, $tenant AS tenant_id, 'demo' AS tenant, surface,
                jsonb_build_object('request_id', request_id, 'user_id', user_hash, 'ts', pg_temp.written(at),
                    'items', $plain, 'context', jsonb_strip_nulls(jsonb_build_object(
                        'device', device, 'tenant', 'demo', 'tenant_id', 'demo', 'surface', surface,
                        'segment', segment, 'algo_version', 'a1', 'config_version', 'c1', 'rules_version', 'r1',
                        'experiment_id', CASE WHEN coalesce(posted, variant) IS NOT NULL THEN 'ranking' END,
                        'experiment_variant', coalesce(posted, variant)))) AS data
           FROM shown",
    ),
    (
        "exposures_for_pipelines",
        "to_jsonb(t)",
        "SELECT $tenant AS tenant_id, at AS occurred_at, request_id, surface, segment,
                decode(user_hash, 'hex') AS user_key, session AS session_id, experiment AS experiment_id,
                variant AS experiment_variant, 'a1' AS algo_version, 'c1' AS config_etag, 'r1' AS rules_etag,
                $request AS request, jsonb_build_object('items', $plain) AS response,
                '{\"source\": \"ingest\", \"schema\": \"service_v1\", \"subject_kind\": \"user\"}'::jsonb AS meta
           FROM shown",
    ),
    (
        "recsys_outcomes",
        "to_jsonb(t)",
        "SELECT at AS ts, $tenant AS tenant_id, 'demo' AS tenant, 'home' AS surface,
                jsonb_strip_nulls(jsonb_build_object('request_id', request_id, 'user_id', user_hash, 'item_id', item_id,
                    'event_type', CASE event_type WHEN 'click' THEN 'click' ELSE 'conversion' END,
                    'value', trim_scale(value), 'ts', pg_temp.written(at))) AS data
           FROM done WHERE event_type IN ('click', 'purchase')",
    ),
    (
        "experiment_assignments",
        "to_jsonb(t)",
        "SELECT at AS ts, $tenant AS tenant_id, 'demo' AS tenant, 'home' AS surface,
                jsonb_build_object('experiment_id', 'ranking', 'variant', 'C', 'request_id', request_id,
                    'user_id', $user, 'ts', pg_temp.written(at),
                    'context', '{\"tenant\": \"demo\", \"surface\": \"home\", \"device\": \"tv\"}'::jsonb) AS data
           FROM assigned
         UNION ALL
         SELECT at, $tenant, 'demo', surface,
                jsonb_build_object('experiment_id', 'ranking', 'variant', variant, 'request_id', request_id,
                    'user_id', user_hash, 'ts', pg_temp.written(at),
                    'context', jsonb_build_object('tenant', 'demo', 'surface', surface))
           FROM shown WHERE variant IS NOT NULL AND posted IS NULL",
    ),
];

const POSTED: &str = "
    SELECT $tenant AS tenant_id, at AS occurred_at, event_id, request_id, 'ranking' AS experiment_id,
           'C' AS variant, decode($user, 'hex') AS user_key, 'home' AS surface,
           '{\"surface\": \"home\", \"device\": \"tv\"}'::jsonb AS context,
           '{\"source\": \"ingest\", \"schema\": \"assignment_v1\"}'::jsonb AS meta
      FROM assigned";

/// What stands for `$NAME` in the texts above.
const PARTS: [(&str, &str); 5] = [
    ("$tenant", "'00000000-0000-4000-8000-000000000001'::uuid"),
    // The HMAC of `user` under the salt of the tests, from the suite's own.
    (
        "$user",
        "'48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782'",
    ),
    (
        "$request",
        "jsonb_strip_nulls(jsonb_build_object(
            'surface', surface, 'segment', segment, 'context', jsonb_build_object('device', device),
            'subject', jsonb_build_object('user_id_hash', user_hash, 'session_id_hash', session),
            'experiment', CASE WHEN variant IS NOT NULL
                               THEN jsonb_build_object('id', experiment, 'variant', variant) END))",
    ),
    (
        "$ranked",
        "(SELECT jsonb_agg(jsonb_build_object('item_id', 'i' || (n * 7 + place) % 5000, 'rank', place + 1, 'score', 0.5)
                           ORDER BY place) FROM generate_series(0, n % 4) AS place)",
    ),
    (
        "$plain",
        "(SELECT jsonb_agg(jsonb_build_object('item_id', 'i' || (n * 7 + place) % 5000, 'rank', place + 1)
                           ORDER BY place) FROM generate_series(0, n % 4) AS place)",
    ),
];

fn id(kind: u64, n: u64) -> String {
    format!("{n:08x}-0000-4000-8{kind:03}-{n:012x}")
}

fn at(n: u64, step_us: u64) -> String {
    let us = n * step_us;
    let (seconds, us) = (us / 1_000_000, us % 1_000_000);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!(
        "2026-03-10T{hours:02}:{minutes:02}:{:02}.{us:06}Z",
        seconds % 60
    )
}

fn hash(n: u64) -> String {
    format!("{n:064x}")
}

fn one_of<const N: usize>(all: [&'static str; N], n: u64) -> &'static str {
    all[usize::try_from(n).unwrap() % N]
}

fn exposure(n: u64) -> Value {
    let item = |place| json!({"item_id": format!("i{}", (n * 7 + place) % 5000), "rank": place + 1, "score": 0.5});
    let mut event = json!({
        "schema_version": "v1", "event_id": id(1, n), "timestamp": at(n, 43_200), "request_id": id(2, n),
        "tenant_id": "demo", "surface": one_of(["home", "item", "cart"], n), "segment": format!("g{}", n % 5),
        "algo_version": "a1", "config_version": "c1", "rules_version": "r1",
        "context": {"device": one_of(["phone", "desktop"], n)},
        "subject": {"user_id_hash": hash(n % 1000 + 1), "session_id_hash": hash(n % 50_000 + 1_000_000)},
        "items": (0..=n % 4).map(item).collect::<Vec<_>>(),
    });
    if n.is_multiple_of(2) {
        event["experiment"] = json!({"id": "ranking", "variant": one_of(["A", "B"], n / 2)});
    }
    event
}

fn interaction(n: u64) -> Value {
    let mut event = json!({
        "event_id": id(3, n), "occurred_at": at(n, 216_000), "request_id": id(2, n * 5), "surface": "home",
        "segment": "g1", "event_type": one_of(["view", "click", "add_to_cart", "purchase"], n),
        "item_id": format!("i{}", n % 5000), "position": n % 9 + 1, "user_id_hash": hash(n * 5 % 1000 + 1),
        "session_id_hash": hash(n * 5 % 50_000 + 1_000_000), "colour": "red",
    });
    if n % 4 == 3 {
        event["value"] = json!(u32::try_from(n % 100).map(f64::from).unwrap() + 0.25);
    }
    event
}

fn assignment(n: u64) -> Value {
    json!({
        "event_id": id(4, n), "ts": at(n, 864_000), "experiment_id": "ranking", "variant": "C",
        "request_id": id(2, n * 15), "user_id": "user", "context": {"surface": "home", "device": "tv"},
    })
}

/// Posts the events of some numbers, in bodies of 500 on four connections.
async fn post(client: &Client, path: &'static str, event: fn(u64) -> Value, numbers: Range<u64>) {
    let mut senders = JoinSet::new();
    for sender in 0..4 {
        let (client, end) = (client.clone(), numbers.end);
        let from = numbers.start + sender * 500;
        senders.spawn(async move {
            for from in (from..end).step_by(2000) {
                let events: Vec<_> = (from..end.min(from + 500)).map(event).collect();
                let sent = events.len() as u64;
                let reply = client.post(path, &json!(events)).await;
                assert_eq!(reply.settled(), (sent, 0, 0, 0), "{}", reply.text);
            }
        });
    }
    senders.join_all().await;
}

async fn a_day_is_read_as_it_was_sent(exposures: u64) {
    let (interactions, assignments) = (exposures / 5, exposures / 20);
    let rig = Rig::start(|settings| settings).await;
    let began = Instant::now();
    let (paths, half) = (
        ["/v1/assignments", "/v1/exposures", "/v1/interactions"],
        assignments / 2,
    );
    // Half of the assignments come before the exposures that they are of.
    post(&rig.client, paths[0], assignment, 0..half).await;
    post(&rig.client, paths[1], exposure, 0..exposures).await;
    post(&rig.client, paths[2], interaction, 0..interactions).await;
    post(&rig.client, paths[0], assignment, half..assignments).await;
    println!(
        "{exposures} exposures, {interactions} interactions and {assignments} assignments: stored in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    let client = rig.database.connect().await;
    let counts = [
        ("$exposures", exposures),
        ("$interactions", interactions),
        ("$assignments", assignments),
    ];
    let words = counts.iter().fold(WORDS.to_owned(), |sql, (name, count)| {
        sql.replace(name, &count.to_string())
    });
    client.batch_execute(&words).await.unwrap();
    for (relation, columns, expected) in RELATIONS {
        let expected = PARTS.iter().fold(expected.to_owned(), |sql, (name, part)| {
            sql.replace(name, part)
        });
        let read = format!("SELECT md5(({columns})::text) FROM {relation} AS t");
        let sent = format!("SELECT md5(to_jsonb(t)::text) FROM ({expected}) AS t");
        let rows: i64 = one(&client, &format!("SELECT count(*) FROM {relation}")).await;
        let sql = format!(
            "SELECT count(*) FROM (
                 SELECT FROM (SELECT hash, 1 AS n FROM ({read}) AS t (hash) UNION ALL SELECT hash, -1 FROM ({sent}) AS t (hash)) AS t
                  GROUP BY hash HAVING sum(n) <> 0) AS t"
        );
        let differ: i64 = one(&client, &sql).await;
        println!("{relation}: {rows} rows, {differ} differ");
        if differ > 0 {
            let read = format!("SELECT ({columns})::text FROM {relation} AS t");
            let sent = format!("SELECT to_jsonb(t)::text FROM ({expected}) AS t");
            let some =
                |one: &str, other: &str| format!("{one} EXCEPT ALL {other} ORDER BY 1 LIMIT 1");
            let found = texts(&client, &some(&read, &sent)).await;
            let demanded = texts(&client, &some(&sent, &read)).await;
            panic!("{relation} has {found:#?} where {demanded:#?} was sent");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_exposures_and_what_came_of_them() {
    a_day_is_read_as_it_was_sent(2000).await;
}

/// `cargo test --release --test it whole_day -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn two_million_exposures_and_what_came_of_them() {
    a_day_is_read_as_it_was_sent(2_000_000).await;
}
