//! Changes, rotates and revokes API keys.
//!
//! A key is named by its id or by the beginning of its secret. No message repeats what may be a
//! secret.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::keys::{KeyTable, NewKey, insert, note};
use super::settings;
use crate::event::time::Micros;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::role::Role;
use crate::tenants::settings::KeySettings;

/// A key that a change is about, locked until the transaction ends.
struct Locked {
    id: Uuid,
    table: KeyTable,
    tenant_id: Uuid,
    name: Option<String>,
    roles: Vec<String>,
    expires_at: Option<Micros>,
    is_revoked: bool,
    is_expired: bool,
}

/// Revokes a key, by id or by `key_prefix`. Idempotent: the key keeps the time at which it was
/// first revoked. Returns whether that changed anything.
///
/// # Errors
///
/// When no key or more than one matches, or the database is unreachable.
pub async fn revoke_key(client: &mut Client, id_or_prefix: &str) -> Result<(Uuid, bool)> {
    let transaction = client.transaction().await?;
    let key = lock(&transaction, id_or_prefix).await?;
    if key.is_revoked {
        return Ok((key.id, false));
    }
    transaction
        .execute(
            &format!(
                "UPDATE {} SET revoked_at = now() WHERE id = $1",
                key.table.name()
            ),
            &[&key.id],
        )
        .await
        .context("cannot revoke the API key")?;
    let after = json!({"revoked": true});
    let before = Some(json!({"revoked": false}));
    note(
        &transaction, "api_key.revoke", key.tenant_id, key.id, before, after,
    )
    .await?;
    transaction.commit().await?;
    Ok((key.id, true))
}

/// Replaces a key by a new one with the same tenant, name, roles, settings and expiry. The old one
/// expires after `grace`, or when it would have anyway.
///
/// # Errors
///
/// When no key or more than one matches, the key is revoked or has expired, or the database is
/// unreachable.
pub async fn rotate_key(
    client: &mut Client,
    hasher: &ApiKeyHasher,
    id_or_prefix: &str,
    grace: Duration,
) -> Result<NewKey> {
    let transaction = client.transaction().await?;
    let key = lock(&transaction, id_or_prefix).await?;
    if key.is_revoked || key.is_expired {
        bail!(
            "API key {} is revoked or has expired; make another with `keys create`",
            key.id
        );
    }
    let roles: Vec<&str> = key.roles.iter().map(String::as_str).collect();
    let name = key.name.as_deref();
    let new = insert(
        &transaction, hasher, key.table, key.tenant_id, name, &roles, key.expires_at,
    )
    .await?;
    let own: KeySettings = settings::read(&transaction, key.id).await?;
    settings::write(&transaction, new.id, &own).await?;
    transaction
        .execute(
            &format!(
                "UPDATE {} SET expires_at = least(expires_at, now() + $2 * interval '1 second') \
                 WHERE id = $1",
                key.table.name()
            ),
            &[&key.id, &grace.as_secs_f64()],
        )
        .await
        .context("cannot let the old API key expire")?;
    let after = json!({"replaced_by": new.id, "grace_seconds": grace.as_secs()});
    note(
        &transaction, "api_key.rotate", key.tenant_id, key.id, None, after,
    )
    .await?;
    transaction.commit().await?;
    Ok(new)
}

/// Changes of a key's roles.
#[derive(Clone, Debug, Default)]
pub struct RoleChange {
    /// Roles to add.
    pub add: Vec<Role>,
    /// Roles to take away.
    pub remove: Vec<Role>,
}

/// Changes the roles and settings of a key. Roles of others in the suite stay. Returns whether that
/// changed anything.
///
/// # Errors
///
/// When no key or more than one matches, a publish key would get another role or another key that
/// of a publish key, the settings make no sense, or the database is unreachable.
pub async fn grant(
    client: &mut Client,
    id_or_prefix: &str,
    roles: &RoleChange,
    change: impl FnOnce(&mut KeySettings) -> Result<()>,
) -> Result<(Uuid, bool)> {
    let transaction = client.transaction().await?;
    let key = lock(&transaction, id_or_prefix).await?;
    let has_publish = [&roles.add, &roles.remove]
        .iter()
        .any(|roles| roles.contains(&Role::Publish));
    match key.table {
        KeyTable::Suite if has_publish => bail!(
            "a key of tenant_api_keys cannot be a publish key, because other components of the suite take it; create one with `keys create --role publish`"
        ),
        KeyTable::Publish if !roles.add.is_empty() || !roles.remove.is_empty() => bail!(
            "a publish key is in public hands, and its role cannot be changed; create another key"
        ),
        _ => {}
    }
    let is = |held: &str, role: &Role| held.trim().eq_ignore_ascii_case(role.name());
    let mut granted = key.roles.clone();
    granted.retain(|held| !roles.remove.iter().any(|role| is(held, role)));
    for role in &roles.add {
        if !granted.iter().any(|held| is(held, role)) {
            granted.push(role.name().to_owned());
        }
    }
    let before: KeySettings = settings::read(&transaction, key.id).await?;
    let mut after = before.clone();
    change(&mut after)?;
    if granted == key.roles && before == after {
        return Ok((key.id, false));
    }
    if granted != key.roles {
        transaction
            .execute(
                "UPDATE tenant_api_keys SET roles = $2 WHERE id = $1",
                &[&key.id, &granted],
            )
            .await
            .context("cannot change the roles of the API key")?;
    }
    settings::write(&transaction, key.id, &after).await?;
    let before = Some(json!({"roles": key.roles, "settings": before}));
    let after = json!({"roles": granted, "settings": after});
    note(
        &transaction, "api_key.grant", key.tenant_id, key.id, before, after,
    )
    .await?;
    transaction.commit().await?;
    Ok((key.id, true))
}

/// Finds the key with that id or prefix in either table, and locks it.
async fn lock(transaction: &Transaction<'_>, id_or_prefix: &str) -> Result<Locked> {
    let wanted = id_or_prefix.trim();
    if wanted.is_empty() {
        bail!("no API key named; give its id or prefix as `keys list` shows them");
    }
    let mut found = Vec::new();
    for (table, roles) in [
        (KeyTable::Suite, "roles"),
        (KeyTable::Publish, "'{publish}'::text[]"),
    ] {
        let rows = transaction
            .query(
                &format!(
                    "SELECT id, tenant_id, name, {roles}, expires_at, revoked_at IS NOT NULL, \
                       coalesce(expires_at <= now(), false) \
                     FROM {} WHERE id::text = lower($1) OR key_prefix = $1 \
                     ORDER BY created_at LIMIT 6 FOR UPDATE",
                    table.name()
                ),
                &[&wanted],
            )
            .await
            .context("cannot look for the API key")?;
        for row in rows {
            let roles: Vec<Option<String>> = row.try_get(3)?;
            found.push(Locked {
                id: row.try_get(0)?,
                table,
                tenant_id: row.try_get(1)?,
                name: row.try_get(2)?,
                roles: roles.into_iter().flatten().collect(),
                expires_at: row.try_get(4)?,
                is_revoked: row.try_get(5)?,
                is_expired: row.try_get(6)?,
            });
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(key), true) => Ok(key),
        // The argument may be the secret itself, so it is not repeated.
        (None, _) => bail!("no API key has that id or prefix; `keys list` shows both"),
        (Some(last), false) => {
            let ids: Vec<String> = found
                .iter()
                .chain([&last])
                .map(|key| key.id.to_string())
                .collect();
            bail!(
                "more than one API key begins like that; name one by id: {}",
                ids.join(", ")
            )
        }
    }
}
