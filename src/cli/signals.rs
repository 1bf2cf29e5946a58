//! Signals that stop the program, and signals that do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::task::Poll;

use anyhow::{Context as _, Result};
use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Signals of service managers and people that ask for a stop.
const STOPPING: [(Number, &str); 4] = [
    (Number::TERM, "SIGTERM"),
    (Number::INT, "SIGINT"),
    (Number::HUP, "SIGHUP"),
    (Number::QUIT, "SIGQUIT"),
];

/// Signals that would end a process without a handler for them. The last one comes with a write
/// beyond the limit on a file's size, which fails as well.
const PASSED_OVER: [Number; 3] = [Number::USR1, Number::USR2, Number::XFSZ];

/// A stop by signals: the first one asks for it, the second one makes it immediate.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    begun: CancellationToken,
    at_once: CancellationToken,
    last: Arc<AtomicI32>,
    is_late: Arc<AtomicBool>,
}

impl Stop {
    /// Listens for signals from now on.
    pub(crate) fn listen() -> Result<Self> {
        let stop = Self::default();
        let listen = |number: Number, name: &'static str| {
            signal(SignalKind::from_raw(number.as_raw()))
                .map(|signal| (signal, number.as_raw(), name))
                .with_context(|| format!("cannot listen for {name}"))
        };
        let mut stopping = STOPPING
            .into_iter()
            .map(|(number, name)| listen(number, name))
            .collect::<Result<Vec<_>>>()?;
        for number in PASSED_OVER {
            // A signal with a handler does not end the process, even if it is not read.
            drop(listen(number, "a signal")?);
        }
        let told = stop.clone();
        #[expect(clippy::disallowed_methods, reason = "lives as long as the process")]
        let _signals = tokio::spawn(async move {
            let (number, signal) = next(&mut stopping).await;
            told.last.store(number, Ordering::Relaxed);
            info!(signal, "stopping");
            told.begun.cancel();
            let (number, signal) = next(&mut stopping).await;
            told.last.store(number, Ordering::Relaxed);
            warn!(
                signal,
                "stopping at once; what is in the spool is stored by the next start"
            );
            told.at_once.cancel();
        });
        Ok(stop)
    }

    /// Cancelled by the first signal.
    pub fn begun(&self) -> &CancellationToken {
        &self.begun
    }

    /// Cancelled by the second signal.
    pub fn at_once(&self) -> &CancellationToken {
        &self.at_once
    }

    /// Notes that the grace of the stop was too short.
    pub(crate) fn note_late(&self) {
        self.is_late.store(true, Ordering::Relaxed);
    }

    /// Whether the grace of the stop was too short.
    pub(crate) fn is_late(&self) -> bool {
        self.is_late.load(Ordering::Relaxed)
    }

    /// The exit code by which a shell reports a process that the signal ended.
    pub(crate) fn exit_code(&self) -> u8 {
        u8::try_from(128 + self.last.load(Ordering::Relaxed)).unwrap_or(u8::MAX)
    }
}

/// Waits for one of the signals.
async fn next(signals: &mut [(Signal, i32, &'static str)]) -> (i32, &'static str) {
    std::future::poll_fn(|cx| {
        for (signal, number, name) in &mut *signals {
            if signal.poll_recv(cx).is_ready() {
                return Poll::Ready((*number, *name));
            }
        }
        Poll::Pending
    })
    .await
}
