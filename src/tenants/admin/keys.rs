//! Creates, lists and revokes API keys.
//!
//! Invariant: a secret is shown once, to the operator who creates it. The database gets its hash
//! and a short prefix to recognise it by, and no message repeats what may be a secret. Knows
//! nothing of what a role permits.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rand::TryRng as _;
use rand::rngs::SysRng;
use tokio_postgres::Client;
use uuid::Uuid;

use super::tenants::{find_tenant, usable_tenant};
use super::time;
use crate::event::time::Micros;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::role::Role;

/// Keys with this role are in a table of their own.
const PUBLISH: &str = "publish";

/// Enough to recognise a key in a list, too little to guess it.
const PREFIX_CHARS: usize = 8;

/// A key as a list shows it. Only its holder knows the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// The id to revoke it by.
    pub id: Uuid,
    /// The external id of its tenant.
    pub tenant: String,
    /// The purpose of the key.
    pub name: Option<String>,
    /// The first characters of its secret.
    pub key_prefix: Option<String>,
    /// The roles in the database, with unknown ones.
    pub roles: Vec<String>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When it expires; `None` means never.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// A new key. The only place where its secret appears.
#[derive(Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The id to revoke it by.
    pub id: Uuid,
    /// What the client sends; cannot be shown again.
    pub secret: String,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Creates a key with a secret from the operating system's random source.
///
/// `tenant` is an external id or the text of a UUID.
///
/// # Errors
///
/// When the tenant does not exist or is deleted, no role is given, the key would already have
/// expired, or the database is unreachable.
pub async fn create_key(
    client: &Client,
    hasher: &ApiKeyHasher,
    tenant: &str,
    name: Option<&str>,
    roles: &[Role],
    expires_at: Option<Timestamp>,
) -> Result<NewKey> {
    let tenant = usable_tenant(client, tenant).await?;
    let roles = role_names(roles)?;
    let secret = fresh_secret()?;
    let prefix = prefix(&secret);
    let hash = hasher.hash(&secret).to_hex();
    let expires_at = expires_at.map(|at| Micros(at.as_microsecond()));
    let row = match roles[..] {
        [PUBLISH] => {
            client
                .query_opt(
                    "INSERT INTO ingest_publish_keys (tenant_id, name, key_prefix, key_hash, expires_at) \
                     SELECT $1, $2, $3, $4, $5::timestamptz \
                     WHERE $5::timestamptz IS NULL OR $5::timestamptz > now() RETURNING id",
                    &[&tenant.id, &name, &prefix, &hash, &expires_at],
                )
                .await
        }
        _ => {
            client
                .query_opt(
                    "INSERT INTO tenant_api_keys (tenant_id, name, key_prefix, key_hash, roles, expires_at) \
                     SELECT $1, $2, $3, $4, $5, $6::timestamptz \
                     WHERE $6::timestamptz IS NULL OR $6::timestamptz > now() RETURNING id",
                    &[&tenant.id, &name, &prefix, &hash, &roles, &expires_at],
                )
                .await
        }
    }
    .context("cannot create the API key")?;
    match row {
        Some(row) => Ok(NewKey {
            id: row.try_get(0)?,
            secret,
        }),
        None => bail!("the API key would have expired already; choose a later expires_at"),
    }
}

/// Ensures that `secret` is a key of `tenant` with these roles.
///
/// Idempotent, so that a development set-up can have the same key at every start.
///
/// # Errors
///
/// As [`create_key`]; also when the secret belongs to another tenant or was revoked.
pub async fn insert_key(
    client: &Client,
    hasher: &ApiKeyHasher,
    tenant: &str,
    name: Option<&str>,
    roles: &[Role],
    secret: &str,
) -> Result<Uuid> {
    let secret = secret.trim();
    if secret.is_empty() {
        bail!("the API key is blank; give a secret");
    }
    let tenant = usable_tenant(client, tenant).await?;
    let roles = role_names(roles)?;
    let hash = hasher.hash(secret).to_hex();
    let prefix = prefix(secret);
    // The update changes no key of another tenant and revives no revoked key.
    let row = match roles[..] {
        [PUBLISH] => {
            client
                .query_opt(
                    "INSERT INTO ingest_publish_keys AS k (tenant_id, name, key_prefix, key_hash) \
                     VALUES ($1, $2, $3, $4) ON CONFLICT (key_hash) DO UPDATE \
                     SET name = coalesce(excluded.name, k.name) \
                     WHERE k.tenant_id = excluded.tenant_id AND k.revoked_at IS NULL RETURNING id",
                    &[&tenant.id, &name, &prefix, &hash],
                )
                .await
        }
        _ => client
            .query_opt(
                "INSERT INTO tenant_api_keys AS k (tenant_id, name, key_prefix, key_hash, roles) \
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key_hash) DO UPDATE \
                     SET name = coalesce(excluded.name, k.name), roles = excluded.roles \
                     WHERE k.tenant_id = excluded.tenant_id AND k.revoked_at IS NULL RETURNING id",
                &[&tenant.id, &name, &prefix, &hash, &roles],
            )
            .await,
    }
    .context("cannot store the API key")?;
    match row {
        Some(row) => Ok(row.try_get(0)?),
        None => bail!(
            "this secret was revoked, or is a key of another tenant than \"{}\"; choose another secret",
            tenant.external_id
        ),
    }
}

/// The keys of one tenant or of all, oldest first within a tenant.
///
/// # Errors
///
/// When the tenant does not exist, or the database is unreachable.
pub async fn list_keys(client: &Client, tenant: Option<&str>) -> Result<Vec<KeyEntry>> {
    let tenant_id = match tenant {
        Some(named) => Some(find_tenant(client, named).await?.id),
        None => None,
    };
    let rows = client
        .query(
            "SELECT k.id, t.external_id, k.name, k.key_prefix, k.roles, \
               k.created_at, k.expires_at, k.revoked_at \
             FROM (SELECT id, tenant_id, name, key_prefix, roles, created_at, expires_at, revoked_at \
                     FROM tenant_api_keys \
                   UNION ALL \
                   SELECT id, tenant_id, name, key_prefix, '{publish}', created_at, expires_at, revoked_at \
                     FROM ingest_publish_keys) k JOIN tenants t ON t.id = k.tenant_id \
             WHERE $1::uuid IS NULL OR k.tenant_id = $1 \
             ORDER BY t.external_id, k.created_at, k.id",
            &[&tenant_id],
        )
        .await
        .context("cannot list API keys")?;
    rows.iter()
        .map(|row| {
            let roles: Vec<Option<String>> = row.try_get(4)?;
            Ok(KeyEntry {
                id: row.try_get(0)?,
                tenant: row.try_get(1)?,
                name: row.try_get(2)?,
                key_prefix: row.try_get(3)?,
                roles: roles.into_iter().flatten().collect(),
                created_at: time(row, 5)?,
                expires_at: time(row, 6)?,
                revoked_at: time(row, 7)?,
            })
        })
        .collect()
}

/// Revokes a key, by id or by `key_prefix`. Idempotent: the key keeps the time at which it was
/// first revoked.
///
/// # Errors
///
/// When no key or more than one matches, or the database is unreachable.
pub async fn revoke_key(client: &Client, id_or_prefix: &str) -> Result<Uuid> {
    let wanted = id_or_prefix.trim();
    if wanted.is_empty() {
        bail!("no API key named; give its id or prefix as `keys list` shows them");
    }
    let found = client
        .query(
            "SELECT id FROM (SELECT id, key_prefix, created_at FROM tenant_api_keys \
                             UNION ALL \
                             SELECT id, key_prefix, created_at FROM ingest_publish_keys) k \
             WHERE id::text = lower($1) OR key_prefix = $1 \
             ORDER BY created_at LIMIT 6",
            &[&wanted],
        )
        .await
        .context("cannot look for the API key")?;
    let ids = found
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<Vec<Uuid>, _>>()?;
    match ids[..] {
        [id] => {
            client
                .execute(
                    "WITH own AS (UPDATE ingest_publish_keys \
                         SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1) \
                     UPDATE tenant_api_keys SET revoked_at = coalesce(revoked_at, now()) \
                     WHERE id = $1",
                    &[&id],
                )
                .await
                .context("cannot revoke the API key")?;
            Ok(id)
        }
        // The argument may be the secret itself, so it is not repeated.
        [] => bail!("no API key has that id or prefix; `keys list` shows both"),
        _ => {
            let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
            bail!(
                "more than one API key begins like that; name one by id: {}",
                ids.join(", ")
            )
        }
    }
}

fn role_names(roles: &[Role]) -> Result<Vec<&'static str>> {
    if roles.is_empty() {
        bail!("the API key has no role and would be of no use; give at least one");
    }
    let mut names = Vec::with_capacity(roles.len());
    for role in roles {
        if !names.contains(&role.name()) {
            names.push(role.name());
        }
    }
    if names.len() > 1 && names.contains(&PUBLISH) {
        bail!("a publish key is in public hands and can have no other role; create a key for each");
    }
    Ok(names)
}

fn fresh_secret() -> Result<String> {
    let mut bytes = [0; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .context("the operating system gave no random bytes")?;
    Ok(format!("rik_{}", hex::encode(bytes)))
}

/// The first characters of a secret, at most half of a short one.
fn prefix(secret: &str) -> String {
    let half = secret.chars().count() / 2;
    secret.chars().take(half.min(PREFIX_CHARS)).collect()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_fresh_and_their_prefix_gives_little_away() {
        let (one, two) = (fresh_secret().unwrap(), fresh_secret().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 4 + 64);
        assert_eq!(prefix(&one), one[..8]);
        assert_eq!(prefix("tiny"), "ti");
        let shown = format!(
            "{:?}",
            NewKey {
                id: Uuid::nil(),
                secret: one.clone()
            }
        );
        assert!(!shown.contains(&one[4..]));
    }
}
