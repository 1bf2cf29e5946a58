//! `recsys-ingest users`: what is stored of a user, to be handed over or erased.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

use crate::accounts::erasure::begin::{Subject, begin, note, tenant_named, until};
use crate::accounts::erasure::export::export;
use crate::accounts::erasure::quarantined;
use crate::accounts::erasure::rows::{Erasing, detached, erase, find};
use crate::config::actor::Actor;
use crate::config::database::Database;
use crate::config::user::{Named, User};
use crate::event::identity::{Pseudonymizer, parse_pseudonym};
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::postgres::session::Session;

use super::terminal::{Output, open_as, print};

/// The end of the year 9999: later than any event.
const FAR_FUTURE: Micros = Micros(253_402_300_799_000_000);

/// What to do with what is stored of a user.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// Erase a user: rows and quarantine, and what still comes of theirs from spools, retries and imports
    Erase(Box<Erase>),
    /// Print all that is stored of a user, a line of JSON for each row
    Export(Box<Export>),
}

/// Which user to erase, and how.
#[derive(Args, Debug)]
pub struct Erase {
    #[command(flatten)]
    user: User,
    /// Only events from before this time, in RFC 3339; it has to have passed [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    before: Option<Micros>,
    /// Keep the rows, without user, session and the hashes of ids
    #[arg(long)]
    keep_rows: bool,
    /// Erase the anonymous ids as well that stand on the user's rows
    #[arg(long)]
    with_anonymous: bool,
    /// Only show what would be erased
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    actor: Actor,
    #[command(flatten)]
    database: Database,
}

/// Which user's data to print.
#[derive(Args, Debug)]
pub struct Export {
    #[command(flatten)]
    user: User,
    #[command(flatten)]
    actor: Actor,
    #[command(flatten)]
    database: Database,
}

fn instant(text: &str) -> Result<Micros, String> {
    Micros::parse(text.trim())
        .ok_or_else(|| "it has to be a time like 2026-05-24T10:00:00Z".to_owned())
}

/// Runs a `users` command.
pub(crate) async fn run(command: UsersCommand) -> Result<()> {
    match command {
        UsersCommand::Erase(settings) => erase_user(*settings).await,
        UsersCommand::Export(settings) => {
            let Export {
                user,
                actor,
                database,
            } = *settings;
            let mut session = session(&database, &actor).await?;
            let subject = subject(&session.client, &user, FAR_FUTURE).await?;
            export(&mut session.client, &subject, print).await?;
            note(&session.client, &subject, "user.export", &json!({})).await
        }
    }
}

/// A session without a limit on statements, as reading all of a tenant's rows takes a while, and that
/// takes one core at most.
async fn session(database: &Database, actor: &Actor) -> Result<Session> {
    let session = open_as(database, actor).await?;
    let settings = "SET statement_timeout = 0; SET max_parallel_workers_per_gather = 0";
    session.client.batch_execute(settings).await?;
    Ok(session)
}

async fn subject(client: &Client, user: &User, before: Micros) -> Result<Subject> {
    let key = match &user.named {
        Named::Key(key) => *key,
        Named::Id(id, salt) => Pseudonymizer::new(salt.expose().as_bytes())
            .hash(id)
            .context("--user-id is blank: events with a blank id have no user")?,
    };
    Ok(Subject {
        tenant: tenant_named(client, &user.tenant).await?,
        key: key.to_vec(),
        before,
    })
}

async fn erase_user(settings: Erase) -> Result<()> {
    let mut session = session(&settings.database, &settings.actor).await?;
    let client = &mut session.client;
    let before = until(client, settings.before).await?;
    let subject = subject(client, &settings.user, before).await?;
    let erasing = match settings.keep_rows {
        true => Erasing::Ties,
        false => Erasing::Rows,
    };
    let mut work = Work {
        client,
        erasing,
        settings: &settings,
    };
    let (counts, mut anonymous) = work.one(&subject).await?;
    anonymous.remove(&hex::encode(&subject.key));
    let mut erased = vec![counts];
    if settings.with_anonymous {
        for id in std::mem::take(&mut anonymous) {
            let key = parse_pseudonym(&id).context("an anonymous id is no hash")?;
            let subject = Subject {
                key: key.to_vec(),
                ..subject.clone()
            };
            erased.push(work.one(&subject).await?.0);
        }
    }
    let found = Found {
        erased: &erased,
        offered: &anonymous,
        detached: detached(work.client).await?,
    };
    output(&settings, before, &found).print()
}

/// A command that erases users, or counts what would be erased.
struct Work<'c> {
    client: &'c mut Client,
    erasing: Erasing,
    settings: &'c Erase,
}

impl Work<'_> {
    /// Erases a user. Returns the counts, and the anonymous ids on the rows.
    async fn one(&mut self, subject: &Subject) -> Result<(Map<String, Value>, BTreeSet<String>)> {
        let Self {
            client,
            erasing,
            settings,
        } = self;
        let mut counts = Map::new();
        counts.insert("user_key".to_owned(), hex::encode(&subject.key).into());
        if settings.dry_run {
            let mut later = 0;
            let mut anonymous = BTreeSet::new();
            for table in Table::ALL {
                let found = find(client, table, subject).await?;
                later += found.later;
                counts.insert(table.to_string(), found.rows.into());
                anonymous.extend(found.anonymous);
            }
            let quarantined = quarantined::find(client, subject).await?;
            counts.insert("ingest_quarantine".to_owned(), quarantined.len().into());
            counts.insert("later".to_owned(), later.into());
            return Ok((counts, anonymous));
        }
        // Before its rows are looked for: none comes after this.
        begin(client, subject, settings.keep_rows).await?;
        let mut anonymous = BTreeSet::new();
        for table in Table::ALL {
            let erased = erase(client, table, subject, *erasing).await?;
            counts.insert(table.to_string(), erased.rows.into());
            anonymous.extend(erased.anonymous);
        }
        let quarantined = quarantined::erase(client, subject).await?;
        counts.insert("ingest_quarantine".to_owned(), quarantined.into());
        let mut detail = counts.clone();
        detail.remove("user_key");
        detail.insert("keep_rows".to_owned(), settings.keep_rows.into());
        note(&**client, subject, "user.erased", &Value::Object(detail)).await?;
        Ok((counts, anonymous))
    }
}

/// What an erasure has to tell.
struct Found<'f> {
    /// Counts by table, for each user.
    erased: &'f [Map<String, Value>],
    /// Anonymous ids that stand on the rows.
    offered: &'f BTreeSet<String>,
    /// Tables that are no partitions any more and were searched as well.
    detached: Vec<String>,
}

fn output(settings: &Erase, before: Micros, found: &Found<'_>) -> Output {
    let Found {
        erased,
        offered,
        detached,
    } = found;
    if settings.json {
        return Output::Json(json!({
            "tenant": settings.user.tenant, "before": before.to_string(),
            "dry_run": settings.dry_run, "keep_rows": settings.keep_rows,
            "users": erased, "anonymous_ids": offered,
            "detached_tables": detached,
        }));
    }
    let done = match (settings.dry_run, settings.keep_rows) {
        (true, false) => "would be erased",
        (true, true) => "would be cut off from the user",
        (false, false) => "erased",
        (false, true) => "cut off from the user",
    };
    let mut lines = Vec::new();
    for counts in *erased {
        let of = |name: &str| counts.get(name).and_then(Value::as_i64).unwrap_or(0);
        let key = counts.get("user_key").and_then(Value::as_str).unwrap_or("");
        lines.push(format!(
            "{key}: {} exposures, {} interactions and {} assignments from before {before} {done}; {} rows of the quarantine {}",
            of("exposure_events"),
            of("interaction_events"),
            of("ingest_assignments"),
            of("ingest_quarantine"),
            if settings.dry_run {
                "would be removed"
            } else {
                "removed"
            },
        ));
        if of("later") > 0 {
            lines.push(format!("{} later rows stay; see --before", of("later")));
        }
    }
    if !detached.is_empty() {
        let names = detached.join(", ");
        lines.push(format!(
            "searched as well, with their rows among these: {names} (detached by --retain-keep)"
        ));
    }
    for id in *offered {
        lines.push(format!(
            "anonymous id {id} stands on these rows: erase it, too, with --user-key {id} or --with-anonymous"
        ));
    }
    Output::Text(lines)
}
