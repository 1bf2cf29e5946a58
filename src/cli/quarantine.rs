//! `recsys-ingest quarantine`: rows in quarantine.

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::accounts::quarantine;
use crate::accounts::quarantine::Selection;
use crate::config::database::Database;
use crate::config::parse;
use crate::logging;
use crate::partitions;

use super::terminal::{open, print};

/// What to do with rows in quarantine.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List the latest rows
    List {
        /// Most rows to show
        #[arg(long, default_value_t = 100)]
        limit: i64,
        #[command(flatten)]
        database: Database,
    },
    /// Show one row, with all its columns as JSON
    Show {
        /// The row's number
        id: i64,
        #[command(flatten)]
        database: Database,
    },
    /// Try to store rows again, one by one
    Retry {
        #[command(flatten)]
        rows: QuarantineRows,
        /// Time that one partition holds, for partitions that have to be made: day, week or month
        #[arg(long, env = "INGEST_PARTITION_INTERVAL", value_parser = parse::word::<partitions::range::Interval>)]
        partition_interval: Option<partitions::range::Interval>,
    },
    /// Throw rows away, for good
    Drop(QuarantineRows),
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

pub(crate) async fn run(command: QuarantineCommand) -> Result<()> {
    match command {
        QuarantineCommand::List { limit, database } => {
            let session = open(&database).await?;
            let mut lines =
                vec!["id\tat\ttable\ttenant\tevent_id\tcode\tplace\tmessage".to_owned()];
            for entry in quarantine::list(&session.client, limit).await? {
                lines.push(format!(
                    "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
                    entry.id,
                    entry.at,
                    entry.table,
                    entry.tenant,
                    entry.event_id,
                    entry.sqlstate,
                    entry.place.as_deref().unwrap_or("-"),
                    entry.message
                ));
            }
            print(&lines.join("\n"))
        }
        QuarantineCommand::Show { id, database } => {
            let session = open(&database).await?;
            let entry = quarantine::show(&session.client, id).await?;
            let row: serde_json::Value = serde_json::from_str(&entry.row)?;
            print(&format!(
                "{} of {} was set aside at {} with {}: {}\n{}",
                entry.event_id,
                entry.table,
                entry.at,
                entry.sqlstate,
                entry.message,
                serde_json::to_string_pretty(&row)?
            ))
        }
        QuarantineCommand::Retry {
            rows,
            partition_interval,
        } => {
            let mut session = open(&rows.database).await?;
            let retried = quarantine::retry::retry(
                &mut session.client,
                &rows.selection(),
                partition_interval,
            )
            .await?;
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
            ))
        }
        QuarantineCommand::Drop(rows) => {
            let mut session = open(&rows.database).await?;
            let dropped = quarantine::discard(&mut session.client, &rows.selection()).await?;
            print(&format!("{dropped} dropped"))
        }
    }
}
