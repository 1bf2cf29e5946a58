//! Reads certificates and keys from files in PEM form.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustls::InconsistentKeys;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// The client certificate and its key.
pub(crate) fn identity(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey> {
    let chain = certificates(cert, "sslcert")?;
    let key = PrivateKeyDer::from_pem_slice(&read(key, "sslkey")?).with_context(|| {
        format!(
            "sslkey {} holds no unencrypted private key in PEM form",
            key.display()
        )
    })?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .context("sslkey is not usable")?;
    let identity = CertifiedKey::new(chain, key);
    // The key of a version 1 certificate cannot be compared here; the server checks it.
    if let Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) =
        identity.keys_match()
    {
        bail!("sslcert and sslkey do not belong together");
    }
    Ok(identity)
}

/// The certificates of a file; `parameter` is the setting that names it.
pub(crate) fn certificates(path: &Path, parameter: &str) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(path, parameter)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{parameter} {} is not in PEM form", path.display()))?;
    // The first bytes of a long sequence in DER.
    if certificates.is_empty() && pem.starts_with(&[0x30, 0x82]) {
        bail!(
            "{parameter} {} is in DER form; convert it to PEM: openssl x509 -inform der -in FILE",
            path.display()
        );
    }
    if certificates.is_empty() {
        bail!(
            "{parameter} {} holds no certificate in PEM form",
            path.display()
        );
    }
    Ok(certificates)
}

fn read(path: &Path, parameter: &str) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| {
        format!(
            "cannot read {parameter} {}; check the path and its permissions",
            path.display()
        )
    })
}
