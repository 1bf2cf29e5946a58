//! The options of a server, and the command line that follows from them.
//!
//! Invariant: the same options for the same directory give the same command line. A running
//! server is compared with the wanted one by its command line.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::LaunchError;
use crate::home::Home;

/// The port only names the socket file, in a directory that no other server uses.
pub(crate) const PORT: u16 = 5432;

/// Which server to run, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of the cluster, its lock, socket and log; made if missing.
    pub data_dir: PathBuf,
    /// The name of the database; made if missing.
    pub database: String,
    /// The directory of the programs; without it they are looked for, and fetched if missing.
    pub bin_dir: Option<PathBuf>,
    /// Where fetched programs are kept; see [`default_cache_dir`](crate::default_cache_dir).
    pub cache_dir: Option<PathBuf>,
    /// Server settings. They override the ones set here, except for the socket directory.
    pub settings: Vec<(String, String)>,
    /// `false` turns every fsync off: for data that may be lost when the machine crashes.
    pub durable: bool,
    /// The server starts empty. When this process ends, even by a kill, the server and its data
    /// are removed: for tests.
    pub ephemeral: bool,
}

impl Options {
    /// A durable server with the database `recsys` in `data_dir`.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            database: "recsys".to_owned(),
            bin_dir: None,
            cache_dir: None,
            settings: Vec::new(),
            durable: true,
            ephemeral: false,
        }
    }

    /// A server for tests: no fsync, and removed when the process ends.
    #[must_use]
    pub fn ephemeral(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            durable: false,
            ephemeral: true,
            ..Self::new(data_dir)
        }
    }

    pub(crate) fn port(&self) -> Result<u16, LaunchError> {
        let mut ports = self
            .settings
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case("port"));
        ports.next_back().map_or(Ok(PORT), |(_, value)| {
            value.parse().map_err(|_| {
                LaunchError::Failed(format!(
                    "the setting port={value} is not a port: give a number between 1 and 65535"
                ))
            })
        })
    }

    /// The arguments of `postgres`.
    pub(crate) fn arguments(&self, home: &Home) -> Vec<OsString> {
        let mut settings: Vec<(&str, &str)> = vec![
            ("listen_addresses", ""),
            ("port", "5432"),
            ("max_connections", "100"),
            ("TimeZone", "UTC"),
            ("log_timezone", "UTC"),
        ];
        if !self.durable {
            // synchronous_commit stays on: without it a crash of the server alone loses the last
            // commits, and with fsync off it does not wait for the disk.
            settings.extend([("fsync", "off"), ("full_page_writes", "off")]);
        }
        settings.extend(
            self.settings
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let mut arguments = vec![OsString::from("-D"), home.cluster().into_os_string()];
        for (name, value) in settings {
            arguments.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        // Last, because the last value counts, and nothing here works with another directory.
        let mut socket = OsString::from("unix_socket_directories=");
        socket.push(home.socket_dir());
        arguments.extend(["-c".into(), socket]);
        arguments
    }
}
