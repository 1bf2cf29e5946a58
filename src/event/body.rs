//! Splits a request's body into events, without deciding what they mean.
//!
//! Keeps one invariant: an error in one event stays with that event, as far as its end can be
//! found. In NDJSON the end is always found. In a JSON document a syntax error ends the document,
//! and the whole body is refused.

mod documents;
mod encoding;
pub mod framing;
pub mod strays;

use std::borrow::Cow;

use framing::{Documents, Framing};
use strays::Strays;

use super::json::scan::Scanner;
use super::json::string::as_str;
use super::json::{Field, Flaw, Scanned, SyntaxError};
use super::rejection::{Code, Rejection};
use super::warning::beginning_of;

/// Most fields of one event. The formats know 21; others are kept in `meta.extra`. This number
/// leaves room for any sender, and takes 48 KiB while an event is read.
pub const FIELDS_MAX: usize = 1024;

/// Limits on one body.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most events in one body.
    pub events_max: usize,
    /// Most bytes of one event's text.
    pub event_bytes_max: usize,
}

/// Memory that splitting and decoding use.
///
/// Asked for what is allocated ahead, and after each event for what has grown. An event's fields
/// and its row are bounded, so little is held before it is asked for.
pub trait Memory {
    /// Takes `bytes` more; false if they are not available.
    fn take(&self, bytes: usize) -> bool;
}

/// No limit, for callers that bound their bodies in another way.
#[derive(Clone, Copy, Debug)]
pub struct Unlimited;

impl Memory for Unlimited {
    fn take(&self, _bytes: usize) -> bool {
        true
    }
}

/// [`Limits`], and the source of memory.
#[derive(Clone, Copy)]
struct Bounds<'l> {
    limits: &'l Limits,
    memory: &'l dyn Memory,
}

/// A body, split into events.
#[derive(Debug)]
pub struct Body<'a> {
    fields: Vec<Field<'a>>,
    /// Where the previous event's fields begin: the next event mostly has the same names.
    last_from: usize,
    /// Bytes of the whole body.
    room_for: usize,
    events: Vec<Split<'a>>,
    /// The envelope's `sent_at`, as JSON text.
    pub sent_at: Option<&'a str>,
    /// What else the envelope holds.
    pub strays: Strays,
    texts: Vec<&'a str>,
    /// Bytes of owned strings: unescaped names, and messages of rejections.
    owned_bytes: usize,
    /// Bytes of memory asked for so far.
    taken_bytes: usize,
}

#[derive(Debug)]
enum Split<'a> {
    Object {
        from: usize,
        to: usize,
    },
    /// Behind a pointer, as there are few: so good ones take less memory.
    Bad(Box<BadEvent<'a>>),
}

/// An event that cannot be read.
#[derive(Debug)]
pub struct BadEvent<'a> {
    /// Why.
    pub rejection: Rejection,
    /// Its `event_id` as JSON text, if it was read.
    pub event_id: Option<&'a str>,
}

/// One event of a body.
#[derive(Clone, Copy, Debug)]
pub struct RawEvent<'a, 'b> {
    /// Its members, in body order.
    pub fields: &'b [Field<'a>],
    /// Its whole text.
    pub text: &'a str,
}

/// Why a body is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is in another encoding than UTF-8.
    #[error("the body is {0}; send UTF-8")]
    Foreign(&'static str),
    /// It is compressed, and was not said to be, or not so often.
    #[error(
        "the body is compressed with {0}: compress it once, and name that in Content-Encoding: {0}"
    )]
    Compressed(&'static str),
    /// It is an HTML form.
    #[error(
        "the body is a form, as URLSearchParams and HTML forms send it; send JSON, with Content-Type: application/json or, from a beacon, as text"
    )]
    Form,
    /// It is not UTF-8.
    #[error("the body is not UTF-8: the first bad byte is at {0}")]
    NotUtf8(usize),
    /// It is not JSON.
    #[error("the body is not valid JSON: {0}")]
    Syntax(SyntaxError),
    /// It nests too deep to be read.
    #[error("the body cannot be read: {0}")]
    TooDeep(SyntaxError),
    /// There is more after the document.
    #[error(
        "there is more after the JSON document, from byte {0} on; for one document a line, send Content-Type: application/x-ndjson"
    )]
    Trailing(usize),
    /// It has no events.
    #[error("the body has no events")]
    Empty,
    /// It is to be an object and is another value.
    #[error(
        "the body is JSON and no object: send one message, or an object with the member batch, an array of messages"
    )]
    NoObject,
    /// It is to be a batch of messages and is none.
    #[error("the body has no batch, which is an array of messages")]
    NoBatch,
    /// It has too many events.
    #[error("the body has more than {0} events; send them in several requests")]
    TooManyEvents(usize),
    /// A member of the envelope occurs twice: choosing one would be a guess.
    #[error("the member {0} of the body stands twice; send one of each")]
    DuplicateMember(&'static str),
    /// There is no memory to split it.
    #[error("there is no memory to decode the body")]
    NoMemory,
}

impl From<SyntaxError> for BodyError {
    fn from(error: SyntaxError) -> Self {
        match error.is_too_deep() {
            true => Self::TooDeep(error),
            false => Self::Syntax(error),
        }
    }
}

impl<'a> Body<'a> {
    /// Splits `bytes`, without a limit on memory.
    pub fn split(bytes: &'a [u8], framing: Framing, limits: &Limits) -> Result<Self, BodyError> {
        Self::split_within(bytes, framing, limits, &Unlimited)
    }

    /// Splits `bytes`, within the limit of `memory`.
    pub fn split_within(
        bytes: &'a [u8],
        framing: Framing,
        limits: &Limits,
        memory: &dyn Memory,
    ) -> Result<Self, BodyError> {
        let limits = &Bounds { limits, memory };
        let mut body = Self {
            fields: Vec::new(),
            last_from: 0,
            room_for: bytes.len(),
            events: Vec::new(),
            sent_at: None,
            strays: Strays::default(),
            texts: Vec::new(),
            owned_bytes: 0,
            taken_bytes: 0,
        };
        check_encoding(bytes)?;
        match framing.of(bytes) {
            Some(Documents::One) => body.document(utf8(bytes)?, limits)?,
            Some(Documents::Lines) => body.lines(bytes, limits)?,
            None => return Err(BodyError::Form),
        }
        if body.events.is_empty() {
            return Err(BodyError::Empty);
        }
        Ok(body)
    }

    /// Number of events, good and bad.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a body without events is an error of split"
    )]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Bytes of all events' texts.
    pub fn text_bytes(&self) -> usize {
        self.texts.iter().map(|text| text.len()).sum()
    }

    /// The events, in body order.
    pub fn events(&self) -> impl Iterator<Item = Result<RawEvent<'a, '_>, &BadEvent<'a>>> {
        self.events
            .iter()
            .zip(&self.texts)
            .map(|(event, text)| match event {
                Split::Object { from, to } => Ok(RawEvent {
                    fields: &self.fields[*from..*to],
                    text,
                }),
                Split::Bad(bad) => Err(&**bad),
            })
    }

    /// Reads one event, which may be a value of any type.
    fn event(
        &mut self,
        text: &'a str,
        scanner: &mut Scanner<'a>,
        limits: &Bounds<'_>,
    ) -> Result<(), BodyError> {
        if scanner.peek() != Some(b'{') {
            let value = scanner.value(0)?;
            let rejection = Rejection::whole(Code::NotAnObject, "an event is a JSON object");
            return self.bad(value.raw, rejection, None, limits);
        }
        let start = scanner.offset();
        scanner.expect(b'{', "expected an object")?;
        let mut found = Members::new(self.fields.len());
        let mut likely = self.last_from;
        self.last_from = found.from;
        if !scanner.take(b'}') {
            loop {
                let (key, flaw) = match self.fields.get(likely) {
                    Some(Field {
                        key: Cow::Borrowed(last),
                        ..
                    }) if scanner.take_key(last) => (Cow::Borrowed(*last), None),
                    _ => scanner.key()?,
                };
                likely += 1;
                let value = scanner.value(1)?;
                found.push(&mut self.fields, key, value, flaw);
                if !scanner.take(b',') {
                    break;
                }
            }
            scanner.expect(b'}', "expected ',' or '}'")?;
        }
        self.finish(&text[start..scanner.offset()], found, limits)
    }

    fn finish(
        &mut self,
        text: &'a str,
        found: Members,
        limits: &Bounds<'_>,
    ) -> Result<(), BodyError> {
        let event_limits = limits.limits;
        self.owned_bytes += found.owned_bytes;
        let rejection = if text.len() > event_limits.event_bytes_max {
            Some(Rejection::whole(
                Code::EventTooLarge,
                format!(
                    "the event has {} bytes; the most is {}",
                    text.len(),
                    event_limits.event_bytes_max
                ),
            ))
        } else if found.is_too_many {
            Some(Rejection::whole(
                Code::TooManyFields,
                format!("the event has more than {FIELDS_MAX} fields; put some into an object"),
            ))
        } else {
            found.flaw.map(|(at, flaw)| {
                let code = match flaw {
                    Flaw::Nul | Flaw::LoneSurrogate => Code::InvalidUnicode,
                    Flaw::NumberOutOfRange => Code::NumberOutOfRange,
                    Flaw::TooDeep => Code::TooDeep,
                };
                // A NUL is named as it was sent, so that the answer holds none.
                let field = self.fields[at].key.replace('\0', "\\u0000");
                let field = beginning_of(&field).to_owned();
                Rejection::of(code, field, format!("the field {flaw}"))
            })
        };
        if let Some(rejection) = rejection {
            let event_id = self.event_id(found.from);
            self.fields.truncate(found.from);
            return self.bad(text, rejection, event_id, limits);
        }
        let to = self.fields.len();
        self.push(
            text,
            Split::Object {
                from: found.from,
                to,
            },
            limits,
        )
    }

    /// The id of the event whose fields begin at `from`, as JSON text, if it is one that can be told.
    fn event_id(&self, from: usize) -> Option<&'a str> {
        let mut fields = self.fields[from..].iter();
        let id = fields.find(|field| field.key == "event_id")?.raw;
        let is_flawed = as_str(id)?.contains(['\0', '\u{FFFD}']);
        (!is_flawed).then_some(id)
    }

    fn bad(
        &mut self,
        text: &'a str,
        rejection: Rejection,
        event_id: Option<&'a str>,
        limits: &Bounds<'_>,
    ) -> Result<(), BodyError> {
        self.owned_bytes += size_of::<BadEvent<'_>>();
        if let Cow::Owned(message) = &rejection.message {
            self.owned_bytes += message.capacity();
        }
        let bad = BadEvent {
            rejection,
            event_id,
        };
        self.push(text, Split::Bad(Box::new(bad)), limits)
    }

    fn push(
        &mut self,
        text: &'a str,
        split: Split<'a>,
        limits: &Bounds<'_>,
    ) -> Result<(), BodyError> {
        let events_max = limits.limits.events_max;
        if self.events.len() >= events_max {
            return Err(BodyError::TooManyEvents(events_max));
        }
        if self.events.len() == 1 && self.room_for > text.len() {
            // At the second event, the rest is taken to be like the two, and space is reserved at
            // once: growing step by step would copy repeatedly.
            let more = (self.room_for / text.len().max(32)).min(events_max);
            self.events.reserve(more);
            self.texts.reserve(more);
            // A long first event must not reserve space for a body of such events: few fields are
            // shorter than 16 bytes.
            let fields = more.saturating_mul(self.fields.len()) / 2;
            self.fields.reserve(fields.min(self.room_for / 16));
        }
        self.events.push(split);
        self.texts.push(text);
        let held_bytes = self.owned_bytes
            + self.fields.capacity() * size_of::<Field<'_>>()
            + self.events.capacity() * size_of::<Split<'_>>()
            + self.texts.capacity() * size_of::<&str>();
        if held_bytes > self.taken_bytes {
            let more = held_bytes - self.taken_bytes;
            self.taken_bytes = held_bytes;
            if !limits.memory.take(more) {
                return Err(BodyError::NoMemory);
            }
        }
        Ok(())
    }
}

/// The members of the event being read.
struct Members {
    from: usize,
    flaw: Option<(usize, Flaw)>,
    /// There are more than [`FIELDS_MAX`]; the rest is skipped.
    is_too_many: bool,
    /// Bytes of names that had to be unescaped.
    owned_bytes: usize,
}

impl Members {
    fn new(from: usize) -> Self {
        Self {
            from,
            flaw: None,
            is_too_many: false,
            owned_bytes: 0,
        }
    }

    fn push<'a>(
        &mut self,
        fields: &mut Vec<Field<'a>>,
        key: Cow<'a, str>,
        value: Scanned<'a>,
        flaw_of_key: Option<Flaw>,
    ) {
        if fields.len() - self.from >= FIELDS_MAX {
            self.is_too_many = true;
            return;
        }
        if flaw_of_key.is_some() || value.flaw.is_some() {
            let flaw = flaw_of_key.or(value.flaw);
            self.flaw = self.flaw.or(flaw.map(|flaw| (fields.len(), flaw)));
        }
        if let Cow::Owned(name) = &key {
            self.owned_bytes += name.capacity();
        }
        fields.push(Field {
            key,
            raw: value.raw,
            escaped: value.escaped,
        });
    }
}

/// The text of a body that is one document, and the offset behind its byte order marks.
pub(super) fn one_document(bytes: &[u8]) -> Result<(&str, usize), BodyError> {
    check_encoding(bytes)?;
    Ok((utf8(bytes)?, encoding::mark_bytes(bytes)))
}

fn check_encoding(bytes: &[u8]) -> Result<(), BodyError> {
    if let Some(name) = encoding::foreign(bytes) {
        return Err(BodyError::Foreign(name));
    }
    match encoding::compression(bytes) {
        Some(name) => Err(BodyError::Compressed(name)),
        None => Ok(()),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, BodyError> {
    simdutf8::compat::from_utf8(bytes).map_err(|error| BodyError::NotUtf8(error.valid_up_to()))
}

#[cfg(test)]
mod tests;
