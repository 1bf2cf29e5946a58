//! A lingering close, as nginx calls it: the last response reaches a client that is still sending.
//!
//! A request may be answered before its body was read: no key, too large. Closing the socket then
//! makes the kernel reset the connection, and the client sees a broken pipe in place of the
//! response. So the sending side is shut down first, and what still arrives is read and discarded,
//! for a bounded time and number of bytes.
//!
//! As the layer at the socket, below TLS, it also reports to the connection's `Activity` whether the
//! socket accepts bytes. Knows nothing of HTTP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::activity::{Activity, Overdue};

/// Longest time that a client may go on sending: enough for the largest default body at 2 MB/s.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// Most bytes that are read after the shutdown: twice the largest default body. A client that sends
/// more gets a reset, and may miss its response.
const LINGER_BYTES_MAX: usize = 16 << 20;

/// A client that is silent for this long has nothing more to send.
const QUIET_MAX: Duration = Duration::from_millis(500);

const BUFFER_BYTES: usize = 16 * 1024;

/// A stream that lingers on shutdown.
#[derive(Debug)]
pub(crate) struct Lingering {
    stream: TcpStream,
    activity: Arc<Activity>,
    blocked: bool,
    closing: Option<Closing>,
}

#[derive(Debug)]
struct Closing {
    until: Instant,
    bytes: usize,
    quiet: Pin<Box<Sleep>>,
}

impl Lingering {
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            blocked: false,
            closing: None,
        }
    }

    /// Waits for the first byte, and leaves it to be read.
    pub(crate) async fn first_byte(&self) -> io::Result<u8> {
        let mut byte = [0];
        match self.stream.peek(&mut byte).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(byte[0]),
        }
    }

    /// Records whether the socket accepts bytes; only a change is reported.
    fn written(&mut self, written: &Poll<io::Result<usize>>) {
        if written.is_pending() != self.blocked {
            self.blocked = written.is_pending();
            let since = self.blocked.then(Instant::now);
            self.activity.blocked(since);
        }
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        // The client did not read its response in time: the kernel need not keep it.
        let overdue = self.activity.deadline();
        if overdue.is_some_and(|(at, why)| why == Overdue::Answer && at <= Instant::now()) {
            // If the option cannot be set, the socket is gone already.
            drop(self.stream.set_zero_linger());
        }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let closing = this.closing.get_or_insert_with(|| Closing {
            until: Instant::now() + LINGER_MAX,
            bytes: 0,
            quiet: Box::pin(sleep(QUIET_MAX)),
        });
        let mut space = [0; BUFFER_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let now = Instant::now();
                    closing.bytes += buffer.filled().len();
                    if now >= closing.until || closing.bytes > LINGER_BYTES_MAX {
                        return Poll::Ready(Ok(()));
                    }
                    closing.quiet.as_mut().reset(now + QUIET_MAX);
                }
                // The client has finished sending, or is gone.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return closing.quiet.as_mut().poll(cx).map(Ok),
            }
        }
    }
}
