//! What each tenant has put into the spool since it was half full: Postgres is away, or slower than
//! events come in.
//!
//! Below half nothing is counted. Past it, a tenant that is not the only one may have put in a multiple
//! of what is still free, as with memory (`shares`): so one that sends at full speed stops before the
//! cap, and what is left takes the events of the others. A tally ends once the spool is less than half
//! full. What leaves the spool in between is not taken off it, so a tenant that filled the spool may
//! wait longer than it would have to, and never shorter.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// A tenant may have put in this many times what is still free: eight ninths of the second half.
const FACTOR: u64 = 8;

/// The tallies of the tenants that send while the spool is more than half full.
#[derive(Debug, Default)]
pub(super) struct SpoolShares {
    bytes_by_tenant: Mutex<HashMap<u128, u64>>,
    /// Whether there is a tally; looked at instead of the map while there is room.
    is_counting: AtomicBool,
}

/// Bytes that still fit into the spool, and bytes that all of it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) free: u64,
    pub(super) all: u64,
}

impl Room {
    fn is_scarce(self) -> bool {
        self.free < self.all / 2
    }
}

impl SpoolShares {
    /// Whether a tenant may put in `bytes` more.
    pub(super) fn allow(&self, tenant: u128, bytes: u64, room: Room) -> bool {
        if !room.is_scarce() {
            if self.is_counting.load(Ordering::Relaxed) {
                self.tallies().clear();
                self.is_counting.store(false, Ordering::Relaxed);
            }
            return true;
        }
        let tallies = self.tallies();
        let own = tallies.get(&tenant).copied();
        let others = tallies.len() - usize::from(own.is_some());
        let left = room.free.saturating_sub(bytes);
        others == 0 || own.unwrap_or(0).saturating_add(bytes) <= left.saturating_mul(FACTOR)
    }

    /// Counts `bytes` that a tenant puts in.
    pub(super) fn count(&self, tenant: u128, bytes: u64, room: Room) {
        if room.is_scarce() {
            let mut tallies = self.tallies();
            let own = tallies.entry(tenant).or_default();
            *own = own.saturating_add(bytes);
            self.is_counting.store(true, Ordering::Relaxed);
        }
    }

    fn tallies(&self) -> std::sync::MutexGuard<'_, HashMap<u128, u64>> {
        self.bytes_by_tenant
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = 18_000;
    const STEP: u64 = 10;

    /// A spool that tenants put steps into.
    struct Spool {
        shares: SpoolShares,
        free: u64,
    }

    impl Spool {
        /// Puts in a step; false if the tenant is refused.
        fn put(&mut self, tenant: u128) -> bool {
            let room = Room {
                free: self.free,
                all: ALL,
            };
            let taken = STEP <= self.free && self.shares.allow(tenant, STEP, room);
            if taken {
                self.shares.count(tenant, STEP, room);
                self.free -= STEP;
            }
            taken
        }
    }

    #[test]
    fn a_tenant_that_is_alone_has_all_of_the_spool() {
        let mut spool = Spool {
            shares: SpoolShares::default(),
            free: ALL,
        };
        while spool.put(1) {}
        assert_eq!(spool.free, 0);
    }

    #[test]
    fn a_tenant_that_fills_the_spool_leaves_room_for_one_that_sends_little() {
        let mut spool = Spool {
            shares: SpoolShares::default(),
            free: ALL,
        };
        let mut refused = 0;
        for n in 0..4000 {
            refused += u32::from(!spool.put(1));
            // Of the other, nothing is refused.
            assert!(n % 100 != 0 || spool.put(2), "{n}: {} free", spool.free);
        }
        assert!(refused > 1000);
        assert!(spool.free >= ALL / 2 / 9 - 50 * STEP, "{}", spool.free);
        // One that comes late finds room, too.
        assert!(spool.put(3));
    }

    #[test]
    fn several_that_send_as_much_as_they_can_get_the_same_of_the_second_half() {
        let mut spool = Spool {
            shares: SpoolShares::default(),
            free: ALL / 2,
        };
        let mut got = [0; 4];
        for _ in 0..4000 {
            for (tenant, got) in (1..).zip(&mut got) {
                *got += u64::from(spool.put(tenant));
            }
        }
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        assert!(most - least <= 2, "{got:?}");
        assert!(*least * STEP > ALL / 2 / 5, "{got:?}");
    }

    #[test]
    fn a_tally_ends_when_the_spool_is_less_than_half_full() {
        let mut spool = Spool {
            shares: SpoolShares::default(),
            free: ALL / 2,
        };
        // The first step does not count yet.
        assert!(spool.put(2) && spool.put(2));
        while spool.put(1) {}
        assert!(spool.free > 0);
        // Some room again is not enough; half of it is.
        spool.free += 100 * STEP;
        assert!(spool.put(2));
        spool.free = ALL * 3 / 4;
        for _ in 0..800 {
            assert!(spool.put(1));
        }
    }
}
