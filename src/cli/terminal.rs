//! What the commands share: a session, and standard output.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::config::database::Database;
use crate::postgres::session::Session;

pub(crate) async fn open(database: &Database) -> Result<Session> {
    Session::open(&database.target()?, Some(Duration::from_secs(60)))
        .await
        .map_err(|error| anyhow::anyhow!("{}", crate::postgres::error::ErrorChain(&error)))
}

/// Prints a result. A closed pipe is not an error: the reader has read enough.
pub(crate) fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the answer to standard output")
        }
        _ => Ok(()),
    }
}
