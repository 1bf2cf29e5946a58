//! Bodies made ahead of the connections that post them.
//!
//! Keeps one invariant: no more bodies wait than fit into `bytes_max` at the start. As
//! long as a whole pass fits, all of it is made before the clock starts, so that
//! making events costs the measurement nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::generate::{Bodies, Body, Plan};

#[derive(Debug)]
pub struct Supply {
    bodies: flume::Receiver<Body>,
    /// No more bodies are handed out.
    is_abandoned: AtomicBool,
    /// Whether all bodies were made before the first was taken.
    pub is_complete: bool,
}

impl Supply {
    /// Makes bodies on another thread, and waits until all are made or no more fit.
    ///
    /// The thread makes the rest, each in the place of one that is taken, and ends when
    /// the supply is dropped.
    pub async fn make(plan: &Arc<Plan>, bytes_max: usize) -> (Self, JoinHandle<()>) {
        let (plan, (ready, is_ready)) = (Arc::clone(plan), oneshot::channel());
        let maker = spawn_blocking(move || {
            let mut bodies = Bodies::new(&plan).peekable();
            let (mut first, mut bytes) = (Vec::new(), 0);
            while let Some(body) = bodies.next_if(|body| {
                bytes += body.bytes.len();
                bytes <= bytes_max
            }) {
                first.push(body);
            }
            let (sender, receiver) = flume::bounded(first.len().max(1));
            let is_complete = bodies.peek().is_none();
            first.into_iter().for_each(|body| {
                sender
                    .try_send(body)
                    .expect("there is room for all of them");
            });
            let supply = Self {
                bodies: receiver,
                is_abandoned: AtomicBool::new(false),
                is_complete,
            };
            if ready.send(supply).is_ok() {
                // The pass may end early, and take no more.
                drop(bodies.try_for_each(|body| sender.send(body)));
            }
        });
        (is_ready.await.expect("the thread makes one"), maker)
    }

    /// The next body; `None` at the end.
    pub async fn next(&self) -> Option<Body> {
        let body = self.bodies.recv_async().await.ok();
        body.filter(|_| !self.is_abandoned.load(Ordering::Relaxed))
    }

    /// Ends the pass early: no body is handed out any more.
    pub fn abandon(&self) {
        self.is_abandoned.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::test_settings;

    #[tokio::test]
    async fn bodies_come_in_order_and_those_that_fit_are_made_before_the_first_is_taken() {
        let plan = Arc::new(Plan::new(test_settings()).unwrap());
        let (abandoned, maker) = Supply::make(&plan, 1_000).await;
        abandoned.abandon();
        assert!(abandoned.next().await.is_none());
        drop(abandoned);
        maker.await.unwrap();
        for (bytes_max, is_complete) in [(100 << 20, true), (10_000, false), (1, false)] {
            let (supply, maker) = Supply::make(&plan, bytes_max).await;
            assert_eq!(supply.is_complete, is_complete);
            for number in 0..plan.bodies() {
                assert_eq!(supply.next().await.unwrap().number, number);
            }
            assert!(supply.next().await.is_none());
            maker.await.unwrap();
        }
    }
}
