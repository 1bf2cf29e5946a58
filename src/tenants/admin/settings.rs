//! Reads and writes the settings of keys and tenants.
//!
//! A document without members is no row. Checks beyond the documents' own form: event types exist,
//! events can have the names and surfaces, and a burst has a rate.

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Transaction;
use uuid::Uuid;

use crate::event::field::{KEY_BYTES_MAX, PATH_SAFE, is_path_safe};
use crate::event::interaction::LABELS;
use crate::tenants::settings::{KeySettings, Limits, TenantSettings};

/// Settings that are kept in a table.
pub(super) trait Document: Serialize + DeserializeOwned + Default + PartialEq {
    /// The table, and its column that names the holder.
    const TABLE: (&'static str, &'static str);

    /// Refuses what the form of the document lets through and nobody can mean.
    fn check(&self) -> Result<()>;
}

impl Document for KeySettings {
    const TABLE: (&'static str, &'static str) = ("ingest_key_settings", "key_id");

    fn check(&self) -> Result<()> {
        check_limits(&self.limits)
    }
}

impl Document for TenantSettings {
    const TABLE: (&'static str, &'static str) = ("ingest_tenant_settings", "tenant_id");

    fn check(&self) -> Result<()> {
        check_limits(&self.limits)?;
        for (name, event_type) in &self.event_names {
            if name.trim().is_empty() {
                bail!("the map of event names has a blank name, which no event has; leave it out");
            }
            if name.trim() != name {
                bail!(
                    "the event name '{name}' has white space around it, which names in events are rid of; write it without"
                );
            }
            if !LABELS.contains(&event_type.as_str()) {
                bail!(
                    "'{name}' is mapped to '{event_type}', and an event type is one of {}",
                    LABELS.join(", ")
                );
            }
        }
        let surfaces = self.surfaces.as_deref();
        if surfaces.is_some_and(<[String]>::is_empty) {
            bail!("an empty list of surfaces would refuse every event; name one, or leave it out");
        }
        surfaces
            .into_iter()
            .flatten()
            .try_for_each(|surface| check_surface(surface))
    }
}

/// Refuses a surface that no event can have.
fn check_surface(surface: &str) -> Result<()> {
    if surface.trim().is_empty() {
        bail!("a surface in the list is blank, which no event's is; name one, or leave it out");
    }
    if surface.len() > KEY_BYTES_MAX {
        bail!(
            "a surface in the list has {} bytes, and the most that an event's has is {KEY_BYTES_MAX}",
            surface.len()
        );
    }
    if !is_path_safe(surface) {
        bail!("no event can have the surface {surface:?}: it {PATH_SAFE}");
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<()> {
    let pairs = [
        ("events", limits.events_per_second, limits.events_burst),
        ("bytes", limits.bytes_per_second, limits.bytes_burst),
    ];
    for (what, rate, burst) in pairs {
        if rate.is_none() && burst.is_some() {
            bail!("{what}_burst without {what}_per_second limits nothing; give the rate, too");
        }
    }
    Ok(())
}

/// The settings of a key or tenant, locked until the transaction ends. A document that cannot be
/// read is replaced as a whole.
pub(super) async fn read<D: Document>(transaction: &Transaction<'_>, id: Uuid) -> Result<D> {
    let (table, column) = D::TABLE;
    let row = transaction
        .query_opt(
            &format!("SELECT settings::text FROM {table} WHERE {column} = $1 FOR UPDATE"),
            &[&id],
        )
        .await
        .with_context(|| format!("cannot read {table}"))?;
    let text: Option<&str> = row.as_ref().map(|row| row.try_get(0)).transpose()?;
    Ok(text
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default())
}

/// Writes the settings of a key or tenant.
pub(super) async fn write<D: Document>(
    transaction: &Transaction<'_>,
    id: Uuid,
    settings: &D,
) -> Result<()> {
    settings.check()?;
    let (table, column) = D::TABLE;
    let document = serde_json::to_value(settings).context("cannot write the settings as JSON")?;
    let written = match *settings == D::default() {
        true => {
            transaction
                .execute(&format!("DELETE FROM {table} WHERE {column} = $1"), &[&id])
                .await
        }
        false => {
            transaction
                .execute(
                    &format!(
                        "INSERT INTO {table} ({column}, settings) VALUES ($1, $2) \
                         ON CONFLICT ({column}) DO UPDATE \
                         SET settings = excluded.settings, updated_at = now()"
                    ),
                    &[&id, &document],
                )
                .await
        }
    };
    written.with_context(|| format!("cannot write {table}"))?;
    Ok(())
}
