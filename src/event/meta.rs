//! The `meta` column: the client's own members, what the service adds, and every field that no
//! column takes.

use super::context::Context;
use super::field::Value;
use super::format::Format;
use super::identity::RequestId;
use super::items::Item;
use super::json::Field;
use super::json::write::ObjectWriter;
use super::rejection::Rejection;
use super::subject::{self, HexText, Subject};
use super::warning::{Notes, WarningCode};

/// Names with a meaning for the suite's views and jobs. A client's values under them are kept in
/// `meta.extra.meta`.
/// `anonymous_id` would be written as its hash.
const RESERVED: [&str; 7] = [
    "schema", "request_id", "subject_kind", "anonymous_id_hash", "anonymous_id", "skew_ms", "extra",
];

/// Builds the `meta` of one event.
#[derive(Debug, Default)]
pub(super) struct Meta<'a, 'b> {
    /// The client's own object.
    pub(super) client: Option<Value<'a>>,
    /// Fields of the format that have no column.
    pub(super) kept: Vec<(&'static str, &'a str)>,
    /// Names that rows of items may add.
    pub(super) of_rows: &'static [&'static str],
    /// Fields of the format that could not be stored in their usual place.
    pub(super) displaced: Vec<(&'static str, &'a str)>,
    /// Fields that the format does not know.
    pub(super) extra: Vec<&'b Field<'a>>,
}

impl Meta<'_, '_> {
    /// The column's text; `None` if it would be empty.
    ///
    /// Native interactions of servers leave out their source and schema: they are the rule, and the
    /// two would be a sixth of the row.
    pub(super) fn text(
        &self,
        format: Format,
        include_source: bool,
        request_id: Option<&RequestId<'_>>,
        subject: &Subject,
        context: &Context<'_>,
        notes: &mut Notes<'_>,
    ) -> Result<Option<String>, Rejection> {
        let raw_request_id = request_id.and_then(RequestId::raw);
        let is_empty = !(include_source || context.is_public)
            && self.client.is_none()
            && self.kept.is_empty()
            && self.displaced.is_empty()
            && self.extra.is_empty()
            && raw_request_id.is_none()
            && subject.kind != Some("anonymous")
            && subject.anonymous.is_none()
            && context.skew_ms.is_none();
        if is_empty {
            return Ok(None);
        }
        let parts = self.parts(format, include_source, request_id, subject, context, notes)?;
        Ok(parts.finish())
    }

    /// The members, to which each row of an event adds its own.
    pub(super) fn parts(
        &self,
        format: Format,
        include_source: bool,
        request_id: Option<&RequestId<'_>>,
        subject: &Subject,
        context: &Context<'_>,
        notes: &mut Notes<'_>,
    ) -> Result<MetaParts, Rejection> {
        let raw_request_id = request_id.and_then(RequestId::raw);
        // What comes with a key in public hands says so, and cannot say otherwise.
        let is_public = context.is_public;
        let client = match &self.client {
            Some(value) => value.members()?,
            None => Vec::new(),
        };
        let mut out = String::with_capacity(160);
        let mut extra = String::new();
        let mut object = ObjectWriter::open(&mut out);
        let is_displaced =
            |field: &&Field<'_>| self.is_taken(&field.key) || (is_public && field.key == "source");
        let mut displaced = 0;
        for field in &client {
            if is_displaced(&field) {
                notes.add(WarningCode::MovedField, format!("meta.{}", field.key));
                displaced += 1;
                continue;
            }
            // The suite's views hand it on as a number, wherever it is one.
            if field.key == "latency_ms"
                && field
                    .raw
                    .starts_with(|c: char| c == '-' || c.is_ascii_digit())
            {
                let latency_ms = Value {
                    name: "meta.latency_ms",
                    raw: field.raw,
                    escaped: false,
                };
                latency_ms.float()?;
            }
        }
        let own = client.iter().filter(|field| !is_displaced(field));
        subject::push_members(&mut object, own, context.pseudonymizer)
            .map_err(|rejection| rejection.within("meta"))?;
        if include_source {
            let is_own = |field: &Field<'_>| field.key == "source" && !is_displaced(&field);
            if !client.iter().any(is_own) {
                object.str("source", context.source);
            }
            object.str("schema", format.as_str());
        } else if is_public {
            object.str("source", context.source);
        }
        object.opt_str("request_id", raw_request_id);
        if include_source || subject.kind == Some("anonymous") {
            object.opt_str("subject_kind", subject.kind);
        }
        object.opt_str(
            "anonymous_id_hash",
            subject.anonymous.as_ref().map(HexText::as_str),
        );
        for (name, raw) in &self.kept {
            subject::push_value(&mut object, name, raw, context.pseudonymizer)?;
        }
        if let Some(skew_ms) = context.skew_ms {
            object.raw("skew_ms", &skew_ms.to_string());
        }
        if !(self.extra.is_empty() && self.displaced.is_empty() && displaced == 0) {
            let mut object = ObjectWriter::resume(&mut extra);
            let unknown = self.extra.iter().copied();
            subject::push_members(&mut object, unknown, context.pseudonymizer)?;
            for (name, raw) in &self.displaced {
                subject::push_value(&mut object, name, raw, context.pseudonymizer)?;
            }
            if displaced > 0 {
                let mut nested = ObjectWriter::open(object.name("meta"));
                let moved = client.iter().filter(is_displaced);
                subject::push_members(&mut nested, moved, context.pseudonymizer)
                    .map_err(|rejection| rejection.within("meta"))?;
                nested.close();
            }
        }
        Ok(MetaParts { own: out, extra })
    }

    /// Whether a name has a meaning here, so that a client's value cannot stand under it.
    fn is_taken(&self, name: &str) -> bool {
        RESERVED.contains(&name)
            || self.of_rows.contains(&name)
            || self.kept.iter().any(|(kept, _)| *kept == name)
    }
}

/// The members of a `meta`: two objects that are not closed.
#[derive(Debug)]
pub(super) struct MetaParts {
    own: String,
    /// Empty if there are no members for `extra`.
    extra: String,
}

impl MetaParts {
    /// Bytes of both.
    pub(super) fn len_bytes(&self) -> usize {
        self.own.len() + self.extra.len()
    }

    /// The column's text; `None` if it would be empty.
    fn finish(self) -> Option<String> {
        let Self { mut own, mut extra } = self;
        let mut object = ObjectWriter::resume(&mut own);
        if !extra.is_empty() {
            extra.push('}');
            object.raw("extra", &extra);
        }
        object.close().then_some(own)
    }

    /// The text for the row of one item.
    pub(super) fn of_item(&self, item: &Item<'_>) -> Option<String> {
        let mut own = String::with_capacity(self.len_bytes() + 64);
        own.push_str(&self.own);
        let mut extra = self.extra.clone();
        let mut object = ObjectWriter::resume(&mut own);
        for (name, raw) in &item.kept {
            object.raw(name, raw);
        }
        if !item.extra.is_empty() {
            // The event's own extra fields cannot have this name: it is known.
            ObjectWriter::resume(&mut extra).raw("items", &item.extra);
        }
        Self { own, extra }.finish()
    }
}
