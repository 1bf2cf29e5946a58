//! JSON, as far as this service reads it: `scan` finds values in a body, `walk` reads scanned
//! values again, `write` writes objects into columns.
//!
//! Nothing here knows what an event is. Values without a flaw are a subset of what PostgreSQL's
//! jsonb accepts; a property test in `tests/it/` feeds both.
//!
//! The service asks two questions of every byte: where does this value end, and would jsonb refuse
//! it? The scanner answers both in one pass, with a result for each value instead of one for the
//! document; that is why it is written here.

pub mod scan;
pub(crate) mod string;
pub(crate) mod walk;
pub(crate) mod write;

use std::borrow::Cow;
use std::fmt;

/// Deepest nesting inside one event, the event itself included.
///
/// jsonb takes 10,000 levels and fails at 20,000; readers in other languages give up much earlier.
/// No format of this service needs more than six.
pub const DEPTH_MAX: usize = 64;

/// Depth at which scanning stops. Between [`DEPTH_MAX`] and this, one event is rejected. Beyond it
/// the document is refused (the body, or one line of NDJSON), to bound the scanner's stack.
const DEPTH_HARD_MAX: usize = 1024;

/// Largest exponent, by absolute value. Covers every IEEE double; jsonb would accept up to 131,071,
/// and return a number of that many bytes.
const EXPONENT_MAX: u32 = 400;

/// Longest number text. The longest exact decimal of a double near 1 has 55 digits, and no sender
/// needs more.
const NUMBER_BYTES_MAX: usize = 400;

/// A syntax error: the text is not JSON from `offset` on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct SyntaxError {
    /// Bytes from the start of the scanned text.
    pub offset: usize,
    /// What was found or expected there.
    pub what: &'static str,
}

/// The message of a [`SyntaxError`] beyond [`DEPTH_HARD_MAX`].
const NESTED_TOO_DEEP: &str = "nested more than 1024 levels deep";

impl SyntaxError {
    /// Whether the text may be JSON, but nests too deep to find out.
    pub fn is_too_deep(&self) -> bool {
        self.what == NESTED_TOO_DEEP
    }
}

/// Why syntactically correct JSON cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// A `\u0000`, which neither text nor jsonb can hold.
    Nul,
    /// Half of a surrogate pair.
    LoneSurrogate,
    /// More digits or a larger exponent than any reader could use.
    NumberOutOfRange,
    /// Deeper than [`DEPTH_MAX`].
    TooDeep,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Nul => f.write_str("contains \\u0000, which Postgres cannot store"),
            Flaw::LoneSurrogate => {
                f.write_str("contains half of a UTF-16 surrogate pair, which is not a character")
            }
            Flaw::NumberOutOfRange => write!(
                f,
                "contains a number of more than {NUMBER_BYTES_MAX} characters or with an exponent beyond {EXPONENT_MAX}"
            ),
            Flaw::TooDeep => write!(f, "is nested deeper than {DEPTH_MAX} levels"),
        }
    }
}

/// A value's text, and whether it can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned<'a> {
    /// The value as it was written, without surrounding white space.
    pub raw: &'a str,
    /// The first flaw found inside.
    pub flaw: Option<Flaw>,
    /// Whether any string inside, a name or a value, holds escapes.
    pub escaped: bool,
}

/// A member of an object.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    /// The name, unescaped.
    pub key: Cow<'a, str>,
    /// The value's text.
    pub raw: &'a str,
    /// Whether any string in the value holds escapes.
    pub escaped: bool,
}

#[cfg(test)]
mod tests;
