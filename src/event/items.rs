//! What an interaction says of items: one by `item_id`, or several in `items`, and the `order` that
//! they belong to.

use std::borrow::Cow;

use uuid::Uuid;

use super::context::Context;
use super::field::{self, KEY_BYTES_MAX, Value, required};
use super::json::Field;
use super::json::walk::{self, Walker};
use super::json::write::ObjectWriter;
use super::numeric::Decimal;
use super::rejection::{Code, Rejection};
use super::subject;
use super::unknown;
use super::warning::{Notes, WarningCode};

/// One of several items.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) item_id: Cow<'a, str>,
    pub(super) position: Option<i32>,
    pub(super) value: Option<Decimal>,
    /// `quantity` and `price` as they came, for `meta`.
    pub(super) kept: Vec<(&'static str, &'a str)>,
    /// Members that are not known here, scrubbed, as a JSON object; empty if there are none.
    pub(super) extra: String,
}

/// Reads `items`: at least one, at most as many as an event may have.
pub(super) fn items<'a>(
    list: Value<'a>,
    context: &Context<'_>,
    notes: &mut Notes<'a>,
) -> Result<Vec<Item<'a>>, Rejection> {
    let mut walker = Walker::new(list.raw);
    if !walker.enter(b'[') {
        return Err(list.wrong_type("an array"));
    }
    let mut count = 0;
    let mut raw_items = Vec::new();
    while walker.more(b']') {
        let (raw, _) = walker.value();
        count += 1;
        if count <= context.items_max {
            raw_items.push(raw);
        }
    }
    // A list that is too long is rejected for its length, even if an item is wrong, too.
    if count > context.items_max {
        return Err(too_many(count, context));
    }
    if raw_items.is_empty() {
        return Err(Rejection::of(
            Code::InvalidValue,
            list.name,
            "is empty; an event has at least one item",
        ));
    }
    let read = |(place, raw)| {
        Item::read(raw, context, notes).map_err(|rejection: Rejection| rejection.in_item(place))
    };
    raw_items.into_iter().enumerate().map(read).collect()
}

/// Rejects a list for its length.
pub(super) fn too_many(count: usize, context: &Context<'_>) -> Rejection {
    Rejection::of(
        Code::TooManyItems,
        "items",
        format!("has {count} items; the most is {}", context.items_max),
    )
}

impl<'a> Item<'a> {
    fn read(raw: &'a str, context: &Context<'_>, notes: &mut Notes<'a>) -> Result<Self, Rejection> {
        const NAMES: [&str; 5] = ["item_id", "position", "quantity", "price", "value"];
        let Some(members) = walk::members(raw) else {
            return Err(Rejection::of(Code::InvalidType, "", "an item is an object"));
        };
        let of = |name| field::member(&members, name, name);
        let item_id = item_id(of("item_id")?)?;
        let position = of("position")?.map(|value| value.int(0)).transpose()?;
        let (quantity, price) = (of("quantity")?, of("price")?);
        for value in [quantity, price].into_iter().flatten() {
            in_range(value)?;
        }
        let value = match (of("value")?, price) {
            (Some(value), _) => Some(decimal_telling(value)?),
            (None, Some(price)) => Some(product(price, quantity)?),
            (None, None) => None,
        };
        if let Some((_, true)) = value {
            notes.add(WarningCode::ValueRounded, "items.value");
        }
        let kept = [quantity, price].into_iter().flatten();
        let kept = kept.map(|value| (value.name, value.raw)).collect();
        let unknown = members.iter().filter(|field| !NAMES.contains(&&*field.key));
        let unknown: Vec<_> = unknown.collect();
        if context.strict
            && let Some(field) = unknown.first()
        {
            return Err(unknown::refused(&field.key));
        }
        unknown::note(notes, unknown.iter().copied(), |field| {
            format!("items.{}", field.key).into()
        });
        let place = of("position")?.and_then(|value| unknown::number(value.raw));
        for field in &unknown {
            if field.key != "rank" {
                continue;
            }
            let rank = unknown::number(field.raw);
            if place.is_some() && rank.is_some() && rank != place {
                return Err(Rejection::of(
                    Code::ConflictingFields,
                    "rank",
                    "says something else than position, which means the same; send one of the two",
                ));
            }
        }
        let mut extra = String::new();
        if !unknown.is_empty() {
            let mut object = ObjectWriter::open(&mut extra);
            subject::push_members(&mut object, unknown, context.pseudonymizer)?;
            object.close();
        }
        Ok(Self {
            item_id,
            position,
            value: value.map(|(value, _)| value),
            kept,
            extra,
        })
    }
}

/// The id of the row of the item at this place, from 0.
pub(super) fn row_id(event_id: &Uuid, place: usize) -> Uuid {
    Uuid::new_v5(event_id, format!("/{place}").as_bytes())
}

/// Checks an order, and returns it as it came: it is kept whole.
pub(super) fn order<'a>(
    order: Value<'a>,
    context: &Context<'_>,
    notes: &mut Notes<'a>,
) -> Result<&'a str, Rejection> {
    let members = order.members()?;
    let of = |name, key| field::member(&members, key, name);
    let id = required(of("order.id", "id")?, "order.id")?.text(KEY_BYTES_MAX)?;
    required(id, "order.id")?;
    if let Some(value) = of("order.value", "value")? {
        in_range(value)?;
    }
    if let Some(currency) = of("order.currency", "currency")? {
        currency.text(KEY_BYTES_MAX)?;
    }
    let name = |field: &Field<'a>| format!("order.{}", field.key);
    let is_unknown = |field: &&Field<'a>| !["id", "value", "currency"].contains(&&*field.key);
    let mut unknown = members.iter().filter(is_unknown).peekable();
    if context.strict
        && let Some(field) = unknown.peek()
    {
        return Err(unknown::refused(&name(field)));
    }
    unknown::note(notes, unknown, |field| name(field).into());
    Ok(order.raw)
}

/// The item of an event that names one.
pub(super) fn item_id<'a>(value: Option<Value<'a>>) -> Result<Cow<'a, str>, Rejection> {
    let text = required(value, "item_id")?.text(KEY_BYTES_MAX)?;
    required(text, "item_id")
}

/// The value of an interaction.
pub(super) fn decimal(value: Value<'_>, notes: &mut Notes<'_>) -> Result<Decimal, Rejection> {
    let (decimal, is_rounded) = decimal_telling(value)?;
    if is_rounded {
        notes.add(WarningCode::ValueRounded, value.name);
    }
    Ok(decimal)
}

fn decimal_telling(value: Value<'_>) -> Result<(Decimal, bool), Rejection> {
    Decimal::parse_telling(value.number()?).ok_or_else(|| {
        Rejection::of(
            Code::NumberOutOfRange,
            value.name,
            "must be below 10^12, as numeric(18,6) holds it",
        )
    })
}

/// Checks a number that no column takes.
fn in_range(value: Value<'_>) -> Result<(), Rejection> {
    decimal_telling(value).map(|_| ())
}

/// The value of an item that has a price.
fn product(price: Value<'_>, quantity: Option<Value<'_>>) -> Result<(Decimal, bool), Rejection> {
    let quantity = quantity.map_or("1", |value| value.raw);
    Decimal::product(price.raw, quantity).ok_or_else(|| {
        Rejection::of(
            Code::NumberOutOfRange,
            price.name,
            "times quantity must be below 10^12, as numeric(18,6) holds it",
        )
    })
}

#[cfg(test)]
mod tests;
