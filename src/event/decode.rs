//! Events in, rows out: the whole of this folder behind one function.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::body::{Body, RawEvent};
use super::exposure;
use super::field::{EVENT_ID_BYTES_MAX, Value};
use super::formats::{self, Grouping};
use super::identity::{self, Pseudonymizer};
use super::interaction;
use super::json;
use super::rejection::{Code, Rejection};
use super::row::{RowWriter, Rows};
use super::table::Table;
use super::time::Micros;

/// How an event's fields are named and nested (contract §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Our own: the columns' names.
    Native,
    /// recsys-service's exposure log.
    ServiceV1,
    /// recsys-eval's exposure.v1, also written by recsys-service.
    EvalV1,
    /// recsys-pipelines' exposure.v1: one line an item.
    PipelinesV1,
    /// recsys-eval's outcome.v1.
    OutcomeV1,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 5] = [
        Format::Native,
        Format::ServiceV1,
        Format::EvalV1,
        Format::PipelinesV1,
        Format::OutcomeV1,
    ];

    /// The name in `?format=` and in `meta.schema`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Native => "native",
            Format::ServiceV1 => "service_v1",
            Format::EvalV1 => "eval_v1",
            Format::PipelinesV1 => "pipelines_v1",
            Format::OutcomeV1 => "outcome_v1",
        }
    }

    /// Whether events of this format go into `table`.
    pub fn fits(self, table: Table) -> bool {
        match self {
            Format::Native => true,
            Format::ServiceV1 | Format::EvalV1 | Format::PipelinesV1 => table == Table::Exposures,
            Format::OutcomeV1 => table == Table::Interactions,
        }
    }

    /// Recognises an event by the fields that only its format has.
    fn recognise(table: Table, event: &RawEvent<'_, '_>) -> Self {
        let has = |name: &str| event.fields.iter().any(|field| field.key == name);
        if has("occurred_at") {
            return Format::Native;
        }
        match table {
            Table::Interactions if has("ts") => Format::OutcomeV1,
            Table::Interactions => Format::Native,
            Table::Exposures if has("timestamp") && has("schema_version") => Format::ServiceV1,
            Table::Exposures if has("ts") && has("v") && !has("items") => Format::PipelinesV1,
            Table::Exposures if has("ts") => Format::EvalV1,
            Table::Exposures => Format::Native,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "native" => Format::Native,
            "service_v1" | "service" => Format::ServiceV1,
            "eval_v1" | "eval" | "exposure.v1" => Format::EvalV1,
            "pipelines_v1" | "pipelines" => Format::PipelinesV1,
            "outcome_v1" | "outcome" | "outcome.v1" => Format::OutcomeV1,
            _ => {
                return Err(format!(
                    "there is no format '{}'; there are native, service_v1, eval_v1, pipelines_v1 and outcome_v1",
                    name.chars().take(40).collect::<String>()
                ));
            }
        })
    }
}

/// Finds the tenant that an event names.
pub trait Tenants {
    /// The tenant's id, if the caller may write for it.
    fn resolve(&self, named: &str) -> Result<Uuid, Code>;
}

/// What decoding has to know beside the bytes.
#[derive(Clone, Copy)]
pub struct Context<'c> {
    /// The table that the endpoint writes.
    pub table: Table,
    /// The format, where the caller forces one.
    pub format: Option<Format>,
    /// The tenant of events that name none.
    pub tenant: Uuid,
    /// The tenants that events may name.
    pub tenants: &'c dyn Tenants,
    /// Who posted, for `meta.source`.
    pub source: &'c str,
    /// Hashes raw ids.
    pub pseudonymizer: &'c Pseudonymizer,
    /// When the request arrived.
    pub received_at: Micros,
    /// Events before this are refused.
    pub earliest: Micros,
    /// Events after this are refused.
    pub latest: Micros,
    /// Items in one exposure.
    pub items_max: usize,
    /// Makes ids for events that have none.
    pub new_event_id: &'c dyn Fn() -> Uuid,
    /// How far the sender's clock is behind ours, where it said.
    pub skew_ms: Option<i64>,
}

impl Context<'_> {
    /// The tenant of an event that may name one.
    pub(super) fn tenant_of(&self, named: Option<Value<'_>>) -> Result<Uuid, Rejection> {
        let Some(value) = named else {
            return Ok(self.tenant);
        };
        let Some(name) = value.text(EVENT_ID_BYTES_MAX)? else {
            return Ok(self.tenant);
        };
        self.tenants.resolve(&name).map_err(|code| {
            let message = match code {
                Code::TenantMismatch => "the key may only write for its own tenant",
                Code::TenantNotActive => "the tenant is suspended or deleted",
                _ => "there is no such tenant",
            };
            Rejection::of(code, value.name, message)
        })
    }

    /// A timestamp that is close enough to now.
    pub(super) fn instant(&self, value: Value<'_>) -> Result<Micros, Rejection> {
        let text = value.string()?;
        let at = Micros::parse(&text).ok_or_else(|| {
            Rejection::of(
                Code::InvalidTimestamp,
                value.name,
                "must be RFC 3339 with an offset, such as 2026-05-24T10:00:00.123Z",
            )
        })?;
        self.in_range(at, value.name)
    }

    /// An instant that is close enough to now.
    pub(super) fn in_range(&self, at: Micros, name: &'static str) -> Result<Micros, Rejection> {
        if (self.earliest..=self.latest).contains(&at) {
            return Ok(at);
        }
        Err(Rejection::of(
            Code::OccurredAtOutOfRange,
            name,
            format!("must be from {} to {}", self.earliest, self.latest),
        ))
    }
}

/// An event that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the body, from 0.
    pub index: u32,
    /// Its id as the sender wrote it, where it is legible.
    pub event_id: Option<String>,
    /// Why.
    pub rejection: Rejection,
}

/// What a body came to.
#[derive(Debug)]
pub struct Decoded {
    /// The accepted events' rows.
    pub rows: Rows,
    /// For each row, the events that it holds (several only where one event is
    /// one item of a list): first the row, then the event's place in the body.
    pub origins: Vec<(u32, u32)>,
    /// The events that were not accepted, in the order of the body.
    pub rejected: Vec<Rejected>,
}

/// Decodes all events of a body.
pub fn decode(body: &Body<'_>, context: &Context<'_>) -> Decoded {
    let mut events = Events {
        context,
        // A row is about as long as its event's text: room for all of them at
        // once, since growing would copy them again and again.
        writer: RowWriter::new(context.table, body.text_bytes()),
        origins: Vec::with_capacity(body.len()),
        rejected: Vec::new(),
        groups: Grouping::default(),
    };
    for (index, event) in body.events().enumerate() {
        let index = u32::try_from(index).expect("a body is far smaller than 4 GiB");
        let result = match &event {
            Ok(event) => events.one(index, event),
            Err(rejection) => Err((*rejection).clone()),
        };
        if let Err(rejection) = result {
            events.rejected.push(Rejected {
                index,
                event_id: event.ok().and_then(|event| legible_event_id(&event)),
                rejection,
            });
        }
    }
    events.finish()
}

struct Events<'c, 'a> {
    context: &'c Context<'c>,
    writer: RowWriter,
    origins: Vec<(u32, u32)>,
    rejected: Vec<Rejected>,
    groups: Grouping<'a>,
}

impl<'a> Events<'_, 'a> {
    fn one(&mut self, index: u32, event: &RawEvent<'a, '_>) -> Result<(), Rejection> {
        let context = self.context;
        let format = context
            .format
            .unwrap_or_else(|| Format::recognise(context.table, event));
        if !format.fits(context.table) {
            return Err(Rejection::whole(
                Code::UnsupportedFormat,
                format!("{format} does not go into {}", context.table),
            ));
        }
        let out = &mut self.writer;
        match (context.table, format) {
            (_, Format::PipelinesV1) => return self.groups.add(index, event, context),
            (Table::Exposures, Format::ServiceV1) => {
                formats::service_v1(event, context)?.encode(out)
            }
            (Table::Exposures, Format::EvalV1) => formats::eval_v1(event, context)?.encode(out),
            (Table::Exposures, _) => exposure::native(event, context)?.encode(out),
            (Table::Interactions, Format::OutcomeV1) => {
                formats::outcome_v1(event, context)?.encode(out);
            }
            (Table::Interactions, _) => interaction::native(event, context)?.encode(out),
        }
        self.origins.push((self.last_row(), index));
        Ok(())
    }

    fn finish(mut self) -> Decoded {
        for group in std::mem::take(&mut self.groups).into_groups() {
            group.exposure(self.context).encode(&mut self.writer);
            let row = self.last_row();
            self.origins.extend(group.lines().map(|index| (row, index)));
        }
        Decoded {
            rows: self.writer.finish(),
            origins: self.origins,
            rejected: self.rejected,
        }
    }

    fn last_row(&self) -> u32 {
        u32::try_from(self.writer.len() - 1).expect("a body is far smaller than 4 GiB")
    }
}

/// The id of a rejected event, to let its sender find it.
fn legible_event_id(event: &RawEvent<'_, '_>) -> Option<String> {
    let field = event.fields.iter().find(|field| field.key == "event_id")?;
    let id = json::as_str(field.raw)?;
    (id.len() <= EVENT_ID_BYTES_MAX).then(|| id.into_owned())
}

/// When an event happened and which one it is, from its native fields.
pub(super) fn native_identity(
    tenant: &Uuid,
    event_id: Option<Value<'_>>,
    occurred_at: Option<Value<'_>>,
    context: &Context<'_>,
) -> Result<(Uuid, Micros), Rejection> {
    let named = match event_id {
        Some(value) => value.text(EVENT_ID_BYTES_MAX)?,
        None => None,
    };
    let id = named.map(|named| identity::event_id(tenant, &named));
    let at = match (occurred_at, &id) {
        (Some(value), _) => context.instant(value)?,
        (None, Some(id)) => match Micros::of_uuid_v7(id) {
            Some(at) => context.in_range(at, "event_id")?,
            None => context.received_at,
        },
        (None, None) => context.received_at,
    };
    Ok((id.unwrap_or_else(|| (context.new_event_id)()), at))
}
