//! Who an event is about, without knowing who that is.
//!
//! Keeps one invariant: no raw user, anonymous or session id leaves this file.

use std::fmt;

use super::decode::Context;
use super::field::Value;
use super::identity::{self, Pseudonym, Pseudonymizer};
use super::json::{self, Field, ObjectWriter};
use super::rejection::{Code, Rejection};

/// The names under which raw ids arrive.
const RAW_IDS: [&str; 3] = ["user_id", "anonymous_id", "session_id"];

/// The pseudonyms of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// The user's, else the anonymous id's.
    pub(super) user_key: Option<Pseudonym>,
    /// Which of the two `user_key` is.
    pub(super) kind: Option<&'static str>,
    /// The anonymous id's, where `user_key` is the user's.
    pub(super) anonymous: Option<HexText>,
    /// The session's, in hex.
    pub(super) session: Option<HexText>,
}

impl Subject {
    pub(super) fn new(
        user: Option<Pseudonym>,
        anonymous: Option<Pseudonym>,
        session: Option<Pseudonym>,
    ) -> Self {
        Self {
            user_key: user.or(anonymous),
            kind: match (user, anonymous) {
                (Some(_), _) => Some("user"),
                (None, Some(_)) => Some("anonymous"),
                (None, None) => None,
            },
            anonymous: user.and(anonymous).as_ref().map(HexText::of),
            session: session.as_ref().map(HexText::of),
        }
    }
}

/// A pseudonym as 64 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct HexText([u8; 64]);

impl HexText {
    pub(super) fn of(pseudonym: &Pseudonym) -> Self {
        let mut digits = [0; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(pseudonym) {
            pair[0] = hex_digit(byte >> 4);
            pair[1] = hex_digit(byte & 15);
        }
        Self(digits)
    }

    /// As bytes, which need no second look at whether they are text.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }
}

impl fmt::Debug for HexText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Without a table, so that the compiler does many at once.
fn hex_digit(nibble: u8) -> u8 {
    let letter = if nibble > 9 { b'a' - b'0' - 10 } else { 0 };
    b'0' + nibble + letter
}

/// The pseudonym from a field with a raw id and its sibling with the hash.
pub(super) fn pseudonym(
    raw: Option<Value<'_>>,
    hash: Option<Value<'_>>,
    context: &Context<'_>,
) -> Result<Option<Pseudonym>, Rejection> {
    match (raw, hash) {
        (Some(raw), Some(_)) => Err(Rejection::of(
            Code::ConflictingFields,
            raw.name,
            "send the raw id or its hash, not both",
        )),
        (Some(raw), None) => Ok(context.pseudonymizer.hash(&raw.string()?)),
        (None, Some(hash)) => match hash.text(usize::MAX)? {
            None => Ok(None),
            Some(text) => identity::parse_pseudonym(&text).map(Some).ok_or_else(|| {
                Rejection::of(
                    Code::InvalidValue,
                    hash.name,
                    "must be an HMAC-SHA256 as 64 hex digits",
                )
            }),
        },
        (None, None) => Ok(None),
    }
}

/// The pseudonym from a field that holds a hash or a raw id, as exposure.v1
/// and outcome.v1 have it; the request id stands there for "nobody".
pub(super) fn pseudonym_or_raw(
    value: Option<Value<'_>>,
    request_id: Option<&str>,
    context: &Context<'_>,
) -> Result<Option<Pseudonym>, Rejection> {
    let Some(value) = value else { return Ok(None) };
    let text = value.string()?;
    if Some(&*text) == request_id {
        return Ok(None);
    }
    Ok(identity::parse_pseudonym(&text).or_else(|| context.pseudonymizer.hash(&text)))
}

/// Whether a text may name raw ids; where it does not, it is copied whole.
pub(super) fn may_name_ids(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    let mut from = 0;
    while let Some(at) = json::next_escape_or_underscore(bytes, from) {
        // An escape could spell a name in another way.
        let is_escape = bytes[at] == b'\\';
        // All three names end in "_id"; so does "item_id", in every item of a list.
        let ends_name = bytes[at..].starts_with(b"_id") && {
            let up_to_id = &bytes[..at + 3];
            RAW_IDS
                .iter()
                .any(|name| up_to_id.ends_with(name.as_bytes()))
        };
        if is_escape || ends_name {
            return true;
        }
        from = at + 1;
    }
    false
}

/// Writes a value with the raw ids in it, however deep they stand, replaced by
/// `…_hash`. Recursion ends because the scanner refuses what nests deeper than
/// its limit.
pub(super) fn push_scrubbed(out: &mut String, raw: &str, pseudonymizer: &Pseudonymizer) {
    if !raw.starts_with(['{', '[']) || !may_name_ids(raw) {
        out.push_str(raw);
    } else if let Some(members) = json::members(raw) {
        let mut object = ObjectWriter::open(out);
        for field in &members {
            push_member(&mut object, field, pseudonymizer);
        }
        object.close();
    } else {
        out.push('[');
        for (place, element) in json::elements(raw).iter().flatten().enumerate() {
            if place > 0 {
                out.push(',');
            }
            push_scrubbed(out, element, pseudonymizer);
        }
        out.push(']');
    }
}

/// Writes one member of an object, scrubbed.
pub(super) fn push_member(
    object: &mut ObjectWriter<'_>,
    field: &Field<'_>,
    pseudonymizer: &Pseudonymizer,
) {
    let key = &*field.key;
    if RAW_IDS.contains(&key) {
        // Anything but a string is no id that the suite could have written;
        // its text is hashed all the same rather than stored.
        let id = json::as_str(field.raw).unwrap_or(field.raw.into());
        let hash = pseudonymizer.hash(&id).as_ref().map(HexText::of);
        object.opt_str(&format!("{key}_hash"), hash.as_ref().map(HexText::as_str));
    } else {
        push_scrubbed(object.name(key), field.raw, pseudonymizer);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_name_of_a_raw_id_is_found_wherever_it_stands(
            pieces in proptest::collection::vec(
                proptest::sample::select(vec![
                    "user_id", "anonymous_id", "session_id", "item_id", "user", "_id", "_", "]",
                    "\"", "er_id", "é", "x", "^^", "on_i",
                ]),
                0..9,
            ),
            escape in proptest::option::weighted(0.1, Just("\\n")),
        ) {
            let raw = pieces.concat() + escape.unwrap_or_default();
            let named = raw.contains('\\') || RAW_IDS.iter().any(|name| raw.contains(name));
            prop_assert_eq!(may_name_ids(&raw), named, "{}", raw);
        }
    }
}
