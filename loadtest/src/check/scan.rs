//! Reads the keys of all rows in the run's window, once, as a stream, and a sample of
//! the rows whole.

use std::pin::pin;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::binary_copy::{BinaryCopyOutRow, BinaryCopyOutStream};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::findings::Findings;
use super::partitions::Partitions;
use super::slots::{Slots, describe};
use crate::generate::{
    EVENT, Event, Owner, Plan, REQUEST, Salt, expected_row, item, occurred_us, slot_of,
};
use crate::report::time;
use crate::service::{Format, Table};

/// In microseconds.
const DAY_US: i64 = 86_400_000_000;

/// The tenants as they turn out.
///
/// Which tenant a key belongs to, only the service knows; but all rows of a key
/// must belong to the same.
pub struct Owners {
    named: Vec<Uuid>,
    of_caller: Vec<Option<Uuid>>,
}

/// A scan of one table.
pub struct Scan<'c> {
    pub plan: &'c Plan,
    pub table: Table,
    pub slots: &'c mut Slots,
    pub owners: &'c mut Owners,
    pub salt: &'c Salt,
    pub findings: &'c mut Findings,
    /// One row in this many is compared column by column.
    pub sample_one_in: u64,
}

impl Owners {
    pub fn new(named: Vec<Uuid>, callers: usize) -> Self {
        Self {
            named,
            of_caller: vec![None; callers],
        }
    }

    fn matches(&mut self, owner: Owner, tenant: Uuid) -> bool {
        match owner {
            Owner::Tenant(at) => self.named[usize::from(at)] == tenant,
            Owner::Caller(at) => *self.of_caller[usize::from(at)].get_or_insert(tenant) == tenant,
        }
    }
}

impl Scan<'_> {
    pub async fn run(&mut self, client: &Client) -> anyhow::Result<()> {
        let table = self.table.as_str();
        let partitions = Partitions::read(client, table).await?;
        let settings = &self.plan.settings;
        let item = match self.table {
            Table::Exposures => "NULL::text",
            Table::Interactions => "item_id",
        };
        let one_in = self.sample_one_in;
        // COPY takes no parameters; these two are timestamps of the run.
        let query = format!(
            "COPY (SELECT tenant_id, occurred_at, event_id, request_id, tableoid, {item}, \
                   CASE WHEN (hashtext(event_id::text) & 2147483647) % {one_in} = 0 \
                   THEN (to_jsonb(e) - 'meta' - 'request')::text END FROM {table} e \
             WHERE occurred_at >= '{}' AND occurred_at < '{}') TO STDOUT (FORMAT binary)",
            time(settings.until_us() - settings.span_us() - DAY_US),
            time(settings.until_us() + DAY_US)
        );
        let cannot = || format!("cannot read {table}");
        let stream = client.copy_out(&query).await.with_context(cannot)?;
        let types = [
            Type::UUID,
            Type::TIMESTAMPTZ,
            Type::UUID,
            Type::UUID,
            Type::OID,
            Type::TEXT,
            Type::TEXT,
        ];
        let mut rows = pin!(BinaryCopyOutStream::new(stream, &types));
        while let Some(row) = rows.next().await {
            self.row(&row.with_context(cannot)?, &partitions)?;
        }
        Ok(())
    }

    fn row(&mut self, row: &BinaryCopyOutRow, partitions: &Partitions) -> anyhow::Result<()> {
        let plan = self.plan;
        self.findings.rows_read += 1;
        let Some(event_id) = row.try_get::<Option<Uuid>>(2)? else {
            return Ok(());
        };
        let native = slot_of(plan.seed, EVENT, &event_id);
        let request_id: Option<Uuid> = row.try_get(3)?;
        let by_request = || slot_of(plan.seed, REQUEST, &request_id?);
        let Some(slot) = native
            .or_else(by_request)
            .filter(|&slot| slot < plan.slots())
        else {
            return Ok(());
        };
        let body = plan.body_of(slot);
        let stream = plan.stream_of(body);
        if (stream.format == Format::Native) != native.is_some() {
            // Another client's event that answers to a request of this run.
            return Ok(());
        }
        let occurred_at: Timestamp = row.try_get(1)?;
        let at = occurred_at.as_microsecond();
        let tenant: Uuid = row.try_get(0)?;
        self.slots.see(slot);
        let mut wrong = Vec::new();
        if stream.table != self.table {
            wrong.push(format!("it is in {}", self.table));
        }
        if at != occurred_us(plan, slot) {
            wrong.push(format!("its occurred_at is {occurred_at}"));
        }
        if !self.owners.matches(plan.owner(body, slot), tenant) {
            wrong.push(format!("its tenant is {tenant}"));
        }
        if stream.format == Format::OutcomeV1 {
            let got: Option<String> = row.try_get(5)?;
            if got.as_deref() != Some(&item(plan.event(body, slot).item)) {
                wrong.push(format!("its item is {got:?}"));
            }
        }
        if !wrong.is_empty() {
            self.findings.wrong_key += 1;
            let what = || format!("{}: {}", describe(plan, slot), wrong.join(", "));
            self.findings.example("wrong key", what);
        }
        if let Some(wrong) = partitions.complaint(row.try_get(4)?, at) {
            self.findings.wrong_partition += 1;
            let what = || format!("{}: {wrong}", describe(plan, slot));
            self.findings.example("wrong partition", what);
        }
        // A row in the wrong table has been reported already.
        let whole: Option<String> = row.try_get(6)?;
        if let Some(whole) = whole.filter(|_| stream.table == self.table) {
            self.findings.sampled += 1;
            let wrong = differences(&plan.event(body, slot), self.salt, &whole)?;
            if !wrong.is_empty() {
                self.findings.wrong_columns += 1;
                let what = || format!("{}: {}", describe(plan, slot), wrong.join("; "));
                self.findings.example("wrong columns", what);
            }
        }
        Ok(())
    }
}

/// What is wrong with the columns of an event's row, in words.
fn differences(event: &Event, salt: &Salt, row: &str) -> anyhow::Result<Vec<String>> {
    let row: Value = serde_json::from_str(row).context("Postgres writes a row that is no JSON")?;
    let wrong = |(column, due): (&'static str, Value)| {
        let got = match column {
            "items" => &row["response"]["items"],
            column => &row[column],
        };
        (*got != due).then(|| format!("{column} is {got}, should be {due}"))
    };
    Ok(expected_row(event, salt)
        .into_iter()
        .filter_map(wrong)
        .collect())
}
