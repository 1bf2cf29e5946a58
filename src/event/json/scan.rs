//! Where a value ends, and whether jsonb would take it.
//!
//! One pass, no recursion, no copies: it hands out slices of its input.

use std::borrow::Cow;

use super::string::{PLAIN, hex4, unescape};
use super::{
    DEPTH_HARD_MAX, DEPTH_MAX, EXPONENT_MAX, Flaw, NUMBER_BYTES_MAX, Scanned, SyntaxError,
};

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
