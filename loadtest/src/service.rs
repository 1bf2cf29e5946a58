//! What the load tester takes from the service: all of it is named here.
//!
//! `run` takes names and the hash of ids, and nothing that handles an event.
//! `compare` and the tests take the encoder, so that every method loads the same
//! rows, and what starts a private PostgreSQL.

pub use private_postgres::{Options as PostgresOptions, PrivatePostgres};
pub use recsys_ingest::cli::dev::POSTGRES_SETTINGS;
#[cfg(test)]
pub use recsys_ingest::event::decode::Rejected;
pub use recsys_ingest::event::{
    body::{Body, Limits, framing::Framing},
    context::{Context, Tenants},
    decode::{Decoded, decode},
    format::Format,
    identity::Pseudonymizer,
    rejection::Code,
    row::rows::Rows,
    table::Table,
    time::Micros,
};
pub use recsys_ingest::http::ingest::ack::Ack;
pub use recsys_ingest::partitions::catalog::{self, PartitionInfo};
pub use recsys_ingest::partitions::create::{ensure, ensure_ahead};
pub use recsys_ingest::partitions::range::Interval;
pub use recsys_ingest::postgres::{
    connect::Target as DatabaseTarget, copy, migrate, session::Session,
};
pub use recsys_ingest::tenants::admin::{keys::insert_key, tenants::create_tenant};
pub use recsys_ingest::tenants::{key::ApiKeyHasher, role::Role};

/// The tables that are loaded: those that the suite declares.
pub const TABLES: [Table; 2] = Table::OF_SUITE;

/// The table's word in paths and ids.
pub const fn word(table: Table) -> &'static str {
    table.events()
}
