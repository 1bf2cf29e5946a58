//! Starts the writers of a spool's lanes.

use std::sync::Arc;

use tokio::task::AbortHandle;

use super::tasks::Tasks;
use crate::accounts::board::Board;
use crate::accounts::ledger::Stream;
use crate::accounts::status::LaneStatus;
use crate::admission::record::{shard_of, table_of};
use crate::drain_rate::DrainRate;
use crate::event::table::Table;
use crate::log::spool::shared::Spool;
use crate::metrics::Metrics;
use crate::partitions::maintain::PartitionMaintainer;
use crate::postgres::connect::Target;
use crate::writer::gather::{BatchLimits, Records};
use crate::writer::lane::Writer;
use crate::writer::opening::Opening;

/// What all writers of a process share.
pub(super) struct Shared<'s> {
    pub(super) target: &'s Target,
    pub(super) spool: &'s Spool,
    pub(super) opening: &'s Arc<Opening>,
    pub(super) maintainer: &'s Arc<PartitionMaintainer>,
    pub(super) drain: &'s Arc<DrainRate>,
    pub(super) metrics: &'s Arc<Metrics>,
    pub(super) checks: &'s Arc<Board>,
}

/// The lanes of a spool, and their writers in the same order.
pub(super) struct Lanes {
    pub(super) statuses: Vec<Arc<LaneStatus>>,
    pub(super) writers: Vec<AbortHandle>,
}

impl Shared<'_> {
    /// Starts a writer for each lane.
    pub(super) fn start(
        &self,
        readers: Vec<Records>,
        limits: impl Fn(Table) -> BatchLimits,
        stages: &mut Tasks,
    ) -> Lanes {
        let (mut statuses, mut writers) = (Vec::new(), Vec::new());
        for reader in readers {
            let stream = Stream {
                spool: self.spool.id(),
                lineage: self.spool.history().lineage(),
                number: reader.stream(),
                table: table_of(reader.stream()),
            };
            let status = Arc::new(LaneStatus::new(stream));
            statuses.push(Arc::clone(&status));
            let writer = Writer {
                stream,
                target: self.target.clone(),
                limits: limits(stream.table),
                opening: Arc::clone(self.opening),
                maintainer: Arc::clone(self.maintainer),
                spool: self.spool.clone(),
                drain: Arc::clone(self.drain),
                metrics: Arc::clone(self.metrics),
                status,
                checks: Arc::clone(self.checks),
            };
            let shard = shard_of(stream.number);
            let name = format!("the writer of {}, lane {shard}", stream.table);
            writers.push(stages.spawn_in(writer.span(), name, writer.run(reader)));
        }
        Lanes { statuses, writers }
    }
}
