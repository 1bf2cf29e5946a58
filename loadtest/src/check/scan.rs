//! Reads the keys of all rows in the run's window, once, as a stream.

use std::pin::pin;
use std::time::SystemTime;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio_postgres::Client;
use tokio_postgres::binary_copy::{BinaryCopyOutRow, BinaryCopyOutStream};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::columns::Key;
use super::partitions::Partitions;
use super::slots::{Slots, describe};
use super::verdict::Verdict;
use crate::generate::event::{Events, occurred_us, window_us};
use crate::generate::identity::{self, Naming};
use crate::generate::names;
use crate::generate::plan::{Owner, Plan};
use crate::generate::random::mix;
use crate::generate::settings::{Format, Settings, Table};

/// One row in so many is compared column by column.
const SAMPLE_ONE_IN: u64 = 100;

/// The tenants as they turn out.
///
/// Which tenant a key belongs to, only the service knows; but all rows of a key
/// must belong to the same.
pub(super) struct Owners {
    named: Vec<Uuid>,
    of_caller: Vec<Option<Uuid>>,
}

/// A scan of one table.
pub(super) struct Scan<'c> {
    pub(super) settings: &'c Settings,
    pub(super) plan: &'c Plan,
    pub(super) events: Events<'c>,
    pub(super) table: Table,
    pub(super) slots: &'c mut Slots,
    pub(super) owners: &'c mut Owners,
    pub(super) sample: &'c mut Vec<Key>,
    pub(super) verdict: &'c mut Verdict,
}

impl Owners {
    pub(super) fn new(named: Vec<Uuid>, callers: usize) -> Self {
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
    pub(super) async fn run(&mut self, client: &Client) -> anyhow::Result<()> {
        let table = self.table.name();
        let partitions = Partitions::read(client, table).await?;
        let (from, to) = window_us(self.settings);
        // COPY takes no parameters; these two are our own timestamps.
        let item = match self.table {
            Table::Exposures => "NULL::text",
            Table::Interactions => "item_id",
        };
        let query = format!(
            "COPY (SELECT tenant_id, occurred_at, event_id, request_id, tableoid, {item} FROM {table} \
             WHERE occurred_at >= '{}' AND occurred_at < '{}') TO STDOUT (FORMAT binary)",
            crate::report::time(from),
            crate::report::time(to)
        );
        let stream = client
            .copy_out(&query)
            .await
            .with_context(|| format!("cannot read {table}"))?;
        let types = [
            Type::UUID,
            Type::TIMESTAMPTZ,
            Type::UUID,
            Type::UUID,
            Type::OID,
            Type::TEXT,
        ];
        let mut rows = pin!(BinaryCopyOutStream::new(stream, &types));
        while let Some(row) = rows.next().await {
            let row = row.with_context(|| format!("cannot read {table}"))?;
            self.row(&row, &partitions)?;
        }
        Ok(())
    }

    fn row(&mut self, row: &BinaryCopyOutRow, partitions: &Partitions) -> anyhow::Result<()> {
        let seed = self.settings.seed;
        self.verdict.rows_read += 1;
        let event_id: Option<Uuid> = row.try_get(2)?;
        let Some(event_id) = event_id else {
            return Ok(());
        };
        let native = identity::slot_of(seed, Naming::Event, &event_id);
        let request_id: Option<Uuid> = row.try_get(3)?;
        let by_request = || identity::slot_of(seed, Naming::Request, &request_id?);
        let Some(slot) = native
            .or_else(by_request)
            .filter(|&slot| slot < self.plan.slots())
        else {
            return Ok(());
        };
        let body = self.plan.body_of(slot);
        let stream = self.plan.stream_of(body);
        let is_native = stream.format == Format::Native;
        if is_native != native.is_some() {
            // Another's event that answers to one of our requests.
            return Ok(());
        }
        let occurred_at: SystemTime = row.try_get(1)?;
        let at = Timestamp::try_from(occurred_at)?;
        let tenant: Uuid = row.try_get(0)?;
        self.slots.see(slot);
        let owner = self.plan.owner(self.settings, body, slot);
        let mut wrong = Vec::new();
        if stream.table != self.table {
            wrong.push(format!("it is in {}", self.table.name()));
        }
        if at.as_microsecond() != occurred_us(self.settings, slot) {
            wrong.push(format!("its occurred_at is {at}"));
        }
        if !self.owners.matches(owner, tenant) {
            wrong.push(format!("its tenant is {tenant}"));
        }
        if stream.format == Format::OutcomeV1 {
            let item: Option<String> = row.try_get(5)?;
            let expected = names::item(self.events.event(body, slot).item);
            if item.as_deref() != Some(&expected) {
                wrong.push(format!("its item is {item:?}"));
            }
        }
        if !wrong.is_empty() {
            self.verdict.wrong_key += 1;
            let what = wrong.join(", ");
            let (settings, plan) = (self.settings, self.plan);
            self.verdict.example("wrong key", || {
                format!("{}: {what}", describe(settings, plan, slot))
            });
        }
        if let Some(wrong) = partitions.complaint(row.try_get(4)?, at.as_microsecond()) {
            self.verdict.wrong_partition += 1;
            let (settings, plan) = (self.settings, self.plan);
            self.verdict.example("wrong partition", || {
                format!("{}: {wrong}", describe(settings, plan, slot))
            });
        }
        if mix(seed ^ u64::from(slot)).is_multiple_of(SAMPLE_ONE_IN) {
            self.sample.push(Key {
                table: self.table,
                slot,
                tenant,
                occurred_at,
                event_id,
            });
        }
        Ok(())
    }
}
