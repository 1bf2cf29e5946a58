//! Promise: what PostgreSQL holds is what was sent, to the last character and digit.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRng, TestRunner};
use recsys_ingest::event::Pseudonymizer;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{DEMO, Row, SALT, Service, one, rows};

const EVENTS: usize = 3000;
const BODY: usize = 500;

/// The same sequence in every run.
fn runner() -> TestRunner {
    let config = Config::default();
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    TestRunner::new_with_rng(config, rng)
}

fn generated<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let mut runner = runner();
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

/// Strings of everything that is not NUL: control characters, quotes, backslashes,
/// COPY's own markers, combining and astral characters, byte order marks.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        any::<char>().prop_map(String::from),
        "[\u{1}-\u{1f}\u{7f}]{1,3}",
        Just("\\N".to_owned()),
        Just("\\.".to_owned()),
        Just("\\u0000".to_owned()),
        Just("\"\\\"".to_owned()),
        Just("'; DROP TABLE tenants; --".to_owned()),
        Just("\u{FEFF}\u{202E}\u{0301}".to_owned()),
        Just("\u{10FFFF}\u{FFFD}\u{FFFF}\u{E000}".to_owned()),
        Just(" \u{2028}\u{85}\u{A0} ".to_owned()),
        "[a-z]{1,12}",
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| {
        let text: String = pieces.concat().replace('\0', "");
        let mut end = text.len().min(120);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].to_owned()
    })
}

/// A string that is not blank, since blank ones count as absent.
fn filled() -> impl Strategy<Value = String> {
    hostile().prop_filter("blank", |text| !text.trim().is_empty())
}

/// A string that may become part of a path.
fn path_safe() -> impl Strategy<Value = String> {
    filled().prop_map(|text| {
        let bad = |c: char| matches!(c, '/' | '\\') || c.is_control();
        let text = text.replace(bad, "-");
        if text == "." || text == ".." {
            "dot".to_owned()
        } else {
            text
        }
    })
}

/// Any JSON that can be stored, as PostgreSQL's own parser is asked to read it.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        proptest::num::f64::NORMAL.prop_map(Value::from),
        hostile().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::hash_map(hostile(), inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
    // Raw ids are hashed, which is another promise's test.
    .prop_filter("names ids", |value| !value.to_string().contains("_id"))
}

/// JSON text with some characters written as escapes, as senders may.
fn spelled(value: &Value, seed: u64) -> String {
    let mut out = String::new();
    let mut state = seed | 1;
    for c in value.to_string().chars() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // Outside of ASCII characters only stand inside of strings.
        if !c.is_ascii() && state >> 62 == 0 {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04X}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Posts events in large bodies, spelled in odd ways.
async fn post_all(service: &Service, path: &str, events: &[Value]) {
    for (n, portion) in events.chunks(BODY).enumerate() {
        let body: Vec<String> = portion
            .iter()
            .zip(0..)
            .map(|(event, seed): (_, u64)| spelled(event, seed + n as u64))
            .collect();
        let body = format!("[{}]", body.join(","));
        let reply = service.client().post_bytes(path, body).await;
        let rejected = &reply.json["rejected"];
        assert_eq!(
            reply.settled(),
            (portion.len() as u64, 0, 0, 0),
            "{rejected} {}",
            rejected[0]["index"]
                .as_u64()
                .map_or(Value::Null, |at| portion[usize::try_from(at).unwrap()]
                    .clone())
        );
    }
}

async fn rows_by_id(service: &Service, table: &str) -> HashMap<String, Row> {
    let all = rows(&service.database, table).await;
    all.into_iter()
        .map(|row| (row["event_id"].as_str().unwrap().to_owned(), row))
        .collect()
}

fn time(us: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(us).unwrap()
}

/// As PostgreSQL shows it.
fn shown_time(at: jiff::Timestamp) -> String {
    at.to_string().replace('T', " ").replace('Z', "+00")
}

fn hashed(raw: Option<&String>) -> Option<String> {
    let hash = Pseudonymizer::new(SALT.as_bytes()).hash(raw?)?;
    Some(hex::encode(hash))
}

fn stored_request(named: &str) -> String {
    Uuid::try_parse(named)
        .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, named.as_bytes()))
        .to_string()
}

/// The days of a month: many partitions in each batch.
fn occurred() -> impl Strategy<Value = i64> {
    1_767_225_600_000_000..1_769_904_000_000_000_i64
}

#[derive(Clone, Debug)]
struct Interaction {
    at: i64,
    item: String,
    request: Option<String>,
    user: Option<String>,
    session: Option<String>,
    surface: Option<String>,
    segment: Option<String>,
    position: Option<i32>,
    micros: Option<i64>,
    note: Value,
}

fn interactions() -> impl Strategy<Value = Interaction> {
    use proptest::option::of;
    let position = prop_oneof![Just(0), Just(i32::MAX), 0..=i32::MAX];
    let limit = 1_000_000_000_000_000_000_i64;
    let micros = prop_oneof![
        -limit + 1..limit,
        -1_000_000..1_000_000_i64,
        Just(limit - 1),
        Just(1 - limit),
        (0..12_u32).prop_map(|n| 10_i64.pow(n)),
    ];
    (
        (
            occurred(),
            filled(),
            of(filled()),
            of(hostile()),
            of(hostile()),
        ),
        (
            of(path_safe()),
            of(path_safe()),
            of(position),
            of(micros),
            any_json(),
        ),
    )
        .prop_map(
            |((at, item, request, user, session), (surface, segment, position, micros, note))| {
                Interaction {
                    at,
                    item,
                    request,
                    user,
                    session,
                    surface,
                    segment,
                    position,
                    micros,
                    note,
                }
            },
        )
}

/// Millionths as a decimal, without a float.
fn decimal(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, rest) = (
        micros.unsigned_abs() / 1_000_000,
        micros.unsigned_abs() % 1_000_000,
    );
    format!("{sign}{whole}.{rest:06}")
}

#[tokio::test]
async fn hostile_interactions_read_back_as_they_were_sent() {
    let service = Service::start().await;
    let sent = generated(interactions(), EVENTS);
    let id = |n: usize| Uuid::from_u128(n as u128 + 1).to_string();
    let events: Vec<Value> = sent
        .iter()
        .enumerate()
        .map(|(n, e)| {
            let mut event = json!({
                "event_id": id(n), "occurred_at": time(e.at).to_string(), "event_type": "view",
                "item_id": e.item, "request_id": e.request, "user_id": e.user,
                "session_id": e.session, "surface": e.surface, "segment": e.segment,
                "position": e.position, "meta": {"note": e.note}
            });
            // serde_json's numbers are floats; ours go into the text below.
            if e.micros.is_some() {
                event["value"] = json!(format!("@{n}@"));
            }
            event
        })
        .collect();
    // Numbers as text, so that no float stands between.
    for (n, portion) in events.chunks(BODY).enumerate() {
        let texts: Vec<String> = portion
            .iter()
            .zip(&sent[n * BODY..])
            .zip(n * BODY..)
            .map(|((event, e), at)| {
                let text = spelled(event, at as u64);
                match e.micros {
                    Some(micros) => text.replace(&format!("\"@{at}@\""), &decimal(micros)),
                    None => text,
                }
            })
            .collect();
        let body = format!("[{}]", texts.join(","));
        let reply = service.client().post_bytes("/v1/interactions", body).await;
        assert_eq!(
            reply.settled(),
            (portion.len() as u64, 0, 0, 0),
            "{}",
            reply.text
        );
    }

    let found = rows_by_id(&service, "interaction_events").await;
    assert_eq!(found.len(), EVENTS);
    for (n, e) in sent.iter().enumerate() {
        let row = &found[&id(n)];
        let user = hashed(e.user.as_ref()).map(|hash| format!("\\x{hash}"));
        let mut meta = row["meta"].clone();
        let note = meta["note"].take();
        assert_eq!(
            json!(row),
            json!({
                "tenant_id": DEMO, "event_id": id(n), "occurred_at": shown_time(time(e.at)),
                "request_id": e.request.as_deref().map(stored_request), "user_key": user,
                "session_id": hashed(e.session.as_ref()), "surface": e.surface,
                "segment": e.segment, "event_type": "view", "item_id": e.item,
                "position": e.position.map(|p| p.to_string()), "value": e.micros.map(decimal),
                "meta": row["meta"]
            }),
        );
        assert_eq!(strings(&note), strings(&e.note));
        let raw = e
            .request
            .as_ref()
            .filter(|named| Uuid::try_parse(named).is_err());
        assert_eq!(meta["request_id"].as_str(), raw.map(String::as_str));
    }
    let notes = sent.iter().map(|e| e.note.to_string());
    assert_json_equal(
        &service,
        "interaction_events",
        "meta->'note'",
        notes.collect(),
    )
    .await;
}

/// Every string and name in a JSON value, in order.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| [vec![name.clone()], strings(value)].concat())
            .collect(),
        _ => Vec::new(),
    }
}

/// Compares jsonb with what PostgreSQL itself makes of the text that was sent,
/// event by event: numbers too are equal to their last digit.
async fn assert_json_equal(service: &Service, table: &str, column: &str, texts: Vec<String>) {
    let ids: Vec<Uuid> = (0..texts.len())
        .map(|n| Uuid::from_u128(n as u128 + 1))
        .collect();
    let sql = format!(
        "SELECT count(*) FROM {table} t
           JOIN unnest($1::uuid[], $2::text[]) AS sent (id, text) ON t.event_id = sent.id
          WHERE {column} = sent.text::jsonb"
    );
    let client = service.database.connect().await;
    let equal: i64 = client
        .query_one(&sql, &[&ids, &texts])
        .await
        .unwrap()
        .get(0);
    assert_eq!(equal, texts.len() as i64, "{column}");
}

#[tokio::test]
async fn hostile_exposures_read_back_as_they_were_sent() {
    use proptest::option::of;
    let service = Service::start().await;
    let strategy = (
        (
            occurred(),
            filled(),
            path_safe(),
            of(path_safe()),
            of(hostile()),
        ),
        (of(filled()), of(filled()), of(filled()), of(filled())),
        (
            any_json(),
            any_json(),
            proptest::collection::vec((filled(), any_json()), 0..4),
        ),
    );
    let sent = generated(strategy, EVENTS / 3);
    let id = |n: usize| Uuid::from_u128(n as u128 + 1).to_string();
    let lists: Vec<Value> = sent
        .iter()
        .map(|(.., (_, _, items))| {
            let items = items.iter().zip(1..);
            items
                .map(|((item, more), rank)| json!({"item_id": item, "rank": rank, "more": more}))
                .collect()
        })
        .collect();
    let events: Vec<Value> = sent
        .iter()
        .zip(&lists)
        .enumerate()
        .map(|(n, ((one, two, (context, extra, _)), items))| {
            let (at, request, surface, segment, session) = one;
            let (experiment, variant, algo, config) = two;
            json!({
                "event_id": id(n), "occurred_at": time(*at).to_string(), "request_id": request,
                "surface": surface, "segment": segment, "anonymous_id": session,
                "experiment": {"id": experiment, "variant": variant}, "algo_version": algo,
                "rules_version": config, "context": {"c": context}, "items": items, "odd": extra
            })
        })
        .collect();
    post_all(&service, "/v1/exposures", &events).await;

    let found = rows_by_id(&service, "exposure_events").await;
    assert_eq!(found.len(), events.len());
    for (n, (one, two, _)) in sent.iter().enumerate() {
        let (at, request, surface, segment, session) = one;
        let (experiment, variant, algo, config) = two;
        let row = &found[&id(n)];
        let bare = config
            .as_ref()
            .map(|etag| etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"'));
        assert_eq!(
            json!(row),
            json!({
                "tenant_id": DEMO, "event_id": id(n), "occurred_at": shown_time(time(*at)),
                "request_id": stored_request(request), "surface": surface,
                "segment": segment.as_deref().unwrap_or("default"),
                "user_key": hashed(session.as_ref()).map(|hash| format!("\\x{hash}")),
                "session_id": request, "experiment_id": experiment, "experiment_variant": variant,
                "algo_version": algo.as_deref().unwrap_or("unknown"), "config_etag": null,
                "rules_etag": bare, "request": row["request"], "response": row["response"],
                "meta": row["meta"]
            }),
        );
    }
    let table = "exposure_events";
    let items = lists.iter().map(Value::to_string).collect();
    assert_json_equal(&service, table, "response->'items'", items).await;
    let contexts = sent.iter().map(|(.., (context, ..))| context.to_string());
    assert_json_equal(
        &service,
        table,
        "request->'context'->'c'",
        contexts.collect(),
    )
    .await;
    let odd = sent.iter().map(|(.., (_, extra, _))| extra);
    // A field that is null is a field that is not there.
    let odd = odd.map(|value| {
        if value.is_null() {
            "null".to_owned()
        } else {
            value.to_string()
        }
    });
    let column = "coalesce(meta->'extra'->'odd', 'null')";
    assert_json_equal(&service, table, column, odd.collect()).await;
}

#[tokio::test]
async fn the_text_of_a_number_is_rounded_as_postgres_rounds_it() {
    let service = Service::start().await;
    let mut numbers: Vec<String> = [
        "0",
        "-0",
        "0.0",
        "-0.0000004",
        "1e-7",
        "5e-7",
        "-5e-7",
        "4.9999999999999999e-7",
        "0.1",
        "12.3456785",
        "-12.3456785",
        "12.34567849999999",
        "999999999999.999999",
        "999999999999.9999994",
        "-999999999999.999999",
        "1e11",
        "1E11",
        "123e-2",
        "1.5E+3",
        "0.000000000000000000000000000001e30",
        "0e400",
        "1e-400",
        "900719925474.0993",
        "0.30000000000000004",
        "100000000000.0000005",
        "1.0000000000000000000000000000000001",
    ]
    .map(String::from)
    .to_vec();
    let random = (
        any::<bool>(),
        0..=999_999_999_u64,
        proptest::option::of("[0-9]{1,20}"),
        -14..=2_i32,
    )
        .prop_map(|(negative, whole, fraction, exponent)| {
            let sign = if negative { "-" } else { "" };
            let fraction = fraction
                .map(|digits| format!(".{digits}"))
                .unwrap_or_default();
            let exponent = if exponent == 2 {
                String::new()
            } else {
                format!("e{exponent}")
            };
            format!("{sign}{whole}{fraction}{exponent}")
        });
    numbers.extend(generated(random, 2000));
    let events: Vec<String> = numbers
        .iter()
        .enumerate()
        .map(|(n, number)| {
            let id = Uuid::from_u128(n as u128 + 1);
            format!(
                r#"{{"event_id":"{id}","occurred_at":"2026-03-10T08:00:00Z","event_type":"view","item_id":"{number}","value":{number}}}"#
            )
        })
        .collect();
    let body = format!("[{}]", events.join(","));
    let reply = service.client().post_bytes("/v1/interactions", body).await;
    assert_eq!(reply.settled().0, numbers.len() as u64, "{}", reply.text);
    let client = service.database.connect().await;
    let sql = "SELECT item_id || ' became ' || value FROM interaction_events
                WHERE value::text IS DISTINCT FROM (item_id::numeric(18,6))::text";
    assert_eq!(
        crate::harness::texts(&client, sql).await,
        Vec::<String>::new()
    );
    let all: i64 = one(&client, "SELECT count(*) FROM interaction_events").await;
    assert_eq!(all, numbers.len() as i64);
}
