//! The two endpoints that take events, and the path that both share.
//!
//! `api::front` calls that path itself; the handlers give the router something to
//! describe, and to answer other methods for.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::oneshot;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::config::Ack;
use crate::event::{self, BodyError, Context, Decoded, Format, Framing, Micros, Table};
use crate::metrics::{ByReason, EventOutcome};
use crate::queue::{Frame, Full, Outcome};

use super::answer::{Answer, Origins, RejectedEvent};
use super::auth::Access;
use super::problem::{Problem, ProblemBody};
use super::{App, body, clock};

/// The header that says which level was reached, beside the body.
const ACK: HeaderName = HeaderName::from_static("x-ingest-ack");

/// A disk that takes longer to sync is broken, whatever it says later.
const DURABLE_WAIT_MAX: Duration = Duration::from_secs(30);

/// What the query may say.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Params {
    /// What the answer waits for: `received` (in memory), `durable` (on disk) or `committed` (in Postgres).
    ack: Option<String>,
    /// The events' format, where it is not to be recognised by their fields.
    format: Option<String>,
    /// The API key, for callers that cannot set headers.
    key: Option<String>,
}

/// Takes exposures: what was shown.
#[utoipa::path(
    post,
    path = "/v1/exposures",
    tag = "events",
    params(Params),
    request_body(content = super::openapi::Exposure, description = super::openapi::BODY),
    responses(
        (status = 200, description = "Committed in Postgres", body = Answer),
        (status = 202, description = "Taken on; `ack` says which level was reached", body = Answer),
        (status = "4XX", description = "Nothing was taken on", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "No room now: Retry-After says when to come back", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("basic" = []), ("query_key" = []))
)]
pub(super) async fn exposures(
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
    request_body(content = super::openapi::Interaction, description = super::openapi::BODY),
    responses(
        (status = 200, description = "Committed in Postgres", body = Answer),
        (status = 202, description = "Taken on; `ack` says which level was reached", body = Answer),
        (status = "4XX", description = "Nothing was taken on", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "No room now: Retry-After says when to come back", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = []), ("basic" = []), ("query_key" = []))
)]
pub(super) async fn interactions(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    collect(&app, Table::Interactions, request).await
}

/// From request to answer, for either table.
pub(super) async fn collect(
    app: &App,
    table: Table,
    request: Request,
) -> Result<Response, Problem> {
    let received_at = clock::now();
    // Taken apart by hand: an extractor would copy all headers.
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    // Before anything is read: who asks, for what, and whether there is room.
    let terms = match Terms::of(app, table, &parts, received_at) {
        Ok(terms) => terms,
        Err(problem) => {
            // A body that is held back was not sent: to read it would ask for it.
            if !body::is_held_back(headers) {
                body::discard(body).await;
            }
            return Err(problem);
        }
    };
    let refuse = |reason: Full| full(app, reason);
    let arriving = app.arrivals.begin(terms.access.key_id());
    let received = body::read(
        headers, body, app.body_limits, &app.intake, arriving, refuse,
    )
    .await?;
    let mut decoded = decode(app, table, &terms, received_at, &received.bytes)?;
    let origins = Origins::of(&mut decoded);
    count_events(app, table, &decoded, &origins);
    let rejected: Vec<RejectedEvent> = decoded.rejected.into_iter().map(Into::into).collect();
    if origins.events() == 0 {
        return Err(Problem::all_rejected(rejected));
    }

    let rows = decoded.rows.len();
    let loan = app
        .intake
        .lend(decoded.rows.framed().len())
        .map_err(refuse)?;
    // The rows stand for the body from here on.
    drop(received);
    let frame = Frame {
        rows: decoded.rows,
        loan,
        verdict: None,
    };
    let (reached, outcome) = hand_over(app, frame, terms.ack).await?;
    // Rows, as everything downstream counts them: a list of lines is one.
    app.metrics.count(table, EventOutcome::Accepted, rows);

    let mut answer = Answer {
        ack: reached.as_str(),
        accepted: origins.events(),
        rejected,
        ..Answer::default()
    };
    if let Some(outcome) = outcome {
        origins.settle(&outcome, &mut answer);
    }
    Ok(respond(&answer))
}

/// Passes a frame on and waits until `ack` is reached, or as much of it as can
/// be in time; says what was.
async fn hand_over(
    app: &App,
    mut frame: Frame,
    ack: Ack,
) -> Result<(Ack, Option<Outcome>), Problem> {
    let refuse = |reason: Full| full(app, reason);
    if ack == Ack::Received {
        app.intake.submit(frame, None).map_err(refuse)?;
        return Ok((Ack::Received, None));
    }
    let (synced, durable) = oneshot::channel();
    let verdict = (ack == Ack::Committed).then(|| {
        let (sender, verdict) = oneshot::channel();
        frame.verdict = Some(sender);
        verdict
    });
    app.intake.submit(frame, Some(synced)).map_err(refuse)?;
    match tokio::time::timeout(DURABLE_WAIT_MAX, durable).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(refused))) => return Err(refuse(refused.into())),
        // Nobody will tell any more: the service is being stopped.
        Ok(Err(_)) => return Err(refuse(Full::Stopping)),
        Err(_) => {
            return Err(Problem::unavailable(
                "disk_stalled",
                "the disk of the spool has not answered; the events may be stored or not: send them again",
                app.intake.retry_after(Full::Disk),
            ));
        }
    }
    let Some(verdict) = verdict else {
        return Ok((Ack::Durable, None));
    };
    match tokio::time::timeout(app.commit_timeout, verdict).await {
        Ok(Ok(outcome)) => Ok((Ack::Committed, Some(outcome))),
        // Too late for this answer, or the service is being stopped: the events
        // are on disk, and on their way all the same.
        Ok(Err(_)) | Err(_) => Ok((Ack::Durable, None)),
    }
}

/// What a request asks for, as its head says.
struct Terms {
    access: Access,
    ack: Ack,
    format: Option<Format>,
    framing: Framing,
}

impl Terms {
    fn of(app: &App, table: Table, parts: &Parts, now: Micros) -> Result<Self, Problem> {
        let headers = &parts.headers;
        let Query(params) = Query::<Params>::try_from_uri(&parts.uri)
            .map_err(|error| Problem::bad_request("invalid_query", error.body_text()))?;
        let access = Access::of(
            headers,
            params.key.as_deref(),
            table,
            &app.directory,
            &app.key_hasher,
            now,
        )?;
        let terms = Self {
            access,
            ack: requested_ack(params.ack.as_deref(), app.default_ack)?,
            format: requested_format(params.format.as_deref(), table)?,
            framing: framing(headers)?,
        };
        body::check_announced(headers, app.body_limits)?;
        let announced = body::announced_bytes(headers).unwrap_or(0);
        let room = app
            .intake
            .has_room(usize::try_from(announced).unwrap_or(usize::MAX));
        room.map(|()| terms).map_err(|reason| full(app, reason))
    }
}

/// Decodes the body's events.
fn decode(
    app: &App,
    table: Table,
    terms: &Terms,
    received_at: Micros,
    bytes: &[u8],
) -> Result<Decoded, Problem> {
    let body = event::Body::split(bytes, terms.framing, &app.event_limits).map_err(body_problem)?;
    let skew_ms = match body.sent_at {
        Some(raw) => Some(skew_ms(raw, received_at)?),
        None => None,
    };
    Ok(event::decode(
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
            items_max: super::ITEMS_MAX,
            new_event_id: &Uuid::now_v7,
            skew_ms,
        },
    ))
}

/// How far the sender's clock is behind ours, with the time that the body took
/// to get here: measured, never applied.
fn skew_ms(sent_at: &str, received_at: Micros) -> Result<i64, Problem> {
    event::json::as_str(sent_at)
        .and_then(|text| Micros::parse(&text))
        .map(|sent_at| (received_at.0 - sent_at.0) / 1000)
        .ok_or_else(|| {
            Problem::bad_request("invalid_sent_at", "sent_at is not RFC 3339 with an offset")
        })
}

fn count_events(app: &App, table: Table, decoded: &Decoded, origins: &Origins) {
    if decoded.rejected.is_empty() {
        return;
    }
    app.metrics
        .count(table, EventOutcome::Rejected, decoded.rejected.len());
    for rejected in &decoded.rejected {
        let reason = rejected.rejection.code.as_str();
        app.metrics
            .rejections
            .get_or_create(&ByReason { table, reason })
            .inc();
    }
    tracing::debug!(
        %table, accepted = origins.events(), rejected = decoded.rejected.len(),
        "some events of a body were rejected"
    );
}

fn respond(answer: &Answer) -> Response {
    let status = if answer.committed.is_some() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let ack = [(ACK, HeaderValue::from_static(answer.ack))];
    (status, ack, Json(answer)).into_response()
}

/// The refusal of a request for which there is no room.
fn full(app: &App, reason: Full) -> Problem {
    let code = match reason {
        Full::Bytes | Full::Frames => "overloaded",
        Full::Spool => "spool_full",
        Full::Disk => "disk_failed",
        Full::Stopping => "stopping",
    };
    let wait = app.intake.retry_after(reason);
    Problem::unavailable(code, format!("{reason}; send the events again later"), wait)
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

/// How the body is arranged, by its Content-Type.
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

fn body_problem(error: BodyError) -> Problem {
    let detail = error.to_string();
    match error {
        BodyError::Empty => Problem::bad_request("no_events", detail),
        BodyError::TooManyEvents(_) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", detail)
        }
        BodyError::NotUtf8(_) | BodyError::Syntax(_) | BodyError::Trailing(_) => {
            Problem::bad_request("malformed_body", detail)
        }
    }
}
