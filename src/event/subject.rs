//! Replaces raw ids by pseudonyms, in the fields of an event and at any depth of its JSON values.
//!
//! Keeps one invariant: no raw user, anonymous or session id leaves this file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use super::context::Context;
use super::field::Value;
use super::identity::{self, Pseudonym, Pseudonymizer};
use super::json;
use super::json::Field;
use super::json::walk::Walker;
use super::json::write::ObjectWriter;
use super::rejection::{Code, Rejection};
use super::warning::beginning_of;

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
///
/// # Errors
///
/// `conflicting_fields` of a raw id that stands beside another hash, by its path in the value.
pub(super) fn push_scrubbed(
    out: &mut String,
    raw: &str,
    pseudonymizer: &Pseudonymizer,
) -> Result<(), Rejection> {
    if may_name_ids(raw) {
        return scrub(out, &mut Walker::new(raw), pseudonymizer);
    }
    out.push_str(raw);
    Ok(())
}

/// Reads one value from the walker and writes it, scrubbed. The recursion is bounded: the scanner
/// rejects nesting beyond its limit.
fn scrub(
    out: &mut String,
    walker: &mut Walker<'_>,
    pseudonymizer: &Pseudonymizer,
) -> Result<(), Rejection> {
    if walker.enter(b'{') {
        let mut object = ObjectWriter::open(out);
        let mut ids = Ids::default();
        while walker.more(b'}') {
            let name = match walker.key() {
                (name, true) => Cow::Owned(json::string::unescape(name)),
                (name, false) => Cow::Borrowed(name),
            };
            if is_spelled_like_an_id(&name) {
                ids.raw.push((name, walker.value().0));
                continue;
            }
            let start = walker.offset();
            scrub(object.name(&name), walker, pseudonymizer)
                .map_err(|rejection| rejection.within(&name))?;
            ids.note_hash(name, walker.since(start).trim_ascii_start());
        }
        ids.finish(&mut object, pseudonymizer)?;
        object.close();
    } else if walker.enter(b'[') {
        out.push('[');
        let mut place = 0;
        while walker.more(b']') {
            if place > 0 {
                out.push(',');
            }
            scrub(out, walker, pseudonymizer)
                .map_err(|rejection| rejection.within(&format!("[{place}]")))?;
            place += 1;
        }
        out.push(']');
    } else {
        out.push_str(walker.value().0);
    }
    Ok(())
}

/// Writes members of an object, scrubbed.
///
/// # Errors
///
/// As [`push_scrubbed`], by the path in the object.
pub(super) fn push_members<'f, 'a: 'f>(
    object: &mut ObjectWriter<'_>,
    fields: impl IntoIterator<Item = &'f Field<'a>>,
    pseudonymizer: &Pseudonymizer,
) -> Result<(), Rejection> {
    let mut ids = Ids::default();
    for field in fields {
        let name = Cow::Borrowed(&*field.key);
        if is_spelled_like_an_id(&name) {
            ids.raw.push((name, field.raw));
            continue;
        }
        push_value(object, &name, field.raw, pseudonymizer)?;
        ids.note_hash(name, field.raw);
    }
    ids.finish(object, pseudonymizer)
}

/// Writes a member of an object whose name is that of no id, scrubbed.
///
/// # Errors
///
/// As [`push_scrubbed`], by the path in the object.
pub(super) fn push_value(
    object: &mut ObjectWriter<'_>,
    name: &str,
    raw: &str,
    pseudonymizer: &Pseudonymizer,
) -> Result<(), Rejection> {
    push_scrubbed(object.name(name), raw, pseudonymizer).map_err(|rejection| rejection.within(name))
}

/// What one object says of ids. The hashes of its raw ids are written at its end: of two members with one
/// name the last counts, so none that was sent takes the place of a true one.
#[derive(Debug, Default)]
struct Ids<'a> {
    /// The raw ones: name and JSON text.
    raw: Vec<(Cow<'a, str>, &'a str)>,
    /// What was sent under the name of a hash, likewise.
    sent: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Ids<'a> {
    /// Notes a member that was written, if its name is that of a hash.
    fn note_hash(&mut self, name: Cow<'a, str>, raw: &'a str) {
        let id = name.strip_suffix("_hash");
        if id.is_some_and(is_spelled_like_an_id) {
            self.sent.push((name, raw));
        }
    }

    /// Writes the hashes.
    fn finish(
        self,
        object: &mut ObjectWriter<'_>,
        pseudonymizer: &Pseudonymizer,
    ) -> Result<(), Rejection> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let sent = self.sent.iter().map(|(name, raw)| (&**name, *raw));
        let sent: HashMap<&str, &str> = sent.filter(|(_, raw)| !is_blank(raw)).collect();
        for (name, raw) in self.raw {
            // A value that is not a string cannot be an id of the suite; its text is hashed rather
            // than stored.
            let id = json::string::as_str(raw).unwrap_or(raw.into());
            let hash = pseudonymizer.hash(&id).filter(|_| !is_blank(raw));
            let Some(hash) = hash else { continue };
            let hash_name = format!("{name}_hash");
            let hash = match sent.get(&*hash_name) {
                Some(sent) => agreed(&id, hash, sent).ok_or_else(|| conflict(&name))?,
                None => hash,
            };
            object.str(&hash_name, HexText::of(&hash).as_str());
        }
        Ok(())
    }
}

/// Whether a value counts as absent.
fn is_blank(raw: &str) -> bool {
    raw == "null" || json::string::as_str(raw).is_some_and(|text| text.trim().is_empty())
}

/// The hash of an id, if what was sent as its hash is that. In some formats a hash stands under the name
/// of the raw id: then it is that hash.
fn agreed(id: &str, hash: Pseudonym, sent: &str) -> Option<Pseudonym> {
    let sent = identity::parse_pseudonym(&json::string::as_str(sent)?)?;
    (sent == hash || Some(sent) == identity::parse_pseudonym(id)).then_some(sent)
}

/// The rejection of a raw id with another one's hash beside it.
fn conflict(name: &str) -> Rejection {
    let name = beginning_of(name);
    Rejection::of(
        Code::ConflictingFields,
        name.to_owned(),
        format!("{name}_hash is not its hash; send the raw id or its hash"),
    )
}

#[cfg(test)]
mod tests;
