//! `recsys-ingest tenants` and `keys`: tenants that events belong to, and API keys.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::config::database::Database;
use crate::config::secret::Secrets;
use crate::logging;
use crate::tenants::admin;
use crate::tenants::key::ApiKeyHasher;
use crate::tenants::role::Role;

use super::terminal::{open, print};

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantsCommand {
    /// Make a tenant
    Create {
        /// The name that events and keys use for it
        external_id: String,
        /// A name for people [default: the external id]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        database: Database,
    },
    /// List all tenants
    List(Database),
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key and show it, this once
    Create {
        /// The tenant that the key is for, by external id or UUID
        tenant: String,
        /// What the key may do; may be given several times: ingest (both kinds of event), publish (interactions, safe in a browser), service (both kinds, for any tenant), viewer, operator, admin
        #[arg(long = "role", required = true, value_parser = role)]
        roles: Vec<Role>,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        /// How long the key works, such as 90d [default: until it is revoked]
        #[arg(long, value_parser = humantime::parse_duration)]
        expires_in: Option<Duration>,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        access: KeyAccess,
    },
    /// List keys, without showing them
    List {
        /// Only this tenant's, by external id or UUID
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        database: Database,
    },
    /// Make a key useless, at once for new readers and within --key-refresh for running ones
    Revoke {
        /// The key's id, or the beginning of the key as `list` shows it
        key: String,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        database: Database,
    },
}

/// What it takes to make a key.
#[derive(Args, Debug)]
pub struct KeyAccess {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub database: Database,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub secrets: Secrets,
}

fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Role::ALL.iter().map(|role| role.name()).collect();
        format!("a role is one of {}", names.join(", "))
    })
}

pub(crate) async fn tenants(command: TenantsCommand) -> Result<()> {
    match command {
        TenantsCommand::Create {
            external_id,
            name,
            database,
        } => {
            let session = open(&database).await?;
            let name = name.as_deref().unwrap_or(&external_id);
            let tenant = admin::tenants::create_tenant(&session.client, &external_id, name).await?;
            print(&format!("{}\t{}", tenant.id, tenant.external_id))
        }
        TenantsCommand::List(database) => {
            let session = open(&database).await?;
            let mut lines = vec!["id\texternal_id\tstatus\tname".to_owned()];
            for entry in admin::tenants::list_tenants(&session.client).await? {
                let tenant = &entry.tenant;
                let status = tenant.status.name();
                lines.push(format!(
                    "{}\t{}\t{status}\t{}",
                    tenant.id, tenant.external_id, entry.name
                ));
            }
            print(&lines.join("\n"))
        }
    }
}

pub(crate) async fn keys(command: KeysCommand) -> Result<()> {
    match command {
        KeysCommand::Create {
            tenant,
            roles,
            name,
            expires_in,
            access,
        } => {
            let session = open(&access.database).await?;
            let hasher = ApiKeyHasher::new(access.secrets.api_key_hash_secret.expose().as_bytes());
            let expires_at = expires_in
                .map(|after| jiff::Timestamp::now().checked_add(after))
                .transpose()
                .context("the key would expire after the end of time")?;
            let key = admin::keys::create_key(
                &session.client,
                &hasher,
                &tenant,
                name.as_deref(),
                &roles,
                expires_at,
            )
            .await?;
            logging::say(&format!(
                "key {} for {tenant}; it is shown this once:",
                key.id
            ));
            print(&key.secret)
        }
        KeysCommand::List { tenant, database } => {
            let session = open(&database).await?;
            let mut lines = vec!["id\ttenant\tkey\troles\tstate\tname".to_owned()];
            for entry in admin::keys::list_keys(&session.client, tenant.as_deref()).await? {
                let state = match (entry.revoked_at, entry.expires_at) {
                    (Some(at), _) => format!("revoked at {at}"),
                    (None, Some(at)) => format!("until {at}"),
                    (None, None) => "active".to_owned(),
                };
                lines.push(format!(
                    "{}\t{}\t{}…\t{}\t{state}\t{}",
                    entry.id,
                    entry.tenant,
                    entry.key_prefix.as_deref().unwrap_or_default(),
                    entry.roles.join(","),
                    entry.name.as_deref().unwrap_or_default()
                ));
            }
            print(&lines.join("\n"))
        }
        KeysCommand::Revoke { key, database } => {
            let session = open(&database).await?;
            let id = admin::keys::revoke_key(&session.client, &key).await?;
            print(&format!("{id}\trevoked"))
        }
    }
}
