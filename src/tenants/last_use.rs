//! When keys were last used, as `last_used_at` of their tables says.
//!
//! A request leaves a mark in memory; the refresh loop writes the marks, so that no request waits
//! for it. A mark survives the snapshot that it was made in. Times are good to about a minute, and a
//! stop may lose the last of them.

pub(super) mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::event::time::Micros;

/// A use within this time of the one that was written last is not written.
const GRAIN_US: i64 = 60 * 1_000_000;

/// The last use of one key, shared by the snapshots that the key is in.
#[derive(Clone, Debug, Default)]
pub(super) struct LastUse(Arc<Marks>);

#[derive(Debug, Default)]
struct Marks {
    /// The last use, in µs since 1970; 0: never.
    used_us: AtomicI64,
    /// The last use that was written.
    written_us: AtomicI64,
}

/// Two snapshots with the same keys are equal, also if the use of the keys differs.
impl PartialEq for LastUse {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for LastUse {}

impl LastUse {
    /// Notes a use.
    pub(super) fn mark(&self, now_us: i64) {
        self.0.used_us.store(now_us, Ordering::Relaxed);
    }

    /// The use to write, if there is one.
    fn unwritten(&self) -> Option<Micros> {
        let used_us = self.0.used_us.load(Ordering::Relaxed);
        let written_us = self.0.written_us.load(Ordering::Relaxed);
        (used_us > written_us.saturating_add(GRAIN_US)).then_some(Micros(used_us))
    }

    fn set_written(&self, at: Micros) {
        self.0.written_us.store(at.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_written_once_a_minute() {
        let (last_use, shared) = {
            let last_use = LastUse::default();
            (last_use.clone(), last_use)
        };
        assert_eq!(shared.unwritten(), None);
        let start_us = 1_790_000_000_000_000;
        last_use.mark(start_us);
        assert_eq!(shared.unwritten(), Some(Micros(start_us)));
        shared.set_written(Micros(start_us));
        last_use.mark(start_us + GRAIN_US);
        assert_eq!(shared.unwritten(), None);
        last_use.mark(start_us + GRAIN_US + 1);
        assert_eq!(shared.unwritten(), Some(Micros(start_us + GRAIN_US + 1)));
    }
}
