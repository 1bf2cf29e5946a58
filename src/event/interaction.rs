//! Interactions: what people did. Reads native events, and encodes the row of any format.

use std::borrow::Cow;

use uuid::Uuid;

use super::body::RawEvent;
use super::context::{Context, native_identity};
use super::field::{self, KEY_BYTES_MAX, Names, Value, opt_path_safe, required};
use super::format::Format;
use super::identity::RequestId;
use super::meta::Meta;
use super::numeric::Decimal;
use super::rejection::{Code, Rejection};
use super::row::Key;
use super::row::writer::RowWriter;
use super::subject::{HexText, Subject, pseudonym};
use super::time::Micros;

/// A valid interaction.
#[derive(Debug)]
pub(super) struct Interaction<'a> {
    pub(super) key: Key,
    pub(super) received_at: Micros,
    pub(super) request_id: Option<Uuid>,
    pub(super) subject: Subject,
    pub(super) surface: Option<Cow<'a, str>>,
    pub(super) segment: Option<Cow<'a, str>>,
    pub(super) event_type: &'static str,
    pub(super) item_id: Cow<'a, str>,
    pub(super) position: Option<i32>,
    pub(super) value: Option<Decimal>,
    pub(super) meta: Option<String>,
}

impl Interaction<'_> {
    /// Appends the event's row.
    pub(super) fn encode(&self, out: &mut RowWriter) {
        out.row(&self.key)
            .time(self.received_at)
            .opt_uuid(self.request_id.as_ref())
            .opt_bytes(self.subject.user_key.as_ref().map(<[u8; 32]>::as_slice))
            .opt_bytes(self.subject.session.as_ref().map(HexText::as_bytes))
            .opt_text(self.surface.as_deref())
            .opt_text(self.segment.as_deref())
            .text(self.event_type)
            .text(&self.item_id)
            .opt_int(self.position)
            .opt_decimal(self.value)
            .opt_json(self.meta.as_deref())
            .end();
    }
}

/// Reads a native interaction.
pub(super) fn native<'a>(
    event: &RawEvent<'a, '_>,
    context: &Context<'_>,
) -> Result<Interaction<'a>, Rejection> {
    let mut meta = Meta::default();
    let [
        event_id,
        occurred_at,
        request_id,
        user_id,
        user_id_hash,
        anonymous_id,
        anonymous_id_hash,
        session_id,
        session_id_hash,
        surface,
        segment,
        kind,
        item_id,
        position,
        value,
        client_meta,
        tenant_id,
        tenant,
    ] = field::pick(
        event,
        const {
            &Names::new([
                "event_id", "occurred_at", "request_id", "user_id", "user_id_hash", "anonymous_id",
                "anonymous_id_hash", "session_id", "session_id_hash", "surface", "segment",
                "event_type", "item_id", "position", "value", "meta", "tenant_id", "tenant",
            ])
        },
        &mut meta.extra,
    )?;
    let tenant = context.tenant_of_either(tenant_id, tenant)?;
    let (event_id, occurred_at) = native_identity(&tenant, event_id, occurred_at, context)?;
    let request_id = field::opt_text(request_id)?.map(RequestId::parse);
    let subject = Subject::new(
        pseudonym(user_id, user_id_hash, context)?,
        pseudonym(anonymous_id, anonymous_id_hash, context)?,
        pseudonym(session_id, session_id_hash, context)?,
    );
    let kind = required(kind, "event_type")?;
    meta.client = client_meta;
    Ok(Interaction {
        key: Key {
            tenant,
            occurred_at,
            event_id,
        },
        received_at: context.received_at,
        surface: opt_path_safe(surface)?,
        segment: opt_path_safe(segment)?,
        event_type: event_type(kind)?,
        item_id: item(item_id)?,
        position: position.map(|value| value.int(0)).transpose()?,
        value: value.map(decimal).transpose()?,
        meta: meta.text(
            Format::Native,
            false,
            request_id.as_ref(),
            &subject,
            context,
        )?,
        request_id: request_id.map(|id| id.uuid),
        subject,
    })
}

/// What `event_type` may be; `conversion` is recsys-eval's name for a purchase.
pub(crate) const EVENT_TYPES: [&str; 6] = [
    "impression", "view", "click", "add_to_cart", "purchase", "conversion",
];

/// The label in the enum `interaction_type`.
fn event_type(value: Value<'_>) -> Result<&'static str, Rejection> {
    match &*value.string()? {
        "impression" => Ok("impression"),
        "view" => Ok("view"),
        "click" => Ok("click"),
        "add_to_cart" => Ok("add_to_cart"),
        // recsys-eval's name for it.
        "purchase" | "conversion" => Ok("purchase"),
        _ => Err(Rejection::of(
            Code::InvalidValue,
            value.name,
            "must be one of impression, view, click, add_to_cart, purchase",
        )),
    }
}

/// The item of the interaction.
pub(super) fn item<'a>(value: Option<Value<'a>>) -> Result<Cow<'a, str>, Rejection> {
    let text = required(value, "item_id")?.text(KEY_BYTES_MAX)?;
    required(text, "item_id")
}

/// The value of an interaction.
pub(super) fn decimal(value: Value<'_>) -> Result<Decimal, Rejection> {
    Decimal::parse(value.number()?).ok_or_else(|| {
        Rejection::of(
            Code::NumberOutOfRange,
            value.name,
            "must be below 10^12, as numeric(18,6) holds it",
        )
    })
}
