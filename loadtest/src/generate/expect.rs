//! The row that an event must become, column by column.
//!
//! Written from the contract, and on purpose not with the service's own code.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use super::event::{EVENT_TYPES, Event, RequestId, SEGMENTS, SURFACES, Session, Who};
use super::names;
use super::settings::{Format, Table};
use super::write::variant_name;

/// A column whose value may be a hash that only those with the salt can make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hashed {
    /// NULL.
    Null,
    /// These bytes (in hex, where the column is text).
    Hash([u8; 32]),
    /// This text, as it is.
    Text(String),
    /// A hash of something, and we have no salt.
    Unknown,
}

/// One item of `response`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExpectedItem {
    pub(crate) item_id: String,
    pub(crate) rank: u64,
    /// In thousandths.
    pub(crate) score: Option<u32>,
}

/// A row; `None` is NULL.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) occurred_us: i64,
    pub(crate) event_id: Option<Uuid>,
    pub(crate) request_id: Option<Uuid>,
    pub(crate) surface: Option<String>,
    pub(crate) segment: Option<String>,
    pub(crate) user_key: Hashed,
    pub(crate) session_id: Hashed,
    pub(crate) of_table: OfTable,
}

/// The columns that only one of the tables has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OfTable {
    /// exposure_events
    Exposure {
        experiment_id: Option<String>,
        experiment_variant: Option<String>,
        algo_version: String,
        config_etag: Option<String>,
        rules_etag: Option<String>,
        items: Vec<ExpectedItem>,
    },
    /// interaction_events
    Interaction {
        event_type: String,
        item_id: String,
        position: Option<i32>,
        /// As numeric(18,6) prints it.
        value: Option<String>,
    },
}

/// Makes pseudonyms as the suite does.
#[derive(Clone, Debug)]
pub(crate) struct Salt(Option<Hmac<Sha256>>);

impl Salt {
    /// From the service's EXPOSURE_HASH_SALT, where it is known.
    pub(crate) fn new(salt: Option<&str>) -> Self {
        Self(salt.map(|salt| {
            Hmac::new_from_slice(salt.as_bytes()).expect("HMAC takes keys of any length")
        }))
    }

    /// The pseudonym of a raw id.
    pub(super) fn hash(&self, raw: &str) -> Hashed {
        match &self.0 {
            Some(mac) => {
                let mut mac = mac.clone();
                mac.update(raw.as_bytes());
                Hashed::Hash(mac.finalize().into_bytes().into())
            }
            None => Hashed::Unknown,
        }
    }
}

/// The row of a valid event.
pub(crate) fn row(seed: u64, event: &Event, salt: &Salt) -> Row {
    let surface = event.surface.map(|at| SURFACES[usize::from(at)].to_owned());
    let segment = event.segment.map(|at| SEGMENTS[usize::from(at)].to_owned());
    let user_key = match event.who {
        Who::Nobody => Hashed::Null,
        Who::UserHash(user) => Hashed::Hash(names::user_hash(seed, user)),
        Who::User(_) | Who::Anonymous(_) => {
            salt.hash(&names::raw_user(event.who).expect("these are raw"))
        }
    };
    let session_id = match (event.session, event.table) {
        (Session::Hash(visit), _) => Hashed::Hash(names::session_hash(seed, visit)),
        (Session::Raw(_), _) => {
            salt.hash(&names::raw_session(event.session).expect("this one is raw"))
        }
        // The suite's jobs need one: each request without stands alone.
        (Session::None, Table::Exposures) => {
            Hashed::Text(request_text(event.request.expect("exposures have one")))
        }
        (Session::None, Table::Interactions) => Hashed::Null,
    };
    Row {
        occurred_us: event.occurred_us,
        event_id: (event.format == Format::Native).then_some(event.event_id),
        request_id: event.request.map(request_uuid),
        surface,
        segment: match event.table {
            Table::Exposures => Some(segment.unwrap_or_else(|| "default".to_owned())),
            Table::Interactions => segment,
        },
        user_key,
        session_id,
        of_table: match event.table {
            Table::Exposures => exposure(event),
            Table::Interactions => interaction(event),
        },
    }
}

fn exposure(event: &Event) -> OfTable {
    let version = |word: &str| event.version.map(|version| format!("{word}-{version}"));
    let rank = |at: usize| u64::try_from(at).expect("lists are short");
    let items = event
        .items
        .iter()
        .enumerate()
        .map(|(at, shown)| ExpectedItem {
            item_id: names::item(shown.item),
            rank: match event.format {
                Format::PipelinesV1 => rank(at),
                _ => rank(at + 1),
            },
            score: match event.format {
                Format::PipelinesV1 | Format::EvalV1 => None,
                _ => Some(shown.score),
            },
        });
    OfTable::Exposure {
        experiment_id: event.experiment.map(|(id, _)| format!("exp-{id}")),
        experiment_variant: event
            .experiment
            .map(|(_, variant)| variant_name(variant).to_owned()),
        algo_version: version("algo").unwrap_or_else(|| "unknown".to_owned()),
        config_etag: version("cfg"),
        rules_etag: version("rules"),
        items: items.collect(),
    }
}

fn interaction(event: &Event) -> OfTable {
    OfTable::Interaction {
        event_type: EVENT_TYPES[usize::from(event.event_type)].to_owned(),
        item_id: names::item(event.item),
        position: event
            .position
            .map(|position| i32::try_from(position).expect("lists are short")),
        value: event
            .value
            .map(|value| format!("{}.{:06}", value / 1_000_000, value % 1_000_000)),
    }
}

/// A request's id as the column holds it.
pub(crate) fn request_uuid(request: RequestId) -> Uuid {
    match request {
        RequestId::Uuid(id) => id,
        RequestId::Text(_) => Uuid::new_v5(&Uuid::NAMESPACE_OID, request_text(request).as_bytes()),
    }
}

fn request_text(request: RequestId) -> String {
    match request {
        RequestId::Uuid(id) => id.to_string(),
        RequestId::Text(number) => format!("req-{number}"),
    }
}
