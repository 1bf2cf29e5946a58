//! The certificate of the HTTPS listener: its two files, read and checked.
//!
//! Each refusal names the setting, the file, what is wrong with it and what to do. Knows nothing of
//! connections.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_cert::der::{Decode as _, Encode as _};

/// The setting of the certificate, as messages name it.
pub(crate) const CERT: &str = "--tls-cert (INGEST_TLS_CERT)";

/// The setting of its key, as messages name it.
const KEY: &str = "--tls-key (INGEST_TLS_KEY)";

/// The files of `--tls-cert` and `--tls-key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// The certificate chain in PEM form, the server's own certificate first.
    pub(crate) cert: PathBuf,
    /// Its private key in PEM form.
    pub(crate) key: PathBuf,
}

/// The bytes of the two files.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// The private key is never printed.
impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contents(..)")
    }
}

/// A certificate chain with its key, and when it expires.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// The last second in which clients accept the certificate.
    pub(crate) not_after: Timestamp,
}

impl Files {
    /// Reads both files. Blocks.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub(crate) fn read(&self) -> Result<Contents> {
        Ok(Contents {
            cert: read(CERT, &self.cert)?,
            key: read(KEY, &self.key)?,
        })
    }

    /// Checks that the files hold a certificate and its key.
    ///
    /// # Errors
    /// Names the file that is wrong, or says that the two do not belong together.
    pub(crate) fn check(&self, contents: &Contents) -> Result<Certificate> {
        let chain = chain(&self.cert, &contents.cert)?;
        let key = private_key(&self.key, &contents.key)?;
        let not_after = self.check_chain(&chain, key.as_ref())?;
        Ok(Certificate {
            key: Arc::new(CertifiedKey::new(chain, key)),
            not_after,
        })
    }

    /// Checks that the first certificate has the key; returns when it expires.
    fn check_chain(
        &self,
        chain: &[CertificateDer<'static>],
        key: &dyn SigningKey,
    ) -> Result<Timestamp> {
        let cert = self.cert.display();
        let wanted = key.public_key();
        let mut fits = Vec::new();
        let mut not_after = None;
        for (n, der) in (1..).zip(chain) {
            let parsed = x509_cert::Certificate::from_der(der).with_context(|| {
                format!(
                    "certificate {n} in {CERT} {cert} is no X.509 certificate; write the file again"
                )
            })?;
            let public_key = parsed.tbs_certificate.subject_public_key_info.to_der()?;
            let is_of_key = wanted.as_ref().is_none_or(|key| **key == *public_key);
            fits.push(is_of_key);
            let until = parsed.tbs_certificate.validity.not_after;
            not_after.get_or_insert(until.to_unix_duration().as_secs());
        }
        match fits.iter().position(|fits| *fits) {
            Some(0) => {}
            Some(n) => bail!(
                "{KEY} {} belongs to certificate {} in {CERT} {cert}, and not to the first: \
                 put the server's own certificate first, then those that signed it",
                self.key.display(),
                n + 1
            ),
            None => bail!(
                "{CERT} {cert} and {KEY} {} do not belong together: the key is another one than \
                 the certificate's; name the key that the certificate was requested with",
                self.key.display()
            ),
        }
        let seconds = not_after.and_then(|seconds| i64::try_from(seconds).ok());
        let not_after = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
        Ok(not_after.unwrap_or(Timestamp::MAX))
    }
}

fn read(setting: &str, path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| {
        format!(
            "cannot read {setting} {}; check the path and its permissions",
            path.display()
        )
    })?;
    if bytes.is_empty() {
        bail!(
            "{setting} {} is empty; write the file again",
            path.display()
        );
    }
    Ok(bytes)
}

fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => bail!(
            "{CERT} {} {}",
            path.display(),
            match Kind::of(pem) {
                Kind::Der =>
                    "is not in PEM form; convert it: openssl x509 -inform DER -in FILE -out FILE.pem",
                Kind::Key =>
                    "holds a private key and no certificate; is it swapped with --tls-key (INGEST_TLS_KEY)?",
                Kind::Encrypted | Kind::Certificate =>
                    "holds a damaged certificate; write the file again",
                Kind::Other =>
                    "holds no certificate in PEM form, which begins with -----BEGIN CERTIFICATE-----",
            }
        ),
    }
}

fn private_key(path: &Path, pem: &[u8]) -> Result<Arc<dyn SigningKey>> {
    let path = path.display();
    let Ok(key) = PrivateKeyDer::from_pem_slice(pem) else {
        bail!(
            "{KEY} {path} {}",
            match Kind::of(pem) {
                Kind::Der =>
                    "is not in PEM form; convert it: openssl pkey -inform DER -in FILE -out FILE.pem",
                Kind::Certificate =>
                    "holds a certificate and no private key; is it swapped with --tls-cert (INGEST_TLS_CERT)?",
                Kind::Encrypted =>
                    "is encrypted with a passphrase, which cannot be asked for here; decrypt it: \
                     openssl pkey -in FILE -out FILE.plain",
                Kind::Key => "holds a damaged private key; write the file again",
                Kind::Other =>
                    "holds no private key in PEM form (PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY)",
            }
        );
    };
    let provider = ring::default_provider();
    provider.key_provider.load_private_key(key).ok().with_context(|| {
        format!(
            "{KEY} {path} holds a key of a kind that is not supported; use ECDSA on P-256 or P-384, \
             Ed25519, or RSA with 2048 to 8192 bits"
        )
    })
}

/// What a file seems to hold, for the message about what is wrong with it.
enum Kind {
    Der,
    Certificate,
    Encrypted,
    Key,
    Other,
}

impl Kind {
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        // PKCS#8 says it in its first line, the older forms in a header below it.
        if text.contains("ENCRYPTED") {
            Self::Encrypted
        } else if text.contains("PRIVATE KEY-----") {
            Self::Key
        } else if text.contains("-----BEGIN CERTIFICATE-----") {
            Self::Certificate
        } else if bytes.first() == Some(&0x30) {
            // A DER sequence.
            Self::Der
        } else {
            Self::Other
        }
    }
}
