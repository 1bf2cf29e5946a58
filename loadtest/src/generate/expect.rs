//! The row that an event must become, column by column.
//!
//! Written from the contract, and on purpose without the service's decoder and encoder.

use serde_json::{Value, json};
use uuid::Uuid;

use super::event::{Event, Id, Item};
use super::names;
use crate::service::{Format, Pseudonymizer, Table};

/// What ids are hashed with, where it is known.
pub type Salt = Option<Pseudonymizer>;

/// The columns of a valid event's row, as `to_jsonb` shows them; `items` are those of
/// `response`. A hash that takes a salt that is not known is left out.
pub fn expected_row(event: &Event, salt: &Salt) -> Vec<(&'static str, Value)> {
    let request = event.request.as_deref();
    let mut columns = vec![
        ("request_id", json!(request.map(request_uuid))),
        ("surface", json!(event.surface)),
    ];
    if event.format == Format::Native {
        columns.push(("event_id", json!(event.event_id)));
    }
    let user = pseudonym(event.user.as_ref(), salt);
    columns.extend(user.map(|user| ("user_key", json!(user.map(|hash| format!("\\x{hash}"))))));
    let session = pseudonym(event.session.as_ref(), salt);
    match event.table {
        Table::Exposures => {
            let version = |word: &str| event.version.map(|version| format!("{word}-{version}"));
            let (experiment, variant) = event.experiment.unzip();
            // The suite's jobs need a session: each request without one stands alone.
            let session = session.map(|session| json!(session.as_deref().or(request)));
            columns.extend(session.map(|session| ("session_id", session)));
            columns.extend([
                ("segment", json!(event.segment.unwrap_or("default"))),
                (
                    "experiment_id",
                    json!(experiment.map(|id| format!("exp-{id}"))),
                ),
                ("experiment_variant", json!(variant)),
                (
                    "algo_version",
                    json!(version("algo").unwrap_or("unknown".to_owned())),
                ),
                ("config_etag", json!(version("cfg"))),
                ("rules_etag", json!(version("rules"))),
                ("items", items(event)),
            ]);
        }
        Table::Interactions => {
            columns.extend(session.map(|session| ("session_id", json!(session))));
            columns.extend([
                ("segment", json!(event.segment)),
                ("event_type", json!(event.event_type)),
                ("item_id", json!(names::item(event.item))),
                ("position", json!(event.position)),
                // The nearest double is that of the column's decimal.
                (
                    "value",
                    json!(event.value.map(|value| crate::report::float(value) / 1e6)),
                ),
            ]);
        }
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

fn items(event: &Event) -> Value {
    let first = u32::from(event.format != Format::PipelinesV1);
    let item = |(rank, shown): (u32, &Item)| {
        let mut item = json!({"item_id": names::item(shown.item), "rank": rank});
        if !matches!(event.format, Format::PipelinesV1 | Format::EvalV1) {
            item["score"] = (f64::from(shown.score) / 1000.0).into();
        }
        item
    };
    (first..).zip(&event.items).map(item).collect()
}

/// A request's id as the column holds it.
pub fn request_uuid(request: &str) -> Uuid {
    Uuid::try_parse(request)
        .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, request.as_bytes()))
}
