//! Inflates a body while it arrives.
//!
//! Invariant: inflated bytes are reserved from the memory limit before they are held, so a small
//! body that inflates to a large one cannot take memory that is not there.

use std::io::{self, Write};

use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, StatusCode};
use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, GzDecoder, ZlibDecoder};
use zstd::stream::write::Decoder as ZstdDecoder;

use super::received::{RESERVE_STEP, Received, too_large};
use crate::admission::admit::{Admission, Overload};
use crate::admission::memory::Reservation;
use crate::http::problem::Problem;

/// A zstd frame may ask for a window of up to 2 GiB before its first output byte. RFC 8878
/// recommends windows of at most 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Parts of zstd's errors: for a frame with a larger window, and for one that needs a dictionary.
const ZSTD_WINDOW_TOO_LARGE: &str = "too much memory";
const ZSTD_DICTIONARY: &str = "Dictionary mismatch";

/// Brotli's buffer between input and output.
const BROTLI_BUFFER: usize = 4096;

/// The compression of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
    Brotli,
}

impl Encoding {
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let unsupported = |detail: String| {
            Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_encoding",
                detail,
            ))
        };
        let mut found = Encoding::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in String::from_utf8_lossy(value.as_bytes()).split(',') {
                let name = name.trim().to_ascii_lowercase();
                let one = match &*name {
                    "" | "identity" => continue,
                    "gzip" | "x-gzip" => Encoding::Gzip,
                    "deflate" => Encoding::Deflate,
                    "zstd" => Encoding::Zstd,
                    "br" => Encoding::Brotli,
                    _ => {
                        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
                        return unsupported(format!(
                            "Content-Encoding is one of gzip, deflate, zstd and br, not '{name}'"
                        ));
                    }
                };
                if found != Encoding::Identity {
                    return unsupported(
                        "Content-Encoding names two compressions; compress the body once"
                            .to_owned(),
                    );
                }
                found = one;
            }
        }
        Ok(found)
    }
}

/// Characters of an unknown name that the message repeats.
const NAME_CHARS_MAX: usize = 40;

/// A push decompressor: compressed bytes are written to it, inflated ones go to [`Counted`].
trait Decompressor: Write + Send {
    fn out(&self) -> Option<&Counted>;

    /// The body has ended: writes what is left, and checks that it is complete.
    fn end(&mut self) -> io::Result<()>;

    fn into_out(self: Box<Self>) -> Option<Counted>;
}

/// gzip, with any number of members, and zeros behind each: writers of fixed blocks pad with them.
enum Gzip {
    /// Before the first member, or behind one.
    Between {
        out: Option<Counted>,
        is_begun: bool,
    },
    Member(Box<GzDecoder<Counted>>),
}

impl Gzip {
    /// The member is complete: checks it, and waits for the next one.
    fn end_member(&mut self) -> io::Result<()> {
        let Self::Member(decoder) = self else {
            return Ok(());
        };
        // First of all without taking the output out of the decoder, as that knows why it refused.
        decoder.try_finish()?;
        let behind = Self::Between {
            out: None,
            is_begun: true,
        };
        let Self::Member(decoder) = std::mem::replace(self, behind) else {
            return Ok(());
        };
        *self = Self::Between {
            out: Some(decoder.finish()?),
            is_begun: true,
        };
        Ok(())
    }
}

impl Write for Gzip {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let mut rest = piece;
        while let Some(&first) = rest.first() {
            match self {
                Self::Between { is_begun: true, .. } if first == 0 => rest = &rest[1..],
                Self::Between { out, .. } => {
                    let out = out.take().ok_or(io::ErrorKind::Other)?;
                    *self = Self::Member(Box::new(GzDecoder::new(out)));
                }
                Self::Member(decoder) => match decoder.write(rest)? {
                    // The decoder takes nothing more once the member is complete.
                    0 => self.end_member()?,
                    taken => rest = &rest[taken..],
                },
            }
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decompressor for Gzip {
    fn out(&self) -> Option<&Counted> {
        match self {
            Self::Between { out, .. } => out.as_ref(),
            Self::Member(decoder) => Some(decoder.get_ref()),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Between {
                is_begun: false, ..
            } => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Between { .. } => Ok(()),
            Self::Member(_) => self.end_member(),
        }
    }

    fn into_out(self: Box<Self>) -> Option<Counted> {
        match *self {
            Self::Between { out, .. } => out,
            Self::Member(decoder) => decoder.finish().ok(),
        }
    }
}

impl Decompressor for ZstdDecoder<'static, Counted> {
    fn out(&self) -> Option<&Counted> {
        Some(self.get_ref())
    }

    fn end(&mut self) -> io::Result<()> {
        self.do_finish()
    }

    fn into_out(self: Box<Self>) -> Option<Counted> {
        Some(self.into_inner())
    }
}

impl Decompressor for DecompressorWriter<Counted> {
    fn out(&self) -> Option<&Counted> {
        Some(self.get_ref())
    }

    fn end(&mut self) -> io::Result<()> {
        self.close()
    }

    fn into_out(self: Box<Self>) -> Option<Counted> {
        self.into_inner().ok()
    }
}

/// Deflate with or without zlib's header: both are sent under this name.
enum Deflate {
    Undecided(Option<Counted>),
    Zlib(ZlibDecoder<Counted>),
    Raw(DeflateDecoder<Counted>),
}

impl Write for Deflate {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
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
            Self::Undecided(_) => Ok(piece.len()),
            Self::Zlib(decoder) => decoder.write(piece),
            Self::Raw(decoder) => decoder.write(piece),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decompressor for Deflate {
    fn out(&self) -> Option<&Counted> {
        match self {
            Self::Undecided(out) => out.as_ref(),
            Self::Zlib(decoder) => Some(decoder.get_ref()),
            Self::Raw(decoder) => Some(decoder.get_ref()),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Undecided(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Zlib(decoder) => decoder.try_finish(),
            Self::Raw(decoder) => decoder.try_finish(),
        }
    }

    fn into_out(self: Box<Self>) -> Option<Counted> {
        match *self {
            Self::Undecided(_) => None,
            Self::Zlib(decoder) => decoder.finish().ok(),
            Self::Raw(decoder) => decoder.finish().ok(),
        }
    }
}

/// The decompressor of one body.
pub(crate) struct Inflater {
    decoder: Box<dyn Decompressor>,
    bytes_max: usize,
}

impl Inflater {
    pub(crate) fn new(
        encoding: Encoding,
        bytes_max: usize,
        admission: &Admission,
    ) -> Result<Self, Problem> {
        let out = Counted::new(bytes_max, admission);
        let decoder: Box<dyn Decompressor> = match encoding {
            Encoding::Gzip => Box::new(Gzip::Between {
                out: Some(out),
                is_begun: false,
            }),
            Encoding::Identity | Encoding::Deflate => Box::new(Deflate::Undecided(Some(out))),
            Encoding::Zstd => Box::new(zstd_decoder(out).map_err(|_| undecodable())?),
            Encoding::Brotli => Box::new(DecompressorWriter::new(out, BROTLI_BUFFER)),
        };
        Ok(Self { decoder, bytes_max })
    }

    /// Bytes reserved for the output.
    pub(crate) fn reserved(&self) -> usize {
        let reservation = self.decoder.out().and_then(|out| out.reservation.as_ref());
        reservation.map_or(0, Reservation::bytes)
    }

    pub(crate) fn write(
        &mut self,
        piece: &[u8],
        full: &impl Fn(Overload) -> Problem,
    ) -> Result<(), Problem> {
        let written = self.decoder.write_all(piece);
        self.check(written, full)
    }

    /// Separates refusals by [`Counted`] from damage in the data.
    fn check(
        &self,
        written: io::Result<()>,
        full: &impl Fn(Overload) -> Problem,
    ) -> Result<(), Problem> {
        let Err(error) = written else { return Ok(()) };
        Err(match self.decoder.out().and_then(|out| out.refused) {
            Some(Refused::TooLarge) => too_large(self.bytes_max),
            Some(Refused::Overload(reason)) => full(reason),
            None if error.to_string().contains(ZSTD_WINDOW_TOO_LARGE) => Problem::bad_request(
                "invalid_compression",
                "the zstd frame asks for a window of more than 8 MiB; compress with a window log of 23 or less",
            ),
            None if error.to_string().contains(ZSTD_DICTIONARY) => Problem::bad_request(
                "invalid_compression",
                "the zstd frame was compressed with a dictionary, which this service does not have; compress without one",
            ),
            None => undecodable(),
        })
    }

    pub(crate) fn finish(
        mut self,
        full: &impl Fn(Overload) -> Problem,
    ) -> Result<Received, Problem> {
        let ended = self.decoder.end();
        self.check(ended, full)?;
        let out = self.decoder.into_out().ok_or_else(undecodable)?;
        let reservation = match out.reservation {
            Some(reservation) => reservation,
            None => out.admission.reserve(0).map_err(full)?,
        };
        Ok(Received {
            bytes: out.bytes.into(),
            reservation,
        })
    }
}

fn zstd_decoder(out: Counted) -> io::Result<ZstdDecoder<'static, Counted>> {
    let mut decoder = ZstdDecoder::new(out)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// Receives inflated bytes: counts them and reserves their memory.
#[derive(Debug)]
struct Counted {
    bytes: Vec<u8>,
    bytes_max: usize,
    reservation: Option<Reservation>,
    admission: Admission,
    refused: Option<Refused>,
}

impl Counted {
    fn new(bytes_max: usize, admission: &Admission) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max,
            reservation: None,
            admission: admission.clone(),
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
            let more = match self.admission.reserve((held - reserved).max(RESERVE_STEP)) {
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

#[derive(Clone, Copy, Debug)]
enum Refused {
    TooLarge,
    Overload(Overload),
}

fn undecodable() -> Problem {
    Problem::bad_request(
        "invalid_compression",
        "the body is not what Content-Encoding says, or is cut off",
    )
}
