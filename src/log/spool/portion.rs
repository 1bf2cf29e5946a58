//! The share of one stream in a segment.

/// What a segment holds of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Portion {
    /// The last sequence; zero if there is no record.
    pub(crate) last: u64,
    pub(crate) frames: u64,
    pub(crate) items: u64,
    /// The part of `items` after the committed sequence that the scan was given.
    pub(crate) unacked: u64,
}
