//! What decoding needs to know apart from the bytes of an event.

use uuid::Uuid;

use super::field::{EVENT_ID_BYTES_MAX, Value};
use super::format::Format;
use super::identity::{self, Pseudonymizer};
use super::rejection::{Code, Rejection};
use super::table::Table;
use super::time::Micros;

/// Finds the tenant that an event names.
pub trait Tenants {
    /// The tenant's id, if the caller may write for it.
    fn resolve(&self, named: &str) -> Result<Uuid, Code>;
}

/// What decoding needs to know apart from the bytes.
#[derive(Clone, Copy)]
pub struct Context<'c> {
    /// The table that the endpoint writes.
    pub table: Table,
    /// The format, if the caller forces one.
    pub format: Option<Format>,
    /// The tenant of events that name none.
    pub tenant: Uuid,
    /// The tenants that events may name.
    pub tenants: &'c dyn Tenants,
    /// The caller's role, for `meta.source`.
    pub source: &'c str,
    /// Whether the caller's key is in public hands: then it may not set what is a server's word.
    pub is_public: bool,
    /// Hashes raw ids.
    pub pseudonymizer: &'c Pseudonymizer,
    /// When the request arrived.
    pub received_at: Micros,
    /// Events before this are rejected.
    pub earliest: Micros,
    /// Events after this are rejected.
    pub latest: Micros,
    /// Most items in one exposure.
    pub items_max: usize,
    /// Makes ids for events that have none.
    pub new_event_id: &'c dyn Fn() -> Uuid,
    /// How far the sender's clock is behind this one, if the body had `sent_at`.
    pub skew_ms: Option<i64>,
}

impl Context<'_> {
    /// The tenant of an event, which may be named by either of two fields.
    pub(super) fn tenant_of_either(
        &self,
        tenant_id: Option<Value<'_>>,
        tenant: Option<Value<'_>>,
    ) -> Result<Uuid, Rejection> {
        if let (Some(one), Some(other)) = (tenant_id, tenant)
            && one.string()? != other.string()?
        {
            return Err(Rejection::of(
                Code::ConflictingFields,
                other.name,
                "names another tenant than tenant_id; send one of the two",
            ));
        }
        self.tenant_of(tenant_id.or(tenant))
    }

    /// The tenant of an event that may name one.
    pub(super) fn tenant_of(&self, named: Option<Value<'_>>) -> Result<Uuid, Rejection> {
        let Some(value) = named else {
            return Ok(self.tenant);
        };
        let Some(name) = value.text(EVENT_ID_BYTES_MAX)? else {
            return Ok(self.tenant);
        };
        self.tenants.resolve(&name).map_err(|code| {
            let message = match code {
                Code::TenantMismatch => "the key may only write for its own tenant",
                Code::TenantNotActive => "the tenant is suspended or deleted",
                _ => "there is no such tenant",
            };
            Rejection::of(code, value.name, message)
        })
    }

    /// Parses a timestamp, which must be within the horizon.
    pub(super) fn instant(&self, value: Value<'_>) -> Result<Micros, Rejection> {
        let text = value.string()?;
        let at = Micros::parse(&text).ok_or_else(|| {
            Rejection::of(
                Code::InvalidTimestamp,
                value.name,
                "must be RFC 3339 with an offset, such as 2026-05-24T10:00:00.123Z",
            )
        })?;
        self.in_range(at, value.name)
    }

    /// Checks that an instant is within the horizon.
    pub(super) fn in_range(&self, at: Micros, name: &'static str) -> Result<Micros, Rejection> {
        if (self.earliest..=self.latest).contains(&at) {
            return Ok(at);
        }
        Err(Rejection::of(
            Code::OccurredAtOutOfRange,
            name,
            format!("must be from {} to {}", self.earliest, self.latest),
        ))
    }
}

/// An event's id and time, from its native fields.
pub(super) fn native_identity(
    tenant: &Uuid,
    event_id: Option<Value<'_>>,
    occurred_at: Option<Value<'_>>,
    context: &Context<'_>,
) -> Result<(Uuid, Micros), Rejection> {
    let named = match event_id {
        Some(value) => value.text(EVENT_ID_BYTES_MAX)?,
        None => None,
    };
    let id = named.map(|named| identity::event_id(tenant, &named));
    let at = match (occurred_at, &id) {
        (Some(value), _) => context.instant(value)?,
        (None, Some(id)) => match Micros::of_uuid_v7(id) {
            Some(at) => context.in_range(at, "event_id").map_err(|mut rejection| {
                let range = &rejection.message;
                rejection.message = format!(
                    "there is no occurred_at, and the time in the id {range}: send occurred_at"
                )
                .into();
                rejection
            })?,
            None => context.received_at,
        },
        (None, None) => context.received_at,
    };
    Ok((id.unwrap_or_else(|| (context.new_event_id)()), at))
}
