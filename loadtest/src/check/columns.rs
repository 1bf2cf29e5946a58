//! Compares the rows of a sample with their events, column by column.

use std::time::SystemTime;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::{Client, Row as DbRow};
use uuid::Uuid;

use super::slots::describe;
use super::verdict::Verdict;
use crate::generate::event::Events;
use crate::generate::expect::{self, ExpectedItem, Hashed, OfTable, Row, Salt};
use crate::generate::plan::Plan;
use crate::generate::settings::{Settings, Table};

/// Keys that are asked for at once.
const BATCH: usize = 1_000;

/// The key of a row in the sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) table: Table,
    pub(super) slot: u32,
    pub(super) tenant: Uuid,
    pub(super) occurred_at: SystemTime,
    pub(super) event_id: Uuid,
}

/// Reads the sample's rows whole and compares them.
pub(super) async fn compare(
    client: &Client,
    settings: &Settings,
    plan: &Plan,
    salt: &Salt,
    sample: &[Key],
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let mut events = Events::new(settings, plan);
    for table in Table::ALL {
        let keys: Vec<_> = sample.iter().filter(|key| key.table == table).collect();
        for batch in keys.chunks(BATCH) {
            for row in read(client, table, batch).await? {
                let at = usize::try_from(row.try_get::<_, i64>("at")? - 1)?;
                let slot = batch[at].slot;
                let event = events.event(plan.body_of(slot), slot);
                verdict.sampled += 1;
                // A row in the wrong table has been reported already.
                if event.table != table {
                    continue;
                }
                let expected = expect::row(settings.seed, event, salt);
                let wrong = differences(&expected, &row)?;
                if !wrong.is_empty() {
                    verdict.wrong_columns += 1;
                    verdict.example("wrong columns", || {
                        format!("{}: {}", describe(settings, plan, slot), wrong.join("; "))
                    });
                }
            }
        }
    }
    Ok(())
}

async fn read(client: &Client, table: Table, keys: &[&Key]) -> anyhow::Result<Vec<DbRow>> {
    let columns = match table {
        Table::Exposures => {
            "e.experiment_id, e.experiment_variant, e.algo_version, e.config_etag, e.rules_etag, e.response::text AS response"
        }
        Table::Interactions => {
            "e.event_type::text AS event_type, e.item_id, e.position, e.value::text AS value"
        }
    };
    let query = format!(
        "SELECT k.at, e.occurred_at, e.event_id, e.request_id, e.surface, e.segment, e.user_key, e.session_id, {columns} \
         FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[]) WITH ORDINALITY AS k(tenant_id, occurred_at, event_id, at) \
         JOIN {} e ON e.tenant_id = k.tenant_id AND e.occurred_at = k.occurred_at AND e.event_id = k.event_id",
        table.name()
    );
    let tenants: Vec<_> = keys.iter().map(|key| key.tenant).collect();
    let times: Vec<_> = keys.iter().map(|key| key.occurred_at).collect();
    let ids: Vec<_> = keys.iter().map(|key| key.event_id).collect();
    client
        .query(&query, &[&tenants, &times, &ids])
        .await
        .with_context(|| format!("cannot read a sample of {}", table.name()))
}

/// What differs, in words.
fn differences(expected: &Row, row: &DbRow) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut same = |column: &str, expected: String, got: String| {
        if expected != got {
            wrong.push(format!("{column} is {got}, should be {expected}"));
        }
    };
    let occurred_at = Timestamp::try_from(row.try_get::<_, SystemTime>("occurred_at")?)?;
    same(
        "occurred_at",
        expected.occurred_us.to_string(),
        occurred_at.as_microsecond().to_string(),
    );
    if let Some(id) = expected.event_id {
        let got: Option<Uuid> = row.try_get("event_id")?;
        same("event_id", format!("{:?}", Some(id)), format!("{got:?}"));
    }
    let request_id: Option<Uuid> = row.try_get("request_id")?;
    same(
        "request_id",
        format!("{:?}", expected.request_id),
        format!("{request_id:?}"),
    );
    let text = |column: &str| row.try_get::<_, Option<String>>(column);
    let mut texts = vec![
        ("surface", expected.surface.clone()),
        ("segment", expected.segment.clone()),
    ];
    let user_key: Option<Vec<u8>> = row.try_get("user_key")?;
    if let Some(due) = column_of(&expected.user_key) {
        same(
            "user_key",
            format!("{due:?}"),
            format!("{:?}", user_key.map(hex::encode)),
        );
    }
    if let Some(due) = column_of(&expected.session_id) {
        texts.push(("session_id", due));
    }
    match &expected.of_table {
        OfTable::Exposure {
            experiment_id,
            experiment_variant,
            algo_version,
            config_etag,
            rules_etag,
            items,
        } => {
            texts.extend([
                ("experiment_id", experiment_id.clone()),
                ("experiment_variant", experiment_variant.clone()),
                ("algo_version", Some(algo_version.clone())),
                ("config_etag", config_etag.clone()),
                ("rules_etag", rules_etag.clone()),
            ]);
            let response = text("response")?.unwrap_or_default();
            if !items_match(items, &response) {
                same("response", format!("{items:?}"), response);
            }
        }
        OfTable::Interaction {
            event_type,
            item_id,
            position,
            value,
        } => {
            texts.extend([
                ("event_type", Some(event_type.clone())),
                ("item_id", Some(item_id.clone())),
                ("value", value.clone()),
            ]);
            let got: Option<i32> = row.try_get("position")?;
            same("position", format!("{position:?}"), format!("{got:?}"));
        }
    }
    for (column, due) in texts {
        let got = text(column)?;
        same(column, format!("{due:?}"), format!("{got:?}"));
    }
    Ok(wrong)
}

/// A hash as hex; `None` where we cannot know it.
fn column_of(hashed: &Hashed) -> Option<Option<String>> {
    match hashed {
        Hashed::Null => Some(None),
        Hashed::Hash(hash) => Some(Some(hex::encode(hash))),
        Hashed::Text(text) => Some(Some(text.clone())),
        Hashed::Unknown => None,
    }
}

/// Whether `response` holds these items, in this order, and no others.
fn items_match(expected: &[ExpectedItem], response: &str) -> bool {
    let Ok(response) = serde_json::from_str::<Value>(response) else {
        return false;
    };
    let Some(items) = response["items"].as_array() else {
        return false;
    };
    items.len() == expected.len()
        && items.iter().zip(expected).all(|(item, due)| {
            item["item_id"] == due.item_id.as_str()
                && item["rank"] == due.rank
                && match due.score {
                    // The nearest double of both is the same.
                    Some(score) => item["score"].as_f64() == Some(f64::from(score) / 1000.0),
                    None => item.get("score").is_none(),
                }
        })
}
