//! A line that says how far long work is: written over on a terminal, and nothing elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a terminal is written to at most.
const EVERY: Duration = Duration::from_millis(100);

/// A line on standard error; dropping it wipes it.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    is_terminal: bool,
    shown: Mutex<Option<Instant>>,
}

impl ProgressLine {
    pub(crate) fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            shown: Mutex::new(None),
        }
    }

    /// Whether it is shown.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Shows a text in place of the one before, unless that one is very new.
    pub(crate) fn show(&self, text: &str) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_terminal && shown.is_none_or(|at| at.elapsed() >= EVERY) {
            *shown = Some(Instant::now());
            // A terminal that is gone is not an error.
            drop(write!(std::io::stderr(), "\r\x1b[K{text}"));
        }
    }

    /// Wipes it, before something else is printed.
    pub(crate) fn wipe(&self) {
        if self.is_terminal {
            drop(write!(std::io::stderr(), "\r\x1b[K"));
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.wipe();
    }
}
