//! The promises of the service, tested against real PostgreSQL servers.
//!
//! One binary, so that all tests can share one server; one file for each promise; one database
//! for each test. No set-up is necessary: `private-postgres` starts the server, as it does for
//! `recsys-ingest dev`, and the server ends with this process.
#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "in a test a panic is the report, tasks end with their test, numbers are small, and no one imports it"
)]

mod harness;

mod accounting;
mod admin;
mod adoption_load;
mod architecture;
mod assignments;
mod attacks;
mod backpressure;
mod bad_rows;
mod batching;
mod beside;
mod bounds;
mod browser;
mod checks;
mod citus;
mod contract;
mod copies;
mod cors;
mod crash;
mod delivery;
mod demo;
mod deploy;
mod dev;
mod directory;
mod doctor;
mod doors;
mod duplicates;
mod erasure;
mod fairness;
mod formats;
mod framing;
mod given_back;
mod goodbye;
mod habits;
mod histories;
mod hostile;
mod identity;
mod import;
mod instances;
mod items;
mod join_quality;
mod jsonb;
mod limits;
mod live;
mod log;
mod losses;
mod malformed;
mod manners;
mod matrix;
mod messages;
mod observability;
mod openapi;
mod outage;
mod pages;
mod partitions;
mod poison;
mod privacy;
mod promtool;
mod quarantine;
mod readers;
mod readme;
mod reasons;
mod rejection;
mod restart;
mod retention;
mod roundtrip;
mod runbooks;
mod schema;
mod sealing;
mod segment;
mod settings;
mod shared_log;
mod ship;
mod shutdown;
mod signals;
mod soak;
mod spans;
mod spool_disk;
mod spool_shares;
mod stock_clients;
mod transport;
mod unreadable;
mod warnings;
mod whole_day;
mod without_a_stop;
