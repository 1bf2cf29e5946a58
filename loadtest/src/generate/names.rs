//! The words that numbers stand for: ids, versions, hashes.
//!
//! Every word exists once, here, as text; the few that need an escape in JSON
//! are items, and [`push_item_json`] knows how.

use super::event::{RequestId, Session, Who};
use super::random::Draws;
use super::text::push_number;

/// Every 97th item has a name that needs escapes and more than ASCII.
const ODD_ITEM: u32 = 97;

/// `item-17`, escaped for JSON.
pub(crate) fn push_item_json(out: &mut Vec<u8>, item: u32) {
    push_numbered(out, "item-", item);
    if item % ODD_ITEM == ODD_ITEM - 1 {
        out.extend_from_slice("/größe \\\"XL\\\"\\u00e9\\n".as_bytes());
    }
}

/// The same item as a column shows it.
pub(crate) fn item(item: u32) -> String {
    let odd = match item % ODD_ITEM == ODD_ITEM - 1 {
        true => "/größe \"XL\"é\n",
        false => "",
    };
    format!("item-{item}{odd}")
}

/// A word and a number.
pub(crate) fn push_numbered(out: &mut Vec<u8>, word: &str, number: u32) {
    out.extend_from_slice(word.as_bytes());
    push_number(out, u64::from(number));
}

/// A request's id.
pub(crate) fn push_request(out: &mut Vec<u8>, request: RequestId) {
    match request {
        RequestId::Uuid(id) => super::text::push_uuid(out, &id),
        RequestId::Text(number) => push_numbered(out, "req-", number),
    }
}

/// The hash of a user, as a client sends it that hashes by itself.
pub(crate) fn user_hash(seed: u64, user: u32) -> [u8; 32] {
    hash(seed, 20, user)
}

/// The hash of a session.
pub(crate) fn session_hash(seed: u64, visit: u32) -> [u8; 32] {
    hash(seed, 21, visit)
}

fn hash(seed: u64, purpose: u64, number: u32) -> [u8; 32] {
    let mut draws = Draws::new(seed, purpose, u64::from(number));
    let mut out = [0; 32];
    for part in out.chunks_exact_mut(8) {
        part.copy_from_slice(&draws.next().to_le_bytes());
    }
    out
}

/// 64 hex digits.
pub(crate) fn push_hex(out: &mut Vec<u8>, bytes: &[u8; 32]) {
    let mut digits = [0; 64];
    hex::encode_to_slice(bytes, &mut digits).expect("64 digits hold 32 bytes");
    out.extend_from_slice(&digits);
}

/// The raw id of whom an event is about, where it is one.
pub(crate) fn raw_user(who: Who) -> Option<String> {
    match who {
        Who::User(user) => Some(format!("user-{user}")),
        Who::Anonymous(user) => Some(format!("anon-{user}")),
        Who::Nobody | Who::UserHash(_) => None,
    }
}

/// The raw id of a session, where it is one.
pub(crate) fn raw_session(session: Session) -> Option<String> {
    match session {
        Session::Raw(visit) => Some(format!("session-{visit}")),
        Session::None | Session::Hash(_) => None,
    }
}
