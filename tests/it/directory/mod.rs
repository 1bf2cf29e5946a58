//! Connections and the tenant cache, against real PostgreSQL servers.

mod keys;
pub(crate) mod server;
mod tls;
