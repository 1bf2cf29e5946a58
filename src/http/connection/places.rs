//! Decides which connections stay open when there are more than the cap.
//!
//! Keeps two invariants: at most `max` connections are served in full, and at most half of those
//! belong to one client's address. Past either cap, connections that wait longest for a request are
//! evicted, as in nginx. If none waits, a few extra connections are accepted for a moment, to
//! answer health checks or 503. Pure: it has no sockets, and the time is a value.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::activity::Activity;
use super::proxies::{TrustedProxies, client};

/// Connections beyond the cap, open for a moment for a health check or a 503.
const EXTRA_MAX: usize = 16;

/// Evicted connections that are not closed yet. Past this, no further connection is accepted.
const LEAVING_MAX: usize = 64;

/// An eviction takes one in this many of the connections allowed, and at least one.
const EVICTED_OF: usize = 256;

/// Least wait before an eviction: the first bytes of a connection may still be on their way.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// How a new connection is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Within the cap.
    Regular,
    /// Beyond the cap, for a moment.
    Extra,
}

/// The cap that a new connection met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cap {
    /// The cap of its address.
    Address(IpAddr),
    /// The cap of all connections.
    All,
}

/// The open connections. `K` identifies the task of a connection.
#[derive(Debug)]
pub(crate) struct Places<K> {
    max: usize,
    trusted: TrustedProxies,
    open: HashMap<K, Open>,
    by_address: HashMap<IpAddr, usize>,
    /// Extra connections, oldest first.
    extra: VecDeque<K>,
    leaving: usize,
}

#[derive(Debug)]
struct Open {
    address: Option<IpAddr>,
    place: Place,
    leaving: bool,
    activity: Arc<Activity>,
}

impl<K: Copy + Eq + Hash> Places<K> {
    pub(crate) fn new(max: usize, trusted: TrustedProxies) -> Self {
        Self {
            max,
            trusted,
            open: HashMap::new(),
            by_address: HashMap::new(),
            extra: VecDeque::new(),
            leaving: 0,
        }
    }

    /// Whether evicted connections have to close before another is accepted.
    pub(crate) fn is_jammed(&self) -> bool {
        self.leaving >= LEAVING_MAX
    }

    /// Finds a place for a connection from `address`. Also returns the cap that it met, if any.
    pub(crate) fn find(&mut self, address: IpAddr, now: Instant) -> (Place, Option<Cap>) {
        let of_one = self.counts_for(address);
        let one_max = self.max.div_ceil(2);
        let of_address = of_one.and_then(|one| self.by_address.get(&one)).copied();
        let cap = match of_one {
            Some(one) if of_address.unwrap_or(0) >= one_max => Cap::Address(one),
            _ if self.regular() >= self.max => Cap::All,
            _ => return (Place::Regular, None),
        };
        if self.evict(cap, now) {
            return (Place::Regular, Some(cap));
        }
        // The oldest extra connection goes, or silent ones would hold all extra places.
        if self.extra.len() >= EXTRA_MAX
            && let Some(oldest) = self.extra.pop_front()
        {
            self.leave(oldest);
        }
        (Place::Extra, Some(cap))
    }

    /// Records a connection that was opened in the place found for it.
    pub(crate) fn opened(
        &mut self,
        key: K,
        address: IpAddr,
        place: Place,
        activity: Arc<Activity>,
    ) {
        let address = self.counts_for(address);
        match (place, address) {
            (Place::Extra, _) => self.extra.push_back(key),
            (Place::Regular, Some(one)) => *self.by_address.entry(one).or_default() += 1,
            (Place::Regular, None) => {}
        }
        let open = Open {
            address,
            place,
            leaving: false,
            activity,
        };
        self.open.insert(key, open);
    }

    /// Records that a connection is closed.
    pub(crate) fn closed(&mut self, key: K) {
        let Some(open) = self.open.remove(&key) else {
            return;
        };
        if open.leaving {
            self.leaving -= 1;
        }
        match open.place {
            Place::Extra => self.extra.retain(|extra| *extra != key),
            // An evicted connection has given its place back already.
            Place::Regular if !open.leaving => self.give_back(open.address),
            Place::Regular => {}
        }
    }

    /// Evicts connections that wait longest for a request; returns whether there were any. With a
    /// large `max` it takes several at once, as each search looks at all connections.
    pub(crate) fn evict(&mut self, cap: Cap, now: Instant) -> bool {
        let mut waiting: Vec<_> = self
            .open
            .iter()
            .filter(|(_, open)| !open.leaving && open.place == Place::Regular)
            .filter(|(_, open)| match cap {
                Cap::All => true,
                Cap::Address(one) => open.address == Some(one),
            })
            .filter_map(|(key, open)| {
                let (since, had_request) = open.activity.waits()?;
                // A connection that never sent a request goes before one that may send another.
                (now.saturating_duration_since(since) >= WAIT_MIN)
                    .then_some(((had_request, since), *key))
            })
            .collect();
        let count = (self.max / EVICTED_OF).max(1);
        if count < waiting.len() {
            waiting.select_nth_unstable_by_key(count, |&(order, _)| order);
            waiting.truncate(count);
        }
        for &(_, key) in &waiting {
            self.leave(key);
        }
        !waiting.is_empty()
    }

    /// The connections in regular places.
    fn regular(&self) -> usize {
        self.open.len() - self.extra.len() - self.leaving
    }

    fn leave(&mut self, key: K) {
        let open = self
            .open
            .get_mut(&key)
            .expect("the key was found in `open`");
        open.leaving = true;
        open.activity.evict();
        self.leaving += 1;
        if open.place == Place::Regular {
            let address = open.address;
            self.give_back(address);
        }
    }

    fn give_back(&mut self, address: Option<IpAddr>) {
        if let Some(one) = address
            && let Some(count) = self.by_address.get_mut(&one)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&one);
            }
        }
    }

    /// The address that a connection counts for. A trusted proxy counts for none.
    fn counts_for(&self, address: IpAddr) -> Option<IpAddr> {
        (!self.trusted.contain(address)).then(|| client(address))
    }
}

#[cfg(test)]
mod tests {
    use super::super::activity::Deadlines;
    use super::*;

    struct House {
        places: Places<usize>,
        activities: Vec<Arc<Activity>>,
        now: Instant,
    }

    impl House {
        fn new(max: usize, trusted: &str) -> Self {
            Self {
                places: Places::new(max, trusted.parse().unwrap()),
                activities: Vec::new(),
                now: Instant::now(),
            }
        }

        fn open(&mut self, address: &str) -> (Place, Option<Cap>) {
            let address = address.parse().unwrap();
            let found = self.places.find(address, self.now);
            let limits = Duration::from_secs(60);
            let deadlines = Deadlines {
                head: limits,
                idle: limits,
                write: limits,
            };
            let activity = Arc::new(Activity::new(deadlines, self.now));
            self.activities.push(Arc::clone(&activity));
            self.places
                .opened(self.activities.len() - 1, address, found.0, activity);
            found
        }

        fn is_evicted(&self, n: usize) -> bool {
            self.activities[n].waits().is_none()
        }
    }

    const A: &str = "192.0.2.1";
    const B: &str = "192.0.2.2";
    const C: &str = "192.0.2.3";

    #[test]
    fn one_address_gets_half_of_the_places_and_then_only_its_own() {
        let mut house = House::new(4, "");
        for _ in 0..2 {
            assert_eq!(house.open(A), (Place::Regular, None));
            house.now += Duration::from_millis(1);
        }
        let cap = Some(Cap::Address(A.parse().unwrap()));
        assert_eq!(house.open(A), (Place::Extra, cap));
        assert_eq!(house.open(B), (Place::Regular, None));
        house.now += WAIT_MIN;
        assert_eq!(house.open(A), (Place::Regular, cap));
        assert!(house.is_evicted(0) && !house.is_evicted(1) && !house.is_evicted(3));
        house.places.closed(0);
        assert_eq!(house.open(B), (Place::Regular, None));
    }

    #[test]
    fn at_the_cap_of_all_the_longest_waiting_goes_and_a_silent_one_first() {
        let mut house = House::new(4, "");
        house.open(A);
        drop(house.activities[0].begin());
        house.now += WAIT_MIN;
        house.open(A);
        house.open(B);
        house.open(B);
        house.now += WAIT_MIN;
        assert_eq!(house.open(C), (Place::Regular, Some(Cap::All)));
        assert!(house.is_evicted(1) || house.is_evicted(2) || house.is_evicted(3));
        assert!(!house.is_evicted(0));
    }

    #[test]
    fn where_none_waits_the_newest_few_have_a_moment_beyond_the_cap() {
        let mut house = House::new(2, "");
        house.open(A);
        house.open(B);
        let busy: Vec<_> = house.activities.iter().map(Activity::begin).collect();
        house.now += WAIT_MIN;
        for _ in 0..EXTRA_MAX {
            assert_eq!(house.open(C), (Place::Extra, Some(Cap::All)));
        }
        assert!(!house.is_evicted(2));
        assert_eq!(house.open(C), (Place::Extra, Some(Cap::All)));
        assert!(house.is_evicted(2) && !house.is_evicted(3));
        drop(busy);
        house.now = Instant::now() + WAIT_MIN;
        assert_eq!(house.open(C), (Place::Regular, Some(Cap::All)));
    }

    #[test]
    fn a_trusted_proxy_counts_only_for_all() {
        let mut house = House::new(4, "192.0.2.0/24");
        for _ in 0..4 {
            assert_eq!(house.open(A), (Place::Regular, None));
        }
        assert_eq!(house.open(A), (Place::Extra, Some(Cap::All)));
    }

    #[test]
    fn of_many_connections_some_make_room_at_a_time() {
        let mut house = House::new(1024, "192.0.2.0/24");
        for _ in 0..1024 {
            house.open(A);
        }
        house.now += WAIT_MIN;
        for n in 0..4 {
            let cap = (n == 0).then_some(Cap::All);
            assert_eq!(house.open(B), (Place::Regular, cap));
            let evicted = (0..1024).filter(|n| house.is_evicted(*n)).count();
            assert_eq!(evicted, 4);
        }
        assert_eq!(house.open(B), (Place::Regular, Some(Cap::All)));
    }

    #[test]
    fn closed_connections_leave_no_trace() {
        let mut house = House::new(2, "");
        for n in 0..100 {
            house.open(A);
            house.now += WAIT_MIN;
            if n % 3 == 0 {
                house.open(B);
            }
            for key in 0..house.activities.len() {
                house.places.closed(key);
            }
        }
        assert!(house.places.open.is_empty() && house.places.extra.is_empty());
        assert!(house.places.by_address.is_empty());
        assert_eq!(house.places.leaving, 0);
    }
}
