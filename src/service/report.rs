//! What a service leaves behind when it stops.

use std::sync::Arc;

use serde::Serialize;

use super::tasks::Fault;
use crate::accounts::ledger::Totals;
use crate::accounts::status::LaneStatus;
use crate::log::append::Capacity;
use crate::metrics::Metrics;

/// What a stopped service leaves behind, as one line of JSON for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Rows that were made durable under this spool id.
    pub accepted: u64,
    /// Of those, rows that another lineage of the spool accounts for. Below zero: the numbers below
    /// include rows of other copies. Absent if zero.
    #[serde(skip_serializing_if = "is_zero")]
    pub inherited: i64,
    /// Of those, rows that were new in Postgres.
    pub stored: u64,
    /// Of those, rows that were in Postgres already.
    pub duplicates: u64,
    /// Of those, rows that were put into quarantine.
    pub quarantined: u64,
    /// Rows that are only in the spool; the next start stores them.
    pub spooled: u64,
    /// Of the accepted rows, those that are neither in the spool nor known to be stored. Absent if
    /// zero.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// Requests refused since this start for lack of room in memory, in the spool or on its disk.
    pub refused: u64,
    /// Whether everything was done within the grace.
    pub in_time: bool,
}

impl Report {
    pub(super) fn of(
        log: &dyn Capacity,
        lanes: &[Arc<LaneStatus>],
        metrics: &Metrics,
        in_time: bool,
    ) -> Self {
        let fill = log.usage();
        let totals = |part: fn(&Totals) -> u64| -> u64 {
            let parts = lanes.iter().map(|lane| part(&lane.totals()));
            parts.fold(0, u64::saturating_add)
        };
        Self {
            accepted: fill.accepted,
            inherited: lanes.iter().map(|lane| lane.totals().inherited).sum(),
            stored: totals(|totals| totals.stored),
            duplicates: totals(|totals| totals.duplicates),
            quarantined: totals(|totals| totals.quarantined),
            spooled: fill.items,
            lost: fill.lost,
            refused: metrics.refused_for_room() + fill.refused,
            in_time,
        }
    }
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

/// A service that stopped because of a fault, and its report.
#[derive(Debug, thiserror::Error)]
#[error("{fault}; what was acknowledged is in the spool or in Postgres")]
pub struct Failed {
    pub(super) fault: Fault,
    /// What the service leaves behind.
    pub report: Report,
}
