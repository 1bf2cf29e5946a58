//! The `meta` column: the client's own members, what the service adds, and every field that no
//! column takes.

use super::context::Context;
use super::field::Value;
use super::format::Format;
use super::identity::RequestId;
use super::json::Field;
use super::json::write::ObjectWriter;
use super::rejection::Rejection;
use super::subject::{self, HexText, Subject};

/// Names with a meaning for the suite's views and jobs. A client's values under them are kept in
/// `meta.extra.meta`.
const RESERVED: [&str; 6] = [
    "schema", "request_id", "subject_kind", "anonymous_id_hash", "skew_ms", "extra",
];

/// Builds the `meta` of one event.
#[derive(Debug, Default)]
pub(super) struct Meta<'a, 'b> {
    /// The client's own object.
    pub(super) client: Option<Value<'a>>,
    /// Fields of the format that have no column.
    pub(super) kept: Vec<(&'static str, &'a str)>,
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
    ) -> Result<Option<String>, Rejection> {
        let raw_request_id = request_id.and_then(RequestId::raw);
        // What comes with a key in public hands says so, and cannot say otherwise.
        let is_public = context.is_public;
        let is_empty = !(include_source || is_public)
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
        let client = match &self.client {
            Some(value) => value.members()?,
            None => Vec::new(),
        };
        let mut out = String::with_capacity(160);
        let mut object = ObjectWriter::open(&mut out);
        let (displaced, own): (Vec<_>, Vec<_>) = client.iter().partition(|field| {
            RESERVED.contains(&&*field.key) || (is_public && field.key == "source")
        });
        for field in &own {
            subject::push_member(&mut object, field, context.pseudonymizer);
        }
        if include_source {
            if !own.iter().any(|field| field.key == "source") {
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
            subject::push_scrubbed(object.name(name), raw, context.pseudonymizer);
        }
        if let Some(skew_ms) = context.skew_ms {
            object.raw("skew_ms", &skew_ms.to_string());
        }
        if !(self.extra.is_empty() && self.displaced.is_empty() && displaced.is_empty()) {
            let mut extra = ObjectWriter::open(object.name("extra"));
            for field in &self.extra {
                subject::push_member(&mut extra, field, context.pseudonymizer);
            }
            for (name, raw) in &self.displaced {
                subject::push_scrubbed(extra.name(name), raw, context.pseudonymizer);
            }
            if !displaced.is_empty() {
                let mut nested = ObjectWriter::open(extra.name("meta"));
                for field in displaced {
                    subject::push_member(&mut nested, field, context.pseudonymizer);
                }
                nested.close();
            }
            extra.close();
        }
        Ok(object.close().then_some(out))
    }
}
