//! Bytes in, valid events out, already as rows of binary COPY.
//!
//! Pure: no clock, no IO, no async. Time, tenants and fresh ids arrive as values. An event is
//! encoded once, and never again later.

pub mod context;
pub mod format;

pub(crate) mod assignment;
pub mod body;
pub mod decode;
pub(crate) mod exposure;
pub(crate) mod field;
mod folding;
pub(crate) mod formats;
pub mod identity;
pub(crate) mod interaction;
pub(crate) mod items;
pub mod json;
pub(crate) mod meta;
mod misdirected;
pub mod numeric;
mod public;
pub mod rejection;
pub mod result;
pub mod row;
pub mod row_json;
pub(crate) mod subject;
pub mod table;
pub mod time;
pub(crate) mod unknown;
pub mod warning;

#[cfg(test)]
mod testing;
