//! Connections and the tenant directory against real PostgreSQL servers.

mod keys;
mod server;
mod tls;
