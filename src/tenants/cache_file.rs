//! The key cache file: tenants and key hashes for a start without the database.
//!
//! Two invariants. Under its name the file is complete or absent. Its content is not used once it
//! is older than the maximum age, or once the database was read.
//!
//! Holds hashes of keys, never a key. An error with the file is logged and costs only the cache.
//! See docs/decisions/0007.

pub(crate) mod format;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::time::sleep;

use super::key::ApiKeyHasher;
use super::refresh::TenantCache;
use super::snapshot::Snapshot;
use crate::backoff::Failing;
use crate::event::time::Micros;

const FILE_NAME: &str = "keys";
/// Ends in the spool's suffix for unfinished files, so that opening the spool removes what a crash
/// left.
const UNFINISHED_NAME: &str = "keys.new";

/// Time for the database to answer before the file is used. A healthy one takes a tenth of a
/// second, and a restart should not be delayed longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// The file is confirmed this many times within its maximum age: hourly for a day.
const CONFIRMATIONS: u32 = 24;

/// Two synchronised clocks differ by less. A file from further ahead was written under a wrong
/// clock and would be trusted for too long.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// The key cache file and how long it may be used.
#[derive(Clone, Debug)]
pub struct KeyCacheFile {
    directory: PathBuf,
    max_age: Duration,
    hasher: ApiKeyHasher,
}

/// The content of the file.
#[derive(Debug)]
struct Copied {
    snapshot: Snapshot,
    confirmed_at_us: i64,
    age: Duration,
}

impl KeyCacheFile {
    /// The key cache file in a directory that belongs to this process alone. A `max_age` of zero
    /// means no file.
    #[must_use]
    pub fn new(directory: &Path, max_age: Duration, hasher: ApiKeyHasher) -> Self {
        Self {
            directory: directory.to_owned(),
            max_age,
            hasher,
        }
    }

    /// Uses the file until the database is read, and rewrites it from then on. Returns only if no
    /// file is wanted; that removes an old one.
    pub async fn run(self, keys: TenantCache, now: fn() -> Micros) {
        let path = self.path();
        if self.max_age.is_zero() {
            if let Err(error) = blocking(move || Ok(self.remove()?)).await {
                let path = path.display();
                tracing::warn!("cannot remove {path}, which is not wanted any more: {error:#}");
            }
            return;
        }
        tokio::join!(self.stand_in(&keys, now), self.keep(&keys, now));
    }

    /// Puts the file in force if the database does not answer, until the maximum age.
    async fn stand_in(&self, keys: &TenantCache, now: fn() -> Micros) {
        sleep(PATIENCE).await;
        if keys.age().is_some() {
            return;
        }
        let this = self.clone();
        let copied = match blocking(move || this.read(now().0)).await {
            Ok(Some(copied)) => copied,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(
                    "tenants and API keys cannot be read, and the copy in {} is of no use: it {error:#}",
                    self.path().display()
                );
                return;
            }
        };
        let (tenants, known) = (copied.snapshot.tenants(), copied.snapshot.keys());
        if !keys.stand_in(copied.snapshot, copied.confirmed_at_us) {
            return;
        }
        tracing::warn!(
            age_seconds = copied.age.as_secs(),
            tenants,
            keys = known,
            "tenants and API keys cannot be read and are taken from the copy of an earlier run; \
             keys that were revoked since then work until they can be"
        );
        sleep(self.max_age.saturating_sub(copied.age)).await;
        if keys.dismiss() {
            tracing::error!(
                "the copy of tenants and API keys is older than --key-copy-max-age; \
                 events are refused until the database can be read"
            );
        }
    }

    /// Writes the file after each refresh that changed something, and at intervals after one that
    /// did not: its age counts from the last confirmation.
    async fn keep(&self, keys: &TenantCache, now: fn() -> Micros) {
        let mut written: Option<(Arc<Snapshot>, Instant)> = None;
        let mut failing = Failing::default();
        loop {
            keys.was_read().await;
            let snapshot = keys.snapshot();
            let is_current = written.as_ref().is_some_and(|(last, at)| {
                Arc::ptr_eq(last, &snapshot) && at.elapsed() < self.max_age / CONFIRMATIONS
            });
            if is_current {
                continue;
            }
            let (this, what, at) = (self.clone(), Arc::clone(&snapshot), Instant::now());
            match blocking(move || this.write(&what, now().0)).await {
                Ok(()) => {
                    failing.ends();
                    written = Some((snapshot, at));
                }
                Err(error) if failing.begins() => {
                    tracing::warn!(
                        "a start without the database would know no API keys: {error:#}"
                    );
                }
                Err(_) => {}
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(FILE_NAME)
    }

    fn write(&self, snapshot: &Snapshot, confirmed_at_us: i64) -> Result<()> {
        let path = self.path();
        self.replace(&path, |file| {
            format::write(snapshot, confirmed_at_us, &self.hasher, file)
        })
        .with_context(|| format!("cannot write the copy of them to {}", path.display()))
    }

    /// Leaves the new content or the old one, whenever the power fails.
    fn replace(&self, path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let unfinished = self.directory.join(UNFINISHED_NAME);
        // A file that an earlier attempt left may have other permissions.
        remove_if_there(&unfinished)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)?;
        write(&file)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(&self.directory)?.sync_all()
    }

    /// The content of the file, if there is one. An error says why the file cannot be used.
    fn read(&self, now_us: i64) -> Result<Option<Copied>> {
        let bytes = match fs::read(self.path()) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("cannot be read"),
        };
        let (snapshot, confirmed_at_us) = format::decode(&bytes, &self.hasher)?;
        let micros = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
        let ahead = micros(confirmed_at_us.saturating_sub(now_us));
        if ahead > SKEW_MAX {
            bail!(
                "is from the future, {} ahead: set the clock",
                in_words(ahead)
            );
        }
        let age = micros(now_us.saturating_sub(confirmed_at_us));
        if age >= self.max_age {
            bail!(
                "was last confirmed {} ago, and --key-copy-max-age is {}",
                in_words(age),
                humantime::format_duration(self.max_age)
            );
        }
        Ok(Some(Copied {
            snapshot,
            confirmed_at_us,
            age,
        }))
    }

    fn remove(&self) -> io::Result<()> {
        remove_if_there(&self.path())
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// In whole seconds, which is enough for a message.
fn in_words(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}

/// Runs `work` on a thread that may block on the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // Passes a panic on to the calling task, which has a name.
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => bail!("was interrupted"),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const AT_US: i64 = 1_790_000_000_000_000;
    const SECOND_US: i64 = 1_000_000;

    fn copy(directory: &Path) -> KeyCacheFile {
        let hasher = ApiKeyHasher::new(b"pepper");
        KeyCacheFile::new(directory, Duration::from_secs(60), hasher)
    }

    #[test]
    fn a_copy_counts_until_it_is_as_old_as_it_may_be_and_not_ahead_of_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let copy = copy(directory.path());
        assert!(copy.read(AT_US).unwrap().is_none());
        copy.write(&Snapshot::default(), AT_US).unwrap();
        let after = |seconds: i64| copy.read(AT_US + seconds * SECOND_US);
        assert_eq!(after(59).unwrap().unwrap().age.as_secs(), 59);
        let error = after(60).unwrap_err().to_string();
        assert!(error.contains("last confirmed 1m ago"), "{error}");
        // Synchronised clocks differ by a little.
        assert_eq!(after(-300).unwrap().unwrap().age, Duration::ZERO);
        let error = after(-301).unwrap_err().to_string();
        assert!(error.contains("from the future"), "{error}");
    }

    #[test]
    fn a_new_copy_replaces_the_old_one_and_what_was_left_unfinished() {
        let directory = tempfile::tempdir().unwrap();
        let copy = copy(directory.path());
        copy.write(&Snapshot::default(), AT_US).unwrap();
        let unfinished = directory.path().join(UNFINISHED_NAME);
        fs::write(&unfinished, "half a co").unwrap();
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o644)).unwrap();
        copy.write(&Snapshot::default(), AT_US + 1).unwrap();
        let read = copy.read(AT_US + 1).unwrap().unwrap();
        assert_eq!(read.confirmed_at_us, AT_US + 1);
        let mode = fs::metadata(copy.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!unfinished.exists());
        copy.remove().unwrap();
        copy.remove().unwrap();
        assert!(copy.read(AT_US).unwrap().is_none());
    }
}
