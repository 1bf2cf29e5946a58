//! Ids, and the times that they tell.

use serde_json::json;

use crate::event::table::Table;
use crate::event::testing::{NOW, decode};

/// An id, and the time of its event if there is no `occurred_at`.
#[test]
fn an_id_tells_the_time_only_as_a_v7_within_the_horizon() {
    const V7: &str = "2026-05-20T12:00:00Z";
    for (id, at, is_told) in [
        // 2026-05-20T12:00:00Z is 0x019e4541_ca00 ms.
        ("019e4541-ca00-7000-8000-000000000001", V7, true),
        ("019E4541-CA00-7FFF-BFFF-FFFFFFFFFFFF", V7, true),
        ("019e4541ca007000a000000000000001", V7, true),
        ("urn:uuid:019e4541-ca00-7000-9000-000000000001", V7, true),
        ("{019e4541-ca00-7000-8000-000000000001}", V7, true),
        // The version is another, or the variant.
        ("019e4541-ca00-4000-8000-000000000001", NOW, false),
        ("019e4541-ca00-8000-8000-000000000001", NOW, false),
        ("019e4541-ca00-7000-0000-000000000001", NOW, false),
        ("019e4541-ca00-7000-7000-000000000001", NOW, false),
        ("019e4541-ca00-7000-c000-000000000001", NOW, false),
        ("019e4541-ca00-7000-e000-000000000001", NOW, false),
        // Times before and after the horizon: 1970, 2025, 2026-05-25T10:00:00.001Z and 10889.
        ("00000000-0000-7000-8000-000000000001", NOW, false),
        ("01942c09-6200-7000-8000-000000000001", NOW, false),
        ("019e5e93-b901-7000-8000-000000000001", NOW, false),
        ("ffffffff-ffff-7fff-bfff-ffffffffffff", NOW, false),
        // The end of the horizon.
        (
            "019e5e93-b900-7000-8000-000000000001",
            "2026-05-25T10:00:00Z",
            true,
        ),
        ("00000000-0000-0000-0000-000000000000", NOW, false),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", NOW, false),
        ("order-7", NOW, false),
        ("019e4541-ca00-7000-8000-00000000000", NOW, false),
    ] {
        for table in Table::OF_SUITE {
            let event = json!({
                "event_id": id, "event_type": "click", "item_id": "a", "request_id": "r",
                "surface": "home", "items": []
            });
            let mut event = event;
            if table == Table::Interactions {
                drop(event.as_object_mut().unwrap().remove("items"));
                drop(event.as_object_mut().unwrap().remove("request_id"));
            } else {
                drop(event.as_object_mut().unwrap().remove("event_type"));
                drop(event.as_object_mut().unwrap().remove("item_id"));
            }
            let told = decode(table, &event.to_string());
            assert_eq!(told.rejected, [], "{id}");
            assert_eq!(told.rows[0]["occurred_at"], at, "{id}");
            let warned = [("arrival_time_used", "occurred_at")];
            assert_eq!(told.warned(), &warned[usize::from(is_told)..], "{id}");
            // The sender's time is taken, with any id.
            event["occurred_at"] = json!("2026-05-01T00:00:00Z");
            let told = decode(table, &event.to_string());
            assert_eq!(told.rows[0]["occurred_at"], "2026-05-01T00:00:00Z", "{id}");
            assert_eq!(told.warned(), [], "{id}");
        }
    }
}

#[test]
fn an_event_without_id_and_time_is_no_cause_for_a_warning() {
    let told = decode(
        Table::Interactions,
        r#"{"event_type":"click","item_id":"a","event_id":null,"occurred_at":null}"#,
    );
    assert_eq!(told.rows[0]["occurred_at"], NOW);
    assert_eq!(told.warned(), []);
}

#[test]
fn times_and_values_that_lose_digits_are_told() {
    let table = Table::Interactions;
    for (event, warned) in [
        (
            json!({"occurred_at": "2026-05-24T10:00:00.123456Z", "value": 1.25}),
            vec![],
        ),
        (
            json!({"occurred_at": "2026-05-24T10:00:00.1234567Z", "value": 0.000_000_1}),
            vec![
                ("time_truncated", "occurred_at"),
                ("value_rounded", "value"),
            ],
        ),
        (
            json!({"meta": {"skew_ms": 7, "a": 1}}),
            vec![("moved_field", "meta.skew_ms")],
        ),
        // `price` has a meaning only beside `items`.
        (json!({"meta": {"price": 7}}), vec![]),
    ] {
        let mut event = event;
        event["event_type"] = json!("click");
        event["item_id"] = json!("a");
        let told = decode(table, &event.to_string());
        assert_eq!(told.warned(), warned, "{event}");
    }
}
