//! A service inside this process, for `import --beyond-horizon` alone.
//!
//! Its spool, memory and writers are its own, so that history cannot fill those of live traffic,
//! and only this process may post events of any age. The limit of new partitions an hour holds.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Serve;
use crate::config::retention::Retention;
use crate::config::secret::Secret;
use crate::service;
use crate::service::report::Report;

/// Older than anything that was recorded.
const HORIZON_PAST: &str = "36500d";

/// The running service.
#[derive(Debug)]
pub(super) struct OwnPipeline {
    /// Where it listens.
    pub(super) url: String,
    /// The database that it stores in.
    pub(super) database_url: Secret,
    stopping: CancellationToken,
    running: JoinSet<Result<Report>>,
}

impl OwnPipeline {
    /// Starts it with a spool below `state_dir`; other settings are those of `serve` in the
    /// environment.
    ///
    /// # Errors
    /// As `serve` at its start.
    pub(super) async fn start(state_dir: &Path) -> Result<Self> {
        let spool = state_dir.join("spool");
        let make = std::fs::create_dir_all(&spool);
        make.with_context(|| format!("cannot make the directory {}", spool.display()))?;
        let mut config = Serve::parse_from([
            "--spool-dir",
            &spool.to_string_lossy(),
            "--horizon-past",
            HORIZON_PAST,
        ])
        .context("--beyond-horizon needs the settings of serve in the environment")?;
        // Only this process posts here.
        config.transport.tls_cert = None;
        config.transport.tls_key = None;
        config.transport.ops_listen = None;
        // The service removes what is old.
        config.retention = Retention::default();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(any)
            .await
            .context("cannot listen on 127.0.0.1")?;
        let url = format!("http://{}", listener.local_addr()?);
        let database_url = config.database.database_url.clone();
        let (stopping, ready) = (CancellationToken::new(), CancellationToken::new());
        let mut running = JoinSet::new();
        running.spawn(service::run(
            config,
            vec![listener],
            stopping.clone(),
            ready.clone(),
        ));
        let mut started = Self {
            url,
            database_url,
            stopping,
            running,
        };
        tokio::select! {
            () = ready.cancelled() => Ok(started),
            error = started.ended() => Err(error.context("the pipeline of this import did not start")),
        }
    }

    /// Waits until it ends by itself, which it should not.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.running.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => error.into(),
            Some(Ok(Ok(_))) | None => anyhow!("the pipeline of this import ended early"),
        }
    }

    /// Stores what is in its spool, and stops it. Returns the rows that are still there after
    /// `--shutdown-grace`.
    pub(super) async fn stop(mut self) -> Result<u64> {
        self.stopping.cancel();
        match self.running.join_next().await {
            Some(ended) => Ok(ended??.spooled),
            None => Ok(0),
        }
    }
}
