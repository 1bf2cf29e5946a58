//! The accept loop: connections with limits, and a stop that waits for requests.
//!
//! Our own because `axum::serve` sets no timer, and without one a peer that
//! never finishes its headers keeps its connection for ever.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::metrics::Metrics;

use super::front::Front;
use super::linger::Lingering;

/// Streams of one HTTP/2 connection; each may hold a body.
const H2_STREAMS_MAX: u32 = 128;

/// Pause after a failed accept: out of file descriptors does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Once told to stop, a connection that twice in a row has no request to answer is
/// closed: the head of one dribbles in, or the last answer is not read.
const STOP_LOOK_EVERY: Duration = Duration::from_secs(1);
const STOP_LOOKS: u32 = 2;

/// Limits on connections.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Open at once.
    pub max: usize,
    /// Time for a request's head.
    pub head_timeout: Duration,
    /// Time for open requests once told to stop.
    pub grace: Duration,
}

/// Serves until `stopping`, then lets open requests finish.
pub async fn serve(
    listener: TcpListener,
    front: Front,
    limits: Connections,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.max));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                metrics.connections.inc();
                let connection =
                    connection(stream, front.clone(), limits.head_timeout, stopping.clone());
                let metrics = Arc::clone(&metrics);
                open.spawn(async move {
                    connection.await;
                    metrics.connections.dec();
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection, pausing");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Refuse new connections at once rather than leave them in the backlog.
    drop(listener);
    let all_closed = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.grace, all_closed)
        .await
        .is_err()
    {
        warn!(open = open.len(), "closing connections that are still busy");
        open.shutdown().await;
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(|_| io::Error::other("the semaphore is never closed"))?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}

async fn connection(
    stream: TcpStream,
    front: Front,
    head_timeout: Duration,
    stopping: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .keep_alive_interval(Some(head_timeout))
        .keep_alive_timeout(head_timeout);
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Counted {
        front,
        requests: Arc::clone(&requests),
    };
    let connection = builder.serve_connection(TokioIo::new(Lingering::new(stream)), counted);
    tokio::pin!(connection);
    let mut told = false;
    let mut idle_looks = 0;
    loop {
        tokio::select! {
            // Peers that break off are no news to anyone.
            _ = connection.as_mut() => return,
            () = stopping.cancelled(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(STOP_LOOK_EVERY), if told => {
                idle_looks = match requests.load(Ordering::Relaxed) {
                    0 => idle_looks + 1,
                    _ => 0,
                };
                if idle_looks == STOP_LOOKS {
                    return;
                }
            }
        }
    }
}

/// The front on one connection, with a count of the requests that it answers there.
struct Counted {
    front: Front,
    requests: Arc<AtomicUsize>,
}

impl Service<hyper::Request<Incoming>> for Counted {
    type Response = Response;
    type Error = Infallible;
    type Future = Counting;

    fn call(&self, request: hyper::Request<Incoming>) -> Counting {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Counting {
            answering: self.front.call(request),
            requests: Arc::clone(&self.requests),
        }
    }
}

/// A request that is being answered.
struct Counting {
    answering: <Front as Service<hyper::Request<Incoming>>>::Future,
    requests: Arc<AtomicUsize>,
}

impl Future for Counting {
    type Output = Result<Response, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answering.as_mut().poll(cx)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }
}
