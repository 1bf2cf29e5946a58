//! Bodies: events, framed and compressed, ready to be posted.

use std::io::Write as _;

use bytes::Bytes;

use super::plan::Plan;
use super::settings::{Encoding, Framing};
use super::write::{self, Style};

#[derive(Clone, Debug)]
pub struct Body {
    pub number: u32,
    pub bytes: Bytes,
    /// How many events the service sees in it.
    pub events: u32,
    /// Events before it in the run.
    pub events_before: u64,
    /// The places in the body of events that must be rejected, and the codes.
    pub rejects: Box<[(u32, &'static str)]>,
}

/// Makes the bodies of a run one after the other.
#[derive(Debug)]
pub struct Bodies<'p> {
    plan: &'p Plan,
    next: u32,
    events_before: u64,
    /// Memory of the body before it is compressed.
    text: Vec<u8>,
}

impl<'p> Bodies<'p> {
    pub fn new(plan: &'p Plan) -> Self {
        Self {
            plan,
            next: 0,
            events_before: 0,
            text: Vec::new(),
        }
    }

    pub fn text(&mut self, number: u32) -> (&[u8], u32, Vec<(u32, &'static str)>) {
        let settings = &self.plan.settings;
        let sent_at = write::rfc3339(settings.until_us(), Style::Micros);
        let (open, comma, close) = match settings.framing {
            Framing::Json => ("[", b',', "]".to_owned()),
            // The clock has no say: the same seed makes the same bytes.
            Framing::Envelope => (
                "{\"events\":[",
                b',',
                format!("],\"sent_at\":\"{sent_at}\"}}"),
            ),
            Framing::Ndjson => ("", b'\n', "\n".to_owned()),
        };
        self.text.clear();
        self.text.extend_from_slice(open.as_bytes());
        let mut events = 0;
        let mut rejects = Vec::new();
        for slot in self.plan.slots_of(number) {
            let (_, body, slot) = self.plan.source(number, slot);
            let event = self.plan.event(body, slot);
            if let Some(fault) = event.fault {
                rejects.push((events, fault.code(event.table)));
            }
            for document in write::documents(self.plan, event) {
                if events > 0 {
                    self.text.push(comma);
                }
                serde_json::to_writer(&mut self.text, &document).expect("a Vec takes all");
                events += 1;
            }
        }
        self.text.extend_from_slice(close.as_bytes());
        (&self.text, events, rejects)
    }
}

impl Iterator for Bodies<'_> {
    type Item = Body;

    fn next(&mut self) -> Option<Body> {
        let number = self.next;
        if number >= self.plan.bodies() {
            return None;
        }
        let encoding = self.plan.settings.encoding;
        let (text, events, rejects) = self.text(number);
        let body = Body {
            number,
            bytes: encode(text, encoding),
            events,
            events_before: self.events_before,
            rejects: rejects.into(),
        };
        self.next += 1;
        self.events_before += u64::from(events);
        Some(body)
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
