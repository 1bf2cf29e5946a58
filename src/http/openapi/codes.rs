//! The codes and states in answers, as lists. Works on the document as JSON.

use serde_json::{Value, json};

use super::operations::{reached, reference};
use crate::accounts::status::Health;
use crate::event::rejection::Code;
use crate::event::table::Table;
use crate::event::warning::WarningCode;
use crate::finding::Severity;
use crate::http::codes::{PROBLEM_KINDS, ProblemKind};
use crate::http::ingest::waiting::{COMMIT_TIMEOUT, NO_RESULT};

/// The codes of quarantine: those of Postgres (SQLSTATE), and this service's own.
const QUARANTINE_CODE: &str = "^[0-9A-Z]{5}$";

/// What `/readyz` says.
const READINESS: [&str; 3] = ["ready", "degraded", "unready"];

/// Lists what the codes of answers may be, where that is known; Postgres's own have a pattern.
pub(super) fn complete(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    let rejections: &[&str] = &Code::ALL.map(Code::as_str);
    let warnings: &[&str] = &WarningCode::ALL.map(WarningCode::as_str);
    let tables: &[&str] = &Table::ALL.map(Table::as_str);
    let problems: &[&str] = &codes_where(|_| true);
    let refusals: &[&str] = &codes_where(|kind| matches!(kind.status, 429 | 503));
    let acks: &[&str] = &reached();
    let ack_reasons: &[&str] = &[COMMIT_TIMEOUT, NO_RESULT];
    let severities: &[&str] =
        &[Severity::Fault, Severity::Degraded, Severity::Note].map(Severity::as_str);
    let healths: &[&str] = &[
        Health::Good,
        Health::SettingAside,
        Health::Away,
        Health::Undecided,
        Health::Fault,
    ]
    .map(Health::as_str);
    let readiness: &[&str] = &READINESS;
    // Sums over rejected events, and over events in quarantine, have one shape and codes of two kinds.
    schemas["MoreRejected"] = schemas["More"].clone();
    for answer in ["Answer", "ProblemBody"] {
        schemas[answer]["properties"]["rejected_more"]["items"] = reference("MoreRejected");
    }
    for (schema, property, values) in [
        ("Answer", "ack", acks),
        ("Answer", "ack_reason", ack_reasons),
        ("RejectedEvent", "code", rejections),
        ("MoreRejected", "code", rejections),
        ("Rejections", "code", rejections),
        ("Warning", "code", warnings),
        ("MoreWarnings", "code", warnings),
        ("ProblemBody", "code", problems),
        ("Verdict", "code", problems),
        ("Verdict", "ack", acks),
        ("Refusals", "code", refusals),
        ("FindingBody", "severity", severities),
        ("LaneState", "health", healths),
        ("Readiness", "status", readiness),
        ("ServiceState", "status", readiness),
        ("Account", "table", tables),
        ("TableState", "table", tables),
        ("LaneState", "table", tables),
        ("Rejections", "table", tables),
        ("PartitionsState", "table", tables),
    ] {
        list(&mut schemas[schema]["properties"][property], values);
    }
    list(
        &mut schemas["Verdict"]["properties"]["warnings"]["items"],
        warnings,
    );
    let meanings =
        WarningCode::ALL.map(|code| format!("- `{}`: {}.", code.as_str(), code.description()));
    schemas["Warning"]["properties"]["code"]["description"] =
        json!(format!("What was done.\n\n{}", meanings.join("\n")));
    for schema in ["More", "QuarantinedEvent", "QuarantineState"] {
        schemas[schema]["properties"]["code"]["pattern"] = json!(QUARANTINE_CODE);
    }
    schemas["Reason"]["properties"]["code"] = json!({
        "description": "Of a rejection, or of quarantine.",
        "example": Code::MissingField.as_str(),
        "anyOf": [
            {"type": "string", "enum": rejections},
            {"type": "string", "pattern": QUARANTINE_CODE},
        ],
    });
}

/// The codes of the problems that `wanted` holds for, each once.
fn codes_where(wanted: impl Fn(&ProblemKind) -> bool) -> Vec<&'static str> {
    let kinds = PROBLEM_KINDS.iter().filter(|kind| wanted(kind));
    kinds.map(|kind| kind.code).collect()
}

/// Lists the values of a property. One that has none is absent, and never null.
fn list(property: &mut Value, values: &[&str]) {
    property["type"] = json!("string");
    property["enum"] = json!(values);
}
