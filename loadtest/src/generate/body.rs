//! Bodies: events, framed and compressed, ready to be posted.

use std::io::Write as _;

use bytes::Bytes;

use super::event::Events;
use super::plan::Role;
use super::settings::{Encoding, Format, Framing};
use super::time::{Style, push_rfc3339};
use super::write;

/// A body that is ready to be posted.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    /// Its place in the run.
    pub(crate) number: u32,
    /// What to send.
    pub(crate) bytes: Bytes,
    /// How many events the service sees in it.
    pub(crate) events: u32,
    /// Events before it in the run.
    pub(crate) events_before: u64,
    /// The places in the body of events that must be rejected, and the codes.
    pub(crate) rejects: Box<[(u32, &'static str)]>,
}

/// Makes the bodies of a run one after the other.
#[derive(Debug)]
pub(crate) struct Bodies<'s> {
    events: Events<'s>,
    next: u32,
    events_before: u64,
    /// Memory of the body before it is compressed.
    text: Vec<u8>,
}

impl<'s> Bodies<'s> {
    /// From the first one on.
    pub(crate) fn new(events: Events<'s>) -> Self {
        Self {
            events,
            next: 0,
            events_before: 0,
            text: Vec::new(),
        }
    }

    /// Writes the text of body `number`.
    pub(crate) fn text(&mut self, number: u32) -> (&[u8], u32, Vec<(u32, &'static str)>) {
        let settings = self.events.settings;
        let plan = self.events.plan;
        let framing = settings.framing;
        let (open, comma, close): (&[u8], u8, &[u8]) = match framing {
            Framing::Json => (b"[", b',', b"]"),
            Framing::Envelope => (b"{\"events\":[", b',', b"]"),
            Framing::Ndjson => (b"", b'\n', b"\n"),
        };
        let table = plan.stream_of(number).table;
        self.text.clear();
        self.text.extend_from_slice(open);
        let mut events = 0;
        let mut rejects = Vec::new();
        for slot in plan.slots_of(number) {
            let (body, slot) = match plan.role(number, slot) {
                Role::Repeat(original) => (plan.body_of(original), original),
                Role::Fresh | Role::Invalid => (number, slot),
            };
            let event = self.events.event(body, slot);
            if let Some(fault) = event.fault {
                rejects.push((events, fault.code(table)));
            }
            write::write(settings, event, &mut self.text, |out| {
                if events > 0 {
                    out.push(comma);
                }
                events += 1;
            });
        }
        self.text.extend_from_slice(close);
        if framing == Framing::Envelope {
            // The clock has no say: the same seed makes the same bytes.
            self.text.extend_from_slice(b",\"sent_at\":\"");
            push_rfc3339(&mut self.text, settings.until_us, Style::Micros);
            self.text.extend_from_slice(b"\"}");
        }
        (&self.text, events, rejects)
    }
}

impl Iterator for Bodies<'_> {
    type Item = Body;

    fn next(&mut self) -> Option<Body> {
        let number = self.next;
        if number >= self.events.plan.bodies() {
            return None;
        }
        let encoding = self.events.settings.encoding;
        let (text, events, rejects) = self.text(number);
        let bytes = encode(text, encoding);
        let body = Body {
            number,
            bytes,
            events,
            events_before: self.events_before,
            rejects: rejects.into(),
        };
        self.next += 1;
        self.events_before += u64::from(events);
        Some(body)
    }
}

/// How many events the service sees in one slot.
pub(crate) fn events_in(event: &super::event::Event) -> u32 {
    match (event.format, event.fault) {
        (Format::PipelinesV1, None) => u32::try_from(event.items.len()).expect("lists are short"),
        _ => 1,
    }
}

/// Compresses fast: clients that post a lot do so too.
fn encode(text: &[u8], encoding: Encoding) -> Bytes {
    match encoding {
        Encoding::None => Bytes::copy_from_slice(text),
        Encoding::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(text).expect("a Vec takes all");
            gzip.finish().expect("a Vec takes all").into()
        }
        Encoding::Zstd => zstd::bulk::compress(text, 1)
            .expect("zstd compresses any bytes at level 1")
            .into(),
    }
}
