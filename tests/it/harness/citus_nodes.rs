//! Three servers for one test: Citus's coordinator and two workers. `CITUS_PG_BIN` names the directory
//! of their programs. They end when this is dropped.

use std::net::TcpListener;
use std::path::PathBuf;

use super::cluster::Cluster;
use super::database::Database;

/// The directory of a PostgreSQL that has Citus, if the environment names one; says so if not.
#[expect(
    clippy::disallowed_methods,
    reason = "which Citus to test against, if there is one"
)]
pub fn citus_bin() -> Option<PathBuf> {
    let named = std::env::var("CITUS_PG_BIN").ok().map(PathBuf::from);
    if named.is_none() {
        println!("skipped: CITUS_PG_BIN names no directory of a PostgreSQL with Citus");
    }
    named
}

/// The servers.
pub struct CitusNodes {
    /// Takes all statements.
    pub coordinator: Cluster,
    /// Have the rows.
    pub workers: Vec<Cluster>,
}

impl CitusNodes {
    /// Starts the servers, makes Citus of them, and migrates the coordinator's database.
    pub async fn start(bin_dir: PathBuf) -> (Self, Database) {
        // Each is free now, and another server may take one before its node does; then it fails.
        let ports: Vec<String> = (0..3)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect::<Vec<_>>()
            .iter()
            .map(|free| free.local_addr().unwrap().port().to_string())
            .collect();
        let mut nodes: Vec<Cluster> = ports
            .iter()
            .map(|port| {
                let settings = [
                    ("listen_addresses", "127.0.0.1"),
                    ("port", port),
                    ("shared_preload_libraries", "citus"),
                    ("citus.node_conninfo", "sslmode=disable"),
                    ("max_connections", "200"),
                    ("max_prepared_transactions", "200"),
                    ("wal_level", "logical"),
                    ("autovacuum", "off"),
                    // Which transactions were prepared is kept, for tests to count.
                    ("citus.recover_2pc_interval", "-1"),
                ];
                Cluster::start_of(bin_dir.clone(), &settings)
            })
            .collect();
        for node in &nodes {
            Database::of(node).execute("CREATE EXTENSION citus").await;
        }
        let workers = nodes.split_off(1);
        let coordinator = nodes.remove(0);
        let database = Database::on(&coordinator).await;
        let add = format!(
            "SELECT citus_set_coordinator_host('127.0.0.1', {}),
                    citus_add_node('127.0.0.1', {}), citus_add_node('127.0.0.1', {})",
            ports[0], ports[1], ports[2]
        );
        database.execute(&add).await;
        (
            Self {
                coordinator,
                workers,
            },
            database,
        )
    }
}
