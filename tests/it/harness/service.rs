//! A service inside the test's process.

use std::sync::Arc;

use anyhow::Result;
use recsys_ingest::config::Serve;
use recsys_ingest::service;
use recsys_ingest::service::engine::{Engine, LocalSpool};
use recsys_ingest::service::report::Report;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SOON;
use super::database::Database;
use super::http::{Client, Reply};
use super::settings::Settings;

/// A running service; dropping it begins the stop.
pub struct Service {
    pub database: Database,
    client: Client,
    stopping: CancellationToken,
    running: Option<JoinHandle<Result<Report>>>,
    _spool: Arc<TempDir>,
}

impl Service {
    /// On a new database, with the tests' defaults.
    pub async fn start() -> Self {
        Self::with(|settings| settings).await
    }

    /// On a new database, with other settings.
    pub async fn with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let database = Database::with_tenants().await;
        Self::on(&database, change).await
    }

    /// On a shared database.
    pub async fn on(database: &Database, change: impl FnOnce(Settings) -> Settings) -> Self {
        Self::on_log(LocalSpool, database, change).await
    }

    /// On another log than the spool.
    pub async fn on_log<E: Engine + 'static>(
        engine: E,
        database: &Database,
        change: impl FnOnce(Settings) -> Settings,
    ) -> Self {
        let settings = change(Settings::new(database));
        let config: Serve = settings.parse();
        // Shows the service's log if RUST_LOG is set.
        drop(
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .with_test_writer()
                .try_init(),
        );
        let addresses = config.http.listen[0].resolve().unwrap();
        let listener = TcpListener::bind(&addresses[..]).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stopping, ready) = (CancellationToken::new(), CancellationToken::new());
        let listeners = vec![listener];
        let run = service::run_on(engine, config, listeners, stopping.clone(), ready.clone());
        let mut running = tokio::spawn(run);
        tokio::select! {
            () = ready.cancelled() => {}
            ended = &mut running => panic!("the service ended: {ended:?}"),
            () = tokio::time::sleep(SOON) => panic!("the service is not ready"),
        }
        Self {
            database: database.clone(),
            client: Client::new(address),
            stopping,
            running: Some(running),
            _spool: settings.spool,
        }
    }

    /// A client of the tenant `demo` with the role `ingest`.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Posts JSON to the endpoint for exposures.
    pub async fn exposures(&self, body: &Value) -> Reply {
        self.client.post("/v1/exposures", body).await
    }

    /// Posts JSON to the endpoint for interactions.
    pub async fn interactions(&self, body: &Value) -> Reply {
        self.client.post("/v1/interactions", body).await
    }

    /// The value of a sample in `/metrics`, 0 if it is missing.
    pub async fn metric(&self, sample: &str) -> f64 {
        let text = self.client.get("/metrics").await.text;
        let found = text.lines().find_map(|line| {
            let rest = line.strip_prefix(sample)?;
            rest.strip_prefix(' ')?.parse().ok()
        });
        found.unwrap_or(0.0)
    }

    /// Waits until no body is in memory: a moment after its answer.
    pub async fn memory_is_free(&self) {
        super::eventually("no byte in memory", async || {
            self.metric("recsys_ingest_queue_bytes").await == 0.0
        })
        .await;
    }

    /// Tells the service to stop; does not wait.
    pub fn begin_stop(&self) {
        self.stopping.cancel();
    }

    /// Stops the service and returns how it ended.
    pub async fn stop(mut self) -> Result<Report> {
        self.stopping.cancel();
        let running = self.running.take().unwrap();
        tokio::time::timeout(SOON, running)
            .await
            .expect("the service does not stop")
            .unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}
