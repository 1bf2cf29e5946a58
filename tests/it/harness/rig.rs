//! The program, its spool and a separate server, for tests that break them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::audit::{Audit, Stored};
use super::cluster::Cluster;
use super::database::Database;
use super::http::Client;
use super::process::Process;
use super::settings::Settings;
use super::traffic::{Plan, Sent, Traffic};

/// A service and everything that it needs.
pub struct Rig {
    pub cluster: Cluster,
    pub database: Database,
    pub settings: Settings,
    pub process: Process,
    pub client: Client,
}

impl Rig {
    /// Starts a rig on a server without durability, with settings changed by `change`.
    pub async fn start(change: impl FnOnce(Settings) -> Settings) -> Self {
        Self::on(Cluster::start(&[("autovacuum", "off")]), change).await
    }

    /// Starts a rig on a given server.
    pub async fn on(cluster: Cluster, change: impl FnOnce(Settings) -> Settings) -> Self {
        let database = Database::on(&cluster).await;
        let settings = change(Settings::new(&database).with("--spool-bytes-max", "8GiB"));
        let (process, client) = Process::serve(&settings);
        Self {
            cluster,
            database,
            settings,
            process,
            client,
        }
    }

    /// The service's address.
    pub fn address(&self) -> SocketAddr {
        self.client.address
    }

    /// Starts senders.
    pub fn traffic(&self, plan: Plan) -> Traffic {
        Traffic::start(self.address(), plan)
    }

    /// Kills the service and restarts it on the same spool; the traffic follows it.
    pub fn kill(&mut self, traffic: &Traffic) {
        self.process.kill();
        self.serve();
        traffic.aim(self.address());
    }

    /// Starts the service again, after it has ended.
    pub fn serve(&mut self) {
        (self.process, self.client) = Process::serve(&self.settings);
    }

    /// Crashes the server and restarts it.
    pub fn crash_postgres(&mut self) {
        self.cluster.crash();
        self.cluster.restart();
    }

    /// The HTTP status of `/readyz`, and the status in its body.
    pub async fn ready(&self) -> (u16, String) {
        let reply = self.client.get("/readyz").await;
        (reply.status, reply.json["status"].as_str().unwrap().into())
    }

    /// Row counts of `/readyz?verbose`, over all tables: accepted, stored, duplicates,
    /// quarantined, spooled.
    pub async fn rows(&self) -> [u64; 5] {
        let reply = self.client.get("/readyz?verbose").await;
        let tables = reply.json["rows"].as_array().expect("verbose").clone();
        let sum = |name: &str| -> u64 {
            let number = |table: &Value| table[name].as_u64().unwrap();
            tables.iter().map(number).sum()
        };
        ["accepted", "stored", "duplicates", "quarantined", "spooled"].map(sum)
    }

    /// Waits until the spool holds no rows.
    pub async fn settle(&self) {
        let mut last = (Instant::now(), u64::MAX);
        loop {
            let [accepted, stored, duplicates, quarantined, spooled] = self.rows().await;
            assert_eq!(accepted, stored + duplicates + quarantined + spooled);
            if spooled == 0 {
                return;
            }
            if spooled < last.1 {
                last = (Instant::now(), spooled);
            }
            let patience = Duration::from_secs(70);
            assert!(
                last.0.elapsed() < patience,
                "{spooled} rows stay in the spool:\n{}",
                self.process.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the spool is empty, checks the accounts with `verify`, and compares the tables
    /// with what the senders were told.
    pub async fn audit(&self, sent: &[&Sent]) -> Audit {
        self.settle().await;
        self.settings.assert_verified();
        let numbers = sent
            .iter()
            .map(|sent| sent.plan.mix.numbers(sent.plan.first + sent.plan.bodies))
            .max();
        let numbers = numbers.unwrap_or(0);
        let table = sent.first().map_or("interaction_events", |sent| {
            assert!(
                sent.tally.strange.is_empty(),
                "strange answers: {:?}",
                sent.tally.strange
            );
            sent.plan.table.as_str()
        });
        let stored = Stored::read(&self.database, table, numbers).await;
        let set_aside = format!("ingest_quarantine WHERE table_name = '{table}'");
        let set_aside = Stored::read(&self.database, &set_aside, numbers).await;
        Audit::of(sent, &stored, Some(&set_aside))
    }

    /// As [`audit`](Self::audit), and fails if a promise was broken.
    pub async fn assert_kept(&self, sent: &[&Sent]) -> Audit {
        let audit = self.audit(sent).await;
        assert!(audit.is_good(), "{audit:?}\n{}", self.process.log());
        assert!(audit.acknowledged > 0, "nothing was acknowledged");
        audit
    }
}
