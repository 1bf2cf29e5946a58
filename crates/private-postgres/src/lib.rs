//! Finds, fetches and runs a PostgreSQL server that one program has to itself.
//!
//! [`PrivatePostgres::start`] finds the programs of PostgreSQL or fetches them, makes a cluster in
//! a directory unless there is one, and starts a server on it that listens on a Unix socket only.
//! Dropping the value stops the server; the data stay. If the process is killed, the server runs
//! on and the next start takes it over. With [`Options::ephemeral`] server and data end with the
//! process, even if that is killed.
//!
//! Knows nothing of what the database is for.

mod binaries;
mod cluster;
mod error;
mod home;
mod identity;
mod options;
mod process;
mod server;
mod watchdog;

pub use binaries::default_cache_dir;
pub use error::LaunchError;
pub use home::make_private_dir;
pub use options::Options;
pub use server::PrivatePostgres;
