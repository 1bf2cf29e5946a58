//! A reader's window, and whose turn it is where there are fewer windows than partitions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;

use crate::acks::Acks;
use crate::client::Context;
use crate::windows::{Window, Windows};

/// The library's queue of a partition.
pub type Queue = StreamPartitionQueue<Context>;

/// Who has a window keeps it this long at least, and longer only while there is more to read: the library
/// needs a moment to begin.
const TURN_LEAST: Duration = Duration::from_millis(250);

/// Who reads without a pause gives its window back after this long.
const TURN_MOST: Duration = Duration::from_secs(1);

/// Pause before the next look whether all that was read is stored.
const STORED_AGAIN: Duration = Duration::from_millis(10);

/// A reader's turn.
pub struct Turn {
    windows: Arc<Windows>,
    window: Option<Window>,
    /// When the library began to read.
    since: Instant,
    /// The window is to be given back.
    is_over: bool,
    /// What has to happen before the library reads.
    pause: Option<Pause>,
}

/// What a reader waits for.
enum Pause {
    /// What was read is to be stored. The queue has what was fetched since.
    Stored(Queue),
    /// A window is to become free.
    Window,
    /// Time is to pass: there is nothing new.
    Until(Instant),
}

impl Turn {
    /// No turn yet.
    pub fn new(windows: Arc<Windows>) -> Self {
        Self {
            windows,
            window: None,
            since: Instant::now(),
            is_over: false,
            pause: None,
        }
    }

    /// Takes a window, or notes what to wait for: `has_more` says whether there is something to read.
    pub fn take_window(&mut self, has_more: bool) -> bool {
        if self.window.is_none() {
            self.window = self.windows.try_take();
        }
        if self.window.is_none() {
            self.pause = Some(match has_more {
                true => Pause::Window,
                false => Pause::Until(Instant::now() + self.windows.look_after()),
            });
        }
        self.window.is_some()
    }

    /// The library reads from now on.
    pub fn begin(&mut self) {
        (self.since, self.is_over) = (Instant::now(), false);
    }

    /// Whether something has to happen before the library reads: see [`Turn::wait`].
    pub fn is_pausing(&self) -> bool {
        self.pause.is_some()
    }

    /// Whether the turn is over: others wait, and this reader has read for long, or has nothing to read.
    pub fn is_over(&mut self) -> bool {
        self.is_over |= self.windows.are_wanted() && self.since.elapsed() >= TURN_MOST;
        self.is_over
    }

    /// Waits until others wait for a window and there was time to read. The caller has nothing to read.
    pub async fn is_wanted(&self) {
        tokio::time::sleep_until((self.since + TURN_LEAST).into()).await;
        self.windows.wanted().await;
    }

    /// Ends the turn: others wait, and there is nothing to read.
    pub fn end(&mut self) {
        self.is_over = true;
    }

    /// Gives the window back once all that was read is stored. `queue` is of no use any more.
    pub fn give_way(&mut self, queue: Option<Queue>) {
        self.is_over = false;
        match queue {
            Some(queue) => self.pause = Some(Pause::Stored(queue)),
            None => self.window = None,
        }
    }

    /// Gives the window back while nothing can be read, unless something that was read is not stored.
    pub fn give_up(&mut self, acks: &Acks) {
        if !self.is_pausing() && acks.are_all_acked() {
            self.window = None;
        }
    }

    /// Waits for what has to happen, or a part of it. Cancel safe.
    pub async fn wait(&mut self, acks: &Acks) {
        match &self.pause {
            None => {}
            Some(Pause::Stored(queue)) => {
                tokio::time::sleep(STORED_AGAIN).await;
                // An answer of the brokers may have been under way.
                empty(queue);
                if acks.are_all_acked() {
                    (self.pause, self.window) = (None, None);
                }
            }
            Some(Pause::Window) => {
                self.window = Some(self.windows.take().await);
                self.pause = None;
            }
            Some(Pause::Until(at)) => {
                tokio::time::sleep_until((*at).into()).await;
                self.pause = None;
            }
        }
    }
}

/// Drops what the library has in a queue.
pub fn empty(queue: &Queue) {
    while queue.recv().now_or_never().is_some() {}
}
