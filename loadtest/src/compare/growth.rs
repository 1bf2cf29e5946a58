//! What happens to the rate, and to the memory of the service, when there is more
//! of everything.
//!
//! Keeps one invariant: the points of an axis are loaded in turn, round after
//! round, so that each can be set against the others. Interactions only, over
//! HTTP at `ack=durable`, in bodies of a hundred where nothing else is said.

use anyhow::Context as _;
use recsys_ingest::event::table::Table as Target;
use recsys_ingest::partitions;
use recsys_ingest::partitions::range::Interval;

use super::http::Load;
use super::options::CompareOptions;
use super::outcome::Section;
use super::sample::{Sample, Series};
use super::stage::{Stage, TENANT};
use super::way::{BODY, Way};
use super::workload::{DAY_US, Workload};
use crate::answer::Ack;
use crate::generate::settings::{Caller, Scope, Table};

const TABLE: Target = Target::Interactions;
const PARTITIONS: u32 = 400;
const TENANTS: u32 = 10_000;
const CONNECTIONS: [usize; 3] = [1, 16, 2000];
const BODIES: [u32; 5] = [1, 10, BODY, 1000, 5000];
/// Partitions lie in the future, where nothing is sealed or dropped meanwhile.
const HORIZON: &str = "--horizon-future=1000d";
/// Partitions that the service has ready by itself, and one more.
const DAYS_AHEAD: i64 = 5;
/// Rows of the large table lie in the two hours before the events of a load.
const LARGE_TABLE_US: u64 = 7_000_000_000;

/// Loads along all axes.
pub(crate) struct Growth<'g> {
    stage: &'g mut Stage,
    options: &'g CompareOptions,
    day_us: i64,
    progress: &'g dyn Fn(&str),
    /// No two loads into a table that stays full have the same events.
    seed: u64,
}

impl<'g> Growth<'g> {
    pub(crate) fn new(
        stage: &'g mut Stage,
        options: &'g CompareOptions,
        day_us: i64,
        progress: &'g dyn Fn(&str),
    ) -> Self {
        Self {
            stage,
            options,
            day_us,
            progress,
            seed: options.seed,
        }
    }

    /// All axes, one after the other.
    pub(crate) async fn run(mut self) -> anyhow::Result<Vec<Section>> {
        Ok(vec![
            self.partitions().await.context("partitions")?,
            self.tenants().await.context("tenants")?,
            self.connections().await.context("connections")?,
            self.bodies().await.context("bodies")?,
            self.large_table().await.context("the large table")?,
        ])
    }

    async fn partitions(&mut self) -> anyhow::Result<Section> {
        let mut series = [
            Series::new("growth/partitions_1", "1 partition"),
            Series::new(
                "growth/partitions_400_in_1",
                "400 partitions, events in one",
            ),
            Series::new("growth/partitions_400", "400 partitions, events in all"),
        ];
        let from_us = self.day_us + DAYS_AHEAD * DAY_US;
        let spread = Workload {
            day_us: from_us,
            days: PARTITIONS,
            ..self.workload()
        };
        for _ in 0..self.options.rounds() {
            self.drop_partitions_from(from_us).await?;
            self.stage.start_service(&[HORIZON]).await?;
            let load = self.workload();
            self.load(&mut series[0], &load, BODY).await?;
            (self.progress)("making partitions");
            for day in 0..i64::from(PARTITIONS) {
                let range = Interval::Day.range_of(from_us + day * DAY_US);
                let client = &mut self.stage.admin.client;
                partitions::create::ensure(client, TABLE, range, "comparison").await?;
            }
            self.stage.start_service(&[HORIZON]).await?;
            self.load(&mut series[1], &load, BODY).await?;
            self.stage.start_service(&[HORIZON]).await?;
            self.load(&mut series[2], &spread, BODY).await?;
        }
        self.drop_partitions_from(from_us).await?;
        Ok(section("partitions", series))
    }

    async fn tenants(&mut self) -> anyhow::Result<Section> {
        let mut names = vec![TENANT.to_owned()];
        names.extend((1..TENANTS).map(|n| format!("{TENANT}-{n}")));
        self.stage
            .admin
            .client
            .execute(
                "INSERT INTO tenants (external_id, name)
                 SELECT name, name FROM unnest($1::text[]) AS name ON CONFLICT DO NOTHING",
                &[&names],
            )
            .await
            .context("cannot make tenants")?;
        self.stage.start_service(&[HORIZON]).await?;
        let mut series = [
            Series::new("growth/tenants_1", "1 tenant"),
            Series::new("growth/tenants_10000", "10,000 tenants"),
        ];
        for _ in 0..self.options.rounds() {
            for (series, tenants) in series.iter_mut().zip([&names[..1], &names]) {
                let load = Workload {
                    tenants: tenants.to_vec(),
                    caller: Caller {
                        key: Some(self.stage.service_key().to_owned()),
                        scope: Scope::Any,
                    },
                    ..self.workload()
                };
                self.load(series, &load, BODY).await?;
            }
        }
        Ok(section("tenants", series))
    }

    async fn connections(&mut self) -> anyhow::Result<Section> {
        let name = |n: usize| match n {
            1 => "1 connection".to_owned(),
            _ => format!("{n} connections"),
        };
        let mut series =
            CONNECTIONS.map(|n| Series::new(format!("growth/connections_{n}"), name(n)));
        // A service of its own for each, since memory that was taken once stays taken.
        for _ in 0..self.options.rounds() {
            for (series, connections) in series.iter_mut().zip(CONNECTIONS) {
                self.stage.start_service(&[HORIZON]).await?;
                let load = self.workload();
                self.load_with(series, &load, BODY, connections).await?;
            }
        }
        Ok(section("connections", series))
    }

    async fn bodies(&mut self) -> anyhow::Result<Section> {
        let name = |n: u32| match n {
            1 => "1 event a body".to_owned(),
            _ => format!("{n} events a body"),
        };
        let mut series = BODIES.map(|n| Series::new(format!("growth/bodies_{n}"), name(n)));
        for _ in 0..self.options.rounds() {
            for (series, body) in series.iter_mut().zip(BODIES) {
                self.stage.start_service(&[HORIZON]).await?;
                let load = self.workload();
                let load = Workload {
                    events: Way::Http(Ack::Durable, body).rows_of(load.events),
                    ..load
                };
                self.load(series, &load, body).await?;
            }
        }
        Ok(section("events in a body", series))
    }

    /// Today's partition is empty, tomorrow's is not.
    async fn large_table(&mut self) -> anyhow::Result<Section> {
        let tomorrow_us = self.day_us + DAY_US;
        self.fill(tomorrow_us).await?;
        self.stage.start_service(&[HORIZON]).await?;
        let today = self.partition_of(self.day_us).await?;
        let rows = self.options.large_table;
        let mut series = [
            Series::new("growth/rows_0", "empty partition"),
            Series::new(
                format!("growth/rows_{rows}"),
                format!(
                    "partition of {} rows",
                    super::text::grouped(crate::report::float(rows))
                ),
            ),
        ];
        for _ in 0..self.options.rounds() {
            for (series, day_us) in series.iter_mut().zip([self.day_us, tomorrow_us]) {
                self.stage.clear(&today).await?;
                self.seed += 1;
                let load = Workload {
                    day_us,
                    ..self.workload()
                };
                let connections = self.options.connections(BODY);
                let sample = self.measure(&series.id, &load, BODY, connections).await?;
                series.samples.push(sample);
            }
        }
        Ok(section("rows in the table", series))
    }

    /// As many rows as the large table has, in the first hours of a day.
    async fn fill(&mut self, day_us: i64) -> anyhow::Result<()> {
        (self.progress)("filling a large table");
        self.stage.clear(TABLE.as_str()).await?;
        let load = self.workload();
        let connections = self.options.connections(1000);
        self.measure("filling", &load, 1000, connections).await?;
        let columns: Vec<_> = TABLE
            .columns()
            .iter()
            .map(|column| column.name)
            .filter(|name| !["occurred_at", "event_id"].contains(name))
            .collect();
        let columns = columns.join(", ");
        let rows = self.options.large_table;
        let step = LARGE_TABLE_US / rows.max(1);
        let statement = format!(
            "INSERT INTO {TABLE} (occurred_at, event_id, {columns})
             SELECT to_timestamp({day_us}::float8 / 1e6)
                        + ($1::bigint + row_number() OVER ()) * interval '1 microsecond' * {step},
                    gen_random_uuid(), {columns}
               FROM {TABLE}
              WHERE occurred_at < to_timestamp({day_us}::float8 / 1e6)
              LIMIT $2::bigint"
        );
        let mut filled = 0;
        while filled < rows {
            let most = (rows - filled).min(load.events.into());
            let (from, most) = (i64::try_from(filled)?, i64::try_from(most)?);
            let made = self
                .stage
                .admin
                .client
                .execute(&statement, &[&from, &most])
                .await
                .context("cannot fill the large table")?;
            filled += made;
            (self.progress)(&format!("filling a large table: {filled} of {rows} rows"));
        }
        self.stage
            .admin
            .client
            .batch_execute(&format!("VACUUM ANALYZE {TABLE}"))
            .await
            .context("cannot vacuum the large table")
    }

    /// Events of today, by the usual key.
    fn workload(&self) -> Workload {
        let events = self.options.interactions();
        let key = self.stage.key();
        Workload::of_one_day(self.seed, Table::Interactions, events, self.day_us, key)
    }

    /// One load into empty tables.
    async fn load(&self, series: &mut Series, load: &Workload, body: u32) -> anyhow::Result<()> {
        let connections = self.options.connections(body);
        self.load_with(series, load, body, connections).await
    }

    async fn load_with(
        &self,
        series: &mut Series,
        load: &Workload,
        body: u32,
        connections: usize,
    ) -> anyhow::Result<()> {
        self.stage.clear(TABLE.as_str()).await?;
        let sample = self.measure(&series.id, load, body, connections).await?;
        series.samples.push(sample);
        Ok(())
    }

    async fn measure(
        &self,
        what: &str,
        load: &Workload,
        body: u32,
        connections: usize,
    ) -> anyhow::Result<Sample> {
        (self.progress)(what);
        let load = Load {
            settings: &load.in_bodies_of(body),
            table: load.table,
            ack: Ack::Durable,
            connections,
            rate: None,
        };
        load.run(self.stage)
            .await
            .with_context(|| format!("{what} failed"))
    }

    async fn partition_of(&mut self, us: i64) -> anyhow::Result<String> {
        let partitions = partitions::catalog::list(&mut self.stage.admin.client, TABLE).await?;
        partitions
            .into_iter()
            .find(|info| info.from_us == Some(us))
            .map(|info| info.name)
            .context("there is no partition for today")
    }

    async fn drop_partitions_from(&mut self, us: i64) -> anyhow::Result<()> {
        let partitions = partitions::catalog::list(&mut self.stage.admin.client, TABLE).await?;
        for info in partitions {
            if info.from_us.is_some_and(|from| from >= us) {
                self.stage
                    .admin
                    .client
                    .batch_execute(&format!("DROP TABLE {}", info.name))
                    .await
                    .context("cannot drop a partition")?;
            }
        }
        Ok(())
    }
}

fn section<const N: usize>(title: &str, series: [Series; N]) -> Section {
    Section {
        title: format!("Growth: {title}"),
        throughput: series.into(),
        paced: Vec::new(),
    }
}
