//! Recognises an event that was posted to the endpoint of another kind of event, and an envelope that is
//! none.
//!
//! Looks only at events that were rejected, and at those with fields that their format does not
//! know: an event that fits its endpoint pays nothing.

use super::body::RawEvent;
use super::format::Format;
use super::interaction::{CONVERSION, LABELS};
use super::json::{self, Field};
use super::rejection::{Code, Rejection};
use super::table::Table;

/// The rejection of an event that belongs to another endpoint than that of `table`. `None`: it may
/// be of `table`, or is of no kind that is known.
pub(super) fn rejection(
    event: &RawEvent<'_, '_>,
    table: Table,
    is_public: bool,
) -> Option<Rejection> {
    if let Some(rejection) = envelope(event) {
        return Some(rejection);
    }
    let (kind, format) = kind_of(event)?;
    if kind == table {
        return None;
    }
    let advice = match is_public {
        // A key in public hands may post interactions alone.
        true => format!("a server posts it to {}", kind.path()),
        false => format!("post it to {}", kind.path()),
    };
    Some(Rejection::whole(
        Code::UnsupportedFormat,
        format!(
            "this is {} ({format}), and {} takes {} only: {advice}",
            kind.event(),
            table.path(),
            table.events(),
        ),
    ))
}

/// The rejection of an envelope that stands where an event does: where a body is one document, the events of
/// a good one are read instead of it.
fn envelope(event: &RawEvent<'_, '_>) -> Option<Rejection> {
    // Each kind of event requires one of these, and an event may have a field of that name.
    const OF_EVENTS: [&str; 5] = [
        "event_type", "item_id", "items", "request_id", "experiment_id",
    ];
    let mut fields = event.fields.iter();
    let events = fields.find(|field| field.key == "events")?;
    let is_of_event = |field: &Field<'_>| OF_EVENTS.contains(&&*field.key) && field.raw != "null";
    if event.fields.iter().any(is_of_event) {
        return None;
    }
    Some(match events.raw.starts_with('[') {
        true => Rejection::of(
            Code::UnsupportedFormat,
            "events",
            "this is an envelope, which is a body by itself and no line or element of one: send its events without it, or the envelope alone as application/json",
        ),
        false => Rejection::of(
            Code::InvalidType,
            "events",
            "must be an array: an envelope has its events in one, even a single event",
        ),
    })
}

/// The kind and the format of an event, by fields that no event of another kind has.
fn kind_of(event: &RawEvent<'_, '_>) -> Option<(Table, Format)> {
    // A null counts as absent, as everywhere.
    let value = |name: &str| {
        let mut fields = event.fields.iter();
        let found = fields.find(|field| field.key == name && field.raw != "null");
        found.map(|field| field.raw)
    };
    let has = |name: &str| value(name).is_some();
    let has_ts = has("ts") && !has("occurred_at");
    if has_ts && has("v") && has("item_id") && !has("items") {
        return Some((Table::Exposures, Format::PipelinesV1));
    }
    if let Some(event_type) = value("event_type") {
        let is_known = |name: &str| LABELS.contains(&name) || name == CONVERSION;
        let is_known = json::string::as_str(event_type).is_some_and(|name| is_known(&name));
        // An exposure may have a field of that name, and has items.
        let is_interaction = match has("items") {
            true => is_known,
            false => is_known || has("item_id"),
        };
        let format = match has_ts && has("item_id") {
            true => Format::OutcomeV1,
            false => Format::Native,
        };
        return is_interaction.then_some((Table::Interactions, format));
    }
    if has("experiment_id") && has("variant") && !has("items") && !has("item_id") {
        return Some((Table::Assignments, Format::AssignmentV1));
    }
    if has("schema_version") && has("timestamp") {
        return Some((Table::Exposures, Format::ServiceV1));
    }
    // A list alone may be that of an interaction without its event_type.
    let is_shown = ["surface", "context", "experiment", "algo_version"];
    if has("items") && has("request_id") && !has("order") && is_shown.into_iter().any(has) {
        let format = match has_ts {
            true => Format::EvalV1,
            false => Format::Native,
        };
        return Some((Table::Exposures, format));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::event::format::Format;
    use crate::event::table::Table;
    use crate::event::testing::{NOW, decode_as};

    /// An event of each kind and format.
    fn events() -> Vec<(Table, Format, Value)> {
        use Format::{AssignmentV1, EvalV1, Native, OutcomeV1, PipelinesV1, ServiceV1};
        let (shown, done) = (Table::Exposures, Table::Interactions);
        vec![
            (
                shown,
                Native,
                json!({"event_id": "e", "occurred_at": NOW, "request_id": "r", "surface": "home",
                       "experiment": {"id": "x", "variant": "A"}, "items": [{"item_id": "a"}]}),
            ),
            (
                shown,
                Native,
                json!({"request_id": "r", "surface": "home", "items": []}),
            ),
            (
                shown,
                ServiceV1,
                json!({"schema_version": "v1", "timestamp": NOW, "request_id": "r",
                       "tenant_id": "demo", "surface": "home", "algo_version": "a"}),
            ),
            (
                shown,
                EvalV1,
                json!({"request_id": "r", "user_id": "u", "ts": NOW, "items": [],
                       "context": {"surface": "home", "experiment_id": "x", "experiment_variant": "A"}}),
            ),
            (
                shown,
                PipelinesV1,
                json!({"v": 1, "ts": NOW, "tenant": "demo", "surface": "home", "session_id": "s",
                       "item_id": "a", "rank": 1}),
            ),
            (
                done,
                Native,
                json!({"event_id": "e", "occurred_at": NOW, "event_type": "click", "item_id": "a",
                       "request_id": "r", "surface": "home"}),
            ),
            // With all that an exposure has.
            (
                done,
                Native,
                json!({"occurred_at": NOW, "event_type": "purchase", "request_id": "r",
                       "surface": "home", "items": [{"item_id": "a", "price": 2}]}),
            ),
            (
                done,
                OutcomeV1,
                json!({"request_id": "r", "user_id": "u", "item_id": "a", "event_type": "click",
                       "ts": NOW}),
            ),
            (
                Table::Assignments,
                AssignmentV1,
                json!({"experiment_id": "x", "variant": "A", "request_id": "r", "user_id": "u",
                       "ts": NOW, "context": {"surface": "home"}}),
            ),
        ]
    }

    #[test]
    fn every_format_at_every_endpoint_is_taken_or_named_with_the_endpoint_that_takes_it() {
        for (kind, format, event) in events() {
            for table in Table::ALL {
                // Recognised, and forced to be what the endpoint takes.
                let forced = Format::ALL.into_iter().filter(|format| format.fits(table));
                for as_format in [None].into_iter().chain(forced.map(Some)) {
                    let is_right = as_format.is_none_or(|one| one == format);
                    let told = decode_as(table, as_format, false, &event.to_string()).unwrap();
                    if kind == table {
                        assert!(!is_right || told.rejected.is_empty(), "{event}: {told:?}");
                        continue;
                    }
                    let code = told.rejection().map(|(code, _)| code);
                    assert_eq!(code, Some("unsupported_format"), "{event} at {table}");
                    assert!(
                        told.rows.is_empty() && told.row_index.is_empty(),
                        "{told:?}"
                    );
                    let words = &told.messages[0];
                    for expected in [kind.event(), format.as_str(), kind.path(), table.path()] {
                        assert!(words.contains(expected), "{words}: no {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_may_be_of_the_endpoint_keeps_its_own_reason() {
        for (table, event, expected) in [
            // An interaction of several items whose event_type was forgotten.
            (
                Table::Interactions,
                json!({"occurred_at": NOW, "request_id": "r", "items": [{"item_id": "a"}]}),
                "missing_field",
            ),
            (
                Table::Interactions,
                json!({"occurred_at": NOW, "event_type": "stare", "item_id": "a"}),
                "invalid_value",
            ),
            (
                Table::Exposures,
                json!({"request_id": "r", "items": [], "event_type": "carousel"}),
                "missing_field",
            ),
            (
                Table::Assignments,
                json!({"experiment_id": "x", "request_id": "r", "ts": NOW}),
                "missing_field",
            ),
            (Table::Assignments, json!({}), "missing_field"),
        ] {
            let told = decode_as(table, None, false, &event.to_string()).unwrap();
            let code = told.rejection().map(|(code, _)| code);
            assert_eq!(code, Some(expected), "{event}");
        }
        // A field that happens to be called so takes nothing from a valid event.
        let shown = json!({"request_id": "r", "surface": "home", "items": [],
                           "event_type": "carousel", "experiment_id": "x", "variant": "A"});
        let told = decode_as(Table::Exposures, None, false, &shown.to_string()).unwrap();
        assert_eq!((told.rows.len(), told.rejection()), (1, None));
    }

    #[test]
    fn an_envelope_that_is_none_is_told_why() {
        let click = json!({"event_type": "click", "item_id": "a"});
        for (body, code, word) in [
            (json!({"events": {}}), "invalid_type", "array"),
            (json!({"events": null}), "invalid_type", "array"),
            (
                json!({"sent_at": NOW, "events": "x"}),
                "invalid_type",
                "array",
            ),
            (json!({"events": click}), "invalid_type", "array"),
            (
                json!({"events": 7, "tenant": "nobody", "items": null}),
                "invalid_type",
                "array",
            ),
            (json!([{"events": [click]}]), "unsupported_format", "alone"),
        ] {
            for table in Table::ALL {
                for strict in [false, true] {
                    let told = decode_as(table, None, strict, &body.to_string()).unwrap();
                    assert_eq!(told.rejection(), Some((code, "events")), "{body}");
                    let words = &told.messages[0];
                    assert!(words.contains(word), "{words}: no {word}");
                }
            }
        }
        // An event may have a field of that name.
        for (event_type, rejection) in [
            ("click", None),
            ("stare", Some(("invalid_value", "event_type"))),
        ] {
            let event = json!({"event_type": event_type, "item_id": "a", "events": 7});
            let told = decode_as(Table::Interactions, None, false, &event.to_string()).unwrap();
            assert_eq!(told.rejection(), rejection, "{event}");
        }
    }

    #[test]
    fn a_misdirected_event_takes_nothing_from_those_around_it() {
        let click = json!({"event_type": "click", "item_id": "a"});
        let shown = json!({"request_id": "r", "surface": "home", "items": []});
        let bought = json!({"request_id": "r", "surface": "home", "items": [{"item_id": "a"}],
                            "event_type": "purchase"});
        let body = json!([shown, bought, click, shown]).to_string();
        let told = decode_as(Table::Exposures, None, false, &body).unwrap();
        assert_eq!(told.row_index, [(0, 0), (1, 3)]);
        assert_eq!(told.rejected.len(), 2);
        assert!(told.warnings.is_empty(), "{told:?}");
    }
}
