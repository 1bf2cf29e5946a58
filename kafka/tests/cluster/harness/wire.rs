//! A wire between clients and a server, which can be cut: what is sent stays underway, and connections
//! stay open, as when a network is parted.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// While the server is away, connections are tried this often.
const AGAIN: Duration = Duration::from_millis(50);

/// A relay of TCP connections on its own thread; dropping it ends it.
pub struct Wire {
    /// Where clients connect.
    pub address: SocketAddr,
    is_cut: watch::Sender<bool>,
    /// Ends the thread when dropped.
    _task: oneshot::Sender<()>,
}

impl Wire {
    /// A wire to a server at HOST:PORT.
    pub fn to(server: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (task, ended) = oneshot::channel::<()>();
        let (is_cut, seen) = watch::channel(false);
        let server: SocketAddr = server.parse().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, server, seen) => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            address,
            is_cut,
            _task: task,
        }
    }

    /// Cuts the wire, or mends it.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }
}

async fn accept(
    listener: std::net::TcpListener,
    server: SocketAddr,
    is_cut: watch::Receiver<bool>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        let is_cut = is_cut.clone();
        tokio::spawn(async move {
            let mut holds = is_cut.clone();
            drop(holds.wait_for(|cut| !cut).await);
            let Ok(server) = TcpStream::connect(server).await else {
                // As a refusal would, but that the port is taken here.
                tokio::time::sleep(AGAIN).await;
                return;
            };
            server.set_nodelay(true).unwrap();
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = pass_on(from_client, to_server, is_cut.clone()) => {}
                () = pass_on(from_server, to_client, is_cut) => {}
            }
        });
    }
}

async fn pass_on(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut is_cut: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if is_cut.wait_for(|cut| !cut).await.is_err() {
            return;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
