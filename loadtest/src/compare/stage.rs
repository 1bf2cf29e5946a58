//! A Postgres, a service and a tenant of our own, and meters on all of them.
//!
//! Postgres is set up as `recsys-ingest dev` does, and as durable. Knows nothing
//! of what is loaded.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use private_postgres::{Options, PrivatePostgres};
use recsys_ingest::event::table::Table;
use recsys_ingest::event::time::Micros;
use recsys_ingest::partitions::create::ensure_ahead;
use recsys_ingest::partitions::range::Interval;
use recsys_ingest::postgres::connect::Target;
use recsys_ingest::postgres::migrate;
use recsys_ingest::postgres::session::Session;
use recsys_ingest::tenants::admin;
use recsys_ingest::tenants::key::ApiKeyHasher;
use recsys_ingest::tenants::role::Role;
use tempfile::TempDir;
use uuid::Uuid;

use super::child::{self, Answerer};
use super::process;
use super::sample::Sample;

/// As `recsys-ingest dev` sets its own.
const POSTGRES_SETTINGS: [(&str, &str); 4] = [
    ("shared_buffers", "256MB"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "15min"),
    ("wal_compression", "off"),
];

/// The tenant of everything that is loaded.
pub(crate) const TENANT: &str = "compare";
/// What ids are hashed with, by the service and by those who write its rows without it.
pub(crate) const SALT: &str = "compare-salt";
const KEY_SECRET: &str = "compare-secret";
const KEY: &str = "compare-ingest-key";
const SERVICE_KEY: &str = "compare-service-key";

/// Everything that takes part in a comparison.
#[derive(Debug)]
pub(crate) struct Stage {
    // Dropped in this order: those who use Postgres before Postgres.
    service: Option<Answerer>,
    pub(crate) admin: Session,
    pub(crate) target: Target,
    pub(crate) tenant: Uuid,
    pub(crate) psql: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    starts: u32,
    url: String,
    postgres: PrivatePostgres,
    dir: TempDir,
}

/// What to put on it.
#[derive(Clone, Debug)]
pub(crate) struct Setup<'s> {
    /// Where everything is kept; the disk that counts.
    pub(crate) dir: &'s Path,
    /// PostgreSQL's programs, instead of those that are found.
    pub(crate) pg_bin: Option<PathBuf>,
    /// The service's program, instead of the one beside ours.
    pub(crate) service: Option<&'s Path>,
    /// More arguments for the service.
    pub(crate) arguments: &'s [String],
    /// When the events happen.
    pub(crate) now: Micros,
    /// The schema is made by the service's program, which may be of another version than this one.
    pub(crate) migrates_itself: bool,
}

/// Meters as they stood before a load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meters {
    service: Option<(u32, f64)>,
    postgres: f64,
    client: f64,
    wal_bytes: f64,
}

impl Stage {
    /// Puts Postgres, the tables and the tenant up; the service comes later.
    pub(crate) async fn set(setup: &Setup<'_>) -> anyhow::Result<Self> {
        let program = child::find_service(setup.service)?;
        let dir = tempfile::Builder::new()
            .prefix("recsys-compare-")
            .tempdir_in(setup.dir)
            .with_context(|| format!("cannot make a directory in {}", setup.dir.display()))?;
        let options = Options {
            durable: true,
            bin_dir: setup.pg_bin.clone(),
            settings: POSTGRES_SETTINGS
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..Options::ephemeral(dir.path().join("postgres"))
        };
        let postgres = tokio::task::spawn_blocking(move || PrivatePostgres::start(&options))
            .await
            .context("the start of PostgreSQL was interrupted")??;
        let psql = child::find_psql(postgres.bin_dir())?;
        let url = postgres.url();
        let target = Target::parse(&url)?;
        let mut admin = Session::open(&target, None).await?;
        if setup.migrates_itself {
            child::migrate(&program, &url).await?;
        } else {
            migrate::migrate(&mut admin.client).await?;
        }
        for table in Table::ALL {
            ensure_ahead(&mut admin.client, table, Interval::Day, setup.now.0, 1).await?;
        }
        let tenant = admin::tenants::create_tenant(&admin.client, TENANT, "Comparison")
            .await?
            .id;
        let hasher = ApiKeyHasher::new(KEY_SECRET.as_bytes());
        for (key, role) in [(KEY, Role::Ingest), (SERVICE_KEY, Role::Service)] {
            admin::keys::insert_key(&admin.client, &hasher, TENANT, None, &[role], key).await?;
        }
        Ok(Self {
            service: None,
            admin,
            target,
            tenant,
            psql,
            program,
            arguments: setup.arguments.to_vec(),
            starts: 0,
            url,
            postgres,
            dir,
        })
    }

    /// Starts the service, with an empty spool; one that runs is ended.
    pub(crate) async fn start_service(&mut self, more: &[&str]) -> anyhow::Result<()> {
        self.service = None;
        self.starts += 1;
        let dir = self.dir.path();
        let spool = dir.join(format!("spool-{}", self.starts));
        let mut arguments: Vec<String> = [
            "--listen",
            "127.0.0.1:0",
            "--database-url",
            &self.url,
            "--api-key-hash-secret",
            KEY_SECRET,
            "--exposure-hash-salt",
            SALT,
            "--spool-dir",
            &spool.to_string_lossy(),
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        arguments.extend(self.arguments.iter().cloned());
        let log = dir.join(format!("service-{}.log", self.starts));
        self.service = Some(Answerer::service(&self.program, &arguments, &log).await?);
        Ok(())
    }

    pub(crate) fn service(&self) -> anyhow::Result<&Answerer> {
        self.service.as_ref().context("the service is not started")
    }

    /// For its own tenant only.
    pub(crate) fn key(&self) -> &'static str {
        KEY
    }

    /// For any tenant.
    pub(crate) fn service_key(&self) -> &'static str {
        SERVICE_KEY
    }

    /// Where files of ours can be kept.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The connection string, for psql.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What the server calls its version.
    pub(crate) async fn postgres_version(&self) -> anyhow::Result<String> {
        let row = self
            .admin
            .client
            .query_one("SHOW server_version", &[])
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Makes a table empty, and lets what is dirty go to disk, so that no load
    /// pays for another one.
    pub(crate) async fn clear(&self, table: &str) -> anyhow::Result<()> {
        self.admin
            .client
            .batch_execute(&format!("TRUNCATE {table}; CHECKPOINT"))
            .await
            .with_context(|| format!("cannot empty {table}"))
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> anyhow::Result<u64> {
        let row = self
            .admin
            .client
            .query_one(&format!("SELECT count(*) FROM {table}"), &[])
            .await
            .with_context(|| format!("cannot count the rows of {table}"))?;
        Ok(u64::try_from(row.try_get::<_, i64>(0)?)?)
    }

    /// Reads the meters before a load; `answerer` is whose CPU and memory count
    /// as the service's.
    pub(crate) async fn meters(&self, answerer: Option<u32>) -> anyhow::Result<Meters> {
        let wal_bytes = self.wal_bytes().await?;
        let service = match answerer {
            Some(pid) => {
                process::reset_peak(pid)?;
                Some((pid, process::cpu_of(pid)?))
            }
            None => None,
        };
        Ok(Meters {
            service,
            postgres: process::cpu_of_family(self.postgres.pid())?,
            client: process::cpu_of_us()?,
            wal_bytes,
        })
    }

    /// Enters into `sample` what the load cost since `before`.
    pub(crate) async fn read(&self, before: &Meters, sample: &mut Sample) -> anyhow::Result<()> {
        sample.client_cpu = process::cpu_of_us()? - before.client;
        let postgres = process::cpu_of_family(self.postgres.pid())?;
        sample.postgres_cpu = Some(postgres - before.postgres);
        if let Some((pid, cpu)) = before.service {
            sample.service_cpu = Some(process::cpu_of(pid)? - cpu);
            sample.service_peak_bytes = Some(process::peak_bytes(pid)?);
        }
        sample.wal_bytes = Some(self.wal_bytes().await? - before.wal_bytes);
        Ok(())
    }

    async fn wal_bytes(&self) -> anyhow::Result<f64> {
        let row = self
            .admin
            .client
            .query_one(
                "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8",
                &[],
            )
            .await
            .context("cannot ask how much WAL there is")?;
        Ok(row.try_get(0)?)
    }

    /// Ends the service and deletes everything.
    pub(crate) async fn strike(self) -> anyhow::Result<()> {
        drop(self.service);
        drop(self.admin);
        let postgres = self.postgres;
        tokio::task::spawn_blocking(move || postgres.delete())
            .await
            .context("the end of PostgreSQL was interrupted")??;
        self.dir
            .close()
            .context("cannot delete what was measured with")
    }
}
