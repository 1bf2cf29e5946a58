//! Whether a body is one JSON document or one a line: by its label, and where that says nothing, by
//! its bytes.

use super::encoding;
use crate::event::json::scan::Scanner;

/// How events are framed in the body's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One JSON document: an event, an array of events, or `{"events": […]}`.
    Json,
    /// One JSON document a line.
    Lines,
    /// Unlabelled, as browsers' beacons send it: a document if it is one, else lines.
    Either,
    /// Labelled as an HTML form. `curl -d` and several HTTP libraries label every body so: as
    /// `Either` if it begins like JSON.
    Form,
}

/// The documents of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Documents {
    One,
    /// One on each line.
    Lines,
}

impl Framing {
    /// The documents in `bytes`; `None` for an HTML form.
    pub(super) fn of(self, bytes: &[u8]) -> Option<Documents> {
        let is_one = match self {
            Framing::Json => true,
            Framing::Lines => false,
            Framing::Form
                if !matches!(encoding::content(bytes).first(), None | Some(b'{' | b'[')) =>
            {
                return None;
            }
            Framing::Either | Framing::Form => is_one_document(bytes),
        };
        Some(match is_one {
            true => Documents::One,
            false => Documents::Lines,
        })
    }
}

/// Whether an unlabelled body is one JSON document rather than one on each line.
fn is_one_document(bytes: &[u8]) -> bool {
    let content = encoding::content(bytes);
    let first_line = content
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    if first_line.len() == content.trim_ascii_end().len() || first_line.first() == Some(&b'[') {
        return true;
    }
    // These are lines if the first one is a complete value. A document that is spread over several
    // lines breaks off in the first.
    let Ok(line) = simdutf8::basic::from_utf8(first_line) else {
        return false;
    };
    let mut scanner = Scanner::new(line);
    scanner.value(0).is_err()
}
