//! A PostgreSQL of its own for one test, on a Unix socket and a loopback port.
//!
//! Everything it does to start a server is in [`Server::start`].

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use recsys_ingest::store::connect::{Connection, Target, prepare_session};
use tokio_postgres::Client;

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// A running server; stopped and removed when dropped.
pub(crate) struct Server {
    pub(crate) dir: PathBuf,
    pub(crate) port: u16,
}

impl Server {
    /// Starts a server in a fresh directory, with `extra` lines in postgresql.conf
    /// and `hba` lines before the one that trusts everybody.
    pub(crate) fn start(prepare: impl FnOnce(&Path), extra: &str, hba: &str) -> Self {
        let dir = PathBuf::from(shell("mktemp -d /tmp/ri-directory.XXXXXX").trim());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let data = dir.join("data");
        let (d, s) = (data.display(), dir.display());
        shell(&format!(
            "{BIN}/initdb -D {d} -U postgres -A trust --no-sync -E UTF8 --locale=C"
        ));
        prepare(&dir);
        let conf = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{s}'\n\
             fsync = off\n{extra}\n"
        );
        let hba = format!("{hba}\nlocal all all trust\nhost all all 127.0.0.1/32 trust\n");
        append(&data.join("postgresql.conf"), &conf);
        std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let server = Self { dir, port };
        server.up();
        server
    }

    pub(crate) fn plain() -> Self {
        Self::start(|_| {}, "", "")
    }

    pub(crate) fn up(&self) {
        let dir = self.dir.display();
        shell(&format!("{BIN}/pg_ctl start -w -D {dir}/data -l {dir}/log"));
    }

    pub(crate) fn down(&self) {
        shell(&format!(
            "{BIN}/pg_ctl stop -w -m immediate -D {}/data",
            self.dir.display()
        ));
    }

    /// The server over its Unix socket.
    pub(crate) fn target(&self) -> Target {
        self.target_with(&format!("host={}", self.dir.display()))
    }

    pub(crate) fn target_with(&self, parameters: &str) -> Target {
        let defaults = format!("port={} user=postgres dbname=postgres", self.port);
        Target::parse(&format!("{defaults} {parameters}")).unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        let client = open(self.target().connect().await.unwrap());
        prepare_session(&client, Some(Duration::from_secs(20)))
            .await
            .unwrap();
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let dir = self.dir.display();
        shell(&format!(
            "{BIN}/pg_ctl stop -m immediate -D {dir}/data || true; rm -rf {dir}"
        ));
    }
}

/// Drives a connection in the background, as the service's task set does.
pub(crate) fn open(connection: Connection) -> Client {
    tokio::spawn(connection.driver);
    connection.client
}

/// Runs a command as a user that PostgreSQL accepts, and gives back what it wrote.
pub(crate) fn shell(command: &str) -> String {
    let output = Command::new("runuser")
        .args(["-u", "postgres", "--", "sh", "-c", command])
        .current_dir("/tmp")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn append(path: &Path, text: &str) {
    let old = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, old + text).unwrap();
}
