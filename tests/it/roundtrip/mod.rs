//! Promise: PostgreSQL holds what was sent, to the last character and digit.

mod exposures;
mod interactions;
mod numbers;

use std::collections::HashMap;

use proptest::prelude::*;
use recsys_ingest::event::identity::Pseudonymizer;
use serde_json::Value;
use uuid::Uuid;

use crate::harness::{Row, SALT, Service, rows};

const EVENTS: usize = 3000;
const BODY: usize = 500;

/// Strings of all characters except NUL: control characters, quotes, backslashes, COPY's markers,
/// combining and astral characters, byte order marks.
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

/// A string that is not blank: blank ones count as absent.
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

/// Any JSON that can be stored; PostgreSQL's own parser decides what it means.
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
    // Raw ids are hashed: `privacy` tests that.
    .prop_filter("names ids", |value| !value.to_string().contains("_id"))
}

/// JSON text with some characters as escapes, which senders may use.
fn spelled(value: &Value, seed: u64) -> String {
    let mut out = String::new();
    let mut state = seed | 1;
    for c in value.to_string().chars() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // Non-ASCII characters occur only inside strings, where an escape is valid.
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

/// Posts events in large bodies, with random escapes.
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

/// The text that PostgreSQL shows for a timestamptz.
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

/// The days of one month: each batch needs many partitions.
fn occurred() -> impl Strategy<Value = i64> {
    1_767_225_600_000_000..1_769_904_000_000_000_i64
}

/// Compares jsonb with PostgreSQL's own parse of the text that was sent, event by event: numbers
/// are equal to the last digit.
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
