//! The fields of native events, as Segment's messages name them.

use super::message::{
    EVENT, ITEM, LIST, Message, ORDER_VALUE, Place, REQUEST, SESSION, SURFACE, TIME,
};
use crate::event::json::string;

/// The place in a message that a field of its native event comes from.
pub(super) fn of(message: &Message<'_, '_>, field: &str) -> String {
    let first = |places: &[Place]| {
        let found = message.find(places).ok().flatten();
        found.map_or(places[0].2, |value| value.name).to_owned()
    };
    match field {
        "event_id" => "messageId".to_owned(),
        "occurred_at" => first(&TIME),
        "user_id" => "userId".to_owned(),
        "anonymous_id" => "anonymousId".to_owned(),
        "session_id" => first(&SESSION),
        "request_id" => first(&REQUEST),
        "surface" => first(&SURFACE),
        "order.id" => "properties.order_id".to_owned(),
        "order.value" => first(&ORDER_VALUE),
        "order.currency" => "properties.currency".to_owned(),
        "order" => "properties".to_owned(),
        _ => match (field.strip_prefix("items"), has_products(message)) {
            (Some(rest), true) => {
                let rest = rest.replace(".item_id", &format!(".{}", ITEM[0]));
                format!("properties.products{}", rest.replace(".rank", ".position"))
            }
            // The item is the event's own product.
            (Some(rest), false) => {
                let member = rest.split_once('.').map_or("", |(_, member)| member);
                of_properties(member)
            }
            (None, _) => of_properties(field),
        },
    }
}

/// The same for a warning, which is about many messages.
pub(super) fn of_warning(field: &str) -> &str {
    match field {
        "occurred_at" => TIME[0].2,
        "value" => "properties.value",
        "items.value" => "properties.products.value",
        other => other,
    }
}

fn of_properties(member: &str) -> String {
    match member {
        "" => "properties".to_owned(),
        "item_id" => format!("properties.{}", ITEM[0]),
        other => format!("properties.{other}"),
    }
}

/// Whether the items of its native event are those of a list.
fn has_products(message: &Message<'_, '_>) -> bool {
    let name = message.find(&EVENT).ok().flatten();
    let is_list =
        name.is_some_and(|name| string::as_str(name.raw).is_some_and(|name| name.trim() == LIST));
    is_list || matches!(message.products(), Ok(Some(_)))
}
