//! What values fields may have: lengths and ranges of events, codes and states of answers.

use std::collections::BTreeSet;

use recsys_ingest::event::warning::WarningCode;
use recsys_ingest::http::description;
use serde_json::{Value, json};

use super::{EVENTS, texts};
use crate::harness::Service;

/// Whether a property may have values of a type.
fn is(property: &Value, kind: &str) -> bool {
    match &property["type"] {
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        one => one == kind,
    }
}

#[tokio::test]
async fn the_lengths_and_ranges_of_the_document_are_those_of_the_decoder() {
    let service = Service::start().await;
    let client = service.client().query("validate=true");
    let document = description();
    let schemas = &document["components"]["schemas"];
    let interaction = json!({"event_type": "click", "item_id": "a"});
    let order =
        json!({"event_type": "purchase", "items": [{"item_id": "a"}], "order": {"id": "o"}});
    let exposure = json!({"request_id": "r", "surface": "home", "items": [{"item_id": "a"}], "experiment": {}});
    let assignment = json!({"experiment_id": "e", "variant": "A", "request_id": "r"});
    for (endpoint, schema, event, place) in [
        (EVENTS[0], "Exposure", &exposure, ""),
        (EVENTS[0], "ShownItem", &exposure, "/items/0"),
        (EVENTS[0], "Experiment", &exposure, "/experiment"),
        (EVENTS[1], "Interaction", &interaction, ""),
        (EVENTS[1], "InteractionItem", &order, "/items/0"),
        (EVENTS[1], "Order", &order, "/order"),
        (EVENTS[2], "Assignment", &assignment, ""),
    ] {
        // The code of the event with this value in the field; none if it is taken.
        let code = async |name: &str, value: Value| {
            let mut event = event.clone();
            event.pointer_mut(place).unwrap()[name] = value;
            let reply = client.post(endpoint, &event).await;
            assert_eq!(reply.status, 200, "{schema}.{name}: {}", reply.text);
            let code = reply.json["rejected"][0]["code"].as_str();
            code.unwrap_or_default().to_owned()
        };
        for (name, property) in schemas[schema]["properties"].as_object().unwrap() {
            if is(property, "string") && property.get("enum").is_none() {
                let max = property["maxLength"].as_u64();
                let most = usize::try_from(max.unwrap_or(10_000)).unwrap();
                let found = code(name, json!("a".repeat(most))).await;
                assert_ne!(found, "too_long", "{schema}.{name}: {property}");
                let found = code(name, json!("a".repeat(most + 1))).await;
                assert_eq!(
                    found == "too_long",
                    max.is_some(),
                    "{schema}.{name}: {property}"
                );
            }
            if is(property, "number") {
                let max = property["exclusiveMaximum"].as_f64();
                for out in [max.unwrap_or(1e12), -max.unwrap_or(1e12)] {
                    let found = code(name, json!(out)).await;
                    let is_out = found == "number_out_of_range";
                    assert_eq!(is_out, max.is_some(), "{schema}.{name}: {found}");
                }
                assert_eq!(
                    code(name, json!(999_999_999_999.0)).await,
                    "",
                    "{schema}.{name}"
                );
            }
        }
    }
}

#[test]
fn every_code_of_an_answer_is_listed_or_has_a_pattern() {
    let document = description();
    let schemas = &document["components"]["schemas"];
    let mut listed = 0;
    for (name, schema) in schemas.as_object().unwrap() {
        let Some(properties) = schema["properties"].as_object() else {
            continue;
        };
        assert_eq!(schema["type"], "object", "{name} is there and is described");
        for (property, value) in properties {
            if value.get("enum").is_some() {
                let is_text = is(value, "string") && !is(value, "null");
                assert!(is_text, "{name}.{property} lists no null: {value}");
            }
            let is_closed = ["enum", "pattern", "anyOf"]
                .iter()
                .any(|word| value.get(word).is_some());
            // Findings are told in words as well, and each version has more.
            if property == "code" && name != "FindingBody" {
                assert!(is_closed, "{name}.{property}: {value}");
                listed += 1;
            }
        }
    }
    assert!(listed >= 11, "{listed}");
    let warnings: BTreeSet<_> = WarningCode::ALL
        .iter()
        .map(|code| code.as_str().to_owned())
        .collect();
    for schema in ["Warning", "MoreWarnings"] {
        let told = &schemas[schema]["properties"]["code"]["enum"];
        assert_eq!(texts(told), warnings, "{schema}");
    }
    // Sums over rejected events list those codes, and sums over quarantine have Postgres's pattern.
    for answer in ["Answer", "ProblemBody"] {
        let sums = &schemas[answer]["properties"]["rejected_more"]["items"]["$ref"];
        assert_eq!(sums, "#/components/schemas/MoreRejected", "{answer}");
    }
    let sums = &schemas["Answer"]["properties"]["quarantined_more"]["items"]["$ref"];
    assert_eq!(sums, "#/components/schemas/More");
    let pattern = &schemas["More"]["properties"]["code"]["pattern"];
    assert_eq!(pattern, "^[0-9A-Z]{5}$");
}
