//! PostgreSQL servers for tests. Each one ends with this process, even if it is killed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use private_postgres::{LaunchError, Options, PrivatePostgres};

/// Servers that can run at once in one target directory.
const SLOTS: usize = 64;

/// The server that the tests share. The first test starts it; it ends with the process.
pub fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        Cluster::start(&[
            ("max_connections", "300"),
            ("autovacuum", "off"),
            ("checkpoint_timeout", "1h"),
            ("max_wal_size", "4GB"),
        ])
    })
}

/// The `psql` that belongs to it.
pub fn psql() -> PathBuf {
    cluster().postgres.bin_dir().join("psql")
}

/// A PostgreSQL server.
pub struct Cluster {
    postgres: PrivatePostgres,
}

impl Cluster {
    /// Starts a server with `settings`, in addition to those that make tests fast.
    ///
    /// Its directory is one of `SLOTS`, so killed runs do not pile up directories.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::launch(false, pg_bin(), settings)
    }

    /// Starts a server of the programs in `bin_dir`.
    pub fn start_of(bin_dir: PathBuf, settings: &[(&str, &str)]) -> Self {
        Self::launch(false, Some(bin_dir), settings)
    }

    /// Starts a server that waits for the disk, as in production: for measurements.
    pub fn durable(settings: &[(&str, &str)]) -> Self {
        Self::launch(true, pg_bin(), settings)
    }

    fn launch(durable: bool, bin_dir: Option<PathBuf>, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        for slot in 0..SLOTS {
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-{slot}"));
            let options = Options {
                bin_dir: bin_dir.clone(),
                cache_dir: Some(pg_cache()),
                settings: settings.clone(),
                durable,
                ..Options::ephemeral(dir)
            };
            match blocking(move || PrivatePostgres::start(&options)) {
                Ok(postgres) => return Self { postgres },
                Err(LaunchError::InUse { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("{SLOTS} servers run already");
    }

    /// The URL of a database on this server.
    pub fn url(&self, database: &str) -> String {
        self.postgres
            .url()
            .replace("/recsys?", &format!("/{database}?"))
    }

    /// Where its programs are: psql, pg_dump.
    pub fn bin_dir(&self) -> &Path {
        self.postgres.bin_dir()
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.postgres.pid()
    }

    /// The server's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.postgres.log_path()).unwrap()
    }

    /// Ends the server as a crash would.
    pub fn crash(&mut self) {
        let postgres = &mut self.postgres;
        blocking(move || postgres.stop_immediate()).unwrap();
    }

    /// Freezes the server: connections stay open and get no answers.
    pub fn suspend(&mut self) {
        self.postgres.suspend().unwrap();
    }

    /// Ends `suspend`.
    pub fn resume(&mut self) {
        self.postgres.resume().unwrap();
    }

    /// Starts the server again.
    pub fn restart(&mut self) {
        let postgres = &mut self.postgres;
        blocking(move || postgres.restart()).unwrap();
    }
}

/// The directory of PostgreSQL's programs, if the environment names one.
#[expect(
    clippy::disallowed_methods,
    reason = "the one setting of the tests: which PostgreSQL to test against"
)]
pub fn pg_bin() -> Option<PathBuf> {
    std::env::var("INGEST_PG_BIN").ok().map(PathBuf::from)
}

/// Where downloaded PostgreSQL programs are kept, for all servers.
pub fn pg_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-programs")
}

/// Runs blocking work, which may start a runtime, on another thread.
pub fn blocking<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}
