//! PostgreSQL servers for tests; each ends with this process, however it ends.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use private_postgres::{LaunchError, Options, PrivatePostgres};

/// Runs of the tests that may go on at once in one target directory.
const SLOTS: usize = 64;

/// The server that the tests share: started by the first, kept by none.
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

/// A server for tests.
pub struct Cluster {
    postgres: PrivatePostgres,
}

impl Cluster {
    /// Starts a server with `settings` on top of what makes tests fast.
    ///
    /// Its directory is one of a fixed few, so that killed runs leave no heap
    /// of directories behind.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::launch(false, settings)
    }

    /// Starts a server that waits for the disk, as a real one does: for measurements.
    pub fn durable(settings: &[(&str, &str)]) -> Self {
        Self::launch(true, settings)
    }

    fn launch(durable: bool, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        for slot in 0..SLOTS {
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-{slot}"));
            let options = Options {
                bin_dir: pg_bin(),
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

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.postgres.pid()
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.postgres.log_path()).unwrap()
    }

    /// Ends the server as a crash would.
    pub fn crash(&mut self) {
        let postgres = &mut self.postgres;
        blocking(move || postgres.stop_immediate()).unwrap();
    }

    /// Freezes the server: connections stay open and nothing answers.
    pub fn suspend(&mut self) {
        self.postgres.suspend().unwrap();
    }

    /// Ends what `suspend` began.
    pub fn resume(&mut self) {
        self.postgres.resume().unwrap();
    }

    /// Starts the server again.
    pub fn restart(&mut self) {
        let postgres = &mut self.postgres;
        blocking(move || postgres.restart()).unwrap();
    }
}

/// PostgreSQL's programs, where the environment names them.
#[expect(
    clippy::disallowed_methods,
    reason = "the one setting of the tests: which PostgreSQL to test against"
)]
pub fn pg_bin() -> Option<PathBuf> {
    std::env::var("INGEST_PG_BIN").ok().map(PathBuf::from)
}

/// Where PostgreSQL's programs are kept if they have to be fetched: once for all servers.
pub fn pg_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-programs")
}

/// Runs something that blocks, and may run a runtime of its own, on a thread of its own.
pub fn blocking<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}
