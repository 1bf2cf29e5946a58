//! Why a connection failed, in one sentence with a remedy.
//!
//! Invariant: a sentence names host, database and user, never the password. Distinguishes only what
//! a caller treats differently: an error that may pass by itself, and one that needs an operator.

use std::error::Error as _;
use std::io;

use rustls::{AlertDescription, CertificateError};
use tokio_postgres::error::SqlState;

use super::certificate::CertificateProblem;
use super::password::PasswordOrigin;

/// A connection that could not be opened.
///
/// The sentence contains the innermost cause, so there is no `source()` that would repeat it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server is unreachable, starting or full: retry soon.
    #[error("{sentence}")]
    Away {
        /// The cause and the remedy, complete in itself.
        sentence: String,
    },
    /// Credentials, database name or certificates are wrong: an operator has to act, so report it
    /// as a fault and retry slowly.
    #[error("{sentence}")]
    Misconfigured {
        /// The cause and the remedy, complete in itself.
        sentence: String,
    },
}

impl ConnectError {
    /// Whether waiting alone may help.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }

    pub(crate) fn away(place: &str, reason: &str, fix: &str) -> Self {
        Self::Away {
            sentence: format!("cannot connect to {place}: {reason}; {fix}"),
        }
    }

    pub(crate) fn misconfigured(place: &str, reason: &str, fix: &str) -> Self {
        Self::Misconfigured {
            sentence: format!("cannot connect to {place}: {reason}; {fix}"),
        }
    }

    pub(crate) fn from_postgres(
        place: &str,
        error: &tokio_postgres::Error,
        password: &PasswordOrigin,
    ) -> Self {
        if let Some(refusal) = error.as_db_error() {
            let reason = format!("{} (SQLSTATE {})", refusal.message(), refusal.code().code());
            return Self::from_sqlstate(place, &reason, refusal.code(), password);
        }
        if let Some(problem) = rustls_error(error) {
            let (reason, fix) = describe_tls(problem);
            return Self::misconfigured(place, &reason, &fix);
        }
        let innermost = innermost(error);
        if is_tls(error) {
            return match io_error(error) {
                // The connection broke during the handshake, as in a restart of the server.
                Some(io) => Self::away(
                    place,
                    &format!("the TLS handshake broke off: {io}"),
                    "look into the server's log, and check that no proxy stands in between",
                ),
                None => Self::misconfigured(
                    place,
                    &innermost,
                    "set ssl=on at the server, or use sslmode=prefer if the network is trusted",
                ),
            };
        }
        match io_error(error) {
            Some(io) => {
                let fix = fix_for_io(io);
                Self::away(place, &innermost, fix)
            }
            None if error.is_closed() => Self::away(
                place,
                "the server closed the connection",
                "look into its log; it may be restarting, or something else listens on that port",
            ),
            None if innermost == "password missing" => Self::misconfigured(
                place,
                "password missing: the server asks for one",
                &password.provide(),
            ),
            None => Self::misconfigured(
                place,
                &format!("{error}: {innermost}"),
                "check user and password in the database URL and pg_hba.conf at the server",
            ),
        }
    }

    fn from_sqlstate(
        place: &str,
        reason: &str,
        code: &SqlState,
        password: &PasswordOrigin,
    ) -> Self {
        match (code.code(), code.code().get(..2).unwrap_or_default()) {
            ("3D000", _) => Self::misconfigured(
                place,
                reason,
                "create the database (createdb) or correct its name in the database URL",
            ),
            ("28P01", _) => Self::misconfigured(place, reason, &password.correct()),
            (_, "28") => Self::misconfigured(
                place,
                reason,
                "check the user in the database URL and pg_hba.conf at the server",
            ),
            ("53300", _) => Self::away(
                place,
                reason,
                "raise max_connections at the server or lower the number of writers",
            ),
            ("57P03", _) => Self::away(place, reason, "wait until the server has started"),
            (_, "08" | "53" | "57") => Self::away(place, reason, "look into the server's log"),
            _ => Self::misconfigured(
                place,
                reason,
                "check the database URL and the rights of its user",
            ),
        }
    }
}

/// Whether the TLS handshake failed.
///
/// The kind of a tokio-postgres error is private, so this compares its text. A test with a server
/// without TLS pins it.
pub(crate) fn is_tls(error: &tokio_postgres::Error) -> bool {
    error.to_string() == "error performing TLS handshake"
}

/// Whether the server offers TLS, at least to other clients.
pub(crate) fn is_tls_offered(error: &tokio_postgres::Error) -> bool {
    !is_tls(error) || io_error(error).is_some()
}

/// Why a connection that prefers TLS is in clear text.
pub(crate) fn why_no_tls(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), rustls_error(error)) {
        (Some(refusal), _) => format!("with TLS the server said: {}", refusal.message()),
        (None, Some(problem)) => describe_tls(problem).0,
        (None, None) => innermost(error),
    }
}

fn io_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

fn rustls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    io_error(error)?.get_ref()?.downcast_ref()
}

fn innermost(error: &tokio_postgres::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn fix_for_io(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "start PostgreSQL there, or correct host and port in the database URL"
        }
        io::ErrorKind::NotFound => {
            "no PostgreSQL listens on that socket: start it, or correct the directory and port"
        }
        io::ErrorKind::PermissionDenied => {
            "let this user enter the socket directory, or connect over TCP"
        }
        io::ErrorKind::TimedOut => "check the address, and firewalls on the way",
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => "the server hung up: look into its log",
        _ => "check host and port in the database URL, and that the name resolves here",
    }
}

/// What is wrong with TLS, and what to do.
fn describe_tls(error: &rustls::Error) -> (String, String) {
    let described = |reason: String, fix: &str| (reason, fix.to_owned());
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            match other.0.downcast_ref::<CertificateProblem>() {
                Some(problem) => (problem.reason.clone(), problem.fix.clone()),
                None => described(
                    format!("the server's certificate is not acceptable: {other}"),
                    "issue an X.509 version 3 server certificate with a subjectAltName",
                ),
            }
        }
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied),
        ) => described(
            format!("the server does not accept the client certificate, or wants one ({alert:?})"),
            "name a certificate that its ssl_ca_file has signed in sslcert and sslkey",
        ),
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)
        | rustls::Error::PeerIncompatible(_) => described(
            format!(
                "the server and this program have no version or method of TLS in common: {error}"
            ),
            "let the server speak TLS 1.2 or 1.3, with a certificate of an RSA, P-256, P-384 or Ed25519 key",
        ),
        _ => described(
            format!("TLS failed: {error}"),
            "check the TLS settings at the server and what stands between here and there",
        ),
    }
}
