//! Connections and the tenant directory against real PostgreSQL servers.

mod keys;
pub(crate) mod server;
mod tls;
