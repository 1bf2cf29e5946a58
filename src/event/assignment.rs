//! Assignments: who was in which variant of an experiment. Reads recsys-eval's assignment.v1, and
//! encodes its row.

use std::borrow::Cow;

use uuid::Uuid;

use super::body::RawEvent;
use super::context::{Context, named_id, time_of_id};
use super::exposure::required_request_id;
use super::field::{self, Names, Value, opt_text, required};
use super::format::Format;
use super::identity::{self, RequestId};
use super::meta::Meta;
use super::rejection::Rejection;
use super::row::Key;
use super::row::writer::RowWriter;
use super::subject::{self, HexText, Subject};
use super::time::Micros;
use super::unknown;
use super::warning::{Notes, WarningCode};

/// A valid assignment.
#[derive(Debug)]
pub(super) struct Assignment<'a> {
    pub(super) key: Key,
    pub(super) received_at: Micros,
    pub(super) request_id: RequestId<'a>,
    pub(super) experiment_id: Cow<'a, str>,
    pub(super) variant: Cow<'a, str>,
    pub(super) subject: Subject,
    pub(super) surface: Option<Cow<'a, str>>,
    pub(super) context: Option<String>,
    pub(super) meta: Option<String>,
}

impl Assignment<'_> {
    /// Appends the event's row.
    pub(super) fn encode(&self, out: &mut RowWriter) {
        out.row(&self.key)
            .time(self.received_at)
            .uuid(&self.request_id.uuid)
            .text(&self.experiment_id)
            .text(&self.variant)
            .opt_bytes(self.subject.user_key.as_ref().map(<[u8; 32]>::as_slice))
            .opt_text(self.surface.as_deref())
            .opt_json(self.context.as_deref())
            .opt_json(self.meta.as_deref())
            .end();
    }
}

/// recsys-eval's assignment.v1: `assignment_v1`.
pub(super) fn assignment_v1<'a>(
    event: &RawEvent<'a, '_>,
    context: &Context<'_>,
    notes: &mut Notes<'a>,
) -> Result<Assignment<'a>, Rejection> {
    let mut meta = Meta::default();
    let [
        experiment_id,
        variant,
        request_id,
        user_id,
        ts,
        client_context,
        event_id,
        tenant_id,
        tenant,
    ] = unknown::pick(
        event,
        const {
            &Names::new([
                "experiment_id", "variant", "request_id", "user_id", "ts", "context", "event_id",
                "tenant_id", "tenant",
            ])
        },
        context,
        notes,
        &mut meta.extra,
    )?;
    let inner = match client_context {
        Some(value) => value.members()?,
        None => Vec::new(),
    };
    let in_context = |name: &'static str, key: &str| field::member(&inner, key, name);
    let tenant = context.tenant_of_unnamed(&[
        tenant_id,
        tenant,
        in_context("context.tenant_id", "tenant_id")?,
        in_context("context.tenant", "tenant")?,
    ])?;
    let named = named_id(&tenant, event_id)?;
    let told = named.as_ref().and_then(|id| time_of_id(id, context));
    let occurred_at = match (ts, told) {
        (Some(ts), _) => context.instant(ts, notes)?,
        (None, Some(told)) => told,
        (None, None) => {
            notes.add(WarningCode::ArrivalTimeUsed, "ts");
            context.received_at
        }
    };
    let request_id = required_request_id(request_id)?;
    let experiment_id = required(opt_text(experiment_id)?, "experiment_id")?;
    let variant = required(opt_text(variant)?, "variant")?;
    let surface = match in_context("context.surface", "surface")? {
        Some(value) => value.path_safe()?,
        None => None,
    };
    context.check_surface(&tenant, surface.as_deref())?;
    let subject = Subject {
        user_key: subject::pseudonym_or_raw(user_id, Some(&request_id.text), context)?,
        ..Subject::default()
    };
    let event_id = match named {
        Some(id) => id,
        // What names an assignment, and not its bytes: a line that is written again in another
        // way, or with more context, is the same one.
        None => {
            let user = subject.user_key.as_ref().map(HexText::of);
            let user = user.as_ref().map_or("", HexText::as_str);
            let mut buffer = Uuid::encode_buffer();
            let request = &*request_id.uuid.hyphenated().encode_lower(&mut buffer);
            let texts = [request, &*experiment_id, &*variant, user];
            identity::event_id_of_parts(&tenant, Format::AssignmentV1.as_str(), texts)
        }
    };
    Ok(Assignment {
        key: Key {
            tenant,
            occurred_at,
            event_id,
        },
        received_at: context.received_at,
        experiment_id,
        variant,
        surface,
        context: client_context
            .map(|value| scrubbed(value, context))
            .transpose()?,
        meta: meta.text(
            Format::AssignmentV1,
            true,
            Some(&request_id),
            &subject,
            context,
            notes,
        )?,
        request_id,
        subject,
    })
}

/// The context as it came, with hashes in the place of raw ids.
fn scrubbed(value: Value<'_>, context: &Context<'_>) -> Result<String, Rejection> {
    let mut out = String::with_capacity(value.raw.len());
    subject::push_scrubbed(&mut out, value.raw, context.pseudonymizer)
        .map_err(|rejection| rejection.within(value.name))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::event::table::Table;
    use crate::event::testing::{DEMO, NOW, OTHER, decode};

    /// HMAC-SHA256 with the salt "salt" of "user": the contract's vector.
    const USER: &str = "48cee8d8b352a2221a8993ac5fafd739ef877013a7576e582ac1363b92995782";

    fn assignment(more: &Value) -> Value {
        let mut event = json!({"experiment_id": "exp", "variant": "A", "request_id": "r1",
                               "user_id": "user", "ts": NOW});
        for (name, value) in more.as_object().unwrap() {
            event[name] = value.clone();
        }
        event
    }

    fn row(more: &Value) -> Value {
        let told = decode(Table::Assignments, &assignment(more).to_string());
        assert_eq!(told.rejection(), None, "{more}");
        told.rows.into_iter().next().unwrap()
    }

    #[test]
    fn every_field_is_in_its_column() {
        let found =
            row(&json!({"context": {"surface": "home", "device": "web", "user_id": "user"}}));
        let mut expected = json!({
            "tenant_id": DEMO, "occurred_at": "2026-05-24T10:00:00Z",
            "received_at": "2026-05-24T10:00:00Z",
            "request_id": "d01a42ab-5bfd-532a-a2bb-240ba2e5bc12",
            "experiment_id": "exp", "variant": "A", "user_key": format!("\\x{USER}"),
            "surface": "home",
            "context": {"surface": "home", "device": "web", "user_id_hash": USER},
            "meta": {"source": "ingest", "schema": "assignment_v1", "request_id": "r1"},
        });
        expected["event_id"] = found["event_id"].clone();
        for name in ["occurred_at", "received_at"] {
            let text = found[name].as_str().unwrap();
            assert!(text.starts_with("2026-05-24T10:00:00"), "{text}");
            expected[name] = found[name].clone();
        }
        assert_eq!(found, expected);
        // The request stands for a user who is not known.
        for user in [json!("r1"), json!(null)] {
            assert_eq!(row(&json!({"user_id": user}))["user_key"], json!(null));
        }
    }

    #[test]
    fn the_identity_is_what_names_an_assignment_and_not_its_bytes() {
        let id = |more: Value| row(&more)["event_id"].clone();
        let plain = id(json!({}));
        for (same, more) in [
            (true, json!({"context": {"device": "web"}})),
            (true, json!({"shipper": "host-1"})),
            (true, json!({"user_id": USER})),
            (true, json!({"tenant_id": "demo"})),
            (false, json!({"variant": "B"})),
            (false, json!({"experiment_id": "other"})),
            (false, json!({"request_id": "r2"})),
            (false, json!({"user_id": "someone"})),
            (false, json!({"tenant_id": "other"})),
            (false, json!({"event_id": "mine"})),
        ] {
            assert_eq!(id(more.clone()) == plain, same, "{more}");
        }
        // A UUID in capitals is the same request, as in the column.
        let request = |request_id: &str| id(json!({"request_id": request_id}));
        let lower = "6e8bc430-9c3a-41d9-9669-2b4d3b6c8f02";
        assert_eq!(request(lower), request(&lower.to_uppercase()));
        let named = json!("6e8bc430-9c3a-41d9-9669-2b4d3b6c8f01");
        assert_eq!(id(json!({"event_id": named})), named);
        assert_eq!(
            row(&json!({"tenant_id": "other"}))["tenant_id"],
            json!(OTHER)
        );
    }

    #[test]
    fn without_a_time_it_is_that_of_arrival_and_the_answer_warns() {
        let told = decode(
            Table::Assignments,
            &assignment(&json!({"ts": null})).to_string(),
        );
        assert_eq!(told.warned(), [("arrival_time_used", "ts")]);
        assert_eq!(told.rows[0]["occurred_at"], told.rows[0]["received_at"]);
        // An id may tell the time: then a retry has the same.
        let id = "019e4541-ca00-7000-8000-000000000001";
        let told = decode(
            Table::Assignments,
            &assignment(&json!({"ts": null, "event_id": id})).to_string(),
        );
        assert!(told.warned().is_empty(), "{:?}", told.warned());
        assert_ne!(told.rows[0]["occurred_at"], told.rows[0]["received_at"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, expected) in [
            (
                json!({"experiment_id": null}),
                ("missing_field", "experiment_id"),
            ),
            (
                json!({"experiment_id": " "}),
                ("missing_field", "experiment_id"),
            ),
            (json!({"variant": ""}), ("missing_field", "variant")),
            (json!({"variant": 7}), ("invalid_type", "variant")),
            (json!({"variant": "x".repeat(513)}), ("too_long", "variant")),
            (json!({"request_id": null}), ("missing_field", "request_id")),
            (json!({"ts": "yesterday"}), ("invalid_timestamp", "ts")),
            (
                json!({"ts": "2020-01-01T00:00:00Z"}),
                ("occurred_at_out_of_range", "ts"),
            ),
            (json!({"context": []}), ("invalid_type", "context")),
            (
                json!({"context": {"surface": "a/b"}}),
                ("invalid_value", "context.surface"),
            ),
            (
                json!({"context": {"tenant": "nobody"}}),
                ("unknown_tenant", "context.tenant"),
            ),
            (
                json!({"tenant": "demo", "context": {"tenant_id": "other"}}),
                ("conflicting_fields", "context.tenant_id"),
            ),
            (
                json!({"timestamp": "2026-05-24T09:00:00Z"}),
                ("conflicting_fields", "timestamp"),
            ),
        ] {
            let told = decode(Table::Assignments, &assignment(&more).to_string());
            assert_eq!(told.rejection(), Some(expected), "{more}");
        }
    }
}
