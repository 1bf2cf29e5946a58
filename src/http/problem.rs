//! Error responses: `application/problem+json` with a stable code.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::ingest::response::{More, RejectedEvent, with_reservation};
use super::limits::fields::RateLimitFields;
use super::routes::PROBLEMS;
use crate::admission::memory::Reservation;

/// An error that concerns a request as a whole.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<Duration>,
    rate_limits: Option<Box<RateLimitFields>>,
    events_that_fit: Option<usize>,
    verdicts: Option<Arc<Verdicts>>,
    /// Whether the answer asks for Basic authentication.
    challenges: bool,
}

/// Why each event of a body was rejected, and the reservation for that list.
#[derive(Debug)]
struct Verdicts {
    rejected: Vec<RejectedEvent>,
    rejected_more: Vec<More>,
    #[expect(dead_code, reason = "held, not read")]
    reservation: Option<Reservation>,
}

/// The body of every error response (RFC 9457).
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
    /// Where this service explains the code. Absent where it does not serve that page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/problems#body_too_large")]
    help: Option<String>,
    /// With `all_events_rejected` and `some_events_rejected`: always 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<u32>,
    /// With `all_events_rejected` and `some_events_rejected`: why, event by event, for the first
    /// hundred at most.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rejected: &'p [RejectedEvent],
    /// With `all_events_rejected` and `some_events_rejected`: the events that are not in `rejected`,
    /// by code.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rejected_more: &'p [More],
    /// With `body_too_large` and `too_many_events`, if it is for the events' rows: how many events from the start of the body
    /// fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    events_that_fit: Option<usize>,
}

impl Problem {
    /// A problem with a status, a stable code, and a sentence for people.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after: None,
            rate_limits: None,
            events_that_fit: None,
            verdicts: None,
            challenges: false,
        }
    }

    pub(crate) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// There is no key, or none that is valid.
    ///
    /// `challenges` asks for Basic authentication, which only those may be asked for who use it: a
    /// browser answers the challenge with a dialog, and a page's `fetch` hangs until it is closed.
    pub(crate) fn unauthorized(
        code: &'static str,
        detail: impl Into<String>,
        challenges: bool,
    ) -> Self {
        Self {
            challenges,
            ..Self::new(StatusCode::UNAUTHORIZED, code, detail)
        }
    }

    /// A refusal for lack of room; the client may retry after `retry_after`.
    pub(crate) fn unavailable(
        code: &'static str,
        detail: impl Into<String>,
        retry_after: Duration,
    ) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
        }
    }

    /// A limit on what the caller may send is reached; it has room again after `retry_after`.
    pub(crate) fn rate_limited(
        detail: String,
        retry_after: Duration,
        fields: RateLimitFields,
    ) -> Self {
        Self {
            retry_after: Some(retry_after),
            rate_limits: Some(Box::new(fields)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
        }
    }

    /// The same, with 429 in place of 503: for clients that wait for the one and give up on the other.
    #[must_use]
    pub(crate) fn into_too_many(self) -> Self {
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                ..self
            },
            _ => self,
        }
    }

    /// The body's rows are larger than a record may be.
    pub(crate) fn rows_too_large(bytes_max: usize, events_that_fit: usize) -> Self {
        let detail = format!(
            "the events' rows take more than {bytes_max} bytes once their raw ids are hashed"
        );
        Self::fits_in_part("body_too_large", detail, events_that_fit)
    }

    /// The body's events have more rows than a body may have.
    pub(crate) fn too_many_rows(rows_max: usize, events_that_fit: usize) -> Self {
        let detail = format!(
            "the body has more than {rows_max} events, of which those with several items count once for each"
        );
        Self::fits_in_part("too_many_events", detail, events_that_fit)
    }

    fn fits_in_part(code: &'static str, detail: String, events_that_fit: usize) -> Self {
        let how = match events_that_fit {
            0 => "not even the first event fits".to_owned(),
            1 => "the first event fits: send that, and the others in further requests".to_owned(),
            fit => format!(
                "the first {fit} events fit: send those, and the others in further requests"
            ),
        };
        Self {
            events_that_fit: Some(events_that_fit),
            ..Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                code,
                format!("{detail}; {how}"),
            )
        }
    }

    /// No event of the body was accepted: none of them is valid, or `valid` are, and the request asks
    /// for all or none.
    pub(crate) fn rejected(
        valid: usize,
        rejected: Vec<RejectedEvent>,
        rejected_more: Vec<More>,
        reservation: Option<Reservation>,
    ) -> Self {
        let (code, detail) = match valid {
            0 => (
                "all_events_rejected",
                "no event of the body was accepted; see rejected and rejected_more".to_owned(),
            ),
            valid => {
                let are_valid = match valid {
                    1 => "one of them is valid".to_owned(),
                    _ => format!("{valid} of them are valid"),
                };
                (
                    "some_events_rejected",
                    format!(
                        "nothing was stored: partial=false takes all events or none, and only {are_valid}; see rejected and rejected_more, and send the others again"
                    ),
                )
            }
        };
        Self {
            verdicts: Some(Arc::new(Verdicts {
                rejected,
                rejected_more,
                reservation,
            })),
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
        }
    }

    /// The code of a refusal that does not depend on what was sent, but on when.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        matches!(
            self.status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        )
        .then_some(self.code)
    }

    /// What happened, and what to do.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The status of the response.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Why each event of the body was rejected: the first ones, and the others summed up.
    pub(crate) fn rejected_events(&self) -> (&[RejectedEvent], &[More]) {
        let verdicts = self.verdicts.as_deref();
        verdicts.map_or((&[], &[]), |verdicts| {
            (&verdicts.rejected, &verdicts.rejected_more)
        })
    }

    /// The stable name of the kind of problem.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// Renders the response for the request with this path and id. `has_page`: whether the listener
    /// serves the page of codes.
    pub(crate) fn render(&self, instance: &str, request_id: &str, has_page: bool) -> Response {
        let kind = self.code.replace('_', "-");
        let verdicts = self.verdicts.as_deref();
        let body = ProblemBody {
            r#type: format!("https://errors.recsys.example/problem/{kind}"),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance,
            code: self.code,
            request_id,
            help: has_page.then(|| format!("{PROBLEMS}#{}", self.code)),
            accepted: verdicts.map(|_| 0),
            rejected: verdicts.map_or(&[], |verdicts| &verdicts.rejected),
            rejected_more: verdicts.map_or(&[], |verdicts| &verdicts.rejected_more),
            events_that_fit: self.events_that_fit,
        };
        let json = serde_json::to_vec(&body).expect("strings and numbers are always JSON");
        let json = with_reservation(json, self.verdicts.clone());
        let mut response = (self.status, Body::from(json)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.challenges {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"recsys-ingest\""),
            );
        }
        if let Some(fields) = &self.rate_limits {
            fields.put(headers);
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

/// The problem travels in the response's extensions to the outermost layer, which knows the
/// request's id and path and renders it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_spoken_of_as_one() {
        let rejected = |valid| Problem::rejected(valid, Vec::new(), Vec::new(), None);
        assert!(rejected(1).detail().contains("only one of them is valid;"));
        assert!(rejected(2).detail().contains("only 2 of them are valid;"));
        let large = |fit| Problem::rows_too_large(100, fit);
        assert!(
            large(1)
                .detail()
                .contains("the first event fits: send that")
        );
        assert!(
            large(2)
                .detail()
                .contains("the first 2 events fit: send those")
        );
    }
}
