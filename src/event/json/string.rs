//! JSON strings: unescaping and writing them.
//!
//! The input is text that the scanner has accepted.

use std::borrow::Cow;

/// A word with a one in each byte.
const ONES: u64 = u64::MAX / 255;

/// A word with the top bit of each byte.
const TOPS: u64 = ONES << 7;

/// Number of bytes at the start of `bytes` that a string may hold unescaped.
///
/// Eight at a time: in a word, a byte below 0x20, a quote or a backslash sets its top bit in
/// `hits`. The lowest such bit is always right, as a borrow only reaches bytes above a true one.
#[inline]
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    let mut run = 0;
    while let Some(chunk) = bytes[run..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let hits = ends_plain(word);
        if hits != 0 {
            return run + (hits.trailing_zeros() / 8) as usize;
        }
        run += 8;
    }
    plain_tail(bytes, run)
}

/// Ends a run in the last bytes, fewer than eight. Not inlined, since a scanner rarely comes here
/// and runs faster without it.
#[inline(never)]
fn plain_tail(bytes: &[u8], run: usize) -> usize {
    // The bytes past the end are zeros, which stop the run as the end does.
    run + (ends_plain(rest_of(bytes, run)).trailing_zeros() / 8) as usize
}

/// The top bit of each byte that a string may not hold unescaped. Bits above the lowest one may be
/// set in error, as a subtraction borrows.
#[inline]
fn ends_plain(word: u64) -> u64 {
    // With this bit flipped, a quote is 0x20, and control characters are still below that.
    let control_or_quote = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    // None of these bytes has its top bit set.
    (control_or_quote | backslash) & !word & TOPS
}

/// The bytes from `at` on, fewer than eight, padded with zeros.
#[inline]
fn rest_of(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.len() - at;
    match bytes.last_chunk::<8>() {
        Some(last) if rest > 0 => u64::from_le_bytes(*last) >> (8 * (8 - rest)),
        _ => bytes[at..]
            .iter()
            .rev()
            .fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

/// The first offset from `from` on with a backslash or a colon, or one of the other characters that
/// differ from them in the same four bits: with eight bytes at a time, all cost the same as one.
#[inline]
pub fn next_escape_or_colon(bytes: &[u8], from: usize) -> Option<usize> {
    /// The bits in which the two differ.
    const FREE: u64 = (b':' ^ b'\\') as u64;
    let mut at = from;
    loop {
        let chunk = bytes.get(at..)?.first_chunk::<8>();
        let word = chunk.map_or_else(|| rest_of(bytes, at), |chunk| u64::from_le_bytes(*chunk));
        let other_bits = (word | (ONES * FREE)) ^ (ONES * (u64::from(b':') | FREE));
        let hits = other_bits.wrapping_sub(ONES) & !other_bits & TOPS;
        if hits != 0 {
            return Some(at + (hits.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
}

/// Unescapes the text inside a scanned string's quotes.
///
/// Half of a surrogate pair becomes U+FFFD; events with such a string are rejected (see
/// [`super::Flaw`]).
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

/// The string in a scanned value, if it is one.
pub fn as_str(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    Some(if inner.contains('\\') {
        Cow::Owned(unescape(inner))
    } else {
        Cow::Borrowed(inner)
    })
}

/// As [`as_str`], for a value that was scanned and has no escapes.
pub fn as_plain_str(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"')
}

/// Writes `value` as a JSON string.
pub fn push_string(out: &mut String, value: &str) {
    out.reserve(value.len() + 2);
    out.push('"');
    let mut rest = value;
    loop {
        let run = plain_run(rest.as_bytes());
        out.push_str(&rest[..run]);
        let Some(&byte) = rest.as_bytes().get(run) else {
            break;
        };
        rest = &rest[run + 1..];
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
    out.push('"');
}

/// The value of four hex digits.
pub(super) fn hex4(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4)?.iter().try_fold(0, |unit, &byte| {
        Some(unit * 16 + char::from(byte).to_digit(16)?)
    })
}
