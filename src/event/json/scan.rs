//! Finds where a value ends, and whether jsonb would accept it.
//!
//! One pass, no recursion. Returns slices of its input; only names with escapes are copied.

use std::borrow::Cow;

use super::string::{hex4, plain_run, unescape};
use super::{
    DEPTH_HARD_MAX, DEPTH_MAX, EXPONENT_MAX, Flaw, NESTED_TOO_DEEP, NUMBER_BYTES_MAX, Scanned,
    SyntaxError,
};

/// Walks a text from value to value.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    open: Vec<Open>,
    /// The first flaw of the key or value being read.
    flaw: Option<Flaw>,
    /// Whether the key or value holds escapes.
    escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Array,
    Object,
}

/// Nothing, or what is wrong at the current offset. Smaller than a [`SyntaxError`], so that it fits
/// into registers.
type Step = Result<(), &'static str>;

impl<'a> Scanner<'a> {
    /// Starts at the beginning of `text`.
    pub fn new(text: &'a str) -> Self {
        Self::starting_at(text, 0)
    }

    /// Starts at the byte `at` of `text`; offsets count from the start of `text` all the same.
    pub fn starting_at(text: &'a str, at: usize) -> Self {
        Self {
            text,
            at,
            open: Vec::new(),
            flaw: None,
            escaped: false,
        }
    }

    /// The current offset, in bytes.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The next byte that is not white space, without consuming it.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        match self.text.as_bytes().get(self.at) {
            // Most senders write no white space.
            Some(&byte) if byte > b' ' => Some(byte),
            _ => self.peek_behind_space(),
        }
    }

    #[cold]
    fn peek_behind_space(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                _ => return Some(byte),
            }
        }
        None
    }

    /// Consumes `byte` if it is next.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    /// Consumes `byte`, which must be next.
    #[inline]
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), SyntaxError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    /// Reads an object's member name and its colon.
    #[inline]
    pub fn key(&mut self) -> Result<(Cow<'a, str>, Option<Flaw>), SyntaxError> {
        self.flaw = None;
        self.escaped = false;
        let inner = self.name().map_err(|what| self.error(what))?;
        let key = if self.escaped {
            Cow::Owned(unescape(inner))
        } else {
            Cow::Borrowed(inner)
        };
        Ok((key, self.flaw))
    }

    /// Consumes the name `expected` and its colon, if they are next with nothing between.
    ///
    /// Events of one body mostly have the same fields, and a known name need only be compared. It
    /// must come from a text without escapes.
    #[inline]
    pub fn take_key(&mut self, expected: &str) -> bool {
        let is_string = self.peek() == Some(b'"');
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let end = expected.len() + 1;
        let found = is_string
            && rest.get(end..end + 2) == Some(b"\":")
            && rest[1..end] == *expected.as_bytes();
        if found {
            self.at += end + 2;
        }
        found
    }

    /// Reads one value of any kind that starts `depth` levels deep in its event.
    #[inline]
    pub fn value(&mut self, depth: usize) -> Result<Scanned<'a>, SyntaxError> {
        self.flaw = None;
        self.escaped = false;
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') => self.nested(depth),
            _ => self.scalar(first),
        }
        .map_err(|what| self.error(what))?;
        Ok(Scanned {
            raw: &self.text[start..self.at],
            flaw: self.flaw,
            escaped: self.escaped,
        })
    }

    /// A syntax error at the current offset.
    #[cold]
    pub fn error(&self, what: &'static str) -> SyntaxError {
        SyntaxError {
            offset: self.at,
            what,
        }
    }

    /// Reads an object or array and all that it holds.
    fn nested(&mut self, depth: usize) -> Step {
        self.open.clear();
        loop {
            match self.peek() {
                Some(b'"') => self.string()?,
                Some(b'{') => {
                    self.enter(Open::Object, depth)?;
                    if !self.take(b'}') {
                        self.name()?;
                        continue;
                    }
                    self.open.pop();
                }
                Some(b'[') => {
                    self.enter(Open::Array, depth)?;
                    if !self.take(b']') {
                        continue;
                    }
                    self.open.pop();
                }
                other => self.scalar(other)?,
            }
            // A value is complete: close what it closes, or go on to the next.
            loop {
                let Some(&open) = self.open.last() else {
                    return Ok(());
                };
                match (open, self.peek()) {
                    (Open::Array, Some(b',')) => {
                        self.at += 1;
                        break;
                    }
                    (Open::Object, Some(b',')) => {
                        self.at += 1;
                        self.name()?;
                        break;
                    }
                    (Open::Array, Some(b']')) | (Open::Object, Some(b'}')) => {
                        self.at += 1;
                        self.open.pop();
                    }
                    (Open::Array, _) => return Err("expected ',' or ']'"),
                    (Open::Object, _) => return Err("expected ',' or '}'"),
                }
            }
        }
    }

    fn enter(&mut self, open: Open, depth: usize) -> Step {
        if self.open.len() >= DEPTH_HARD_MAX {
            return Err(NESTED_TOO_DEEP);
        }
        self.at += 1;
        self.open.push(open);
        if depth + self.open.len() > DEPTH_MAX {
            self.note(Flaw::TooDeep);
        }
        Ok(())
    }

    /// Reads a member's name and its colon; returns the text inside the quotes.
    #[inline]
    fn name(&mut self) -> Result<&'a str, &'static str> {
        if self.peek() != Some(b'"') {
            return Err("expected a member name in quotes");
        }
        let start = self.at + 1;
        self.string()?;
        let end = self.at - 1;
        if !self.take(b':') {
            return Err("expected ':' after a member name");
        }
        Ok(&self.text[start..end])
    }

    /// Reads a number or a literal; `first` is its first byte.
    #[inline]
    fn scalar(&mut self, first: Option<u8>) -> Step {
        match first {
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(_) => Err("expected a value"),
            None => Err("the text ends where a value was expected"),
        }
    }

    fn literal(&mut self, word: &'static str) -> Step {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err("expected a value")
        }
    }

    /// Reads a string from its opening to its closing quote.
    #[inline]
    fn string(&mut self) -> Step {
        let bytes = self.text.as_bytes();
        self.at += 1;
        self.at += plain_run(&bytes[self.at..]);
        if bytes.get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(());
        }
        self.rest_of_string()
    }

    /// Reads the rest of a string, from its first escape or unexpected byte.
    #[cold]
    fn rest_of_string(&mut self) -> Step {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.escaped = true;
                    let (length, found) = escape(&bytes[self.at..])?;
                    if let Some(flaw) = found {
                        self.note(flaw);
                    }
                    self.at += length;
                }
                Some(_) => return Err("a control character inside a string"),
                None => return Err("the text ends inside a string"),
            }
            self.at += plain_run(&bytes[self.at..]);
        }
    }

    fn number(&mut self) -> Step {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let digits = |from: usize| {
            let mut at = from;
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at - from
        };
        let mut at = start + usize::from(bytes[start] == b'-');
        let whole = digits(at);
        if whole == 0 || (whole > 1 && bytes[at] == b'0') {
            return Err("not a number");
        }
        at += whole;
        if bytes.get(at) == Some(&b'.') {
            let fraction = digits(at + 1);
            if fraction == 0 {
                return Err("a number with nothing after its point");
            }
            at += 1 + fraction;
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let length = digits(at);
            if length == 0 {
                return Err("a number with an empty exponent");
            }
            let exponent = bytes[at..at + length].iter().fold(0_u32, |sum, b| {
                (sum * 10 + u32::from(b - b'0')).min(100_000)
            });
            if exponent > EXPONENT_MAX {
                self.note(Flaw::NumberOutOfRange);
            }
            at += length;
        }
        if at - start > NUMBER_BYTES_MAX {
            self.note(Flaw::NumberOutOfRange);
        }
        self.at = at;
        Ok(())
    }

    fn note(&mut self, flaw: Flaw) {
        self.flaw = self.flaw.or(Some(flaw));
    }
}

/// The length of the escape at the start of `bytes`; a surrogate pair counts as one.
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
