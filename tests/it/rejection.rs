//! Promise: a bad event is rejected alone, with its reason.

use std::collections::HashSet;

use recsys_ingest::event::rejection::Code;
use recsys_ingest::event::table::Table;
use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};

use crate::harness::{DEMO, Database, Service, assigned, click, shown};

/// A bad event: its code, its table, its text, and the field that the answer names.
type Example = (Code, Table, Vec<u8>, &'static str);

/// `event` with some fields changed.
fn changed(mut event: Value, changes: Value) -> Vec<u8> {
    for (name, value) in changes.as_object().unwrap() {
        event[name] = value.clone();
    }
    event.to_string().into_bytes()
}

/// The text of `event` with `more` before its closing brace.
fn spliced(event: &Value, more: &str) -> Vec<u8> {
    let text = event.to_string();
    format!("{},{more}}}", text.strip_suffix('}').unwrap()).into_bytes()
}

fn examples() -> Vec<Example> {
    use Table::{Exposures, Interactions};
    let c = || click("bad");
    let items: Vec<_> = (0..1001)
        .map(|n| json!({"item_id": n.to_string()}))
        .collect();
    let hash = "0".repeat(64);
    let many: Vec<_> = (0..1024).map(|n| format!("\"x{n}\":0")).collect();
    let deep = format!("\"meta\":{}{}", "[".repeat(64), "]".repeat(64));
    let interaction = |code, changes, field| (code, Interactions, changed(c(), changes), field);
    let exposure = |code, changes, field| (code, Exposures, changed(shown("bad"), changes), field);
    vec![
        (Code::InvalidJson, Interactions, b"{\"a\":".to_vec(), ""),
        (Code::InvalidJson, Interactions, b"{} {}".to_vec(), ""),
        (Code::InvalidJson, Interactions, b"nul".to_vec(), ""),
        (
            Code::InvalidUtf8,
            Interactions,
            b"{\"a\":\"\xff\"}".to_vec(),
            "",
        ),
        (Code::NotAnObject, Interactions, b"7".to_vec(), ""),
        (Code::NotAnObject, Exposures, b"[]".to_vec(), ""),
        interaction(Code::EventTooLarge, json!({"x": "x".repeat(70_000)}), ""),
        (
            Code::TooManyFields,
            Interactions,
            spliced(&c(), &many.join(",")),
            "",
        ),
        (Code::TooDeep, Interactions, spliced(&c(), &deep), "meta"),
        (
            Code::InvalidUnicode,
            Interactions,
            spliced(&c(), r#""segment":"a\u0000b""#),
            "segment",
        ),
        (
            Code::InvalidUnicode,
            Interactions,
            spliced(&c(), r#""meta":{"deep":["\ud83d"]}"#),
            "meta",
        ),
        (
            Code::NumberOutOfRange,
            Interactions,
            spliced(&c(), r#""meta":{"n":1e401}"#),
            "meta",
        ),
        interaction(
            Code::NumberOutOfRange,
            json!({"position": 2_147_483_648_i64}),
            "position",
        ),
        interaction(Code::NumberOutOfRange, json!({"position": -1}), "position"),
        interaction(
            Code::NumberOutOfRange,
            json!({"value": 1_000_000_000_000_i64}),
            "value",
        ),
        exposure(
            Code::NumberOutOfRange,
            json!({"items": [{"item_id": "a", "rank": 0}]}),
            "items[0].rank",
        ),
        interaction(Code::MissingField, json!({"item_id": null}), "item_id"),
        interaction(Code::MissingField, json!({"item_id": " \t"}), "item_id"),
        interaction(
            Code::MissingField,
            json!({"event_type": null}),
            "event_type",
        ),
        exposure(Code::MissingField, json!({"request_id": ""}), "request_id"),
        exposure(Code::MissingField, json!({"surface": null}), "surface"),
        exposure(Code::MissingField, json!({"items": null}), "items"),
        exposure(
            Code::MissingField,
            json!({"items": [{"item_id": "a"}, {}]}),
            "items[1].item_id",
        ),
        exposure(
            Code::DuplicateField,
            json!({"items": [{"item_id": "a", "Rank": "x", "rank": 1}]}),
            "items[0].Rank",
        ),
        interaction(Code::InvalidType, json!({"item_id": 7}), "item_id"),
        interaction(Code::InvalidType, json!({"position": 1.5}), "position"),
        interaction(Code::InvalidType, json!({"value": "1.5"}), "value"),
        interaction(Code::InvalidType, json!({"meta": []}), "meta"),
        interaction(Code::InvalidType, json!({"event_id": 7}), "event_id"),
        exposure(Code::InvalidType, json!({"items": {}}), "items"),
        exposure(Code::InvalidType, json!({"items": ["a"]}), "items[0]"),
        exposure(Code::InvalidType, json!({"context": "x"}), "context"),
        exposure(Code::InvalidType, json!({"experiment": "x"}), "experiment"),
        exposure(Code::InvalidType, json!({"request": []}), "request"),
        interaction(
            Code::InvalidValue,
            json!({"event_type": "dance"}),
            "event_type",
        ),
        interaction(
            Code::InvalidValue,
            json!({"event_type": "Click"}),
            "event_type",
        ),
        interaction(Code::InvalidValue, json!({"surface": "a/b"}), "surface"),
        interaction(Code::InvalidValue, json!({"segment": ".."}), "segment"),
        interaction(
            Code::InvalidValue,
            json!({"user_id_hash": "abcd"}),
            "user_id_hash",
        ),
        interaction(
            Code::TooLong,
            json!({"item_id": "x".repeat(513)}),
            "item_id",
        ),
        interaction(
            Code::TooLong,
            json!({"event_id": "x".repeat(201)}),
            "event_id",
        ),
        exposure(
            Code::TooLong,
            json!({"algo_version": "é".repeat(257)}),
            "algo_version",
        ),
        (
            Code::DuplicateField,
            Interactions,
            spliced(&c(), r#""item_\u0069d":"b""#),
            "item_id",
        ),
        interaction(
            Code::ConflictingFields,
            json!({"user_id": "u", "user_id_hash": hash}),
            "user_id",
        ),
        interaction(
            Code::InvalidTimestamp,
            json!({"occurred_at": "2026-03-10T08:00:00"}),
            "occurred_at",
        ),
        interaction(
            Code::InvalidTimestamp,
            json!({"occurred_at": "1770000000"}),
            "occurred_at",
        ),
        interaction(
            Code::OccurredAtOutOfRange,
            json!({"occurred_at": "1900-01-01T00:00:00Z"}),
            "occurred_at",
        ),
        interaction(
            Code::OccurredAtOutOfRange,
            json!({"occurred_at": "9000-01-01T00:00:00Z"}),
            "occurred_at",
        ),
        interaction(
            Code::FieldNotAllowed,
            json!({"user_id_hash": hash}),
            "user_id_hash",
        ),
        exposure(Code::TooManyItems, json!({"items": items}), "items"),
        interaction(
            Code::TooManyItems,
            json!({"item_id": null, "items": items}),
            "items",
        ),
        interaction(Code::UnknownField, json!({"typo": 1}), "typo"),
        exposure(Code::UnknownField, json!({"typo": null}), "typo"),
        interaction(
            Code::InvalidValue,
            json!({"item_id": null, "items": []}),
            "items",
        ),
        interaction(
            Code::ConflictingFields,
            json!({"items": [{"item_id": "a"}]}),
            "item_id",
        ),
        (
            Code::MissingTenant,
            Interactions,
            json!({"ts": "2026-03-10T08:00:00Z", "item_id": "a", "event_type": "click"})
                .to_string()
                .into(),
            "tenant_id",
        ),
        interaction(
            Code::UnknownTenant,
            json!({"tenant_id": "nobody"}),
            "tenant_id",
        ),
        exposure(
            Code::TenantNotActive,
            json!({"tenant_id": "asleep"}),
            "tenant_id",
        ),
        interaction(Code::TenantMismatch, json!({"tenant": "other"}), "tenant"),
        interaction(Code::UnknownSurface, json!({"surface": "cart"}), "surface"),
        (
            Code::UnsupportedFormat,
            Exposures,
            json!({"schema_version": "v2", "timestamp": "2026-03-10T08:00:00Z"})
                .to_string()
                .into(),
            "schema_version",
        ),
    ]
}

#[tokio::test]
async fn every_code_is_reached_by_an_event_that_harms_no_other() {
    let database = Database::with_tenants().await;
    database
        .execute(&format!(
            "INSERT INTO ingest_tenant_settings VALUES ('{DEMO}', '{{\"surfaces\": [\"home\"]}}')"
        ))
        .await;
    let service = Service::on(&database, |s| s.with("--event-bytes-max", "64KiB")).await;
    let lines = service
        .client()
        .header("content-type", "application/x-ndjson");
    let mut reached = HashSet::new();
    for (n, (code, table, bad, field)) in examples().into_iter().enumerate() {
        let (path, good): (_, fn(&str) -> Value) = match table {
            Table::Exposures => ("/v1/exposures", shown),
            Table::Interactions => ("/v1/interactions", click),
            Table::Assignments => ("/v1/assignments", assigned),
        };
        let good = |side: &str| good(&format!("{side} {n}")).to_string().into_bytes();
        let body = [good("before"), bad.clone(), good("after")].join(&b'\n');
        // Only a key that may name a tenant can name a wrong one; a publish key may do least.
        let role = match code {
            Code::MissingTenant | Code::UnknownTenant | Code::TenantNotActive => Role::Service,
            Code::FieldNotAllowed => Role::Publish,
            _ => Role::Ingest,
        };
        let mut client = lines.role("demo", role);
        if code == Code::UnknownField {
            client = client.query("strict=true");
        }
        let reply = client.post_bytes(path, body).await;
        let what = String::from_utf8_lossy(&bad[..bad.len().min(200)]).into_owned();
        assert_eq!(reply.settled(), (2, 0, 0, 1), "{what}: {}", reply.text);
        assert_eq!(reply.rejection(), (code.as_str(), field), "{what}");
        let rejected = &reply.json["rejected"][0];
        assert_eq!(rejected["index"], 1);
        assert!(!rejected["message"].as_str().unwrap().is_empty());
        reached.insert(code);
    }
    for code in Code::ALL {
        assert!(reached.contains(&code), "{code:?} has no example");
        let table = |table: Table| {
            format!(
                "recsys_ingest_rejections_total{{table=\"{table}\",reason=\"{}\"}}",
                code.as_str()
            )
        };
        let mut counted = 0.0;
        for one in Table::ALL {
            counted += service.metric(&table(one)).await;
        }
        assert!(counted >= 1.0, "{code:?} is not counted");
    }
}

#[tokio::test]
async fn a_rejected_events_values_are_not_repeated_in_the_answer() {
    let service = Service::start().await;
    let secret = "person@example.org";
    for changes in [
        json!({"user_id": secret, "user_id_hash": secret}),
        json!({"user_id": [secret]}),
        json!({"item_id": {"a": secret}}),
        json!({"surface": format!("{secret}/")}),
        json!({"occurred_at": secret}),
        json!({"event_type": secret}),
        json!({"tenant_id": secret}),
        json!({"session_id_hash": secret}),
    ] {
        let bad = changed(click("bad"), changes);
        let reply = service.client().post_bytes("/v1/interactions", bad).await;
        assert_eq!(reply.status, 422, "{}", reply.text);
        assert!(!reply.text.contains(secret), "{}", reply.text);
    }
}
