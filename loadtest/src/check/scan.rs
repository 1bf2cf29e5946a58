//! Reads the keys of all rows in the run's window, once, as a stream, and a sample of
//! the rows whole.

use std::pin::pin;
use std::time::SystemTime;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::binary_copy::{BinaryCopyOutRow, BinaryCopyOutStream};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::Checker;
use super::findings::Findings;
use super::slots::describe;
use crate::generate::{EVENT, Event, Plan, REQUEST, Salt, expected_row, occurred_us, slot_of};
use crate::report::time;
use crate::service::{Format, TABLES, Table};

/// In microseconds.
const DAY_US: i64 = 86_400_000_000;

/// Partitions of `TABLE`, and what is wrong with rows in them.
const PARTITIONS: &str = include_str!("partitions.sql");

/// Tenants of the callers' keys, which only the service knows; but all rows of a key must
/// belong to the same.
type TenantsOfCallers = Vec<Option<Uuid>>;

impl Checker {
    /// Looks at every row of the run's days.
    pub async fn scan(&mut self, plan: &Plan, findings: &mut Findings) -> anyhow::Result<()> {
        let mut callers = vec![None; plan.settings.callers.len()];
        let (from, to) = window(plan);
        self.found = Default::default();
        let one_in = self.sample_one_in;
        for table in TABLES {
            let partitions = PARTITIONS.replace("TABLE", table.as_str());
            let item = match table {
                Table::Exposures => "NULL::text",
                _ => "item_id",
            };
            let query = format!(
                "COPY (SELECT tenant_id, occurred_at, event_id, request_id, p.wrong, {item}, \
                       CASE WHEN (hashtext(event_id::text) & 2147483647) % {one_in} = 0 \
                       THEN (to_jsonb(e) - 'meta' - 'request')::text END FROM {table} e \
                 LEFT JOIN ({partitions}) p ON p.oid = e.tableoid \
                 WHERE occurred_at >= '{from}' AND occurred_at < '{to}') TO STDOUT (FORMAT binary)"
            );
            let cannot = || format!("cannot read {table}");
            let stream = self.client.copy_out(&query).await.with_context(cannot)?;
            let (id, text) = (Type::UUID, Type::TEXT);
            let types = [
                id.clone(),
                Type::TIMESTAMPTZ,
                id.clone(),
                id,
                text.clone(),
                text.clone(),
                text,
            ];
            let mut rows = pin!(BinaryCopyOutStream::new(stream, &types));
            while let Some(row) = rows.next().await {
                let row = row.with_context(cannot)?;
                self.row(plan, table, &row, &mut callers, findings)?;
            }
        }
        Ok(())
    }

    fn row(
        &mut self,
        plan: &Plan,
        table: Table,
        row: &BinaryCopyOutRow,
        callers: &mut TenantsOfCallers,
        findings: &mut Findings,
    ) -> anyhow::Result<()> {
        findings.rows_read += 1;
        let Some(event_id) = row.try_get::<Option<Uuid>>(2)? else {
            return Ok(());
        };
        let native = slot_of(plan.seed, EVENT, &event_id);
        let request_id: Option<Uuid> = row.try_get(3)?;
        let by_request = || slot_of(plan.seed, REQUEST, &request_id?);
        let slot = native.or_else(by_request);
        let Some(slot) = slot.filter(|&slot| slot < plan.slots()) else {
            return Ok(());
        };
        let body = plan.body_of(slot);
        let stream = plan.stream_of(body);
        if (stream.format == Format::Native) != native.is_some() {
            // Another client's event that answers to a request of this run.
            return Ok(());
        }
        let occurred_at = Timestamp::try_from(row.try_get::<SystemTime>(1)?)?;
        let at = occurred_at.as_microsecond();
        let tenant: Uuid = row.try_get(0)?;
        self.slots.see(slot);
        self.found[table as usize].push(event_id);
        let mut wrong = Vec::new();
        if stream.table != table {
            wrong.push(format!("it is in {table}"));
        }
        if at != occurred_us(plan, slot) {
            wrong.push(format!("its occurred_at is {occurred_at}"));
        }
        let owner = match plan.tenant(body, slot) {
            Some(at) => self.tenants[at],
            None => *callers[usize::from(stream.caller)].get_or_insert(tenant),
        };
        if owner != tenant {
            wrong.push(format!("its tenant is {tenant}"));
        }
        if stream.format == Format::OutcomeV1 {
            let got: Option<String> = row.try_get(5)?;
            if plan.event(body, slot).members["item_id"] != json!(got) {
                wrong.push(format!("its item is {got:?}"));
            }
        }
        let explain = |wrong: String| move || format!("{}: {wrong}", describe(plan, slot));
        if !wrong.is_empty() {
            findings.wrong_key += 1;
            findings.example("wrong key", explain(wrong.join(", ")));
        }
        if let Some(wrong) = row.try_get::<Option<String>>(4)? {
            findings.wrong_partition += 1;
            findings.example("wrong partition", explain(format!("it lies in {wrong}")));
        }
        // A row in the wrong table has been reported already.
        let whole: Option<String> = row.try_get(6)?;
        if let Some(whole) = whole.filter(|_| stream.table == table) {
            findings.sampled += 1;
            let wrong = differences(&plan.event(body, slot), &self.salt, &whole)?;
            if !wrong.is_empty() {
                findings.wrong_columns += 1;
                findings.example("wrong columns", explain(wrong.join("; ")));
            }
        }
        Ok(())
    }
}

/// The times that rows of the run lie between, as literals: COPY takes no parameters.
pub fn window(plan: &Plan) -> (String, String) {
    let until_us = plan.settings.until_us();
    let from = time(until_us - plan.settings.span_us() - DAY_US);
    (from, time(until_us + DAY_US))
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
