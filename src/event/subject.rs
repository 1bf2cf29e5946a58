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

/// Whether a text may name raw ids; if not, it is copied whole.
pub(super) fn may_name_ids(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    let mut from = 0;
    while let Some(at) = json::string::next_escape_or_underscore(bytes, from) {
        // An escape may spell a name in another way.
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

/// Writes a value, and replaces the raw ids in it by `…_hash`, at any depth. Takes linear time at
/// any depth: the value is searched once, and walked once if a name was found.
pub(super) fn push_scrubbed(out: &mut String, raw: &str, pseudonymizer: &Pseudonymizer) {
    if raw.starts_with(['{', '[']) && may_name_ids(raw) {
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
            if RAW_IDS.contains(&&*plain) {
                let (raw, _) = walker.value();
                if let Some(hash) = hash_of(raw, pseudonymizer) {
                    begin_member(out, &mut is_first, &plain);
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
    push_field(object, field, RAW_IDS.contains(&&*field.key), pseudonymizer);
}

/// As [`push_member`], for a field that an event's format does not know: there, other spellings of
/// an id's name count, too (`userId`, `User-ID`).
pub(super) fn push_unknown(
    object: &mut ObjectWriter<'_>,
    field: &Field<'_>,
    pseudonymizer: &Pseudonymizer,
) {
    push_field(
        object,
        field,
        is_spelled_like_an_id(&field.key),
        pseudonymizer,
    );
}

fn is_spelled_like_an_id(name: &str) -> bool {
    let letters = |name: &str| -> String {
        let letters = name.chars().filter(char::is_ascii_alphanumeric);
        letters.map(|letter| letter.to_ascii_lowercase()).collect()
    };
    let spelled = letters(name);
    RAW_IDS.iter().any(|id| letters(id) == spelled)
}

fn push_field(
    object: &mut ObjectWriter<'_>,
    field: &Field<'_>,
    is_raw_id: bool,
    pseudonymizer: &Pseudonymizer,
) {
    let key = &*field.key;
    if is_raw_id {
        let hash = hash_of(field.raw, pseudonymizer);
        object.opt_str(&format!("{key}_hash"), hash.as_ref().map(HexText::as_str));
    } else {
        push_scrubbed(object.name(key), field.raw, pseudonymizer);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The expected result of scrubbing, value by value.
    fn scrubbed(value: &serde_json::Value, pseudonymizer: &Pseudonymizer) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .filter_map(|(name, value)| {
                        if !RAW_IDS.contains(&name.as_str()) {
                            return Some((name.clone(), scrubbed(value, pseudonymizer)));
                        }
                        let id = value.as_str().map_or(value.to_string(), str::to_owned);
                        let hash = pseudonymizer.hash(&id)?;
                        Some((format!("{name}_hash"), hex::encode(hash).into()))
                    })
                    .collect(),
            ),
            Value::Array(elements) => elements
                .iter()
                .map(|value| scrubbed(value, pseudonymizer))
                .collect(),
            other => other.clone(),
        }
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let name = proptest::sample::select(vec![
            "user_id", "session_id", "anonymous_id", "item_id", "a", "a\"\n\u{8}", "user_id\\",
        ]);
        let leaf = proptest::sample::select(vec![
            serde_json::json!("ada"),
            serde_json::json!(" "),
            serde_json::json!("user_id\\"),
            serde_json::json!(7),
            serde_json::json!(null),
            serde_json::json!([]),
            serde_json::json!({}),
        ]);
        leaf.prop_recursive(6, 40, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::vec((name.clone(), inner), 0..4).prop_map(|members| {
                    let members = members
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value));
                    serde_json::Value::Object(members.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_raw_id_is_hashed_and_all_else_is_kept(value in value()) {
            let pseudonymizer = Pseudonymizer::new(b"salt");
            let mut out = String::new();
            push_scrubbed(&mut out, &value.to_string(), &pseudonymizer);
            let found: serde_json::Value = serde_json::from_str(&out).unwrap();
            prop_assert_eq!(found, scrubbed(&value, &pseudonymizer));
        }

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
