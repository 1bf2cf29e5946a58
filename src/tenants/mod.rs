//! Who may call: tenants, API keys and their roles.
//!
//! The whole directory is held in memory as a [`Snapshot`] that [`TenantCache`]
//! replaces in one step, so that no request waits for the database and none sees
//! half a change. What an operator does to it is in [`admin`]. A file beside the
//! spool, [`KeyCacheFile`], stands in when a start finds no database.
//!
//! Keeps one invariant: a snapshot is one consistent reading of both tables, and
//! stays in force until a newer one was read completely.
//! Knows nothing of HTTP; callers bring the key and the time.

pub mod admin;
pub(crate) mod cache_file;
pub mod key;
pub mod refresh;
pub mod role;
pub mod snapshot;
