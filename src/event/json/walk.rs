//! Reads values that the scanner has accepted.
//!
//! Looks only for the ends of values: what is between them is known to be sound. On a text that was
//! not scanned the results mean nothing, but every call ends.

use std::borrow::Cow;

use super::Field;
use super::string::{plain_run, unescape};

/// Walks into arrays and objects, in place.
///
/// [`Walker::enter`] one, then read a value (in an object, a key and a value) each time
/// [`Walker::more`] returns true.
#[derive(Debug)]
pub struct Walker<'a> {
    text: &'a str,
    at: usize,
    /// Whether the value being read holds escapes.
    escaped: bool,
}

impl<'a> Walker<'a> {
    /// Starts at a scanned value.
    pub fn new(raw: &'a str) -> Self {
        Self {
            text: raw,
            at: 0,
            escaped: false,
        }
    }

    /// Enters the array or object that begins with `open`, if one is next.
    #[inline]
    pub fn enter(&mut self, open: u8) -> bool {
        let found = self.peek() == Some(open);
        self.at += usize::from(found);
        found
    }

    /// Whether there is another element in the array or object that ends with `close`; consumes the
    /// end if not.
    #[inline]
    pub fn more(&mut self, close: u8) -> bool {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.peek().is_some()
            }
            Some(byte) if byte == close => {
                self.at += 1;
                false
            }
            other => other.is_some(),
        }
    }

    /// Consumes the name `expected` and its colon, if they are next with nothing between.
    #[inline(always)]
    pub fn take_key(&mut self, expected: &str) -> bool {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let end = expected.len() + 1;
        let found = rest.len() >= end + 2
            && rest[0] == b'"'
            && rest[1..end] == *expected.as_bytes()
            && rest[end..end + 2] == *b"\":";
        if found {
            self.at += end + 2;
        }
        found
    }

    /// Reads a member's name and its colon; returns the text inside the quotes, and whether it
    /// holds escapes.
    #[inline]
    pub fn key(&mut self) -> (&'a str, bool) {
        self.peek();
        self.escaped = false;
        let start = self.at + 1;
        self.string();
        let inner = self.text.get(start..self.at - 1).unwrap_or_default();
        if self.peek() == Some(b':') {
            self.at += 1;
        }
        (inner, self.escaped)
    }

    /// Reads a value; returns its text, and whether any string in it holds escapes.
    #[inline]
    pub fn value(&mut self) -> (&'a str, bool) {
        self.escaped = false;
        let first = self.peek();
        let start = self.at;
        match first {
            Some(b'"') => self.string(),
            Some(b'{' | b'[') => self.nested(),
            _ => self.scalar(),
        }
        (self.since(start), self.escaped)
    }

    /// The current offset, in bytes.
    #[inline]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The text from an earlier [`Walker::offset`] to here.
    #[inline]
    pub fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// The next byte that is not white space.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Reads a string with its quotes.
    #[inline]
    fn string(&mut self) {
        let bytes = self.text.as_bytes();
        self.at += 1;
        loop {
            self.at += plain_run(bytes.get(self.at..).unwrap_or_default());
            match bytes.get(self.at) {
                Some(b'\\') => {
                    self.escaped = true;
                    self.at += 2;
                }
                None => {
                    self.at = bytes.len().max(1);
                    return;
                }
                Some(_) => {
                    self.at += 1;
                    return;
                }
            }
        }
    }

    fn nested(&mut self) {
        let bytes = self.text.as_bytes();
        let mut depth = 0;
        while let Some(&byte) = bytes.get(self.at) {
            match byte {
                b'"' => {
                    self.string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    /// Reads a number or a literal.
    #[inline]
    fn scalar(&mut self) {
        let bytes = self.text.as_bytes();
        let start = self.at;
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r' => break,
                _ => self.at += 1,
            }
        }
        if self.at == start {
            // There is no value: the text was not scanned. The walk ends.
            self.at = bytes.len();
        }
    }
}

/// The members of a scanned object; `None` if the value is something else.
pub fn members(raw: &str) -> Option<Vec<Field<'_>>> {
    members_that(raw, |_, _| true)
}

/// As [`members`], of those with one of these names alone: of each the first two, which tell that it
/// stands twice. So the memory is bounded however many members the object has.
pub fn members_named<'a>(raw: &'a str, names: &[&str]) -> Option<Vec<Field<'a>>> {
    members_that(raw, |fields, key| {
        let is_of = |field: &&Field<'_>| field.key == key;
        names.contains(&key) && fields.iter().filter(is_of).count() < 2
    })
}

fn members_that<'a>(
    raw: &'a str,
    mut is_kept: impl FnMut(&[Field<'a>], &str) -> bool,
) -> Option<Vec<Field<'a>>> {
    let mut walker = Walker::new(raw);
    if !walker.enter(b'{') {
        return None;
    }
    let mut fields = Vec::with_capacity(4);
    while walker.more(b'}') {
        let key = match walker.key() {
            (key, false) => Cow::Borrowed(key),
            (key, true) => Cow::Owned(unescape(key)),
        };
        let (raw, escaped) = walker.value();
        if is_kept(&fields, &key) {
            fields.push(Field { key, raw, escaped });
        }
    }
    Some(fields)
}
