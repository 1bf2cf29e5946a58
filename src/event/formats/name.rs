//! What names an event of the suite's formats that has no `event_id`.
//!
//! Invariant: the name depends on what was read and not on the bytes of the line, so that a line
//! that a shipper has serialised again, or has added a field to, is the same event
//! (`docs/decisions/0020`).

use uuid::Uuid;

use crate::event::context::named_id;
use crate::event::field::Value;
use crate::event::format::Format;
use crate::event::identity::{self, RequestId};
use crate::event::rejection::Rejection;
use crate::event::row::Key;
use crate::event::subject::{HexText, Subject};
use crate::event::time::Micros;

/// The parts of a name that all formats have.
#[derive(Debug)]
pub(super) struct Name<'n> {
    pub(super) format: Format,
    pub(super) request_id: Option<&'n RequestId<'n>>,
    pub(super) occurred_at: Micros,
    pub(super) surface: Option<&'n str>,
    pub(super) subject: &'n Subject,
}

impl Name<'_> {
    /// The event's key: with the id that its sender gave it, or else with one made from its name
    /// and `more` parts.
    pub(super) fn key(
        &self,
        tenant: Uuid,
        event_id: Option<Value<'_>>,
        more: &[&str],
    ) -> Result<Key, Rejection> {
        Ok(Key {
            tenant,
            occurred_at: self.occurred_at,
            event_id: match named_id(&tenant, event_id)? {
                Some(id) => id,
                None => self.id(&tenant, more),
            },
        })
    }

    /// The id made from the name and `more` parts.
    pub(super) fn id(&self, tenant: &Uuid, more: &[&str]) -> Uuid {
        let mut buffer = Uuid::encode_buffer();
        // The column's value: a UUID in capitals is the same id.
        let request_id = match self.request_id {
            Some(id) => &*id.uuid.hyphenated().encode_lower(&mut buffer),
            None => "",
        };
        let at = self.occurred_at.0.to_string();
        let user = self.subject.user_key.as_ref().map(HexText::of);
        let session = self.subject.session.as_ref();
        let parts = [
            request_id,
            &at,
            self.surface.unwrap_or_default(),
            user.as_ref().map_or("", HexText::as_str),
            session.map_or("", HexText::as_str),
        ];
        let parts = parts.into_iter().chain(more.iter().copied());
        identity::event_id_of_parts(tenant, self.format.as_str(), parts)
    }
}
