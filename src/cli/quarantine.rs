//! `recsys-ingest quarantine`: rows in quarantine.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::accounts::quarantine;
use crate::accounts::quarantine::{Quarantined, Selection};
use crate::config::actor::Actor;
use crate::config::database::Database;
use crate::config::parse;
use crate::config::store::INTERVALS;
use crate::logging;
use crate::partitions;

use super::progress::ProgressLine;
use super::terminal::{Output, open, open_as, print};

/// What to do with rows in quarantine.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List the latest rows
    List {
        /// Most rows to show
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(0..))]
        limit: i64,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: Database,
    },
    /// Show one row, with all its columns as JSON
    Show {
        /// The row's number
        id: i64,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: Database,
    },
    /// Try to store rows again, one by one; exits with 1 if any is still refused
    Retry {
        #[command(flatten)]
        rows: QuarantineRows,
        /// Time that one partition holds, for partitions that have to be made: day, week or month
        #[arg(long, env = "INGEST_PARTITION_INTERVAL", value_parser = parse::one_of::<partitions::range::Interval>(&INTERVALS))]
        partition_interval: Option<partitions::range::Interval>,
    },
    /// Throw rows away, for good; they are booked in ingest_removed_rows, with who and why
    Drop {
        #[command(flatten)]
        rows: QuarantineRows,
        /// Why, for who reads the books later [default: which rows were named]
        #[arg(long, value_name = "REASON", value_parser = parse::reason)]
        reason: Option<String>,
        #[command(flatten)]
        actor: Actor,
    },
}

/// Which rows of the quarantine are meant.
#[derive(Args, Debug)]
pub struct QuarantineRows {
    /// The rows' numbers
    #[arg(required_unless_present_any = ["all", "code"], conflicts_with_all = ["all", "code"])]
    ids: Vec<i64>,
    /// All rows
    #[arg(long, conflicts_with = "code")]
    all: bool,
    /// All rows with this SQLSTATE, such as 23514
    #[arg(long)]
    code: Option<String>,
    #[command(flatten)]
    database: Database,
}

impl QuarantineRows {
    fn selection(&self) -> Selection {
        match (&self.code, self.all) {
            (Some(code), _) => Selection::Code(code.clone()),
            (None, true) => Selection::All,
            (None, false) => Selection::Ids(self.ids.clone()),
        }
    }
}

/// Runs a `quarantine` command; returns its exit code.
pub(crate) async fn run(command: QuarantineCommand) -> Result<u8> {
    match command {
        QuarantineCommand::List {
            limit,
            json,
            database,
        } => {
            let session = open(&database).await?;
            let entries = quarantine::list(&session.client, limit).await?;
            list(json, &entries).print()?;
            Ok(0)
        }
        QuarantineCommand::Show { id, json, database } => {
            let session = open(&database).await?;
            let entry = quarantine::show(&session.client, id).await?;
            let row: Value = serde_json::from_str(&entry.row)?;
            let text = format!(
                "{} of {} was set aside at {} with {}: {}\n{}",
                entry.event_id,
                entry.table,
                entry.at,
                entry.sqlstate,
                entry.message,
                serde_json::to_string_pretty(&row)?
            );
            let mut document = described(&entry);
            document["row"] = row;
            Output::line(json, text, document).print()?;
            Ok(0)
        }
        QuarantineCommand::Retry {
            rows,
            partition_interval,
        } => {
            let mut session = open(&rows.database).await?;
            let line = ProgressLine::new();
            let retried = quarantine::retry::retry(
                &mut session.client,
                &rows.selection(),
                partition_interval,
                &|done, all| line.show(&format!("{done} of {all} rows tried")),
            )
            .await?;
            drop(line);
            for (id, words) in &retried.refused {
                logging::say(&format!("row {id} is still refused: {words}"));
            }
            let erased = match retried.erased {
                0 => String::new(),
                rows => format!("{rows} of erased users removed, "),
            };
            print(&format!(
                "{} stored, {} were stored already, {erased}{} still refused",
                retried.stored,
                retried.duplicates,
                retried.refused.len()
            ))?;
            Ok(u8::from(!retried.refused.is_empty()))
        }
        QuarantineCommand::Drop {
            rows,
            reason,
            actor,
        } => {
            let mut session = open_as(&rows.database, &actor).await?;
            let selection = rows.selection();
            let words = reason.unwrap_or_else(|| match &selection {
                Selection::Ids(_) => "quarantine drop, by numbers of rows".to_owned(),
                Selection::Code(code) => format!("quarantine drop --code {code}"),
                Selection::All => "quarantine drop --all".to_owned(),
            });
            let dropped = quarantine::discard(&mut session.client, &selection, &words).await?;
            print(&format!("{dropped} dropped"))?;
            Ok(0)
        }
    }
}

fn list(json: bool, entries: &[Quarantined]) -> Output {
    let head = [
        "id", "at", "table", "tenant", "event_id", "code", "place", "message",
    ];
    let mut output = Output::table(json, &head);
    for entry in entries {
        output.row(
            &[
                &entry.id,
                &entry.at,
                &entry.table,
                &entry.tenant,
                &entry.event_id,
                &entry.sqlstate,
                &entry.place.as_deref().unwrap_or("-"),
                &entry.message,
            ],
            described(entry),
        );
    }
    output
}

/// A row in quarantine, without its columns.
fn described(entry: &Quarantined) -> Value {
    json!({
        "id": entry.id, "at": entry.at.to_string(), "table": entry.table, "tenant": entry.tenant,
        "event_id": entry.event_id, "code": entry.sqlstate, "place": entry.place,
        "message": entry.message,
    })
}
