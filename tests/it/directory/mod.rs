//! Connections and the tenant cache, against real PostgreSQL servers.

mod certificates;
mod keys;
mod refresh;
pub(crate) mod server;
mod tls;
mod words;
