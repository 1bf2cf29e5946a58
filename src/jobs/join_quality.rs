//! How many interactions find their exposure.
//!
//! What it means is in one place, the function `ingest_join_quality_of` in the database, so that the
//! view `ingest_join_quality` says the same.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::civil::Date;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::day::Days;

/// The interactions of one day, tenant and surface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinQuality {
    pub day: Date,
    pub tenant_id: Uuid,
    /// The external id; `None` for a tenant that is gone.
    pub tenant: Option<String>,
    /// The interactions' surface, or else that of their exposures; empty if neither has one.
    pub surface: String,
    pub interactions: u64,
    /// Interactions whose exposure was found.
    pub joined: u64,
    /// Without a request id.
    pub without_token: u64,
    /// With a request id that no exposure has.
    pub token_unknown: u64,
    /// Found, but the list does not have the item.
    pub item_not_listed: u64,
    /// Found, but the list has the item at another rank than the interaction's position.
    pub position_differs: u64,
    /// Received later than allowed after they occurred.
    pub late: u64,
    /// Received before their exposure.
    pub exposure_after: u64,
}

impl JoinQuality {
    /// The share of interactions whose exposure was found, from 0 to 1.
    pub fn share(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let share = self.joined as f64 / self.interactions as f64;
        share
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub days: Days,
    pub tenant: Option<Uuid>,
    /// How long before an interaction its exposure may have been.
    pub lookback: Duration,
    /// From when on an interaction is late, after it occurred.
    pub late_after: Duration,
}

/// Reads the days' interactions and their exposures; changes nothing.
///
/// # Errors
/// When Postgres refuses the statement or is away.
pub async fn read(client: &mut Client, question: &Question) -> Result<Vec<JoinQuality>> {
    let transaction = client
        .build_transaction()
        .read_only(true)
        .start()
        .await
        .context("cannot begin a transaction")?;
    // Partitions of today have no index on request_id, and may have no statistics that would keep
    // the planner from looking through one for each interaction.
    transaction
        .batch_execute(
            "SET LOCAL enable_nestloop = off; SET LOCAL jit = off; SET LOCAL work_mem = '64MB'",
        )
        .await?;
    let Question {
        days,
        tenant,
        lookback,
        late_after,
    } = question;
    let tenant = tenant.map_or("NULL".to_owned(), |tenant| format!("'{tenant}'"));
    let rows = transaction
        .query(
            &format!(
                "SELECT to_char(day, 'YYYY-MM-DD'), tenant_id, tenant, surface, interactions, joined, without_token,
                        token_unknown, item_not_listed, position_differs, late, exposure_after
                   FROM ingest_join_quality_of('{}', '{}', {tenant}::uuid,
                            interval '{} seconds', interval '{} seconds')
                  ORDER BY day, tenant, tenant_id, surface",
                days.from,
                days.to,
                lookback.as_secs(),
                late_after.as_secs()
            ),
            &[],
        )
        .await
        .context("cannot read how interactions find their exposures")?;
    rows.iter().map(of_row).collect()
}

fn of_row(row: &Row) -> Result<JoinQuality> {
    let count = |at: usize| row.get::<_, i64>(at).unsigned_abs();
    let day: &str = row.get(0);
    Ok(JoinQuality {
        day: day.parse().with_context(|| format!("{day} is no day"))?,
        tenant_id: row.get(1),
        tenant: row.get(2),
        surface: row.get(3),
        interactions: count(4),
        joined: count(5),
        without_token: count(6),
        token_unknown: count(7),
        item_not_listed: count(8),
        position_differs: count(9),
        late: count(10),
        exposure_after: count(11),
    })
}
