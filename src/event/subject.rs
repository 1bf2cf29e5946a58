//! Replaces raw ids by pseudonyms, in the fields of an event and at any depth of its JSON values.
//!
//! Keeps one invariant: no raw user, anonymous or session id leaves this file.

use std::borrow::Cow;
use std::fmt;

use super::context::Context;
use super::field::Value;
use super::identity::{self, Pseudonym, Pseudonymizer};
use super::json;
use super::json::Field;
use super::json::walk::Walker;
use super::json::write::ObjectWriter;
use super::rejection::{Code, Rejection};

/// The names of fields with raw ids.
const RAW_IDS: [&str; 3] = ["user_id", "anonymous_id", "session_id"];

/// The pseudonyms of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// The user's pseudonym, or else the anonymous id's.
    pub(super) user_key: Option<Pseudonym>,
    /// Which of the two `user_key` is: `user` or `anonymous`.
    pub(super) kind: Option<&'static str>,
    /// The anonymous id's pseudonym, if `user_key` is the user's.
    pub(super) anonymous: Option<HexText>,
    /// The session id's pseudonym, in hex.
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

    /// The digits as bytes, which need no UTF-8 check.
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

/// Without a table, so that the compiler can vectorise it.
fn hex_digit(nibble: u8) -> u8 {
    let letter = if nibble > 9 { b'a' - b'0' - 10 } else { 0 };
    b'0' + nibble + letter
}

/// The pseudonym from a field with a raw id, or from its sibling with the hash.
pub(super) fn pseudonym(
    raw: Option<Value<'_>>,
    hash: Option<Value<'_>>,
    context: &Context<'_>,
) -> Result<Option<Pseudonym>, Rejection> {
    let hashed = match raw {
        Some(raw) => context.pseudonymizer.hash(&raw.string()?),
        None => None,
    };
    let Some(hash) = hash else {
        return Ok(hashed);
    };
    let Some(text) = hash.text(usize::MAX)? else {
        return Ok(hashed);
    };
    let given = identity::parse_pseudonym(&text).ok_or_else(|| not_a_hash(hash.name))?;
    match (raw, hashed) {
        (Some(raw), Some(hashed)) if hashed != given => Err(Rejection::of(
            Code::ConflictingFields,
            raw.name,
            format!("{} is not its hash; send the raw id or its hash", hash.name),
        )),
        _ => Ok(Some(given)),
    }
}

/// Rejects a hash that is none.
pub(super) fn not_a_hash(name: impl Into<Cow<'static, str>>) -> Rejection {
    Rejection::of(
        Code::InvalidValue,
        name,
        "must be an HMAC-SHA256 as 64 hex digits",
    )
}

/// The pseudonym from a field that holds a hash or a raw id, as in exposure.v1 and outcome.v1.
/// There the request id stands for an unknown user.
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

/// Whether a name is that of a raw id, in any spelling: case, and what is neither a letter nor a
/// digit of ASCII, does not count (`userId`, `Session-ID`).
pub(super) fn is_spelled_like_an_id(name: &str) -> bool {
    is_id_from_end(name.as_bytes().iter().rev())
}

/// The same of a name that is read from its end: there nearly all names differ from these.
fn is_id_from_end<'n>(name: impl Iterator<Item = &'n u8> + Clone) -> bool {
    let letters = name
        .filter(|byte| byte.is_ascii_alphanumeric())
        .map(u8::to_ascii_lowercase);
    RAW_IDS.iter().any(|id| {
        let id = id.bytes().rev().filter(|byte| *byte != b'_');
        letters.clone().eq(id)
    })
}

/// Whether a value may hold raw ids; if not, it is copied whole.
pub(super) fn may_name_ids(raw: &str) -> bool {
    if !raw.starts_with(['{', '[']) {
        return false;
    }
    let bytes = raw.as_bytes();
    let mut from = 0;
    while let Some(at) = json::string::next_escape_or_colon(bytes, from) {
        let found = match bytes[at] {
            // An escape may spell a name in another way.
            b'\\' => true,
            b':' => ends_with_an_id(&bytes[..at]),
            _ => false,
        };
        if found {
            return true;
        }
        from = at + 1;
    }
    false
}

/// Whether a text that has no escapes, and that a colon follows, ends with the name of a raw id.
fn ends_with_an_id(text: &[u8]) -> bool {
    let name = text.trim_ascii_end().strip_suffix(b"\"");
    let from_end = |name: &[u8]| {
        let name = name.iter().rev().take_while(|byte| **byte != b'"');
        is_id_from_end(name)
    };
    name.is_some_and(from_end)
}

/// Writes a value, and replaces the raw ids in it by `…_hash`, at any depth. Takes linear time at
/// any depth: the value is searched once, and walked once if a name was found.
pub(super) fn push_scrubbed(out: &mut String, raw: &str, pseudonymizer: &Pseudonymizer) {
    if may_name_ids(raw) {
        scrub(out, &mut Walker::new(raw), pseudonymizer);
    } else {
        out.push_str(raw);
    }
}

/// Reads one value from the walker and writes it, scrubbed. The recursion is bounded: the scanner
/// rejects nesting beyond its limit.
fn scrub(out: &mut String, walker: &mut Walker<'_>, pseudonymizer: &Pseudonymizer) {
    if walker.enter(b'{') {
        out.push('{');
        let mut is_first = true;
        while walker.more(b'}') {
            let (name, is_escaped) = walker.key();
            let plain = match is_escaped {
                true => Cow::Owned(json::string::unescape(name)),
                false => Cow::Borrowed(name),
            };
            if is_spelled_like_an_id(&plain) {
                let (raw, _) = walker.value();
                if let Some(hash) = hash_of(raw, pseudonymizer) {
                    begin_member(out, &mut is_first, name);
                    // Before the name's closing quote and colon.
                    out.truncate(out.len() - 2);
                    out.push_str("_hash\":\"");
                    out.push_str(hash.as_str());
                    out.push('"');
                }
            } else {
                begin_member(out, &mut is_first, name);
                scrub(out, walker, pseudonymizer);
            }
        }
        out.push('}');
    } else if walker.enter(b'[') {
        out.push('[');
        let mut is_first = true;
        while walker.more(b']') {
            if !std::mem::take(&mut is_first) {
                out.push(',');
            }
            scrub(out, walker, pseudonymizer);
        }
        out.push(']');
    } else {
        out.push_str(walker.value().0);
    }
}

/// Writes a member's name, which is escaped already, and its colon.
fn begin_member(out: &mut String, is_first: &mut bool, name: &str) {
    if !std::mem::take(is_first) {
        out.push(',');
    }
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
}

/// The pseudonym of a raw id as JSON; `None` if it is blank. A value that is not a string cannot be
/// an id of the suite; its text is hashed rather than stored.
fn hash_of(raw: &str, pseudonymizer: &Pseudonymizer) -> Option<HexText> {
    let id = json::string::as_str(raw).unwrap_or(raw.into());
    pseudonymizer.hash(&id).as_ref().map(HexText::of)
}

/// Writes one member of an object, scrubbed.
pub(super) fn push_member(
    object: &mut ObjectWriter<'_>,
    field: &Field<'_>,
    pseudonymizer: &Pseudonymizer,
) {
    let key = &*field.key;
    if is_spelled_like_an_id(key) {
        let hash = hash_of(field.raw, pseudonymizer);
        object.opt_str(&format!("{key}_hash"), hash.as_ref().map(HexText::as_str));
    } else {
        push_scrubbed(object.name(key), field.raw, pseudonymizer);
    }
}

#[cfg(test)]
mod tests;
