//! What a body holds, guessed from its length before it is read: it is taken to be like the last one
//! that was counted.
//!
//! A guess only decides how long a client that is refused anyway is told to wait.

/// A body that was counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    /// Its bytes as they came.
    pub(crate) length: u64,
    /// Its events.
    pub(crate) events: u64,
    /// Its bytes, after decompression.
    pub(crate) bytes: u64,
}

impl Counted {
    /// The events in a body of this length; in one that tells no length, as many as there were.
    pub(crate) fn events_in(self, length: Option<u64>) -> u64 {
        self.share_of(self.events, length)
    }

    /// The bytes of such a body, after decompression.
    pub(crate) fn bytes_in(self, length: Option<u64>) -> u64 {
        self.share_of(self.bytes, length)
    }

    /// Rounded up: a client that tries again too early is refused again, and one that waits longer than
    /// it has to finds its bucket fuller.
    fn share_of(self, number: u64, length: Option<u64>) -> u64 {
        let Some(length) = length else { return number };
        let product = u128::from(length) * u128::from(number);
        let share = product.div_ceil(u128::from(self.length.max(1)));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}
