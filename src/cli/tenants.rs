//! `recsys-ingest tenants`: who events belong to.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::config::actor::Actor;
use crate::config::database::Database;
use crate::config::parse;
use crate::tenants::admin;
use crate::tenants::admin::tenants::{NamedTenant, TenantEntry};
use crate::tenants::settings::TenantSettings;
use crate::tenants::snapshot::TenantStatus;

use super::settings::{LimitFlags, NameFlags, OriginFlags};
use super::terminal::{Output, open, open_as};

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantsCommand {
    /// Make a tenant
    Create {
        /// The name that events and keys use for it
        external_id: String,
        /// A name for people [default: the external id]
        #[arg(long, value_parser = parse::name)]
        name: Option<String>,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        change: Change,
    },
    /// List all tenants
    List {
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        look: Look,
    },
    /// Show a tenant with its settings
    Show {
        /// The tenant, by external id or UUID
        tenant: String,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        look: Look,
    },
    /// Refuse a tenant's keys and events for now; its data stays
    Suspend {
        /// The tenant, by external id or UUID
        tenant: String,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        change: Change,
    },
    /// Take a suspended tenant's keys and events again
    Activate {
        /// The tenant, by external id or UUID
        tenant: String,
        #[command(flatten)]
        #[allow(missing_docs, reason = "documented on its type")]
        change: Change,
    },
    /// Change a tenant's limits, origins, event names and surfaces; in force after --key-refresh
    Set(Box<Set>),
}

/// The settings to change.
#[derive(Args, Debug)]
pub struct Set {
    /// The tenant, by external id or UUID
    tenant: String,
    /// Replace all settings by those of a JSON file, or of standard input where it is -
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    origins: OriginFlags,
    #[command(flatten)]
    names: NameFlags,
    #[command(flatten)]
    change: Change,
}

/// What every look at tenants and keys needs.
#[derive(Args, Debug)]
pub struct Look {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub database: Database,
}

/// What every change of tenants and keys needs.
#[derive(Args, Debug)]
pub struct Change {
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub look: Look,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub actor: Actor,
}

pub(crate) async fn run(command: TenantsCommand) -> Result<()> {
    match command {
        TenantsCommand::Create {
            external_id,
            name,
            change,
        } => {
            let mut session = open_as(&change.look.database, &change.actor).await?;
            let name = name.as_deref().unwrap_or(&external_id);
            let tenant =
                admin::tenants::create_tenant(&mut session.client, &external_id, name).await?;
            changed(&change.look, &tenant, None, true)
        }
        TenantsCommand::List { look } => {
            let session = open(&look.database).await?;
            let entries = admin::tenants::list_tenants(&session.client).await?;
            let mut output =
                Output::table(look.json, &["id", "external_id", "status", "keys", "name"]);
            for entry in &entries {
                let tenant = &entry.tenant;
                output.row(
                    &[
                        &tenant.id,
                        &tenant.external_id,
                        &tenant.status.name(),
                        &entry.keys,
                        &entry.name,
                    ],
                    described(entry),
                );
            }
            output.print()
        }
        TenantsCommand::Show { tenant, look } => {
            let session = open(&look.database).await?;
            let entry = admin::tenants::show_tenant(&session.client, &tenant).await?;
            Output::one(look.json, described(&entry)).print()
        }
        TenantsCommand::Suspend { tenant, change } => {
            set_status(&tenant, TenantStatus::Suspended, &change).await
        }
        TenantsCommand::Activate { tenant, change } => {
            set_status(&tenant, TenantStatus::Active, &change).await
        }
        TenantsCommand::Set(set) => self::set(&set).await,
    }
}

async fn set_status(tenant: &str, status: TenantStatus, change: &Change) -> Result<()> {
    let mut session = open_as(&change.look.database, &change.actor).await?;
    let (tenant, is_changed) =
        admin::tenants::set_status(&mut session.client, tenant, status).await?;
    changed(&change.look, &tenant, None, is_changed)
}

async fn set(set: &Set) -> Result<()> {
    let document = set.settings.as_ref().map(document).transpose()?;
    let mut session = open_as(&set.change.look.database, &set.change.actor).await?;
    let (tenant, settings, is_changed) =
        admin::tenants::set_settings(&mut session.client, &set.tenant, |settings| {
            if let Some(document) = document {
                *settings = serde_json::from_str(&document)
                    .context("the settings are not as docs/decisions/0014-callers.md shows them")?;
            }
            set.limits.apply(&mut settings.limits);
            set.names.apply(settings)?;
            set.origins.apply(&mut settings.origins)
        })
        .await?;
    changed(&set.change.look, &tenant, Some(&settings), is_changed)
}

fn document(path: &PathBuf) -> Result<String> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("cannot read the settings from standard input")?;
    } else {
        text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the settings in {}", path.display()))?;
    }
    // The library takes an array for an object whose members have no names.
    if !text.trim_start().starts_with('{') {
        bail!("the settings are not a JSON object, as docs/decisions/0014-callers.md shows them");
    }
    Ok(text)
}

fn changed(
    look: &Look,
    tenant: &NamedTenant,
    settings: Option<&TenantSettings>,
    is_changed: bool,
) -> Result<()> {
    let status = tenant.status.name();
    let unchanged = if is_changed { "" } else { "\tunchanged" };
    let text = format!("{}\t{}\t{status}{unchanged}", tenant.id, tenant.external_id);
    let mut document = json!({
        "id": tenant.id, "external_id": tenant.external_id, "status": status, "changed": is_changed,
    });
    if let Some(settings) = settings {
        document["settings"] = serde_json::to_value(settings)?;
    }
    Output::line(look.json, text, document).print()
}

fn described(entry: &TenantEntry) -> Value {
    let tenant = &entry.tenant;
    json!({
        "id": tenant.id, "external_id": tenant.external_id, "name": entry.name, "status": tenant.status.name(), "keys": entry.keys,
        "created_at": entry.created_at.map(|at| at.to_string()), "settings": tenant.settings,
    })
}
