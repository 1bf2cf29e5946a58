//! Reads a request's body: counts and inflates the bytes as they arrive.
//!
//! Keeps two invariants. Every byte is reserved from the memory limit before it is kept, so neither
//! a false Content-Length nor a small body that inflates to a large one exceeds the limit. And
//! every body ends: its pauses are bounded, it has a minimum rate, and while it arrives it counts
//! against the share of its key.

use std::io::{self, Write};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderMap, StatusCode};
use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame};
use tokio::time::Instant;

use crate::admission::admit::{Admission, Overload};
use crate::admission::arrivals::{Arriving, Spent};
use crate::admission::memory::Reservation;

use crate::http::problem::Problem;

/// Inflated bodies reserve memory in steps of at least this size. A plain body in several pieces
/// reserves up to this size ahead.
const LEND_STEP: usize = 64 * 1024;

/// A zstd frame may ask for a window of up to 2 GiB before its first output byte. RFC 8878
/// recommends windows of at most 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Part of zstd's error for a frame with a larger window.
const ZSTD_WINDOW_TOO_LARGE: &str = "too much memory";

/// Brotli's buffer between input and output.
const BROTLI_BUFFER: usize = 4096;

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

/// A body and its reservation.
#[derive(Debug)]
pub struct Received {
    /// The bytes, inflated.
    pub bytes: Bytes,
    /// The memory of the bytes, released together with them.
    #[expect(dead_code, reason = "held, not read")]
    pub reservation: Reservation,
}

/// The compression of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
    Brotli,
}

/// Refuses a body that is too large by its Content-Length.
pub(crate) fn check_announced(headers: &HeaderMap, limits: BodyLimits) -> Result<(), Problem> {
    match announced_bytes(headers) {
        Some(bytes) if bytes > limits.bytes_max as u64 => Err(too_large(limits.bytes_max)),
        _ => Ok(()),
    }
}

/// The value of Content-Length, as a hint.
pub(crate) fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
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
    intake: &Admission,
    arriving: Arriving,
    full: impl Fn(Overload) -> Problem,
) -> Result<Received, Problem> {
    let mut pieces = Pieces::new(body, limits.pause_max, arriving);
    let received = read_pieces(headers, &mut pieces, limits, intake, &full).await;
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
    intake: &Admission,
    full: &impl Fn(Overload) -> Problem,
) -> Result<Received, Problem> {
    let encoding = Encoding::of(headers)?;
    if encoding == Encoding::Identity {
        let announced = announced_bytes(headers).and_then(|bytes| usize::try_from(bytes).ok());
        return plain(pieces, announced, limits, intake, full).await;
    }
    let mut inflater = Inflater::new(encoding, Counted::new(limits.bytes_max, intake))
        .map_err(|_| undecodable())?;
    let mut sent = 0;
    while let Some(piece) = pieces.next(inflater.reserved(), full).await? {
        sent += piece.len();
        if sent > limits.bytes_max {
            return Err(too_large(limits.bytes_max));
        }
        let written = inflater.write(&piece);
        inflater.check(written, limits.bytes_max, full)?;
    }
    inflater.finish(limits.bytes_max, full)
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
    intake: &Admission,
    full: &impl Fn(Overload) -> Problem,
) -> Result<Received, Problem> {
    let mut reservation = intake.reserve(0).map_err(full)?;
    let Some(first) = pieces.next(0, full).await? else {
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
            reservation.merge(intake.reserve(held - reservation.bytes()).map_err(full)?);
        }
        let Some(piece) = pieces.next(reservation.bytes(), full).await? else {
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
                let step = announced.unwrap_or(held).clamp(held, held.max(LEND_STEP));
                reservation.merge(intake.reserve(step - reservation.bytes()).map_err(full)?);
                let mut grown = Vec::with_capacity(step);
                grown.extend_from_slice(&first);
                whole.insert(grown)
            }
        };
        if held > reservation.bytes() {
            reservation.merge(intake.reserve(held - reservation.bytes()).map_err(full)?);
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
    async fn next(
        &mut self,
        reserved: usize,
        full: &impl Fn(Overload) -> Problem,
    ) -> Result<Option<Bytes>, Problem> {
        loop {
            if self.body.is_end_stream() {
                return Ok(None);
            }
            let frame = match self.body.frame().now_or_never() {
                Some(frame) => frame,
                None => self.wait(reserved, full).await?,
            };
            let frame = match frame {
                None => return Ok(None),
                Some(Err(_)) => {
                    self.is_broken = true;
                    return Err(Problem::bad_request(
                        "body_incomplete",
                        "the connection broke off before the body was complete",
                    ));
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
        full: &impl Fn(Overload) -> Problem,
    ) -> Result<Option<Result<Frame<Bytes>, axum::Error>>, Problem> {
        self.arriving
            .waits_with(reserved)
            .map_err(|spent| match spent {
                Spent::All => full(Overload::Bytes),
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

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let unknown = || {
            Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_encoding",
                "Content-Encoding is one of gzip, deflate, zstd, br",
            )
        };
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else {
            return Ok(Encoding::Identity);
        };
        if values.next().is_some() {
            return Err(unknown());
        }
        match value
            .to_str()
            .map_err(|_| unknown())?
            .trim()
            .to_ascii_lowercase()
            .as_str()
        {
            "" | "identity" => Ok(Encoding::Identity),
            "gzip" | "x-gzip" => Ok(Encoding::Gzip),
            "deflate" => Ok(Encoding::Deflate),
            "zstd" => Ok(Encoding::Zstd),
            "br" => Ok(Encoding::Brotli),
            _ => Err(unknown()),
        }
    }
}

/// Receives inflated bytes: counts them and reserves their memory.
#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    bytes_max: usize,
    reservation: Option<Reservation>,
    intake: Admission,
    refused: Option<Refused>,
}

#[derive(Clone, Copy, Debug)]
enum Refused {
    TooLarge,
    Overload(Overload),
}

impl Counted {
    fn new(bytes_max: usize, intake: &Admission) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max,
            reservation: None,
            intake: intake.clone(),
            refused: None,
        }
    }

    fn refuse(&mut self, refused: Refused) -> io::Error {
        self.refused = Some(refused);
        io::Error::other("no room")
    }
}

impl Write for Counted {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let held = self.bytes.len() + piece.len();
        if held > self.bytes_max {
            return Err(self.refuse(Refused::TooLarge));
        }
        let reserved = self.reservation.as_ref().map_or(0, Reservation::bytes);
        if held > reserved {
            let more = match self.intake.reserve((held - reserved).max(LEND_STEP)) {
                Ok(more) => more,
                Err(full) => return Err(self.refuse(Refused::Overload(full))),
            };
            match &mut self.reservation {
                Some(reservation) => reservation.merge(more),
                None => self.reservation = Some(more),
            }
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A push decompressor: compressed bytes are written to it, inflated ones go to [`Counted`].
enum Inflater {
    Gzip(MultiGzDecoder<Counted>),
    /// With or without zlib's header: both are sent under the name of deflate.
    Deflate(Deflate),
    Zstd(Box<zstd::stream::write::Decoder<'static, Counted>>),
    Brotli(Box<DecompressorWriter<Counted>>),
}

enum Deflate {
    Undecided(Option<Counted>),
    Zlib(ZlibDecoder<Counted>),
    Raw(DeflateDecoder<Counted>),
}

impl Inflater {
    fn new(encoding: Encoding, out: Counted) -> io::Result<Self> {
        Ok(match encoding {
            Encoding::Gzip => Self::Gzip(MultiGzDecoder::new(out)),
            Encoding::Identity | Encoding::Deflate => Self::Deflate(Deflate::Undecided(Some(out))),
            Encoding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(out)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Self::Zstd(Box::new(decoder))
            }
            Encoding::Brotli => Self::Brotli(Box::new(DecompressorWriter::new(out, BROTLI_BUFFER))),
        })
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.write_all(piece),
            Self::Deflate(deflate) => deflate.write(piece),
            Self::Zstd(decoder) => decoder.write_all(piece),
            Self::Brotli(decoder) => decoder.write_all(piece),
        }
    }

    fn out(&self) -> Option<&Counted> {
        match self {
            Self::Gzip(decoder) => Some(decoder.get_ref()),
            Self::Deflate(Deflate::Undecided(out)) => out.as_ref(),
            Self::Deflate(Deflate::Zlib(decoder)) => Some(decoder.get_ref()),
            Self::Deflate(Deflate::Raw(decoder)) => Some(decoder.get_ref()),
            Self::Zstd(decoder) => Some(decoder.get_ref()),
            Self::Brotli(decoder) => Some(decoder.get_ref()),
        }
    }

    /// Bytes reserved for the output.
    fn reserved(&self) -> usize {
        let reservation = self.out().and_then(|out| out.reservation.as_ref());
        reservation.map_or(0, Reservation::bytes)
    }

    /// Separates refusals by [`Counted`] from damage in the data.
    fn check(
        &self,
        written: io::Result<()>,
        bytes_max: usize,
        full: &impl Fn(Overload) -> Problem,
    ) -> Result<(), Problem> {
        let Err(error) = written else { return Ok(()) };
        Err(match self.out().and_then(|out| out.refused) {
            Some(Refused::TooLarge) => too_large(bytes_max),
            Some(Refused::Overload(reason)) => full(reason),
            None if error.to_string().contains(ZSTD_WINDOW_TOO_LARGE) => Problem::bad_request(
                "invalid_compression",
                "the zstd frame asks for a window of more than 8 MiB; compress with a window log of 23 or less",
            ),
            None => undecodable(),
        })
    }

    fn finish(
        mut self,
        bytes_max: usize,
        full: &impl Fn(Overload) -> Problem,
    ) -> Result<Received, Problem> {
        let ended = match &mut self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Deflate(Deflate::Zlib(decoder)) => decoder.try_finish(),
            Self::Deflate(Deflate::Raw(decoder)) => decoder.try_finish(),
            Self::Deflate(Deflate::Undecided(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Zstd(decoder) => decoder.do_finish(),
            Self::Brotli(decoder) => decoder.close(),
        };
        self.check(ended, bytes_max, full)?;
        let out = match self {
            Self::Gzip(decoder) => decoder.finish().ok(),
            Self::Deflate(Deflate::Zlib(decoder)) => decoder.finish().ok(),
            Self::Deflate(Deflate::Raw(decoder)) => decoder.finish().ok(),
            Self::Deflate(Deflate::Undecided(_)) => None,
            Self::Zstd(decoder) => Some(decoder.into_inner()),
            Self::Brotli(decoder) => decoder.into_inner().ok(),
        };
        let out = out.ok_or_else(undecodable)?;
        let reservation = match out.reservation {
            Some(reservation) => reservation,
            None => out.intake.reserve(0).map_err(full)?,
        };
        Ok(Received {
            bytes: out.bytes.into(),
            reservation,
        })
    }
}

impl Deflate {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if let Self::Undecided(out) = self
            && let Some(&first) = piece.first()
        {
            let out = out.take().ok_or(io::ErrorKind::Other)?;
            // zlib's first byte names method 8 and a window of at most 32 KiB. No raw stream that a
            // compressor writes begins with such a byte.
            *self = if first & 0x0f == 8 && first >> 4 <= 7 {
                Self::Zlib(ZlibDecoder::new(out))
            } else {
                Self::Raw(DeflateDecoder::new(out))
            };
        }
        match self {
            Self::Undecided(_) => Ok(()),
            Self::Zlib(decoder) => decoder.write_all(piece),
            Self::Raw(decoder) => decoder.write_all(piece),
        }
    }
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("the body has more than {bytes_max} bytes; send the events in several requests"),
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

fn undecodable() -> Problem {
    Problem::bad_request(
        "invalid_compression",
        "the body is not what Content-Encoding says, or is cut off",
    )
}
