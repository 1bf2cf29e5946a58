//! What a line is: where it goes, and what names its event.
//!
//! The service is the judge of every line; this only looks at the names of its fields, as the
//! service does to recognise a format. A native event is the same event again only with an
//! `event_id` and an `occurred_at`, so one that lacks them gets them here: the id from its place in
//! the file, the time from the caller, as a file has none that a copy keeps. Lines of the suite's formats are sent as they are: the service names those events by
//! what they hold.

use std::borrow::Cow;
use std::ops::Range;

use sha2::{Digest, Sha256};
use uuid::{Uuid, Variant};

use super::fields::{Fields, Name};

/// The namespace of the ids that are made here.
const LINES: Uuid = Uuid::from_u128(0x5d0e_38a1_7c42_4b7e_9f0d_6a51_c8e2_b934);

/// Bytes of the first line by which a file is recognised.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A hash of the first line of a file, which names the file at any path.
pub(crate) type Head = [u8; 32];

/// The head of a file that begins with this line.
pub(crate) fn head_of(first_line: &[u8]) -> Head {
    Sha256::digest(&first_line[..first_line.len().min(HEAD_BYTES)]).into()
}

/// Where lines are posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Exposures,
    Interactions,
    Assignments,
}

impl Endpoint {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Exposures, Self::Interactions, Self::Assignments];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Exposures => "/v1/exposures",
            Self::Interactions => "/v1/interactions",
            Self::Assignments => "/v1/assignments",
        }
    }
}

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) endpoint: Endpoint,
    /// The list of recsys-pipelines that the line is an item of. Its lines are posted together.
    pub(crate) list: Option<u64>,
    /// What the event lacks.
    missing: Missing,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Missing {
    /// Where the object begins.
    open: usize,
    has_members: bool,
    event_id: Gap,
    occurred_at: Gap,
}

/// Where a field has to be put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Gap {
    /// It is there, or not needed.
    #[default]
    None,
    Absent,
    /// Its value means nothing (null, or blank) and is replaced.
    Empty(Range<usize>),
}

impl Gap {
    fn is_open(&self) -> bool {
        *self != Self::None
    }
}

impl Look {
    /// Looks at a line.
    pub(crate) fn at(line: &[u8]) -> Self {
        let mut look = Self {
            endpoint: Endpoint::Exposures,
            list: None,
            missing: Missing::default(),
        };
        let from = usize::from(line.starts_with(BYTE_ORDER_MARK)) * BYTE_ORDER_MARK.len();
        // The service says what is wrong with a line that is no object.
        let Ok(fields) = serde_json::from_slice::<Fields<'_>>(&line[from..]) else {
            return look;
        };
        let has = |name: Name| fields.get(name).is_some();
        let is_native = has(Name::OccurredAt);
        look.endpoint = if has(Name::EventType) {
            Endpoint::Interactions
        } else if has(Name::ExperimentId) && has(Name::Variant) && !has(Name::Items) {
            Endpoint::Assignments
        } else {
            Endpoint::Exposures
        };
        let is_of_the_suite = !is_native
            && match look.endpoint {
                Endpoint::Assignments => true,
                Endpoint::Interactions => has(Name::Ts),
                Endpoint::Exposures => {
                    has(Name::Ts) || has(Name::Timestamp) && has(Name::SchemaVersion)
                }
            };
        if is_of_the_suite {
            if look.endpoint == Endpoint::Exposures && has(Name::V) && !has(Name::Items) {
                look.list = Some(fields.list());
            }
            return look;
        }
        let gap = |name: Name| match fields.raw(name) {
            None => Gap::Absent,
            Some(raw) if is_empty(raw) => {
                let at = raw.as_ptr() as usize - line.as_ptr() as usize;
                Gap::Empty(at..at + raw.len())
            }
            Some(_) => Gap::None,
        };
        look.missing = Missing {
            open: memchr::memchr(b'{', line).unwrap_or(0),
            has_members: fields.count > 0,
            event_id: gap(Name::EventId),
            // A UUIDv7 tells the time.
            occurred_at: match fields.get(Name::EventId).is_some_and(is_uuid_v7) {
                true => Gap::None,
                false => gap(Name::OccurredAt),
            },
        };
        look
    }

    /// Whether the event has no time.
    pub(crate) fn needs_time(&self) -> bool {
        self.missing.occurred_at.is_open()
    }

    /// The line with what its event lacks; `None` if it lacks nothing.
    pub(crate) fn completed(&self, line: &[u8], place: &Place<'_>) -> Option<Vec<u8>> {
        let Missing {
            open,
            has_members,
            event_id,
            occurred_at,
        } = &self.missing;
        let id = event_id.is_open().then(|| place.id(line).to_string());
        let at = occurred_at.is_open().then(|| place.time());
        if id.is_none() && at.is_none() {
            return None;
        }
        let mut replaced: Vec<(&Range<usize>, &str)> = Vec::new();
        let mut added = String::new();
        for (name, gap, value) in [
            ("event_id", event_id, &id),
            ("occurred_at", occurred_at, &at),
        ] {
            match (gap, value) {
                (Gap::Absent, Some(value)) => {
                    added.push_str(&format!("\"{name}\":\"{value}\","));
                }
                (Gap::Empty(range), Some(value)) => replaced.push((range, value.as_str())),
                _ => {}
            }
        }
        if !has_members {
            added.pop();
        }
        replaced.sort_unstable_by_key(|(range, _)| range.start);
        let mut whole = Vec::with_capacity(line.len() + 120);
        whole.extend_from_slice(&line[..=*open]);
        whole.extend_from_slice(added.as_bytes());
        let mut from = open + 1;
        for (range, value) in replaced {
            whole.extend_from_slice(&line[from..range.start]);
            whole.push(b'"');
            whole.extend_from_slice(value.as_bytes());
            whole.push(b'"');
            from = range.end;
        }
        whole.extend_from_slice(&line[from..]);
        Some(whole)
    }
}

/// Where a line stands, and the time of its event if it has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'p> {
    pub(crate) head: &'p Head,
    pub(crate) offset: u64,
    /// Microseconds since 1970.
    pub(crate) time_us: i64,
}

impl Place<'_> {
    /// The id of an event that has none. Of the same line at the same place of the same file, under
    /// whatever path and compression, it is the same.
    fn id(&self, line: &[u8]) -> Uuid {
        let mut name = Vec::with_capacity(self.head.len() + 8 + line.len());
        name.extend_from_slice(self.head);
        name.extend_from_slice(&self.offset.to_be_bytes());
        name.extend_from_slice(line);
        Uuid::new_v5(&LINES, &name)
    }

    fn time(&self) -> String {
        jiff::Timestamp::from_microsecond(self.time_us)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_string()
    }
}

fn is_empty(raw: &str) -> bool {
    raw == "null"
        || serde_json::from_str::<Cow<'_, str>>(raw).is_ok_and(|text| text.trim().is_empty())
}

fn is_uuid_v7(raw: &str) -> bool {
    let id = raw.trim_matches('"').parse::<Uuid>();
    id.is_ok_and(|id| id.get_version_num() == 7 && id.get_variant() == Variant::RFC4122)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TIME: &str = "2026-05-24T10:00:00.123Z";

    fn completed(line: &str) -> Option<Value> {
        let head = head_of(b"first");
        let time: jiff::Timestamp = TIME.parse().unwrap();
        let place = Place {
            head: &head,
            offset: 7,
            time_us: time.as_microsecond(),
        };
        let look = Look::at(line.as_bytes());
        let whole = look.completed(line.as_bytes(), &place)?;
        let text = String::from_utf8(whole).unwrap();
        Some(serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap())
    }

    #[test]
    fn a_line_goes_where_the_service_takes_its_format() {
        for (line, endpoint, is_list) in [
            (
                r#"{"event_type":"click","item_id":"a"}"#,
                Endpoint::Interactions,
                false,
            ),
            (
                r#"{"event_type":"click","item_id":"a","ts":"x","request_id":"r"}"#,
                Endpoint::Interactions,
                false,
            ),
            (
                r#"{"request_id":"r","surface":"home","items":[]}"#,
                Endpoint::Exposures,
                false,
            ),
            (
                r#"{"schema_version":"v1","timestamp":"x","request_id":"r"}"#,
                Endpoint::Exposures,
                false,
            ),
            (
                r#"{"ts":"x","request_id":"r","user_id":"u","items":[]}"#,
                Endpoint::Exposures,
                false,
            ),
            (
                r#"{"v":1,"ts":"x","tenant":"t","session_id":"s","item_id":"a"}"#,
                Endpoint::Exposures,
                true,
            ),
            (
                r#"{"experiment_id":"e","variant":"a","request_id":"r","user_id":"u","ts":"x"}"#,
                Endpoint::Assignments,
                false,
            ),
            ("[1]", Endpoint::Exposures, false),
            ("no json", Endpoint::Exposures, false),
        ] {
            let look = Look::at(line.as_bytes());
            assert_eq!(
                (look.endpoint, look.list.is_some()),
                (endpoint, is_list),
                "{line}"
            );
        }
    }

    #[test]
    fn a_native_event_gets_what_names_it_and_others_nothing() {
        let v7 = "0190163d-8694-739b-aea5-966c26f8ad91";
        for (line, has) in [
            (r#"{}"#.to_owned(), ["made", "made"]),
            (
                r#" { "event_type" : "click" }"#.to_owned(),
                ["made", "made"],
            ),
            (
                "\u{feff}{\"event_type\":\"click\"}".to_owned(),
                ["made", "made"],
            ),
            (
                r#"{"event_type":"click","event_id":null}"#.to_owned(),
                ["made", "made"],
            ),
            (
                r#"{"event_id":"  ","a":1,"occurred_at":null}"#.to_owned(),
                ["made", "made"],
            ),
            (
                r#"{"occurred_at":null,"event_id":"x"}"#.to_owned(),
                ["x", "made"],
            ),
            (r#"{"event_id":"x","items":[]}"#.to_owned(), ["x", "made"]),
            (
                r#"{"occurred_at":"2026-01-01T00:00:00Z"}"#.to_owned(),
                ["made", "2026-01-01T00:00:00Z"],
            ),
        ] {
            let whole = completed(&line).unwrap_or_else(|| panic!("{line} stays"));
            let id = whole["event_id"].as_str().unwrap();
            assert!(
                has[0] == id || has[0] == "made" && id.parse::<Uuid>().is_ok(),
                "{whole}"
            );
            let at = whole["occurred_at"].as_str().unwrap();
            assert_eq!(at, if has[1] == "made" { TIME } else { has[1] }, "{whole}");
        }
        for line in [
            format!(r#"{{"event_id":"{v7}"}}"#),
            r#"{"event_id":"x","occurred_at":"y"}"#.to_owned(),
            r#"{"event_type":"click","ts":"x"}"#.to_owned(),
            r#"{"ts":"x","items":[]}"#.to_owned(),
            r#"{"schema_version":"v1","timestamp":"x"}"#.to_owned(),
            r#"{"v":1,"ts":"x","item_id":"a"}"#.to_owned(),
            "[]".to_owned(),
            "{".to_owned(),
        ] {
            assert_eq!(completed(&line), None, "{line}");
        }
    }

    #[test]
    fn an_id_is_that_of_a_line_at_its_place() {
        let id = |first: &[u8], offset, line: &[u8]| {
            let head = head_of(first);
            Place {
                head: &head,
                offset,
                time_us: 0,
            }
            .id(line)
        };
        let one = id(b"a", 1, b"x");
        assert_eq!(one, id(b"a", 1, b"x"));
        for other in [id(b"b", 1, b"x"), id(b"a", 2, b"x"), id(b"a", 1, b"y")] {
            assert_ne!(one, other);
        }
        // Stored rows hang on it.
        assert_eq!(one.get_version_num(), 5);
        assert_eq!(json!(id(b"a", 1, b"x").to_string()), json!(one.to_string()));
    }
}
