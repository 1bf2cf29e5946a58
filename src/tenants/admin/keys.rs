//! Creates and lists API keys.
//!
//! Invariant: a secret is shown once, to the operator who creates it. The database gets its hash
//! and a short prefix to recognise it by, and no message repeats what may be a secret. Knows
//! nothing of what a role permits.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rand::TryRng as _;
use rand::rngs::SysRng;
use serde_json::{Value, json};
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::audit::{self, Entity, Entry};
use super::tenants::{find_tenant, usable_tenant};
use super::{settings, time};
use crate::event::time::Micros;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::role::Role;
use crate::tenants::settings::KeySettings;

/// Keys with this role are in a table of their own.
const PUBLISH: &str = "publish";

/// Enough to recognise a key in a list, too little to guess it.
const PREFIX_CHARS: usize = 8;

/// A key as a list shows it. Only its holder knows the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// The id to name it by.
    pub id: Uuid,
    /// The external id of its tenant.
    pub tenant: String,
    /// The purpose of the key.
    pub name: Option<String>,
    /// The first characters of its secret.
    pub key_prefix: Option<String>,
    /// The roles in the database, with unknown ones.
    pub roles: Vec<String>,
    /// Its limits and origins.
    pub settings: KeySettings,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When a service last saw it, to about a minute; `None` if that was never noted.
    pub last_used_at: Option<Timestamp>,
    /// When it expires; `None` means never.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
}

/// A new key. The only place where its secret appears.
#[derive(Clone, PartialEq, Eq)]
pub struct NewKey {
    /// The id to name it by.
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

/// The key to create.
#[derive(Clone, Debug, Default)]
pub struct KeyDraft<'d> {
    /// The tenant, by external id or the text of its UUID.
    pub tenant: &'d str,
    /// The purpose of the key.
    pub name: Option<&'d str>,
    /// What the key may be used for.
    pub roles: &'d [Role],
    /// When it expires; `None` means never.
    pub expires_at: Option<Timestamp>,
    /// Its limits and origins.
    pub settings: KeySettings,
}

/// The table that a key is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyTable {
    /// `tenant_api_keys`.
    Suite,
    /// `ingest_publish_keys`.
    Publish,
}

impl KeyTable {
    pub(super) fn of(roles: &[&str]) -> Self {
        match roles {
            [PUBLISH] => Self::Publish,
            _ => Self::Suite,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Suite => "tenant_api_keys",
            Self::Publish => "ingest_publish_keys",
        }
    }
}

/// Creates a key with a secret from the operating system's random source.
///
/// # Errors
///
/// When the tenant does not exist or is deleted, no role is given, the key would already have
/// expired, its settings make no sense, or the database is unreachable.
pub async fn create_key(
    client: &mut Client,
    hasher: &ApiKeyHasher,
    draft: &KeyDraft<'_>,
) -> Result<NewKey> {
    let transaction = client.transaction().await?;
    let tenant = usable_tenant(&transaction, draft.tenant).await?;
    let roles = role_names(draft.roles)?;
    let expires_at = draft.expires_at.map(|at| Micros(at.as_microsecond()));
    let table = KeyTable::of(&roles);
    let key = insert(
        &transaction, hasher, table, tenant.id, draft.name, &roles, expires_at,
    )
    .await?;
    settings::write(&transaction, key.id, &draft.settings).await?;
    let after = json!({
        "name": draft.name, "roles": roles, "expires_at": draft.expires_at.map(|at| at.to_string()),
        "settings": draft.settings,
    });
    note(
        &transaction, "api_key.create", tenant.id, key.id, None, after,
    )
    .await?;
    transaction.commit().await?;
    Ok(key)
}

/// Writes a key with a fresh secret.
pub(super) async fn insert(
    transaction: &Transaction<'_>,
    hasher: &ApiKeyHasher,
    table: KeyTable,
    tenant_id: Uuid,
    name: Option<&str>,
    roles: &[&str],
    expires_at: Option<Micros>,
) -> Result<NewKey> {
    let secret = fresh_secret()?;
    let prefix = prefix(&secret);
    let hash = hasher.hash(&secret).to_hex();
    let row = match table {
        KeyTable::Publish => {
            transaction
                .query_opt(
                    "INSERT INTO ingest_publish_keys (tenant_id, name, key_prefix, key_hash, expires_at) \
                     SELECT $1, $2, $3, $4, $5::timestamptz \
                     WHERE $5::timestamptz IS NULL OR $5::timestamptz > now() RETURNING id",
                    &[&tenant_id, &name, &prefix, &hash, &expires_at],
                )
                .await
        }
        KeyTable::Suite => {
            transaction
                .query_opt(
                    "INSERT INTO tenant_api_keys (tenant_id, name, key_prefix, key_hash, roles, expires_at) \
                     SELECT $1, $2, $3, $4, $5, $6::timestamptz \
                     WHERE $6::timestamptz IS NULL OR $6::timestamptz > now() RETURNING id",
                    &[&tenant_id, &name, &prefix, &hash, &roles, &expires_at],
                )
                .await
        }
    };
    match row.context("cannot create the API key")? {
        Some(row) => Ok(NewKey {
            id: row.try_get(0)?,
            secret,
        }),
        None => bail!("the API key would have expired already; choose a later expires_at"),
    }
}

/// Ensures that `secret` is a key of `tenant` with these roles.
///
/// Idempotent, so that a development set-up can have the same key at every start; it is not noted in
/// `audit_log`.
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
    let row = match KeyTable::of(&roles) {
        KeyTable::Publish => {
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
        KeyTable::Suite => client
            .query_opt(
                "INSERT INTO tenant_api_keys AS k (tenant_id, name, key_prefix, key_hash, roles) \
                     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key_hash) DO UPDATE \
                     SET name = coalesce(excluded.name, k.name), roles = excluded.roles \
                     WHERE k.tenant_id = excluded.tenant_id AND k.revoked_at IS NULL RETURNING id",
                &[&tenant.id, &name, &prefix, &hash, &roles],
            )
            .await,
    };
    match row.context("cannot store the API key")? {
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
            "SELECT k.id, t.external_id, k.name, k.key_prefix, k.roles, s.settings::text, \
               k.created_at, k.last_used_at, k.expires_at, k.revoked_at \
             FROM (SELECT id, tenant_id, name, key_prefix, roles, created_at, last_used_at, \
                          expires_at, revoked_at FROM tenant_api_keys \
                   UNION ALL \
                   SELECT id, tenant_id, name, key_prefix, '{publish}', created_at, last_used_at, \
                          expires_at, revoked_at FROM ingest_publish_keys) k \
             JOIN tenants t ON t.id = k.tenant_id \
             LEFT JOIN ingest_key_settings s ON s.key_id = k.id \
             WHERE $1::uuid IS NULL OR k.tenant_id = $1 \
             ORDER BY t.external_id, k.created_at, k.id",
            &[&tenant_id],
        )
        .await
        .context("cannot list API keys")?;
    rows.iter()
        .map(|row| {
            let roles: Vec<Option<String>> = row.try_get(4)?;
            let settings: Option<&str> = row.try_get(5)?;
            let settings = settings.map(serde_json::from_str).transpose();
            let id = row.try_get(0)?;
            Ok(KeyEntry {
                id,
                tenant: row.try_get(1)?,
                name: row.try_get(2)?,
                key_prefix: row.try_get(3)?,
                roles: roles.into_iter().flatten().collect(),
                settings: settings
                    .with_context(|| {
                        format!(
                            "the settings of key {id} cannot be read; write them with `keys grant`"
                        )
                    })?
                    .unwrap_or_default(),
                created_at: time(row, 6)?,
                last_used_at: time(row, 7)?,
                expires_at: time(row, 8)?,
                revoked_at: time(row, 9)?,
            })
        })
        .collect()
}

/// Notes a change of a key in `audit_log`.
pub(super) async fn note(
    transaction: &Transaction<'_>,
    action: &'static str,
    tenant: Uuid,
    id: Uuid,
    before: Option<Value>,
    after: Value,
) -> Result<()> {
    let entry = Entry {
        action,
        tenant,
        entity: Entity::ApiKey,
        id,
        before,
        after: Some(after),
    };
    audit::note(transaction, &entry).await
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
