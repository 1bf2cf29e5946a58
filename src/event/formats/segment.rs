//! Segment's messages, as its client libraries and those of RudderStack post them.
//!
//! A message that tells of items becomes the text of a native event, and what is checked, hashed and stored of it is
//! decided where native events are read. All other messages are counted and not kept. The table of
//! what becomes what is in `docs/segment.md`. Pure: knows nothing of HTTP.

pub(crate) mod events;
mod message;
mod names;
pub(crate) mod rules;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use uuid::Uuid;

use crate::event::body::{self, BodyError};
use crate::event::decode::{Decoded, REJECTED_IN_FULL, Rejected};
use crate::event::field::EVENT_ID_BYTES_MAX;
use crate::event::json::Field;
use crate::event::json::scan::Scanner;
use crate::event::json::string;
use crate::event::json::walk::{self, Walker};
use crate::event::rejection::{Code, Rejection};
use crate::event::warning::Warnings;
use events::Events;
use message::{Message, Written};
use rules::{Call, Rules, Type};

/// The member of a body that holds several messages.
const BATCH: &str = "batch";

/// The member that holds the API key.
const WRITE_KEY: &str = "writeKey";

/// What became of a body's messages.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) exposures: Events,
    pub(crate) interactions: Events,
    /// Messages that tell of no item, by type.
    pub(crate) not_collected: Vec<(Type, usize)>,
    /// The first messages that are none of an event.
    pub(crate) rejected: Vec<Rejected>,
    /// The others: place and code.
    pub(crate) rejected_more: Vec<(u32, Code)>,
    /// Where each message stands in the body.
    texts: Vec<Range<usize>>,
    /// An event is made from a message without an id.
    is_nameless: bool,
}

/// A body, as far as its form.
#[derive(Debug)]
struct Document<'a> {
    /// The body.
    text: &'a str,
    /// The object in it.
    object: &'a str,
    members: Vec<Field<'a>>,
}

/// The `writeKey` of a body, if it has one.
///
/// # Errors
/// If the body is no JSON object.
pub(crate) fn write_key(bytes: &[u8]) -> Result<Option<String>, BodyError> {
    let document = Document::read(bytes)?;
    document.check_once(WRITE_KEY)?;
    let named = |members: &[Field<'_>]| {
        let field = members.iter().find(|field| field.key == WRITE_KEY)?;
        let key = string::as_str(field.raw).map(Cow::into_owned);
        key.filter(|key| !key.trim().is_empty())
    };
    if let Some(key) = named(&document.members) {
        return Ok(Some(key));
    }
    // Old clients say it in each message.
    let first = document.batch().into_iter().flatten().next();
    let first = first.and_then(|first| walk::members_named(first, &[WRITE_KEY]));
    Ok(first.and_then(|first| named(&first)))
}

/// What was done to the accepted events of a body, all tables together, in Segment's words.
pub(crate) fn warnings<'w>(of_tables: impl Iterator<Item = &'w Warnings>) -> Warnings {
    let mut all = Warnings::default();
    for one in of_tables.flat_map(|table| table.named().chain(table.others())) {
        all.add(one.code, names::of_warning(&one.field), one.count);
    }
    all
}

/// An id for a message that has none: the same for the same text at the same place of a batch.
fn made_id(place: usize, text: &str) -> String {
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes());
    format!("segment/{place}/{hash}")
}

impl<'a> Document<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, BodyError> {
        let (text, start) = body::one_document(bytes)?;
        let mut scanner = Scanner::starting_at(text, start);
        match scanner.peek() {
            Some(b'{') => {}
            None => return Err(BodyError::Empty),
            Some(_) => {
                let is_json = scanner.value(0).is_ok() && scanner.peek().is_none();
                let mut scanner = Scanner::starting_at(text, start);
                scanner.peek();
                return Err(match is_json {
                    true => BodyError::NoObject,
                    false => scanner.error("expected an object").into(),
                });
            }
        }
        let value = scanner.value(0)?;
        if scanner.peek().is_some() {
            return Err(BodyError::Trailing(scanner.offset()));
        }
        let document = Self {
            text,
            object: value.raw,
            members: message::members(value.raw).unwrap_or_default(),
        };
        // Of two lists one would be passed over.
        document.check_once(BATCH)?;
        Ok(document)
    }

    /// Refuses a body that has a member twice: to choose one would be a guess.
    fn check_once(&self, name: &'static str) -> Result<(), BodyError> {
        let found = self.members.iter().filter(|field| field.key == name);
        match found.count() {
            0 | 1 => Ok(()),
            _ => Err(BodyError::DuplicateMember(name)),
        }
    }

    /// The messages of a batch.
    fn batch(&self) -> Option<impl Iterator<Item = &'a str> + use<'a>> {
        let field = self.members.iter().find(|field| field.key == BATCH)?;
        let mut walker = Walker::new(field.raw);
        let is_list = walker.enter(b'[');
        is_list.then(|| std::iter::from_fn(move || walker.more(b']').then(|| walker.value().0)))
    }
}

impl Messages {
    /// Reads a body.
    ///
    /// Events of a body for both tables are two records, one of which may be stored while the other is
    /// refused: then messages without an id get one of their own text, so that they are the same
    /// events when the body is sent again.
    ///
    /// # Errors
    /// If the body as a whole cannot be read. What is wrong with one message stays with it.
    pub(crate) fn read(bytes: &[u8], call: Call, rules: Rules<'_>) -> Result<Self, BodyError> {
        let document = Document::read(bytes)?;
        let messages = Self::of(&document, call, rules, false)?;
        let is_mixed = !messages.exposures.is_empty() && !messages.interactions.is_empty();
        match is_mixed && messages.is_nameless {
            true => Self::of(&document, call, rules, true),
            false => Ok(messages),
        }
    }

    fn of(
        document: &Document<'_>,
        call: Call,
        rules: Rules<'_>,
        names_all: bool,
    ) -> Result<Self, BodyError> {
        let mut messages = Self::default();
        let whole = document.text;
        let place = |text: &str| {
            let start = text.as_ptr().addr() - whole.as_ptr().addr();
            start..start + text.len()
        };
        match (document.batch(), call) {
            (Some(batch), _) => {
                for text in batch {
                    if messages.texts.len() >= rules.messages_max {
                        return Err(BodyError::TooManyEvents(rules.messages_max));
                    }
                    let made_id = names_all.then(|| made_id(messages.texts.len(), text));
                    messages.texts.push(place(text));
                    let members = message::members(text);
                    messages.add(members.as_deref(), made_id.as_deref(), None, rules);
                }
            }
            (None, Call::Batch) => return Err(BodyError::NoBatch),
            (None, Call::One(kind)) => {
                messages.texts.push(place(document.object));
                messages.add(Some(&document.members), None, Some(kind), rules);
            }
        }
        messages.exposures.end();
        messages.interactions.end();
        Ok(messages)
    }

    /// Number of messages.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Adds the last one of the messages in `texts`.
    fn add(
        &mut self,
        members: Option<&[Field<'_>]>,
        made_id: Option<&str>,
        kind: Option<Type>,
        rules: Rules<'_>,
    ) {
        let index = u32::try_from(self.texts.len() - 1).expect("a body is far smaller than 4 GiB");
        let Some(members) = members else {
            let rejection = Rejection::whole(Code::NotAnObject, "a message is a JSON object");
            return self.reject(index, None, rejection);
        };
        let message = Message { members, made_id };
        let written = message.kind(kind).and_then(|kind| match kind {
            Type::Track => message.write(rules, &mut self.exposures, &mut self.interactions),
            kind => Ok(Written::Nothing(kind)),
        });
        let is_event = matches!(written, Ok(Written::Exposure | Written::Interaction));
        self.is_nameless |= is_event && !message.has_id();
        match written {
            Ok(Written::Exposure) => self.exposures.places.push(index),
            Ok(Written::Interaction) => self.interactions.places.push(index),
            Ok(Written::Nothing(kind)) => {
                match self
                    .not_collected
                    .iter_mut()
                    .find(|(known, _)| *known == kind)
                {
                    Some((_, count)) => *count += 1,
                    None => self.not_collected.push((kind, 1)),
                }
            }
            Err(rejection) => {
                let id = members.iter().find(|field| field.key == "messageId");
                let id = id.and_then(|field| string::as_str(field.raw));
                let id = id.filter(|id| id.len() <= EVENT_ID_BYTES_MAX);
                self.reject(index, id.map(Cow::into_owned), rejection);
            }
        }
    }

    fn reject(&mut self, index: u32, event_id: Option<String>, rejection: Rejection) {
        if self.rejected.len() < REJECTED_IN_FULL {
            self.rejected.push(Rejected {
                index,
                event_id,
                rejection,
            });
        } else {
            self.rejected_more.push((index, rejection.code));
        }
    }

    /// Says of decoded events in Segment's words, and by message, what was found of the native ones.
    /// `bytes` is the body that was read.
    pub(crate) fn translate_back(&self, events: &Events, decoded: &mut Decoded, bytes: &[u8]) {
        let place = |index: &mut u32| {
            let found = usize::try_from(*index).ok();
            *index = found
                .and_then(|at| events.places.get(at))
                .copied()
                .unwrap_or(*index);
        };
        for (_, event) in &mut decoded.row_index {
            place(event);
        }
        for (index, _) in &mut decoded.rejected_more {
            place(index);
        }
        for rejected in &mut decoded.rejected {
            place(&mut rejected.index);
            let at = usize::try_from(rejected.index).unwrap_or(usize::MAX);
            let text = self
                .texts
                .get(at)
                .and_then(|range| bytes.get(range.clone()));
            let text = text.and_then(|bytes| std::str::from_utf8(bytes).ok());
            let members = text.and_then(message::members).unwrap_or_default();
            let message = Message {
                members: &members,
                made_id: None,
            };
            // An id that was made here is none that the client knows.
            if !message.has_id() {
                rejected.event_id = None;
            }
            if let Some(field) = &rejected.rejection.field {
                rejected.rejection.field = Some(names::of(&message, field).into());
            }
        }
    }
}
