//! Bodies made ahead of those who post them.
//!
//! Keeps one invariant: the bodies that wait never hold more than a body beyond
//! `bytes_max`. As long as a whole pass fits, all of it is made before the clock
//! starts, so that making events costs the measurement nothing, and later passes
//! post the very same bytes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::generate::body::{Bodies, Body};
use crate::generate::event::Events;
use crate::generate::plan::Plan;
use crate::generate::settings::Settings;

/// The bodies of one pass, in order.
#[derive(Debug)]
pub(crate) struct Supply {
    state: Mutex<State>,
    bytes_max: usize,
    /// For the maker: there is room again, or nobody takes any more.
    room: Condvar,
    /// For those who post: there is a body, or the end.
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Body>,
    bytes: usize,
    ended: bool,
    abandoned: bool,
}

/// A pass that fitted into memory whole.
#[derive(Clone, Debug)]
pub(crate) struct Kept(Arc<[Body]>);

impl Supply {
    /// Empty, with room for `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            bytes_max,
            room: Condvar::new(),
            filled: Notify::new(),
        }
    }

    /// All bodies of an earlier pass once more.
    pub(crate) fn again(kept: &Kept) -> Self {
        let supply = Self::new(usize::MAX);
        {
            let mut state = supply.lock();
            state.waiting.extend(kept.0.iter().cloned());
            state.ended = true;
        }
        supply
    }

    /// Makes all bodies, as fast as they are taken; blocks meanwhile.
    ///
    /// Returns them for another pass if all of them fitted at once.
    pub(crate) fn fill(&self, settings: &Settings, plan: &Plan) -> Option<Kept> {
        let mut kept = Some((Vec::new(), 0));
        for body in Bodies::new(Events::new(settings, plan)) {
            kept = kept.and_then(|(mut bodies, bytes)| {
                let bytes = bytes + body.bytes.len();
                bodies.push(body.clone());
                (bytes <= self.bytes_max).then_some((bodies, bytes))
            });
            if !self.put(body) {
                return None;
            }
        }
        self.lock().ended = true;
        self.filled.notify_waiters();
        self.room.notify_all();
        kept.map(|(bodies, _)| Kept(bodies.into()))
    }

    /// Waits for room; `false` once nobody takes bodies any more.
    fn put(&self, body: Body) -> bool {
        let mut state = self.lock();
        while state.bytes > self.bytes_max && !state.abandoned {
            state = self.room.wait(state).expect("nobody panics with the lock");
        }
        if state.abandoned {
            return false;
        }
        state.bytes += body.bytes.len();
        state.waiting.push_back(body);
        // Those who wait to start are told when no more fits.
        let full = state.bytes > self.bytes_max;
        drop(state);
        self.filled.notify_one();
        if full {
            self.room.notify_all();
        }
        true
    }

    /// Blocks until everything is made, or no more fits.
    pub(crate) fn wait_until_full(&self) {
        let mut state = self.lock();
        while !state.ended && !state.abandoned && state.bytes <= self.bytes_max {
            state = self.room.wait(state).expect("nobody panics with the lock");
        }
    }

    /// Whether all bodies are made.
    pub(crate) fn is_complete(&self) -> bool {
        self.lock().ended
    }

    /// The next body; `None` at the end.
    pub(crate) async fn next(&self) -> Option<Body> {
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            // Enabled before looking, so that no body goes unnoticed in between.
            filled.as_mut().enable();
            {
                let mut state = self.lock();
                if let Some(body) = state.waiting.pop_front() {
                    state.bytes = state.bytes.saturating_sub(body.bytes.len());
                    // Waking the maker for every body would cost more than it makes.
                    let has_room = state.bytes <= self.bytes_max / 2;
                    drop(state);
                    if has_room {
                        self.room.notify_all();
                    }
                    return Some(body);
                }
                if state.ended || state.abandoned {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// Ends the pass early: nothing is made or handed out any more.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.waiting.clear();
        state.bytes = 0;
        drop(state);
        self.room.notify_all();
        self.filled.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::sample;

    async fn drain(supply: &Supply) -> Vec<Body> {
        let mut bodies = Vec::new();
        while let Some(body) = supply.next().await {
            bodies.push(body);
        }
        bodies
    }

    #[tokio::test]
    async fn a_pass_that_fits_is_kept_and_comes_again_byte_for_byte() {
        let settings = sample::settings();
        let plan = Plan::new(&settings).unwrap();
        let supply = Supply::new(100 << 20);
        let kept = supply.fill(&settings, &plan).expect("it fits");
        supply.wait_until_full();
        let first = drain(&supply).await;
        let second = drain(&Supply::again(&kept)).await;
        assert_eq!(first.len(), plan.bodies() as usize);
        assert!(
            first
                .iter()
                .zip(&second)
                .all(|(a, b)| a.number == b.number && a.bytes == b.bytes)
        );
    }

    #[tokio::test]
    async fn the_maker_waits_for_room_and_all_bodies_come_in_order() {
        let settings = sample::settings();
        let plan = Arc::new(Plan::new(&settings).unwrap());
        let supply = Arc::new(Supply::new(10_000));
        let maker = {
            let (supply, plan) = (Arc::clone(&supply), Arc::clone(&plan));
            std::thread::spawn(move || supply.fill(&settings, &plan).is_none())
        };
        supply.wait_until_full();
        assert!(supply.lock().waiting.len() < plan.bodies() as usize);
        let bodies = drain(&supply).await;
        let numbers: Vec<_> = bodies.iter().map(|body| body.number).collect();
        assert_eq!(numbers, (0..plan.bodies()).collect::<Vec<_>>());
        assert!(maker.join().unwrap(), "a pass that never fitted was kept");
    }

    #[tokio::test]
    async fn an_abandoned_supply_lets_its_maker_go() {
        let settings = sample::settings();
        let plan = Plan::new(&settings).unwrap();
        let supply = Arc::new(Supply::new(1_000));
        let maker = {
            let supply = Arc::clone(&supply);
            std::thread::spawn(move || supply.fill(&settings, &plan).is_none())
        };
        supply.wait_until_full();
        supply.abandon();
        assert!(maker.join().unwrap());
        assert!(supply.next().await.is_none());
    }
}
