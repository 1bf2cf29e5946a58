//! A body that has arrived.

use axum::body::Bytes;
use axum::http::StatusCode;

use crate::admission::memory::Reservation;
use crate::http::problem::Problem;

/// Inflated bodies reserve memory in steps of at least this size. A plain body in several pieces
/// reserves up to this size ahead.
pub(super) const RESERVE_STEP: usize = 64 * 1024;

/// A body and its reservation.
#[derive(Debug)]
pub struct Received {
    /// The bytes, inflated.
    pub bytes: Bytes,
    /// The memory of the bytes, released together with them.
    #[expect(dead_code, reason = "held, not read")]
    pub reservation: Reservation,
}

pub(super) fn too_large(bytes_max: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("the body has more than {bytes_max} bytes; send the events in several requests"),
    )
}
