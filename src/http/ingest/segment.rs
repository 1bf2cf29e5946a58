//! The routes of Segment's shape, for its client libraries and those of RudderStack.
//!
//! Their messages are made into native events (`event::formats::segment`), which take the steps of
//! every body: they are decoded, charged and handed over. What differs is what those clients need: a key in the body, any
//! Content-Type, and 429 where there is no room.

mod caller;

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::ack::Ack;
use super::body::read as body;
use super::body::received::Received;
use super::decode::{DECODED_INLINE_BYTES_MAX, body_problem, decode, in_turn};
use super::handler::{ACK, ANSWER_BYTES_UNRESERVED, count_rejected, json_bytes, receive};
use super::options::{RequestOptions, check_storable};
use super::refusal::full;
use super::response::{Answer, RejectedEvent, Room, rejections, with_reservation};
use super::row_index::{RowIndex, Words};
use super::waiting::HandedOver;
use super::warnings::warnings;
use crate::admission::admit::Overload;
use crate::admission::memory::Reservation;
use crate::admission::rate_limit::charge::Cost;
use crate::clock;
use crate::event::context::Tenants as _;
use crate::event::decode::{Decoded, REJECTED_IN_FULL, Rejected};
use crate::event::formats::segment::events::Events;
use crate::event::formats::segment::rules::{Call, Rules};
use crate::event::formats::segment::{self, Messages};
use crate::event::rejection::Code;
use crate::event::table::Table;
use crate::http::app::App;
use crate::http::limits::fields::RateLimitFields;
use crate::http::live::tap::Taken;
use crate::http::problem::Problem;
use crate::metrics::{ByMessage, EventOutcome};
use caller::{Caller, Head, without_a_key};

/// Verdicts are told as for a body of at most this size: libraries read none, and people who try the
/// routes send few events.
const TOLD_OF_BYTES_MAX: usize = 4096;

/// What User-Agent begins with in the libraries of this family, some of which take 200 alone for
/// success and send everything else again (rudder-sdk-python 2.1.9).
const LIBRARIES: &str = "analytics-";

/// The response to a body of messages.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Collected {
    /// Always true: the body was taken on.
    pub success: bool,
    /// What became of the messages that tell of items. An `index` is a message's place in the batch.
    #[serde(flatten)]
    pub answer: Answer,
    /// Messages that tell of no items, such as `identify` and `page`; they are not kept.
    #[schema(example = 3)]
    pub not_collected: usize,
}

/// Handles a request to `endpoint`, up to its response. `peer` is the address at the other end of
/// the connection.
pub(crate) async fn collect(
    app: &Arc<App>,
    (endpoint, call): (&'static str, Call),
    peer: Option<IpAddr>,
    request: Request,
) -> Result<Response, Problem> {
    // Segment's Node client gives up on 503 after its tries, and waits for a 429.
    let answered = take(app, (endpoint, call), peer, request).await;
    answered.map_err(Problem::into_too_many)
}

async fn take(
    app: &Arc<App>,
    (endpoint, call): (&'static str, Call),
    peer: Option<IpAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let received_at = clock::now();
    let (parts, body) = request.into_parts();
    let head = match Head::of(app, peer, &parts, received_at).await {
        Ok(head) => head,
        Err(problem) => {
            if !body::is_held_back(&parts.headers) {
                body::discard(body).await;
            }
            return Err(problem);
        }
    };
    let refuse = |reason: Overload| full(app, reason);
    let (headers, sender) = (&parts.headers, head.sender);
    let received = receive(app, headers, body, head.limits, &head.admission, sender).await;
    let received = received.map_err(|problem| match head.access {
        Some(_) => problem,
        None => without_a_key(app, problem),
    })?;
    let ack = head.ack;
    let caller = head
        .caller(app, peer, &parts, received_at, &received)
        .await?;
    body::check_has_length(&parts, &received.bytes)?;
    let (mut messages, reserved) = read(app, call, &caller, &received).await?;
    let body_bytes = received.bytes.len();

    let texts = [&mut messages.exposures, &mut messages.interactions].map(Events::take_json);
    let events = [
        (Table::Exposures, &messages.exposures),
        (Table::Interactions, &messages.interactions),
    ];
    let mut parts_of_body = Vec::with_capacity(events.len());
    for ((table, events), json) in events.into_iter().zip(texts) {
        if events.is_empty() {
            continue;
        }
        check_storable(app, table, &caller.access)?;
        let text = Received {
            reservation: reserve(app, &caller, json.len())?,
            bytes: json.into(),
        };
        let options = RequestOptions::native(caller.access.share(), caller.admission.clone());
        let (mut decoded, reservation) = decode(app, table, options, received_at, text).await?;
        messages.translate_back(events, &mut decoded, &received.bytes);
        parts_of_body.push(Part {
            table,
            decoded,
            reservation,
        });
    }
    drop((received, reserved));
    let rows: usize = parts_of_body
        .iter()
        .map(|part| part.decoded.rows.len())
        .sum();
    let cost = Cost {
        events: messages.len().max(rows) as u64,
        bytes: body_bytes as u64,
    };
    let fields = app
        .rate_limits
        .charge(&caller.charges, cost, caller.announced)?;
    let give_back = |problem: Problem| {
        app.rate_limits.give_back(&caller.charges, cost);
        problem
    };

    let count = messages.len();
    let mut room = Room::of(body_bytes.min(TOLD_OF_BYTES_MAX), 0);
    let not_collected = count_not_collected(app, &messages);
    let of_exposures = std::mem::take(&mut messages.exposures.places);
    let (first, others) = all_rejected(app, messages, &mut parts_of_body);
    let (rejected, rejected_more) = rejections(first, &others, &mut room);
    let done = segment::warnings(parts_of_body.iter().map(|part| &part.decoded.warnings));
    let (warnings, warnings_more) = warnings(&done, |one| room.take(one));
    let told_bytes = json_bytes(&(&rejected, &rejected_more, &warnings)).len();
    // Reserved before the events are handed over, as after that nothing can be refused: what is told so far,
    // and what may be told of rows in quarantine, in full or summed up.
    let results_bytes = match ack {
        Ack::Committed => Room::BYTES_LEAST + 3 * TOLD_OF_BYTES_MAX + 8 * count,
        _ => 0,
    };
    let is_plain = rejected.is_empty()
        && rejected_more.is_empty()
        && warnings.is_empty()
        && warnings_more.is_empty()
        && results_bytes == 0;
    let reservation = match is_plain {
        true => None,
        false => {
            let wanted = told_bytes + results_bytes + ANSWER_BYTES_UNRESERVED;
            let reserved = caller.admission.reserve(wanted);
            Some(reserved.map_err(|reason| give_back(refuse(reason)))?)
        }
    };
    let mut collected = Collected {
        success: true,
        answer: Answer {
            ack: ack.as_str(),
            rejected,
            rejected_more,
            warnings,
            warnings_more,
            ..Answer::default()
        },
        not_collected,
    };
    let words = match caller.access.is_public() {
        true => Words::Ours,
        false => Words::OfPostgres,
    };
    // Both or none: the client sends all of it again if one is refused.
    let filled = parts_of_body
        .iter()
        .filter(|part| !part.decoded.rows.is_empty());
    let bytes: Vec<usize> = filled
        .map(|part| part.decoded.rows.framed().len())
        .collect();
    if bytes.len() > 1 {
        let has_room = caller.admission.has_room(bytes.iter().sum());
        has_room.map_err(|reason| give_back(refuse(reason)))?;
    }
    let mut handed = Vec::with_capacity(parts_of_body.len());
    for part in parts_of_body {
        let part = part.submit(&caller, ack);
        handed.extend(part.map_err(|reason| give_back(refuse(reason)))?);
    }
    for part in handed {
        part.wait(app, ack, words, &mut collected.answer, &mut room)
            .await
            .map_err(give_back)?;
    }
    let status = match takes_200_alone(&parts.headers) {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    if app.live.tap.is_watched(received_at) {
        let taken = Taken {
            endpoint,
            at: received_at,
            status: status.as_u16(),
            bytes: body_bytes,
            answer: &collected.answer,
            not_collected,
        };
        let is_exposure = |index: u32| of_exposures.binary_search(&index).is_ok();
        let table_of = |event: &RejectedEvent| match is_exposure(event.index) {
            true => Table::Exposures,
            false => Table::Interactions,
        };
        app.live.tap.note_answer(taken, table_of);
    }
    Ok(respond(status, &collected, reservation, fields.as_ref()))
}

/// Reads the messages of a body; of a large one on a blocking thread, in turn with bodies that are
/// decoded. Also returns the reservation for them.
async fn read(
    app: &Arc<App>,
    call: Call,
    caller: &Caller,
    received: &Received,
) -> Result<(Messages, Reservation), Problem> {
    // A message becomes an event that is hardly longer than itself, and with its place is no more than twice
    // as long.
    let reserved = reserve(app, caller, 2 * received.bytes.len())?;
    let (bytes, tenant) = (received.bytes.clone(), caller.access.tenant_settings());
    let (is_public, messages_max) = (caller.access.is_public(), app.event_limits.events_max);
    let is_tenant_a_guess = caller.access.is_own_a_guess();
    let read = move |bytes: &Bytes| {
        let rules = Rules {
            is_public,
            is_tenant_a_guess,
            event_names: &tenant.settings.event_names,
            messages_max,
        };
        Messages::read(bytes, call, rules)
    };
    let read = match bytes.len() <= DECODED_INLINE_BYTES_MAX {
        true => read(&bytes),
        false => in_turn(app, &caller.admission, move || read(&bytes)).await?,
    };
    let no_memory = || full(app, Overload::Bytes);
    let messages = read.map_err(|error| body_problem(&error, no_memory))?;
    Ok((messages, reserved))
}

fn reserve(app: &App, caller: &Caller, bytes: usize) -> Result<Reservation, Problem> {
    let reserved = caller.admission.reserve(bytes);
    reserved.map_err(|reason| full(app, reason))
}

/// The events of one table.
struct Part {
    table: Table,
    decoded: Decoded,
    reservation: Reservation,
}

impl Part {
    /// Hands the rows over, if there are any.
    fn submit(mut self, caller: &Caller, ack: Ack) -> Result<Option<HandedPart>, Overload> {
        let row_index = RowIndex::of(&mut self.decoded);
        if row_index.events() == 0 {
            return Ok(None);
        }
        let rows = self.decoded.rows.len();
        let submitted =
            HandedOver::submit(&caller.admission, self.decoded.rows, self.reservation, ack);
        Ok(Some(HandedPart {
            table: self.table,
            row_index,
            rows,
            handed: submitted?,
        }))
    }
}

/// The events of one table that were handed over.
struct HandedPart {
    table: Table,
    row_index: RowIndex,
    rows: usize,
    handed: HandedOver,
}

impl HandedPart {
    /// Waits for the level that was asked for, and adds what became of the events to the answer.
    async fn wait(
        self,
        app: &App,
        ack: Ack,
        words: Words,
        answer: &mut Answer,
        room: &mut Room,
    ) -> Result<(), Problem> {
        let reached = self.handed.wait(app).await?;
        app.metrics
            .count(self.table, EventOutcome::Accepted, self.rows);
        answer.accepted += self.row_index.events();
        // The lowest level of the two tables' is that of the answer.
        if reached.ack != ack || reached.reason.is_some() {
            answer.ack = reached.ack.as_str();
            answer.ack_reason = reached.reason;
        }
        if let Some(result) = &reached.result {
            let mut part = Answer::default();
            self.row_index.settle(result, words, &mut part, room);
            answer.add_results(part);
        }
        Ok(())
    }
}

/// Counts the messages that are not kept, and returns how many they are.
fn count_not_collected(app: &App, messages: &Messages) -> usize {
    for (kind, count) in &messages.not_collected {
        let label = ByMessage {
            kind: kind.as_str(),
        };
        let counter = app.metrics.not_collected.get_or_create(&label);
        counter.inc_by(*count as u64);
    }
    messages.not_collected.iter().map(|(_, count)| count).sum()
}

/// The rejected messages of the body and of its parts: the first ones in full, and place and code of
/// those after them.
fn all_rejected(
    app: &App,
    messages: Messages,
    parts: &mut [Part],
) -> (Vec<Rejected>, Vec<(u32, Code)>) {
    // A message that is none of an event belongs to no table; most are meant for interactions.
    count_rejected(
        app,
        Table::Interactions,
        &messages.rejected,
        &messages.rejected_more,
    );
    let (mut full, mut more) = (messages.rejected, messages.rejected_more);
    for part in parts {
        let decoded = &mut part.decoded;
        count_rejected(app, part.table, &decoded.rejected, &decoded.rejected_more);
        full.append(&mut decoded.rejected);
        more.append(&mut decoded.rejected_more);
    }
    full.sort_by_key(|rejected| rejected.index);
    more.sort_unstable();
    // Those that are told in full are the first ones.
    let first = more.first().map_or(u32::MAX, |(index, _)| *index);
    let in_full = full.partition_point(|rejected| rejected.index < first);
    let rest = full.split_off(in_full.min(REJECTED_IN_FULL));
    more.extend(rest.iter().map(|one| (one.index, one.rejection.code)));
    more.sort_unstable();
    (full, more)
}

fn takes_200_alone(headers: &HeaderMap) -> bool {
    headers
        .get(USER_AGENT)
        .is_some_and(|agent| agent.as_bytes().starts_with(LIBRARIES.as_bytes()))
}

fn respond(
    status: StatusCode,
    collected: &Collected,
    reservation: Option<Reservation>,
    fields: Option<&RateLimitFields>,
) -> Response {
    let json = with_reservation(json_bytes(collected), reservation);
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(ACK, HeaderValue::from_static(collected.answer.ack));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(fields) = fields {
        fields.put(headers);
    }
    response
}
