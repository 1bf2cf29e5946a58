//! Valid events for tests to modify.

use serde_json::{Value, json};
use uuid::Uuid;

/// An interaction.
pub fn click(id: &str) -> Value {
    json!({
        "event_id": id, "occurred_at": "2026-03-10T08:00:00Z", "event_type": "click", "item_id": "a"
    })
}

/// An exposure.
pub fn shown(id: &str) -> Value {
    json!({
        "event_id": id, "occurred_at": "2026-03-10T08:00:00Z", "request_id": "r1",
        "surface": "home", "items": [{"item_id": "a", "rank": 1}]
    })
}

/// A valid assignment with an id.
pub fn assigned(id: &str) -> Value {
    json!({"event_id": id, "ts": "2026-03-10T08:00:00Z", "experiment_id": "ranking", "variant": "B",
           "request_id": "r1", "user_id": "u1"})
}

/// The `event_id` of an event with this name in this tenant.
pub fn uuid_of(tenant: &str, name: &str) -> String {
    Uuid::new_v5(&tenant.parse().unwrap(), name.as_bytes()).to_string()
}
