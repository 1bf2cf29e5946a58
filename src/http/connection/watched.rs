//! A connection's stream, which reports the bytes that arrive to the connection's `Activity`: under
//! TLS, those that were decrypted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::activity::Activity;
use super::heads::Heads;
use super::tls::Stream;

/// The bytes that an HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An end of a head that the parser recognises.
const END: &[u8] = b"\r\n\r\n";

/// A stream that reports to an `Activity`.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: Stream,
    activity: Arc<Activity>,
    heads: Heads,
    /// Bytes of the preface seen so far; `None` once the protocol is known.
    preface: Option<usize>,
    /// Whether a bare LF was replaced in a head and the parser may still wait for the head's end.
    spoilt: bool,
}

impl Watched {
    pub(crate) fn new(stream: Stream, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            heads: Heads::default(),
            preface: Some(0),
            spoilt: false,
        }
    }

    fn read(&mut self, bytes: &mut [u8]) {
        if let Some(seen) = self.preface {
            let rest = &PREFACE[seen..];
            let length = rest.len().min(bytes.len());
            self.preface = (bytes[..length] == rest[..length]).then_some(seen + length);
            if self.preface == Some(PREFACE.len()) {
                self.preface = None;
                self.activity.is_http2();
            }
        }
        if let Some(request) = self.activity.read(Instant::now()) {
            self.spoilt |= self.heads.check(request, bytes);
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The LFs that were replaced may include the head's end, which the parser looks for before
        // anything else. With this end it parses the head, and refuses it.
        if self.spoilt && buffer.remaining() >= END.len() {
            self.spoilt = false;
            buffer.put_slice(END);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let bytes = &mut buffer.filled_mut()[before..];
        if !bytes.is_empty() {
            self.read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
