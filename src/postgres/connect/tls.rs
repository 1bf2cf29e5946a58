//! libpq's `sslmode`, with rustls.
//!
//! | mode | encrypted | certificate |
//! |---|---|---|
//! | `disable` | no | – |
//! | `allow` | if the server takes no other connection | as `prefer` |
//! | `prefer` | if the server can | chain, if `sslrootcert` is given; falls back to no TLS |
//! | `require` | yes | chain, if `sslrootcert` is given |
//! | `verify-ca` | yes | chain |
//! | `verify-full` | yes | chain and host name |
//!
//! Invariant: the server has always proved that it holds the key of its certificate, even if the
//! certificate itself is not checked. Otherwise a copied certificate could defeat SCRAM channel
//! binding.
//!
//! Stricter than libpq in one point: names are matched against subjectAltName only, never against
//! the common name. Knows nothing of SQL or passwords.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature,
    verify_tls13_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ALL_VERSIONS, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme, SupportedProtocolVersion,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_cert::der::{Decode as _, Encode as _};

use super::certificate::{Presented, Trusted};
use super::parameters::Parameters;
use super::pem::{certificates, identity};

/// The required level of TLS, weakest first; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The CAs that are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Roots {
    Unset,
    System,
    File(PathBuf),
}

/// The TLS part of a connection string. Files are read at each connect, so a rotated certificate is
/// used without a restart.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) mode: Mode,
    roots: Roots,
    /// The client's certificate chain and key, in case the server asks for them.
    identity: Option<(PathBuf, PathBuf)>,
    versions: &'static [&'static SupportedProtocolVersion],
}

/// What is checked of a server certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Nothing,
    Chain,
    ChainAndName,
}

#[derive(Debug)]
struct Verifier {
    check: Check,
    roots: RootCertStore,
    /// The certificates of `sslrootcert`. A server with exactly one of these certificates is
    /// trusted, as in OpenSSL. (webpki alone refuses the usual self-signed server certificate,
    /// because it is also a CA.)
    given: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    /// The file of `sslrootcert`, for messages.
    file: Option<PathBuf>,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl Tls {
    pub(crate) fn of(parameters: &Parameters) -> Result<Self> {
        let roots = match parameters.get("sslrootcert") {
            None => Roots::Unset,
            Some("system") => Roots::System,
            Some(path) => Roots::File(PathBuf::from(path)),
        };
        let modes = [
            Mode::Disable,
            Mode::Allow,
            Mode::Prefer,
            Mode::Require,
            Mode::VerifyCa,
            Mode::VerifyFull,
        ]
        .map(|mode| (mode.name(), mode));
        let mode = match parameters.choice("sslmode", &modes)? {
            Some(mode) => mode,
            None if roots == Roots::System => Mode::VerifyFull,
            None => Mode::Prefer,
        };
        // Any site can get a certificate from a public CA, so without a check of the name it proves
        // nothing.
        if roots == Roots::System && mode != Mode::VerifyFull {
            bail!(
                "sslmode={} proves nothing with sslrootcert=system; use sslmode=verify-full",
                mode.name()
            );
        }
        if roots == Roots::Unset && mode == Mode::VerifyCa {
            bail!(
                "sslmode=verify-ca needs sslrootcert=<file with your CA in PEM form>; \
                 for a certificate from a public CA use sslmode=verify-full"
            );
        }
        let identity = match (parameters.get("sslcert"), parameters.get("sslkey")) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
            _ => bail!("sslcert and sslkey in the database URL need each other; give both"),
        };
        let sends_identity = parameters.choice(
            "sslcertmode",
            &[
                ("disable", Some(false)),
                ("allow", Some(true)),
                ("require", None),
            ],
        )?;
        if sends_identity == Some(None) {
            bail!(parameters.refusal(
                "sslcertmode",
                "whether the server asks for a certificate is not checked here; use allow, and let pg_hba.conf require it"
            ));
        }
        Ok(Self {
            mode,
            roots,
            identity: identity.filter(|_| sends_identity != Some(Some(false))),
            versions: versions(parameters)?,
        })
    }

    /// Reads the certificates and builds the connector. Blocks on files.
    pub(crate) fn connector(&self, direct: bool) -> Result<MakeRustlsConnect> {
        let provider = Arc::new(ring::default_provider());
        let verifier = self.verifier(&provider)?;
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions)
            .context("cannot set up TLS")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let identity = SingleCertAndKey::from(identity(cert, key, &provider)?);
                config.with_client_cert_resolver(Arc::new(identity))
            }
        };
        if direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(MakeRustlsConnect::new(config))
    }

    fn verifier(&self, provider: &CryptoProvider) -> Result<Verifier> {
        let check = match (self.mode, &self.roots) {
            (Mode::VerifyFull, _) => Check::ChainAndName,
            (Mode::VerifyCa, _) | (_, Roots::File(_)) => Check::Chain,
            _ => Check::Nothing,
        };
        let mut roots = RootCertStore::empty();
        let mut given = Vec::new();
        match &self.roots {
            Roots::File(path) => {
                given = certificates(path, "sslrootcert")?;
                for certificate in &given {
                    roots.add(certificate.clone()).with_context(|| {
                        format!(
                            "a certificate in sslrootcert {} is not usable",
                            path.display()
                        )
                    })?;
                }
            }
            Roots::System | Roots::Unset if check != Check::Nothing => {
                // In a system store a few unreadable certificates are normal.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    bail!(
                        "this system has no CA certificates; install ca-certificates, \
                         or name your CA with sslrootcert=<file>"
                    );
                }
            }
            Roots::System | Roots::Unset => {}
        }
        let algorithms = provider.signature_verification_algorithms;
        Ok(Verifier {
            check,
            roots,
            given,
            algorithms,
            file: match &self.roots {
                Roots::File(path) => Some(path.clone()),
                Roots::System | Roots::Unset => None,
            },
        })
    }
}

impl Verifier {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if self.given.contains(end_entity) {
            check_dates(end_entity, now)?;
        } else {
            verify_server_cert_signed_by_trust_anchor(
                &parsed, &self.roots, intermediates, now, self.algorithms.all,
            )?;
        }
        if self.check == Check::ChainAndName {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.check == Check::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let checked = self.check(end_entity, intermediates, server_name, now);
        checked.map_err(|error| {
            let presented = Presented {
                end_entity,
                intermediates,
                server_name,
                now,
            };
            let trusted = Trusted {
                file: self.file.as_deref(),
                certificates: &self.given,
            };
            presented.explain(&trusted, error)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let unreadable = match ParsedCertificate::try_from(cert) {
            Ok(_) => return verify_tls13_signature(message, cert, dss, &self.algorithms),
            Err(error) => error,
        };
        // webpki reads X.509 version 3 only; `openssl x509 -req` without extensions makes version
        // 1. If the certificate is not checked, its key is enough.
        let key = x509_cert::Certificate::from_der(cert)
            .and_then(|cert| cert.tbs_certificate.subject_public_key_info.to_der());
        match key {
            Ok(key) => verify_tls13_signature_with_raw_key(
                message,
                &SubjectPublicKeyInfoDer::from(key),
                dss,
                &self.algorithms,
            ),
            Err(_) => Err(unreadable),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// webpki checks dates only along a chain, and a certificate that is trusted directly has none.
fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let certificate =
        x509_cert::Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = certificate.tbs_certificate.validity;
    let now = now.as_secs();
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// The versions of TLS between libpq's two bounds.
fn versions(parameters: &Parameters) -> Result<&'static [&'static SupportedProtocolVersion]> {
    const NEWEST: u8 = 3;
    static ONLY_1_2: [&SupportedProtocolVersion; 1] = [&TLS12];
    static ONLY_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
    let choices = [
        ("TLSv1", 0),
        ("TLSv1.1", 1),
        ("TLSv1.2", 2),
        ("TLSv1.3", NEWEST),
    ];
    let least = parameters.choice("ssl_min_protocol_version", &choices)?;
    let most = parameters.choice("ssl_max_protocol_version", &choices)?;
    match (least.unwrap_or(0), most.unwrap_or(NEWEST)) {
        (least, most) if least > most => {
            bail!("ssl_min_protocol_version is above ssl_max_protocol_version")
        }
        (_, 0 | 1) => bail!(parameters.refusal(
            "ssl_max_protocol_version",
            "TLS before 1.2 is broken and not spoken here"
        )),
        (_, 2) => Ok(&ONLY_1_2),
        (NEWEST, _) => Ok(&ONLY_1_3),
        _ => Ok(ALL_VERSIONS),
    }
}
