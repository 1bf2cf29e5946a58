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
    time: Gap,
    /// The field of the time.
    time_name: &'static str,
    /// The time that the event's own id tells, in microseconds since 1970.
    id_time_us: Option<i64>,
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
        let is_assignment = look.endpoint == Endpoint::Assignments;
        let is_of_the_suite = !is_native
            && match look.endpoint {
                Endpoint::Assignments => has(Name::Ts),
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
            // An assignment is named by what it says.
            event_id: match is_assignment {
                true => Gap::None,
                false => gap(Name::EventId),
            },
            time: match is_assignment {
                true => gap(Name::Ts),
                false => gap(Name::OccurredAt),
            },
            time_name: if is_assignment { "ts" } else { "occurred_at" },
            // Said in the line: where it is outside the service's horizon, the service would take the
            // time of arrival instead, which is another one each time.
            id_time_us: fields.get(Name::EventId).and_then(time_of_uuid_v7),
        };
        look
    }

    /// Whether the event has no time, and no id that tells one.
    pub(crate) fn needs_time(&self) -> bool {
        self.missing.time.is_open() && self.missing.id_time_us.is_none()
    }

    /// The field that has the event's time.
    pub(crate) fn time_name(&self) -> &'static str {
        self.missing.time_name
    }

    /// The line with what its event lacks; `None` if it lacks nothing.
    pub(crate) fn completed(&self, line: &[u8], place: &Place<'_>) -> Option<Vec<u8>> {
        let Missing {
            open,
            has_members,
            event_id,
            time,
            time_name,
            id_time_us,
        } = &self.missing;
        let id = event_id.is_open().then(|| place.id(line).to_string());
        let at = time
            .is_open()
            .then(|| shown(id_time_us.unwrap_or(place.time_us)));
        if id.is_none() && at.is_none() {
            return None;
        }
        let mut replaced: Vec<(&Range<usize>, &str)> = Vec::new();
        let mut added = String::new();
        for (name, gap, value) in [("event_id", event_id, &id), (*time_name, time, &at)] {
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
}

/// A time as text; microseconds since 1970.
fn shown(time_us: i64) -> String {
    jiff::Timestamp::from_microsecond(time_us)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

fn is_empty(raw: &str) -> bool {
    raw == "null"
        || serde_json::from_str::<Cow<'_, str>>(raw).is_ok_and(|text| text.trim().is_empty())
}

/// The time that a UUIDv7 tells, as the service reads it, in microseconds since 1970.
fn time_of_uuid_v7(raw: &str) -> Option<i64> {
    let id = raw.trim_matches('"').parse::<Uuid>().ok()?;
    if id.get_version_num() != 7 || id.get_variant() != Variant::RFC4122 {
        return None;
    }
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    let time_us = i64::try_from(seconds).ok()?.checked_mul(1_000_000)?;
    let time_us = time_us.checked_add(i64::from(nanos / 1000))?;
    let is_time = jiff::Timestamp::from_microsecond(time_us).is_ok();
    is_time.then_some(time_us)
}

#[cfg(test)]
mod tests;
