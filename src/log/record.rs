//! What goes into the spool, and the answer to it.

use bytes::Bytes;
use tokio::sync::oneshot;

/// A frame to be made durable, with what must come out again with it.
#[derive(Debug)]
pub struct Entry<L, R> {
    /// The stream, which decides on the lane.
    pub stream: u8,
    /// Items in the payload; they are only counted.
    pub items: u32,
    /// The bytes, which are only kept.
    pub payload: Bytes,
    /// Told as soon as the frame is durable, or will never be.
    pub durable: Option<oneshot::Sender<Result<(), Refused>>>,
    /// Held for as long as the payload is in memory, then dropped.
    pub loan: L,
    /// Whoever waits for the frame's verdict; comes out with the frame, even if
    /// the payload had to leave memory in between.
    pub verdict: Option<oneshot::Sender<R>>,
}

/// Why a frame is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The spool is at its cap. Nothing of the frame was kept; there is room
    /// again once frames are retired.
    #[error("the spool is at its cap; try again later")]
    Full,
    /// The disk is full, or has no more free space than is to be left to others.
    /// Nothing of the frame was kept.
    #[error("the disk has no free space for the spool; try again later")]
    NoSpace,
    /// No spool of these settings takes such a frame.
    #[error("the frame is larger than the spool takes")]
    TooLarge,
    /// The disk failed. The frame is not given to its writer in this life of
    /// the process; if the process ends before the disk works again, what of
    /// it reached the disk may be, once.
    #[error("the spool's disk failed; try again later")]
    Failed,
    /// The disk has not answered for longer than a sender should wait. Nothing of
    /// the frame was kept.
    #[error("the spool's disk does not answer; try again later")]
    Stalled,
    /// The spool's directory was removed or replaced. Nothing of the frame was
    /// kept, and only a new start helps.
    #[error("the spool's directory was removed or replaced")]
    Gone,
}
