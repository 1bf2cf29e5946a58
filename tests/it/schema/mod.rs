//! The schema on a real PostgreSQL: migrations, adoption, views, partitions.

mod words;

mod adoption;
mod migrations;
mod partitions;
mod races;
mod suite;
