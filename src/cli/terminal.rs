//! What the commands share: a session, and standard output.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::config::actor::Actor;
use crate::config::database::Database;
use crate::postgres::session::Session;
use crate::tenants::admin::audit;

pub(crate) async fn open(database: &Database) -> Result<Session> {
    Session::open(&database.target()?, Some(Duration::from_secs(60)))
        .await
        .map_err(|error| anyhow::anyhow!("{}", crate::postgres::error::ErrorChain(&error)))
}

/// Opens a session for changes that are noted in `audit_log`.
pub(crate) async fn open_as(database: &Database, actor: &Actor) -> Result<Session> {
    let session = open(database).await?;
    if let Some(actor) = actor.name() {
        audit::act_as(&session.client, actor).await?;
    }
    Ok(session)
}

/// A result, for people or as JSON.
#[derive(Debug)]
pub(crate) enum Output {
    /// Lines for people.
    Text(Vec<String>),
    /// One document.
    Json(Value),
}

impl Output {
    /// A table, to which rows are added.
    pub(crate) fn table(json: bool, head: &[&str]) -> Self {
        match json {
            true => Self::Json(Value::Array(Vec::new())),
            false => Self::Text(vec![head.join("\t")]),
        }
    }

    /// Adds a row to a table.
    pub(crate) fn row(&mut self, cells: &[&dyn std::fmt::Display], document: Value) {
        match self {
            Self::Text(lines) => {
                let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
                lines.push(cells.join("\t"));
            }
            Self::Json(Value::Array(rows)) => rows.push(document),
            Self::Json(_) => {}
        }
    }

    /// One line.
    pub(crate) fn line(json: bool, text: String, document: Value) -> Self {
        match json {
            true => Self::Json(document),
            false => Self::Text(vec![text]),
        }
    }

    /// One thing with all its properties, for people a line each.
    pub(crate) fn one(json: bool, document: Value) -> Self {
        match document {
            Value::Object(members) if !json => Self::Text(
                members
                    .iter()
                    .map(|(name, value)| match value {
                        Value::String(text) => format!("{name}\t{text}"),
                        Value::Null => format!("{name}\t"),
                        other => format!("{name}\t{other}"),
                    })
                    .collect(),
            ),
            document => Self::Json(document),
        }
    }

    /// Prints it to standard output.
    pub(crate) fn print(&self) -> Result<()> {
        match self {
            Self::Text(lines) => print(&lines.join("\n")),
            Self::Json(document) => print(&document.to_string()),
        }
    }
}

/// A number with its noun, as in a sentence.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Prints a result. A closed pipe is not an error: the reader has read enough.
pub(crate) fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the answer to standard output")
        }
        _ => Ok(()),
    }
}
