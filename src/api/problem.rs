//! Answers to requests that failed: `application/problem+json` with a stable code.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::RejectedEvent;

/// What went wrong with a request as a whole.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<Duration>,
    rejected: Vec<RejectedEvent>,
}

/// The body of every answer that is an error (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemBody<'p> {
    /// A URI that names the kind of problem.
    #[schema(example = "https://errors.recsys.example/problem/body-too-large")]
    r#type: String,
    /// The status in words.
    title: &'p str,
    /// The HTTP status.
    status: u16,
    /// What happened, and what to do.
    detail: &'p str,
    /// The request's path.
    instance: &'p str,
    /// A stable name for the kind of problem.
    #[schema(example = "body_too_large")]
    code: &'p str,
    /// The request's id, as in the header X-Request-Id.
    request_id: &'p str,
    /// With `all_events_rejected`: always 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<u32>,
    /// With `all_events_rejected`: why, event by event.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rejected: &'p [RejectedEvent],
}

impl Problem {
    /// A problem with a status, a stable code, and a sentence for people.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after: None,
            rejected: Vec::new(),
        }
    }

    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// There is no room now; come back after `retry_after`.
    pub(super) fn unavailable(
        code: &'static str,
        detail: impl Into<String>,
        retry_after: Duration,
    ) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
        }
    }

    /// Not one event of the body was accepted.
    pub(super) fn all_rejected(rejected: Vec<RejectedEvent>) -> Self {
        Self {
            rejected,
            ..Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "all_events_rejected",
                "no event of the body was accepted; see rejected",
            )
        }
    }

    /// The answer, for the request with this path and id.
    pub(super) fn render(&self, instance: &str, request_id: &str) -> Response {
        let kind = self.code.replace('_', "-");
        let body = ProblemBody {
            r#type: format!("https://errors.recsys.example/problem/{kind}"),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance,
            code: self.code,
            request_id,
            accepted: (!self.rejected.is_empty()).then_some(0),
            rejected: &self.rejected,
        };
        let json = serde_json::to_vec(&body).expect("strings and numbers are always JSON");
        let mut response = (self.status, json).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"recsys-ingest\""),
            );
        }
        if let Some(after) = self.retry_after {
            // Whole seconds, and never 0, which would mean at once.
            let seconds = after.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::try_from(seconds.to_string()) {
                headers.insert(RETRY_AFTER, value);
            }
        }
        response
    }
}

/// The problem travels in the response's extensions until the outermost layer,
/// which knows the request's id and path, renders it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
