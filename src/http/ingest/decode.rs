//! From a body's bytes to rows: where it is done, and what of it is refused.

use std::sync::Arc;

use axum::http::StatusCode;
use uuid::Uuid;

use super::body::received::Received;
use super::options::RequestOptions;
use super::refusal::full;
use crate::admission::admit::{Admission, Overload, Scratch};
use crate::admission::memory::Reservation;
use crate::event;
use crate::event::body::{BodyError, Limits};
use crate::event::context::Context;
use crate::event::decode::{DecodeError, Decoded, RowLimits};
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::http::app::App;
use crate::http::problem::Problem;

/// Bodies of up to this many bytes and events are decoded on the async thread, within a millisecond
/// or so. Larger ones would delay the other requests of that thread.
pub(super) const DECODED_INLINE_BYTES_MAX: usize = 128 * 1024;

const DECODED_INLINE_EVENTS_MAX: usize = 1000;

/// Decodes the body's events; large bodies on a blocking thread.
///
/// At most one large body per core is decoded at a time, as more would not finish sooner. The wait
/// for a turn needs no timeout: decoding always ends, and the memory limit bounds the bodies that
/// wait.
///
/// If events name tenants that are not known, these are looked up, and the events decoded again if
/// one was found.
pub(super) async fn decode(
    app: &Arc<App>,
    table: Table,
    options: RequestOptions,
    received_at: Micros,
    received: Received,
) -> Result<(Decoded, Reservation), Problem> {
    // Options and body stay where they are while a body is small and names no unknown tenant: to pass
    // them on and back would move a kilobyte for each request.
    let (decoded, mut options, received) =
        match decode_inline(app, table, &options, received_at, &received)? {
            Some(decoded) if !options.access.has_unknown() => return Ok(decoded),
            Some(decoded) => (decoded, options, received),
            None => decode_apart(app, table, options, received_at, received).await?,
        };
    if !options.access.has_unknown() || !options.access.find_unknown(&app.tenants).await {
        return Ok(decoded);
    }
    drop(decoded);
    match decode_inline(app, table, &options, received_at, &received)? {
        Some(decoded) => Ok(decoded),
        None => {
            let again = decode_apart(app, table, options, received_at, received).await;
            again.map(|(decoded, _, _)| decoded)
        }
    }
}

/// Decodes the body's events on this thread; `None` if they are too many for that.
fn decode_inline(
    app: &App,
    table: Table,
    options: &RequestOptions,
    received_at: Micros,
    received: &Received,
) -> Result<Option<(Decoded, Reservation)>, Problem> {
    if received.bytes.len() > DECODED_INLINE_BYTES_MAX {
        return Ok(None);
    }
    let few = Limits {
        events_max: app.event_limits.events_max.min(DECODED_INLINE_EVENTS_MAX),
        ..app.event_limits
    };
    decode_now(app, table, options, received_at, received, few)
}

/// The rows of a body, and what it takes to decode it again.
type Apart = ((Decoded, Reservation), RequestOptions, Received);

/// Decodes the body's events on a blocking thread.
async fn decode_apart(
    app: &Arc<App>,
    table: Table,
    options: RequestOptions,
    received_at: Micros,
    received: Received,
) -> Result<Apart, Problem> {
    let (worker, admission) = (Arc::clone(app), options.admission.clone());
    in_turn(app, &admission, move || {
        let limits = worker.event_limits;
        let decoded = decode_now(&worker, table, &options, received_at, &received, limits);
        decoded.map(|decoded| {
            let decoded = decoded.expect("the limits are the service's");
            (decoded, options, received)
        })
    })
    .await?
}

/// Works on a large body on a blocking thread, once it is its turn.
///
/// # Errors
/// If the service stops before that.
pub(super) async fn in_turn<T: Send + 'static>(
    app: &App,
    admission: &Admission,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    // A tenant has at most as many bodies in this queue as are decoded at once, so another's waits
    // for one of each tenant at most.
    let own_turn = Arc::clone(admission.decoding()).acquire_owned().await;
    let turn = Arc::clone(&app.decoding).acquire_owned().await;
    let span = tracing::Span::current();
    let working = tokio::task::spawn_blocking(move || {
        let _span = span.entered();
        let done = work();
        drop((turn, own_turn));
        done
    });
    match working.await {
        Ok(done) => Ok(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(full(app, Overload::Stopping)),
        },
    }
}

/// Decodes the body's events. `None` if there are more, or more rows of them, than `limits` allows, but not more than the
/// service allows.
fn decode_now(
    app: &App,
    table: Table,
    options: &RequestOptions,
    received_at: Micros,
    received: &Received,
    limits: Limits,
) -> Result<Option<(Decoded, Reservation)>, Problem> {
    let scratch = options.admission.scratch(received.bytes.len());
    let bytes = &received.bytes;
    let decoded = decode_with(app, table, options, received_at, bytes, limits, &scratch)?;
    let Some(decoded) = decoded else {
        return Ok(None);
    };
    let mut reservation = match scratch.into_reservation() {
        Some(reservation) => reservation,
        None => options
            .admission
            .reserve(0)
            .map_err(|reason| full(app, reason))?,
    };
    reservation.shrink(decoded.rows.framed().len());
    Ok(Some((decoded, reservation)))
}

fn decode_with(
    app: &App,
    table: Table,
    options: &RequestOptions,
    received_at: Micros,
    bytes: &[u8],
    limits: Limits,
    scratch: &Scratch<'_>,
) -> Result<Option<Decoded>, Problem> {
    let no_memory = || full(app, scratch.refused());
    let body = match event::body::Body::split_within(bytes, options.framing, &limits, scratch) {
        Ok(body) => body,
        Err(BodyError::TooManyEvents(max)) if max < app.event_limits.events_max => {
            return Ok(None);
        }
        Err(error) => return Err(body_problem(&error, no_memory)),
    };
    if options.strict
        && let Some(name) = body.strays.first()
    {
        return Err(Problem::bad_request(
            "unknown_field",
            format!(
                "an envelope has the members events and sent_at, not '{name}', and strict=true asks to refuse it; leave it out"
            ),
        ));
    }
    let skew_ms = match body.sent_at {
        Some(raw) => Some(skew_ms(raw, received_at)?),
        None => None,
    };
    let rows = RowLimits {
        bytes_max: app.admission.log().payload_bytes_max(),
        rows_max: limits.events_max,
        memory: scratch,
    };
    let decoded = event::decode::decode_within(
        &body,
        &Context {
            table,
            format: options.format,
            tenant: options.access.tenant(),
            tenants: &options.access,
            source: options.access.source(),
            is_public: options.access.is_public(),
            pseudonymizer: &app.pseudonymizer,
            received_at,
            earliest: Micros(received_at.0.saturating_sub(app.horizon_past_us)),
            latest: Micros(received_at.0.saturating_add(app.horizon_future_us)),
            items_max: crate::http::app::ITEMS_MAX,
            strict: options.strict,
            new_event_id: &Uuid::now_v7,
            skew_ms,
        },
        rows,
    );
    match decoded {
        Ok(decoded) => Ok(Some(decoded)),
        Err(DecodeError::TooManyRows { .. }) if rows.rows_max < app.event_limits.events_max => {
            Ok(None)
        }
        Err(DecodeError::NoMemory) => Err(no_memory()),
        Err(DecodeError::RowsTooLarge { events_that_fit }) => {
            Err(Problem::rows_too_large(rows.bytes_max, events_that_fit))
        }
        Err(DecodeError::TooManyRows { events_that_fit }) => {
            Err(Problem::too_many_rows(rows.rows_max, events_that_fit))
        }
    }
}

/// How far the sender's clock is behind this one, plus the time that the body took to arrive.
/// Measured, never applied.
fn skew_ms(sent_at: &str, received_at: Micros) -> Result<i64, Problem> {
    let text = event::json::string::as_str(sent_at).unwrap_or_default();
    let (sent_at, _) = Micros::parse_telling(&text)
        .map_err(|error| Problem::bad_request("invalid_sent_at", format!("sent_at {error}")))?;
    Ok((received_at.0 - sent_at.0) / 1000)
}

pub(super) fn body_problem(error: &BodyError, no_memory: impl Fn() -> Problem) -> Problem {
    let detail = error.to_string();
    match error {
        BodyError::Empty | BodyError::NoBatch => Problem::bad_request("no_events", detail),
        BodyError::TooManyEvents(_) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_events", detail)
        }
        BodyError::DuplicateMember(_) => Problem::bad_request("duplicate_field", detail),
        BodyError::NoMemory => no_memory(),
        BodyError::Foreign(_) => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_charset",
            detail,
        ),
        BodyError::Compressed(_) => Problem::bad_request("invalid_compression", detail),
        BodyError::Form => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            detail,
        ),
        BodyError::NotUtf8(_)
        | BodyError::Syntax(_)
        | BodyError::TooDeep(_)
        | BodyError::NoObject
        | BodyError::Trailing(_) => Problem::bad_request("malformed_body", detail),
    }
}
