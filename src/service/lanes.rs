//! Starts the lanes: those of a log of this process's own, or those that it shares with others.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::engine::Lanes;
use super::tasks::Tasks;
use crate::accounts::board::Board;
use crate::accounts::status::LaneStatus;
use crate::admission::record::InMemory;
use crate::drain_rate::DrainRate;
use crate::event::result::RecordResult;
use crate::event::table::Table;
use crate::log::read::{Acknowledge, Read};
use crate::metrics::Metrics;
use crate::partitions::maintain::PartitionMaintainer;
use crate::postgres::connect::Target;
use crate::writer::gather::BatchLimits;
use crate::writer::lane::{Writer, span_of};
use crate::writer::leased;
use crate::writer::leases::keeper;
use crate::writer::opening::{Opening, Place};

/// What all lanes use.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) place: Place,
    pub(super) target: Target,
    /// By table.
    pub(super) limits: [BatchLimits; Table::ALL.len()],
    pub(super) maintainer: Arc<PartitionMaintainer>,
    pub(super) drain: Arc<DrainRate>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) checks: Arc<Board>,
    /// Set once this process is fenced off and accepts nothing more.
    pub(super) fenced_off: Arc<AtomicBool>,
    /// Ends lanes that do not end with their log, soon.
    pub(super) leave: CancellationToken,
}

/// The lanes that were started.
#[derive(Default)]
pub(super) struct Started {
    pub(super) lanes: Vec<Arc<LaneStatus>>,
    pub(super) writers: Vec<AbortHandle>,
}

impl Common {
    /// Starts a task for each lane.
    pub(super) fn start<L>(self, lanes: Lanes<L>, tasks: &mut Tasks) -> Started
    where
        L: Read<InMemory, RecordResult>,
    {
        let mut started = Started::default();
        match lanes {
            Lanes::Own {
                log,
                readers,
                streams,
            } => {
                let (place, fenced_off) = (self.place.clone(), Arc::clone(&self.fenced_off));
                let opening = Opening::new(Arc::clone(&log), streams, place, fenced_off);
                let opening = Arc::new(opening);
                for (stream, reader) in readers {
                    let status = Arc::new(LaneStatus::new(stream));
                    let writer = self.writer(&status, &opening, &log, CancellationToken::new());
                    started.add(status, tasks, writer.span(), writer.run(reader));
                }
            }
            Lanes::Shared { streams, open, .. } => {
                let (keeper, leases) = keeper(self.place.clone(), &streams);
                for (stream, lease) in streams.into_iter().zip(leases) {
                    let status = Arc::new(LaneStatus::new(stream));
                    let (open, common, of_lane) =
                        (Arc::clone(&open), self.clone(), Arc::clone(&status));
                    let begin = move |leave| {
                        let (reader, log) = open(&stream);
                        let streams = vec![(stream.number, stream.table)];
                        let place = common.place.clone();
                        let fenced_off = Arc::default();
                        let opening = Opening::new(Arc::clone(&log), streams, place, fenced_off);
                        let opening = Arc::new(opening);
                        (common.writer(&of_lane, &opening, &log, leave), reader)
                    };
                    let lane = leased::run(lease, begin, self.leave.clone());
                    started.add(status, tasks, span_of(&stream), lane);
                }
                if !started.lanes.is_empty() {
                    tasks.spawn("the care for leases", keeper.run(self.target, self.leave));
                }
            }
        }
        started
    }

    fn writer(
        &self,
        status: &Arc<LaneStatus>,
        opening: &Arc<Opening>,
        log: &Arc<dyn Acknowledge>,
        leave: CancellationToken,
    ) -> Writer {
        let stream = status.stream;
        Writer {
            stream,
            target: self.target.clone(),
            limits: self.limits[stream.table as usize],
            opening: Arc::clone(opening),
            maintainer: Arc::clone(&self.maintainer),
            log: Arc::clone(log),
            drain: Arc::clone(&self.drain),
            metrics: Arc::clone(&self.metrics),
            status: Arc::clone(status),
            checks: Arc::clone(&self.checks),
            leave,
        }
    }
}

impl Started {
    fn add(
        &mut self,
        status: Arc<LaneStatus>,
        tasks: &mut Tasks,
        span: Span,
        lane: impl Future<Output = ()> + Send + 'static,
    ) {
        let (table, shard) = (status.stream.table, status.stream.shard);
        let name = format!("the writer of {table}, lane {shard}");
        self.writers.push(tasks.spawn_in(span, name, lane));
        self.lanes.push(status);
    }
}
