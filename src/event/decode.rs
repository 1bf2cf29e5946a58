//! Decodes the events of a body into rows: the entry point of this folder.

use super::assignment;
use super::body::strays::Strays;
use super::body::{Body, Memory, RawEvent, Unlimited};
use super::context::Context;
use super::exposure;
use super::field::EVENT_ID_BYTES_MAX;
use super::format::Format;
use super::formats;
use super::formats::grouping::Grouping;
use super::interaction;
use super::json;
use super::misdirected;
use super::public;
use super::rejection::{Code, Rejection};
use super::row::rows::Rows;
use super::row::writer::RowWriter;
use super::table::Table;
use super::warning::{Notes, Warnings};

/// An event that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the body, from 0.
    pub index: u32,
    /// Its id as the sender wrote it, if that is readable.
    pub event_id: Option<String>,
    /// Why.
    pub rejection: Rejection,
}

/// Most rejected events of one body that are reported in full. A sender with more errors sees from
/// these what is wrong; of the others, the place and the code are kept.
pub const REJECTED_IN_FULL: usize = 100;

/// The decoded events of a body.
#[derive(Debug)]
pub struct Decoded {
    /// The accepted events' rows.
    pub rows: Rows,
    /// For each row and each accepted event in it, the row, then the event's place in the body. A
    /// row holds several events only if each of them is one item of a list; an event has several
    /// rows only if it has several items.
    pub row_index: Vec<(u32, u32)>,
    /// Number of accepted events.
    pub accepted: usize,
    /// What was done to accepted events that their sender may not expect.
    pub warnings: Warnings,
    /// The first [`REJECTED_IN_FULL`] rejected events, in body order.
    pub rejected: Vec<Rejected>,
    /// The other rejected events: place in the body, and code.
    pub rejected_more: Vec<(u32, Code)>,
}

/// Why a body cannot be decoded as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// There is not enough memory.
    NoMemory,
    /// The rows take more bytes than the limit.
    RowsTooLarge {
        /// How many events from the start of the body fit.
        events_that_fit: usize,
    },
    /// There are more rows than the limit.
    TooManyRows {
        /// How many events from the start of the body fit.
        events_that_fit: usize,
    },
}

/// Limits on the rows of a body.
#[derive(Clone, Copy)]
pub struct RowLimits<'l> {
    /// Most bytes of all rows.
    pub bytes_max: usize,
    /// Most rows; an event that has none counts as one.
    pub rows_max: usize,
    /// The source of memory.
    pub memory: &'l dyn Memory,
}

/// Decodes all events of a body, without limits.
pub fn decode(body: &Body<'_>, context: &Context<'_>) -> Decoded {
    let limits = RowLimits {
        bytes_max: usize::MAX,
        rows_max: usize::MAX,
        memory: &Unlimited,
    };
    decode_within(body, context, limits).expect("there are no limits")
}

/// Decodes all events of a body, within `limits`.
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
        // Rows of lists are written at the end, so how many events fit is not known yet. It is
        // found by halving, which together costs no more than the first attempt.
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

/// Decodes the first `count` events. An error also says whether there were lists.
fn decode_first(
    body: &Body<'_>,
    count: usize,
    context: &Context<'_>,
    limits: RowLimits<'_>,
) -> Result<Decoded, (DecodeError, bool)> {
    // A row is about as long as its event's text. Space for all rows is reserved at once: growing
    // would copy them repeatedly.
    let text_bytes = body.text_bytes().min(limits.bytes_max);
    let ahead_bytes = text_bytes + count * size_of::<(u32, u32)>();
    if !limits.memory.take(ahead_bytes) {
        return Err((DecodeError::NoMemory, false));
    }
    let mut events = Events {
        context,
        limits,
        writer: RowWriter::new(context.table, text_bytes),
        row_index: Vec::with_capacity(count),
        accepted: 0,
        notes: Notes::default(),
        warnings: Warnings::default(),
        rejected: Vec::new(),
        rejected_more: Vec::new(),
        groups: Grouping::default(),
        taken_bytes: ahead_bytes,
    };
    // Events without a row of their own: rejected ones, and lines of lists.
    let mut without_row = 0;
    for (index, event) in body.events().take(count).enumerate() {
        let place = u32::try_from(index).expect("a body is far smaller than 4 GiB");
        let (before, rows_before) = (events.writer.len_bytes(), events.writer.len());
        let mut result = match &event {
            Ok(event) => events.one(place, event),
            Err(bad) => Err(bad.rejection.clone()),
        };
        // Lines of lists have no row yet, and cannot be taken back.
        let has_rows = events.writer.len() > rows_before;
        if let Ok(event) = &event
            && (result.is_err() || (has_rows && !events.notes.is_empty()))
            && let Some(rejection) = misdirected::rejection(event, context.table, context.is_public)
        {
            if result.is_ok() {
                events.undo(before, rows_before);
            }
            result = Err(rejection);
        }
        if events.writer.len_bytes() > limits.bytes_max {
            let row_bytes = events.writer.len_bytes() - before;
            if RowWriter::EMPTY_BYTES + row_bytes <= limits.bytes_max {
                let fits = DecodeError::RowsTooLarge {
                    events_that_fit: index,
                };
                return Err((fits, !events.groups.is_empty()));
            }
            // The rows alone exceed the limit: only their event is rejected.
            events.undo(before, rows_before);
            result = Err(Rejection::whole(
                Code::EventTooLarge,
                format!(
                    "the event's rows have {row_bytes} bytes once its raw ids are hashed; the most is {}",
                    limits.bytes_max
                ),
            ));
        }
        match result {
            Ok(()) => events.warnings.count(place, &mut events.notes),
            Err(rejection) => {
                let event_id = match &event {
                    Ok(event) => event_id(event),
                    Err(bad) => bad.event_id,
                };
                events.reject(place, event_id, rejection);
            }
        }
        without_row += usize::from(events.writer.len() == rows_before);
        if events.writer.len() + without_row > limits.rows_max {
            let error = DecodeError::TooManyRows {
                events_that_fit: index,
            };
            return Err((error, false));
        }
        if !events.has_memory() {
            return Err((DecodeError::NoMemory, false));
        }
    }
    let has_groups = !events.groups.is_empty();
    events
        .finish(&body.strays)
        .map_err(|error| (error, has_groups))
}

struct Events<'c, 'a> {
    context: &'c Context<'c>,
    limits: RowLimits<'c>,
    writer: RowWriter,
    row_index: Vec<(u32, u32)>,
    accepted: usize,
    rejected: Vec<Rejected>,
    rejected_more: Vec<(u32, Code)>,
    /// Of the event that is being decoded.
    notes: Notes<'a>,
    warnings: Warnings,
    groups: Grouping<'a>,
    /// Bytes of memory asked for so far.
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
                format!(
                    "{format} does not go into {}; {}",
                    context.table,
                    format.whereabouts()
                ),
            ));
        }
        if context.is_public {
            public::check(event, format)?;
        }
        let (out, notes) = (&mut self.writer, &mut self.notes);
        notes.clear();
        let rows_before = out.len();
        match (context.table, format) {
            (_, Format::PipelinesV1) => {
                self.groups.add(index, event, context, notes)?;
                self.accepted += 1;
                return Ok(());
            }
            (Table::Exposures, format) => {
                let exposure = match format {
                    Format::ServiceV1 => formats::service_v1(event, context, notes)?,
                    Format::EvalV1 => formats::eval_v1(event, context, notes)?,
                    _ => exposure::native(event, context, notes)?,
                };
                context.check_surface(&exposure.key.tenant, Some(&exposure.surface))?;
                exposure.encode(out);
            }
            (Table::Interactions, Format::OutcomeV1) => {
                let interaction = formats::outcome_v1(event, context, notes)?;
                let surface = interaction.surface.as_deref();
                context.check_surface(&interaction.key.tenant, surface)?;
                interaction.encode(out);
            }
            (Table::Assignments, _) => {
                assignment::assignment_v1(event, context, notes)?.encode(out);
            }
            (Table::Interactions, _) => interaction::native(event, context, notes, out)?,
        }
        for row in rows_before..self.writer.len() {
            self.row_index.push((row_number(row), index));
        }
        self.accepted += 1;
        Ok(())
    }

    /// Takes back an event that was accepted: the rows after the first `rows_before`, which end at
    /// `len_bytes`.
    fn undo(&mut self, len_bytes: usize, rows_before: usize) {
        self.writer.take_back(len_bytes);
        let rows = row_number(rows_before);
        let kept = self.row_index.partition_point(|(row, _)| *row < rows);
        self.row_index.truncate(kept);
        self.accepted -= 1;
    }

    fn reject(&mut self, index: u32, event_id: Option<&str>, rejection: Rejection) {
        if self.rejected.len() < REJECTED_IN_FULL {
            self.rejected.push(Rejected {
                index,
                event_id: event_id.and_then(legible),
                rejection,
            });
        } else {
            self.rejected_more.push((index, rejection.code));
        }
    }

    /// Asks for the memory that was allocated since the last call.
    fn has_memory(&mut self) -> bool {
        let held_bytes = self.writer.held_bytes()
            + self.groups.held_bytes()
            + self.notes.held_bytes()
            + self.row_index.capacity() * size_of::<(u32, u32)>()
            + self.rejected_more.capacity() * size_of::<(u32, Code)>();
        let more = held_bytes.saturating_sub(self.taken_bytes);
        self.taken_bytes += more;
        more == 0 || self.limits.memory.take(more)
    }

    fn finish(mut self, strays: &Strays) -> Result<Decoded, DecodeError> {
        strays.tell(self.accepted, &mut self.warnings);
        for group in std::mem::take(&mut self.groups).into_groups() {
            group.exposure(self.context).encode(&mut self.writer);
            if self.writer.len_bytes() > self.limits.bytes_max {
                return Err(DecodeError::RowsTooLarge { events_that_fit: 0 });
            }
            if !self.has_memory() {
                return Err(DecodeError::NoMemory);
            }
            let row = row_number(self.writer.len() - 1);
            self.row_index
                .extend(group.lines().map(|index| (row, index)));
        }
        Ok(Decoded {
            rows: self.writer.finish(),
            accepted: self.accepted,
            warnings: self.warnings,
            row_index: self.row_index,
            rejected: self.rejected,
            rejected_more: self.rejected_more,
        })
    }
}

fn row_number(row: usize) -> u32 {
    u32::try_from(row).expect("a body is far smaller than 4 GiB")
}

/// The id of an event, as JSON text.
fn event_id<'a>(event: &RawEvent<'a, '_>) -> Option<&'a str> {
    let mut fields = event.fields.iter();
    let field = fields.find(|field| field.key == "event_id")?;
    Some(field.raw)
}

/// The id of a rejected event, so that its sender can find it.
fn legible(event_id: &str) -> Option<String> {
    let id = json::string::as_str(event_id)?;
    (id.len() <= EVENT_ID_BYTES_MAX).then(|| id.into_owned())
}
