//! Bytes in, valid events out, already as rows of binary COPY.
//!
//! Pure: no clock, no IO, no async. Time and identity arrive as values.

pub mod table;

pub use table::Table;
