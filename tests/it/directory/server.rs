//! A separate PostgreSQL server for one test, on a Unix socket and a loopback port, with
//! certificates and `pg_hba.conf` lines of the test's choice.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use recsys_ingest::postgres::connect::Target;
use recsys_ingest::postgres::connect::connection::Connection;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::harness::{Cluster, Database, one};

/// A running server; stopped and removed when dropped.
pub struct Server {
    /// Holds the certificates.
    pub dir: TempDir,
    pub port: u16,
    pub socket: PathBuf,
    cluster: Cluster,
}

impl Server {
    /// Without TLS.
    pub async fn plain() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let cluster = Cluster::start(&[
            ("listen_addresses", "127.0.0.1"),
            ("port", &port.to_string()),
        ]);
        let dir = tempfile::tempdir().unwrap();
        // Tests that run as root start the server as another user, who has to read this
        // directory.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let socket: String = one(
            &Database::of(&cluster).connect().await,
            "SHOW unix_socket_directories",
        )
        .await;
        Self {
            dir,
            port,
            socket: socket.into(),
            cluster,
        }
    }

    /// With TLS and a certificate of [`certificates`], and with `hba` lines before the ones that
    /// trust all connections. `None` if this PostgreSQL has no TLS or there is no `openssl`.
    pub async fn with_tls(certificate: &str, hba: &str) -> Option<Self> {
        let server = Self::plain().await;
        if Command::new("openssl").arg("version").output().is_err() {
            println!("skipped: there is no openssl to make certificates with");
            return None;
        }
        let client = Database::of(&server.cluster).connect().await;
        let data: String = one(&client, "SHOW data_directory").await;
        certificates(server.dir.path(), Path::new(&data));
        let dir = server.dir.path().display();
        for (name, value) in [
            ("ssl_cert_file", format!("{dir}/{certificate}.crt")),
            ("ssl_key_file", format!("{dir}/{certificate}.key")),
            ("ssl_ca_file", format!("{dir}/ca.crt")),
            ("ssl", "on".to_owned()),
        ] {
            let set = client
                .batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'"))
                .await;
            if let Err(error) = set {
                println!("skipped: this PostgreSQL has no TLS: {error:?}");
                return None;
            }
        }
        let hba_file: String = one(&client, "SHOW hba_file").await;
        let hba = format!("{hba}\nlocal all all trust\nhost all all 127.0.0.1/32 trust\n");
        std::fs::write(hba_file, hba).unwrap();
        assert!(one::<bool>(&client, "SELECT pg_reload_conf()").await);
        crate::harness::eventually("TLS", async || {
            let fresh = Database::of(&server.cluster).connect().await;
            one::<String>(&fresh, "SHOW ssl").await == "on"
        })
        .await;
        Some(server)
    }

    /// Shows another certificate of [`certificates`] from now on.
    pub async fn present(&self, certificate: &str) {
        let client = Database::of(&self.cluster).connect().await;
        let file = format!("{}/{certificate}.crt", self.dir.path().display());
        for (name, value) in [
            ("ssl_cert_file", &file),
            ("ssl_key_file", &file.replace(".crt", ".key")),
        ] {
            let set = format!("ALTER SYSTEM SET {name} = '{value}'");
            client.batch_execute(&set).await.unwrap();
        }
        assert!(one::<bool>(&client, "SELECT pg_reload_conf()").await);
        crate::harness::eventually("the certificate", async || {
            let fresh = Database::of(&self.cluster).connect().await;
            one::<String>(&fresh, "SHOW ssl_cert_file").await == file
        })
        .await;
    }

    /// The server's first database, with the schema, tenants and keys.
    pub async fn database(&self) -> Database {
        Database::on(&self.cluster).await
    }

    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// The server over its Unix socket.
    pub fn target(&self) -> Target {
        self.target_with(&format!("host={}", self.socket.display()))
    }

    /// A database's URL over TCP.
    pub fn url(&self, database: &str, parameters: &str) -> String {
        let port = self.port;
        format!("postgresql://postgres@127.0.0.1:{port}/{database}?{parameters}")
    }

    pub fn target_with(&self, parameters: &str) -> Target {
        let defaults = format!("port={} user=postgres dbname=postgres", self.port);
        Target::parse(&format!("{defaults} {parameters}")).unwrap()
    }
}

/// Drives a connection in the background, as the service's task set does.
pub fn open(connection: Connection) -> Client {
    tokio::spawn(connection.driver);
    connection.client
}

/// Creates a CA, server certificates for db.test and 127.0.0.1 issued by it (a good one, and ones
/// without names, of version 1, of past and future times, and not for servers), another CA of the
/// same name and one of another, a self-signed certificate, and a client certificate. The keys are readable only for
/// the owner of `owned_like`, as PostgreSQL requires.
fn certificates(dir: &Path, owned_like: &Path) {
    let script = r#"set -e; cd $1
         ca() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                  -x509 -days 2 -subj "/CN=${2:-test ca}" -keyout $1.key -out $1.crt; }
         issue() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                     -subj /CN=$2 -keyout $1.key -out $1.csr
                   openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
                     -days 2 $3 -out $1.crt; }
         dated() { openssl ca -batch -notext -config ca.cnf -cert ca.crt -keyfile ca.key \
                     -in server.csr -startdate $2 -enddate $3 -extfile san -out $1.crt
                   cp server.key $1.key; }
         ca ca; ca other; ca strange 'strange ca'
         echo 'subjectAltName=DNS:db.test,IP:127.0.0.1' > san
         issue server db.test '-extfile san'
         issue version1 db.test ''
         echo 'basicConstraints=CA:FALSE' > plain
         issue cnonly db.test '-extfile plain'
         (cat san; echo 'extendedKeyUsage=clientAuth') > client_san
         issue client_only db.test '-extfile client_san'
         printf '%s\n' '[ca]' default_ca=d '[d]' database=index serial=serial new_certs_dir=. \
           default_md=sha256 policy=p unique_subject=no '[p]' commonName=supplied > ca.cnf
         touch index; echo 01 > serial
         dated past 20200101000000Z 20200102000000Z
         dated future 20490101000000Z 20490102000000Z
         issue client carol ''
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:secp521r1 -nodes \
           -x509 -days 2 -subj /CN=db.test -addext subjectAltName=DNS:db.test \
           -keyout p521.key -out p521.crt
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
           -x509 -days 2 -subj /CN=db.test -addext subjectAltName=DNS:db.test \
           -keyout alone.key -out alone.crt
         chmod 600 *.key"#;
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(dir)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let owner = std::fs::metadata(owned_like).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        // Fails for an ordinary user, who owns the files already.
        drop(chown(&path, Some(owner.uid()), Some(owner.gid())));
    }
}
