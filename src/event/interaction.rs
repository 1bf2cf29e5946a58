//! Interactions: what people did. Reads native events, and encodes the row of any format.

use std::borrow::Cow;

use uuid::Uuid;

use super::body::RawEvent;
use super::context::{Context, native_identity};
use super::field::{self, Names, Value, opt_path_safe, required};
use super::format::Format;
use super::identity::RequestId;
use super::items;
use super::meta::{Meta, MetaParts};
use super::numeric::Decimal;
use super::rejection::{Code, Rejection};
use super::row::Key;
use super::row::writer::RowWriter;
use super::subject::{HexText, Subject, pseudonym};
use super::time::Micros;
use super::unknown;
use super::warning::Notes;

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

/// Reads a native interaction, and appends its rows: one, or one for each of its items. An event
/// that is rejected leaves none.
pub(super) fn native<'a>(
    event: &RawEvent<'a, '_>,
    context: &Context<'_>,
    notes: &mut Notes<'a>,
    out: &mut RowWriter,
) -> Result<(), Rejection> {
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
        list,
        order,
    ] = unknown::pick(
        event,
        const {
            &Names::new([
                "event_id", "occurred_at", "request_id", "user_id", "user_id_hash", "anonymous_id",
                "anonymous_id_hash", "session_id", "session_id_hash", "surface", "segment",
                "event_type", "item_id", "position", "value", "meta", "tenant_id", "tenant",
                "items", "order",
            ])
        },
        context,
        notes,
        &mut meta.extra,
    )?;
    let tenant = context.tenant_of(&[tenant_id, tenant])?;
    let (event_id, occurred_at) = native_identity(&tenant, event_id, occurred_at, context, notes)?;
    let request_id = field::opt_text(request_id)?.map(RequestId::parse);
    let subject = Subject::new(
        pseudonym(user_id, user_id_hash, context)?,
        pseudonym(anonymous_id, anonymous_id_hash, context)?,
        pseudonym(session_id, session_id_hash, context)?,
    );
    let kind = required(kind, "event_type")?;
    meta.client = client_meta;
    let mut row = Interaction {
        key: Key {
            tenant,
            occurred_at,
            event_id,
        },
        received_at: context.received_at,
        surface: opt_path_safe(surface)?,
        segment: opt_path_safe(segment)?,
        event_type: event_type(kind)?,
        item_id: Cow::Borrowed(""),
        position: None,
        value: None,
        meta: None,
        request_id: request_id.as_ref().map(|id| id.uuid),
        subject,
    };
    context.check_surface(&tenant, row.surface.as_deref())?;
    if let Some(order) = order {
        meta.kept
            .push(("order", items::order(order, context, notes)?));
    }
    let Some(list) = list else {
        row.item_id = items::item_id(item_id)?;
        row.position = position.map(|value| value.int(0)).transpose()?;
        row.value = value
            .map(|value| items::decimal(value, notes))
            .transpose()?;
        row.meta = meta.text(
            Format::Native,
            false,
            request_id.as_ref(),
            &row.subject,
            context,
            notes,
        )?;
        row.encode(out);
        return Ok(());
    };
    if let Some(one) = [item_id, position, value].into_iter().flatten().next() {
        return Err(Rejection::of(
            Code::ConflictingFields,
            one.name,
            format!(
                "stands beside items; it belongs into each of them as items[].{}, or items is left out",
                one.name
            ),
        ));
    }
    let list = items::items(list, context, notes)?;
    meta.of_rows = &["quantity", "price"];
    let parts = meta.parts(
        Format::Native,
        false,
        request_id.as_ref(),
        &row.subject,
        context,
        notes,
    )?;
    row.check_shared_bytes(&parts, list.len())?;
    for (place, item) in list.into_iter().enumerate() {
        row.meta = parts.of_item(&item);
        row.key.event_id = items::row_id(&event_id, place);
        row.item_id = item.item_id;
        row.position = item.position;
        row.value = item.value;
        row.encode(out);
    }
    Ok(())
}

/// Most bytes of what the rows of one event share, over all rows. The memory limit is asked after each
/// event, so its rows may not be many times its text: this is as much as 1,000 items with 4 KiB.
const SHARED_BYTES_MAX: usize = 4 << 20;

impl Interaction<'_> {
    fn check_shared_bytes(&self, meta: &MetaParts, rows: usize) -> Result<(), Rejection> {
        let texts = [&self.surface, &self.segment].into_iter().flatten();
        let texts: usize = texts.map(|text| text.len()).sum();
        let bytes = (meta.len_bytes() + texts).saturating_mul(rows);
        if bytes <= SHARED_BYTES_MAX {
            return Ok(());
        }
        Err(Rejection::whole(
            Code::EventTooLarge,
            format!(
                "the event's {rows} rows have {bytes} bytes in common, which are stored with each; the most is {SHARED_BYTES_MAX}: send a smaller meta, or fewer items"
            ),
        ))
    }
}

/// The labels of the enum `interaction_type`.
pub(crate) const LABELS: [&str; 5] = ["impression", "view", "click", "add_to_cart", "purchase"];

/// recsys-eval's name for a purchase, which `event_type` may have, too.
pub(crate) const CONVERSION: &str = "conversion";

/// The label of an event type.
fn event_type(value: Value<'_>) -> Result<&'static str, Rejection> {
    let named = value.string()?;
    let label = match &*named {
        CONVERSION => "purchase",
        named => named,
    };
    let found = LABELS.into_iter().find(|known| *known == label);
    found.ok_or_else(|| {
        Rejection::of(
            Code::InvalidValue,
            value.name,
            format!("must be one of {}", LABELS.join(", ")),
        )
    })
}
