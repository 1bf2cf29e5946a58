//! `recsys-ingest dev`: everything that a machine without Postgres needs.

pub mod postgres;
