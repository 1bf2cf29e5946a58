//! Limits the memory that all requests in flight hold together.
//!
//! Keeps one invariant: reserved bytes never exceed `bytes_max`. Knows nothing of events or HTTP;
//! callers say how many bytes they hold.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reserves bytes until none are left.
#[derive(Clone, Debug)]
pub struct MemoryLimit {
    free: Arc<Semaphore>,
    bytes_max: usize,
}

/// Reserved bytes; dropping it releases them.
#[derive(Debug)]
#[must_use = "the bytes are free again as soon as this is dropped"]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
}

impl MemoryLimit {
    /// A limit of `bytes_max`, at most 4 GiB (the semaphore counts in u32).
    pub fn new(bytes_max: u32) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(bytes_max)),
            bytes_max,
        }
    }

    /// Reserves `bytes`, or returns `None` at once.
    ///
    /// Never waits: a refusal tells the client to back off, and a request that waited here would
    /// hold the memory that has run out.
    pub fn reserve(&self, bytes: u32) -> Option<Reservation> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(bytes).ok()?;
        Some(Reservation { permit })
    }

    /// Bytes reserved now.
    pub fn reserved(&self) -> usize {
        let free = self.free.available_permits();
        debug_assert!(
            free <= self.bytes_max,
            "more memory was released than reserved"
        );
        self.bytes_max.saturating_sub(free)
    }

    /// The most that can be reserved.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}

impl Reservation {
    /// Adds another reservation of the same limit to this one.
    pub fn merge(&mut self, other: Reservation) {
        self.permit.merge(other.permit);
    }

    /// Releases all but `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let surplus = self.permit.num_permits().saturating_sub(bytes);
        drop(self.permit.split(surplus));
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_comes_back_and_no_more_is_lent_than_there_is() {
        let limit = MemoryLimit::new(100);
        let mut a = limit.reserve(60).unwrap();
        assert!(limit.reserve(41).is_none());
        let b = limit.reserve(40).unwrap();
        assert_eq!(limit.reserved(), 100);
        a.merge(b);
        a.shrink(30);
        assert_eq!((a.bytes(), limit.reserved()), (30, 30));
        a.shrink(50);
        assert_eq!(a.bytes(), 30);
        drop(a);
        assert_eq!(limit.reserved(), 0);
    }
}
