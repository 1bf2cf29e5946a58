//! Reads a request's body: counts and inflates the bytes as they arrive.
//!
//! Keeps two invariants. Every byte is reserved from the memory limit before it is kept, so neither
//! a false Content-Length nor a small body that inflates to a large one exceeds the limit. And
//! every body ends: its pauses are bounded, it has a minimum rate, and while it arrives it counts
//! against the share of its key.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Version};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame};
use tokio::time::Instant;

use super::inflate::{Encoding, Inflater};
use super::received::{RESERVE_STEP, Received, too_large};
use crate::admission::admit::{Admission, Overload};
use crate::admission::arrivals::{Arriving, Spent};

use crate::http::problem::Problem;

/// Minimum rate of a body. A 2G phone sends as fast, and a beacon of a few kilobytes is in time at
/// any rate.
const BYTES_PER_SECOND_MIN: u64 = 16 * 1024;

/// Limits on what is read of a body after its request was refused.
const DISCARD_BYTES_MAX: usize = 1 << 20;
const DISCARD_TIME_MAX: Duration = Duration::from_millis(200);

/// Retry-After once a key's share is used up: slow bodies take a while to end.
const SHARE_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Limits on a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Most bytes, as sent and as inflated.
    pub bytes_max: usize,
    /// Longest pause between two pieces. Also the time for the whole body beyond what the minimum
    /// rate allows.
    pub pause_max: Duration,
}

/// The value of Content-Length, as a hint. Refuses a body that is too large by it.
pub(crate) fn check_announced(
    headers: &HeaderMap,
    limits: BodyLimits,
) -> Result<Option<u64>, Problem> {
    match announced_bytes(headers) {
        Some(bytes) if bytes > limits.bytes_max as u64 => Err(too_large(limits.bytes_max)),
        announced => Ok(announced),
    }
}

/// The value of Content-Length, as a hint.
pub(crate) fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// Refuses a request that has no body because nothing in its head says that it has one (RFC 9112, 6.3):
/// events that stand behind the head all the same are not read.
pub(crate) fn check_has_length(parts: &Parts, received: &[u8]) -> Result<(), Problem> {
    let is_told = |name| parts.headers.contains_key(name);
    if !received.is_empty()
        || parts.version > Version::HTTP_11
        || is_told(CONTENT_LENGTH)
        || is_told(TRANSFER_ENCODING)
    {
        return Ok(());
    }
    Err(Problem::bad_request(
        "no_events",
        "the request has no body, as it has neither Content-Length nor Transfer-Encoding; send Content-Length with the events",
    ))
}

/// Whether the client waits for `100 Continue` before it sends its body.
pub(crate) fn is_held_back(headers: &HeaderMap) -> bool {
    headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Reads and inflates a body.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: BodyLimits,
    admission: &Admission,
    arriving: Arriving,
    full: impl Fn(Overload) -> Problem,
) -> Result<Received, Problem> {
    let mut pieces = Pieces::new(body, limits.pause_max, arriving);
    let received = read_pieces(headers, &mut pieces, limits, admission, &full).await;
    // A body that has arrived or was refused no longer counts against the share.
    pieces.arriving.end();
    if received.is_err() && !pieces.is_broken {
        discard(pieces.body).await;
    }
    received
}

async fn read_pieces(
    headers: &HeaderMap,
    pieces: &mut Pieces,
    limits: BodyLimits,
    admission: &Admission,
    full: &impl Fn(Overload) -> Problem,
) -> Result<Received, Problem> {
    let encoding = Encoding::of(headers)?;
    if encoding == Encoding::Identity {
        let announced = announced_bytes(headers).and_then(|bytes| usize::try_from(bytes).ok());
        return plain(pieces, announced, limits, admission, full).await;
    }
    let mut inflater = Inflater::new(encoding, limits.bytes_max, admission)?;
    let mut sent = 0;
    while let Some(piece) = pieces.next(inflater.reserved()).await? {
        sent += piece.len();
        if sent > limits.bytes_max {
            return Err(too_large(limits.bytes_max));
        }
        inflater.write(&piece, full)?;
    }
    if sent == 0 {
        // Not a compressed body that is cut off, but none.
        return Ok(Received {
            bytes: Bytes::new(),
            reservation: admission.reserve(0).map_err(full)?,
        });
    }
    inflater.finish(full)
}

/// Reads and drops the rest of a refused body, within limits.
///
/// A connection that is answered in the middle of its request has to be closed, and clients that
/// retry would all have to connect again. So a rest that is small and arrives at once is read
/// first.
pub(crate) async fn discard(mut body: Body) {
    let mut bytes = 0;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    // Past the limits the connection is closed, as it would have been without this.
    drop(tokio::time::timeout(DISCARD_TIME_MAX, all).await);
}

/// Reads a body that is not compressed. A body in one piece, as most are, is not copied.
async fn plain(
    pieces: &mut Pieces,
    announced: Option<usize>,
    limits: BodyLimits,
    admission: &Admission,
    full: &impl Fn(Overload) -> Problem,
) -> Result<Received, Problem> {
    let mut reservation = admission.reserve(0).map_err(full)?;
    let Some(first) = pieces.next(0).await? else {
        return Ok(Received {
            bytes: Bytes::new(),
            reservation,
        });
    };
    let mut held = first.len();
    let mut whole: Option<Vec<u8>> = None;
    loop {
        if held > limits.bytes_max {
            return Err(too_large(limits.bytes_max));
        }
        if held > reservation.bytes() {
            reservation.merge(
                admission
                    .reserve(held - reservation.bytes())
                    .map_err(full)?,
            );
        }
        let Some(piece) = pieces.next(reservation.bytes()).await? else {
            return Ok(Received {
                bytes: whole.map_or(first, Bytes::from),
                reservation,
            });
        };
        held += piece.len();
        let whole = match &mut whole {
            Some(whole) => whole,
            None => {
                // The buffer starts with at most one step (or with what has arrived, if that is
                // more), regardless of Content-Length. Bytes are copied only into reserved memory.
                let step = announced
                    .unwrap_or(held)
                    .clamp(held, held.max(RESERVE_STEP));
                reservation.merge(
                    admission
                        .reserve(step - reservation.bytes())
                        .map_err(full)?,
                );
                let mut grown = Vec::with_capacity(step);
                grown.extend_from_slice(&first);
                whole.insert(grown)
            }
        };
        if held > reservation.bytes() {
            reservation.merge(
                admission
                    .reserve(held - reservation.bytes())
                    .map_err(full)?,
            );
        }
        whole.extend_from_slice(&piece);
    }
}

/// A body, piece by piece, with limits on its time.
struct Pieces {
    body: Body,
    pause_max: Duration,
    arriving: Arriving,
    bytes: u64,
    /// When the first wait for a piece began.
    started: Option<Instant>,
    /// The connection broke, or the body took too long.
    is_broken: bool,
}

impl Pieces {
    fn new(body: Body, pause_max: Duration, arriving: Arriving) -> Self {
        Self {
            body,
            pause_max,
            arriving,
            bytes: 0,
            started: None,
            is_broken: false,
        }
    }

    /// The next piece of a body that holds `reserved` bytes of the memory limit.
    async fn next(&mut self, reserved: usize) -> Result<Option<Bytes>, Problem> {
        loop {
            if self.body.is_end_stream() {
                return Ok(None);
            }
            let frame = match self.body.frame().now_or_never() {
                Some(frame) => frame,
                None => self.wait(reserved).await?,
            };
            let frame = match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    self.is_broken = true;
                    return Err(Problem::bad_request("body_incomplete", why_cut(&error)));
                }
                Some(Ok(frame)) => frame,
            };
            // Trailers are ignored.
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                self.bytes += data.len() as u64;
                return Ok(Some(data));
            }
        }
    }

    /// Waits for an HTTP frame that has not arrived yet.
    async fn wait(
        &mut self,
        reserved: usize,
    ) -> Result<Option<Result<Frame<Bytes>, axum::Error>>, Problem> {
        self.arriving
            .waits_with(reserved)
            .map_err(|spent| match spent {
                Spent::All => all_spent(),
                Spent::Key(bytes_max) => share_spent(bytes_max),
            })?;
        let now = Instant::now();
        let started = *self.started.get_or_insert(now);
        let at_rate = Duration::from_secs(self.bytes / BYTES_PER_SECOND_MIN);
        let pause_until = now + self.pause_max;
        let whole_until = started + self.pause_max + at_rate;
        let until = pause_until.min(whole_until);
        let frame = tokio::time::timeout_at(until, self.body.frame()).await;
        frame.map_err(|_| {
            self.is_broken = true;
            let detail = if whole_until < pause_until {
                format!(
                    "the body came too slowly: {} bytes in {:?}; it has {:?} and a second more for every {BYTES_PER_SECOND_MIN} bytes",
                    self.bytes, until.duration_since(started), self.pause_max
                )
            } else {
                format!("the body stopped coming for {:?}", self.pause_max)
            };
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail)
        })
    }
}

/// Why the rest of a body cannot be read. The library's errors have no type for chunks that break
/// the rules; it reports them as an error of input.
fn why_cut(error: &axum::Error) -> &'static str {
    let mut cause = error.source();
    let mut is_misframed = false;
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        is_misframed |= matches!(kind, Some(ErrorKind::InvalidInput | ErrorKind::InvalidData));
        cause = error.source();
    }
    match is_misframed {
        true => {
            "the chunks of the body break the rules of HTTP/1.1 (RFC 9112, 7.1): a size, what follows it, or the end of a chunk is wrong"
        }
        false => "the connection broke off before the body was complete",
    }
}

fn all_spent() -> Problem {
    Problem::unavailable(
        "overloaded",
        "bodies that have not arrived in full, of all keys together, hold half of the memory (--queue-bytes-max); send the events again later, or faster",
        SHARE_RETRY_AFTER,
    )
}

fn share_spent(bytes_max: usize) -> Problem {
    Problem::unavailable(
        "too_many_slow_bodies",
        format!(
            "bodies under this key that have not arrived in full hold {bytes_max} bytes, the key's share of the memory; send fewer at once, or faster"
        ),
        SHARE_RETRY_AFTER,
    )
}
