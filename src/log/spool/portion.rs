//! A stretch of one stream's frames in a segment.

/// What a segment holds of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Portion {
    /// The last sequence; zero if there is no frame.
    pub(crate) last: u64,
    pub(crate) frames: u64,
    pub(crate) items: u64,
    /// Of these, items of frames behind those that the reader calls settled.
    pub(crate) unsettled: u64,
}
