//! Mutexes whose holders never panic halfway.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex. What it guards is changed in single steps, so a panic
/// elsewhere has not left it half done.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
