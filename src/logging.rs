//! Writes the log to standard error, through a thread and a bounded buffer.
//!
//! Invariant: logging never waits and never fails. A reader that does not read, a closed pipe or a
//! full disk costs lines of the log and nothing else. Lost lines are counted, and the log reports
//! their number as soon as it can be written again.

use std::any::Any;
use std::io::{self, ErrorKind, Write};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait for the thread: thousands of lines, and little memory.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// Pause when standard error would block: another program may have made a shared pipe non-blocking.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// Lines that were not written.
static LOST: AtomicU64 = AtomicU64::new(0);

static LOG: OnceLock<Buffer> = OnceLock::new();

#[derive(Debug, Default)]
struct Buffer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// The thread has taken bytes and has not finished writing them.
    is_writing: bool,
}

/// The tracing subscriber writes its lines to this.
#[derive(Clone, Copy, Debug)]
pub struct LogWriter(&'static Buffer);

/// Starts the thread that writes to standard error, and sets the panic hook; called once.
///
/// # Errors
/// If the system gives no thread.
pub fn start() -> io::Result<LogWriter> {
    let buffer = LOG.get_or_init(Buffer::default);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(|| write_for_ever(buffer))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(LogWriter(buffer))
}

/// Log lines that were lost since the start.
pub fn lost_lines() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// Writes text for people to standard error, in order with the log.
pub fn say(text: &str) {
    let line = format!("{text}\n");
    match LOG.get() {
        Some(buffer) => buffer.push(line.as_bytes()),
        // There is no log yet. If this fails, nothing else can report it.
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Waits until everything is written, at most for `limit`.
pub fn flush(limit: Duration) {
    let Some(buffer) = LOG.get() else { return };
    let deadline = Instant::now() + limit;
    let mut state = buffer.lock();
    while state.is_writing || !state.waiting.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let waited = buffer.changed.wait_timeout(state, left);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

impl Buffer {
    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > BUFFER_BYTES_MAX {
            LOST.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.extend_from_slice(line);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until there are bytes, and takes all of them.
    fn take(&self, into: &mut Vec<u8>) {
        into.clear();
        let mut state = self.lock();
        state.is_writing = false;
        self.changed.notify_all();
        while state.waiting.is_empty() {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.waiting, into);
        state.is_writing = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The bytes are whole lines at all times, so a panic elsewhere cannot have damaged them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for LogWriter {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for LogWriter {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        *self
    }
}

/// The thread's loop; it ends with the process.
fn write_for_ever(buffer: &Buffer) {
    let mut lines = Vec::new();
    let mut said = 0;
    let mut is_torn = false;
    loop {
        buffer.take(&mut lines);
        if is_torn {
            lines.insert(0, b'\n');
        }
        let written = write_all(&mut io::stderr(), &lines);
        let left = &lines[written..];
        let lost = left.iter().filter(|&&byte| byte == b'\n').count();
        if lost > 0 {
            LOST.fetch_add(lost as u64, Ordering::Relaxed);
            is_torn = lines[..written].last().is_some_and(|&byte| byte != b'\n');
            continue;
        }
        is_torn = false;
        let lost = lost_lines() - said;
        if lost > 0 {
            said += lost;
            tracing::warn!(
                lines = lost,
                "lines of the log were lost: it could not be written, or not as fast as they came"
            );
        }
    }
}

/// Writes as much as possible; returns how much that is.
fn write_all(to: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(FULL_PAUSE),
            Err(_) => break,
        }
    }
    written
}

/// The message of a panic, if it is a literal in the source: a formatted one may quote what a
/// client sent.
fn literal_message(payload: &(dyn Any + Send)) -> Option<&'static str> {
    payload.downcast_ref::<&'static str>().copied()
}

/// Logs a panic: where it is, and its message if that may be repeated.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = matches!(
        backtrace.status(),
        std::backtrace::BacktraceStatus::Captured
    )
    .then(|| backtrace.to_string());
    tracing::error!(
        location = location.unwrap_or_default(),
        thread = thread.name().unwrap_or_default(),
        panic = literal_message(panic.payload()),
        backtrace,
        "the program has a bug: it panicked"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, and fails in the end.
    struct Slow {
        taken: Vec<u8>,
        answers: Vec<io::Result<usize>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = self.answers.remove(0)?.min(bytes.len());
            self.taken.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_the_panic_messages_that_stand_in_the_source_are_repeated() {
        let said = |made: std::thread::Result<usize>| literal_message(&*made.unwrap_err());
        let fixed = || panic!("an invariant is broken");
        assert_eq!(
            said(std::panic::catch_unwind(fixed)),
            Some("an invariant is broken")
        );
        let text = "ada@example.com é".to_owned();
        assert_eq!(said(std::panic::catch_unwind(|| text[..17].len())), None);
        assert_eq!(said(std::panic::catch_unwind(|| panic!("{text}"))), None);
    }

    #[test]
    fn what_is_interrupted_or_full_for_now_is_written_again_and_an_error_ends_it() {
        let error = |kind: ErrorKind| Err(io::Error::from(kind));
        let mut slow = Slow {
            taken: Vec::new(),
            answers: vec![
                Ok(2),
                error(ErrorKind::Interrupted),
                error(ErrorKind::WouldBlock),
                Ok(3),
                error(ErrorKind::StorageFull),
            ],
        };
        assert_eq!(write_all(&mut slow, b"one\ntwo\n"), 5);
        assert_eq!(slow.taken, b"one\nt");
    }

    #[test]
    fn a_full_buffer_loses_lines_and_says_how_many() {
        let buffer = Buffer::default();
        let line = [b'x'; 1024];
        let before = lost_lines();
        for _ in 0..BUFFER_BYTES_MAX / 1024 + 3 {
            buffer.push(&line);
        }
        assert_eq!(lost_lines() - before, 3);
        assert_eq!(buffer.lock().waiting.len(), BUFFER_BYTES_MAX);
    }
}
