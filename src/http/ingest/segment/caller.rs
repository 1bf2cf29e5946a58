//! Who posts messages, and under which limits: by the head, or else by the key in the body.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use uuid::Uuid;

use crate::admission::admit::{Admission, Overload};
use crate::admission::rate_limit::charge::{Charges, Cost};
use crate::event::formats::segment::write_key;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::http::app::App;
use crate::http::auth::access::Access;
use crate::http::auth::presented;
use crate::http::cors;
use crate::http::ingest::ack::Ack;
use crate::http::ingest::body::read as body;
use crate::http::ingest::body::read::BodyLimits;
use crate::http::ingest::body::received::Received;
use crate::http::ingest::decode::body_problem;
use crate::http::ingest::options::SegmentParams;
use crate::http::ingest::refusal::full;
use crate::http::problem::Problem;

/// Largest body whose key stands in it: it is read before anyone is known. Segment's own limit on a
/// batch.
const KEYLESS_BYTES_MAX: usize = 512 * 1024;

/// What the head of a request says.
pub(super) struct Head {
    /// Who posts, if the head says so.
    pub(super) access: Option<Access>,
    pub(super) ack: Ack,
    pub(super) admission: Admission,
    pub(super) limits: BodyLimits,
    /// The owner of the share that the body counts against while it is received.
    pub(super) sender: Uuid,
    /// The limits that it is under: those of the address alone until the key is known.
    pub(super) charges: Charges,
}

/// Who posts, and under which limits.
pub(super) struct Caller {
    pub(super) access: Access,
    pub(super) admission: Admission,
    pub(super) charges: Charges,
    pub(super) announced: Option<u64>,
}

impl Head {
    pub(super) async fn of(
        app: &App,
        peer: Option<IpAddr>,
        parts: &Parts,
        now: Micros,
    ) -> Result<Self, Problem> {
        let headers = &parts.headers;
        let (params, checked) = SegmentParams::of(&parts.uri);
        let has_key = presented::keys(headers, params.key()).next().is_some();
        let access = match has_key {
            true => Some(access(app, headers, params.key(), now).await?),
            false => None,
        };
        let (admission, limits, sender, charges) = match &access {
            Some(access) => {
                cors::check_post(headers, access.origins(), app)?;
                let charges = app.rate_limits.begin(access, peer, headers)?;
                let admission = app.admission_of(access.tenant(), headers);
                (admission, app.body_limits, access.key_id(), charges)
            }
            None => {
                let charges = app.rate_limits.begin_unknown(peer, headers)?;
                let limits = BodyLimits {
                    bytes_max: app.body_limits.bytes_max.min(KEYLESS_BYTES_MAX),
                    ..app.body_limits
                };
                // Also behind a proxy: one client's slow bodies are not to use up the share of all.
                let client = app.rate_limits.client(peer, headers).or(peer);
                let share = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{client:?}").as_bytes());
                // The tenant is not known: these bodies share the account of none.
                (app.admission.clone(), limits, share, charges)
            }
        };
        checked?;
        let ack = params.ack(app.default_ack)?;
        let announced = body::check_announced(headers, limits);
        let announced = announced.map_err(|problem| match access {
            Some(_) => problem,
            None => without_a_key(app, problem),
        })?;
        let announced = usize::try_from(announced.unwrap_or(0)).unwrap_or(usize::MAX);
        let room = admission.has_room(announced);
        room.map_err(|reason| full(app, reason))?;
        Ok(Self {
            access,
            ack,
            admission,
            limits,
            sender,
            charges,
        })
    }

    /// Who posts, by the head or else by the body that has arrived.
    pub(super) async fn caller(
        self,
        app: &App,
        peer: Option<IpAddr>,
        parts: &Parts,
        now: Micros,
        received: &Received,
    ) -> Result<Caller, Problem> {
        let headers = &parts.headers;
        let (access, charges) = match self.access {
            Some(access) => (access, self.charges),
            None => {
                let found = in_body(app, headers, now, &received.bytes).await;
                let access = found.map_err(|problem| {
                    // Trying keys counts against the address.
                    let cost = Cost {
                        events: 1,
                        bytes: received.bytes.len() as u64,
                    };
                    let charged = app.rate_limits.charge(&self.charges, cost, None);
                    charged.err().unwrap_or(problem)
                })?;
                let charges = app.rate_limits.begin(&access, peer, headers)?;
                (access, charges)
            }
        };
        Ok(Caller {
            admission: app.admission_of(access.tenant(), headers),
            charges,
            announced: body::announced_bytes(headers),
            access,
        })
    }
}

/// Says of a body that is too large without a key in the head how large it may be with one.
pub(super) fn without_a_key(app: &App, problem: Problem) -> Problem {
    let most = app.body_limits.bytes_max;
    if problem.code() != "body_too_large" || most <= KEYLESS_BYTES_MAX {
        return problem;
    }
    let detail = format!(
        "{}; with the API key in the head instead of the body it may have {most}",
        problem.detail()
    );
    Problem::new(problem.status(), problem.code(), detail)
}

/// The caller by a key of the head: its role has to be one that may post interactions, as every body
/// may hold some.
async fn access(
    app: &App,
    headers: &HeaderMap,
    key: Option<&str>,
    now: Micros,
) -> Result<Access, Problem> {
    let table = Table::Interactions;
    Access::of(headers, key, table, &app.tenants, &app.key_hasher, now).await
}

/// The caller by the key in a body.
async fn in_body(
    app: &App,
    headers: &HeaderMap,
    now: Micros,
    bytes: &[u8],
) -> Result<Access, Problem> {
    let no_memory = || full(app, Overload::Bytes);
    let key = write_key(bytes).map_err(|error| body_problem(&error, no_memory))?;
    let Some(key) = key else {
        return Err(Problem::unauthorized(
            "missing_api_key",
            "send the API key as the user of Basic authentication, in X-API-Key, as Authorization: Bearer or as ?key=, or as writeKey in the body",
            false,
        ));
    };
    let access = access(app, headers, Some(&key), now).await?;
    if access.is_service() {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "role_not_allowed",
            "a key with the role service may write for any tenant, and is not taken from a body: send it in X-API-Key, or as the user of Basic authentication",
        ));
    }
    cors::check_post(headers, access.origins(), app)?;
    Ok(access)
}
