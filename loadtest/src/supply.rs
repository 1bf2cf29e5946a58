//! Bodies made ahead of the connections that post them.
//!
//! Keeps one invariant: the bodies that wait never hold more than `bytes_max`. As
//! long as a whole pass fits, all of it is made before the clock starts, so that
//! making events costs the measurement nothing.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::generate::{Bodies, Body, Plan};

/// Memory is counted in these, so that its count fits a semaphore's.
const UNIT_BYTES: usize = 64;

#[derive(Debug)]
pub struct Supply {
    bodies: flume::Receiver<(Body, Option<OwnedSemaphorePermit>)>,
    /// Closed once no more bodies are taken.
    memory: Arc<Semaphore>,
    /// Whether all bodies were made before the first was taken.
    pub is_complete: bool,
}

impl Supply {
    /// Makes bodies on another thread, and waits until all are made or no more fit.
    pub async fn make(plan: &Arc<Plan>, bytes_max: usize) -> (Self, JoinHandle<()>) {
        let units = u32::try_from((bytes_max / UNIT_BYTES).max(1)).unwrap_or(u32::MAX);
        let memory = Arc::new(Semaphore::new(units as usize));
        // The bound that matters is that of the memory.
        let (sender, bodies) = flume::bounded(plan.bodies() as usize);
        let (full, is_full) = oneshot::channel();
        let maker = {
            let (plan, memory, runtime) = (plan.clone(), memory.clone(), Handle::current());
            let mut full = Some(full);
            move || {
                for body in Bodies::new(&plan) {
                    let needed = u32::try_from(body.bytes.len() / UNIT_BYTES + 1);
                    let needed = needed.unwrap_or(u32::MAX).min(units);
                    let mut permit = memory.clone().try_acquire_many_owned(needed).ok();
                    if permit.is_none() {
                        full = full.and_then(|full| full.send(()).err().and(None));
                        let room = memory.clone().acquire_many_owned(needed);
                        permit = runtime.block_on(room).ok();
                    }
                    // The pass has ended early.
                    if permit.is_none() || sender.send((body, permit)).is_err() {
                        return;
                    }
                }
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
    pub async fn next(&self) -> Option<Body> {
        if self.memory.is_closed() {
            return None;
        }
        let (body, _permit) = self.bodies.recv_async().await.ok()?;
        Some(body)
    }

    /// Ends the pass early: nothing is made or handed out any more.
    pub fn abandon(&self) {
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
    async fn a_pass_that_fits_is_made_before_the_first_body_is_taken() {
        let plan = plan();
        let (supply, maker) = Supply::make(&plan, 100 << 20).await;
        assert!(supply.is_complete && supply.bodies.len() == plan.bodies() as usize);
        maker.await.unwrap();
        assert_eq!(drain(&supply).await.len(), plan.bodies() as usize);
    }

    #[tokio::test]
    async fn the_maker_waits_for_room_and_all_bodies_come_in_order() {
        let plan = plan();
        let (supply, maker) = Supply::make(&plan, 10_000).await;
        assert!(!supply.is_complete && supply.bodies.len() < plan.bodies() as usize);
        let bodies = drain(&supply).await;
        let numbers: Vec<_> = bodies.iter().map(|body| body.number).collect();
        assert_eq!(numbers, (0..plan.bodies()).collect::<Vec<_>>());
        maker.await.unwrap();
    }

    #[tokio::test]
    async fn an_abandoned_supply_lets_its_maker_go() {
        let (supply, maker) = Supply::make(&plan(), 1_000).await;
        supply.abandon();
        maker.await.unwrap();
        assert!(supply.next().await.is_none());
    }
}
