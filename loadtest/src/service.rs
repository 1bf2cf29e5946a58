//! What the load tester takes from the service: all of it is named here.
//!
//! `run` takes names and the hash of ids, and nothing that handles an event.
//! `compare` and the tests take the encoder, so that every method loads the same
//! rows, and what starts a private PostgreSQL.

pub use recsys_ingest::config::Ack;
pub use recsys_ingest::dev::postgres::{Options as PostgresOptions, PrivatePostgres};
#[cfg(test)]
pub use recsys_ingest::event::Rejected;
pub use recsys_ingest::event::{
    Body, Code, Context, Decoded, Format, Framing, Limits, Micros, Pseudonymizer, Rows, Table,
    Tenants, decode,
};
pub use recsys_ingest::store::connect::Target as DatabaseTarget;
pub use recsys_ingest::store::directory::{ApiKeyHasher, Role, admin};
pub use recsys_ingest::store::partition::{self, Interval};
pub use recsys_ingest::store::{Session, migrate};

/// The table's word in paths and ids.
pub const fn word(table: Table) -> &'static str {
    match table {
        Table::Exposures => "exposures",
        Table::Interactions => "interactions",
    }
}
