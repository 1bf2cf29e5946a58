//! The body of a response, until its last byte is written.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use bytes::Buf;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::activity::InProgress;

/// The body of a response. The request ends when the last bytes are dropped, which the connection
/// does once they are written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    body: Body,
    request: Option<InProgress>,
}

impl Outgoing {
    pub(crate) fn new(body: Body, request: InProgress) -> Self {
        request.answered(HttpBody::size_hint(&body).lower());
        Self {
            body,
            request: Some(request),
        }
    }
}

impl HttpBody for Outgoing {
    type Data = Tracked;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Tracked>, axum::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        frame.map(|frame| {
            let frame = frame?;
            let last = this.body.is_end_stream();
            Some(frame.map(|frame| {
                frame.map_data(|bytes| Tracked {
                    bytes,
                    _request: if last { this.request.take() } else { None },
                })
            }))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}

/// Bytes of a response on their way to the socket; the last ones keep the request open.
#[derive(Debug)]
pub(crate) struct Tracked {
    bytes: Bytes,
    _request: Option<InProgress>,
}

impl Buf for Tracked {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::http::connection::activity::{Activity, Deadlines};

    const DEADLINES: Deadlines = Deadlines {
        head: Duration::from_secs(15),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(30),
    };

    #[tokio::test(start_paused = true)]
    async fn a_request_counts_until_the_last_bytes_of_its_answer_are_dropped() {
        let activity = Arc::new(Activity::new(DEADLINES, Instant::now()));
        let mut answer = Outgoing::new(Body::from("answer"), activity.begin());
        let frame = std::future::poll_fn(|cx| HttpBody::poll_frame(Pin::new(&mut answer), cx));
        let mut bytes = frame.await.unwrap().unwrap().into_data().unwrap();
        drop(answer);
        bytes.advance(5);
        assert!(activity.is_busy());
        drop(bytes);
        assert!(!activity.is_busy());
        // With an empty body, the request ends when the body is dropped.
        drop(Outgoing::new(Body::empty(), activity.begin()));
        assert!(!activity.is_busy());
    }
}
