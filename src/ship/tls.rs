//! TLS towards the service: the certificates of the system, or those of a file.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// How to connect, trusting the CAs in `file`, or else those of the system.
pub(crate) fn config(file: Option<&Path>) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            let failure = || {
                format!(
                    "--tls-ca {} holds no certificate in PEM form that can be used",
                    path.display()
                )
            };
            let all = CertificateDer::pem_file_iter(path).with_context(failure)?;
            for certificate in all {
                roots
                    .add(certificate.with_context(failure)?)
                    .with_context(failure)?;
            }
            if roots.is_empty() {
                bail!(failure());
            }
        }
        None => {
            // In a system store a few unreadable certificates are normal.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                bail!(
                    "this system has no CA certificates; install ca-certificates, or name your CA with --tls-ca"
                );
            }
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("cannot set up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
