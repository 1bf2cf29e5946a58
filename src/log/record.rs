//! What goes into the log, the answer to it, and what comes out.

use bytes::Bytes;
use tokio::sync::oneshot;

/// A record on its way in: it is to be made durable.
#[derive(Debug)]
pub struct Record<M, R> {
    /// The stream, which decides on the lane.
    pub stream: u8,
    /// Items in the payload; they are only counted.
    pub items: u32,
    /// The bytes, which are only kept.
    pub payload: Bytes,
    /// Told as soon as the frame is durable, or will never be.
    pub durable: Option<oneshot::Sender<Result<(), AppendError>>>,
    /// Held for as long as the payload is in memory, and comes out with it.
    pub memory: M,
    /// Where to report what became of the record; comes out with it, even if the
    /// payload had to leave memory in between.
    pub result: Option<oneshot::Sender<R>>,
}

/// A record on its way out, to its writer.
#[derive(Debug)]
pub struct Delivered<M, R> {
    /// Its place in the log; records of a stream come in this order.
    pub sequence: u64,
    /// Items in it.
    pub items: u32,
    /// What was handed in.
    pub payload: Bytes,
    /// What came with it. The log gives an `Option`: nothing came with what left memory.
    pub memory: M,
    /// Where to report what became of the record.
    pub result: Option<oneshot::Sender<R>>,
}

/// Why a frame is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The spool is at its cap. Nothing of the frame was kept; there is room
    /// again once frames are retired.
    #[error("the spool is at its cap; try again later")]
    AtCap,
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
