//! What a request asks for, as its head says.

use std::time::Duration;

use axum::extract::Query;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use utoipa::IntoParams;

use super::ack::Ack;
use super::body::read as body;
use super::refusal::full;
use crate::event::body::Framing;
use crate::event::format::Format;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::http::app::App;
use crate::http::auth::access::Access;
use crate::http::problem::Problem;

/// The query parameters.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Params {
    /// What the answer waits for: `received` (in memory), `durable` (on disk) or `committed` (in Postgres).
    ack: Option<String>,
    /// The events' format; by default it is recognised by their fields.
    format: Option<String>,
    /// The API key, for callers that cannot set headers.
    key: Option<String>,
}

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

/// The parameters of [`Params`], for the message about an unknown one.
const PARAMS: &str = "ack, format and key";

/// Characters of an unknown name that the message repeats.
const NAME_CHARS_MAX: usize = 40;

/// What a request asks for, from its head.
pub(super) struct RequestOptions {
    pub(super) access: Access,
    pub(super) ack: Ack,
    pub(super) format: Option<Format>,
    pub(super) framing: Framing,
}

impl RequestOptions {
    pub(super) fn of(app: &App, table: Table, parts: &Parts, now: Micros) -> Result<Self, Problem> {
        let headers = &parts.headers;
        let (params, checked) = Params::of(&parts.uri);
        let access = Access::of(
            headers,
            params.key.as_deref(),
            table,
            &app.tenants,
            &app.key_hasher,
            now,
        )?;
        checked?;
        let options = Self {
            access,
            ack: requested_ack(params.ack.as_deref(), app.default_ack)?,
            format: requested_format(params.format.as_deref(), table)?,
            framing: framing(headers)?,
        };
        if let Some(finding) = app.checks.refusal(table) {
            let why = match options.access.is_public() {
                true => format!(
                    "an operator has to mend the database first ({})",
                    finding.code
                ),
                false => finding.to_string(),
            };
            return Err(Problem::unavailable(
                "cannot_store",
                format!("events cannot be stored: {why}; send them again later"),
                CANNOT_STORE_RETRY,
            ));
        }
        body::check_announced(headers, app.body_limits)?;
        let announced = body::announced_bytes(headers).unwrap_or(0);
        let room = app
            .admission
            .has_room(usize::try_from(announced).unwrap_or(usize::MAX));
        room.map(|()| options).map_err(|reason| full(app, reason))
    }
}

/// Retry-After where an operator has to act first.
const CANNOT_STORE_RETRY: Duration = Duration::from_secs(30);

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
