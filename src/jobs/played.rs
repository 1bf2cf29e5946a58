//! What is stored of a shop that `demo` played: the numbers, and the SQL that gives them.
//!
//! The statements that are run are those that a person is shown.

use anyhow::{Context as _, Result};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};
use uuid::Uuid;

use crate::event::time::Micros;

/// Most items that are told of the popular ones.
pub(crate) const POPULAR_MAX: usize = 5;

/// The events of one shop: no other events are on its surface.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// `None`: of all tenants.
    pub(crate) tenant: Option<Uuid>,
    /// Letters, digits and hyphens alone: it stands in statements.
    pub(crate) surface: String,
    pub(crate) from: Micros,
    /// The first moment after it.
    pub(crate) to: Micros,
}

/// The numbers of a shop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Lists that were served.
    pub(crate) lists: u64,
    /// Their items.
    pub(crate) items: u64,
    /// Variants, and the requests that were assigned to each.
    pub(crate) variants: Vec<(String, u64)>,
    /// Types of interactions, and the rows of each.
    pub(crate) interactions: Vec<(String, u64)>,
    /// Sum of the values of the purchases' rows.
    pub(crate) revenue: String,
    pub(crate) orders: u64,
    /// Sum of the orders' own values, each once.
    pub(crate) ordered: String,
    /// The items that lists showed most often, and how often, as `signals` counts.
    pub(crate) popular: Vec<(String, u64)>,
}

impl Scope {
    /// The condition for rows, by the column with their time.
    fn condition(&self, time: &str) -> String {
        let Self {
            surface, from, to, ..
        } = self;
        let tenant = match self.tenant {
            Some(tenant) => format!(" AND tenant_id = '{tenant}'"),
            None => String::new(),
        };
        format!("surface = '{surface}' AND {time} >= '{from}' AND {time} < '{to}'{tenant}")
    }

    pub(crate) fn lists(&self) -> String {
        format!(
            "SELECT count(*) AS lists, coalesce(sum(jsonb_array_length(data -> 'items')), 0) AS items FROM recsys_exposures WHERE {}",
            self.condition("ts")
        )
    }

    pub(crate) fn variants(&self) -> String {
        format!(
            "SELECT data ->> 'variant' AS variant, count(*) AS requests FROM experiment_assignments WHERE {} GROUP BY 1 ORDER BY 1",
            self.condition("ts")
        )
    }

    pub(crate) fn interactions(&self) -> String {
        format!(
            "SELECT event_type, count(*) AS rows FROM interaction_events WHERE {} GROUP BY 1 ORDER BY 1",
            self.condition("occurred_at")
        )
    }

    pub(crate) fn revenue(&self) -> String {
        format!(
            "SELECT round(coalesce(sum(value), 0), 2) AS revenue FROM interaction_events WHERE event_type = 'purchase' AND {}",
            self.condition("occurred_at")
        )
    }

    pub(crate) fn orders(&self) -> String {
        format!(
            "SELECT count(*) AS orders, round(coalesce(sum(value), 0), 2) AS ordered FROM (SELECT DISTINCT meta #>> '{{order,id}}' AS id, (meta #>> '{{order,value}}')::numeric AS value FROM interaction_events WHERE event_type = 'purchase' AND {}) AS placed",
            self.condition("occurred_at")
        )
    }

    pub(crate) fn popular(&self) -> String {
        format!(
            "SELECT item ->> 'item_id' AS item, count(*) AS score FROM exposure_events CROSS JOIN jsonb_array_elements(response -> 'items') AS item WHERE {} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {POPULAR_MAX}",
            self.condition("occurred_at")
        )
    }

    /// What one item of the selected views is: for a program that reads the views.
    pub(crate) fn documents(&self, view: &str) -> String {
        format!(
            "SELECT data FROM {view} WHERE {} ORDER BY ts",
            self.condition("ts")
        )
    }
}

/// Reads the numbers of a shop; changes nothing.
///
/// # Errors
/// When Postgres refuses a statement or is away.
pub(crate) async fn read(client: &Client, scope: &Scope) -> Result<Numbers> {
    let one = async |sql: String| -> Result<SimpleQueryRow> {
        let mut rows = rows(client, &sql).await?;
        rows.pop().with_context(|| format!("no answer to {sql}"))
    };
    let counted = async |sql: String| -> Result<Vec<(String, u64)>> {
        let rows = rows(client, &sql).await?;
        rows.iter()
            .map(|row| Ok((row.get(0).unwrap_or_default().to_owned(), number(row, 1)?)))
            .collect()
    };
    let (lists, orders) = (one(scope.lists()).await?, one(scope.orders()).await?);
    let revenue = one(scope.revenue()).await?;
    let money = |row: &SimpleQueryRow, at| row.get(at).unwrap_or_default().to_owned();
    Ok(Numbers {
        lists: number(&lists, 0)?,
        items: number(&lists, 1)?,
        variants: counted(scope.variants()).await?,
        interactions: counted(scope.interactions()).await?,
        revenue: money(&revenue, 0),
        orders: number(&orders, 0)?,
        ordered: money(&orders, 1),
        popular: counted(scope.popular()).await?,
    })
}

async fn rows(client: &Client, sql: &str) -> Result<Vec<SimpleQueryRow>> {
    let answer = client.simple_query(sql).await;
    let answer =
        answer.with_context(|| format!("cannot read the numbers; has `migrate` run? {sql}"))?;
    let rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

fn number(row: &SimpleQueryRow, at: usize) -> Result<u64> {
    let text = row.get(at).unwrap_or_default();
    text.parse()
        .with_context(|| format!("'{text}' is no number of rows"))
}
