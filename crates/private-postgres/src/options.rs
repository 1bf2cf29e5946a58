//! What a caller may choose about a server, and the command line that follows from it.
//!
//! Keeps one invariant: the same options in the same place give the same command line, since
//! that is how a running server is compared with the one that is wanted.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::LaunchError;
use crate::home::Home;

/// The port only names the socket file, in a directory that no other server uses.
pub(crate) const PORT: u16 = 5432;

/// What to run, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept; made if missing.
    pub data_dir: PathBuf,
    /// The database to make if it is missing.
    pub database: String,
    /// Use the programs in this directory, and no others.
    pub bin_dir: Option<PathBuf>,
    /// Keep fetched programs here; see [`default_cache_dir`](crate::default_cache_dir).
    pub cache_dir: Option<PathBuf>,
    /// Server settings; they win over ours, except for the socket directory.
    pub settings: Vec<(String, String)>,
    /// `false` forgoes every fsync: for tests whose data may vanish with the machine.
    pub durable: bool,
    /// The server begins empty, and ends with its data when this process does, however
    /// it ends: for tests.
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

    /// What a test wants: fast, and gone with the process.
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

    /// Everything behind `postgres` on its command line.
    pub(crate) fn arguments(&self, home: &Home) -> Vec<OsString> {
        let mut settings: Vec<(&str, &str)> = vec![
            ("listen_addresses", ""),
            ("port", "5432"),
            ("max_connections", "100"),
            ("TimeZone", "UTC"),
            ("log_timezone", "UTC"),
        ];
        if !self.durable {
            // Not synchronous_commit: without it, a crash of the server alone forgets
            // what was committed last, and with it no commit waits for a disk anyway.
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
        // Last, because the last one counts, and nothing here works with another.
        let mut socket = OsString::from("unix_socket_directories=");
        socket.push(home.socket_dir());
        arguments.extend(["-c".into(), socket]);
        arguments
    }
}
