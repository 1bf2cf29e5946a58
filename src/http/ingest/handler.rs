//! The endpoints that take events, and the path that all share.
//!
//! `http::pipeline` calls [`collect`] directly. The handlers are there for the router, which
//! describes them and answers their other methods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use uuid::Uuid;

use super::ack::NOTHING_REACHED;
use super::body::read as body;
use super::body::read::BodyLimits;
use super::body::received::Received;
use super::decode::decode;
use super::options::{Params, RequestOptions};
use super::refusal::full;
use super::response::{Answer, Room, rejections, with_reservation};
use super::row_index::{RowIndex, Words};
use super::waiting::hand_over;
use super::warnings::warnings;
use crate::admission::admit::{Admission, Overload};
use crate::admission::memory::Reservation;
use crate::admission::rate_limit::charge::Cost;
use crate::clock;
use crate::event::decode::Rejected;
use crate::event::rejection::Code;
use crate::event::table::Table;
use crate::http::app::App;
use crate::http::headers::ADDED_MAX;
use crate::http::limits::fields::RateLimitFields;
use crate::http::live::tap::Taken;
use crate::http::problem::Problem;
use crate::metrics::{ByReason, EventOutcome};

/// The response header that repeats the level reached.
pub(super) const ACK: HeaderName = HeaderName::from_static("x-ingest-ack");

/// Time for bodies to arrive once the service is told to stop. A healthy client sends the rest at
/// once; others are not waited for.
const BODY_GRACE: Duration = Duration::from_secs(2);
/// Responses up to this size are not reserved: a connection's buffers take more than that.
pub(super) const ANSWER_BYTES_UNRESERVED: usize = 512;

/// Takes exposures: what was shown.
#[utoipa::path(post, path = "/v1/exposures", tag = "events", params(Params))]
pub(crate) async fn exposures(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    collect(&app, Table::Exposures, None, request).await
}

/// Takes interactions: what people did.
#[utoipa::path(post, path = "/v1/interactions", tag = "events", params(Params))]
pub(crate) async fn interactions(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    collect(&app, Table::Interactions, None, request).await
}

/// Takes assignments: who was in which variant of an experiment.
#[utoipa::path(post, path = "/v1/assignments", tag = "events", params(Params))]
pub(crate) async fn assignments(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    collect(&app, Table::Assignments, None, request).await
}

/// Handles a request for any table, up to its response. `peer` is the address at the other end of
/// the connection.
pub(crate) async fn collect(
    app: &Arc<App>,
    table: Table,
    peer: Option<IpAddr>,
    request: Request,
) -> Result<Response, Problem> {
    let received_at = clock::now();
    // Taken apart by hand: an extractor would copy all headers.
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    // Before the body is read: the key, the options, and whether there is room.
    let mut options = match RequestOptions::of(app, table, peer, &parts, received_at).await {
        Ok(options) => options,
        Err(problem) => {
            // The client waits for `100 Continue`: reading the body would ask it to send.
            if !body::is_held_back(headers) {
                body::discard(body).await;
            }
            return Err(problem);
        }
    };
    let refuse = |reason: Overload| full(app, reason);
    let sender = options.access.key_id();
    let received = receive(
        app, headers, body, app.body_limits, &options.admission, sender,
    )
    .await?;
    body::check_has_length(&parts, &received.bytes)?;
    let (ack, partial, validate) = (options.ack, options.partial, options.validate);
    let admission = options.admission.clone();
    let announced = options.announced;
    let charges = std::mem::take(&mut options.charges);
    let words = match options.access.is_public() {
        true => Words::Ours,
        false => Words::OfPostgres,
    };
    let body_bytes = received.bytes.len();
    let (mut decoded, reservation) = decode(app, table, options, received_at, received).await?;
    let row_index = RowIndex::of(&mut decoded);
    let rejected_events = decoded.rejected.len() + decoded.rejected_more.len();
    let events = row_index.events() + rejected_events;
    // An event of several rows costs as many; several events of one row cost each on its own.
    let units = row_index.events().max(decoded.rows.len()) + rejected_events;
    let cost = Cost {
        events: units as u64,
        bytes: body_bytes as u64,
    };
    let rate_limits = app.rate_limits.charge(&charges, cost, announced)?;
    if !validate {
        count_rejected(app, table, &decoded.rejected, &decoded.rejected_more);
    }
    let mut room = Room::of(body_bytes, events);
    let (rejected, rejected_more) = rejections(decoded.rejected, &decoded.rejected_more, &mut room);
    drop(decoded.rejected_more);
    let (warnings, warnings_more) = warnings(&decoded.warnings, |one| room.take(one));
    // Memory for what is told so far is reserved before the accepted events are handed over: after that
    // the request can no longer be refused.
    let is_plain = rejected.is_empty()
        && rejected_more.is_empty()
        && warnings.is_empty()
        && warnings_more.is_empty();
    let answer_reservation = match is_plain {
        true => None,
        false => {
            let told_bytes = json_bytes(&(&rejected, &rejected_more, &warnings)).len();
            let reservation = admission.reserve(told_bytes + ANSWER_BYTES_UNRESERVED);
            let reservation = reservation.map_err(|reason| {
                app.rate_limits.give_back(&charges, cost);
                refuse(reason)
            });
            Some(reservation?)
        }
    };
    let valid = row_index.events();
    let refused = match partial {
        true => valid == 0 && !validate,
        false => valid < events,
    };
    if refused {
        return Err(Problem::rejected(
            valid, rejected, rejected_more, answer_reservation,
        ));
    }

    let mut answer = Answer {
        rejected,
        rejected_more,
        warnings,
        warnings_more,
        ..Answer::default()
    };
    let result = if validate {
        answer.ack = NOTHING_REACHED;
        answer.valid = Some(valid);
        None
    } else {
        let rows = decoded.rows.len();
        let handed_over = hand_over(app, &admission, decoded.rows, reservation, ack).await;
        let reached = handed_over.inspect_err(|_| app.rate_limits.give_back(&charges, cost))?;
        // Counts rows, as all later stages do: a list that came in several lines is one row, an
        // event of several items is several.
        app.metrics.count(table, EventOutcome::Accepted, rows);
        answer.ack = reached.ack.as_str();
        answer.ack_reason = reached.reason;
        answer.accepted = valid;
        reached.result
    };
    if let Some(result) = &result {
        row_index.settle(result, words, &mut answer, &mut room);
    }
    let mut json = json_bytes(&answer);
    let reservation = match (
        extended(&admission, answer_reservation, json.len()),
        &result,
    ) {
        (Ok(reservation), _) => reservation,
        (Err(reservation), Some(result)) => {
            // There is no memory to list each row's result. The events are stored, so the results
            // are summed up instead.
            row_index.settle(result, words, &mut answer, &mut Room::for_summaries());
            json = json_bytes(&answer);
            reservation
        }
        (Err(reservation), None) => reservation,
    };
    let json = with_reservation(json, reservation);
    let response = respond(&answer, json, rate_limits.as_ref());
    if app.live.tap.is_watched(received_at) {
        let taken = Taken {
            endpoint: table.path(),
            at: received_at,
            status: response.status().as_u16(),
            bytes: body_bytes,
            answer: &answer,
            not_collected: 0,
        };
        app.live.tap.note_answer(taken, |_| table);
    }
    Ok(response)
}

pub(super) fn json_bytes(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and numbers are always JSON")
}

/// Grows a response's reservation to `bytes`. The error is the old reservation, if the memory limit
/// is reached.
fn extended(
    admission: &Admission,
    reservation: Option<Reservation>,
    bytes: usize,
) -> Result<Option<Reservation>, Option<Reservation>> {
    let reserved = reservation.as_ref().map_or(0, Reservation::bytes);
    if bytes <= reserved.max(ANSWER_BYTES_UNRESERVED) {
        return Ok(reservation);
    }
    match (admission.reserve(bytes - reserved), reservation) {
        (Ok(more), Some(mut reservation)) => {
            reservation.merge(more);
            Ok(Some(reservation))
        }
        (Ok(more), None) => Ok(Some(more)),
        (Err(_), reservation) => Err(reservation),
    }
}

/// Receives a body, which counts against the share of `sender` until it is there.
pub(super) async fn receive(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    limits: BodyLimits,
    admission: &Admission,
    sender: Uuid,
) -> Result<Received, Problem> {
    let refuse = |reason: Overload| full(app, reason);
    let arriving = app.arrivals.begin(sender);
    tokio::select! {
        biased;
        received = body::read(headers, body, limits, admission, arriving, refuse) => received,
        () = stop_is_under_way(app) => Err(refuse(Overload::Stopping)),
    }
}

/// Completes once bodies that still arrive would delay a stop.
async fn stop_is_under_way(app: &App) {
    app.stopping.cancelled().await;
    tokio::time::sleep(BODY_GRACE).await;
}

/// Counts the rejected events of a body.
pub(super) fn count_rejected(app: &App, table: Table, first: &[Rejected], others: &[(u32, Code)]) {
    if first.is_empty() {
        return;
    }
    let rejected = first.len() + others.len();
    app.metrics.count(table, EventOutcome::Rejected, rejected);
    let first = first.iter().map(|one| one.rejection.code);
    let others = others.iter().map(|(_, code)| *code);
    // One look-up for each code: a body may have ten thousand rejected events.
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for code in first.chain(others) {
        *counts.entry(code.as_str()).or_default() += 1;
    }
    for (reason, count) in counts {
        app.metrics
            .rejections
            .get_or_create(&ByReason { table, reason })
            .inc_by(count);
    }
    tracing::debug!(%table, rejected, "some events of a body were rejected");
}

fn respond(
    answer: &Answer,
    json: axum::body::Bytes,
    rate_limits: Option<&RateLimitFields>,
) -> Response {
    let status = if answer.committed.is_some() || answer.valid.is_some() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // Room for those of the pipeline, too: to make more later would move all of them.
    headers.reserve(3 + ADDED_MAX);
    headers.insert(ACK, HeaderValue::from_static(answer.ack));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(fields) = rate_limits {
        fields.put(headers);
    }
    response
}
