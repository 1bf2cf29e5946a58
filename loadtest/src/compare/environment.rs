//! A private Postgres, a service and a tenant, and meters on all of them.
//!
//! Postgres is set up as `recsys-ingest dev` does, and as durable. Knows nothing
//! of what is loaded.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;
use uuid::Uuid;

use super::options::CompareOptions;
use super::process;
use super::programs::{self, Program};
use super::sample::Sample;
use crate::service::{
    ApiKeyHasher, DatabaseTarget, Interval, Micros, POSTGRES_SETTINGS, PostgresOptions,
    PrivatePostgres, Role, Session, TABLES, create_tenant, ensure_ahead, insert_key, migrate,
};

pub const TENANT: &str = "compare";
/// What ids are hashed with, by the service and for the rows that are loaded without it.
pub const SALT: &str = "compare-salt";
const KEY_SECRET: &str = "compare-secret";
/// Of the tenant only.
pub const KEY: &str = "compare-ingest-key";
/// Of any tenant.
pub const SERVICE_KEY: &str = "compare-service-key";

/// Everything that takes part in a comparison.
#[derive(Debug)]
pub struct Environment {
    // Dropped in this order: what uses Postgres before Postgres.
    service: Option<Program>,
    pub admin: Session,
    pub target: DatabaseTarget,
    pub tenant: Uuid,
    psql: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    postgres: PrivatePostgres,
    dir: TempDir,
}

impl Environment {
    /// Makes Postgres, the tables and the tenant for the service's `program` and events of
    /// today; the service comes later.
    ///
    /// Of two builds each migrates its own: an earlier one has another schema than this one.
    pub async fn new(
        options: &CompareOptions,
        program: Option<&Path>,
        now: Micros,
    ) -> anyhow::Result<Self> {
        let program = programs::find_service(program)?;
        let dir = tempfile::Builder::new()
            .prefix("recsys-compare-")
            .tempdir_in(&options.dir);
        let dir =
            dir.with_context(|| format!("cannot make a directory in {}", options.dir.display()))?;
        let postgres = PostgresOptions {
            durable: true,
            bin_dir: options.pg_bin.clone(),
            settings: POSTGRES_SETTINGS
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..PostgresOptions::ephemeral(dir.path().join("postgres"))
        };
        let postgres = tokio::task::spawn_blocking(move || PrivatePostgres::start(&postgres));
        let postgres = postgres
            .await
            .context("the start of PostgreSQL was interrupted")??;
        let target = DatabaseTarget::parse(&postgres.url())?;
        let mut admin = Session::open(&target, None).await?;
        match options.baseline.is_some() {
            true => programs::migrate(&program, &postgres.url()).await?,
            false => drop(migrate::migrate(&mut admin.client).await?),
        }
        for table in TABLES {
            let client = &mut admin.client;
            ensure_ahead(client, table, Interval::Day, now.0, 1).await?;
        }
        let tenant = create_tenant(&mut admin.client, TENANT, "Comparison")
            .await?
            .id;
        let hasher = ApiKeyHasher::new(KEY_SECRET.as_bytes());
        for (key, role) in [(KEY, Role::Ingest), (SERVICE_KEY, Role::Service)] {
            insert_key(&admin.client, &hasher, TENANT, None, &[role], key).await?;
        }
        Ok(Self {
            service: None,
            admin,
            target,
            tenant,
            psql: programs::find_psql(postgres.bin_dir()).await?,
            program,
            arguments: options.service_args.clone(),
            postgres,
            dir,
        })
    }

    /// Has the service use Kafka as its log, with a new set of topics.
    pub fn use_kafka(&mut self, brokers: &str) {
        let prefix = format!("compare-{}", Uuid::now_v7());
        let ours = [
            ("--log", "kafka"),
            ("--kafka-brokers", brokers),
            ("--kafka-topic-prefix", &prefix),
        ];
        let ours = ours.map(|(name, value)| format!("{name}={value}"));
        self.arguments.extend(ours);
    }

    /// Starts the service, with an empty spool; one that runs is ended.
    pub async fn start_service(&mut self, more: &[&str]) -> anyhow::Result<()> {
        self.service = None;
        let dir = tempfile::tempdir_in(self.dir.path())?.keep();
        let spool = dir.join("spool");
        let (url, spool) = (self.postgres.url(), spool.to_string_lossy());
        let mut arguments: Vec<String> = [
            ("--listen", "127.0.0.1:0"),
            ("--database-url", &url),
            ("--api-key-hash-secret", KEY_SECRET),
            ("--exposure-hash-salt", SALT),
            ("--spool-dir", &spool),
        ]
        .iter()
        .flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()])
        .collect();
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        arguments.extend(self.arguments.iter().cloned());
        let log = dir.join("log");
        self.service = Some(Program::service(&self.program, &arguments, &log).await?);
        Ok(())
    }

    /// The version that the service's program says it is.
    pub fn version(&self) -> Option<String> {
        let mut command = std::process::Command::new(&self.program);
        let said = command.arg("--version").output().ok()?.stdout;
        let said = String::from_utf8(said).ok()?;
        said.split_whitespace().last().map(str::to_owned)
    }

    pub fn service(&self) -> anyhow::Result<&Program> {
        self.service.as_ref().context("the service is not started")
    }

    /// For files that are loaded.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn url(&self) -> String {
        self.postgres.url()
    }

    /// Has psql do what `command` says, and says how long it took.
    pub async fn psql(&self, command: &str) -> anyhow::Result<std::time::Duration> {
        programs::psql(&self.psql, &self.url(), command).await
    }

    pub async fn value<T>(&self, query: &str) -> anyhow::Result<T>
    where
        T: for<'r> tokio_postgres::types::FromSql<'r>,
    {
        let row = self.admin.client.query_one(query, &[]).await;
        let row = row.with_context(|| format!("cannot query: {query}"))?;
        Ok(row.try_get(0)?)
    }

    /// Makes the suite's own event tables, in a schema of their own.
    pub async fn make_suite(&self) -> anyhow::Result<()> {
        let tables = include_str!("suite.sql");
        let suite = format!(
            "CREATE SCHEMA suite; SET search_path = suite, public; {tables} RESET search_path"
        );
        let made = self.admin.client.batch_execute(&suite).await;
        made.context("cannot make the suite's own tables")
    }

    /// Makes a table empty, and lets what is dirty go to disk, so that no load
    /// pays for another one.
    pub async fn clear(&self, table: &str) -> anyhow::Result<()> {
        let clear = format!("TRUNCATE {table}; CHECKPOINT");
        let cleared = self.admin.client.batch_execute(&clear).await;
        cleared.with_context(|| format!("cannot empty {table}"))
    }

    /// Fails unless a table has just the rows that a load brought.
    pub async fn ensure_rows(&self, table: &str, rows: u64) -> anyhow::Result<()> {
        let stored: i64 = self.value(&format!("SELECT count(*) FROM {table}")).await?;
        anyhow::ensure!(
            u64::try_from(stored)? == rows,
            "of {rows} rows {stored} are in {table}"
        );
        Ok(())
    }

    /// Does a load, and enters into its sample what it cost; the CPU and memory of the
    /// process `service` count as the service's.
    pub async fn metered(
        &self,
        service: Option<u32>,
        load: impl Future<Output = anyhow::Result<Sample>>,
    ) -> anyhow::Result<Sample> {
        service.map_or(Ok(()), process::reset_peak)?;
        let before = self.meters(service).await?;
        let mut sample = load.await?;
        let after = self.meters(service).await?;
        let [wal, of_service, postgres, client] = std::array::from_fn(|at| after[at] - before[at]);
        sample.client_cpu = client;
        (sample.postgres_cpu, sample.wal_bytes) = (Some(postgres), Some(wal));
        if let Some(pid) = service {
            sample.service_cpu = Some(of_service);
            sample.service_peak_bytes = Some(process::peak_bytes(pid)?);
        }
        Ok(sample)
    }

    /// Bytes of WAL, and seconds of CPU of the service, PostgreSQL and the client.
    async fn meters(&self, service: Option<u32>) -> anyhow::Result<[f64; 4]> {
        let wal = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
        Ok([
            self.value(wal).await?,
            service.map_or(Ok(0.0), process::cpu_of)?,
            process::cpu_of_family(self.postgres.pid())?,
            process::cpu_of_us()?,
        ])
    }

    /// Ends the service and deletes everything.
    pub async fn delete(self) -> anyhow::Result<()> {
        drop(self.service);
        drop(self.admin);
        let postgres = self.postgres;
        let deleted = tokio::task::spawn_blocking(move || postgres.delete()).await;
        deleted.context("the end of PostgreSQL was interrupted")??;
        self.dir
            .close()
            .context("cannot delete what was measured with")
    }
}
