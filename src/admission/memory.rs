//! Limits the memory that all requests in flight hold together.
//!
//! Keeps one invariant: reserved bytes never exceed `bytes_max`. Knows nothing of events or HTTP;
//! callers say how many bytes they hold.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::shares::{Account, Share};

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
    account: Account,
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
        self.reserve_with(Account::default(), bytes)
    }

    /// The same on the account of a share, which must not get too large for what is free.
    pub(super) fn reserve_for(&self, share: &Arc<Share>, bytes: u32) -> Option<Reservation> {
        let account = Account::open(
            share,
            usize::try_from(bytes).unwrap_or(usize::MAX),
            self.free.available_permits(),
        )?;
        self.reserve_with(account, bytes)
    }

    fn reserve_with(&self, account: Account, bytes: u32) -> Option<Reservation> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(bytes).ok()?;
        Some(Reservation { permit, account })
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
        self.account.merge(other.account);
    }

    /// Releases all but `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let surplus = self.permit.num_permits().saturating_sub(bytes);
        drop(self.permit.split(surplus));
        self.account.shrink(bytes);
    }

    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::shares::Shares;
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
    /// Reserves steps of ten until it is refused.
    fn fill(limit: &MemoryLimit, share: &Arc<Share>) -> Vec<Reservation> {
        std::iter::from_fn(|| limit.reserve_for(share, 10)).collect()
    }

    #[test]
    fn a_tenant_alone_holds_nearly_all_and_another_still_finds_room() {
        let limit = MemoryLimit::new(9000);
        let shares = Shares::new(1);
        let (one, other) = (shares.of(Uuid::from_u128(1)), shares.of(Uuid::from_u128(2)));
        let mut of_one = fill(&limit, &one);
        assert_eq!(of_one.len(), 800);
        let of_other = fill(&limit, &other);
        assert!(of_other.len() >= 80, "{}", of_other.len());
        assert!(limit.reserve_for(&one, 10).is_none());
        // Whenever one gives something back, the other gets it, until both have the same.
        let mut of_other = of_other;
        while let Some(back) = of_one.pop() {
            drop(back);
            if limit.reserve_for(&one, 10).is_some() {
                break;
            }
            of_other.extend(limit.reserve_for(&other, 10));
        }
        let (one_has, other_has) = (of_one.len(), of_other.len());
        assert!(
            one_has.abs_diff(other_has) <= 20,
            "{one_has} and {other_has}"
        );
        drop((of_one, of_other));
        assert_eq!(limit.reserved(), 0);
        assert_eq!((one.held(), other.held()), (0, 0));
    }
}
