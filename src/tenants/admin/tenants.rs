//! Creates, lists, finds and changes tenants.
//!
//! Invariant: an external id created here is safe in a path, a header and a URL. Knows nothing of
//! keys, except how many a tenant has.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde_json::json;
use tokio_postgres::{Client, GenericClient, Row};
use uuid::Uuid;

use super::audit::{self, Entity, Entry};
use super::{settings, time};
use crate::tenants::settings::TenantSettings;
use crate::tenants::snapshot::{Tenant, TenantStatus};

const EXTERNAL_ID_BYTES_MAX: usize = 128;

/// A tenant as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantEntry {
    /// The tenant, with its settings.
    pub tenant: Tenant,
    /// Its name for people.
    pub name: String,
    /// When it was created; `None` if outside the years −9999 to 9999.
    pub created_at: Option<Timestamp>,
    /// Keys that are not revoked, with expired ones.
    pub keys: i64,
}

/// A tenant that a command named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTenant {
    /// The tenant id in every event row.
    pub id: Uuid,
    /// The name that people and other services use.
    pub external_id: String,
    /// Whether its keys work.
    pub status: TenantStatus,
}

/// Creates a tenant. A blank `name` becomes the external id.
///
/// # Errors
///
/// When the external id is not usable or already exists, or the database is unreachable.
pub async fn create_tenant(
    client: &mut Client,
    external_id: &str,
    name: &str,
) -> Result<NamedTenant> {
    check_external_id(external_id)?;
    let name = if name.trim().is_empty() {
        external_id
    } else {
        name.trim()
    };
    let transaction = client.transaction().await?;
    let other = transaction
        .query_opt(
            "SELECT external_id FROM tenants WHERE id::text = lower($1)",
            &[&external_id],
        )
        .await
        .context("cannot read the tenants")?;
    if let Some(other) = other {
        let other: &str = other.try_get(0)?;
        bail!(
            "{external_id} is the id of tenant \"{other}\", and tenants are named by either: choose another external id"
        );
    }
    let row = transaction
        .query_opt(
            "INSERT INTO tenants (external_id, name) VALUES ($1, $2) \
             ON CONFLICT (external_id) DO NOTHING RETURNING id",
            &[&external_id, &name],
        )
        .await
        .with_context(|| format!("cannot create tenant \"{external_id}\""))?;
    let Some(row) = row else {
        bail!("tenant \"{external_id}\" exists already; choose another external id");
    };
    let tenant = NamedTenant {
        id: row.try_get(0)?,
        external_id: external_id.to_owned(),
        status: TenantStatus::Active,
    };
    let entry = Entry {
        action: "tenant.create",
        tenant: tenant.id,
        entity: Entity::Tenant,
        id: tenant.id,
        before: None,
        after: Some(json!({"external_id": external_id, "name": name, "status": "active"})),
    };
    audit::note(&transaction, &entry).await?;
    transaction.commit().await?;
    Ok(tenant)
}

/// Suspends a tenant or takes it into use again. Returns whether that changed anything.
///
/// # Errors
///
/// When there is no such tenant, it is deleted, or the database is unreachable.
pub async fn set_status(
    client: &mut Client,
    named: &str,
    status: TenantStatus,
) -> Result<(NamedTenant, bool)> {
    let transaction = client.transaction().await?;
    let mut tenant = usable_tenant(&transaction, named).await?;
    let before = tenant.status;
    if before == status {
        return Ok((tenant, false));
    }
    transaction
        .execute(
            "UPDATE tenants SET status = $2::text::tenant_status WHERE id = $1",
            &[&tenant.id, &status.name()],
        )
        .await
        .with_context(|| format!("cannot change tenant \"{}\"", tenant.external_id))?;
    let entry = Entry {
        action: match status {
            TenantStatus::Active => "tenant.activate",
            TenantStatus::Suspended => "tenant.suspend",
            TenantStatus::Deleted => "tenant.delete",
        },
        tenant: tenant.id,
        entity: Entity::Tenant,
        id: tenant.id,
        before: Some(json!({"status": before.name()})),
        after: Some(json!({"status": status.name()})),
    };
    audit::note(&transaction, &entry).await?;
    transaction.commit().await?;
    tenant.status = status;
    Ok((tenant, true))
}

/// Changes the settings of a tenant. Returns whether that changed anything.
///
/// # Errors
///
/// When there is no such tenant, the new settings make no sense, or the database is unreachable.
pub async fn set_settings(
    client: &mut Client,
    named: &str,
    change: impl FnOnce(&mut TenantSettings) -> Result<()>,
) -> Result<(NamedTenant, TenantSettings, bool)> {
    let transaction = client.transaction().await?;
    let tenant = usable_tenant(&transaction, named).await?;
    let before: TenantSettings = settings::read(&transaction, tenant.id).await?;
    let mut after = before.clone();
    change(&mut after)?;
    let is_changed = before != after;
    if is_changed {
        settings::write(&transaction, tenant.id, &after).await?;
        let entry = Entry {
            action: "tenant.settings.update",
            tenant: tenant.id,
            entity: Entity::Tenant,
            id: tenant.id,
            before: Some(serde_json::to_value(&before)?),
            after: Some(serde_json::to_value(&after)?),
        };
        audit::note(&transaction, &entry).await?;
    }
    transaction.commit().await?;
    Ok((tenant, after, is_changed))
}

/// Tenants as a list shows them: `$1` names one, or is null for all.
const ENTRIES: &str = "
    SELECT t.id, t.external_id, t.status::text, s.settings::text, t.name, t.created_at,
           (SELECT count(*) FROM tenant_api_keys k
             WHERE k.tenant_id = t.id AND k.revoked_at IS NULL) +
           (SELECT count(*) FROM ingest_publish_keys k
             WHERE k.tenant_id = t.id AND k.revoked_at IS NULL)
      FROM tenants t LEFT JOIN ingest_tenant_settings s ON s.tenant_id = t.id
     WHERE $1::uuid IS NULL OR t.id = $1
     ORDER BY t.external_id";

/// All tenants, by external id.
///
/// # Errors
///
/// When the database refuses or is unreachable.
pub async fn list_tenants(client: &Client) -> Result<Vec<TenantEntry>> {
    entries(client, None).await
}

/// One tenant, with all that is known of it.
///
/// # Errors
///
/// When there is no such tenant, or the database is unreachable.
pub async fn show_tenant(client: &Client, named: &str) -> Result<TenantEntry> {
    let tenant = find_tenant(client, named).await?;
    let mut entries = entries(client, Some(tenant.id)).await?;
    entries.pop().context("the tenant has just been removed")
}

async fn entries(client: &Client, id: Option<Uuid>) -> Result<Vec<TenantEntry>> {
    let rows = client
        .query(ENTRIES, &[&id])
        .await
        .context("cannot list tenants")?;
    rows.iter()
        .map(|row| {
            Ok(TenantEntry {
                tenant: tenant_from(row)?,
                name: row.try_get(4)?,
                created_at: time(row, 5)?,
                keys: row.try_get(6)?,
            })
        })
        .collect()
}

/// Tenant ids appear in paths of exported files, and in HTTP headers where commas and spaces
/// separate several.
fn check_external_id(external_id: &str) -> Result<()> {
    if external_id.is_empty() {
        bail!("the tenant's external id is empty; give one, for example \"demo\"");
    }
    if external_id.len() > EXTERNAL_ID_BYTES_MAX {
        bail!("the tenant's external id is longer than {EXTERNAL_ID_BYTES_MAX} bytes; shorten it");
    }
    if matches!(external_id, "." | "..") {
        bail!(
            "the tenant's external id cannot be \".\" or \"..\", because it is used in file paths"
        );
    }
    let unsafe_char =
        |c: char| matches!(c, '/' | '\\' | ',') || c.is_control() || c.is_whitespace();
    if external_id.contains(unsafe_char) {
        bail!(
            "the tenant's external id contains a slash, backslash, comma, white space or \
             control character; use letters, digits, \"-\" and \"_\""
        );
    }
    Ok(())
}

/// Finds a tenant that keys may be created for.
pub(super) async fn usable_tenant(client: &impl GenericClient, named: &str) -> Result<NamedTenant> {
    let tenant = find_tenant(client, named).await?;
    if tenant.status == TenantStatus::Deleted {
        bail!(
            "tenant \"{}\" is deleted, and its keys are refused; make another one",
            tenant.external_id
        );
    }
    Ok(tenant)
}

/// Finds the tenant of that name, with any status.
pub(crate) async fn find_tenant(client: &impl GenericClient, named: &str) -> Result<NamedTenant> {
    let row = client
        .query_opt(
            "SELECT id, external_id, status::text FROM tenants \
             WHERE external_id = $1 OR id::text = lower($1) \
             ORDER BY external_id = $1 DESC LIMIT 1",
            &[&named],
        )
        .await
        .with_context(|| format!("cannot look for tenant \"{named}\""))?;
    match row {
        Some(row) => Ok(NamedTenant {
            id: row.try_get(0)?,
            external_id: row.try_get(1)?,
            status: TenantStatus::from_name(row.try_get(2)?),
        }),
        None => bail!("there is no tenant \"{named}\"; create it with `tenants create`"),
    }
}

/// A tenant from the columns id, external id, status and settings. Settings that cannot be read are
/// as if there were none, as for the service.
fn tenant_from(row: &Row) -> Result<Tenant> {
    let settings: Option<&str> = row.try_get(3)?;
    let settings = settings.and_then(|text| serde_json::from_str(text).ok());
    Ok(Tenant {
        id: row.try_get(0)?,
        external_id: row.try_get(1)?,
        status: TenantStatus::from_name(row.try_get(2)?),
        settings: settings.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_ids_that_would_escape_a_path_or_split_a_header_are_refused() {
        let long = "x".repeat(129);
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a\nb",
            "a\0",
            "a,b",
            "a b",
            long.as_str(),
        ] {
            assert!(check_external_id(bad).is_err(), "{bad:?}");
        }
        for good in ["demo", "acme-eu_1", "...", "käse", &long[..128]] {
            assert!(check_external_id(good).is_ok(), "{good:?}");
        }
    }
}
