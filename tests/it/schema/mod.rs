//! The schema on a real PostgreSQL: migrations, adoption, views, partitions.

pub(crate) mod words;

mod adoption;
mod gone;
mod migrations;
mod partitions;
mod races;
mod suite;
