//! Settings of TLS, and of what is served where.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::address::ListenAddress;
use super::parse;

/// Settings of TLS, and of what is served where.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS and listeners")]
pub struct Transport {
    /// Certificate chain in PEM form, the server's own certificate first: --listen speaks HTTPS (TLS 1.2 and 1.3, HTTP/2 and HTTP/1); the files are read every five seconds, and a new certificate is used without a restart
    #[arg(long, env = "INGEST_TLS_CERT", value_name = "FILE", value_parser = parse::path())]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate in PEM form (PKCS#8, PKCS#1 or SEC1, without a passphrase)
    #[arg(long, env = "INGEST_TLS_KEY", value_name = "FILE", value_parser = parse::path())]
    pub tls_key: Option<PathBuf>,

    /// Address of a second listener, for operators, without TLS: the live page, readiness, metrics, /docs and /openapi.json are served there, and --listen serves the events and /healthz alone
    #[arg(long, env = "INGEST_OPS_LISTEN", value_name = "ADDR")]
    pub ops_listen: Option<ListenAddress>,

    /// The hosts that requests may name; `None`: any. Set by `dev`.
    #[arg(skip)]
    pub hosts: Option<Vec<String>>,

    /// The variables that `dev` writes, where only this machine's programs reach the live page: it
    /// then needs no key, and names the file. `None`: it needs one.
    #[arg(skip)]
    pub env_file: Option<PathBuf>,
}

impl Transport {
    /// Checks settings that depend on each other.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), None) => bail!(
                "--tls-cert (INGEST_TLS_CERT) {} needs its private key: give --tls-key (INGEST_TLS_KEY), too",
                cert.display()
            ),
            (None, Some(key)) => bail!(
                "--tls-key (INGEST_TLS_KEY) {} needs its certificate: give --tls-cert (INGEST_TLS_CERT), too",
                key.display()
            ),
            _ => Ok(()),
        }
    }
}
