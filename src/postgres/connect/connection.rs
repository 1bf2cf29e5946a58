//! An open connection, before its driver is polled.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use tokio_postgres::Client;

/// The future that moves a connection's bytes; it ends when the connection does.
pub type Driver = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// An open connection. The client makes progress only while the driver is polled.
#[must_use = "dropping a connection closes it"]
pub struct Connection {
    /// The client that sends statements.
    pub client: Client,
    /// To be polled until it ends, usually in a separate task.
    pub driver: Driver,
    /// Why there is no TLS although it was preferred.
    pub clear_text: Option<String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}
