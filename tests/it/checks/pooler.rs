//! PgBouncer between the service and PostgreSQL.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::is_ready;
use crate::harness::{Database, Process, Settings, click};

/// A PgBouncer; dropping it ends it.
pub struct PgBouncer {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl PgBouncer {
    /// In front of a database; `None` if there is no PgBouncer.
    pub fn start(database: &Database, mode: &str) -> Option<Self> {
        if Command::new("pgbouncer").arg("--version").output().is_err() {
            println!("skipped: there is no pgbouncer");
            return None;
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let config: tokio_postgres::Config = database.url().parse().unwrap();
        let tokio_postgres::config::Host::Unix(socket) = &config.get_hosts()[0] else {
            panic!("a URL of our launcher's");
        };
        let server_port = config.get_ports().first().copied().unwrap_or(5432);
        let name = config.get_dbname().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n{name} = host={} port={server_port} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = {mode}\ndefault_pool_size = 20\n",
            socket.display()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("pgbouncer");
        if rustix::process::geteuid().is_root() {
            // PgBouncer refuses to run as root; as `postgres` it has to be able to read its file.
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir.path(), open).unwrap();
            command.args(["-u", "postgres"]);
        }
        let child = command
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bouncer = Self {
            child,
            port,
            _dir: dir,
        };
        let started = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                started.elapsed() < crate::harness::SOON,
                "pgbouncer does not listen"
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Some(bouncer)
    }

    /// The database behind it.
    pub fn database(&self, database: &Database) -> Database {
        let config: tokio_postgres::Config = database.url().parse().unwrap();
        let (name, port) = (config.get_dbname().unwrap(), self.port);
        Database::by(format!(
            "postgresql://postgres@127.0.0.1:{port}/{name}?sslmode=disable"
        ))
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_transaction_mode_is_refused_by_name() {
    let database = Database::with_tenants().await;
    for mode in ["transaction", "statement"] {
        let Some(pooler) = PgBouncer::start(&database, mode) else {
            return;
        };
        let settings = Settings::new(&pooler.database(&database));
        let mut process = Process::run(settings.arguments());
        let status = process.wait();
        let log = process.log();
        assert_eq!(status.code(), Some(1), "{mode}: {log}");
        assert!(
            log.contains("a connection pooler in transaction mode"),
            "{log}"
        );
        assert!(log.contains("use session mode"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_serves_as_well_as_a_server() {
    let database = Database::with_tenants().await;
    let Some(pooler) = PgBouncer::start(&database, "session") else {
        return;
    };
    let settings = Settings::new(&pooler.database(&database));
    for n in 0..2 {
        let (mut process, client) = Process::listen(&settings);
        is_ready(&process, &client).await;
        let stored = client
            .post("/v1/interactions", &click(&format!("event {n}")))
            .await;
        assert_eq!(stored.settled(), (1, 0, 0, 0), "{}", process.log());
        process.stop();
    }
}
