//! What stands in front of a server: a listener on loopback on its own thread, so that it goes
//! on while a test blocks its runtime. Ends when it is dropped.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::oneshot;

/// A listener, and what is done with its connections.
pub(super) struct Front {
    pub(super) address: SocketAddr,
    /// Ends the thread when dropped.
    _task: oneshot::Sender<()>,
}

impl Front {
    /// Starts a task with `pass_on` for each connection.
    pub(super) fn start<F>(pass_on: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (task, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, pass_on) => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            address,
            _task: task,
        }
    }

    /// The same, with a connection to the server at this socket as well.
    pub(super) fn of<F>(
        socket: PathBuf,
        pass_on: impl Fn(TcpStream, UnixStream) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start(move |client| {
            let (socket, pass_on) = (socket.clone(), pass_on.clone());
            async move {
                if let Ok(server) = UnixStream::connect(&socket).await {
                    pass_on(client, server).await;
                }
            }
        })
    }
}

async fn accept<F>(listener: std::net::TcpListener, pass_on: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        client.set_nodelay(true).unwrap();
        tokio::spawn(pass_on(client));
    }
}
