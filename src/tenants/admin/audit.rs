//! The audit row of a change.
//!
//! Invariant: a change and its row are written by one transaction, and no row holds a secret or a
//! hash of one.

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

/// Who makes the change: what [`act_as`] said, else the role of the session.
const ACTOR: &str =
    "coalesce(nullif(current_setting('recsys_ingest.actor', true), ''), session_user)";

/// The kind of thing that a change is about, as `audit_log.entity_type` has it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entity {
    Tenant,
    ApiKey,
}

/// What `audit_log` says of a change.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) action: &'static str,
    pub(super) tenant: Uuid,
    pub(super) entity: Entity,
    pub(super) id: Uuid,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

/// Names the person or program that makes the changes of this session.
///
/// # Errors
///
/// When the database refuses or is unreachable.
pub async fn act_as(client: &Client, actor: &str) -> Result<()> {
    client
        .execute(
            "SELECT set_config('recsys_ingest.actor', $1, false)",
            &[&actor],
        )
        .await
        .context("cannot tell the database who makes the change")?;
    Ok(())
}

/// Writes the row of a change into the change's transaction.
pub(super) async fn note(transaction: &Transaction<'_>, entry: &Entry) -> Result<()> {
    let entity = match entry.entity {
        Entity::Tenant => "tenant",
        Entity::ApiKey => "api_key",
    };
    transaction
        .execute(
            &format!(
                "INSERT INTO audit_log \
                   (tenant_id, actor_sub, actor_type, action, entity_type, entity_id, \
                    before_state, after_state) \
                 VALUES ($1, {ACTOR}, 'cli', $2, $3, $4, $5, $6)"
            ),
            &[
                &entry.tenant,
                &entry.action,
                &entity,
                &entry.id.to_string(),
                &entry.before,
                &entry.after,
            ],
        )
        .await
        .context(
            "the change is not made, because it cannot be noted in audit_log; the role needs INSERT on it and USAGE on audit_log_id_seq",
        )?;
    Ok(())
}
