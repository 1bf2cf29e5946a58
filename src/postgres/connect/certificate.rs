//! Why a server's certificate is refused, in words for the person who has to mend it.
//!
//! The check itself is in `tls`; here its verdict is put beside what the certificate says of
//! itself. Pure.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, OtherError};
use x509_cert::certificate::{Certificate, Version};
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A refused certificate: why, and what to do.
#[derive(Debug)]
pub(crate) struct CertificateProblem {
    pub(crate) reason: String,
    pub(crate) fix: String,
}

impl fmt::Display for CertificateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.fix)
    }
}

impl std::error::Error for CertificateProblem {}

/// What the server showed, and what it should be.
pub(crate) struct Presented<'c> {
    pub(crate) end_entity: &'c CertificateDer<'c>,
    pub(crate) intermediates: &'c [CertificateDer<'c>],
    pub(crate) server_name: &'c ServerName<'c>,
    pub(crate) now: UnixTime,
}

/// The certificates that are trusted.
pub(crate) struct Trusted<'c> {
    /// The file of `sslrootcert`; `None` for the system's CAs.
    pub(crate) file: Option<&'c Path>,
    pub(crate) certificates: &'c [CertificateDer<'c>],
}

impl Presented<'_> {
    /// The refusal of this certificate, in words. Errors that are not about the certificate pass.
    pub(crate) fn explain(&self, trusted: &Trusted<'_>, error: rustls::Error) -> rustls::Error {
        let rustls::Error::InvalidCertificate(refused) = error else {
            return error;
        };
        let (reason, fix) = match Certificate::from_der(self.end_entity) {
            Ok(certificate) => self.words(&certificate, trusted, &refused),
            Err(_) => (
                "the server's certificate cannot be read".to_owned(),
                "issue it again".to_owned(),
            ),
        };
        let problem = CertificateProblem { reason, fix };
        CertificateError::Other(OtherError(Arc::new(problem))).into()
    }

    fn words(
        &self,
        certificate: &Certificate,
        trusted: &Trusted<'_>,
        refused: &CertificateError,
    ) -> (String, String) {
        let name = self.server_name.to_str();
        if certificate.tbs_certificate.version != Version::V3 {
            return (
                format!(
                    "the server's certificate ({}) is X.509 version 1, which has no names of servers; version 3 is needed",
                    subject(certificate)
                ),
                issue_again(&name),
            );
        }
        match refused {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                self.wrong_name(certificate)
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => self.dates(
                "has expired",
                "renew it at the server, and check the clock here",
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => self
                .dates(
                    "is not valid yet",
                    "check the clocks here and at the server",
                ),
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
                format!(
                    "the server's certificate ({}) is not for servers: its extendedKeyUsage lacks serverAuth",
                    subject(certificate)
                ),
                "issue it again with extendedKeyUsage=serverAuth".to_owned(),
            ),
            CertificateError::Revoked => (
                "the server's certificate is revoked".to_owned(),
                "issue another one".to_owned(),
            ),
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::Other(_) => self.untrusted(certificate, trusted),
            other => (
                format!(
                    "the server's certificate ({}) is not acceptable: {other}",
                    subject(certificate)
                ),
                issue_again(&name),
            ),
        }
    }

    fn wrong_name(&self, certificate: &Certificate) -> (String, String) {
        let name = self.server_name.to_str();
        let names = names(certificate);
        if names.is_empty() {
            let common = common_name(certificate);
            let why = match common {
                Some(common) => format!(
                    "the server's certificate has no subjectAltName, only a common name (CN) \"{common}\", which does not count as the name of a server any more"
                ),
                None => {
                    "the server's certificate names no server: it has no subjectAltName".to_owned()
                }
            };
            return (
                why,
                format!(
                    "{}; or use sslmode=verify-ca, which checks the CA and not the name",
                    issue_again(&name)
                ),
            );
        }
        (
            format!(
                "the server's certificate is for other names: {}, and not for {name}",
                names.join(", ")
            ),
            format!(
                "connect by one of these names, or issue it again with {}",
                alt_name(&name)
            ),
        )
    }

    /// A certificate of the chain that is out of its time.
    fn dates(&self, how: &str, fix: &str) -> (String, String) {
        let now = seconds(self.now.as_secs());
        let mut reason = format!("the server's certificate {how}");
        for (i, der) in std::iter::once(self.end_entity)
            .chain(self.intermediates)
            .enumerate()
        {
            let Ok(certificate) = Certificate::from_der(der) else {
                continue;
            };
            let validity = certificate.tbs_certificate.validity;
            let from = validity.not_before.to_unix_duration().as_secs();
            let to = validity.not_after.to_unix_duration().as_secs();
            if (from..=to).contains(&self.now.as_secs()) {
                continue;
            }
            let which = match i {
                0 => "the server's certificate".to_owned(),
                _ => format!(
                    "the CA's certificate that the server sends, {},",
                    subject(&certificate)
                ),
            };
            reason = format!(
                "{which} {how}: it is valid from {} to {}, and here it is {now}",
                seconds(from),
                seconds(to)
            );
            break;
        }
        (reason, fix.to_owned())
    }

    fn untrusted(&self, certificate: &Certificate, trusted: &Trusted<'_>) -> (String, String) {
        const REASON: &str = "the server's certificate is not signed by a trusted CA";
        let issuer = certificate.tbs_certificate.issuer.to_string();
        let is_self_signed = certificate.tbs_certificate.subject.to_string() == issuer;
        let Some(file) = trusted.file.map(Path::display) else {
            return match is_self_signed {
                true => (
                    format!("{REASON}: it is self-signed ({issuer})"),
                    "copy it here and name the file in sslrootcert".to_owned(),
                ),
                false => (
                    format!(
                        "{REASON}: it was issued by \"{issuer}\", which is none of this system's CAs"
                    ),
                    "name the file with the right CA in sslrootcert".to_owned(),
                ),
            };
        };
        let subjects: Vec<_> = trusted
            .certificates
            .iter()
            .filter_map(|der| Certificate::from_der(der).ok())
            .map(|certificate| certificate.tbs_certificate.subject.to_string())
            .collect();
        // With intermediates, the last of them leads to the CA.
        let top = self.intermediates.last();
        let top = top.and_then(|der| Certificate::from_der(der).ok());
        let wanted = top.map_or(issuer.clone(), |top| top.tbs_certificate.issuer.to_string());
        if is_self_signed {
            return (
                format!(
                    "{REASON}: it is self-signed ({issuer}), and sslrootcert {file} does not hold it"
                ),
                format!("add it to {file}"),
            );
        }
        if subjects.contains(&wanted) {
            return (
                format!(
                    "{REASON}: sslrootcert {file} holds a CA of the right name, \"{wanted}\", with another key"
                ),
                format!("put the CA's present certificate into {file}"),
            );
        }
        (
            format!(
                "{REASON}: it was issued by \"{issuer}\", and sslrootcert {file} holds \"{}\"",
                subjects.join("\", \"")
            ),
            format!(
                "put the certificate of \"{wanted}\" into {file}, or let the server send what stands between the two"
            ),
        )
    }
}

fn issue_again(name: &str) -> String {
    format!("issue it again with {}", alt_name(name))
}

fn alt_name(name: &str) -> String {
    let kind = match name.parse::<std::net::IpAddr>() {
        Ok(_) => "IP",
        Err(_) => "DNS",
    };
    format!("subjectAltName={kind}:{name}")
}

fn subject(certificate: &Certificate) -> String {
    certificate.tbs_certificate.subject.to_string()
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let subject = subject(certificate);
    let mut parts = subject.split([',', '+']);
    parts.find_map(|part| part.trim().strip_prefix("CN=").map(str::to_owned))
}

/// The names in subjectAltName.
fn names(certificate: &Certificate) -> Vec<String> {
    let found = certificate.tbs_certificate.get::<SubjectAltName>();
    let Ok(Some((_, SubjectAltName(names)))) = found else {
        return Vec::new();
    };
    let shown = names.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => ip(bytes.as_bytes()),
        _ => None,
    });
    shown.collect()
}

fn ip(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
    let v6 = || <[u8; 16]>::try_from(bytes).map(|bytes| std::net::IpAddr::from(bytes).to_string());
    v4.or_else(|_| v6()).ok()
}

fn seconds(since_1970: u64) -> String {
    let time = i64::try_from(since_1970)
        .ok()
        .and_then(|s| Timestamp::from_second(s).ok());
    time.map_or_else(|| "an unknown time".to_owned(), |time| time.to_string())
}
