//! Why an event was rejected, in a form that programs can act on.

use std::borrow::Cow;

use super::warning::beginning_of;

/// Stable names of the reasons; they are part of the API and of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The line is not JSON (only where each line stands alone).
    InvalidJson,
    /// The line is not UTF-8.
    InvalidUtf8,
    /// The event is not a JSON object.
    NotAnObject,
    /// The event is larger than one event may be.
    EventTooLarge,
    /// The event has more fields than one event may have.
    TooManyFields,
    /// The event nests too deeply.
    TooDeep,
    /// A string holds something that Postgres cannot store.
    InvalidUnicode,
    /// A number is too large, too small or too long.
    NumberOutOfRange,
    /// A required field is absent, null or blank.
    MissingField,
    /// A field has a value of the wrong JSON type.
    InvalidType,
    /// A field has a value that means nothing here.
    InvalidValue,
    /// A field is longer than its column takes.
    TooLong,
    /// A field stands twice.
    DuplicateField,
    /// Two fields contradict each other.
    ConflictingFields,
    /// A timestamp is not RFC 3339 with an offset, or names a day or a leap second that there is not.
    InvalidTimestamp,
    /// The event is further in the past or future than is accepted.
    OccurredAtOutOfRange,
    /// More items than one event may hold.
    TooManyItems,
    /// The format does not know a field, and the request asks to refuse such events.
    UnknownField,
    /// The event names no tenant, and the key may write for any.
    MissingTenant,
    /// The tenant that the event names does not exist.
    UnknownTenant,
    /// The event names another tenant than the key's, and the key may not.
    TenantMismatch,
    /// The tenant that the event names is suspended or deleted.
    TenantNotActive,
    /// The surface is not one of those that the tenant's settings list.
    UnknownSurface,
    /// The event is in a format that this endpoint does not take.
    UnsupportedFormat,
    /// The key is in public hands and may not set the field.
    FieldNotAllowed,
}

impl Code {
    /// All codes, in the order of the documentation.
    pub const ALL: [Code; 25] = [
        Code::InvalidJson,
        Code::InvalidUtf8,
        Code::NotAnObject,
        Code::EventTooLarge,
        Code::TooManyFields,
        Code::TooDeep,
        Code::InvalidUnicode,
        Code::NumberOutOfRange,
        Code::MissingField,
        Code::InvalidType,
        Code::InvalidValue,
        Code::TooLong,
        Code::DuplicateField,
        Code::ConflictingFields,
        Code::InvalidTimestamp,
        Code::OccurredAtOutOfRange,
        Code::TooManyItems,
        Code::UnknownField,
        Code::MissingTenant,
        Code::UnknownTenant,
        Code::TenantMismatch,
        Code::TenantNotActive,
        Code::UnknownSurface,
        Code::UnsupportedFormat,
        Code::FieldNotAllowed,
    ];

    /// The code's name in responses and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::InvalidJson => "invalid_json",
            Code::InvalidUtf8 => "invalid_utf8",
            Code::NotAnObject => "not_an_object",
            Code::EventTooLarge => "event_too_large",
            Code::TooManyFields => "too_many_fields",
            Code::TooDeep => "too_deep",
            Code::InvalidUnicode => "invalid_unicode",
            Code::NumberOutOfRange => "number_out_of_range",
            Code::MissingField => "missing_field",
            Code::InvalidType => "invalid_type",
            Code::InvalidValue => "invalid_value",
            Code::TooLong => "too_long",
            Code::DuplicateField => "duplicate_field",
            Code::ConflictingFields => "conflicting_fields",
            Code::InvalidTimestamp => "invalid_timestamp",
            Code::OccurredAtOutOfRange => "occurred_at_out_of_range",
            Code::TooManyItems => "too_many_items",
            Code::UnknownField => "unknown_field",
            Code::MissingTenant => "missing_tenant",
            Code::UnknownTenant => "unknown_tenant",
            Code::TenantMismatch => "tenant_mismatch",
            Code::TenantNotActive => "tenant_not_active",
            Code::UnknownSurface => "unknown_surface",
            Code::UnsupportedFormat => "unsupported_format",
            Code::FieldNotAllowed => "field_not_allowed",
        }
    }
}

impl Code {
    /// The code in words, for the documentation.
    pub const fn description(self) -> &'static str {
        match self {
            Code::InvalidJson => "The line is not JSON (only where each line stands alone)",
            Code::InvalidUtf8 => "The line is not UTF-8",
            Code::NotAnObject => "The event is not a JSON object",
            Code::EventTooLarge => "The event is larger than one event may be",
            Code::TooManyFields => "The event has more fields than one event may have (1024)",
            Code::TooDeep => "The event nests too deeply (more than 64 levels)",
            Code::InvalidUnicode => "A string holds something that Postgres cannot store",
            Code::NumberOutOfRange => "A number is too large, too small or too long",
            Code::MissingField => "A required field is absent, null or blank",
            Code::InvalidType => "A field has a value of the wrong JSON type",
            Code::InvalidValue => "A field has a value that means nothing here",
            Code::TooLong => "A field is longer than its column takes",
            Code::DuplicateField => "A field stands twice",
            Code::ConflictingFields => "Two fields for one thing say different things",
            Code::InvalidTimestamp => {
                "A timestamp is not RFC 3339 with an offset, or names a day or a leap second that there is not"
            }
            Code::OccurredAtOutOfRange => {
                "The event is further in the past or future than is accepted"
            }
            Code::TooManyItems => "More items than one event may hold (1000)",
            Code::UnknownField => {
                "The format does not know a field, and `?strict=true` asks to refuse such events"
            }
            Code::MissingTenant => {
                "The event names no tenant, in a format that has no field for it, and the key may write for any: send X-Org-Id, or use the tenant's own key"
            }
            Code::UnknownTenant => "The tenant that the event names does not exist",
            Code::TenantMismatch => {
                "The event names another tenant than the key's, and the key may not"
            }
            Code::TenantNotActive => "The tenant that the event names is suspended or deleted",
            Code::UnknownSurface => {
                "The surface is not one of those that the tenant's settings list"
            }
            Code::UnsupportedFormat => {
                "The event is in a format that this endpoint, or a publish key, does not take"
            }
            Code::FieldNotAllowed => {
                "Only a server may set the field, and the key is a publish key: a hash of an id, or what the service or the exposure says"
            }
        }
    }
}

/// Why one event was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reason, for programs.
    pub code: Code,
    /// The field at fault, if it is one field.
    pub field: Option<Cow<'static, str>>,
    /// The reason, for people. Never repeats values that may identify a person.
    pub message: Cow<'static, str>,
}

impl Rejection {
    /// A rejection because of one field.
    pub fn of(
        code: Code,
        field: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            code,
            field: Some(field.into()),
            message: message.into(),
        }
    }

    /// The rejection of an item's field, as one of the event that has the item at this place.
    #[must_use]
    pub fn in_item(self, place: usize) -> Self {
        let inner = self.field.as_deref().unwrap_or_default();
        let dot = if inner.is_empty() { "" } else { "." };
        Self {
            field: Some(format!("items[{place}]{dot}{inner}").into()),
            ..self
        }
    }

    /// The rejection of a member, as one of what has it under this name or, in brackets, at this place.
    #[must_use]
    pub fn within(self, name: &str) -> Self {
        let inner = self.field.as_deref().unwrap_or_default();
        let is_place = inner.is_empty() || inner.starts_with('[');
        let dot = if is_place { "" } else { "." };
        Self {
            field: Some(format!("{}{dot}{inner}", beginning_of(name)).into()),
            ..self
        }
    }

    /// A rejection because of the event as a whole.
    pub fn whole(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            field: None,
            message: message.into(),
        }
    }
}
