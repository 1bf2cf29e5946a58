//! `recsys-ingest migrate`: brings the schema up to date, makes again what was dropped of it, or says
//! what that would do.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use crate::config::database::Database;
use crate::logging;
use crate::postgres::migrate::objects::{Object, missing};
use crate::postgres::migrate::{self, History};
use crate::service::prepare::migrate_once;

use super::terminal::{Output, open, print};

/// Whether to migrate, or only to look.
#[derive(Args, Debug)]
pub struct Migrate {
    /// Show which migrations ran, which are missing, and what is gone of that which they made, and change nothing; exits with 1 if something is missing
    #[arg(long, conflicts_with = "dry_run")]
    status: bool,

    /// Print the status as JSON
    #[arg(long, requires = "status")]
    json: bool,

    /// Show the SQL that would run, and change nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    database: Database,
}

/// Migrates or looks; returns the exit code.
pub(crate) async fn run(migrate: Migrate) -> Result<u8> {
    if migrate.status || migrate.dry_run {
        let session = open(&migrate.database).await?;
        let history = migrate::look(&session.client).await?;
        let gone = missing(&session.client, &history).await?;
        return match migrate.status {
            true => status(&history, &gone, migrate.json),
            false => dry_run(&history, &gone),
        };
    }
    let (report, remade) = migrate_once(&migrate.database.target()?).await?;
    if !report.applied.is_empty() {
        let (count, names) = (report.applied.len(), report.applied.join(", "));
        print(&format!("{count} migrations ran: {names}"))?;
    }
    if !remade.made.is_empty() {
        print(&format!(
            "made again: {}; rights on them have to be granted again",
            names(remade.made.iter())
        ))?;
    }
    let refused = remade.left.iter().filter_map(|(object, why)| {
        let why = why.as_ref()?;
        Some(format!("{object} cannot be made again: {why}"))
    });
    let refused: Vec<String> = refused.collect();
    let tables: Vec<&Object> = remade
        .left
        .iter()
        .filter(|(_, why)| why.is_none())
        .map(|(table, _)| table)
        .collect();
    match (tables.is_empty(), refused.is_empty()) {
        (true, true) if report.applied.is_empty() && remade.made.is_empty() => {
            print(&nothing_to_do())?;
        }
        (true, true) => {}
        (false, _) => bail!("{}", tables_gone(&tables)),
        (true, false) => bail!("{}", refused.join("; ")),
    }
    Ok(0)
}

fn names<'o>(objects: impl Iterator<Item = &'o Object>) -> String {
    let names: Vec<String> = objects.map(ToString::to_string).collect();
    names.join(", ")
}

fn nothing_to_do() -> String {
    let newest = migrate::names().pop().unwrap_or_default();
    format!("nothing to do: the schema is up to date ({newest})")
}

/// What is to be done about tables that are gone.
fn tables_gone(tables: &[&Object]) -> String {
    format!(
        "gone, although migrations have made it: {}. What was in it is lost, so it is not made again by \
         itself: restore it from a backup, or make it empty with the SQL that `recsys-ingest doctor` shows",
        names(tables.iter().copied())
    )
}

/// Says which migrations ran and what of theirs is gone; returns the exit code.
fn status(history: &History, gone: &[Object], json: bool) -> Result<u8> {
    let missing = match history {
        History::Current => &[][..],
        History::Behind(missing) => missing,
        History::Foreign => bail!(
            "the schema was migrated by another version or build of this program: run the version that migrated it"
        ),
        History::Unreadable => bail!(
            "the role may not read ingest_schema_history: GRANT SELECT ON ingest_schema_history to it"
        ),
    };
    let of = |name: String| match missing.contains(&name) {
        true => (name, "missing"),
        false => (name, "applied"),
    };
    let states = migrate::names().into_iter().map(of);
    let output = match json {
        true => {
            let migrations = states.map(|(name, state)| json!({"migration": name, "state": state}));
            let gone = gone
                .iter()
                .map(|object| json!({"object": object.to_string(), "state": "gone"}));
            Output::Json(migrations.chain(gone).collect())
        }
        false => {
            let mut lines: Vec<String> = states
                .map(|(name, state)| format!("{name}\t{state}"))
                .collect();
            lines.extend(gone.iter().map(|object| format!("{object}\tgone")));
            lines.extend(remedies(missing.len(), gone));
            Output::Text(lines)
        }
    };
    output.print()?;
    Ok(u8::from(!missing.is_empty() || !gone.is_empty()))
}

/// Says what to do: about `missing` migrations, which did not run, and about objects that are gone.
fn remedies(missing: usize, gone: &[Object]) -> Vec<String> {
    let (made, tables): (Vec<&Object>, Vec<&Object>) =
        gone.iter().partition(|object| object.can_be_made());
    let mut lines = Vec::new();
    match missing {
        0 if gone.is_empty() => lines.push(nothing_to_do()),
        0 => {}
        count => lines.push(format!("{count} missing: run `recsys-ingest migrate`")),
    }
    if !made.is_empty() {
        lines.push(format!(
            "{} gone: run `recsys-ingest migrate`, which makes them again",
            made.len()
        ));
    }
    if !tables.is_empty() {
        lines.push(tables_gone(&tables));
    }
    lines
}

fn dry_run(history: &History, gone: &[Object]) -> Result<u8> {
    let missing = match history {
        History::Behind(missing) => missing,
        History::Current => &[][..],
        // What cannot be told is an error there.
        History::Foreign | History::Unreadable => return status(history, gone, false),
    };
    let made: Vec<&Object> = gone.iter().filter(|object| object.can_be_made()).collect();
    if missing.is_empty() && made.is_empty() {
        return status(history, gone, false);
    }
    for name in missing {
        let sql = migrate::sql(name).unwrap_or_default();
        print(&format!("-- {name}\nBEGIN;\n{}\nCOMMIT;\n", sql.trim_end()))?;
    }
    for object in &made {
        print(&format!("-- {object}\n{}\n", object.sql().join("\n")))?;
    }
    if !missing.is_empty() {
        logging::say(&format!(
            "`recsys-ingest migrate` runs these {} migrations, each in a transaction with its row in \
             ingest_schema_history. Event tables that are there already get their unique index first, \
             built without a lock that readers or writers would wait for. Nothing was changed.",
            missing.len()
        ));
    }
    if !made.is_empty() {
        logging::say(&format!(
            "`recsys-ingest migrate` makes {} again, which migrations have made and which is gone, in an \
             order in which each finds what it needs. Nothing was changed.",
            names(made.iter().copied())
        ));
    }
    Ok(0)
}
