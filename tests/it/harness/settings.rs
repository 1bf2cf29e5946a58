//! The flags of a service under test.

use std::ffi::OsString;
use std::sync::Arc;

use clap::Parser as _;
use recsys_ingest::cli::{Cli, Command};
use recsys_ingest::config::Serve;
use recsys_ingest::tenants::role::Role;
use tempfile::TempDir;

use super::database::Database;

/// The tenant that most tests use.
pub const DEMO: &str = "00000000-0000-4000-8000-000000000001";
/// Another active tenant.
pub const OTHER: &str = "00000000-0000-4000-8000-000000000002";
/// A suspended tenant.
pub const ASLEEP: &str = "00000000-0000-4000-8000-000000000003";
/// The secrets of the contract's test vectors.
pub const SALT: &str = "salt";
pub const PEPPER: &str = "pepper";

/// The API key of a tenant with a role.
pub fn key(tenant: &str, role: Role) -> String {
    format!("{tenant}-{}-key", role.name())
}

/// The flags of `serve`, each at most once.
#[derive(Clone, Debug)]
pub struct Settings {
    flags: Vec<(String, String)>,
    /// Removed after the last service that uses it.
    pub spool: Arc<TempDir>,
}

impl Settings {
    /// Defaults, except for what makes a test repeatable.
    pub fn new(database: &Database) -> Self {
        let spool = Arc::new(tempfile::tempdir().unwrap());
        let spool_dir = spool.path().display().to_string();
        Self {
            flags: Vec::new(),
            spool,
        }
        .with("--spool-dir", spool_dir)
        .with("--spool-bytes-max", "64MiB")
        .with("--spool-disk-reserve", "0B")
        .with("--default-ack", "committed")
        .with("--listen", "127.0.0.1:0")
        .with("--database-url", database.url())
        .with("--api-key-hash-secret", PEPPER)
        .with("--exposure-hash-salt", SALT)
        // Events with literal times have to stay acceptable in the years to come.
        .with("--horizon-past", "20000d")
        .with("--horizon-future", "20000d")
        .with("--key-refresh", "1h")
        // A machine that runs many tests may be slow.
        .with("--commit-timeout", "30s")
        .with("--shutdown-grace", "20s")
    }

    /// Sets or replaces a flag.
    pub fn with(mut self, flag: &str, value: impl ToString) -> Self {
        self.flags.retain(|(known, _)| known != flag);
        self.flags.push((flag.to_owned(), value.to_string()));
        self
    }

    /// The command line, from `serve` on.
    pub fn arguments(&self) -> Vec<OsString> {
        let flags = self
            .flags
            .iter()
            .map(|(flag, value)| format!("{flag}={value}"));
        std::iter::once("serve".to_owned())
            .chain(flags)
            .map(OsString::from)
            .collect()
    }

    /// Runs `verify` on the spool and the database of these settings; returns its exit code and
    /// its output.
    pub fn verify(&self) -> (i32, String) {
        let output = self.verify_with(&[]);
        let mut text = String::from_utf8(output.stdout).unwrap();
        text.push_str(&String::from_utf8(output.stderr).unwrap());
        (output.status.code().unwrap_or(-1), text)
    }

    /// Runs `verify` with more arguments, to its end.
    pub fn verify_with(&self, more: &[&str]) -> std::process::Output {
        let flag = |name: &str| {
            let value = self.flags.iter().find(|(flag, _)| flag == name);
            format!("{name}={}", value.unwrap().1)
        };
        std::process::Command::new(env!("CARGO_BIN_EXE_recsys-ingest"))
            .args(["verify", &flag("--spool-dir"), &flag("--database-url")])
            .args(more)
            .output()
            .unwrap()
    }

    /// Fails unless `verify` succeeds.
    pub fn assert_verified(&self) {
        let (code, text) = self.verify();
        assert_eq!(code, 0, "{text}");
    }

    /// The settings as the program parses them.
    pub fn parse(&self) -> Serve {
        let arguments = self.arguments();
        let cli = Cli::try_parse_from(std::iter::once("recsys-ingest".into()).chain(arguments));
        match cli.unwrap().command {
            Command::Serve(serve) => *serve,
            other => panic!("parsed as {other:?}"),
        }
    }
}
