//! The two endpoints that take events, and the path that both share.
//!
//! `http::pipeline` calls [`collect`] directly. The handlers are there for the router, which
//! describes them and answers their other methods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;
use utoipa::IntoParams;
use uuid::Uuid;

use super::ack::Ack;
use crate::accounts::status::Health;
use crate::admission::admit::{Overload, Scratch};
use crate::admission::memory::Reservation;
use crate::event;
use crate::event::body::{BodyError, Framing, Limits};
use crate::event::context::Context;
use crate::event::decode::{DecodeError, Decoded, RowLimits};
use crate::event::format::Format;
use crate::event::result::RecordResult;
use crate::event::row::rows::Rows;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::metrics::{ByReason, EventOutcome};

use super::body;
use super::body::Received;
use super::response::{Answer, Room, RowIndex, on_loan, rejections};
use crate::clock;
use crate::http::app::App;
use crate::http::auth::access::Access;
use crate::http::problem::{Problem, ProblemBody};

/// The response header that repeats the level reached.
const ACK: HeaderName = HeaderName::from_static("x-ingest-ack");

/// Longest wait for a sync. A disk that takes longer counts as broken.
const DURABLE_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a request that waits for a sync checks whether the disk is stalled.
const DISK_LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time for bodies to arrive once the service is told to stop. A healthy client sends the rest at
/// once; others are not waited for.
const BODY_GRACE: Duration = Duration::from_secs(2);
/// Retry-After where an operator has to act first.
const CANNOT_STORE_RETRY: Duration = Duration::from_secs(30);
/// Bodies of up to this many bytes and events are decoded on the async thread, within a millisecond
/// or so. Larger ones would delay the other requests of that thread.
const DECODED_INLINE_BYTES_MAX: usize = 128 * 1024;
const DECODED_INLINE_EVENTS_MAX: usize = 1000;

/// Responses up to this size are not reserved: a connection's buffers take more than that.
const ANSWER_BYTES_UNLENT: usize = 512;

/// The query parameters.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Params {
    /// What the answer waits for: `received` (in memory), `durable` (on disk) or `committed` (in Postgres).
    ack: Option<String>,
    /// The events' format; by default it is recognised by their fields.
    format: Option<String>,
    /// The API key, for callers that cannot set headers.
    key: Option<String>,
}

/// The parameters of [`Params`], for the message about an unknown one.
const PARAMS: &str = "ack, format and key";

/// Characters of an unknown name that the message repeats.
const NAME_CHARS_MAX: usize = 40;

impl Params {
    /// Parses a query. The error is returned apart from the parameters: only callers with a valid
    /// key see it.
    fn of(uri: &Uri) -> (Self, Result<(), Problem>) {
        let invalid = |detail| Problem::bad_request("invalid_query", detail);
        let mut params = Self::default();
        let pairs = match Query::<Vec<(String, String)>>::try_from_uri(uri) {
            Ok(Query(pairs)) => pairs,
            Err(error) => return (params, Err(invalid(error.body_text()))),
        };
        let mut checked = Ok(());
        for (name, value) in pairs {
            let place = match &*name {
                "ack" => &mut params.ack,
                "format" => &mut params.format,
                "key" => &mut params.key,
                _ => {
                    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
                    checked = checked.and(Err(invalid(format!(
                        "there is no query parameter '{name}'; there are {PARAMS}"
                    ))));
                    continue;
                }
            };
            if place.is_some() {
                checked = checked.and(Err(invalid(format!(
                    "the query parameter '{name}' stands twice; send it once"
                ))));
                continue;
            }
            *place = Some(value);
        }
        (params, checked)
    }
}

/// Takes exposures: what was shown.
#[utoipa::path(
    post,
    path = "/v1/exposures",
    tag = "events",
    params(Params),
    request_body(content = crate::http::openapi::Exposure, description = crate::http::openapi::BODY),
    responses(
        (status = 200, description = "Committed in Postgres", body = Answer),
        (status = 202, description = "Taken on; `ack` says which level was reached", body = Answer),
        (status = "4XX", description = "Nothing was taken on", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "No room now: Retry-After says when to come back", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("basic" = []), ("query_key" = []))
)]
pub(crate) async fn exposures(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    collect(&app, Table::Exposures, request).await
}

/// Takes interactions: what people did.
#[utoipa::path(
    post,
    path = "/v1/interactions",
    tag = "events",
    params(Params),
    request_body(content = crate::http::openapi::Interaction, description = crate::http::openapi::BODY),
    responses(
        (status = 200, description = "Committed in Postgres", body = Answer),
        (status = 202, description = "Taken on; `ack` says which level was reached", body = Answer),
        (status = "4XX", description = "Nothing was taken on", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "No room now: Retry-After says when to come back", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("basic" = []), ("query_key" = []))
)]
pub(crate) async fn interactions(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    collect(&app, Table::Interactions, request).await
}

/// Handles a request for either table, up to its response.
pub(crate) async fn collect(
    app: &Arc<App>,
    table: Table,
    request: Request,
) -> Result<Response, Problem> {
    let received_at = clock::now();
    // Taken apart by hand: an extractor would copy all headers.
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    // Before the body is read: the key, the options, and whether there is room.
    let terms = match RequestOptions::of(app, table, &parts, received_at) {
        Ok(terms) => terms,
        Err(problem) => {
            // The client waits for `100 Continue`: reading the body would ask it to send.
            if !body::is_held_back(headers) {
                body::discard(body).await;
            }
            return Err(problem);
        }
    };
    let refuse = |reason: Overload| full(app, reason);
    let arriving = app.arrivals.begin(terms.access.key_id());
    let reading = body::read(
        headers, body, app.body_limits, &app.intake, arriving, refuse,
    );
    let received = tokio::select! {
        biased;
        received = reading => received?,
        () = stop_is_under_way(app) => return Err(refuse(Overload::Stopping)),
    };
    let ack = terms.ack;
    let body_bytes = received.bytes.len();
    let (mut decoded, reservation) = decode(app, table, terms, received_at, received).await?;
    let row_index = RowIndex::of(&mut decoded);
    count_events(app, table, &decoded, &row_index);
    let events = row_index.events() + decoded.rejected.len() + decoded.rejected_more.len();
    let mut room = Room::of(body_bytes, events);
    let (rejected, rejected_more) = rejections(decoded.rejected, &decoded.rejected_more, &mut room);
    drop(decoded.rejected_more);
    // Memory for the rejections is reserved before the accepted events are handed over: after that
    // the request can no longer be refused.
    let answer_reservation = match rejected.is_empty() && rejected_more.is_empty() {
        true => None,
        false => {
            let told_bytes = json_bytes(&(&rejected, &rejected_more)).len();
            let reservation = app.intake.reserve(told_bytes + ANSWER_BYTES_UNLENT);
            Some(reservation.map_err(refuse)?)
        }
    };
    if row_index.events() == 0 {
        return Err(Problem::all_rejected(
            rejected, rejected_more, answer_reservation,
        ));
    }

    let rows = decoded.rows.len();
    let (reached, result) = hand_over(app, decoded.rows, reservation, ack).await?;
    // Counts rows, as all later stages do: a list that came in several lines is one row.
    app.metrics.count(table, EventOutcome::Accepted, rows);

    let mut answer = Answer {
        ack: reached.as_str(),
        accepted: row_index.events(),
        rejected,
        rejected_more,
        ..Answer::default()
    };
    if let Some(result) = &result {
        row_index.settle(result, &mut answer, &mut room);
    }
    let mut json = json_bytes(&answer);
    let reservation = match (extended(app, answer_reservation, json.len()), &result) {
        (Ok(reservation), _) => reservation,
        (Err(reservation), Some(result)) => {
            // There is no memory to list each row's result. The events are stored, so the results
            // are summed up instead.
            row_index.settle(result, &mut answer, &mut Room::for_summaries());
            json = json_bytes(&answer);
            reservation
        }
        (Err(reservation), None) => reservation,
    };
    Ok(respond(&answer, on_loan(json, reservation)))
}

fn json_bytes(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and numbers are always JSON")
}

/// Grows a response's reservation to `bytes`. The error is the old reservation, if the memory limit
/// is reached.
fn extended(
    app: &App,
    reservation: Option<Reservation>,
    bytes: usize,
) -> Result<Option<Reservation>, Option<Reservation>> {
    let reserved = reservation.as_ref().map_or(0, Reservation::bytes);
    if bytes <= reserved.max(ANSWER_BYTES_UNLENT) {
        return Ok(reservation);
    }
    match (app.intake.reserve(bytes - reserved), reservation) {
        (Ok(more), Some(mut reservation)) => {
            reservation.merge(more);
            Ok(Some(reservation))
        }
        (Ok(more), None) => Ok(Some(more)),
        (Err(_), reservation) => Err(reservation),
    }
}

/// Completes once bodies that still arrive would delay a stop.
async fn stop_is_under_way(app: &App) {
    app.stopping.cancelled().await;
    tokio::time::sleep(BODY_GRACE).await;
}

/// Hands rows over and waits until `ack` is reached, or the highest level below it that is in time.
/// Returns the level reached.
async fn hand_over(
    app: &App,
    rows: Rows,
    reservation: Reservation,
    ack: Ack,
) -> Result<(Ack, Option<RecordResult>), Problem> {
    let refuse = |reason: Overload| full(app, reason);
    if ack == Ack::Received {
        app.intake
            .submit(rows, reservation, None, None)
            .map_err(refuse)?;
        return Ok((Ack::Received, None));
    }
    let (synced, durable) = oneshot::channel();
    let (sender, result) = (ack == Ack::Committed).then(oneshot::channel).unzip();
    let submitted = app.intake.submit(rows, reservation, Some(synced), sender);
    submitted.map_err(refuse)?;
    match synced_in_time(app, durable).await {
        Some(Ok(Ok(()))) => {}
        Some(Ok(Err(refused))) => return Err(refuse(refused.into())),
        // The sender is gone: the service is stopping.
        Some(Err(_)) => return Err(refuse(Overload::Stopping)),
        None => {
            return Err(Problem::unavailable(
                "disk_stalled",
                "the disk of the spool has not answered; the events may be stored or not: send them again",
                app.intake.retry_after(Overload::Disk),
            ));
        }
    }
    let Some(result) = result else {
        return Ok((Ack::Durable, None));
    };
    match tokio::time::timeout(app.commit_timeout, result).await {
        Ok(Ok(result)) => Ok((Ack::Committed, Some(result))),
        // The COMMIT is too late for this response, or the service is stopping. The events are on
        // disk and are stored later.
        Ok(Err(_)) | Err(_) => Ok((Ack::Durable, None)),
    }
}

/// Waits for the sync of a record; `None` if the disk does not answer.
async fn synced_in_time<T>(
    app: &App,
    mut durable: oneshot::Receiver<T>,
) -> Option<Result<T, oneshot::error::RecvError>> {
    let began = Instant::now();
    loop {
        // The wait is cut short once the disk is known to be stalled.
        if let Ok(answer) = tokio::time::timeout(DISK_LOOK_EVERY, &mut durable).await {
            return Some(answer);
        }
        let stalled = app.intake.has_room(0) == Err(Overload::Stalled);
        if stalled || began.elapsed() >= DURABLE_WAIT_MAX {
            return None;
        }
    }
}

/// What a request asks for, from its head.
struct RequestOptions {
    access: Access,
    ack: Ack,
    format: Option<Format>,
    framing: Framing,
}

impl RequestOptions {
    fn of(app: &App, table: Table, parts: &Parts, now: Micros) -> Result<Self, Problem> {
        let headers = &parts.headers;
        let (params, checked) = Params::of(&parts.uri);
        let access = Access::of(
            headers,
            params.key.as_deref(),
            table,
            &app.directory,
            &app.key_hasher,
            now,
        )?;
        checked?;
        let terms = Self {
            access,
            ack: requested_ack(params.ack.as_deref(), app.default_ack)?,
            format: requested_format(params.format.as_deref(), table)?,
            framing: framing(headers)?,
        };
        if let Some(finding) = app.checks.refusal(table) {
            return Err(Problem::unavailable(
                "cannot_store",
                format!("events cannot be stored: {finding}; send them again later"),
                CANNOT_STORE_RETRY,
            ));
        }
        body::check_announced(headers, app.body_limits)?;
        let announced = body::announced_bytes(headers).unwrap_or(0);
        let room = app
            .intake
            .has_room(usize::try_from(announced).unwrap_or(usize::MAX));
        room.map(|()| terms).map_err(|reason| full(app, reason))
    }
}

/// Decodes the body's events; large bodies on a blocking thread.
///
/// At most one large body per core is decoded at a time, as more would not finish sooner. The wait
/// for a turn needs no timeout: decoding always ends, and the memory limit bounds the bodies that
/// wait.
async fn decode(
    app: &Arc<App>,
    table: Table,
    terms: RequestOptions,
    received_at: Micros,
    received: Received,
) -> Result<(Decoded, Reservation), Problem> {
    if received.bytes.len() <= DECODED_INLINE_BYTES_MAX {
        let few = Limits {
            events_max: app.event_limits.events_max.min(DECODED_INLINE_EVENTS_MAX),
            ..app.event_limits
        };
        if let Some(decoded) = decode_now(app, table, &terms, received_at, &received, few)? {
            return Ok(decoded);
        }
    }
    let turn = Arc::clone(&app.decoding).acquire_owned().await;
    let worker = Arc::clone(app);
    let decoding = tokio::task::spawn_blocking(move || {
        let limits = worker.event_limits;
        let decoded = decode_now(&worker, table, &terms, received_at, &received, limits);
        drop((turn, received));
        decoded
    });
    match decoding.await {
        Ok(decoded) => decoded.map(|decoded| decoded.expect("the limits are the service's")),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(full(app, Overload::Stopping)),
        },
    }
}

/// Decodes the body's events. `None` if there are more than `limits` allows, but not more than the
/// service allows.
fn decode_now(
    app: &App,
    table: Table,
    terms: &RequestOptions,
    received_at: Micros,
    received: &Received,
    limits: Limits,
) -> Result<Option<(Decoded, Reservation)>, Problem> {
    let scratch = app.intake.scratch(received.bytes.len());
    let bytes = &received.bytes;
    let decoded = decode_with(app, table, terms, received_at, bytes, limits, &scratch)?;
    let Some(decoded) = decoded else {
        return Ok(None);
    };
    let mut reservation = match scratch.into_loan() {
        Some(reservation) => reservation,
        None => app.intake.reserve(0).map_err(|reason| full(app, reason))?,
    };
    reservation.shrink(decoded.rows.framed().len());
    Ok(Some((decoded, reservation)))
}

fn decode_with(
    app: &App,
    table: Table,
    terms: &RequestOptions,
    received_at: Micros,
    bytes: &[u8],
    limits: Limits,
    scratch: &Scratch<'_>,
) -> Result<Option<Decoded>, Problem> {
    let no_memory = || full(app, scratch.refused());
    let body = match event::body::Body::split_within(bytes, terms.framing, &limits, scratch) {
        Ok(body) => body,
        Err(BodyError::TooManyEvents(max)) if max < app.event_limits.events_max => {
            return Ok(None);
        }
        Err(error) => return Err(body_problem(&error, no_memory)),
    };
    let skew_ms = match body.sent_at {
        Some(raw) => Some(skew_ms(raw, received_at)?),
        None => None,
    };
    let rows = RowLimits {
        bytes_max: app.intake.spool().payload_bytes_max(),
        memory: scratch,
    };
    let decoded = event::decode::decode_within(
        &body,
        &Context {
            table,
            format: terms.format,
            tenant: terms.access.tenant(),
            tenants: &terms.access,
            source: terms.access.source(),
            pseudonymizer: &app.pseudonymizer,
            received_at,
            earliest: Micros(received_at.0.saturating_sub(app.horizon_past_us)),
            latest: Micros(received_at.0.saturating_add(app.horizon_future_us)),
            items_max: crate::http::app::ITEMS_MAX,
            new_event_id: &Uuid::now_v7,
            skew_ms,
        },
        rows,
    );
    decoded.map(Some).map_err(|error| match error {
        DecodeError::NoMemory => no_memory(),
        DecodeError::RowsTooLarge { events_that_fit } => {
            Problem::rows_too_large(rows.bytes_max, events_that_fit)
        }
    })
}

/// How far the sender's clock is behind this one, plus the time that the body took to arrive.
/// Measured, never applied.
fn skew_ms(sent_at: &str, received_at: Micros) -> Result<i64, Problem> {
    event::json::string::as_str(sent_at)
        .and_then(|text| Micros::parse(&text))
        .map(|sent_at| (received_at.0 - sent_at.0) / 1000)
        .ok_or_else(|| {
            Problem::bad_request("invalid_sent_at", "sent_at is not RFC 3339 with an offset")
        })
}

fn count_events(app: &App, table: Table, decoded: &Decoded, row_index: &RowIndex) {
    if decoded.rejected.is_empty() {
        return;
    }
    let rejected = decoded.rejected.len() + decoded.rejected_more.len();
    app.metrics.count(table, EventOutcome::Rejected, rejected);
    let first = decoded.rejected.iter().map(|one| one.rejection.code);
    let others = decoded.rejected_more.iter().map(|(_, code)| *code);
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
    tracing::debug!(
        %table, accepted = row_index.events(), rejected,
        "some events of a body were rejected"
    );
}

fn respond(answer: &Answer, json: axum::body::Bytes) -> Response {
    let status = if answer.committed.is_some() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let headers = [
        (ACK, HeaderValue::from_static(answer.ack)),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
    ];
    (status, headers, Body::from(json)).into_response()
}

/// The response to a request that there is no room for.
fn full(app: &App, reason: Overload) -> Problem {
    let (code, more) = match reason {
        Overload::TooLarge => {
            return Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("{reason}; send the events in several requests"),
            );
        }
        Overload::Bytes => (
            "overloaded",
            "; send the events again later, or fewer at a time",
        ),
        Overload::Records => (
            "overloaded",
            "; send the events again later, or more at a time",
        ),
        Overload::Spool => ("spool_full", why_the_spool_fills(app)),
        Overload::Reserve => ("spool_full", "; send the events again once there is some"),
        Overload::Disk => ("disk_failed", "; send the events again later"),
        Overload::Gone => ("disk_failed", "; send the events elsewhere until it is"),
        Overload::Stalled => ("disk_stalled", "; send the events again later"),
        Overload::FencedOff => ("fenced_off", "; send the events elsewhere"),
        Overload::Stopping => ("stopping", "; send the events again later, or elsewhere"),
    };
    let wait = app.intake.retry_after(reason);
    Problem::unavailable(code, format!("{reason}{more}"), wait)
}

/// Why the spool is at its cap, as far as the writers know.
fn why_the_spool_fills(app: &App) -> &'static str {
    match app.lanes.iter().map(|lane| lane.health()).max() {
        Some(Health::Fault) => {
            ": events cannot be stored until an operator mends something, see /readyz and the log; send the events again after that"
        }
        Some(Health::Away) => {
            ": Postgres is away or busy; send the events again later, there is room once it takes some"
        }
        Some(Health::Undecided) => {
            ": Postgres refuses rows, see /readyz and the log; send the events again later"
        }
        Some(Health::Good | Health::SettingAside) | None => {
            ": Postgres takes events, but slower than they come in; send the events again later"
        }
    }
}

fn requested_ack(name: Option<&str>, default: Ack) -> Result<Ack, Problem> {
    match name {
        None => Ok(default),
        Some("received") => Ok(Ack::Received),
        Some("durable") => Ok(Ack::Durable),
        Some("committed") => Ok(Ack::Committed),
        Some(_) => Err(Problem::bad_request(
            "invalid_ack",
            "ack is received, durable or committed",
        )),
    }
}

fn requested_format(name: Option<&str>, table: Table) -> Result<Option<Format>, Problem> {
    let Some(name) = name else { return Ok(None) };
    let format: Format = name
        .parse()
        .map_err(|message: String| Problem::bad_request("invalid_format", message))?;
    if format.fits(table) {
        Ok(Some(format))
    } else {
        Err(Problem::bad_request(
            "invalid_format",
            format!("{format} does not go into {table}; post it to the other endpoint"),
        ))
    }
}

/// The framing of the body, from its Content-Type.
fn framing(headers: &HeaderMap) -> Result<Framing, Problem> {
    let kind = match headers.get(CONTENT_TYPE) {
        Some(value) => value.to_str().unwrap_or_default(),
        None => "",
    };
    let kind = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match &*kind {
        "application/json" => Ok(Framing::Json),
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines" => Ok(Framing::Lines),
        "text/plain" => Ok(Framing::Either),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Content-Type is application/json, application/x-ndjson or text/plain",
        )),
    }
}

fn body_problem(error: &BodyError, no_memory: impl Fn() -> Problem) -> Problem {
    let detail = error.to_string();
    match error {
        BodyError::Empty => Problem::bad_request("no_events", detail),
        BodyError::TooManyEvents(_) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", detail)
        }
        BodyError::DuplicateMember(_) => Problem::bad_request("duplicate_field", detail),
        BodyError::NoMemory => no_memory(),
        BodyError::NotUtf8(_)
        | BodyError::Syntax(_)
        | BodyError::TooDeep(_)
        | BodyError::Trailing(_) => Problem::bad_request("malformed_body", detail),
    }
}
