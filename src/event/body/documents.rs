//! Where events stand in a body: a document with one event, an array or an envelope around several,
//! or a document a line.

use super::{Body, BodyError, Bounds, Members, encoding};
use crate::event::json::scan::Scanner;
use crate::event::rejection::{Code, Rejection};

impl<'a> Body<'a> {
    pub(super) fn document(&mut self, text: &'a str, limits: &Bounds<'_>) -> Result<(), BodyError> {
        let mut scanner = Scanner::starting_at(text, encoding::mark_bytes(text.as_bytes()));
        match scanner.peek() {
            None => return Err(BodyError::Empty),
            Some(b'[') => self.array(text, &mut scanner, limits)?,
            Some(b'{') => self.object_or_envelope(text, &mut scanner, limits)?,
            Some(_) => self.event(text, &mut scanner, limits)?,
        }
        match scanner.peek() {
            None => Ok(()),
            Some(_) => Err(BodyError::Trailing(scanner.offset())),
        }
    }

    pub(super) fn lines(&mut self, bytes: &'a [u8], limits: &Bounds<'_>) -> Result<(), BodyError> {
        for line in bytes.split(|&byte| byte == b'\n') {
            if encoding::content(line).is_empty() {
                continue;
            }
            match simdutf8::basic::from_utf8(line) {
                Ok(line) => self.line(line, limits)?,
                Err(_) => self.bad(
                    "",
                    Rejection::whole(Code::InvalidUtf8, "the line is not UTF-8"),
                    None,
                    limits,
                )?,
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &'a str, limits: &Bounds<'_>) -> Result<(), BodyError> {
        let fields = self.fields.len();
        // A mark also stands inside a body that was put together from several files.
        let mut scanner = Scanner::starting_at(line, encoding::mark_bytes(line.as_bytes()));
        let found = self.event(line, &mut scanner, limits);
        let wrong = match found {
            Ok(()) if scanner.peek().is_none() => return Ok(()),
            Ok(()) => {
                self.events.pop();
                self.texts.pop();
                scanner.error("there is more after the JSON value")
            }
            Err(BodyError::Syntax(error) | BodyError::TooDeep(error)) => error,
            Err(other) => return Err(other),
        };
        let event_id = self.event_id(fields);
        self.fields.truncate(fields);
        let (rejection, event_id) = match wrong.is_too_deep() {
            true => (
                Rejection::whole(Code::TooDeep, format!("the line is {wrong}")),
                event_id,
            ),
            // What is no JSON may be the rest of another event.
            false => (
                Rejection::whole(
                    Code::InvalidJson,
                    format!("the line is not valid JSON: {wrong}"),
                ),
                None,
            ),
        };
        self.bad(line, rejection, event_id, limits)
    }

    fn array(
        &mut self,
        text: &'a str,
        scanner: &mut Scanner<'a>,
        limits: &Bounds<'_>,
    ) -> Result<(), BodyError> {
        scanner.expect(b'[', "expected an array")?;
        if scanner.take(b']') {
            return Ok(());
        }
        loop {
            self.event(text, scanner, limits)?;
            if scanner.take(b',') {
                continue;
            }
            scanner.expect(b']', "expected ',' or ']' after an event")?;
            return Ok(());
        }
    }

    /// Reads an object that is either one event or an envelope around several.
    fn object_or_envelope(
        &mut self,
        text: &'a str,
        scanner: &mut Scanner<'a>,
        limits: &Bounds<'_>,
    ) -> Result<(), BodyError> {
        let start = scanner.offset();
        scanner.expect(b'{', "expected an object")?;
        let mut found = Members::new(self.fields.len());
        let mut is_envelope = false;
        let mut sent_at = None;
        let (mut lists, mut times) = (0, 0);
        if !scanner.take(b'}') {
            loop {
                let (key, flaw) = scanner.key()?;
                lists += usize::from(key == "events");
                times += usize::from(key == "sent_at");
                if key == "events" && scanner.peek() == Some(b'[') && !is_envelope {
                    // The members before `events` are the envelope's, not an event's.
                    for field in &self.fields[found.from..] {
                        self.strays.add(&field.key);
                    }
                    self.fields.truncate(found.from);
                    is_envelope = true;
                    self.array(text, scanner, limits)?;
                } else {
                    let value = scanner.value(1)?;
                    // Null is what a client writes that leaves it out.
                    if key == "sent_at" && value.raw != "null" {
                        sent_at = Some(value.raw);
                    }
                    match is_envelope {
                        true => self.strays.add(&key),
                        false => found.push(&mut self.fields, key, value, flaw),
                    }
                }
                if !scanner.take(b',') {
                    break;
                }
            }
            scanner.expect(b'}', "expected ',' or '}'")?;
        }
        if is_envelope {
            if let Some((name, _)) = [("events", lists), ("sent_at", times)]
                .into_iter()
                .find(|(_, count)| *count > 1)
            {
                return Err(BodyError::DuplicateMember(name));
            }
            self.sent_at = sent_at;
            return Ok(());
        }
        self.finish(&text[start..scanner.offset()], found, limits)
    }
}
