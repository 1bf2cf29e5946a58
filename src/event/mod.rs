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

mod exposure;
mod field;
mod formats;
mod interaction;
mod meta;
mod subject;

pub use body::{Body, BodyError, Framing, Limits, Memory};
pub use decode::{
    Context, DecodeError, Decoded, Format, REJECTED_IN_FULL, Rejected, RowLimits, Tenants, decode,
    decode_within,
};
pub use identity::Pseudonymizer;
pub use rejection::{Code, Rejection};
pub use row::{Key, Rows};
pub use table::Table;
pub use time::Micros;
