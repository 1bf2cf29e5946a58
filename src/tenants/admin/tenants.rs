//! Creates, lists and finds tenants.
//!
//! Invariant: an external id created here is safe in a path, a header and a URL. Knows nothing of
//! keys, except how many a tenant has.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use tokio_postgres::{Client, Row};

use super::time;
use crate::tenants::settings::TenantSettings;
use crate::tenants::snapshot::{Tenant, TenantStatus};

const EXTERNAL_ID_BYTES_MAX: usize = 128;

/// A tenant as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantEntry {
    /// The tenant.
    pub tenant: Tenant,
    /// Its name for people.
    pub name: String,
    /// When it was created; `None` if outside the years −9999 to 9999.
    pub created_at: Option<Timestamp>,
    /// Keys that are not revoked, with expired ones.
    pub keys: i64,
}

/// Creates a tenant. A blank `name` becomes the external id.
///
/// # Errors
///
/// When the external id is not usable or already exists, or the database is unreachable.
pub async fn create_tenant(client: &Client, external_id: &str, name: &str) -> Result<Tenant> {
    check_external_id(external_id)?;
    let name = if name.trim().is_empty() {
        external_id
    } else {
        name.trim()
    };
    let row = client
        .query_opt(
            "INSERT INTO tenants (external_id, name) VALUES ($1, $2) \
             ON CONFLICT (external_id) DO NOTHING RETURNING id, external_id, status::text",
            &[&external_id, &name],
        )
        .await
        .with_context(|| format!("cannot create tenant \"{external_id}\""))?;
    match row {
        Some(row) => tenant_from(&row),
        None => bail!("tenant \"{external_id}\" exists already; choose another external id"),
    }
}

/// All tenants, by external id.
///
/// # Errors
///
/// When the database refuses or is unreachable.
pub async fn list_tenants(client: &Client) -> Result<Vec<TenantEntry>> {
    let rows = client
        .query(
            "SELECT t.id, t.external_id, t.status::text, t.name, t.created_at, \
               (SELECT count(*) FROM tenant_api_keys k \
                WHERE k.tenant_id = t.id AND k.revoked_at IS NULL) + \
               (SELECT count(*) FROM ingest_publish_keys k \
                WHERE k.tenant_id = t.id AND k.revoked_at IS NULL) \
             FROM tenants t ORDER BY t.external_id",
            &[],
        )
        .await
        .context("cannot list tenants")?;
    rows.iter()
        .map(|row| {
            Ok(TenantEntry {
                tenant: tenant_from(row)?,
                name: row.try_get(3)?,
                created_at: time(row, 4)?,
                keys: row.try_get(5)?,
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
pub(crate) async fn usable_tenant(client: &Client, named: &str) -> Result<Tenant> {
    let tenant = find_tenant(client, named).await?;
    if tenant.status == TenantStatus::Deleted {
        bail!(
            "tenant \"{}\" is deleted; a key for it would be refused",
            tenant.external_id
        );
    }
    Ok(tenant)
}

/// Finds the tenant of that name, with any status.
pub(crate) async fn find_tenant(client: &Client, named: &str) -> Result<Tenant> {
    let row = client
        .query_opt(
            "SELECT id, external_id, status::text FROM tenants \
             WHERE external_id = $1 OR id::text = $1 \
             ORDER BY external_id = $1 DESC LIMIT 1",
            &[&named],
        )
        .await
        .with_context(|| format!("cannot look for tenant \"{named}\""))?;
    match row {
        Some(row) => tenant_from(&row),
        None => bail!("there is no tenant \"{named}\"; create it with `tenants create`"),
    }
}

fn tenant_from(row: &Row) -> Result<Tenant> {
    Ok(Tenant {
        id: row.try_get(0)?,
        external_id: row.try_get(1)?,
        status: TenantStatus::from_name(row.try_get(2)?),
        settings: TenantSettings::default(),
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
