//! The accept loop: limits on connections, and a graceful stop.
//!
//! It replaces `axum::serve`, which sets no timer: a peer that never finishes its headers would
//! keep its connection for ever.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{self, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::metrics::{ByCause, Metrics};

use super::connection::activity::{Activity, Deadlines, Overdue};
use super::connection::lingering::Lingering;
use super::connection::places::{Cap, Place, Places};
use super::connection::proxies::TrustedProxies;
use super::connection::tls::{Accepted, Failure, Stream, Tls};
use super::connection::watched::Watched;
use super::pipeline::{HttpService, Scheme};

/// Streams of one HTTP/2 connection. Each may hold a body, and an unread response.
const H2_STREAMS_MAX: u32 = 128;

/// How often an HTTP/2 peer is pinged, and how long its reply may take.
const H2_PING_EVERY: Duration = Duration::from_secs(15);

/// Most that an HTTP/1 connection buffers of a head or a body before the service sees it, outside
/// the memory limit. nginx takes heads of up to 32 KiB in all; most are far smaller.
const H1_BUFFER_BYTES_MAX: usize = 32 * 1024;

/// How long a connection beyond the cap stays open.
const EXTRA_TIME: Duration = Duration::from_secs(2);

/// Pause after a failed accept: a lack of file descriptors does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A lasting condition is logged at most once in this time.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Limits on connections.
#[derive(Clone, Debug)]
pub struct Connections {
    /// Most connections open at once.
    pub max: usize,
    /// Proxies that may have more than half of the connections.
    pub trusted_proxies: TrustedProxies,
    /// Deadlines for what clients may hold back.
    pub deadlines: Deadlines,
    /// Time for open requests once the service stops.
    pub grace: Duration,
}

/// Most connections to the listener for operators: monitoring needs few, and has them however many
/// the public listener has.
const OPERATORS_MAX: usize = 64;

impl Connections {
    /// The limits of the listener for operators.
    pub(crate) fn for_operators(&self) -> Self {
        Self {
            max: OPERATORS_MAX,
            ..self.clone()
        }
    }
}

/// Serves until `stopping` is cancelled, then lets open requests finish within the grace.
pub(crate) async fn serve(
    listeners: Vec<TcpListener>,
    tls: Option<Tls>,
    service: HttpService,
    limits: Connections,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
) {
    let mut door = Door {
        places: Places::new(limits.max, limits.trusted_proxies),
        open: JoinSet::new(),
        tls,
        service,
        deadlines: limits.deadlines,
        http: Arc::new(http()),
        metrics,
        stopping: stopping.clone(),
        warned: [None; 2],
    };
    let mut turn = 0;
    loop {
        while let Some(ended) = door.open.try_join_next_with_id() {
            door.closed(ended);
        }
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(ended) = door.open.join_next_with_id() => door.closed(ended),
            accepted = accept(&listeners, &mut turn), if !door.places.is_jammed() => match accepted {
                Ok((stream, peer)) => door.let_in(stream, peer),
                Err(error) => door.cannot_accept(&error).await,
            },
        }
    }
    // New connections are refused at once instead of waiting in the backlog.
    drop(listeners);
    let mut open = door.open;
    let all_closed = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.grace, all_closed)
        .await
        .is_err()
    {
        warn!(open = open.len(), "closing connections that are still busy");
        open.shutdown().await;
    }
}

/// Waits for a connection to one of the sockets, which have turns. Cancel safe.
async fn accept(
    listeners: &[TcpListener],
    turn: &mut usize,
) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        let (before, first) = listeners.split_at(*turn % listeners.len().max(1));
        for listener in first.iter().chain(before) {
            *turn = turn.wrapping_add(1);
            let accepted = listener.poll_accept(cx);
            if accepted.is_ready() {
                return accepted;
            }
        }
        Poll::Pending
    })
    .await
}

/// The state of the accept loop.
struct Door {
    places: Places<task::Id>,
    open: JoinSet<()>,
    tls: Option<Tls>,
    service: HttpService,
    deadlines: Deadlines,
    http: Arc<auto::Builder<TokioExecutor>>,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
    /// When the caps and failed accepts were last logged.
    warned: [Option<Instant>; 2],
}

impl Door {
    fn let_in(&mut self, stream: TcpStream, peer: SocketAddr) {
        // Without TCP_NODELAY, responses may be late. A socket that refuses it is broken, and its
        // connection finds that out.
        drop(stream.set_nodelay(true));
        let now = Instant::now();
        let (place, cap) = self.places.find(peer.ip(), now);
        if let Some(cap) = cap {
            self.says_cap(cap, place, now);
        }
        let activity = Arc::new(Activity::new(self.deadlines, now));
        if place == Place::Extra {
            activity.end_at(now + EXTRA_TIME, Overdue::Extra);
        }
        let connection = connection(
            Arc::clone(&self.http),
            stream,
            self.tls.clone(),
            self.service.clone(),
            (peer.ip(), place),
            Arc::clone(&activity),
            self.stopping.clone(),
        );
        let counted = Counted::new(Arc::clone(&self.metrics));
        let task = self.open.spawn(async move {
            // Dropped together with the task, also by a panic.
            let counted = counted;
            counted.ended(connection.await);
        });
        self.places.opened(task.id(), peer.ip(), place, activity);
    }

    fn closed(&mut self, ended: Result<(task::Id, ()), task::JoinError>) {
        self.places.closed(match ended {
            Ok((key, ())) => key,
            Err(error) => error.id(),
        });
    }

    async fn cannot_accept(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(
            error.kind(),
            ConnectionAborted | ConnectionReset | Interrupted
        ) {
            // The peer is gone; others are waiting.
            return;
        }
        let now = Instant::now();
        if due(&mut self.warned[1], now) {
            warn!(
                %error, open = self.open.len(),
                "cannot accept connections; closing those that wait longest, and trying again"
            );
        }
        self.places.evict(Cap::All, now);
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    fn says_cap(&mut self, cap: Cap, place: Place, now: Instant) {
        if !due(&mut self.warned[0], now) {
            return;
        }
        let (open, refused) = (self.open.len(), place == Place::Extra);
        match cap {
            Cap::All => warn!(
                open,
                refused,
                "--connections-max is reached: new connections take the place of those that wait longest for a request, or are refused where none waits"
            ),
            Cap::Address(address) => warn!(
                %address, open, refused,
                "one address has half of --connections-max: its new connections take the place of its own that wait longest for a request, or are refused where none waits; name it in --trusted-proxies if it is a proxy"
            ),
        }
    }
}

/// Whether a lasting condition is due to be logged again.
fn due(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|last| now.saturating_duration_since(last) >= WARN_EVERY);
    if due {
        *last = Some(now);
    }
    due
}

/// Counts a connection as open until it is dropped, however it ends.
struct Counted(Arc<Metrics>);

impl Counted {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(metrics)
    }

    fn ended(&self, end: End) {
        let (counters, cause) = match end {
            End::ByClient => return,
            End::Overdue(overdue) => (&self.0.connections_closed, overdue.cause()),
            // Not logged one by one: strangers cause them at will.
            End::Handshake(failure) => (&self.0.tls_handshake_failures, failure.cause()),
        };
        counters.get_or_create(&ByCause { cause }).inc();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// The HTTP settings. The deadlines of heads are in `Activity`: the library has none before it
/// knows the protocol, and none for an idle connection alone.
fn http() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(true)
        .max_buf_size(H1_BUFFER_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .keep_alive_interval(Some(H2_PING_EVERY))
        .keep_alive_timeout(H2_PING_EVERY);
    builder
}

/// How a connection ended.
enum End {
    /// The client closed it, or it broke.
    ByClient,
    /// This side closed it.
    Overdue(Overdue),
    /// TLS could not be agreed upon.
    Handshake(Failure),
}

/// Serves one connection to its end.
async fn connection(
    http: Arc<auto::Builder<TokioExecutor>>,
    stream: TcpStream,
    tls: Option<Tls>,
    service: HttpService,
    (peer, place): (IpAddr, Place),
    activity: Arc<Activity>,
    stopping: CancellationToken,
) -> End {
    let stream = Lingering::new(stream, Arc::clone(&activity));
    let (stream, scheme) = match tls {
        None => (Stream::Plain(stream), Scheme::Http),
        // Boxed: connections without TLS need not have room for it.
        Some(tls) => match Box::pin(shake_hands(&tls, stream, &activity, &stopping)).await {
            Ok(Accepted::Tls(stream)) => (stream, Scheme::Https),
            Ok(Accepted::PlainHttp(stream)) => (stream, Scheme::HttpForHttps),
            Err(end) => return end,
        },
    };
    let stream = Watched::new(stream, Arc::clone(&activity));
    let service = service.on(Arc::clone(&activity), (peer, scheme), place == Place::Extra);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut stopped = pin!(stopping.cancelled());
    let mut evicted = pin!(activity.evicted());
    let mut timer = pin!(tokio::time::sleep_until(Instant::now()));
    let (mut told, mut asked, mut closing) = (false, false, None);
    poll_fn(|cx| {
        if !told && stopped.as_mut().poll(cx).is_ready() {
            told = true;
            activity.stop(Instant::now());
            connection.as_mut().graceful_shutdown();
        }
        if !asked {
            asked = evicted.as_mut().poll(cx).is_ready();
        }
        loop {
            // A peer that breaks off is not an error.
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(closing.map_or(End::ByClient, End::Overdue));
            }
            let Some((at, why)) = activity.deadline() else {
                return Poll::Pending;
            };
            let now = Instant::now();
            if now < at {
                // A deadline later than the timer's is set when the timer fires: most are extended
                // long before.
                if at < timer.deadline() || timer.is_elapsed() {
                    timer.as_mut().reset(at);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            match why {
                Overdue::Idle | Overdue::Evicted if closing.is_none() => {
                    closing = Some(why);
                    activity.is_closing(now, why);
                    connection.as_mut().graceful_shutdown();
                    if why == Overdue::Evicted {
                        // What ends the connection (a GOAWAY in HTTP/2) is sent only if the socket
                        // takes it at once, as the place is needed.
                        let ended = connection.as_mut().poll(cx).is_ready();
                        if ended || !activity.is_busy() {
                            return Poll::Ready(End::Overdue(why));
                        }
                    }
                }
                _ => return Poll::Ready(End::Overdue(why)),
            }
        }
    })
    .await
}

/// Shakes hands within the deadline for a first head. A connection that is asked to make room, or a
/// service that stops, waits for no handshake.
async fn shake_hands(
    tls: &Tls,
    stream: Lingering,
    activity: &Activity,
    stopping: &CancellationToken,
) -> Result<Accepted, End> {
    let overdue = async {
        loop {
            match activity.deadline() {
                Some((at, why)) if at <= Instant::now() => return why,
                Some((at, _)) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        biased;
        accepted = tls.accept(stream) => accepted.map_err(End::Handshake),
        () = stopping.cancelled() => Err(End::Overdue(Overdue::Stopping)),
        () = activity.evicted() => Err(End::Overdue(Overdue::Evicted)),
        why = overdue => Err(End::Overdue(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_panics_is_counted_no_longer() {
        let metrics = Arc::new(Metrics::new());
        let counted = Counted::new(Arc::clone(&metrics));
        assert_eq!(metrics.connections.get(), 1);
        let mut open = JoinSet::new();
        open.spawn(async move {
            let _counted = counted;
            panic!("on purpose");
        });
        assert!(open.join_next().await.unwrap().unwrap_err().is_panic());
        assert_eq!(metrics.connections.get(), 0);
    }

    #[test]
    fn what_lasts_is_logged_once_a_minute() {
        let (mut last, now) = (None, Instant::now());
        assert!(due(&mut last, now));
        assert!(!due(&mut last, now + WARN_EVERY / 2));
        assert!(due(&mut last, now + WARN_EVERY));
    }
}
