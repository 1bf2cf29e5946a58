//! Connections and the tenant directory against real PostgreSQL servers.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

mod directory;
mod server;
mod tls;
