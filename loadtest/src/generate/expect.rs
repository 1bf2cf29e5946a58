//! The row that an event must become, column by column.
//!
//! Written from the contract, and on purpose without the service's decoder and encoder.

use serde_json::{Value, json};
use uuid::Uuid;

use super::event::{Event, Id};
use crate::service::{Format, Pseudonymizer, Table};

/// What ids are hashed with, where it is known.
pub type Salt = Option<Pseudonymizer>;

/// The columns of a valid event's row, as `to_jsonb` shows them; `items` are those of
/// `response`. A hash that takes a salt that is not known is left out.
pub fn expected_row(event: &Event, salt: &Salt) -> Vec<(&'static str, Value)> {
    let member = |name: &str| event.members[name].clone();
    let or = |value: Value, other: &str| match value {
        Value::Null => other.into(),
        value => value,
    };
    let request = event.request.as_deref();
    let mut columns = vec![
        ("request_id", json!(request.map(request_uuid))),
        ("surface", member("surface")),
    ];
    if event.format == Format::Native {
        columns.push(("event_id", json!(event.event_id)));
    }
    let user = pseudonym(event.user.as_ref(), salt);
    columns.extend(user.map(|user| ("user_key", json!(user.map(|hash| format!("\\x{hash}"))))));
    let session = pseudonym(event.session.as_ref(), salt).map(|session| json!(session));
    match event.table {
        Table::Exposures => {
            let config = member("config_version");
            let etag = config.as_str();
            let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
            // The suite's jobs need a session: each request without one stands alone.
            let alone = request.unwrap_or_default();
            columns.extend(session.map(|session| ("session_id", or(session, alone))));
            columns.extend([
                ("segment", or(member("segment"), "default")),
                ("experiment_id", event.members["experiment"]["id"].clone()),
                (
                    "experiment_variant",
                    event.members["experiment"]["variant"].clone(),
                ),
                ("algo_version", or(member("algo_version"), "unknown")),
                ("config_etag", json!(etag)),
                ("rules_etag", member("rules_version")),
                ("items", member("items")),
            ]);
        }
        Table::Interactions => {
            columns.extend(session.map(|session| ("session_id", session)));
            // The nearest double to a value is that of the column's decimal.
            let same = ["segment", "event_type", "item_id", "position", "value"];
            columns.extend(same.map(|name| (name, member(name))));
        }
        Table::Assignments => unreachable!("assignments are not loaded"),
    }
    columns
}

/// The hash of an id in hex, or NULL; `None` if it takes a salt that is not known.
#[expect(clippy::option_option, reason = "a hash that is not known is not NULL")]
fn pseudonym(id: Option<&Id>, salt: &Salt) -> Option<Option<String>> {
    match id {
        None => Some(None),
        Some(Id::Hash(hash)) => Some(Some(hex::encode(hash))),
        Some(Id::Raw(raw)) => Some(salt.as_ref()?.hash(raw).map(hex::encode)),
    }
}

/// A request's id as the column holds it.
pub fn request_uuid(request: &str) -> Uuid {
    Uuid::try_parse(request)
        .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, request.as_bytes()))
}
