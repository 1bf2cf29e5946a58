//! One event's fields, picked by name and read by type.

use std::borrow::Cow;

use super::body::RawEvent;
use super::json::{self, Field};
use super::rejection::{Code, Rejection};

/// Longest text in an indexed column: three of them in one B-tree entry stay below its limit of 2.7
/// kB.
pub(crate) const KEY_BYTES_MAX: usize = 512;

/// Longest `event_id` that is not a UUID.
pub(super) const EVENT_ID_BYTES_MAX: usize = 200;

/// What a surface or a segment has to be, for people.
pub(crate) const PATH_SAFE: &str =
    "must not be '.' or '..' or hold '/', '\\' or control characters";

/// Whether a text is safe in a path: other components of the suite split days and surfaces into
/// folders.
#[inline]
pub(crate) fn is_path_safe(text: &str) -> bool {
    // Control characters beyond ASCII (U+0080 to U+009F) begin with 0xC2. There is no early
    // exit, so that many bytes are checked at once.
    let suspicious = |byte: u8| {
        (byte == b'/') | (byte == b'\\') | (byte < 0x20) | (byte == 0x7F) | (byte == 0xC2)
    };
    let bad = |c: char| matches!(c, '/' | '\\') || c.is_control();
    let may_be_bad = text.bytes().fold(false, |any, byte| any | suspicious(byte));
    let is_bad = may_be_bad && text.contains(bad);
    !(text == "." || text == ".." || is_bad)
}

/// A field that is present and not null.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    /// Its name, for rejections.
    pub(super) name: &'static str,
    /// Its JSON text.
    pub(super) raw: &'a str,
    /// Whether any string in it holds escapes.
    pub(super) escaped: bool,
}

/// Slots of the table of names: more than twice as many as there are names, so that most lookups
/// look at one.
const SLOTS: usize = 64;

/// No name is in the slot.
const EMPTY: u8 = u8::MAX;

/// The names of a format's fields, in a hash table that is made at compile time.
pub(super) struct Names<const N: usize> {
    names: [&'static str; N],
    marks: [Mark; N],
    /// The index of a name, in the slot of its mark or in one of those after it.
    slots: [u8; SLOTS],
}

impl<const N: usize> Names<N> {
    pub(super) const fn new(names: [&'static str; N]) -> Self {
        assert!(2 * N < SLOTS, "the table has too few slots");
        let mut marks = [Mark::of(""); N];
        let mut slots = [EMPTY; SLOTS];
        let mut at = 0;
        while at < N {
            marks[at] = Mark::of(names[at]);
            let mut slot = marks[at].slot();
            while slots[slot] != EMPTY {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = at.to_le_bytes()[0];
            at += 1;
        }
        Self {
            names,
            marks,
            slots,
        }
    }

    /// The index of a name.
    #[inline]
    fn find(&self, name: &str) -> Option<usize> {
        let wanted = Mark::of(name);
        let mut slot = wanted.slot();
        // Ends, as there are empty slots.
        loop {
            let at = usize::from(self.slots[slot]);
            if at >= N {
                return None;
            }
            // A mark tells a name of up to 16 bytes whole: there is no call to compare.
            if self.marks[at] == wanted && (name.len() <= 16 || self.names[at] == name) {
                return Some(at);
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

/// A name's length, its first bytes and its last, which overlap in a name of fewer than 16.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    length: usize,
    first: u64,
    last: u64,
}

impl Mark {
    #[inline]
    const fn of(name: &str) -> Self {
        let bytes = name.as_bytes();
        let (first, last) = match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => match (bytes.first_chunk(), bytes.last_chunk()) {
                (Some(first), Some(last)) => (
                    u32::from_le_bytes(*first) as u64,
                    u32::from_le_bytes(*last) as u64,
                ),
                _ => match *bytes {
                    [] => (0, 0),
                    [one] => (one as u64, 0),
                    [one, two] => (one as u64, two as u64),
                    [one, two, three, ..] => (one as u64, (two as u64) << 8 | three as u64),
                },
            },
        };
        Self {
            length: bytes.len(),
            first,
            last,
        }
    }

    /// The slot in which the search begins: the upper six bits, after a multiplication by 2^64
    /// divided by the golden ratio, which spreads them.
    #[inline]
    const fn slot(self) -> usize {
        let mixed = self.first ^ self.last.rotate_left(23) ^ self.length as u64;
        (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as usize
    }
}

/// Picks the fields `names` of an event into `values`; the others go to `extra`. Formats use
/// [`super::unknown::pick`], which looks at these.
///
/// A null counts as absent: senders often write null for a value that they do not have.
pub(super) fn pick<'a, 'b, const N: usize>(
    event: &RawEvent<'a, 'b>,
    names: &Names<N>,
    values: &mut [Option<Value<'a>>; N],
    extra: &mut Vec<&'b Field<'a>>,
) -> Result<(), Rejection> {
    let mut seen = [false; N];
    for field in event.fields {
        let Some(at) = names.find(&field.key) else {
            extra.push(field);
            continue;
        };
        let name = names.names[at];
        if std::mem::replace(&mut seen[at], true) {
            return Err(Rejection::of(
                Code::DuplicateField,
                name,
                "the field stands twice",
            ));
        }
        if field.raw != "null" {
            values[at] = Some(Value {
                name,
                raw: field.raw,
                escaped: field.escaped,
            });
        }
    }
    Ok(())
}

impl<'a> Value<'a> {
    /// Any string.
    #[inline]
    pub(super) fn string(&self) -> Result<Cow<'a, str>, Rejection> {
        let text = if self.escaped {
            json::string::as_str(self.raw)
        } else {
            json::string::as_plain_str(self.raw).map(Cow::Borrowed)
        };
        text.ok_or_else(|| self.wrong_type("a string"))
    }

    /// A string of at most `bytes_max` bytes; `None` if it is blank.
    pub(super) fn text(&self, bytes_max: usize) -> Result<Option<Cow<'a, str>>, Rejection> {
        let text = self.string()?;
        if text.len() > bytes_max {
            return Err(Rejection::of(
                Code::TooLong,
                self.name,
                format!("has {} bytes; the most is {bytes_max}", text.len()),
            ));
        }
        Ok((!is_blank(&text)).then_some(text))
    }

    /// A string that is safe in a path, as [`is_path_safe`] says.
    pub(super) fn path_safe(&self) -> Result<Option<Cow<'a, str>>, Rejection> {
        let Some(text) = self.text(KEY_BYTES_MAX)? else {
            return Ok(None);
        };
        if !is_path_safe(&text) {
            return Err(Rejection::of(Code::InvalidValue, self.name, PATH_SAFE));
        }
        Ok(Some(text))
    }

    /// An integer of at least `min` that fits an `integer` column.
    pub(super) fn int(&self, min: i32) -> Result<i32, Rejection> {
        // Nine digits do not overflow, and digits that were scanned are a number.
        if self.raw.len() <= 9 && self.raw.bytes().all(|byte| byte.is_ascii_digit()) {
            let value = self
                .raw
                .bytes()
                .fold(0, |value, digit| value * 10 + i32::from(digit - b'0'));
            if value >= min {
                return Ok(value);
            }
        }
        if !self
            .raw
            .starts_with(|c: char| c == '-' || c.is_ascii_digit())
        {
            return Err(self.wrong_type("an integer"));
        }
        if self.raw.contains(['.', 'e', 'E']) {
            return Err(self.wrong_type("an integer, without point or exponent"));
        }
        match self.raw.parse::<i32>() {
            Ok(value) if value >= min => Ok(value),
            _ => Err(Rejection::of(
                Code::NumberOutOfRange,
                self.name,
                format!("must be from {min} to {}", i32::MAX),
            )),
        }
    }

    /// The text of a number.
    pub(super) fn number(&self) -> Result<&'a str, Rejection> {
        if self
            .raw
            .starts_with(|c: char| c == '-' || c.is_ascii_digit())
        {
            Ok(self.raw)
        } else {
            Err(self.wrong_type("a number"))
        }
    }

    /// The text of a number that a double holds. Readers of the suite decode such fields as one, and
    /// give up on the whole document at a number beyond its range.
    pub(super) fn float(&self) -> Result<&'a str, Rejection> {
        let text = self.number()?;
        // Without an exponent, a number of this length is below 10^308.
        let is_short = text.len() <= 308 && !text.contains(['e', 'E']);
        if is_short || text.parse().is_ok_and(f64::is_finite) {
            return Ok(text);
        }
        Err(Rejection::of(
            Code::NumberOutOfRange,
            self.name,
            "must be within the range of a double, up to 1.8e308: readers of the suite cannot decode more",
        ))
    }

    /// An object's text.
    pub(super) fn object(&self) -> Result<&'a str, Rejection> {
        if self.raw.starts_with('{') {
            Ok(self.raw)
        } else {
            Err(self.wrong_type("an object"))
        }
    }

    /// An object's members.
    pub(super) fn members(&self) -> Result<Vec<Field<'a>>, Rejection> {
        json::walk::members(self.raw).ok_or_else(|| self.wrong_type("an object"))
    }

    /// Rejects the value for its type.
    pub(super) fn wrong_type(&self, expected: &str) -> Rejection {
        Rejection::of(Code::InvalidType, self.name, format!("must be {expected}"))
    }
}

/// Whether a text is only white space.
fn is_blank(text: &str) -> bool {
    // Nearly all texts begin with a visible ASCII character, and need no Unicode check.
    !text.as_bytes().first().is_some_and(u8::is_ascii_graphic) && text.trim().is_empty()
}

/// The member `key` of a nested object; `name` is for rejections. A second one is rejected:
/// Postgres keeps the last of several, so the column and the value read here would differ.
pub(super) fn member<'a>(
    members: &[Field<'a>],
    key: &str,
    name: &'static str,
) -> Result<Option<Value<'a>>, Rejection> {
    let mut found = members.iter().filter(|field| field.key == key);
    let first = found.next();
    if found.next().is_some() {
        return Err(Rejection::of(
            Code::DuplicateField,
            name,
            "the field stands twice",
        ));
    }
    Ok(first
        .filter(|field| field.raw != "null")
        .map(|field| Value {
            name,
            raw: field.raw,
            escaped: field.escaped,
        }))
}

/// The value of a required field.
pub(super) fn required<T>(value: Option<T>, name: &'static str) -> Result<T, Rejection> {
    value.ok_or_else(|| Rejection::of(Code::MissingField, name, "is required"))
}

/// A text field that may be absent or blank.
pub(super) fn opt_text<'a>(value: Option<Value<'a>>) -> Result<Option<Cow<'a, str>>, Rejection> {
    value.map_or(Ok(None), |value| value.text(KEY_BYTES_MAX))
}

/// A path-safe text field that may be absent or blank.
pub(super) fn opt_path_safe<'a>(
    value: Option<Value<'a>>,
) -> Result<Option<Cow<'a, str>>, Rejection> {
    value.map_or(Ok(None), |value| value.path_safe())
}

/// An ETag without the `W/` and the quotes of its HTTP form.
pub(super) fn bare_etag(etag: Cow<'_, str>) -> Cow<'_, str> {
    if !etag.starts_with(['W', '"']) && !etag.ends_with('"') {
        return etag;
    }
    let bare = etag.strip_prefix("W/").unwrap_or(&etag).trim_matches('"');
    if bare.len() == etag.len() {
        etag
    } else {
        Cow::Owned(bare.to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_whole_and_no_other_is() {
        let names = [
            "v", "ts", "key", "meta", "items", "tenant", "user_id", "event_id", "occurred_at",
            "anonymous_id", "session_id_hash", "anonymous_id_hash", "experiment_variant",
        ];
        let table = Names::new(names);
        for (at, name) in names.into_iter().enumerate() {
            assert_eq!(table.find(name), Some(at), "{name}");
            for place in 0..name.len() {
                // One byte is another one, is missing, or is one too many.
                let mut bytes = name.as_bytes().to_vec();
                bytes[place] ^= 1;
                let other = String::from_utf8(bytes).unwrap();
                assert_eq!(table.find(&other), None, "{other}");
                let shorter = [&name[..place], &name[place + 1..]].concat();
                let longer = [&name[..place], "_", &name[place..]].concat();
                for other in [shorter, longer] {
                    assert_eq!(table.find(&other), None, "{other}");
                }
            }
        }
        assert_eq!(table.find(""), None);
    }
}
