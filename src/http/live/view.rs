//! What the live page needs beside what all handlers share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::tap::Tap;
use crate::accounts::survey::Surveyor;

/// What the live page needs.
#[derive(Debug)]
pub struct LiveView {
    /// The verdicts of the last bodies.
    pub(crate) tap: Tap,
    /// What Postgres says.
    pub(crate) surveyor: Arc<Surveyor>,
    /// The variables that `dev` writes; `None`: the page needs a key.
    pub(crate) env_file: Option<PathBuf>,
    /// The port of `--listen`.
    pub(crate) ingest_port: u16,
    /// Whether that port speaks HTTPS.
    pub(crate) is_https: bool,
    /// Whether this page is on another port, that of `--ops-listen`.
    pub(crate) is_apart: bool,
    /// When the service was started.
    pub(crate) started: Instant,
}
