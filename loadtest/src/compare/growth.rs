//! What happens to the rate, and to the memory of the service, when there is more
//! of everything.
//!
//! Keeps one invariant: the points of an axis are loaded in turn, round after
//! round, so that each can be set against the others. Interactions only, over
//! HTTP at `ack=durable`, in bodies of a hundred where nothing else is said.

use anyhow::Context as _;

use super::environment::{Environment, TENANT};
use super::load::{DAY_US, Load};
use super::method::{BODY, Method};
use super::options::CompareOptions;
use super::rows::columns_without;
use super::sample::{Section, Series};
use crate::report::{float, grouped};
use crate::service::{Ack, Interval, PartitionInfo, Table, catalog, ensure};

const TABLE: Table = Table::Interactions;
const PARTITIONS: u32 = 400;
const TENANTS: u32 = 10_000;
const CONNECTIONS: [usize; 3] = [1, 16, 2000];
const BODIES: [u32; 5] = [1, 10, BODY, 1000, 5000];
/// Partitions lie in the future, where nothing is sealed or dropped during a run.
const HORIZON: &str = "--horizon-future=1000d";
/// Partitions that the service has ready by itself, and one more.
const DAYS_AHEAD: i64 = 5;
/// Rows of the large table lie in the two hours before the events of a load.
const LARGE_TABLE_US: u64 = 7_000_000_000;

/// A point of an axis.
struct Point {
    series: Series,
    load: Load,
    before: Before,
}

/// What a point needs before its load, apart from an empty table.
enum Before {
    Nothing,
    /// A service that has just started, since memory that was taken once stays taken.
    Restart,
    DropPartitions,
    MakePartitions,
    /// Only today's partition is emptied, and no two loads have the same events.
    EmptyToday,
}

/// Loads along all axes.
pub struct Growth<'g> {
    pub environment: &'g mut Environment,
    pub options: &'g CompareOptions,
    pub day_us: i64,
    pub progress: &'g dyn Fn(&str),
    pub sections: &'g mut Vec<Section>,
}

impl Point {
    fn new(id: &str, title: &str, before: Before, load: Load) -> Self {
        Self {
            series: Series::new(format!("growth/{id}"), title),
            load,
            before,
        }
    }
}

impl Growth<'_> {
    pub async fn run(mut self) -> anyhow::Result<()> {
        use Before::{DropPartitions, EmptyToday, MakePartitions, Nothing, Restart};
        let mut names = vec![TENANT.to_owned()];
        names.extend((1..TENANTS).map(|n| format!("{TENANT}-{n}")));
        let large = self.options.large_table;
        let of_large = format!("partition of {} rows", grouped(float(large)));
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        // A load of today's events in the usual bodies.
        let today = || Load::new(self.options, TABLE, BODY, self.day_us);
        let ahead = today().on_days(self.ahead_us(), PARTITIONS);
        let tomorrow_us = self.day_us + DAY_US;

        let in_one = "400 partitions, events in one";
        let in_all = "400 partitions, events in all";
        let partitions = vec![
            Point::new("partitions_1", "1 partition", DropPartitions, today()),
            Point::new("partitions_400_in_1", in_one, MakePartitions, today()),
            Point::new("partitions_400", in_all, Restart, ahead),
        ];
        let tenants = [("1 tenant", 1), ("10,000 tenants", names.len())].map(|(title, n)| {
            let load = today().for_tenants(&names[..n]);
            Point::new(&format!("tenants_{n}"), title, Nothing, load)
        });
        let connections = CONNECTIONS.map(|n| {
            let title = format!("{n} connection{}", plural(n));
            let load = Load {
                connections: n,
                ..today()
            };
            Point::new(&format!("connections_{n}"), &title, Restart, load)
        });
        let bodies = BODIES.map(|n| {
            let title = format!("{n} event{} a body", plural(n as usize));
            let mut load = today().in_bodies(self.options, n);
            let events = &mut load.settings.events;
            *events = Method::Http(Ack::Durable, n).rows_of(*events);
            Point::new(&format!("bodies_{n}"), &title, Restart, load)
        });
        // Today's partition is empty, tomorrow's is not.
        let (of_rows, tomorrow) = (format!("rows_{large}"), today().on_days(tomorrow_us, 1));
        let rows = vec![
            Point::new("rows_0", "empty partition", EmptyToday, today()),
            Point::new(&of_rows, &of_large, EmptyToday, tomorrow),
        ];

        self.axis("partitions", partitions).await?;
        self.drop_partitions().await?;
        self.make_tenants(&names).await?;
        self.environment.start_service(&[HORIZON]).await?;
        self.axis("tenants", tenants.into()).await?;
        self.axis("connections", connections.into()).await?;
        self.axis("events in a body", bodies.into()).await?;
        let filled = self.fill(tomorrow_us).await;
        filled.context("filling a large table")?;
        self.environment.start_service(&[HORIZON]).await?;
        self.axis("rows in the table", rows).await
    }

    /// The first day that has no partition by itself.
    fn ahead_us(&self) -> i64 {
        self.day_us + DAYS_AHEAD * DAY_US
    }

    /// The points of an axis in turn, round after round. An axis is a section.
    async fn axis(&mut self, title: &str, points: Vec<Point>) -> anyhow::Result<()> {
        let (series, mut points): (Vec<_>, Vec<_>) = points
            .into_iter()
            .map(|point| (point.series, (point.load, point.before)))
            .unzip();
        let place = self.sections.len();
        self.sections.push(Section {
            title: format!("Growth: {title}"),
            series,
        });
        for _ in 0..self.options.rounds {
            for (at, (load, before)) in points.iter_mut().enumerate() {
                (self.progress)(&self.sections[place].series[at].id);
                let mut emptied = TABLE.to_string();
                let mut restarts = true;
                match before {
                    Before::Nothing => restarts = false,
                    Before::Restart => {}
                    Before::DropPartitions => self.drop_partitions().await?,
                    Before::MakePartitions => self.make_partitions().await?,
                    Before::EmptyToday => {
                        restarts = false;
                        emptied = self.partition_of_today().await?;
                        load.settings.seed = load.settings.seed.map(|seed| seed + 1);
                    }
                }
                if restarts {
                    self.environment.start_service(&[HORIZON]).await?;
                }
                self.environment.clear(&emptied).await?;
                let load = load.run(self.environment);
                self.sections[place].series[at].measure(load).await?;
            }
        }
        Ok(())
    }

    async fn make_partitions(&mut self) -> anyhow::Result<()> {
        (self.progress)("making partitions");
        for day in 0..i64::from(PARTITIONS) {
            let range = Interval::Day.range_of(self.ahead_us() + day * DAY_US);
            let client = &mut self.environment.admin.client;
            ensure(client, TABLE, range, "comparison").await?;
        }
        Ok(())
    }

    async fn drop_partitions(&mut self) -> anyhow::Result<()> {
        let from_us = self.ahead_us();
        let client = &mut self.environment.admin.client;
        for info in catalog::list(client, TABLE).await? {
            if info.from_us.is_some_and(|from| from >= from_us) {
                let drop = format!("DROP TABLE {}", info.name);
                let dropped = client.batch_execute(&drop).await;
                dropped.context("cannot drop a partition")?;
            }
        }
        Ok(())
    }

    async fn partition_of_today(&mut self) -> anyhow::Result<String> {
        let partitions = catalog::list(&mut self.environment.admin.client, TABLE).await?;
        let is_today = |info: &PartitionInfo| info.from_us == Some(self.day_us);
        let today = partitions.into_iter().find(is_today);
        Ok(today.context("there is no partition for today")?.name)
    }

    async fn make_tenants(&self, names: &[String]) -> anyhow::Result<()> {
        let insert = "INSERT INTO tenants (external_id, name)
             SELECT name, name FROM unnest($1::text[]) AS name ON CONFLICT DO NOTHING";
        let client = &self.environment.admin.client;
        let made = client.execute(insert, &[&names]).await;
        made.context("cannot make tenants").map(drop)
    }

    /// As many rows as the large table has, in the first hours of a day.
    async fn fill(&mut self, day_us: i64) -> anyhow::Result<()> {
        self.environment.start_service(&[HORIZON]).await?;
        self.environment.clear(TABLE.as_str()).await?;
        let load = Load::new(self.options, TABLE, 1000, self.day_us);
        load.run(self.environment).await?;
        let columns = columns_without(TABLE, &["occurred_at", "event_id"]);
        let rows = self.options.large_table;
        let step = LARGE_TABLE_US / rows.max(1);
        let copies = rows.div_ceil(load.settings.events.into());
        let statement = format!(
            "INSERT INTO {TABLE} (occurred_at, event_id, {columns})
             SELECT to_timestamp({day_us}::float8 / 1e6)
                        + row_number() OVER () * interval '1 microsecond' * {step},
                    gen_random_uuid(), {columns}
               FROM {TABLE}, generate_series(1, {copies})
              LIMIT {rows}"
        );
        (self.progress)(&format!("filling a large table: {rows} rows"));
        let client = &self.environment.admin.client;
        client.execute(&statement, &[]).await?;
        let vacuum = format!("VACUUM ANALYZE {TABLE}");
        let vacuumed = client.batch_execute(&vacuum).await;
        vacuumed.context("cannot vacuum the large table")
    }
}
