//! Events of each format, up to their rows.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::Value;
use uuid::Uuid;

use super::input::{choice, seeds, text};
use crate::event::body::framing::Framing;
use crate::event::body::{Body, Limits, Unlimited};
use crate::event::context::{Context, Tenants};
use crate::event::decode::{DecodeError, Decoded, RowLimits, decode_within};
use crate::event::format::Format;
use crate::event::formats::segment::rules::{Call, Rules, Type};
use crate::event::formats::segment::{Messages, write_key};
use crate::event::identity::Pseudonymizer;
use crate::event::rejection::Code;
use crate::event::row::rows::Rows;
use crate::event::row::{Key, received_at};
use crate::event::row_json::row_to_json;
use crate::event::table::Table;
use crate::event::time::Micros;

const DEMO: Uuid = Uuid::from_u128(0x11111111_1111_4111_8111_111111111111);
const OTHER: Uuid = Uuid::from_u128(0x22222222_2222_4222_8222_222222222222);
/// 2026-05-24T10:00:00Z.
const NOW: Micros = Micros(1_779_616_800_000_000);
const DAY_US: i64 = 86_400_000_000;
const ROWS_MAX: usize = 100;

struct Two;

impl Tenants for Two {
    fn resolve(&self, named: &str) -> Result<Uuid, Code> {
        let known = [(DEMO, "demo"), (OTHER, "other")];
        let is_meant = |id: Uuid, name| name == named || Uuid::try_parse(named) == Ok(id);
        let found = known.into_iter().find(|(id, name)| is_meant(*id, *name));
        found.map(|(id, _)| id).ok_or(Code::UnknownTenant)
    }
}

const NATIVE: [&str; 6] = [
    r#"[{"event_id":"e1","occurred_at":"2026-05-24T10:00:00Z","event_type":"click","item_id":"a","user_id":"ada","session_id":"s","position":3,"value":1.5,"surface":"home","request_id":"r1","meta":{"user_id":"ada","a":[1]}}]"#,
    r#"{"event_type":"purchase","item_id":"a","order":{"id":"o","value":2,"currency":"EUR"},"user_id_hash":"48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782"}"#,
    r#"{"event_id":"0190163d-8694-739b-aea5-966c26f8ad91","occurred_at":"2026-05-24T10:00:00Z","request_id":"r1","surface":"home","items":[{"item_id":"a","rank":1,"score":0.5}],"experiment":{"id":"x","variant":"A"},"context":{"locale":"en"},"anonymous_id":"n"}"#,
    r#"{"event_type":"click","item_id":"a","tenant_id":"other","unknown":{"session_id":"raw"}}"#,
    r#"{"request_id":"r1","surface":"s","items":[],"response":{"items":[]},"request":{"x":1}}"#,
    r#"[{"event_type":null,"item_id":""},{},7]"#,
];

pub(super) fn native_seeds() -> Vec<Vec<u8>> {
    seeds(&[0, 1, 2, 3, 4, 5, 6, 7], &NATIVE)
}

/// Native events: bit 0 is the table, bit 1 strictness, bit 2 a key in public hands.
pub(super) fn native(data: &[u8]) {
    let (bits, body) = choice(data);
    let table = Table::ALL[usize::from(bits & 1)];
    check(table, Some(Format::Native), bits, text(body));
}

const MESSAGES: [&str; 4] = [
    r#"{"writeKey":"k","batch":[{"type":"track","event":"Product List Viewed","messageId":"m","timestamp":"2026-05-24T10:00:00Z","userId":7,"properties":{"list_id":"a/b","products":[{"product_id":"a","position":"1","score":0.5},{"sku":3}]}},{"type":"identify","traits":{}},7]}"#,
    r#"{"batch":[{"event":"Order Completed","originalTimestamp":"2026-05-24T10:00:00Z","anonymousId":"n","context":{"sessionId":1},"properties":{"order_id":1,"revenue":"3.5","currency":"EUR","products":[{"product_id":"a","price":"1e2","quantity":2}]}}]}"#,
    r#"{"event":"Product Clicked","properties":{"product_id":"a","position":0,"value":"1.5","category":"é","query_id":4}}"#,
    r#"{"type":"track","event":"Product Added","properties":[]}"#,
];

pub(super) fn message_seeds() -> Vec<Vec<u8>> {
    seeds(&[0, 2, 4, 6, 8, 16], &MESSAGES)
}

/// Messages of Segment's shape: bit 3 is the route, bit 2 a key in public hands, bit 4 one of any tenant. Each
/// message has one verdict, and what is made of it is taken or refused as any native event.
pub(super) fn messages(data: &[u8]) {
    let (bits, body) = choice(data);
    drop(write_key(body));
    let names = BTreeMap::from([("Seen".to_owned(), "impression".to_owned())]);
    let rules = Rules {
        is_public: bits & 4 > 0,
        is_tenant_a_guess: bits & 16 > 0,
        event_names: &names,
        messages_max: 50,
    };
    let call = match bits & 8 {
        0 => Call::Batch,
        _ => Call::One(Type::Track),
    };
    let Ok(read) = Messages::read(body, call, rules) else {
        return;
    };
    let not_collected: usize = read.not_collected.iter().map(|(_, count)| count).sum();
    let rejected = read.rejected.len() + read.rejected_more.len();
    let mut events = 0;
    for (table, made) in [
        (Table::Exposures, &read.exposures),
        (Table::Interactions, &read.interactions),
    ] {
        if made.is_empty() {
            continue;
        }
        let limits = Limits {
            events_max: 50,
            event_bytes_max: usize::MAX,
        };
        let body = Body::split(made.json.as_bytes(), Framing::Json, &limits);
        events += body.expect("it is written here").len();
        check(table, Some(Format::Native), bits & !2, &made.json);
    }
    assert_eq!(events + not_collected + rejected, read.len());
}

const SUITE: [&str; 7] = [
    r#"{"schema_version":"v1","timestamp":"2026-05-24T10:00:00Z","request_id":"req-1","tenant_id":"demo","surface":"home","segment":"vip","algo_version":"a","config_version":"W/\"x\"","experiment":{"id":"e","variant":"A"},"subject":{"user_id_hash":"48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782"},"context":{"locale":"en"},"items":[{"item_id":"a","rank":1}]}"#,
    r#"{"request_id":"r","user_id":"ada","ts":"2026-05-24T10:00:00Z","items":[{"item_id":"a","rank":1,"propensity":0.5}],"context":{"tenant_id":"demo","surface":"home"},"latency_ms":12.5,"error":false}"#,
    r#"[{"v":1,"ts":"2026-05-24T10:00:00Z","tenant":"demo","surface":"home","session_id":"s","request_id":"r","item_id":"a","rank":1},{"v":1,"ts":"2026-05-24T10:00:00Z","tenant":"demo","surface":"home","session_id":"s","request_id":"r","item_id":"b","rank":2}]"#,
    r#"{"request_id":"r","user_id":"ada","item_id":"a","event_type":"click","ts":"2026-05-24T10:00:00Z","value":2,"context":{"tenant_id":"demo"}}"#,
    r#"{"ts":"2026-05-24T10:00:00Z"}"#,
    r#"{"v":1,"ts":1779616800}"#,
    r#"{"timestamp":"2026-05-24T10:00:00Z","schema_version":"v1","subject":{"anonymous_id_hash":"x"}}"#,
];

pub(super) fn suite_seeds() -> Vec<Vec<u8>> {
    seeds(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], &SUITE)
}

/// Events of the suite's other components, named or recognised.
pub(super) fn suite(data: &[u8]) {
    let (bits, body) = choice(data);
    let (table, format) = match bits % 6 {
        0 => (Table::Exposures, Some(Format::ServiceV1)),
        1 => (Table::Exposures, Some(Format::EvalV1)),
        2 => (Table::Exposures, Some(Format::PipelinesV1)),
        3 => (Table::Interactions, Some(Format::OutcomeV1)),
        4 => (Table::Exposures, None),
        _ => (Table::Interactions, None),
    };
    check(table, format, bits / 6 * 2, text(body));
}

const ITEMS: [&str; 5] = [
    r#"[{"item_id":"a","position":1,"quantity":2,"price":1.25},{"item_id":"b","value":7}]"#,
    r#"[{"item_id":"a"}]"#,
    r#"[]"#,
    r#"[{"item_id":"a","quantity":0.1,"price":1e300,"other":{"user_id":"ada"}},{"item_id":"a"}]"#,
    r#"{"item_id":"a"}"#,
];

pub(super) fn items_seeds() -> Vec<Vec<u8>> {
    seeds(&[0, 1, 2, 3], &ITEMS)
}

/// Items of an interaction: one event, all or nothing.
pub(super) fn items(data: &[u8]) {
    let (bits, items) = choice(data);
    let order = if bits & 1 == 0 {
        ""
    } else {
        r#","order":{"id":"o","value":3}"#
    };
    let body = format!(
        r#"{{"event_id":"e","event_type":"purchase","items":{}{order}}}"#,
        text(items)
    );
    check(Table::Interactions, Some(Format::Native), bits & 2, &body);
}

fn decoded(
    table: Table,
    format: Option<Format>,
    bits: u8,
    body: &Body<'_>,
) -> Result<Decoded, DecodeError> {
    let context = Context {
        table,
        format,
        tenant: DEMO,
        tenants: &Two,
        source: "ingest",
        is_public: bits & 4 != 0,
        pseudonymizer: &Pseudonymizer::new(b"salt"),
        received_at: NOW,
        earliest: Micros(NOW.0 - 90 * DAY_US),
        latest: Micros(NOW.0 + DAY_US),
        items_max: 20,
        strict: bits & 2 != 0,
        new_event_id: &|| Uuid::from_u128(7),
        skew_ms: Some(5),
    };
    let limits = RowLimits {
        bytes_max: 64 << 10,
        rows_max: ROWS_MAX,
        memory: &Unlimited,
    };
    decode_within(body, &context, limits)
}

/// Each event has one verdict, and each row is one that Postgres takes.
fn check(table: Table, format: Option<Format>, bits: u8, text: &str) {
    let limits = Limits {
        events_max: 50,
        event_bytes_max: 8 << 10,
    };
    let Ok(body) = Body::split(text.as_bytes(), Framing::Json, &limits) else {
        return;
    };
    let Ok(found) = decoded(table, format, bits, &body) else {
        return;
    };
    let rejected = found.rejected.len() + found.rejected_more.len();
    assert_eq!(found.accepted + rejected, body.len());
    assert!(found.rows.len() <= ROWS_MAX);
    let again = decoded(table, format, bits, &body).expect("it was decoded before");
    assert_eq!(
        again.rows.framed(),
        found.rows.framed(),
        "the same body, the same rows"
    );
    let bytes = found.rows.framed().len();
    assert!(
        bytes <= 12 * text.len() + 1000 * found.rows.len() + 2,
        "{bytes} bytes of rows"
    );
    let parsed = Rows::parse(found.rows.framed().clone()).expect("rows are rows");
    assert_eq!(parsed.len(), found.rows.len());
    for row in parsed.iter() {
        row_keeps_its_contract(table, row);
    }
    for (row, event) in &found.row_index {
        let (row, event) = (usize::try_from(*row), usize::try_from(*event));
        assert!(row.is_ok_and(|row| row < found.rows.len()));
        assert!(event.is_ok_and(|event| event < body.len()));
    }
    for one in &found.rejected {
        assert!(!one.rejection.message.is_empty() && one.rejection.message.len() < 1000);
    }
}

fn row_keeps_its_contract(table: Table, row: &[u8]) {
    let key = Key::of_row(row).expect("a row begins with its key");
    assert!([DEMO, OTHER].contains(&key.tenant));
    assert!((NOW.0 - 90 * DAY_US..=NOW.0 + DAY_US).contains(&key.occurred_at.0));
    assert_eq!(received_at(row), Some(NOW));
    let json = row_to_json(table, row).expect("a row of this table");
    let Ok(json) = serde_json::from_str::<Value>(&json) else {
        // `jsonb` has numbers beyond those of a double, which are all that this parser has.
        serde_json::from_str::<IgnoredAny>(&json).expect("columns are JSON");
        return;
    };
    let is_hash = |value: &str| value.len() == 2 + 64 && value.starts_with("\\x");
    assert!(json["user_key"].as_str().is_none_or(is_hash), "{json}");
    let objects: &[&str] = match table {
        Table::Exposures => &["request", "response", "meta"],
        Table::Interactions => &["meta"],
        Table::Assignments => &["context", "meta"],
    };
    for name in objects {
        assert!(
            json[name].is_object() || json[name].is_null(),
            "{name}: {json}"
        );
    }
    let required: &[&str] = match table {
        Table::Exposures => &["request_id", "surface", "session_id", "request", "response"],
        Table::Interactions => &["event_type", "item_id"],
        Table::Assignments => &["request_id", "experiment_id", "variant"],
    };
    for name in required {
        assert!(!json[name].is_null() && json[name] != "", "{name}: {json}");
    }
    assert!(!has_nul(&json), "{json}");
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}
