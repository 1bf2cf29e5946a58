//! Tenants, their API keys, and the keys' roles.
//!
//! All tenants and keys are in memory as a [`Snapshot`](snapshot::Snapshot) that
//! [`TenantCache`](refresh::TenantCache) replaces in one step. No request waits for the database
//! (except one with a key or tenant that is unknown, for a second at most, see [`lookup`]), and none
//! sees half a change. An operator's commands are in [`admin`]. The key
//! cache file in the spool directory (`cache_file`) is used when the service starts without the
//! database.
//!
//! Invariant: a snapshot is one consistent reading of all tables, and stays in force until a newer
//! one was read completely.
//!
//! Knows nothing of HTTP; callers pass the key and the time.

pub mod admin;
pub(crate) mod cache_file;
pub mod key;
mod last_use;
pub mod lookup;
mod origin_set;
pub mod refresh;
pub mod role;
mod rows;
pub mod settings;
pub mod snapshot;
