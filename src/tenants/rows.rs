//! Reads tenants and API keys from their tables: all of them, or one.

use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Row, Transaction};
use uuid::Uuid;

use super::key::KeyHash;
use super::role::{Role, Roles};
use super::snapshot::{KeyRow, Snapshot, Tenant, TenantStatus};
use crate::event::time::Micros;

/// Tenants, with the settings of those that have any.
const TENANTS: &str = "
    SELECT id, external_id, status::text, settings::text
      FROM tenants LEFT JOIN ingest_tenant_settings ON tenant_id = id";

/// Keys of both tables that match `condition`, those that may do less last: of two with one hash,
/// the last one counts.
fn keys(condition: &str) -> String {
    format!(
        "
    SELECT id, tenant_id, key_hash, roles, expires_at, revoked_at IS NOT NULL, settings::text,
           false AS is_publish
      FROM tenant_api_keys LEFT JOIN ingest_key_settings ON key_id = id {condition}
    UNION ALL
    SELECT id, tenant_id, key_hash, '{{publish}}', expires_at, revoked_at IS NOT NULL, settings::text,
           true
      FROM ingest_publish_keys LEFT JOIN ingest_key_settings ON key_id = id {condition}
    ORDER BY is_publish"
    )
}

/// A fingerprint of all that [`read`] reads. A hundred thousand keys take Postgres some tens of
/// milliseconds, which is a fraction of what reading them takes both sides. When a key was last used
/// is not part of it. Rows have ids, so that no two of a table have the same hash, which would be
/// lost from the sum.
const FINGERPRINT: &str = "
    SELECT concat_ws(' ',
        (SELECT concat(count(*), ':', bit_xor(hash_record_extended(
                    ROW(id, external_id, status), 1))) FROM tenants),
        (SELECT concat(count(*), ':', bit_xor(hash_record_extended(
                    ROW(tenant_id, settings), 2))) FROM ingest_tenant_settings),
        (SELECT concat(count(*), ':', bit_xor(hash_record_extended(
                    ROW(id, tenant_id, key_hash, roles, expires_at, revoked_at), 3)))
           FROM tenant_api_keys),
        (SELECT concat(count(*), ':', bit_xor(hash_record_extended(
                    ROW(id, tenant_id, key_hash, expires_at, revoked_at), 4)))
           FROM ingest_publish_keys),
        (SELECT concat(count(*), ':', bit_xor(hash_record_extended(
                    ROW(key_id, settings), 5))) FROM ingest_key_settings))";

/// Reads all tables in one snapshot: a key must not be seen without its tenant. `None` if they hold
/// what they held at the `known` fingerprint.
pub(super) async fn read(client: &mut Client, known: Option<&str>) -> Result<Option<Snapshot>> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .context("cannot begin to read tenants and API keys")?;
    let fingerprint: String = transaction
        .query_one(FINGERPRINT, &[])
        .await
        .and_then(|row| row.try_get(0))
        .context("cannot look whether the tables of tenants and API keys changed")?;
    let snapshot = match known == Some(&*fingerprint) {
        true => None,
        false => {
            let mut snapshot = read_all(&transaction).await?;
            snapshot.set_fingerprint(fingerprint);
            Some(snapshot)
        }
    };
    transaction
        .commit()
        .await
        .context("cannot finish reading tenants and API keys")?;
    Ok(snapshot)
}

async fn read_all(transaction: &Transaction<'_>) -> Result<Snapshot> {
    let tenants = transaction
        .query(TENANTS, &[])
        .await
        .context("cannot read the tables tenants and ingest_tenant_settings")?;
    let tenants = tenants.iter().map(tenant).collect::<Result<Vec<_>>>();
    let mut snapshot = Snapshot::new(tenants.context("cannot make sense of the table tenants")?);
    // One after the other: a hundred thousand rows at once take more memory than their keys.
    let none: [&(dyn ToSql + Sync); 0] = [];
    let rows = transaction.query_raw(&keys(""), none).await;
    let cannot_read = "cannot read the tables of API keys and their settings";
    let mut rows = pin!(rows.context(cannot_read)?);
    while let Some(row) = rows.try_next().await.context(cannot_read)? {
        add_key(&mut snapshot, &row).context("cannot make sense of the tables of API keys")?;
    }
    Ok(snapshot)
}

/// What a look-up found.
#[derive(Debug, Default)]
pub(super) struct Found {
    tenants: Vec<Tenant>,
    keys: Vec<Row>,
}

impl Found {
    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Adds what was found. A tenant that is known stays as it is known.
    ///
    /// # Errors
    /// When a row is not as the schema says.
    pub(super) fn add_to(self, snapshot: &mut Snapshot) -> Result<()> {
        for tenant in self.tenants {
            if !snapshot.has_tenant(tenant.id) {
                snapshot.add_tenant(tenant);
            }
        }
        self.keys.iter().try_for_each(|row| add_key(snapshot, row))
    }
}

/// Looks up the key with this hash, and its tenant.
///
/// # Errors
/// When the database refuses or is unreachable.
pub(super) async fn find_key(client: &Client, hash: KeyHash) -> Result<Found> {
    let keys = client
        .query(&keys("WHERE key_hash = $1"), &[&hash.to_hex()])
        .await
        .context("cannot look up an API key")?;
    let ids = keys.iter().map(|row| row.try_get(1));
    let ids: Vec<Uuid> = ids.collect::<Result<_, _>>()?;
    if ids.is_empty() {
        return Ok(Found::default());
    }
    let tenants = client
        .query(&format!("{TENANTS} WHERE id = ANY($1)"), &[&ids])
        .await
        .context("cannot look up the tenant of an API key")?;
    let tenants = tenants.iter().map(tenant).collect::<Result<_>>()?;
    Ok(Found { tenants, keys })
}

/// Looks up the tenant of this name.
///
/// # Errors
/// When the database refuses or is unreachable.
pub(super) async fn find_tenant(client: &Client, named: &str) -> Result<Found> {
    let by_name = format!("{TENANTS} WHERE external_id = $1 OR id::text = $1");
    let tenants = client
        .query(&by_name, &[&named])
        .await
        .context("cannot look up a tenant")?;
    Ok(Found {
        tenants: tenants.iter().map(tenant).collect::<Result<_>>()?,
        keys: Vec::new(),
    })
}

fn tenant(row: &Row) -> Result<Tenant> {
    let external_id: String = row.try_get(1)?;
    let settings: Option<&str> = row.try_get(3)?;
    let settings = settings.map(serde_json::from_str).transpose();
    Ok(Tenant {
        id: row.try_get(0)?,
        status: TenantStatus::from_name(row.try_get(2)?),
        settings: settings.unwrap_or_else(|error| {
            tracing::warn!(
                tenant = external_id,
                %error,
                "the tenant's row of ingest_tenant_settings cannot be read, and is left out; write it with recsys-ingest tenants set"
            );
            None
        }).unwrap_or_default(),
        external_id,
    })
}

fn add_key(snapshot: &mut Snapshot, row: &Row) -> Result<()> {
    let id: Uuid = row.try_get(0)?;
    let settings: Option<&str> = row.try_get(6)?;
    let settings = match settings.map(serde_json::from_str).transpose() {
        Ok(settings) => settings.map(Arc::new),
        Err(error) => {
            tracing::warn!(
                key = %id,
                %error,
                "the key's row of ingest_key_settings cannot be read, so the key is left out; write it with recsys-ingest keys grant"
            );
            snapshot.skip_key();
            return Ok(());
        }
    };
    let roles: Vec<Option<&str>> = row.try_get(3)?;
    let is_publish: bool = row.try_get(7)?;
    let names = roles.iter().copied().flatten();
    // A key of the suite's table opens other routes of the suite, so it is never one for browsers.
    let roles = Roles::from_names(names).iter();
    let roles = roles.filter(|&role| is_publish || role != Role::Publish);
    snapshot.add_key(&KeyRow {
        id,
        tenant_id: row.try_get(1)?,
        key_hash: row.try_get(2)?,
        roles: roles.collect(),
        expires_at_us: row.try_get::<_, Option<Micros>>(4)?.map(|at| at.0),
        revoked: row.try_get(5)?,
        settings,
    });
    Ok(())
}
