//! What the load tester takes from the service: all of it is named here.
//!
//! `run` takes names and the hash of ids, and nothing that handles an event.
//! `compare` and the tests take the encoder, so that every method loads the same
//! rows, and what starts a private PostgreSQL.

pub use private_postgres::{Options as PostgresOptions, PrivatePostgres};
pub use recsys_ingest::event::body::framing::Framing;
pub use recsys_ingest::event::body::{Body, Limits};
pub use recsys_ingest::event::context::{Context, Tenants};
#[cfg(test)]
pub use recsys_ingest::event::decode::Rejected;
pub use recsys_ingest::event::decode::{Decoded, decode};
pub use recsys_ingest::event::format::Format;
pub use recsys_ingest::event::identity::Pseudonymizer;
pub use recsys_ingest::event::rejection::Code;
pub use recsys_ingest::event::row::rows::Rows;
pub use recsys_ingest::event::table::Table;
pub use recsys_ingest::event::time::Micros;
pub use recsys_ingest::http::ingest::ack::Ack;
pub use recsys_ingest::partitions::catalog::{self, PartitionInfo};
pub use recsys_ingest::partitions::create::{ensure, ensure_ahead};
pub use recsys_ingest::partitions::range::Interval;
pub use recsys_ingest::postgres::connect::Target as DatabaseTarget;
pub use recsys_ingest::postgres::migrate;
pub use recsys_ingest::postgres::session::Session;
pub use recsys_ingest::tenants::admin::keys::insert_key;
pub use recsys_ingest::tenants::admin::tenants::create_tenant;
pub use recsys_ingest::tenants::key::ApiKeyHasher;
pub use recsys_ingest::tenants::role::Role;

/// The table's word in paths and ids.
pub const fn word(table: Table) -> &'static str {
    match table {
        Table::Exposures => "exposures",
        Table::Interactions => "interactions",
    }
}
