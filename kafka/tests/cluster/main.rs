//! The service on a real Kafka broker and a real PostgreSQL server.
//!
//! Needs Java and Maven, which fetches the broker's jars once; where one is missing the tests are
//! skipped with a sentence. Run with `cargo test -p recsys-ingest-kafka --test cluster`.

mod delivery;
mod harness;
