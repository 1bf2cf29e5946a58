//! What decoding needs to know apart from the bytes of an event.

use std::borrow::Cow;

use uuid::Uuid;

use super::field::{EVENT_ID_BYTES_MAX, Value};
use super::format::Format;
use super::identity::{self, Pseudonymizer};
use super::rejection::{Code, Rejection};
use super::table::Table;
use super::time::Micros;
use super::warning::{Notes, WarningCode};

/// Finds the tenant that an event names.
pub trait Tenants {
    /// The tenant's id, if the caller may write for it.
    fn resolve(&self, named: &str) -> Result<Uuid, Code>;

    /// Whether the tenant of events that name none is a guess: the caller may write for any, and
    /// its request names none.
    fn is_own_a_guess(&self) -> bool {
        false
    }

    /// The surfaces that events of the tenant may name. `None`: any.
    fn surfaces(&self, _tenant: &Uuid) -> Option<&[String]> {
        None
    }
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
    /// Most items in one event.
    pub items_max: usize,
    /// Whether an event with a field that its format does not know is rejected.
    pub strict: bool,
    /// Makes ids for events that have none.
    pub new_event_id: &'c dyn Fn() -> Uuid,
    /// How far the sender's clock is behind this one, if the body had `sent_at`.
    pub skew_ms: Option<i64>,
}

impl Context<'_> {
    /// The tenant of an event, which may be named by several fields. They have to agree.
    pub(super) fn tenant_of(&self, named: &[Option<Value<'_>>]) -> Result<Uuid, Rejection> {
        let mut first: Option<(Value<'_>, Cow<'_, str>)> = None;
        for value in named.iter().flatten() {
            let Some(name) = value.text(EVENT_ID_BYTES_MAX)? else {
                continue;
            };
            let Some((other, text)) = &first else {
                first = Some((*value, name));
                continue;
            };
            let resolve = |name: &str| self.tenants.resolve(name).ok();
            // A tenant has two names: its id, and that of the outside.
            let is_same =
                *text == name || resolve(text).is_some_and(|id| resolve(&name) == Some(id));
            if !is_same {
                return Err(Rejection::of(
                    Code::ConflictingFields,
                    value.name,
                    format!(
                        "names another tenant than {}; send one of the two",
                        other.name
                    ),
                ));
            }
        }
        let Some((value, name)) = first else {
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

    /// The tenant of an event in a format that has no field for one.
    pub(super) fn tenant_of_unnamed(&self, named: &[Option<Value<'_>>]) -> Result<Uuid, Rejection> {
        let is_blank = |value: &Value<'_>| value.text(EVENT_ID_BYTES_MAX) == Ok(None);
        if self.tenants.is_own_a_guess() && named.iter().flatten().all(is_blank) {
            return Err(Rejection::of(
                Code::MissingTenant,
                "tenant_id",
                "the format names no tenant, and the key may write for any: send the header X-Org-Id, or tenant_id in the event, or use the tenant's own key",
            ));
        }
        self.tenant_of(named)
    }

    /// Checks that events of the tenant may name the surface.
    pub(super) fn check_surface(
        &self,
        tenant: &Uuid,
        surface: Option<&str>,
    ) -> Result<(), Rejection> {
        let (Some(surfaces), Some(surface)) = (self.tenants.surfaces(tenant), surface) else {
            return Ok(());
        };
        if surfaces.iter().any(|known| known == surface) {
            return Ok(());
        }
        Err(Rejection::of(
            Code::UnknownSurface,
            "surface",
            "is none of the surfaces in the tenant's settings; correct it, or have it added there",
        ))
    }

    /// Parses a timestamp, which must be within the horizon.
    pub(super) fn instant(
        &self,
        value: Value<'_>,
        notes: &mut Notes<'_>,
    ) -> Result<Micros, Rejection> {
        let text = value.string()?;
        let (at, is_cut) = Micros::parse_telling(&text).map_err(|error| {
            Rejection::of(Code::InvalidTimestamp, value.name, error.to_string())
        })?;
        if is_cut {
            notes.add(WarningCode::TimeTruncated, value.name);
        }
        self.in_range(at, value.name)
    }

    /// Whether an instant is within the horizon.
    fn is_in_range(&self, at: Micros) -> bool {
        (self.earliest..=self.latest).contains(&at)
    }

    /// Checks that an instant is within the horizon.
    fn in_range(&self, at: Micros, name: &'static str) -> Result<Micros, Rejection> {
        if self.is_in_range(at) {
            return Ok(at);
        }
        Err(Rejection::of(
            Code::OccurredAtOutOfRange,
            name,
            format!("must be from {} to {}", self.earliest, self.latest),
        ))
    }
}

/// The id that an event's sender gave it, in any format; `None` if it is blank.
pub(super) fn named_id(
    tenant: &Uuid,
    event_id: Option<Value<'_>>,
) -> Result<Option<Uuid>, Rejection> {
    let named = match event_id {
        Some(value) => value.text(EVENT_ID_BYTES_MAX)?,
        None => None,
    };
    Ok(named.map(|named| identity::event_id(tenant, &named)))
}

/// The time that an id tells: that of a UUIDv7, within the horizon.
pub(super) fn time_of_id(id: &Uuid, context: &Context<'_>) -> Option<Micros> {
    Micros::of_uuid_v7(id).filter(|at| context.is_in_range(*at))
}

/// An event's id and time, from its native fields.
///
/// An event without a time has that of its id, if the id is a UUIDv7 and tells a time within the
/// horizon: then a retry has the same. Every other id is opaque, and the time is that of arrival.
pub(super) fn native_identity(
    tenant: &Uuid,
    event_id: Option<Value<'_>>,
    occurred_at: Option<Value<'_>>,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Result<(Uuid, Micros), Rejection> {
    let id = named_id(tenant, event_id)?;
    let at = match (occurred_at, &id) {
        (Some(value), _) => context.instant(value, notes)?,
        (None, Some(id)) => match time_of_id(id, context) {
            Some(at) => at,
            None => {
                notes.add(WarningCode::ArrivalTimeUsed, "occurred_at");
                context.received_at
            }
        },
        (None, None) => context.received_at,
    };
    Ok((id.unwrap_or_else(|| (context.new_event_id)()), at))
}

#[cfg(test)]
mod tests;
