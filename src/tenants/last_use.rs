//! When keys were last used, as `last_used_at` of their tables says.
//!
//! A request leaves a mark in memory; the refresh loop writes the marks, so that no request waits
//! for it. A mark survives the snapshot that it was made in. Times are good to about a minute, and a
//! stop may lose the last of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::snapshot::Snapshot;
use crate::event::time::Micros;

/// A use within this time of the one that was written last is not written.
const GRAIN_US: i64 = 60 * 1_000_000;

/// Most keys in one statement: a refresh is not delayed by more.
const KEYS_MAX: usize = 1_000;

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

/// Two snapshots with the same keys are equal, whatever the use of the keys.
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

/// Writes the marks.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Whether the role may not write them: then it was said once, and is not tried again.
    is_refused: bool,
}

impl Writer {
    /// Writes the last use of at most [`KEYS_MAX`] keys; others follow with the next call.
    pub(super) async fn write(
        &mut self,
        client: &Client,
        snapshot: &Snapshot,
    ) -> Result<(), tokio_postgres::Error> {
        if self.is_refused {
            return Ok(());
        }
        let mut marks: Vec<(Uuid, &LastUse, Micros)> = snapshot
            .each_last_use()
            .filter_map(|(id, last_use)| Some((id, last_use, last_use.unwritten()?)))
            .take(KEYS_MAX)
            .collect();
        if marks.is_empty() {
            return Ok(());
        }
        // Several instances write the same keys: in one order they cannot wait for one another.
        marks.sort_unstable_by_key(|(id, ..)| *id);
        let ids: Vec<Uuid> = marks.iter().map(|(id, ..)| *id).collect();
        let times: Vec<Micros> = marks.iter().map(|(.., at)| *at).collect();
        for table in ["tenant_api_keys", "ingest_publish_keys"] {
            let sql = format!(
                "UPDATE {table} AS k SET last_used_at = used.at \
                 FROM unnest($1::uuid[], $2::timestamptz[]) AS used (id, at) \
                 WHERE k.id = used.id AND (k.last_used_at IS NULL OR k.last_used_at < used.at)"
            );
            match client.execute(&sql, &[&ids, &times]).await {
                Ok(_) => {}
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    self.is_refused = true;
                    tracing::info!(
                        "the role may not note when API keys were last used; GRANT UPDATE (last_used_at) ON tenant_api_keys, ingest_publish_keys to it, or ignore this"
                    );
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        for (_, last_use, at) in marks {
            last_use.set_written(at);
        }
        Ok(())
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
