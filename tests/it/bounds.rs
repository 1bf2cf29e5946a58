//! Promise: time, memory and the size of the answer are bounded by the bytes of the body, and
//! each event still gets its result.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use recsys_ingest::event::body::framing::Framing;
use recsys_ingest::event::body::{Body, Limits};
use recsys_ingest::event::context::{Context, Tenants};
use recsys_ingest::event::decode::decode;
use recsys_ingest::event::identity::Pseudonymizer;
use recsys_ingest::event::rejection::Code;
use recsys_ingest::event::table::Table;
use recsys_ingest::event::time::Micros;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Reply, Service, click};

const INTERACTIONS: &str = "/v1/interactions";

struct Nobody;

impl Tenants for Nobody {
    fn resolve(&self, _named: &str) -> Result<Uuid, Code> {
        Err(Code::UnknownTenant)
    }
}

/// The shortest of five runs of decoding a body.
fn time_to_decode(table: Table, body: &str) -> Duration {
    let pseudonymizer = Pseudonymizer::new(b"salt");
    let at = Micros::parse("2026-03-10T08:00:00Z").unwrap();
    let context = Context {
        table,
        format: None,
        tenant: Uuid::from_u128(1),
        tenants: &Nobody,
        source: "ingest",
        is_public: false,
        pseudonymizer: &pseudonymizer,
        received_at: at,
        earliest: at,
        latest: at,
        items_max: 1000,
        strict: false,
        new_event_id: &Uuid::nil,
        skew_ms: None,
    };
    let limits = Limits {
        events_max: 1000,
        event_bytes_max: 256 << 10,
    };
    let once = || {
        let started = Instant::now();
        let split = Body::split(body.as_bytes(), Framing::Json, &limits).unwrap();
        let decoded = decode(&split, &context);
        assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected[0]);
        started.elapsed()
    };
    (0..5).map(|_| once()).min().unwrap()
}

/// `inner` inside `depth` nested objects or arrays.
fn nested(depth: usize, open: &str, close: &str, inner: &str) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn decoding_takes_as_long_as_the_bytes_say_however_deep_they_nest() {
    let text = format!(r#"{{"t":"{}","user_id":"ada"}}"#, "_".repeat(100_000));
    for (open, close) in [("{\"a\":", "}"), ("[", "]"), ("[{\"_\":0,\"a\":", "}]")] {
        let depth = if open.len() > 6 { 28 } else { 58 };
        for (table, before, after) in [
            (Table::Interactions, r#""meta":{"a":"#, "}"),
            (Table::Interactions, r#""unknown":"#, ""),
            (Table::Exposures, r#""context":{"a":"#, "}"),
            (Table::Exposures, r#""request":{"a":"#, "}"),
            (Table::Exposures, r#""items":[{"item_id":"b","a":"#, "}]"),
        ] {
            let event = |depth| {
                let deep = nested(depth, open, close, &text);
                let items = match before.contains("items") || table == Table::Interactions {
                    true => "",
                    false => r#","items":[]"#,
                };
                let kind = match table {
                    Table::Exposures => "",
                    _ => r#""item_id":"a","event_type":"click","#,
                };
                format!(
                    r#"{{"occurred_at":"2026-03-10T08:00:00Z",{kind}"request_id":"r","surface":"s",{before}{deep}{after}{items}}}"#
                )
            };
            let body = |depth| format!("[{},{}]", event(depth), event(depth));
            let flat = time_to_decode(table, &body(1));
            let deep = time_to_decode(table, &body(depth));
            assert!(
                deep < flat * 5 + Duration::from_millis(5),
                "{before}{open}: {flat:?} flat, {deep:?} {depth} deep"
            );
        }
    }
}

/// The indexes in the `events` field of a summary, such as "3,7-9".
fn indexes(events: &str) -> Vec<u64> {
    let part = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        from.parse().unwrap()..=to.parse::<u64>().unwrap()
    };
    events.split(',').flat_map(part).collect()
}

/// All results of one kind in an answer, listed or summarised: index and code.
fn verdicts(reply: &Reply, kind: &str) -> BTreeMap<u64, String> {
    let mut all = BTreeMap::new();
    let none = Vec::new();
    let list = |name: &str| reply.json[name].as_array().unwrap_or(&none).clone();
    for one in list(kind) {
        let index = one["index"].as_u64().unwrap();
        let code = one["code"].as_str().unwrap().to_owned();
        assert_eq!(all.insert(index, code), None, "{index} twice");
    }
    for more in list(&format!("{kind}_more")) {
        let indexes = indexes(more["events"].as_str().unwrap());
        assert_eq!(more["count"].as_u64().unwrap(), indexes.len() as u64);
        for index in indexes {
            let code = more["code"].as_str().unwrap().to_owned();
            assert_eq!(all.insert(index, code), None, "{index} twice");
        }
    }
    all
}

fn assert_bounded(reply: &Reply, bytes: usize) {
    let (out, most) = (reply.text.len(), 3 * bytes + 4096);
    assert!(out <= most, "{out} bytes answer {bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_bounded_by_its_body_and_tells_the_verdict_of_every_event() {
    let service = Service::start().await;
    let good = r#"{"event_type":"click","item_id":"a"}"#;
    let long_id = format!(r#"{{"event_id":"{}"}}"#, "\\u0001".repeat(200));
    let long_name = format!(r#"{{"{}":"\u0000"}}"#, "\\u0001".repeat(64));
    let deep = format!(
        r#"{{"user_id_hash":"x","event_type":"{}"}}"#,
        "y".repeat(50)
    );
    // Events that repeat in turn, each with its expected code.
    let cases: [&[(&str, &str)]; 6] = [
        &[("0", "not_an_object")],
        &[("0", "not_an_object"), ("{}", "missing_field")],
        &[("{}", "missing_field"), ("0", "not_an_object"), (good, "")],
        &[(&long_id, "missing_field")],
        &[(&long_name, "invalid_unicode"), (&deep, "invalid_value")],
        &[(good, ""), (good, ""), (good, ""), ("1", "not_an_object")],
    ];
    for (at, case) in cases.into_iter().enumerate() {
        for count in [1, 3, 101, 3000] {
            let events: Vec<_> = case.iter().cycle().take(count).collect();
            let texts: Vec<_> = events.iter().map(|(text, _)| *text).collect();
            let body = format!("[{}]", texts.join(","));
            let client = service.client().query("ack=durable");
            let reply = client.post_bytes(INTERACTIONS, body.as_str()).await;
            assert_bounded(&reply, body.len());
            let expected: BTreeMap<u64, String> = (0..)
                .zip(&events)
                .filter(|(_, (_, code))| !code.is_empty())
                .map(|(index, (_, code))| (index, (*code).to_owned()))
                .collect();
            let accepted = events.len() - expected.len();
            assert_eq!(
                reply.json["accepted"], accepted,
                "{at} {count}: {}",
                reply.text
            );
            assert_eq!(reply.status, if accepted > 0 { 202 } else { 422 });
            assert_eq!(verdicts(&reply, "rejected"), expected, "{at} {count}");
            // The first results carry a message.
            if let Some(first) = reply.json["rejected"].get(0) {
                assert!(!first["message"].as_str().unwrap().is_empty());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_two_bytes_are_answered_within_the_bound_too() {
    let service = Service::start().await;
    let body = "x\n0\n".repeat(5000);
    let client = service
        .client()
        .header("content-type", "application/x-ndjson");
    let reply = client.post_bytes(INTERACTIONS, body.as_str()).await;
    assert_eq!(reply.problem(), (422, "all_events_rejected"));
    assert_bounded(&reply, body.len());
    let verdicts = verdicts(&reply, "rejected");
    assert_eq!(verdicts.len(), 10_000);
    assert_eq!(verdicts[&9998], "invalid_json");
    assert_eq!(verdicts[&9999], "not_an_object");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_quarantine_are_answered_within_the_bound_and_in_order() {
    // A busy machine takes a while to isolate 200 bad rows.
    let service = Service::with(|s| s.with("--commit-timeout", "60s")).await;
    service
        .database
        .execute("ALTER TABLE interaction_events ADD CHECK (position IS DISTINCT FROM 9)")
        .await;
    let event = |n: u64| {
        let mut event = click(&format!("e{n:03}"));
        event["position"] = json!(if n % 2 == 1 { 9 } else { 1 });
        event
    };
    let events: Vec<Value> = (0..400).rev().map(event).collect();
    let body = json!(events).to_string();
    let reply = service
        .client()
        .post_bytes(INTERACTIONS, body.as_str())
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_bounded(&reply, body.len());
    assert_eq!(reply.json["committed"], 200);
    let verdicts = verdicts(&reply, "quarantined");
    let expected: Vec<u64> = (0..400).step_by(2).collect();
    assert_eq!(Vec::from_iter(verdicts.keys().copied()), expected);
    assert!(verdicts.values().all(|code| code == "23514"));
    assert!(reply.json["quarantined"].as_array().unwrap().len() <= 100);
}

/// An event with a row of about six times its bytes: each raw id becomes a hash.
fn growing(id: usize, ids: usize) -> String {
    let mut text =
        format!(r#"{{"event_id":"g{id}","event_type":"click","item_id":"a","meta":{{"l":["#);
    for n in 0..ids {
        let comma = if n > 0 { "," } else { "" };
        write!(text, r#"{comma}{{"user_id":"a"}}"#).unwrap();
    }
    text.push_str("]}}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_outgrow_a_record_are_413_with_the_number_of_events_that_fit() {
    let service = Service::with(|s| s.with("--body-bytes-max", "256KiB")).await;
    let client = service.client();
    // Rows of four times the body limit still fit into a record.
    let body: Vec<_> = (0..100).map(|n| growing(n, 100)).collect();
    let text = format!("[{}]", body.join(","));
    let reply = client.post_bytes(INTERACTIONS, text).await;
    assert_eq!(reply.settled(), (100, 0, 0, 0));

    let body: Vec<_> = (0..140).map(|n| growing(1000 + n, 100)).collect();
    let text = format!("[{}]", body.join(","));
    assert!(text.len() < 256 << 10);
    let reply = client.post_bytes(INTERACTIONS, text).await;
    assert_eq!(reply.problem(), (413, "body_too_large"), "{}", reply.text);
    assert_eq!(reply.header("retry-after"), "");
    let fit = usize::try_from(reply.json["events_that_fit"].as_u64().unwrap()).unwrap();
    assert!((100..140).contains(&fit), "{fit}");
    assert!(
        reply.json["detail"]
            .as_str()
            .unwrap()
            .contains(&fit.to_string())
    );
    let text = format!("[{}]", body[..=fit].join(","));
    let reply = client.post_bytes(INTERACTIONS, text).await;
    assert_eq!(reply.status, 413);
    let text = format!("[{}]", body[..fit].join(","));
    let reply = client.post_bytes(INTERACTIONS, text).await;
    assert_eq!(reply.settled(), (fit as u64, 0, 0, 0));
    let text = format!("[{}]", body[fit..].join(","));
    let reply = client.post_bytes(INTERACTIONS, text).await;
    assert_eq!(reply.settled(), (140 - fit as u64, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_very_many_fields_is_rejected_alone() {
    let service = Service::start().await;
    let fields: Vec<_> = (0..40_000).map(|_| r#""":1"#).collect();
    let many = format!("{{{}}}", fields.join(","));
    let body = format!("[{},{many},{}]", click("a"), click("b"));
    let reply = service.client().post_bytes(INTERACTIONS, body).await;
    assert_eq!(reply.settled(), (2, 0, 0, 1));
    assert_eq!(reply.rejection(), ("too_many_fields", ""));
    // Many fields do not make a body too large: the status is 422, not 413.
    let body = format!("[{},{}]", many, "1".repeat(5));
    let reply = service.client().post_bytes(INTERACTIONS, body).await;
    assert_eq!(reply.status, 422, "{}", reply.text);
    service.memory_is_free().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decoding_takes_its_memory_from_the_budget() {
    let service = Service::with(|s| {
        s.with("--queue-bytes-max", "3MiB")
            .with("--body-bytes-max", "2MiB")
    })
    .await;
    // Decoding almost 1 MiB of short fields needs many times that memory: refused before it
    // starts.
    let event = format!("{{{}}}", vec![r#""a":1"#; 900].join(","));
    let body = format!("[{}]", vec![event.as_str(); 180].join(","));
    assert!(body.len() < 1 << 20);
    let reply = service.client().post_bytes(INTERACTIONS, body).await;
    assert_eq!(reply.problem(), (413, "body_too_large"), "{}", reply.text);
    service.memory_is_free().await;
    assert_eq!(
        service.interactions(&click("a")).await.settled(),
        (1, 0, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_do_not_keep_small_ones_waiting() {
    let service = Service::start().await;
    let event = format!(
        r#"{{"event_type":"click","item_id":"a","meta":{{"a":"{}"}}}}"#,
        "\\u00e9".repeat(30_000)
    );
    let large = format!("[{}]", vec![event.as_str(); 32].join(","));
    let mut posts = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (client, large) = (service.client().query("ack=durable"), large.clone());
        posts.spawn(async move { client.post_bytes(INTERACTIONS, large).await });
    }
    while !posts.is_empty() {
        let started = Instant::now();
        assert_eq!(service.client().get("/healthz").await.status, 200);
        assert!(started.elapsed() < Duration::from_secs(5));
        while let Some(reply) = posts.try_join_next() {
            assert_eq!(reply.unwrap().status, 202);
        }
    }
}
