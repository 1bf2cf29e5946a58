//! Limits the memory of bodies that are still arriving.
//!
//! Keeps two invariants: such bodies hold at most half of the memory limit, and those of one key at
//! most a quarter. So senders that do not finish cannot shut out others. Rows that wait for
//! Postgres do not count, or an outage would shut a key out. Each share has room for one largest
//! body.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// What a request takes apart from its body: a stream, a task, buffers. Counted so that small
/// bodies are bounded in number, too.
const REQUEST_BYTES: usize = 8 * 1024;

/// The shares, and what is used of them.
#[derive(Clone, Debug)]
pub struct Arrivals {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    all_max: usize,
    key_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_key: HashMap<Uuid, usize>,
}

/// The share that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The key's share, of this many bytes.
    Key(usize),
    /// The share of all keys.
    All,
}

/// A body that is arriving; dropping it releases its share.
#[derive(Debug)]
pub struct Arriving {
    shared: Arc<Shared>,
    key: Uuid,
    held: usize,
}

impl Arrivals {
    /// Shares of a memory limit of `memory_bytes`, for bodies of up to `body_bytes_max`.
    pub fn new(memory_bytes: usize, body_bytes_max: usize) -> Self {
        let one = body_bytes_max.saturating_add(REQUEST_BYTES);
        Self {
            shared: Arc::new(Shared {
                all_max: (memory_bytes / 2).max(one),
                key_max: (memory_bytes / 4).max(one),
                held: Mutex::default(),
            }),
        }
    }

    /// Begins a body of the key.
    pub fn begin(&self, key: Uuid) -> Arriving {
        Arriving {
            shared: Arc::clone(&self.shared),
            key,
            held: 0,
        }
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arriving {
    /// Records that the body waits for more bytes and has `bytes` reserved.
    pub fn waits_with(&mut self, bytes: usize) -> Result<(), Spent> {
        let wanted = bytes.saturating_add(REQUEST_BYTES);
        let more = wanted.saturating_sub(self.held);
        if more == 0 {
            return Ok(());
        }
        let mut held = self.shared.held();
        let of_key = held.by_key.get(&self.key).copied().unwrap_or(0);
        if of_key + more > self.shared.key_max {
            return Err(Spent::Key(self.shared.key_max));
        }
        if held.all + more > self.shared.all_max {
            return Err(Spent::All);
        }
        held.all += more;
        held.by_key.insert(self.key, of_key + more);
        self.held = wanted;
        Ok(())
    }

    /// Releases the share: the body has arrived, or is no longer read.
    pub fn end(&mut self) {
        let bytes = std::mem::take(&mut self.held);
        if bytes == 0 {
            return;
        }
        let mut held = self.shared.held();
        let of_key = held.by_key.get(&self.key).copied().unwrap_or(0);
        debug_assert!(
            bytes <= of_key && of_key <= held.all,
            "a body releases more of its share than it has reserved"
        );
        // Runs while a request panics, too: then another panic would end the process.
        held.all = held.all.saturating_sub(bytes);
        match of_key.saturating_sub(bytes) {
            0 => drop(held.by_key.remove(&self.key)),
            left => drop(held.by_key.insert(self.key, left)),
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn one_key_holds_a_quarter_and_all_of_them_half() {
        let arrivals = Arrivals::new(128 * MIB, 8 * MIB);
        let keys: Vec<_> = (0..3).map(Uuid::from_u128).collect();
        let mut open = Vec::new();
        for key in &keys[..2] {
            for _ in 0..3 {
                let mut body = arrivals.begin(*key);
                body.waits_with(8 * MIB).unwrap();
                open.push(body);
            }
            let mut fourth = arrivals.begin(*key);
            assert_eq!(fourth.waits_with(8 * MIB), Err(Spent::Key(32 * MIB)));
            // A smaller body has room.
            fourth.waits_with(7 * MIB).unwrap();
            open.push(fourth);
        }
        let mut other = arrivals.begin(keys[2]);
        assert_eq!(other.waits_with(8 * MIB), Err(Spent::All));
        open.remove(0);
        other.waits_with(8 * MIB).unwrap();
        drop((open, other));
        let held = arrivals.shared.held();
        assert_eq!((held.all, held.by_key.len()), (0, 0));
    }

    #[test]
    fn bodies_of_no_bytes_are_bounded_in_number() {
        let arrivals = Arrivals::new(4 * MIB, MIB);
        let mut open = Vec::new();
        loop {
            let mut body = arrivals.begin(Uuid::nil());
            if body.waits_with(0).is_err() {
                break;
            }
            // Waiting again takes no more.
            body.waits_with(0).unwrap();
            open.push(body);
        }
        assert!((100..=150).contains(&open.len()), "{}", open.len());
    }

    #[test]
    fn a_small_limit_still_takes_one_largest_body() {
        let arrivals = Arrivals::new(64 * 1024, 8 * MIB);
        let mut body = arrivals.begin(Uuid::nil());
        body.waits_with(8 * MIB).unwrap();
    }
}
