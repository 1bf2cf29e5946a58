//! A proxy between the service and PostgreSQL that can delay, throttle, block and cut
//! connections.
//!
//! Listens on a loopback port and forwards to the server's Unix socket. Understands only as much
//! of the protocol as it takes to recognise a COMMIT. Ends when it is dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cluster::Cluster;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Forwarded at once.
    Pass,
    /// Forwarded after this time.
    Delay(Duration),
    /// Forwarded at this rate, in bytes a second.
    Throttle(u64),
    /// Held: connections stay open and get no answers.
    BlackHole,
    /// Connections are closed, and new ones too.
    Reset,
}

/// Where a COMMIT is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the server gets it: the transaction is rolled back.
    Before,
    /// After the server has executed it, before the answer: the client cannot know the result.
    After,
    /// As soon as the server has got it, while it executes.
    During,
    /// Before the server gets it, and the connection stays open: both sides keep waiting, as when
    /// a router forgets the connection.
    Swallow,
}

/// A proxy in front of a server.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    wire: watch::Sender<Wire>,
    /// Incremented to close all open connections.
    generation: watch::Sender<u64>,
    /// Incremented to forget all open connections.
    forgotten: watch::Sender<u64>,
    /// Incremented to close the client's side of all open connections.
    hung_up: watch::Sender<u64>,
    cut: Mutex<Option<(Cut, u64)>>,
    cuts: AtomicU64,
    commits: AtomicU64,
    round_trips: AtomicU64,
}

/// The read buffer, which is also the unit of throttling: at 200 kB/s a full one takes a third of
/// a second.
const PIECE: usize = 64 * 1024;

/// The message that ends a transaction, as the service sends it.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

impl Proxy {
    /// Starts a proxy in front of a cluster.
    pub async fn start(cluster: &Cluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            wire: watch::Sender::new(Wire::Pass),
            generation: watch::Sender::new(0),
            forgotten: watch::Sender::new(0),
            hung_up: watch::Sender::new(0),
            cut: Mutex::default(),
            cuts: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, socket(cluster), Arc::clone(&state)));
        Self {
            address,
            state,
            task,
        }
    }

    /// The URL of the same database through the proxy.
    pub fn url(&self, url: &str) -> String {
        behind(self.address, url)
    }

    /// Sets what happens to bytes, also on open connections.
    pub fn set(&self, wire: Wire) {
        self.state.wire.send_replace(wire);
        if wire == Wire::Reset {
            self.reset();
        }
    }

    /// Closes all open connections.
    pub fn reset(&self) {
        self.state
            .generation
            .send_modify(|generation| *generation += 1);
    }

    /// Forgets all open connections: both sides keep them open, but nothing is forwarded any
    /// more. New connections work.
    pub fn forget(&self) {
        self.state.forgotten.send_modify(|count| *count += 1);
    }

    /// Closes the client's side of all open connections. The server's side stays open, as when
    /// only the client's kernel has given a connection up.
    pub fn hang_up(&self) {
        self.state.hung_up.send_modify(|count| *count += 1);
    }

    /// Cuts the connections of the next `times` COMMITs.
    pub fn cut(&self, cut: Cut, times: u64) {
        *self.state.cut.lock().unwrap() = Some((cut, times));
    }

    /// Number of COMMITs that were cut off.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::Relaxed)
    }

    /// Number of COMMITs that the proxy has seen.
    pub fn commits(&self) -> u64 {
        self.state.commits.load(Ordering::Relaxed)
    }

    /// Round trips of the last transaction: how often its client sent after an answer, since the
    /// COMMIT before. Exact only while the wire delays.
    pub fn round_trips(&self) -> u64 {
        self.state.round_trips.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.reset();
    }
}

async fn accept(listener: TcpListener, socket: PathBuf, state: Arc<State>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        let (socket, state) = (socket.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let mut generation = state.generation.subscribe();
            let opened_in = *generation.borrow_and_update();
            if *state.wire.borrow() == Wire::Reset {
                return;
            }
            let Ok(server) = UnixStream::connect(&socket).await else {
                return; // The server is away; so is the connection.
            };
            let mut forgotten = state.forgotten.subscribe();
            let before = *forgotten.borrow_and_update();
            let mut passing = std::pin::pin!(pass_on(client, server, &state));
            let is_forgotten = tokio::select! {
                () = &mut passing => false,
                _ = generation.wait_for(|now| *now != opened_in) => false,
                _ = forgotten.wait_for(|now| *now != before) => true,
            };
            if is_forgotten {
                // Not polled and not dropped: the sockets stay open.
                drop(generation.wait_for(|now| *now != opened_in).await);
            }
        });
    }
}

/// Forwards in both directions until one side ends or a COMMIT is cut.
async fn pass_on(client: TcpStream, server: UnixStream, state: &State) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (held_back, mut answers) = watch::channel(false);
    let answered = AtomicBool::new(false);
    let mut hung_up = state.hung_up.subscribe();
    let before = *hung_up.borrow_and_update();
    let up = async {
        let mut bytes = vec![0; PIECE];
        let mut round_trips = 0;
        loop {
            let Ok(read @ 1..) = from_client.read(&mut bytes).await else {
                return;
            };
            let commit = ends_in_commit(&bytes[..read]);
            round_trips += u64::from(answered.swap(false, Ordering::Relaxed));
            if commit {
                let whole = std::mem::take(&mut round_trips);
                state.round_trips.store(whole, Ordering::Relaxed);
            }
            state
                .commits
                .fetch_add(u64::from(commit), Ordering::Relaxed);
            let cut = if commit { state.take_cut() } else { None };
            match cut {
                Some(Cut::Before) => return,
                Some(Cut::Swallow) => std::future::pending().await,
                Some(Cut::After | Cut::During) | None => {}
            }
            if cut.is_some() {
                held_back.send_replace(true);
            }
            state.bend(read).await;
            if to_server.write_all(&bytes[..read]).await.is_err() || cut == Some(Cut::During) {
                return;
            }
        }
    };
    let down = async {
        let mut bytes = vec![0; PIECE];
        loop {
            let Ok(read @ 1..) = from_server.read(&mut bytes).await else {
                return;
            };
            if *answers.borrow_and_update() {
                return; // It was the answer to a COMMIT that is cut off.
            }
            state.bend(read).await;
            answered.store(true, Ordering::Relaxed);
            if to_client.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    };
    let is_hung_up = tokio::select! {
        () = up => false,
        () = down => false,
        _ = hung_up.wait_for(|now| *now != before) => true,
    };
    if is_hung_up {
        drop((from_client, to_client));
        // The server's side is not dropped: its socket stays open.
        std::future::pending().await
    }
}

impl State {
    fn take_cut(&self) -> Option<Cut> {
        let mut planned = self.cut.lock().unwrap();
        let (cut, times) = planned.as_mut()?;
        let cut = *cut;
        *times -= 1;
        if *times == 0 {
            *planned = None;
        }
        self.cuts.fetch_add(1, Ordering::Relaxed);
        Some(cut)
    }

    /// Waits as long as the wire holds this number of bytes.
    async fn bend(&self, bytes: usize) {
        let wire = *self.wire.borrow();
        match wire {
            Wire::Pass | Wire::Reset => {}
            Wire::Delay(delay) => tokio::time::sleep(delay).await,
            Wire::Throttle(bytes_per_second) => {
                let micros = bytes as u64 * 1_000_000 / bytes_per_second;
                tokio::time::sleep(Duration::from_micros(micros)).await;
            }
            Wire::BlackHole => {
                // Bytes wait here until the wire is no longer a black hole.
                let mut wire = self.wire.subscribe();
                drop(wire.wait_for(|wire| *wire != Wire::BlackHole).await);
            }
        }
    }
}

/// Whether a piece of the client's bytes ends in a COMMIT. The service waits for its answer, so
/// nothing follows it, and it arrives in one piece.
fn ends_in_commit(bytes: &[u8]) -> bool {
    bytes.ends_with(COMMIT)
}

/// The URL of a database behind something that listens at `address`.
pub(super) fn behind(address: SocketAddr, url: &str) -> String {
    let (_, rest) = url.split_once("@/").expect("a URL of our launcher's");
    let (database, _) = rest.split_once('?').unwrap();
    format!("postgresql://postgres@{address}/{database}?sslmode=disable")
}

/// The Unix socket of a cluster.
pub(super) fn socket(cluster: &Cluster) -> PathBuf {
    let url = cluster.url("recsys");
    let (_, host) = url.split_once("host=").unwrap();
    let host = host.split('&').next().unwrap();
    PathBuf::from(decoded(host)).join(".s.PGSQL.5432")
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let digits = std::str::from_utf8(&rest[..2]).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).unwrap()
}
