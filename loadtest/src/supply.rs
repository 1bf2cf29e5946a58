//! Bodies made ahead of the connections that post them.
//!
//! Keeps one invariant: the bodies that wait never hold more than `bytes_max`. As
//! long as a whole pass fits, all of it is made before the clock starts, so that
//! making events costs the measurement nothing, and later passes post the very
//! same bytes.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};
use tokio::task::JoinHandle;

use crate::generate::{Bodies, Body, Plan};

/// Memory is counted in these, so that its count fits a semaphore's.
const UNIT_BYTES: usize = 64;

/// The bodies of one pass, in order.
#[derive(Debug)]
pub(crate) struct Supply {
    bodies: flume::Receiver<(Body, Option<OwnedSemaphorePermit>)>,
    /// Closed once no more bodies are taken.
    memory: Arc<Semaphore>,
    /// Whether all bodies were made before the first was taken.
    pub(crate) is_complete: bool,
}

/// The bodies of a pass that fitted into memory whole.
pub(crate) type Kept = Vec<Body>;

impl Supply {
    /// All bodies of an earlier pass once more.
    pub(crate) fn again(kept: &Kept) -> Self {
        let (sender, bodies) = flume::bounded(kept.len());
        for body in kept {
            let sent = sender.send((body.clone(), None));
            sent.expect("the queue has room for all");
        }
        Self {
            bodies,
            memory: Arc::new(Semaphore::new(1)),
            is_complete: true,
        }
    }

    /// Makes bodies on a thread of its own, and waits until all are made or no more fit.
    ///
    /// The thread gives them back for another pass if all of them fitted at once.
    pub(crate) async fn make(
        plan: &Arc<Plan>,
        bytes_max: usize,
    ) -> (Self, JoinHandle<Option<Kept>>) {
        let units = u32::try_from((bytes_max / UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
        let memory = Arc::new(Semaphore::new(units as usize));
        // The bound that matters is that of the memory.
        let (sender, bodies) = flume::bounded(plan.bodies() as usize);
        let (full, is_full) = oneshot::channel();
        let maker = {
            let (plan, memory, runtime) = (plan.clone(), memory.clone(), Handle::current());
            move || {
                let mut kept = Some(Vec::new());
                let mut full = Some(full);
                for body in Bodies::new(&plan) {
                    let needed = u32::try_from(body.bytes.len() / UNIT_BYTES + 1);
                    let needed = needed.unwrap_or(u32::MAX).min(units);
                    let permit = match memory.clone().try_acquire_many_owned(needed) {
                        Err(TryAcquireError::NoPermits) => {
                            kept = None;
                            if let Some(full) = full.take() {
                                full.send(()).ok()?;
                            }
                            runtime
                                .block_on(memory.clone().acquire_many_owned(needed))
                                .ok()?
                        }
                        permit => permit.ok()?,
                    };
                    if let Some(kept) = &mut kept {
                        kept.push(body.clone());
                    }
                    sender.send((body, Some(permit))).ok()?;
                }
                kept
            }
        };
        let maker = tokio::task::spawn_blocking(maker);
        let supply = Self {
            bodies,
            memory,
            // The sender is dropped where everything was made.
            is_complete: is_full.await.is_err(),
        };
        (supply, maker)
    }

    /// The next body; `None` at the end.
    pub(crate) async fn next(&self) -> Option<Body> {
        if self.memory.is_closed() {
            return None;
        }
        let (body, _permit) = self.bodies.recv_async().await.ok()?;
        Some(body)
    }

    /// Ends the pass early: nothing is made or handed out any more.
    pub(crate) fn abandon(&self) {
        self.memory.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::test_settings;

    async fn drain(supply: &Supply) -> Vec<Body> {
        let mut bodies = Vec::new();
        while let Some(body) = supply.next().await {
            bodies.push(body);
        }
        bodies
    }

    fn plan() -> Arc<Plan> {
        Arc::new(Plan::new(test_settings()).unwrap())
    }

    #[tokio::test]
    async fn a_pass_that_fits_is_kept_and_comes_again_byte_for_byte() {
        let plan = plan();
        let (supply, maker) = Supply::make(&plan, 100 << 20).await;
        assert!(supply.is_complete);
        let first = drain(&supply).await;
        let kept = maker.await.unwrap().expect("it fits");
        let second = drain(&Supply::again(&kept)).await;
        assert_eq!(first.len(), plan.bodies() as usize);
        let same = |(a, b): (&Body, &Body)| a.number == b.number && a.bytes == b.bytes;
        assert!(first.iter().zip(&second).all(same));
    }

    #[tokio::test]
    async fn the_maker_waits_for_room_and_all_bodies_come_in_order() {
        let plan = plan();
        let (supply, maker) = Supply::make(&plan, 10_000).await;
        assert!(!supply.is_complete && supply.bodies.len() < plan.bodies() as usize);
        let bodies = drain(&supply).await;
        let numbers: Vec<_> = bodies.iter().map(|body| body.number).collect();
        assert_eq!(numbers, (0..plan.bodies()).collect::<Vec<_>>());
        let kept = maker.await.unwrap();
        assert!(kept.is_none(), "a pass that never fitted was kept");
    }

    #[tokio::test]
    async fn an_abandoned_supply_lets_its_maker_go() {
        let (supply, maker) = Supply::make(&plan(), 1_000).await;
        supply.abandon();
        assert!(maker.await.unwrap().is_none());
        assert!(supply.next().await.is_none());
    }
}
