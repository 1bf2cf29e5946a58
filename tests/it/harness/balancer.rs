//! A load balancer in front of several instances.
//!
//! Spreads connections in turn, passes over an instance that does not listen, and gives a
//! connection up whose instance has been silent for too long. Loses an answer now and then, so that
//! its client sends the same events again: to another instance. Ends when it is dropped.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::front::Front;

/// How long an instance may leave a request without an answer.
const SILENCE_MAX: Duration = Duration::from_millis(1500);

/// One answer in this many is lost.
const LOSES_EVERY: u64 = 40;

/// A balancer.
pub struct Balancer {
    front: Front,
    shared: Arc<Shared>,
}

struct Shared {
    instances: Mutex<Vec<SocketAddr>>,
    next: AtomicUsize,
    answers: AtomicU64,
    lost: AtomicU64,
    given_up: AtomicU64,
}

impl Balancer {
    /// Starts a balancer in front of these instances.
    pub fn start(instances: Vec<SocketAddr>) -> Self {
        let shared = Arc::new(Shared {
            instances: Mutex::new(instances),
            next: AtomicUsize::new(0),
            answers: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
        });
        let of_front = Arc::clone(&shared);
        let front = Front::start(move |client| {
            let shared = Arc::clone(&of_front);
            async move {
                if let Some(instance) = shared.connect().await {
                    shared.pass_on(client, instance).await;
                }
            }
        });
        Self { front, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.front.address
    }

    /// Another address for an instance, which was started again.
    pub fn aim(&self, instance: usize, address: SocketAddr) {
        self.shared.instances.lock().unwrap()[instance] = address;
    }

    /// Number of answers that were lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Number of connections that were given up because their instance was silent.
    pub fn given_up(&self) -> u64 {
        self.shared.given_up.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// A connection to the next instance that listens.
    async fn connect(&self) -> Option<TcpStream> {
        let count = self.instances.lock().unwrap().len();
        for _ in 0..count {
            let at = self.next.fetch_add(1, Ordering::Relaxed) % count;
            let address = self.instances.lock().unwrap()[at];
            let connecting = timeout(SILENCE_MAX, TcpStream::connect(address));
            if let Ok(Ok(stream)) = connecting.await {
                stream.set_nodelay(true).unwrap();
                return Some(stream);
            }
        }
        None
    }

    /// Forwards until one side ends, an answer is lost, or the instance is silent for too long.
    async fn pass_on(&self, mut client: TcpStream, mut instance: TcpStream) {
        let (mut asked, mut told) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        let mut waits = false;
        loop {
            let silence = async {
                match waits {
                    true => tokio::time::sleep(SILENCE_MAX).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                read = client.read(&mut asked) => {
                    let Ok(read @ 1..) = read else { return };
                    // A frozen instance takes nothing in once its buffers are full.
                    let sending = timeout(SILENCE_MAX, instance.write_all(&asked[..read]));
                    let Ok(sent) = sending.await else {
                        self.given_up.fetch_add(1, Ordering::Relaxed);
                        return;
                    };
                    if sent.is_err() {
                        return;
                    }
                    waits = true;
                }
                read = instance.read(&mut told) => {
                    let Ok(read @ 1..) = read else { return };
                    waits = false;
                    if self.answers.fetch_add(1, Ordering::Relaxed) % LOSES_EVERY == LOSES_EVERY - 1 {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    if client.write_all(&told[..read]).await.is_err() {
                        return;
                    }
                }
                () = silence => {
                    self.given_up.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}
