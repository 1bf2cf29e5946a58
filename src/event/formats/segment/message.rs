//! One message, as a native event.

use std::borrow::Cow;

use super::events::Events;
use super::rules::{Rules, Type};
use crate::event::field::{self, Value};
use crate::event::json::Field;
use crate::event::json::scan::Scanner;
use crate::event::json::string;
use crate::event::json::walk::{self, Walker};
use crate::event::json::write::ObjectWriter;
use crate::event::rejection::{Code, Rejection};

/// Segment's names of events that tell of items, and the types of events that they become.
const EVENTS: [(&str, &str); 4] = [
    ("Product Viewed", "view"),
    ("Product Clicked", "click"),
    ("Product Added", "add_to_cart"),
    ("Order Completed", PURCHASE),
];

/// A list that was viewed: an exposure by the word of a server, impressions by that of a page.
pub(super) const LIST: &str = "Product List Viewed";

const PURCHASE: &str = "purchase";
const IMPRESSION: &str = "impression";

/// A member of a message: the object that it is in, its key there, and both for people.
pub(super) type Place = (Option<&'static str>, &'static str, &'static str);

/// Where a message says things, the first place that has something counts.
pub(super) const TIME: [Place; 2] = [
    (None, "timestamp", "timestamp"),
    (None, "originalTimestamp", "originalTimestamp"),
];
pub(super) const SESSION: [Place; 2] = [
    (Some("context"), "sessionId", "context.sessionId"),
    (Some("properties"), "session_id", "properties.session_id"),
];
pub(super) const REQUEST: [Place; 4] = [
    (Some("properties"), "request_id", "properties.request_id"),
    (
        Some("properties"),
        "recommendation_id",
        "properties.recommendation_id",
    ),
    (Some("properties"), "query_id", "properties.query_id"),
    (None, "messageId", "messageId"),
];
pub(super) const SURFACE: [Place; 3] = [
    (Some("properties"), "surface", "properties.surface"),
    (Some("properties"), "list_id", "properties.list_id"),
    (Some("properties"), "category", "properties.category"),
];
pub(super) const ORDER_VALUE: [Place; 3] = [
    (Some("properties"), "revenue", "properties.revenue"),
    (Some("properties"), "total", "properties.total"),
    (Some("properties"), "value", "properties.value"),
];
pub(super) const EVENT: [Place; 1] = [(None, "event", "event")];
const MESSAGE_ID: [Place; 1] = [(None, "messageId", "messageId")];
const USER: [Place; 1] = [(None, "userId", "userId")];
const ANONYMOUS: [Place; 1] = [(None, "anonymousId", "anonymousId")];
const ORDER_ID: [Place; 1] = [(Some("properties"), "order_id", "properties.order_id")];
const CURRENCY: [Place; 1] = [(Some("properties"), "currency", "properties.currency")];
pub(super) const PRODUCTS: [Place; 1] = [(Some("properties"), "products", "properties.products")];
const POSITION: [Place; 1] = [(Some("properties"), "position", "properties.position")];
const VALUE: [Place; 1] = [(Some("properties"), "value", "properties.value")];

/// The names of an item.
pub(super) const ITEM: [&str; 2] = ["product_id", "sku"];

/// What is read of an item.
const OF_ITEM: [&str; 7] = [
    "product_id", "sku", "position", "quantity", "price", "value", "score",
];

/// What is read of a message, and of a body, which may be one.
const OF_MESSAGE: [&str; 11] = [
    "batch", "writeKey", "type", "event", "messageId", "timestamp", "originalTimestamp", "userId",
    "anonymousId", "context", "properties",
];

/// The members of a message that are read; `None` if it is no object. Others may be very many, and are
/// not kept.
pub(super) fn members(text: &str) -> Option<Vec<Field<'_>>> {
    walk::members_named(text, &OF_MESSAGE)
}

/// A message.
#[derive(Debug)]
pub(super) struct Message<'m, 'a> {
    pub(super) members: &'m [Field<'a>],
    /// The id of its event, if it has none itself.
    pub(super) made_id: Option<&'m str>,
}

/// What a message was written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Exposure,
    Interaction,
    /// It tells of no item.
    Nothing(Type),
}

impl<'a> Message<'_, 'a> {
    /// Its type: that of its route, or else its own.
    pub(super) fn kind(&self, of_route: Option<Type>) -> Result<Type, Rejection> {
        if let Some(kind) = of_route {
            return Ok(kind);
        }
        match present(self.members, "type", "type")? {
            Some(kind) => Ok(Type::named(&kind.string()?)),
            // Only track has a name.
            None if self.find(&EVENT)?.is_some() => Ok(Type::Track),
            None => Ok(Type::Other),
        }
    }

    /// The value at the first of some places that has one, and the name of that place.
    pub(super) fn find(&self, places: &[Place]) -> Result<Option<Value<'a>>, Rejection> {
        for &(object, key, name) in places {
            let found = match object {
                None => present(self.members, key, name)?,
                Some(object) => present(&self.object(object, &[key])?, key, name)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Whether it has an id, which is not one that was made.
    pub(super) fn has_id(&self) -> bool {
        !matches!(self.find(&MESSAGE_ID), Ok(None))
    }

    /// The members of one of its objects that have these names; none if it is absent.
    fn object(&self, name: &'static str, names: &[&str]) -> Result<Vec<Field<'a>>, Rejection> {
        let Some(value) = present(self.members, name, name)? else {
            return Ok(Vec::new());
        };
        let members = walk::members_named(value.raw, names);
        members.ok_or_else(|| value.wrong_type("an object"))
    }

    /// The product that the event itself is about.
    fn own_product(&self) -> Result<Vec<Field<'a>>, Rejection> {
        let properties = self.object("properties", &OF_ITEM)?;
        Ok(match item_id(&properties)? {
            Some(_) => properties,
            None => Vec::new(),
        })
    }

    /// Its list of products; an empty list says nothing if the message names a product itself.
    pub(super) fn products(&self) -> Result<Option<Value<'a>>, Rejection> {
        let found = self.find(&PRODUCTS)?;
        let is_empty = |value: &Value<'_>| {
            let mut walker = Walker::new(value.raw);
            walker.enter(b'[') && !walker.more(b']')
        };
        match found.filter(is_empty).is_some() && !self.own_product()?.is_empty() {
            true => Ok(None),
            false => Ok(found),
        }
    }

    /// Writes a message of the type track.
    pub(super) fn write(
        &self,
        rules: Rules<'_>,
        exposures: &mut Events,
        interactions: &mut Events,
    ) -> Result<Written, Rejection> {
        let Some(name) = self.find(&EVENT)? else {
            return Err(Rejection::of(Code::MissingField, "event", "is required"));
        };
        let name = name.string()?;
        let name = name.trim();
        let named = rules.event_names.get(name).map(String::as_str);
        let known = EVENTS.iter().find(|(known, _)| *known == name);
        let event_type = named.or(known.map(|(_, event_type)| *event_type));
        if event_type.is_none() && name != LIST {
            return Ok(Written::Nothing(Type::Track));
        }
        if rules.is_tenant_a_guess {
            return Err(Rejection::whole(
                Code::MissingTenant,
                "a message names no tenant, and the key may write for any: send the header X-Org-Id, or use the tenant's own key",
            ));
        }
        let event_type = match event_type {
            Some(event_type) => event_type,
            None if rules.is_public => IMPRESSION,
            None => {
                let out = self.exposure()?;
                exposures.next().push_str(&out);
                return Ok(Written::Exposure);
            }
        };
        let out = self.interaction(event_type)?;
        interactions.next().push_str(&out);
        Ok(Written::Interaction)
    }

    fn exposure(&self) -> Result<String, Rejection> {
        let mut out = String::new();
        let mut object = ObjectWriter::open(&mut out);
        self.push_common(&mut object)?;
        if let Some(products) = self.find(&PRODUCTS)? {
            let ranks = has_ranks(products);
            push_list(object.name("items"), products, |item, members| {
                if ranks {
                    push_number(item, "rank", present(members, "position", "position")?);
                }
                push_number(item, "score", present(members, "score", "score")?);
                Ok(())
            })?;
        }
        object.close();
        Ok(out)
    }

    fn interaction(&self, event_type: &str) -> Result<String, Rejection> {
        let mut out = String::new();
        let mut object = ObjectWriter::open(&mut out);
        self.push_common(&mut object)?;
        object.str("event_type", event_type);
        let is_of_list = [PURCHASE, IMPRESSION].contains(&event_type);
        // A product that was viewed, clicked or added is that of the event: a list next to it is the cart or
        // what stood around it.
        let products = match is_of_list || self.own_product()?.is_empty() {
            true => self.products()?,
            false => None,
        };
        if event_type == PURCHASE
            && let Some(id) = self.find(&ORDER_ID)?
        {
            let mut order = ObjectWriter::open(object.name("order"));
            push_id(&mut order, "id", Some(id));
            push_number(&mut order, "value", self.find(&ORDER_VALUE)?);
            push_id(&mut order, "currency", self.find(&CURRENCY)?);
            order.close();
        }
        // What was seen or clicked has a price, too, which is no value of that event.
        let names: &[&'static str] = match event_type {
            PURCHASE => &["position", "quantity", "price", "value"],
            _ => &["position"],
        };
        let more = |item: &mut ObjectWriter<'_>, members: &[Field<'a>]| -> Result<(), Rejection> {
            for &name in names {
                push_number(item, name, present(members, name, name)?);
            }
            Ok(())
        };
        match products {
            Some(products) => push_list(object.name("items"), products, more)?,
            // The event is about one product, and its price counts.
            None if event_type == PURCHASE => {
                let properties = self.own_product()?;
                if properties.is_empty() {
                    return Err(Rejection::of(
                        Code::MissingField,
                        PRODUCTS[0].2,
                        "is required, with the product_id of each; or product_id, if it is one",
                    ));
                }
                let items = object.name("items");
                items.push('[');
                push_item(items, &properties, &more)?;
                items.push(']');
            }
            None => {
                push_id(&mut object, "item_id", item_id(&self.own_product()?)?);
                push_number(&mut object, "position", self.find(&POSITION)?);
                push_number(&mut object, "value", self.find(&VALUE)?);
            }
        }
        object.close();
        Ok(out)
    }

    /// Writes what events of all types have.
    fn push_common(&self, object: &mut ObjectWriter<'_>) -> Result<(), Rejection> {
        match (self.find(&MESSAGE_ID)?, self.made_id) {
            (None, Some(made)) => {
                object.str("event_id", made);
            }
            (id, _) => push_id(object, "event_id", id),
        }
        if let Some(time) = self.find(&TIME)? {
            object.raw("occurred_at", time.raw);
        }
        push_id(object, "request_id", self.find(&REQUEST)?);
        push_id(object, "user_id", self.find(&USER)?);
        push_id(object, "anonymous_id", self.find(&ANONYMOUS)?);
        push_id(object, "session_id", self.find(&SESSION)?);
        self.push_surface(object)
    }

    /// Writes the surface. That of `surface` itself is taken or refused as it is; the other two are
    /// no names of surfaces, and are made into one.
    fn push_surface(&self, object: &mut ObjectWriter<'_>) -> Result<(), Rejection> {
        let Some(value) = self.find(&SURFACE)? else {
            return Ok(());
        };
        let is_own = value.name == SURFACE[0].2;
        match string::as_str(value.raw) {
            Some(text) if !is_own => {
                let safe = text.replace(|c: char| matches!(c, '/' | '\\') || c.is_control(), "_");
                let safe = match safe.trim() {
                    "." => "_",
                    ".." => "__",
                    other => other,
                };
                object.str("surface", safe);
            }
            _ => push_id(object, "surface", Some(value)),
        }
        Ok(())
    }
}

/// Whether each product of a list has a position that can be a rank: from 1 on. Clients that count
/// from 0 are not told apart from others by one item, so a list has ranks or none.
fn has_ranks(products: Value<'_>) -> bool {
    let mut walker = Walker::new(products.raw);
    if !walker.enter(b'[') {
        return false;
    }
    let mut all = true;
    while walker.more(b']') {
        let members = walk::members_named(walker.value().0, &["position"]).unwrap_or_default();
        let position = present(&members, "position", "position").ok().flatten();
        let position = position.map(|value| number(value.raw));
        all &= position.is_some_and(|text| text.parse::<u32>().is_ok_and(|rank| rank > 0));
    }
    all
}

/// Writes the products of a list as items. What is no list, or no object in it, is written as it is: native
/// events are refused for it.
fn push_list<'a>(
    out: &mut String,
    products: Value<'a>,
    more: impl Fn(&mut ObjectWriter<'_>, &[Field<'a>]) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut walker = Walker::new(products.raw);
    if !walker.enter(b'[') {
        out.push_str(products.raw);
        return Ok(());
    }
    out.push('[');
    let mut place = 0;
    while walker.more(b']') {
        if place > 0 {
            out.push(',');
        }
        let (raw, _) = walker.value();
        match walk::members_named(raw, &OF_ITEM) {
            Some(members) => push_item(out, &members, &more).map_err(|rejection| {
                let inner = rejection.field.as_deref().unwrap_or_default();
                let field = format!("properties.products[{place}].{inner}");
                Rejection {
                    field: Some(field.into()),
                    ..rejection
                }
            })?,
            None => out.push_str(raw),
        }
        place += 1;
    }
    out.push(']');
    Ok(())
}

fn push_item<'a>(
    out: &mut String,
    members: &[Field<'a>],
    more: &impl Fn(&mut ObjectWriter<'_>, &[Field<'a>]) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut item = ObjectWriter::open(out);
    push_id(&mut item, "item_id", item_id(members)?);
    more(&mut item, members)?;
    item.close();
    Ok(())
}

fn item_id<'a>(members: &[Field<'a>]) -> Result<Option<Value<'a>>, Rejection> {
    for name in ITEM {
        let found = present(members, name, name)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Writes an id. Some clients have numbers for ids.
fn push_id(object: &mut ObjectWriter<'_>, name: &str, value: Option<Value<'_>>) {
    let Some(value) = value else { return };
    if is_number(value.raw) {
        object.str(name, value.raw);
    } else {
        object.raw(name, value.raw);
    }
}

/// Writes a number. Some clients have strings for numbers.
fn push_number(object: &mut ObjectWriter<'_>, name: &str, value: Option<Value<'_>>) {
    if let Some(value) = value {
        object.raw(name, &number(value.raw));
    }
}

/// The number in a string, and a whole number without the zeros that some clients write behind it
/// (`2.0`); every other value as it is.
fn number(raw: &str) -> Cow<'_, str> {
    let text = string::as_str(raw).unwrap_or(Cow::Borrowed(raw));
    let trimmed = text.trim();
    let mut scanner = Scanner::new(trimmed);
    let is_one = is_number(trimmed) && scanner.value(0).is_ok() && scanner.peek().is_none();
    if !is_one {
        return raw.into();
    }
    let whole = trimmed.split_once('.').map_or(trimmed, |(whole, rest)| {
        match rest.bytes().all(|digit| digit == b'0') {
            true => whole,
            false => trimmed,
        }
    });
    whole.to_owned().into()
}

fn is_number(raw: &str) -> bool {
    raw.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// The value of a member that is present, not null and not blank.
fn present<'a>(
    members: &[Field<'a>],
    key: &str,
    name: &'static str,
) -> Result<Option<Value<'a>>, Rejection> {
    let value = field::member(members, key, name)?;
    let is_blank =
        |value: &Value<'_>| string::as_str(value.raw).is_some_and(|text| text.trim().is_empty());
    Ok(value.filter(|value| !is_blank(value)))
}
