//! Bodies and rows to measure with: realistic in size and shape, the same every time.

#![allow(dead_code, reason = "each benchmark uses its part of it")]

use std::fmt::Write as _;

use recsys_ingest::event::body::{Body, Framing, Limits};
use recsys_ingest::event::context::{Context, Tenants};
use recsys_ingest::event::decode::{Decoded, decode};
use recsys_ingest::event::format::Format;
use recsys_ingest::event::identity::Pseudonymizer;
use recsys_ingest::event::rejection::Code;
use recsys_ingest::event::row::rows::Rows;
use recsys_ingest::event::table::Table;
use recsys_ingest::event::time::Micros;
use uuid::Uuid;

/// 2026-05-24T10:00:00Z.
pub const NOW: Micros = Micros(1_779_616_800_000_000);
const TENANT: Uuid = Uuid::from_u128(0x7e4a_0000_0000_4000_8000_0000_0000_0001);
const SURFACES: [&str; 4] = ["home", "product_page", "cart", "search"];
const TYPES: [&str; 5] = ["impression", "view", "click", "add_to_cart", "purchase"];

/// A caller that names no tenants.
struct Nobody;

impl Tenants for Nobody {
    fn resolve(&self, _named: &str) -> Result<Uuid, Code> {
        Err(Code::TenantMismatch)
    }
}

/// The text of a body of so many events.
pub fn body(table: Table, events: usize) -> String {
    let mut text = String::from("[");
    for n in 0..events {
        if n > 0 {
            text.push(',');
        }
        match table {
            Table::Interactions => interaction(&mut text, n),
            Table::Exposures => exposure(&mut text, n),
        }
    }
    text.push(']');
    text
}

fn interaction(text: &mut String, n: usize) {
    let value = match n % 5 {
        4 => format!(r#","value":{}.99"#, n % 200),
        _ => String::new(),
    };
    write!(
        text,
        r#"{{"event_id":"{}","occurred_at":"{}","request_id":"{}","user_id":"user-{}","session_id":"session-{}","surface":"{}","segment":"default","event_type":"{}","item_id":"item-{}","position":{}{value}}}"#,
        id(1, n),
        time(n),
        id(2, n / 3),
        n % 977,
        n % 1999,
        SURFACES[n % 4],
        TYPES[n % 5],
        n * 7919 % 100_000,
        1 + n % 10,
    )
    .expect("writing to a String cannot fail");
}

fn exposure(text: &mut String, n: usize) {
    write!(
        text,
        r#"{{"event_id":"{}","occurred_at":"{}","request_id":"{}","user_id":"user-{}","session_id":"session-{}","surface":"{}","segment":"default","experiment":{{"id":"ranking-7","variant":"b"}},"algo_version":"two-tower-2026-05","config_etag":"3f1e{n:012x}","rules_etag":"9c0d{n:012x}","context":{{"locale":"de-DE","device":"mobile","country":"DE"}},"items":["#,
        id(3, n),
        time(n),
        id(2, n),
        n % 977,
        n % 1999,
        SURFACES[n % 4],
    )
    .expect("writing to a String cannot fail");
    for rank in 1..=10 {
        let comma = if rank > 1 { "," } else { "" };
        write!(
            text,
            r#"{comma}{{"item_id":"item-{}","rank":{rank},"score":0.{:03}}}"#,
            (n * 31 + rank * 7919) % 100_000,
            1000 - rank * 37,
        )
        .expect("writing to a String cannot fail");
    }
    text.push_str("]}");
}

fn id(kind: u128, n: usize) -> Uuid {
    let n = n as u128;
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &(kind << 64 | n).to_be_bytes())
}

/// In order, give or take a little, as a live stream is.
fn time(n: usize) -> String {
    format!(
        "2026-05-24T09:{:02}:{:02}.{:06}Z",
        n / 6000 % 60,
        n / 100 % 60,
        (n * 9973 + n * n % 7) % 1_000_000
    )
}

/// Splits and decodes a body, as a request does.
pub fn decode_body(text: &str, table: Table, pseudonymizer: &Pseudonymizer) -> Decoded {
    let limits = Limits {
        events_max: 10_000,
        event_bytes_max: 256 * 1024,
    };
    let body = Body::split(text.as_bytes(), Framing::Json, &limits).expect("the body is sound");
    decode(
        &body,
        &Context {
            table,
            format: Some(Format::Native),
            tenant: TENANT,
            tenants: &Nobody,
            source: "ingest",
            pseudonymizer,
            received_at: NOW,
            earliest: Micros(NOW.0 - 90 * 86_400_000_000),
            latest: Micros(NOW.0 + 86_400_000_000),
            items_max: 1000,
            new_event_id: &Uuid::now_v7,
            skew_ms: None,
        },
    )
}

/// The rows of a body of so many events.
pub fn rows(table: Table, events: usize) -> Rows {
    let decoded = decode_body(&body(table, events), table, &Pseudonymizer::new(b"salt"));
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    decoded.rows
}
