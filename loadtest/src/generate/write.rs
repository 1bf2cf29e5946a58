//! Events as JSON, in every format of the contract. Knows nothing of bodies.

use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::event::{Event, Fault, Id, Item};
use super::names;
use super::plan::Plan;
use super::settings::Scope;
use crate::service::{Format, Table};

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
/// A member that is null is one that the event does not have.
pub fn documents(plan: &Plan, event: &Event) -> Vec<Value> {
    let is_faulty = |fault: Fault| event.fault == Some(fault);
    let settings = &plan.settings;
    // The format of the suite's other components names the tenant always, ours where the
    // key does not say it.
    let is_named = event.format != Format::Native || settings.callers[0].scope == Scope::Any;
    let tenant = event.tenant.filter(|_| is_named);
    let tenant = tenant.map(|at| &settings.tenants[at]);
    let is_placeless = event.table == Table::Exposures && is_faulty(Fault::Missing);
    let surface = event.surface.filter(|_| !is_placeless);
    let (user, session) = (text_of(&event.user), text_of(&event.session));
    let version = |word: &str| event.version.map(|version| format!("{word}-{version}"));
    let config = event.version.map(|version| match version % 16 {
        // Some copy the ETag as HTTP has it.
        0 => format!("W/\"cfg-{version}\""),
        _ => format!("cfg-{version}"),
    });
    let experiment = event
        .experiment
        .map(|(id, variant)| (format!("exp-{id}"), variant));
    let context = event.context.map(|number| {
        let (locale, country) = [("de-DE", "DE"), ("en-GB", "GB")][number as usize % 2];
        json!({"locale": locale, "device": device(number), "country": country})
    });
    let event_type = match (event.format, event.event_type) {
        _ if is_faulty(Fault::Wrong) => "hover",
        (Format::OutcomeV1, "purchase") => "conversion",
        (_, name) => name,
    };
    let item_id = (!is_faulty(Fault::Missing)).then(|| names::item(event.item));
    let value = event
        .value
        .map(|millionths| crate::report::float(millionths) / 1e6);
    let mut document = match event.format {
        Format::Native => json!({
            "event_id": event.event_id,
            "occurred_at": time(event, 0),
            "tenant_id": tenant,
            "request_id": event.request,
            "surface": surface,
            "segment": event.segment,
        }),
        Format::ServiceV1 => json!({
            "schema_version": "v1",
            "timestamp": time(event, 0),
            "request_id": event.request,
            "tenant_id": tenant,
            "surface": surface,
            "segment": event.segment,
            "subject": {"user_id_hash": user, "session_id_hash": session},
        }),
        Format::EvalV1 => json!({
            "request_id": event.request,
            // The request's id where no user is known.
            "user_id": user.as_ref().or(event.request.as_ref()),
            "ts": time(event, 0),
            "items": items(event),
            "context": {
                "tenant_id": tenant,
                "surface": surface,
                "segment": event.segment,
                "algo_version": version("algo"),
                "config_version": config,
                "rules_version": version("rules"),
                "experiment_id": experiment.as_ref().map(|(id, _)| id),
                "experiment_variant": experiment.as_ref().map(|(_, variant)| variant),
                "device": event.context.map(device),
            },
        }),
        Format::OutcomeV1 => json!({
            "request_id": event.request,
            "user_id": user.as_ref().or(event.request.as_ref()),
            "event_type": event_type,
            "item_id": item_id,
            "value": value,
            "ts": time(event, 0),
        }),
        Format::PipelinesV1 => {
            let line = |(rank, shown): (i64, &Item)| {
                let wrong = is_faulty(Fault::Wrong).then(|| json!(7));
                json!({
                    "v": 1,
                    // A list's lines are written one after the other.
                    "ts": time(event, rank * 7),
                    "tenant": tenant,
                    "surface": surface,
                    "session_id": session,
                    "item_id": wrong.unwrap_or_else(|| json!(names::item(shown.item))),
                    "user_id": user,
                    "request_id": event.request,
                    "rank": rank,
                })
            };
            return (0..)
                .zip(event.lines())
                .map(line)
                .map(without_nulls)
                .collect();
        }
    };
    let experiment = experiment.map(|(id, variant)| json!({"id": id, "variant": variant}));
    let more = match (event.format, event.table) {
        (Format::Native | Format::ServiceV1, Table::Exposures) => json!({
            "experiment": experiment,
            "algo_version": version("algo"),
            "config_version": config,
            "rules_version": version("rules"),
            "context": context,
            "items": items(event),
        }),
        (Format::Native, Table::Interactions) => json!({
            "event_type": event_type,
            "item_id": item_id,
            "value": value,
            "position": event.position,
            "meta": event.context.map(|number| json!({"device": device(number), "retry": false})),
        }),
        _ => json!({}),
    };
    if event.format == Format::Native {
        let user_field = match event.user {
            Some(Id::Hash(_)) => "user_id_hash",
            _ if event.is_anonymous => "anonymous_id",
            _ => "user_id",
        };
        let session_field = match event.session {
            Some(Id::Hash(_)) => "session_id_hash",
            _ => "session_id",
        };
        document[user_field] = json!(user);
        document[session_field] = json!(session);
    }
    if let (Value::Object(document), Value::Object(more)) = (&mut document, more) {
        document.extend(more);
    }
    vec![without_nulls(document)]
}

fn text_of(id: &Option<Id>) -> Option<String> {
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

fn items(event: &Event) -> Value {
    if event.fault == Some(Fault::Wrong) {
        return json!("none");
    }
    let has_score = event.format != Format::EvalV1;
    let item = |(rank, shown): (u32, &Item)| {
        let score = has_score.then_some(f64::from(shown.score) / 1000.0);
        json!({"item_id": names::item(shown.item), "rank": rank, "score": score})
    };
    (1..)
        .zip(&event.items)
        .map(item)
        .map(without_nulls)
        .collect()
}

/// The name of a device; some need an escape.
fn device(context: u32) -> &'static str {
    ["web", "ios", "android", "tv 55\" – größer"][context as usize / 2 % 4]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_reads_back_as_the_same_microsecond() {
        // Leap days, the turns of years and centuries, and the last microsecond of a day.
        for at in [
            0, 951_782_400_000_000, 951_868_799_999_999, 1_709_164_800_000_000,
            4_107_542_399_999_999, 1_795_000_000_123_456,
        ] {
            for style in [Style::Micros, Style::Nanos(999), Style::Offset] {
                let text = rfc3339(at, style);
                let parsed: Timestamp = text.parse().unwrap();
                assert_eq!(parsed.as_microsecond(), at, "{text}");
            }
        }
    }
}
