//! Certificates made by `openssl`, and clients that speak TLS.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use recsys_ingest::tenants::role::Role;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::harness::{SOON, Settings, key};

/// Versions that clients speak by default.
pub const BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// A directory with a CA, server certificates for `localhost` and their keys in all forms.
pub struct Certificates(TempDir);

impl Certificates {
    /// `None` if there is no `openssl`.
    pub fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            println!("skipped: there is no openssl to make certificates with");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let script = r"set -e; cd $1
            ca() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                     -x509 -days 30 -subj /CN=$1 -keyout $1.key -out $1.crt; }
            echo 'subjectAltName=DNS:localhost,IP:127.0.0.1' > san
            sign() { openssl req -new -key $1.key -subj /CN=$1 -out $1.csr
                     openssl x509 -req -in $1.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
                       -days $2 $3 -out $1.crt; }
            ca ca; ca stranger
            openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out pkcs8.key
            openssl ec -in pkcs8.key -out sec1.key
            openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key
            openssl rsa -in rsa.key -traditional -out pkcs1.key
            openssl genpkey -algorithm ED25519 -out ed.key
            openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp521r1 -out p521.key
            openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out next.key
            for name in pkcs8 sec1 rsa pkcs1 ed p521 next; do sign $name 30 '-extfile san'; done
            cp pkcs8.key soon.key; sign soon 1 '-extfile san'
            cp pkcs8.key first.key; sign first 30
            openssl pkey -in pkcs8.key -aes256 -passout pass:x -out encrypted.key
            openssl rsa -in rsa.key -traditional -aes128 -passout pass:x -out oldencrypted.key
            openssl pkey -in pkcs8.key -outform DER -out der.key
            openssl x509 -in pkcs8.crt -outform DER -out der.crt
            cat ca.crt pkcs8.crt > reversed.crt; cat pkcs8.crt ca.crt > chain.crt
            cat pkcs8.crt pkcs8.key > both.pem
            echo nothing > text; : > empty";
        let output = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(dir.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        Some(Self(dir))
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Settings with a certificate and a key of the directory.
    pub fn on(&self, settings: Settings, cert: &str, key: &str) -> Settings {
        settings
            .with("--tls-cert", self.path(cert).display())
            .with("--tls-key", self.path(key).display())
    }

    /// Copies a pair of files to the one that a service uses.
    pub fn put(&self, cert: &str, key: &str) {
        for (from, to) in [(cert, "live.crt"), (key, "live.key")] {
            std::fs::copy(self.path(from), self.path(to)).unwrap();
        }
    }

    /// A client that trusts the CA.
    pub fn client(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        client(&self.path("ca.crt"), protocols, &BOTH)
    }
}

/// A client that trusts one CA.
pub fn client(
    ca: &Path,
    protocols: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    // Each connection is to see the certificate of its time.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// A connection with TLS.
pub struct Secure(pub TlsStream<TcpStream>);

impl Secure {
    pub async fn open(address: SocketAddr, client: &Arc<ClientConfig>) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::clone(client));
        let shaken = tokio::time::timeout(SOON, connector.connect(name, stream));
        Ok(Self(shaken.await.expect("no handshake")?))
    }

    /// The certificate that the service showed.
    pub fn certificate(&self) -> Vec<u8> {
        let (_, session) = self.0.get_ref();
        session.peer_certificates().unwrap()[0].to_vec()
    }

    /// Sends a request and reads the answer: its head in lower case, and its body.
    pub async fn send(&mut self, request: &str) -> (String, String) {
        self.0.write_all(request.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
        let read = async {
            let mut bytes = Vec::new();
            loop {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let head = head.to_ascii_lowercase();
                    let length = head.split("content-length: ").nth(1).unwrap();
                    let length = length.lines().next().unwrap().parse().unwrap();
                    if body.len() >= length {
                        return (head, body.to_owned());
                    }
                }
                assert!(
                    self.0.read_buf(&mut bytes).await.unwrap() > 0,
                    "closed: {text}"
                );
            }
        };
        tokio::time::timeout(SOON, read).await.expect("no answer")
    }

    /// Whether the service ends the connection; what arrives until then is dropped.
    pub async fn ends(&mut self) -> bool {
        let mut bytes = Vec::new();
        let rest = self.0.read_to_end(&mut bytes);
        // A reset, or an end without a farewell, is an end too.
        tokio::time::timeout(SOON, rest).await.is_ok()
    }
}

/// A POST of JSON by `demo` with a role.
pub fn post(role: Role, path: &str, body: &str) -> String {
    let (key, length) = (key("demo", role), body.len());
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// A GET.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}
