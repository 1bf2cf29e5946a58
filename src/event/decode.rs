//! Events in, rows out: the whole of this folder behind one function.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::body::{Body, Memory, RawEvent, Unlimited};
use super::exposure;
use super::field::{EVENT_ID_BYTES_MAX, Value};
use super::formats;
use super::formats::grouping::Grouping;
use super::identity::{self, Pseudonymizer};
use super::interaction;
use super::json;
use super::rejection::{Code, Rejection};
use super::row::rows::Rows;
use super::row::writer::RowWriter;
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
    /// The tenant of an event that may name one under either of two names.
    pub(super) fn tenant_of_either(
        &self,
        tenant_id: Option<Value<'_>>,
        tenant: Option<Value<'_>>,
    ) -> Result<Uuid, Rejection> {
        if let (Some(one), Some(other)) = (tenant_id, tenant)
            && one.string()? != other.string()?
        {
            return Err(Rejection::of(
                Code::ConflictingFields,
                other.name,
                "names another tenant than tenant_id; send one of the two",
            ));
        }
        self.tenant_of(tenant_id.or(tenant))
    }

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

/// Rejected events of one body that are told of in full. A sender that has more to mend
/// sees from so many what it is; a code and a place is kept of each of the others.
pub const REJECTED_IN_FULL: usize = 100;

/// What a body came to.
#[derive(Debug)]
pub struct Decoded {
    /// The accepted events' rows.
    pub rows: Rows,
    /// For each row, the events that it holds (several only where one event is
    /// one item of a list): first the row, then the event's place in the body.
    pub origins: Vec<(u32, u32)>,
    /// The first [`REJECTED_IN_FULL`] events that were not accepted, in the order of the
    /// body.
    pub rejected: Vec<Rejected>,
    /// Those behind them, each with its place in the body.
    pub rejected_more: Vec<(u32, Code)>,
}

/// Why a body cannot be decoded as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// There is no memory for it.
    NoMemory,
    /// Its rows take more bytes than they may.
    RowsTooLarge {
        /// So many events from the start of the body do not.
        events_that_fit: usize,
    },
}

/// What the rows of a body may take.
#[derive(Clone, Copy)]
pub struct RowLimits<'l> {
    /// Bytes of all rows.
    pub bytes_max: usize,
    /// Where memory is from.
    pub memory: &'l dyn Memory,
}

/// Decodes all events of a body, however long their rows get.
pub fn decode(body: &Body<'_>, context: &Context<'_>) -> Decoded {
    let limits = RowLimits {
        bytes_max: usize::MAX,
        memory: &Unlimited,
    };
    decode_within(body, context, limits).expect("there are no limits")
}

/// Decodes all events of a body, as far as `limits` go.
///
/// Rows can be longer than their events: a raw id of one letter becomes 64 digits.
pub fn decode_within(
    body: &Body<'_>,
    context: &Context<'_>,
    limits: RowLimits<'_>,
) -> Result<Decoded, DecodeError> {
    let (error, has_groups) = match decode_first(body, body.len(), context, limits) {
        Ok(decoded) => return Ok(decoded),
        Err(failed) => failed,
    };
    let DecodeError::RowsTooLarge { events_that_fit } = error else {
        return Err(error);
    };
    let mut fit = events_that_fit;
    if has_groups {
        // Rows of lists are written at the end, so how many fit is not known yet. Half
        // as many each time: together no more work than there was.
        let limits = RowLimits {
            memory: &Unlimited,
            ..limits
        };
        fit = body.len() / 2;
        while fit > 0 && decode_first(body, fit, context, limits).is_err() {
            fit /= 2;
        }
    }
    Err(DecodeError::RowsTooLarge {
        events_that_fit: fit,
    })
}

/// Decodes the first `count` events; an error comes with whether lists were found.
fn decode_first(
    body: &Body<'_>,
    count: usize,
    context: &Context<'_>,
    limits: RowLimits<'_>,
) -> Result<Decoded, (DecodeError, bool)> {
    // A row is about as long as its event's text: room for all of them at
    // once, since growing would copy them again and again.
    let text_bytes = body.text_bytes().min(limits.bytes_max);
    let ahead_bytes = text_bytes + count * size_of::<(u32, u32)>();
    if !limits.memory.take(ahead_bytes) {
        return Err((DecodeError::NoMemory, false));
    }
    let mut events = Events {
        context,
        limits,
        writer: RowWriter::new(context.table, text_bytes),
        origins: Vec::with_capacity(count),
        rejected: Vec::new(),
        rejected_more: Vec::new(),
        groups: Grouping::default(),
        taken_bytes: ahead_bytes,
    };
    for (index, event) in body.events().take(count).enumerate() {
        let place = u32::try_from(index).expect("a body is far smaller than 4 GiB");
        let before = events.writer.len_bytes();
        let mut result = match &event {
            Ok(event) => events.one(place, event),
            Err(rejection) => Err((*rejection).clone()),
        };
        if events.writer.len_bytes() > limits.bytes_max {
            let row_bytes = events.writer.len_bytes() - before;
            if RowWriter::EMPTY_BYTES + row_bytes <= limits.bytes_max {
                let fits = DecodeError::RowsTooLarge {
                    events_that_fit: index,
                };
                return Err((fits, !events.groups.is_empty()));
            }
            // Alone it is too large already.
            events.writer.take_back(before);
            events.origins.pop();
            result = Err(Rejection::whole(
                Code::EventTooLarge,
                format!(
                    "the event's row has {row_bytes} bytes once its raw ids are hashed; the most is {}",
                    limits.bytes_max
                ),
            ));
        }
        if let Err(rejection) = result {
            events.reject(place, event.ok(), rejection);
        }
        if !events.has_memory() {
            return Err((DecodeError::NoMemory, false));
        }
    }
    let has_groups = !events.groups.is_empty();
    events.finish().map_err(|error| (error, has_groups))
}

struct Events<'c, 'a> {
    context: &'c Context<'c>,
    limits: RowLimits<'c>,
    writer: RowWriter,
    origins: Vec<(u32, u32)>,
    rejected: Vec<Rejected>,
    rejected_more: Vec<(u32, Code)>,
    groups: Grouping<'a>,
    /// Bytes of memory that were asked for.
    taken_bytes: usize,
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

    fn reject(&mut self, index: u32, event: Option<RawEvent<'_, '_>>, rejection: Rejection) {
        if self.rejected.len() < REJECTED_IN_FULL {
            self.rejected.push(Rejected {
                index,
                event_id: event.and_then(|event| legible_event_id(&event)),
                rejection,
            });
        } else {
            self.rejected_more.push((index, rejection.code));
        }
    }

    /// Asks for the memory that has come to be held.
    fn has_memory(&mut self) -> bool {
        let held_bytes = self.writer.held_bytes()
            + self.groups.held_bytes()
            + self.origins.capacity() * size_of::<(u32, u32)>()
            + self.rejected_more.capacity() * size_of::<(u32, Code)>();
        let more = held_bytes.saturating_sub(self.taken_bytes);
        self.taken_bytes += more;
        more == 0 || self.limits.memory.take(more)
    }

    fn finish(mut self) -> Result<Decoded, DecodeError> {
        for group in std::mem::take(&mut self.groups).into_groups() {
            group.exposure(self.context).encode(&mut self.writer);
            if self.writer.len_bytes() > self.limits.bytes_max {
                return Err(DecodeError::RowsTooLarge { events_that_fit: 0 });
            }
            if !self.has_memory() {
                return Err(DecodeError::NoMemory);
            }
            let row = self.last_row();
            self.origins.extend(group.lines().map(|index| (row, index)));
        }
        Ok(Decoded {
            rows: self.writer.finish(),
            origins: self.origins,
            rejected: self.rejected,
            rejected_more: self.rejected_more,
        })
    }

    fn last_row(&self) -> u32 {
        u32::try_from(self.writer.len() - 1).expect("a body is far smaller than 4 GiB")
    }
}

/// The id of a rejected event, to let its sender find it.
fn legible_event_id(event: &RawEvent<'_, '_>) -> Option<String> {
    let field = event.fields.iter().find(|field| field.key == "event_id")?;
    let id = json::string::as_str(field.raw)?;
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
            Some(at) => context.in_range(at, "event_id").map_err(|mut rejection| {
                let range = &rejection.message;
                rejection.message = format!(
                    "there is no occurred_at, and the time in the id {range}: send occurred_at"
                )
                .into();
                rejection
            })?,
            None => context.received_at,
        },
        (None, None) => context.received_at,
    };
    Ok((id.unwrap_or_else(|| (context.new_event_id)()), at))
}
