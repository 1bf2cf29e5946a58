//! `recsys-ingest keys`: who may post.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::config::parse;
use crate::config::secret::Secrets;
use crate::logging;
use crate::tenants::admin;
use crate::tenants::admin::key_changes::RoleChange;
use crate::tenants::admin::keys::{KeyDraft, KeyEntry, NewKey};
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::role::Role;
use crate::tenants::settings::KeySettings;

use super::settings::{LimitFlags, OriginFlags};
use super::tenants::{Change, Look};
use super::terminal::{Output, open, open_as};

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key and show it, this once
    Create(Box<Create>),
    /// List keys, without showing them
    List {
        /// Only this tenant's, by external id or UUID
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        look: Look,
    },
    /// Make a key useless, at once for new readers and within --key-refresh for running ones
    Revoke {
        /// The key's id, or the beginning of the key as `list` shows it
        key: String,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        change: Change,
    },
    /// Make a new key with the same roles and settings, and let the old one expire
    Rotate {
        /// The key's id, or the beginning of the key as `list` shows it
        key: String,
        /// How long the old key still works
        #[arg(long, default_value = "24h", value_parser = parse::duration)]
        grace: Duration,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        secrets: Secrets,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        change: Change,
    },
    /// Change a key's roles, limits and origins; in force after --key-refresh
    Grant(Box<Grant>),
}

/// The key to make.
#[derive(Args, Debug)]
pub struct Create {
    /// The tenant that the key is for, by external id or UUID
    tenant: String,
    /// What the key may do; may be given several times: ingest (every kind of event), publish (interactions, safe in a browser, and no other role beside it), service (every kind, for any tenant), viewer, operator, admin
    #[arg(long = "role", required = true, value_parser = role)]
    roles: Vec<Role>,
    /// A name for people
    #[arg(long, value_parser = parse::name)]
    name: Option<String>,
    /// How long the key works, such as 90d [default: until it is revoked]
    #[arg(long, value_parser = parse::duration)]
    expires_in: Option<Duration>,
    /// When the key expires, such as 2027-01-31T00:00:00Z
    #[arg(long, conflicts_with = "expires_in", value_parser = instant)]
    expires_at: Option<Timestamp>,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    origins: OriginFlags,
    #[command(flatten)]
    secrets: Secrets,
    #[command(flatten)]
    change: Change,
}

/// What to change of a key.
#[derive(Args, Debug)]
pub struct Grant {
    /// The key's id, or the beginning of the key as `list` shows it
    key: String,
    /// Add a role; may be given several times
    #[arg(long = "role", value_parser = role)]
    roles: Vec<Role>,
    /// Take a role away; may be given several times
    #[arg(long = "without-role", value_parser = role)]
    without: Vec<Role>,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    origins: OriginFlags,
    #[command(flatten)]
    change: Change,
}

fn instant(text: &str) -> Result<Timestamp, String> {
    text.trim()
        .parse()
        .map_err(|_| "it has to be a time with an offset, such as 2027-01-31T00:00:00Z".to_owned())
}

fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Role::ALL.iter().map(|role| role.name()).collect();
        format!("a role is one of {}", names.join(", "))
    })
}

fn hasher(secrets: &Secrets) -> ApiKeyHasher {
    ApiKeyHasher::new(secrets.api_key_hash_secret.expose().as_bytes())
}

pub(crate) async fn run(command: KeysCommand) -> Result<()> {
    match command {
        KeysCommand::Create(create) => self::create(&create).await,
        KeysCommand::List { tenant, look } => {
            let session = open(&look.database).await?;
            let entries = admin::keys::list_keys(&session.client, tenant.as_deref()).await?;
            let now = Timestamp::now();
            let head = [
                "id", "tenant", "key", "roles", "state", "created", "last used", "name",
            ];
            let mut output = Output::table(look.json, &head);
            for entry in &entries {
                output.row(
                    &[
                        &entry.id,
                        &entry.tenant,
                        &format!("{}…", entry.key_prefix.as_deref().unwrap_or_default()),
                        &entry.roles.join(","),
                        &state(entry, now).1,
                        &shown(entry.created_at),
                        &shown(entry.last_used_at),
                        &entry.name.as_deref().unwrap_or_default(),
                    ],
                    described(entry, now),
                );
            }
            output.print()
        }
        KeysCommand::Revoke { key, change } => {
            let mut session = open_as(&change.look.database, &change.actor).await?;
            let (id, is_changed) =
                admin::key_changes::revoke_key(&mut session.client, &key).await?;
            let text = match is_changed {
                true => format!("{id}\trevoked"),
                false => format!("{id}\trevoked\tunchanged"),
            };
            let document = json!({"id": id, "state": "revoked", "changed": is_changed});
            Output::line(change.look.json, text, document).print()
        }
        KeysCommand::Rotate {
            key,
            grace,
            secrets,
            change,
        } => {
            if Timestamp::now().checked_add(grace).is_err() {
                bail!("the old key would expire after the year 9999; give a shorter --grace");
            }
            let mut session = open_as(&change.look.database, &change.actor).await?;
            let new =
                admin::key_changes::rotate_key(&mut session.client, &hasher(&secrets), &key, grace)
                    .await?;
            let what = format!(
                "the old key works for another {}",
                humantime::format_duration(grace)
            );
            show_secret(&new, &what, change.look.json)
        }
        KeysCommand::Grant(grant) => self::grant(&grant).await,
    }
}

async fn create(create: &Create) -> Result<()> {
    let Change { look, actor } = &create.change;
    let expires_at = match create.expires_in {
        Some(after) => Some(
            Timestamp::now()
                .checked_add(after)
                .map_err(|_| anyhow!("the key would expire after the year 9999; give a shorter --expires-in, or leave it out for a key that does not expire"))?,
        ),
        None => create.expires_at,
    };
    let mut settings = KeySettings::default();
    create.limits.apply(&mut settings.limits);
    create.origins.apply(&mut settings.origins)?;
    let draft = KeyDraft {
        tenant: &create.tenant,
        name: create.name.as_deref().filter(|name| !name.is_empty()),
        roles: &create.roles,
        expires_at,
        settings,
    };
    let mut session = open_as(&look.database, actor).await?;
    let key =
        admin::keys::create_key(&mut session.client, &hasher(&create.secrets), &draft).await?;
    show_secret(&key, &format!("it is for {}", create.tenant), look.json)
}

/// Shows a new key: the secret to standard output, the rest to the log.
fn show_secret(key: &NewKey, what: &str, json: bool) -> Result<()> {
    if !json {
        logging::say(&format!("key {}; {what}; it is shown this once:", key.id));
    }
    let document = json!({"id": key.id, "secret": key.secret});
    Output::line(json, key.secret.clone(), document).print()
}

async fn grant(grant: &Grant) -> Result<()> {
    let Change { look, actor } = &grant.change;
    if let Some(both) = grant.roles.iter().find(|role| grant.without.contains(role)) {
        let name = both.name();
        bail!("--role {name} and --without-role {name} contradict each other; give one of them");
    }
    let roles = RoleChange {
        add: grant.roles.clone(),
        remove: grant.without.clone(),
    };
    let mut session = open_as(&look.database, actor).await?;
    let (id, is_changed) =
        admin::key_changes::grant(&mut session.client, &grant.key, &roles, |settings| {
            grant.limits.apply(&mut settings.limits);
            grant.origins.apply(&mut settings.origins)
        })
        .await?;
    let text = match is_changed {
        true => format!("{id}\tchanged"),
        false => format!("{id}\tunchanged"),
    };
    let document = json!({"id": id, "changed": is_changed});
    Output::line(look.json, text, document).print()
}

/// Whether a key works, as one word and as a list shows it.
fn state(entry: &KeyEntry, now: Timestamp) -> (&'static str, String) {
    match (entry.revoked_at, entry.expires_at) {
        (Some(at), _) => ("revoked", format!("revoked at {at}")),
        (None, Some(at)) if at < now => ("expired", format!("expired at {at}")),
        (None, Some(at)) => ("active", format!("until {at}")),
        (None, None) => ("active", "active".to_owned()),
    }
}

fn shown(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

fn described(entry: &KeyEntry, now: Timestamp) -> Value {
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "id": entry.id, "tenant": entry.tenant, "name": entry.name,
        "key_prefix": entry.key_prefix, "roles": entry.roles, "state": state(entry, now).0,
        "settings": entry.settings, "created_at": time(entry.created_at),
        "last_used_at": time(entry.last_used_at), "expires_at": time(entry.expires_at),
        "revoked_at": time(entry.revoked_at),
    })
}
