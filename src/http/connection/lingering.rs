//! A connection that is closed so that its last answer arrives.
//!
//! A request may be answered before its body has been read: no key, too large.
//! To close the socket then makes the kernel reset the connection, and the
//! client, still sending, sees a broken pipe in place of the answer. So the end
//! of the answer is sent first, and what still comes is read and thrown away, up to
//! a bounded time and number of bytes (nginx calls this a lingering close). Knows
//! nothing of HTTP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Longest that a client may go on sending: enough for the largest body that is
/// taken by default, at 2 MB/s.
const LINGER_MAX: Duration = Duration::from_secs(5);

/// Most that is read after the end: twice the largest body that is taken by
/// default. A client that sends more gets a reset, and may miss its answer.
const LINGER_BYTES_MAX: usize = 16 << 20;

/// A client that sends nothing for so long has nothing more to send.
const QUIET_MAX: Duration = Duration::from_millis(500);

const BUFFER_BYTES: usize = 16 * 1024;

/// A stream that lingers when it is shut down.
#[derive(Debug)]
pub(crate) struct Lingering {
    stream: TcpStream,
    closing: Option<Closing>,
}

#[derive(Debug)]
struct Closing {
    until: Instant,
    bytes: usize,
    quiet: Pin<Box<Sleep>>,
}

impl Lingering {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            closing: None,
        }
    }
}

impl Lingering {
    /// Has the kernel forget what it has not sent when the stream is closed.
    pub(crate) fn forget_unsent(&self) {
        // A socket that cannot be told so is gone already.
        drop(self.stream.set_zero_linger());
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
                // The client is done, or gone.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return closing.quiet.as_mut().poll(cx).map(Ok),
            }
        }
    }
}
