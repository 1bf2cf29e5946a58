//! Events as JSON, in every format of the contract. Knows nothing of bodies.

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::event::{Event, Fault, Id};
use super::plan::Plan;
use super::settings::Scope;
use crate::service::Format;

/// Twenty years: before any horizon of a service.
const LONG_AGO_US: i64 = 20 * 365 * 86_400_000_000;

/// How an instant is written; all of them mean the same microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `…T10:00:00.123456Z`
    Micros,
    /// `…T10:00:00.123456789Z`, as Go writes it; the service cuts what is behind the microsecond.
    Nanos(u32),
    /// `…T12:00:00.123456+02:00`
    Offset,
}

pub fn rfc3339(us: i64, style: Style) -> String {
    let at = Timestamp::from_microsecond(us).expect("a run lies within the calendar");
    match style {
        Style::Micros => format!("{at:.6}"),
        Style::Nanos(nanos) => format!("{:.9}", at + SignedDuration::from_nanos(nanos.into())),
        Style::Offset => format!("{:.6}", at.display_with_offset(Offset::constant(2))),
    }
}

/// The documents of an event: one, or a line for each item of a list of pipelines_v1.
pub fn documents(plan: &Plan, event: Event) -> Vec<Value> {
    let (at, user, session) = (time(&event, 0), text(&event.user), text(&event.session));
    let settings = &plan.settings;
    // The formats of the suite's other components name the tenant always, ours where the
    // key does not say it.
    let is_named = event.format != Format::Native || settings.callers[0].scope == Scope::Any;
    let tenant = event.tenant.filter(|_| is_named);
    let tenant = tenant.map(|at| &settings.tenants[at]);
    let request = &event.request;
    // The request's id where no user is known.
    let user_or_request = user.as_ref().or(request.as_ref());
    let mut document = event.members.clone();
    let member = |name: &str| &event.members[name];
    let more = match event.format {
        Format::Native => {
            let user_field = match event.user {
                Some(Id::Hash(_)) => "user_id_hash",
                _ if event.is_anonymous => "anonymous_id",
                _ => "user_id",
            };
            let session_field = match event.session {
                Some(Id::Hash(_)) => "session_id_hash",
                _ => "session_id",
            };
            json!({
                "event_id": event.event_id,
                "occurred_at": at,
                "tenant_id": tenant,
                "request_id": request,
                user_field: user,
                session_field: session,
            })
        }
        Format::ServiceV1 => json!({
            "schema_version": "v1",
            "timestamp": at,
            "request_id": request,
            "tenant_id": tenant,
            "subject": {"user_id_hash": user, "session_id_hash": session},
        }),
        Format::EvalV1 => {
            document = json!({});
            json!({
                "request_id": request,
                "user_id": user_or_request,
                "ts": at,
                "items": member("items"),
                "context": {
                    "tenant_id": tenant,
                    "surface": member("surface"),
                    "segment": member("segment"),
                    "algo_version": member("algo_version"),
                    "config_version": member("config_version"),
                    "rules_version": member("rules_version"),
                    "experiment_id": member("experiment")["id"],
                    "experiment_variant": member("experiment")["variant"],
                    "device": member("context")["device"],
                },
            })
        }
        Format::OutcomeV1 => {
            let is_purchase = member("event_type") == "purchase";
            let event_type = is_purchase.then(|| json!("conversion"));
            json!({
                "request_id": request,
                "user_id": user_or_request,
                "ts": at,
                "event_type": event_type.as_ref().unwrap_or(member("event_type")),
            })
        }
        Format::AssignmentV1 => unreachable!("assignments are not loaded"),
        Format::PipelinesV1 => {
            let line = |(later_us, item): (i64, &Value)| {
                without_nulls(json!({
                    "v": 1,
                    // A list's lines are written one after the other.
                    "ts": time(&event, later_us * 7),
                    "tenant": tenant,
                    "surface": member("surface"),
                    "session_id": session,
                    "item_id": item["item_id"],
                    "user_id": user,
                    "request_id": request,
                    "rank": item["rank"],
                }))
            };
            let items = member("items").as_array().expect("a list has lines");
            return (0..).zip(items).map(line).collect();
        }
    };
    if let (Value::Object(document), Value::Object(more)) = (&mut document, more) {
        document.extend(more);
    }
    vec![without_nulls(document)]
}

fn text(id: &Option<Id>) -> Option<String> {
    id.as_ref().map(Id::text)
}

fn time(event: &Event, later_us: i64) -> String {
    let at = event.occurred_us + later_us;
    match event.fault {
        Some(Fault::Time) => "yesterday, 10 o'clock".to_owned(),
        Some(Fault::LongAgo) => rfc3339(at - LONG_AGO_US, event.style),
        _ => rfc3339(at, event.style),
    }
}

/// An object without the members that are null, in it and in its objects.
fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(members) = &mut value {
        members.retain(|_, member| !member.is_null());
        for member in members.values_mut().filter(|member| member.is_object()) {
            *member = without_nulls(member.take());
        }
    }
    value
}
