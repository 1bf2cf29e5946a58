//! Takes over a new certificate when its files change, without a restart.
//!
//! The contents are compared, not the times: a mount of a secret that is replaced as a whole (as
//! Kubernetes does) changes them all the same. Files that cannot be used leave the old certificate
//! in place.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracing::info;

use super::certificate::{CERT, Certificate, Contents, Files};
use super::tls::Tls;
use crate::accounts::board::{Board, Source};
use crate::clock;
use crate::finding::{Finding, Severity};

/// How often the files are read.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long before its end a certificate is reported. Issuers renew theirs weeks earlier.
const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The certificate in use, and the files that it is from.
#[derive(Debug)]
pub(crate) struct Reload {
    files: Files,
    tls: Tls,
    contents: Contents,
    not_after: Timestamp,
    /// What was wrong with the files at the last look. One that is said has been seen twice: the
    /// two files are often written one after the other.
    wrong: Option<(Option<Contents>, String)>,
}

impl Reload {
    /// Loads the certificate of the start.
    ///
    /// # Errors
    /// Names the file, what is wrong with it, and what to do.
    pub(crate) fn start(files: Files) -> anyhow::Result<Self> {
        let contents = files.read()?;
        let Certificate { key, not_after } = files.check(&contents)?;
        Ok(Self {
            tls: Tls::new(key)?,
            files,
            contents,
            not_after,
            wrong: None,
        })
    }

    pub(crate) fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Looks at the files again and again.
    pub(crate) async fn run(mut self, checks: Arc<Board>) {
        let now = || Timestamp::from_microsecond(clock::now().0).unwrap_or(Timestamp::MIN);
        let mut unusable = None;
        loop {
            let findings = unusable.take().into_iter().chain(self.expiry(now()));
            checks.put(Source::Certificate, findings.collect());
            tokio::time::sleep(LOOK_EVERY).await;
            let files = self.files.clone();
            // Files may lie on a network's file system.
            match tokio::task::spawn_blocking(move || files.read()).await {
                Ok(read) => unusable = self.look(read),
                // The runtime is ending.
                Err(_) => return,
            }
        }
    }

    /// Takes new contents over. Returns a finding if they were unusable twice in a row.
    fn look(&mut self, read: anyhow::Result<Contents>) -> Option<Finding> {
        let wrong = match read {
            Ok(contents) if contents == self.contents => None,
            Ok(contents) => match self.files.check(&contents) {
                Ok(Certificate { key, not_after }) => {
                    info!(expires = %not_after, "the certificate's files changed: new connections get the new one");
                    self.tls.replace(key);
                    self.contents = contents;
                    self.not_after = not_after;
                    None
                }
                Err(error) => Some((Some(contents), format!("{error:#}"))),
            },
            Err(error) => Some((None, format!("{error:#}"))),
        };
        let is_confirmed = wrong == self.wrong;
        self.wrong = wrong;
        let (_, why) = self.wrong.as_ref().filter(|_| is_confirmed)?;
        Some(Finding::new(
            Severity::Note,
            "certificate_unusable",
            format!("the certificate's files changed and cannot be used: {why}"),
            format!(
                "new connections go on with the certificate from before, which expires at {}",
                self.not_after
            ),
            "write both files again; they are read every five seconds",
        ))
    }

    fn expiry(&self, now: Timestamp) -> Option<Finding> {
        let until = self.not_after;
        let cert = self.files.cert.display();
        let renew = "renew it and write both files; they are read every five seconds";
        if until < now {
            return Some(Finding::new(
                Severity::Degraded,
                "certificate_expired",
                format!("the certificate in {CERT} {cert} has expired at {until}"),
                "clients refuse to connect",
                renew,
            ));
        }
        (until.duration_since(now) < EXPIRES_SOON).then(|| {
            Finding::new(
                Severity::Note,
                "certificate_expires",
                format!("the certificate in {CERT} {cert} expires at {until}"),
                "from then on clients refuse to connect",
                renew,
            )
        })
    }
}
