//! The schema on a real PostgreSQL: migrations, adoption, views, partitions.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "in a test a panic is the report, and no one imports it"
)]

mod server;

mod adoption;
mod migrations;
mod partitions;
mod races;
mod suite;
