//! What these tests share: three instances on one PostgreSQL.

use std::net::SocketAddr;

use crate::harness::{Client, Database, Process, Settings, eventually};

/// An instance with its spool.
pub struct Instance {
    pub settings: Settings,
    pub process: Process,
    pub client: Client,
}

impl Instance {
    /// Starts an instance.
    pub fn start(settings: Settings) -> Self {
        let (process, client) = Process::serve(&settings);
        Self {
            settings,
            process,
            client,
        }
    }

    /// Kills it, and starts it again on the same spool.
    pub fn kill_and_start(&mut self) {
        self.process.kill();
        (self.process, self.client) = Process::serve(&self.settings);
    }

    /// Waits until its spool is empty.
    pub async fn settle(&self) {
        eventually("an empty spool", async || {
            let verbose = self.client.get("/readyz?verbose").await.json;
            let tables = verbose["rows"].as_array().unwrap();
            tables.iter().all(|table| table["spooled"] == 0)
        })
        .await;
    }
}

/// The settings of three instances; `urls` are their ways to the database.
pub fn three(urls: [&str; 3], change: impl Fn(Settings) -> Settings) -> Vec<Settings> {
    urls.map(|url| change(Settings::new(&Database::by(url.to_owned()))))
        .into()
}

pub fn addresses(instances: &[Instance]) -> Vec<SocketAddr> {
    let addresses = instances.iter().map(|instance| instance.client.address);
    addresses.collect()
}

/// Waits until all spools are empty, and checks the accounts of each.
pub async fn assert_all_verified(instances: &[Instance]) {
    for instance in instances {
        instance.settle().await;
    }
    for instance in instances {
        instance.settings.assert_verified();
    }
}
