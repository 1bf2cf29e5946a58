//! A JSON scanner that finds where values end and whether jsonb would take them.
//!
//! One pass, no recursion, no copies: it hands out slices of its input. What it
//! calls storable is a subset of what PostgreSQL's jsonb accepts; the property
//! test that feeds both is in `tests/it/`. It does not know what an event is.
//!
//! It is our own because the two questions that the service asks of every byte
//! ("where does this value end?" and "would jsonb refuse it?") have to be
//! answered in one pass, with a verdict per value instead of one per document.

use std::borrow::Cow;
use std::fmt;

/// How deep values may nest inside one event, the event itself included.
///
/// jsonb takes 10,000 levels and fails at 20,000; readers in other languages
/// give up much earlier. No format that we take needs more than six.
pub const DEPTH_MAX: usize = 64;

/// Where scanning stops altogether. Between [`DEPTH_MAX`] and this, an event is
/// refused alone; past it the body is refused, to bound the scanner's stack.
const DEPTH_HARD_MAX: usize = 1024;

/// Largest exponent, by absolute value. Covers every IEEE double; jsonb would
/// take up to 131,071 and read back as that many bytes.
const EXPONENT_MAX: u32 = 400;

/// Longest number text. The longest exact decimal of a double near 1 has 55
/// digits; nobody reports more.
const NUMBER_BYTES_MAX: usize = 400;

/// The text is not JSON from `offset` on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct SyntaxError {
    /// Bytes from the start of the scanned text.
    pub offset: usize,
    /// What was found or expected there.
    pub what: &'static str,
}

/// Why a syntactically correct value cannot be stored.
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
    /// The value exactly as it stood, without surrounding white space.
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

/// Walks a text from value to value.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    open: Vec<Open>,
    /// Whether the value that is being taken holds escapes.
    escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Array,
    Object,
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            open: Vec::new(),
            escaped: false,
        }
    }

    /// How far the scanner has come, in bytes.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The next byte that is not white space, without taking it.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                _ => return Some(byte),
            }
        }
        None
    }

    /// Takes `byte` if it is next.
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    /// Takes `byte`, which has to be next.
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), SyntaxError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    /// Takes an object's member name and its colon.
    pub fn key(&mut self) -> Result<(Cow<'a, str>, Option<Flaw>), SyntaxError> {
        if self.peek() != Some(b'"') {
            return Err(self.error("expected a member name in quotes"));
        }
        let start = self.at + 1;
        let (escaped, flaw) = self.string()?;
        let inner = &self.text[start..self.at - 1];
        self.expect(b':', "expected ':' after a member name")?;
        let key = if escaped {
            Cow::Owned(unescape(inner))
        } else {
            Cow::Borrowed(inner)
        };
        Ok((key, flaw))
    }

    /// Takes one value of any kind that starts `depth` levels deep in its event.
    pub fn value(&mut self, depth: usize) -> Result<Scanned<'a>, SyntaxError> {
        self.peek();
        let start = self.at;
        let mut flaw = None;
        self.escaped = false;
        self.open.clear();
        loop {
            match self.peek() {
                Some(b'"') => note(&mut flaw, self.string()?.1),
                Some(b'-' | b'0'..=b'9') => note(&mut flaw, self.number()?),
                Some(b'{') => {
                    self.enter(Open::Object, depth, &mut flaw)?;
                    if !self.take(b'}') {
                        note(&mut flaw, self.key()?.1);
                        continue;
                    }
                    self.open.pop();
                }
                Some(b'[') => {
                    self.enter(Open::Array, depth, &mut flaw)?;
                    if !self.take(b']') {
                        continue;
                    }
                    self.open.pop();
                }
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                Some(_) => return Err(self.error("expected a value")),
                None => return Err(self.error("the text ends where a value was expected")),
            }
            // A value is complete: close what it closes, or go on to the next.
            loop {
                let Some(&open) = self.open.last() else {
                    return Ok(Scanned {
                        raw: &self.text[start..self.at],
                        flaw,
                        escaped: self.escaped,
                    });
                };
                match (open, self.peek()) {
                    (Open::Array, Some(b',')) => {
                        self.at += 1;
                        break;
                    }
                    (Open::Object, Some(b',')) => {
                        self.at += 1;
                        note(&mut flaw, self.key()?.1);
                        break;
                    }
                    (Open::Array, Some(b']')) | (Open::Object, Some(b'}')) => {
                        self.at += 1;
                        self.open.pop();
                    }
                    (Open::Array, _) => return Err(self.error("expected ',' or ']'")),
                    (Open::Object, _) => return Err(self.error("expected ',' or '}'")),
                }
            }
        }
    }

    /// A syntax error at the place reached.
    pub fn error(&self, what: &'static str) -> SyntaxError {
        SyntaxError {
            offset: self.at,
            what,
        }
    }

    fn enter(
        &mut self,
        open: Open,
        depth: usize,
        flaw: &mut Option<Flaw>,
    ) -> Result<(), SyntaxError> {
        if self.open.len() >= DEPTH_HARD_MAX {
            return Err(self.error("nested more than 1024 levels deep"));
        }
        self.at += 1;
        self.open.push(open);
        if depth + self.open.len() > DEPTH_MAX {
            note(flaw, Some(Flaw::TooDeep));
        }
        Ok(())
    }

    fn literal(&mut self, word: &'static str) -> Result<(), SyntaxError> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.error("expected a value"))
        }
    }

    /// Takes a string from its opening to its closing quote; says whether it
    /// holds escapes.
    fn string(&mut self) -> Result<(bool, Option<Flaw>), SyntaxError> {
        let bytes = self.text.as_bytes();
        let mut at = self.at + 1;
        let mut escaped = false;
        let mut flaw = None;
        loop {
            at += plain_run(&bytes[at..]);
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok((escaped, flaw));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escaped = true;
                    let (length, found) =
                        escape(&bytes[at..]).map_err(|what| SyntaxError { offset: at, what })?;
                    note(&mut flaw, found);
                    at += length;
                }
                Some(_) => {
                    self.at = at;
                    return Err(self.error("a control character inside a string"));
                }
                None => {
                    self.at = at;
                    return Err(self.error("the text ends inside a string"));
                }
            }
        }
    }

    fn number(&mut self) -> Result<Option<Flaw>, SyntaxError> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start + usize::from(bytes[start] == b'-');
        let digits = |at: usize| {
            bytes[at..]
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .count()
        };
        let whole = digits(at);
        if whole == 0 || (whole > 1 && bytes[at] == b'0') {
            return Err(self.error("not a number"));
        }
        at += whole;
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            if fraction == 0 {
                return Err(self.error("a number with nothing after its point"));
            }
            at += 1 + fraction;
        }
        let mut flaw = None;
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let length = digits(at);
            if length == 0 {
                return Err(self.error("a number with an empty exponent"));
            }
            let exponent = bytes[at..at + length].iter().fold(0_u32, |sum, b| {
                (sum * 10 + u32::from(b - b'0')).min(100_000)
            });
            if exponent > EXPONENT_MAX {
                flaw = Some(Flaw::NumberOutOfRange);
            }
            at += length;
        }
        if at - start > NUMBER_BYTES_MAX {
            flaw = Some(Flaw::NumberOutOfRange);
        }
        self.at = at;
        Ok(flaw)
    }
}

/// Bytes that a string may hold as they are.
static PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = false;
        byte += 1;
    }
    plain[b'"' as usize] = false;
    plain[b'\\' as usize] = false;
    plain
};

/// How many bytes at the start of `bytes` a string may hold as they are.
///
/// Eight at a time: in a word, a byte that is below 0x20, a quote or a backslash
/// sets its top bit in `hits`, and the lowest such bit is always right (a borrow
/// can only reach bytes above a true one).
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word;
    let mut run = 0;
    while let Some(chunk) = bytes[run..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = zero_bytes(word ^ (ONES * u64::from(b'"')));
        let backslash = zero_bytes(word ^ (ONES * u64::from(b'\\')));
        let hits = (control | quote | backslash) & TOPS;
        if hits != 0 {
            return run + (hits.trailing_zeros() / 8) as usize;
        }
        run += 8;
    }
    let rest = bytes[run..]
        .iter()
        .take_while(|&&byte| PLAIN[byte as usize]);
    run + rest.count()
}

fn note(flaw: &mut Option<Flaw>, found: Option<Flaw>) {
    if flaw.is_none() {
        *flaw = found;
    }
}

/// The length of the escape at the start of `bytes` (both halves of a pair).
fn escape(bytes: &[u8]) -> Result<(usize, Option<Flaw>), &'static str> {
    match bytes.get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok((2, None)),
        Some(b'u') => {
            let unit = hex4(&bytes[2..]).ok_or("\\u without four hex digits")?;
            match unit {
                0 => Ok((6, Some(Flaw::Nul))),
                0xD800..=0xDBFF => {
                    let low = bytes[6..]
                        .strip_prefix(b"\\u")
                        .and_then(hex4)
                        .filter(|low| (0xDC00..=0xDFFF).contains(low));
                    match low {
                        Some(_) => Ok((12, None)),
                        None => Ok((6, Some(Flaw::LoneSurrogate))),
                    }
                }
                0xDC00..=0xDFFF => Ok((6, Some(Flaw::LoneSurrogate))),
                _ => Ok((6, None)),
            }
        }
        _ => Err("an unknown escape in a string"),
    }
}

fn hex4(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4)?.iter().try_fold(0, |unit, &byte| {
        Some(unit * 16 + char::from(byte).to_digit(16)?)
    })
}

/// The characters that a scanned string's inside stands for.
///
/// What cannot be a character (see [`Flaw`]) becomes U+FFFD; events with such
/// strings are refused before anyone looks at the result.
pub fn unescape(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let bytes = rest.as_bytes();
        let (character, length) = match bytes.get(at + 1) {
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(b'u') => {
                let unit = hex4(&bytes[at + 2..]).unwrap_or(0xFFFD);
                let low = bytes.get(at + 8..).and_then(hex4);
                match (unit, low) {
                    (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
                        let code = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                        (char::from_u32(code).unwrap_or('\u{FFFD}'), 12)
                    }
                    _ => (char::from_u32(unit).unwrap_or('\u{FFFD}'), 6),
                }
            }
            Some(&byte) => (char::from(byte), 2),
            None => break,
        };
        out.push(character);
        rest = rest.get(at + length..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// The string that a scanned value holds, if it is one.
pub fn as_str(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    Some(if inner.contains('\\') {
        Cow::Owned(unescape(inner))
    } else {
        Cow::Borrowed(inner)
    })
}

/// The string that a value holds which was scanned and found without escapes.
pub fn as_plain_str(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"')
}

/// The members of a scanned object; `None` if the value is something else.
pub fn members(raw: &str) -> Option<Vec<Field<'_>>> {
    let mut scanner = Scanner::new(raw);
    let mut fields = Vec::new();
    if !scanner.take(b'{') {
        return None;
    }
    if scanner.take(b'}') {
        return Some(fields);
    }
    loop {
        let (key, _) = scanner.key().ok()?;
        let value = scanner.value(0).ok()?;
        fields.push(Field {
            key,
            raw: value.raw,
            escaped: value.escaped,
        });
        if !scanner.take(b',') {
            return Some(fields);
        }
    }
}

/// The elements of a scanned array; `None` if the value is something else.
pub fn elements(raw: &str) -> Option<Vec<&str>> {
    let mut scanner = Scanner::new(raw);
    let mut values = Vec::new();
    if !scanner.take(b'[') {
        return None;
    }
    if scanner.take(b']') {
        return Some(values);
    }
    loop {
        values.push(scanner.value(0).ok()?.raw);
        if !scanner.take(b',') {
            return Some(values);
        }
    }
}

/// Writes one JSON object, member by member, at the end of a string.
#[derive(Debug)]
pub struct ObjectWriter<'o> {
    out: &'o mut String,
    empty: bool,
}

impl<'o> ObjectWriter<'o> {
    /// Opens an object.
    pub fn open(out: &'o mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    /// A member whose value is JSON text already.
    pub fn raw(&mut self, key: &str, raw: &str) -> &mut Self {
        self.name(key).push_str(raw);
        self
    }

    /// A member whose value is a string.
    pub fn str(&mut self, key: &str, value: &str) -> &mut Self {
        push_string(self.name(key), value);
        self
    }

    /// A member whose value is a string, if there is one.
    pub fn opt_str(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.str(key, value);
        }
        self
    }

    /// A member whose value is JSON text already, if there is one.
    pub fn opt_raw(&mut self, key: &str, raw: Option<&str>) -> &mut Self {
        if let Some(raw) = raw {
            self.raw(key, raw);
        }
        self
    }

    /// Writes a member's name and hands out the string for its value.
    pub fn name(&mut self, key: &str) -> &mut String {
        if !self.empty {
            self.out.push(',');
        }
        self.empty = false;
        push_string(self.out, key);
        self.out.push(':');
        self.out
    }

    /// Closes the object; says whether it has any members.
    pub fn close(self) -> bool {
        self.out.push('}');
        !self.empty
    }
}

/// Writes `value` as a JSON string.
pub fn push_string(out: &mut String, value: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in value.bytes().enumerate() {
        if PLAIN[byte as usize] {
            continue;
        }
        out.push_str(&value[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            _ => {
                out.push_str("\\u00");
                for nibble in [byte >> 4, byte & 15] {
                    out.push(
                        char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16"),
                    );
                }
            }
        }
    }
    out.push_str(&value[plain..]);
    out.push('"');
}

#[cfg(test)]
mod tests;
