//! Which days to compute: those that were asked for, or those that have changed.

use anyhow::{Context as _, Result};
use jiff::civil::Date;
use tokio_postgres::{Client, Row, Transaction};
use uuid::Uuid;

use crate::event::table::Table;
use crate::jobs::day::{Days, TenantDay};

/// Marks that were seen, or that nothing reads, are kept this long: the lane that owns one would
/// begin it again at the next batch of the day.
const MARKS_KEPT: &str = "35 days";

/// Notes that the day is computed with the marks that are committed now.
pub(super) async fn record(transaction: &Transaction<'_>, day: &TenantDay) -> Result<()> {
    let TenantDay { tenant, day, .. } = day;
    transaction
        .execute(
            &format!(
                "INSERT INTO ingest_computed_days
                     (tenant_id, day, table_name, instance_id, lineage, stream, changes)
                 SELECT tenant_id, day, table_name, instance_id, lineage, stream, changes
                   FROM ingest_changed_days
                  WHERE tenant_id = '{tenant}'::uuid AND day = date '{day}'
                    AND table_name = '{}'
                     ON CONFLICT (tenant_id, day, table_name, instance_id, lineage, stream) DO UPDATE
                    SET changes = excluded.changes, computed_at = now()",
                Table::Exposures
            ),
            &[],
        )
        .await
        .context("cannot note which changes the day is computed with")?;
    Ok(())
}

/// The days whose exposures have changed since they were computed, the oldest first.
///
/// A tenant that is gone has no signals.
///
/// # Errors
/// When Postgres refuses the statement or is away.
pub async fn changed(client: &Client, tenant: Option<Uuid>) -> Result<Vec<TenantDay>> {
    let rows = client
        .query(
            &format!(
                "SELECT t.id, t.external_id, to_char(changed.day, 'YYYY-MM-DD')
                   FROM ingest_changed_days AS changed
                   JOIN tenants AS t ON t.id = changed.tenant_id
                   LEFT JOIN ingest_computed_days AS computed
                     ON (computed.tenant_id, computed.day, computed.table_name,
                         computed.instance_id, computed.lineage, computed.stream)
                      = (changed.tenant_id, changed.day, changed.table_name,
                         changed.instance_id, changed.lineage, changed.stream)
                  WHERE changed.table_name = '{}'
                    AND computed.changes IS DISTINCT FROM changed.changes
                    AND t.id = coalesce($1, t.id)
                  GROUP BY t.id, changed.day
                  ORDER BY changed.day, t.external_id",
                Table::Exposures
            ),
            &[&tenant],
        )
        .await
        .context("cannot read which days have changed")?;
    rows.iter().map(tenant_day).collect()
}

/// The days with exposures among `days`, the oldest first.
///
/// # Errors
/// When Postgres refuses the statement or is away.
pub async fn with_exposures(
    client: &Client,
    days: Days,
    tenant: Option<Uuid>,
) -> Result<Vec<TenantDay>> {
    // A scalar subquery is one index probe for each tenant and day.
    let rows = client
        .query(
            &format!(
                "SELECT t.id, t.external_id, to_char(date '{from}' + n, 'YYYY-MM-DD')
                   FROM generate_series(0, date '{to}' - date '{from}') AS n CROSS JOIN tenants AS t
                  WHERE t.id = coalesce($1, t.id)
                    AND (SELECT true FROM {table} AS e
                          WHERE e.tenant_id = t.id
                            AND e.occurred_at >= (date '{from}' + n)::timestamp AT TIME ZONE 'UTC'
                            AND e.occurred_at < (date '{from}' + n + 1)::timestamp AT TIME ZONE 'UTC'
                          LIMIT 1)
                  ORDER BY n, t.external_id",
                from = days.from,
                to = days.to,
                table = Table::Exposures
            ),
            &[&tenant],
        )
        .await
        .context("cannot look for days with exposures")?;
    rows.iter().map(tenant_day).collect()
}

/// Deletes old marks with what was noted of them.
///
/// # Errors
/// When Postgres refuses the statement or is away.
pub async fn delete_old_marks(client: &Client) -> Result<u64> {
    // A mark that its lane has changed since is looked at again, and stays.
    client
        .execute(
            &format!(
                "WITH old AS (
                     DELETE FROM ingest_changed_days AS changed
                      WHERE changed_at < now() - interval '{MARKS_KEPT}'
                        AND (table_name <> '{}'
                             OR changes = (SELECT computed.changes FROM ingest_computed_days AS computed
                                            WHERE computed.tenant_id = changed.tenant_id
                                              AND computed.day = changed.day
                                              AND computed.table_name = changed.table_name
                                              AND computed.instance_id = changed.instance_id
                                              AND computed.lineage = changed.lineage
                                              AND computed.stream = changed.stream))
                     RETURNING tenant_id, day, table_name, instance_id, lineage, stream),
                 noted AS (
                     DELETE FROM ingest_computed_days AS computed USING old
                      WHERE (computed.tenant_id, computed.day, computed.table_name,
                             computed.instance_id, computed.lineage, computed.stream)
                          = (old.tenant_id, old.day, old.table_name,
                             old.instance_id, old.lineage, old.stream))
                 SELECT FROM old",
                Table::Exposures
            ),
            &[],
        )
        .await
        .context("cannot delete old marks of changed days")
}

fn tenant_day(row: &Row) -> Result<TenantDay> {
    let day: &str = row.get(2);
    Ok(TenantDay {
        tenant: row.get(0),
        name: row.get(1),
        // Days that text in this form has: years from 1 to 9999.
        day: day
            .parse::<Date>()
            .with_context(|| format!("{day} is no day that signals are computed for"))?,
    })
}
