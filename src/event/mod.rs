//! Bytes in, valid events out, already as rows of binary COPY.
//!
//! Pure: no clock, no IO, no async. Time, tenants and fresh ids arrive as
//! values. An event is encoded once; nothing re-encodes it later.

pub mod body;
pub mod decode;
pub mod identity;
pub mod json;
pub mod numeric;
pub mod rejection;
pub mod row;
pub mod row_json;
pub mod table;
pub mod time;

pub(crate) mod exposure;
pub(crate) mod field;
pub(crate) mod formats;
pub(crate) mod interaction;
pub(crate) mod meta;
pub(crate) mod subject;
