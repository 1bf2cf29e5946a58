//! What a request asks for, as its head says.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use axum::http::Uri;
use axum::http::request::Parts;
use utoipa::IntoParams;

use super::ack::Ack;
use super::body::read as body;
use super::content_type;
use super::refusal::full;
use crate::admission::admit::Admission;
use crate::admission::rate_limit::charge::Charges;
use crate::event::body::framing::Framing;
use crate::event::format::Format;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::http::app::App;
use crate::http::auth::access::Access;
use crate::http::cors;
use crate::http::flag;
use crate::http::problem::Problem;

/// The query parameters.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Params<'u> {
    /// What the answer waits for: `received` (in memory), `durable` (on disk) or `committed` (in Postgres).
    #[param(value_type = Option<String>)]
    ack: Option<Cow<'u, str>>,
    /// The events' format; by default it is recognised by their fields.
    #[param(value_type = Option<String>)]
    format: Option<Cow<'u, str>>,
    /// The API key, for callers that cannot set headers.
    #[param(value_type = Option<String>)]
    key: Option<Cow<'u, str>>,
    /// `false`: all events are taken, or none (422) if one is not valid. By default the valid ones are.
    #[param(value_type = Option<bool>)]
    partial: Option<Cow<'u, str>>,
    /// `true`: the answer (200) says what is valid, and nothing is stored.
    #[param(value_type = Option<bool>)]
    validate: Option<Cow<'u, str>>,
    /// `true` rejects an event that has a field which its format does not know, with `unknown_field`; by default such fields are kept in `meta.extra`.
    #[param(value_type = Option<bool>)]
    strict: Option<Cow<'u, str>>,
}

impl<'u> Params<'u> {
    /// Parses a query. The error is returned apart from the parameters: only callers with a valid
    /// key see it.
    ///
    /// `names` are those that there are on the route, for the message about an unknown one.
    fn of(uri: &'u Uri, names: &[&str]) -> (Self, Result<(), Problem>) {
        let invalid = |detail| Problem::bad_request("invalid_query", detail);
        let mut params = Self::default();
        let mut checked = Ok(());
        let query = uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "ack" => &mut params.ack,
                "format" => &mut params.format,
                "key" => &mut params.key,
                "partial" => &mut params.partial,
                "validate" => &mut params.validate,
                "strict" => &mut params.strict,
                _ => {
                    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
                    checked = checked.and(Err(invalid(format!(
                        "there is no query parameter '{name}'; there are {}",
                        names.join(", ")
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

/// What a query may ask for on the routes of Segment's shape.
pub(super) struct SegmentParams<'u>(Params<'u>);

impl<'u> SegmentParams<'u> {
    /// Parses a query. The error is returned apart, as in [`Params::of`].
    pub(super) fn of(uri: &'u Uri) -> (Self, Result<(), Problem>) {
        let (params, checked) = Params::of(uri, &["ack", "key"]);
        let others = [
            &params.format, &params.partial, &params.validate, &params.strict,
        ];
        let checked = checked.and(match others.into_iter().all(Option::is_none) {
            true => Ok(()),
            false => Err(Problem::bad_request(
                "invalid_query",
                "there are the query parameters ack and key here, as the messages have one form; the others are for /v1/exposures, /v1/interactions and /v1/assignments",
            )),
        });
        (Self(params), checked)
    }

    /// The API key.
    pub(super) fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// What the answer waits for.
    pub(super) fn ack(&self, default: Ack) -> Result<Ack, Problem> {
        requested_ack(self.0.ack.as_deref(), default)
    }
}

/// The parameters of [`Params`].
const PARAMS: &[&str] = &["ack", "format", "key", "partial", "strict", "validate"];

/// Characters of an unknown name that the message repeats.
const NAME_CHARS_MAX: usize = 40;

/// What a request asks for, from its head.
pub(super) struct RequestOptions {
    pub(super) access: Access,
    /// The limits that the request is under.
    pub(super) charges: Charges,
    /// The bytes of the body, as the head announces them.
    pub(super) announced: Option<u64>,
    /// Admission on the tenant's account.
    pub(super) admission: Admission,
    pub(super) ack: Ack,
    pub(super) format: Option<Format>,
    pub(super) framing: Framing,
    /// Whether the valid events of a body are taken if others are not valid.
    pub(super) partial: bool,
    /// Whether the events are only looked at.
    pub(super) validate: bool,
    /// Whether an event with a field that its format does not know is rejected.
    pub(super) strict: bool,
}

impl RequestOptions {
    /// Those of native events that were made from a body of another shape.
    pub(super) fn native(access: Access, admission: Admission) -> Self {
        Self {
            access,
            charges: Charges::default(),
            announced: None,
            admission,
            ack: Ack::Durable,
            format: Some(Format::Native),
            framing: Framing::Json,
            partial: true,
            validate: false,
            strict: false,
        }
    }

    pub(super) async fn of(
        app: &App,
        table: Table,
        peer: Option<IpAddr>,
        parts: &Parts,
        now: Micros,
    ) -> Result<Self, Problem> {
        let headers = &parts.headers;
        let (params, checked) = Params::of(&parts.uri, PARAMS);
        let access = Access::of(
            headers,
            params.key.as_deref(),
            table,
            &app.tenants,
            &app.key_hasher,
            now,
        )
        .await?;
        cors::check_post(headers, access.origins(), app)?;
        checked?;
        let mut options = Self {
            announced: None,
            charges: app.rate_limits.begin(&access, peer, headers)?,
            admission: app.admission_of(access.tenant(), headers),
            access,
            ack: requested_ack(params.ack.as_deref(), app.default_ack)?,
            format: requested_format(params.format.as_deref(), table)?,
            framing: content_type::framing(headers)?,
            partial: switch("partial", params.partial.as_deref(), true, &parts.uri)?,
            validate: switch("validate", params.validate.as_deref(), false, &parts.uri)?,
            strict: switch("strict", params.strict.as_deref(), false, &parts.uri)?,
        };
        options.announced = body::check_announced(headers, app.body_limits)?;
        if options.validate {
            // Nothing is stored, so there need be no room.
            return Ok(options);
        }
        check_storable(app, table, &options.access)?;
        let announced = options.announced.unwrap_or(0);
        let room = options
            .admission
            .has_room(usize::try_from(announced).unwrap_or(usize::MAX));
        room.map(|()| options).map_err(|reason| full(app, reason))
    }
}

/// Refuses events that the database cannot take.
pub(super) fn check_storable(app: &App, table: Table, access: &Access) -> Result<(), Problem> {
    let Some(finding) = app.checks.refusal(table) else {
        return Ok(());
    };
    let why = match access.is_public() {
        true => format!(
            "an operator has to mend the database first ({})",
            finding.code
        ),
        false => finding.to_string(),
    };
    Err(Problem::unavailable(
        "cannot_store",
        format!("events cannot be stored: {why}; send them again later"),
        CANNOT_STORE_RETRY,
    ))
}

/// Retry-After where an operator has to act first.
const CANNOT_STORE_RETRY: Duration = Duration::from_secs(30);

/// The value of a switch. Its name alone switches on.
fn switch(
    name: &'static str,
    value: Option<&str>,
    default: bool,
    uri: &Uri,
) -> Result<bool, Problem> {
    let Some(value) = value else {
        return Ok(default);
    };
    if value.is_empty() && flag::stands_alone(name, uri.query().unwrap_or_default()) {
        return Ok(true);
    }
    flag::parse(value)
        .ok_or_else(|| Problem::bad_request("invalid_query", format!("{name} is true or false")))
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
            format!(
                "{format} does not go into {table}; {}",
                format.whereabouts()
            ),
        ))
    }
}
