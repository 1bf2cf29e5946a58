//! `/live`: what the live page shows and `recsys-ingest tap` prints.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::state::Live;
use super::tap::Verdict;
use crate::clock;
use crate::http::app::App;
use crate::http::auth::operator;
use crate::http::problem::Problem;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Look {
    /// The number of the last verdict that is known: only later ones are told.
    after: Option<u64>,
    /// `bodies`: the verdicts alone.
    #[param(value_type = Option<String>)]
    only: Option<Only>,
    /// An API key.
    key: Option<String>,
}

/// A part of the document.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Only {
    Bodies,
}

/// The verdicts alone.
#[derive(Debug, Serialize)]
struct Bodies {
    bodies_began: u64,
    bodies: Vec<Verdict>,
}

/// What the service does now: everything that the live page shows. Members may be added.
///
/// The verdicts on bodies are kept for a minute after they were asked for.
#[utoipa::path(get, path = "/live", tag = "operations", params(Look),
    responses((status = 200, description = "What there is now; with `only=bodies` its `bodies_began` and `bodies` alone", body = Live)))]
pub(crate) async fn live(
    State(app): State<Arc<App>>,
    look: Result<Query<Look>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let now = clock::now();
    let look = look.map_err(|error| Problem::bad_request("invalid_query", error.body_text()));
    // `dev` shows it to this machine's own programs, to which it has told its keys in a file.
    if app.live.env_file.is_none() {
        let key = look
            .as_ref()
            .ok()
            .and_then(|Query(look)| look.key.as_deref());
        operator::check(&headers, key, &app.tenants, &app.key_hasher, now).await?;
    }
    let Query(look) = look?;
    let after = look.after.unwrap_or(0);
    Ok(match look.only {
        Some(Only::Bodies) => Json(Bodies {
            bodies_began: app.live.tap.began(),
            bodies: app.live.tap.look(now, after),
        })
        .into_response(),
        None => Json(Live::of(&app, now, after)).into_response(),
    })
}
