//! What a library has to live through: its key is over its limit for a while, then under it, and in the
//! middle of its events the service is started again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use recsys_ingest::tenants::role::Role;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::cors;
use crate::harness::{Client, Database, Process, Settings, click, eventually, key, one};

/// Events a second that the key may send, and at once.
const PER_SECOND: usize = 100;
const BURST: usize = 50;

/// How hard it is.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub events: i64,
    /// For so long every request is refused with 429.
    pub refused_seconds: usize,
    /// Whether the service is killed; else it is told to stop.
    pub is_killed: bool,
}

/// An address that stays the same while the service behind it does not, as that of a load balancer.
struct Front {
    address: SocketAddr,
    behind: Arc<Mutex<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Front {
    async fn before(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = Arc::new(Mutex::new(service));
        let shared = Arc::clone(&behind);
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let service = *shared.lock().unwrap_or_else(PoisonError::into_inner);
                tokio::spawn(async move {
                    // Where there is none, the client finds its connection closed.
                    if let Ok(mut service) = TcpStream::connect(service).await {
                        drop(tokio::io::copy_bidirectional(&mut client, &mut service).await);
                    }
                });
            }
        });
        Self {
            address,
            behind,
            task,
        }
    }

    fn aim(&self, service: SocketAddr) {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = service;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The service that a library posts to.
pub struct Ordeal {
    pub trial: Trial,
    pub secret: String,
    database: Database,
    settings: Settings,
    process: Process,
    client: Client,
    front: Front,
}

impl Ordeal {
    /// Starts a service whose key for `role` has a limit.
    pub async fn begin(trial: Trial, role: Role, origins: Value) -> Self {
        let database = Database::with_tenants().await;
        let secret = key("demo", role);
        let limits = json!({"events_per_second": PER_SECOND, "events_burst": BURST});
        let mut own = json!({"limits": limits});
        if !origins.is_null() {
            own["origins"] = origins;
        }
        cors::set_key(&database, &secret, &own).await;
        let settings = Settings::new(&database)
            .with("--default-ack", "durable")
            .with("--limits-publish-address", "");
        let (process, client) = Process::serve(&settings);
        let front = Front::before(client.address).await;
        Self {
            trial,
            secret,
            database,
            settings,
            process,
            client,
            front,
        }
    }

    /// Takes the key over its limit: from now on every request is refused for a while.
    pub async fn refuse(&self) {
        // A body of more than there is room for is taken on, and later ones wait for its debt.
        let body: Value = (0..PER_SECOND * self.trial.refused_seconds + BURST)
            .map(|n| {
                let mut event = click(&format!("debt {n}"));
                event["item_id"] = "debt".into();
                event
            })
            .collect();
        let sender = self.client.header("x-api-key", &self.secret);
        let reply = sender.post("/v1/interactions", &body).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
    }

    /// Where a library posts to.
    pub fn url(&self) -> String {
        format!("http://{}", self.front.address)
    }

    /// Waits for half of the events, which were refused before.
    pub async fn half(&self) {
        self.until(self.trial.events / 2).await;
        let metrics = self.client.get("/metrics").await.text;
        let name = "recsys_ingest_refused_requests_total{reason=\"rate_limited\"} ";
        let refused = metrics.lines().find_map(|line| line.strip_prefix(name));
        let refused: f64 = refused.map_or(0.0, |count| count.parse().unwrap());
        assert!(refused > 0.0, "nothing was refused");
    }

    /// Starts the service again as soon as there is more than half of the events.
    pub async fn restart(&mut self) {
        self.until(self.trial.events / 2 + 1).await;
        match self.trial.is_killed {
            true => self.process.kill(),
            false => assert!(self.process.stop().success()),
        }
        (self.process, self.client) = Process::serve(&self.settings);
        self.front.aim(self.client.address);
    }

    /// Checks that each event is there once, and that the accounts balance.
    pub async fn end(mut self) {
        let events = self.trial.events;
        self.until(events).await;
        assert!(self.process.stop().success());
        let client = self.database.connect().await;
        let sql = "SELECT count(*) FROM interaction_events
                    WHERE item_id ^@ 'item-' AND event_type = 'click' AND surface = 'home'";
        assert_eq!(
            (one::<i64>(&client, sql).await, self.items().await),
            (events, events)
        );
        self.settings.assert_verified();
    }

    async fn until(&self, items: i64) {
        eventually("the events", async || self.items().await >= items).await;
    }

    /// Items of the library's events that are stored.
    async fn items(&self) -> i64 {
        let client = self.database.connect().await;
        let sql = "SELECT count(DISTINCT item_id) FROM interaction_events WHERE item_id ^@ 'item-'";
        one(&client, sql).await
    }
}
