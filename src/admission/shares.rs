//! What each tenant holds of what all share: memory, and the queue for the disk.
//!
//! A tenant may hold a multiple of what is free (the dynamic threshold of shared-memory switches).
//! So a tenant that is alone may hold nearly all, several that want more than there is get the same
//! each, and something is always free for one that holds little. Tenants that send nothing take
//! nothing, and the number of those that send is not needed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use uuid::Uuid;

/// A tenant may hold this many times the memory that is free: eight ninths of all if it is alone.
pub(super) const MEMORY_FACTOR: usize = 8;

/// The same for records that wait for the disk: four fifths of the queue.
pub(super) const RECORDS_FACTOR: usize = 4;

/// Tenants with shares before idle ones are looked for.
const SWEEP_LEAST: usize = 1024;

/// The shares of all tenants that hold something.
#[derive(Debug)]
pub(super) struct Shares {
    by_tenant: Mutex<ByTenant>,
    decoding: usize,
}

#[derive(Debug)]
struct ByTenant {
    shares: HashMap<Uuid, Arc<Share>>,
    sweep_at: usize,
}

/// What one tenant holds.
#[derive(Debug)]
pub(crate) struct Share {
    /// Names the tenant in the queue for the disk.
    pub(super) owner: u128,
    /// Bytes of memory.
    pub(super) bytes: AtomicUsize,
    /// Records that wait for the disk.
    pub(super) records: Arc<AtomicUsize>,
    /// Turns to decode large bodies.
    pub(super) decoding: Arc<Semaphore>,
}

/// Bytes on a tenant's account, until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Account {
    share: Option<Arc<Share>>,
    bytes: usize,
}

impl Shares {
    /// Shares whose holders decode at most `decoding` large bodies at once.
    pub(super) fn new(decoding: usize) -> Self {
        Self {
            by_tenant: Mutex::new(ByTenant {
                shares: HashMap::new(),
                sweep_at: SWEEP_LEAST,
            }),
            decoding,
        }
    }

    /// The share of a tenant.
    pub(super) fn of(&self, tenant: Uuid) -> Arc<Share> {
        let mut all = self
            .by_tenant
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = all.shares.get(&tenant) {
            return Arc::clone(share);
        }
        if all.shares.len() >= all.sweep_at {
            all.shares.retain(|_, share| Arc::strong_count(share) > 1);
            all.sweep_at = (2 * all.shares.len()).max(SWEEP_LEAST);
        }
        let share = Arc::new(Share {
            owner: tenant.as_u128(),
            bytes: AtomicUsize::new(0),
            records: Arc::default(),
            decoding: Arc::new(Semaphore::new(self.decoding)),
        });
        all.shares.insert(tenant, Arc::clone(&share));
        share
    }
}

#[cfg(test)]
impl Share {
    /// Bytes of memory that the tenant holds.
    pub(super) fn held(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Account {
    /// Puts `bytes` on the account of a share, if it may hold them while `free` bytes are free.
    pub(super) fn open(share: &Arc<Share>, bytes: usize, free: usize) -> Option<Self> {
        let held = share.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let account = Self {
            share: Some(Arc::clone(share)),
            bytes,
        };
        let left = free.saturating_sub(bytes);
        (bytes == 0 || held <= left.saturating_mul(MEMORY_FACTOR)).then_some(account)
    }

    /// Adds another account of the same share to this one.
    pub(super) fn merge(&mut self, mut other: Self) {
        if self.share.is_none() {
            std::mem::swap(self, &mut other);
            return;
        }
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Takes all but `bytes` off the account.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        if let Some(share) = &self.share {
            share.bytes.fetch_sub(surplus, Ordering::Relaxed);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_tenants_that_hold_nothing_are_dropped() {
        let shares = Shares::new(1);
        let held = shares.of(Uuid::nil());
        for n in 1..100_000_u128 {
            shares.of(Uuid::from_u128(n));
        }
        assert!(shares.by_tenant.lock().unwrap().shares.len() <= SWEEP_LEAST);
        assert!(Arc::ptr_eq(&held, &shares.of(Uuid::nil())));
    }
}
