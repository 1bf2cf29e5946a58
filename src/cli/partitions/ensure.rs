//! `recsys-ingest partitions ensure`: the partitions of the coming days.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::cli::terminal::{Output, open};
use crate::config::database::Database;
use crate::config::parse;
use crate::event::table::Table;
use crate::partitions::create::ensure_ahead;
use crate::partitions::layout::read_interval;
use crate::partitions::range::Interval;
use crate::postgres::checks::clock::server_time;

/// Which partitions to make.
#[derive(Args, Debug)]
pub struct Ensure {
    /// Time that one partition holds: day, week or month [default: as the latest partition of the table, or day without one]
    #[arg(long, env = "INGEST_PARTITION_INTERVAL", value_parser = parse::word::<Interval>)]
    partition_interval: Option<Interval>,
    /// Partitions to have ready beyond the current one
    #[arg(long, env = "INGEST_PARTITIONS_AHEAD", default_value_t = 3, value_parser = parse::count::<u32>(0, 1000))]
    partitions_ahead: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

pub(super) async fn run(settings: Ensure) -> Result<()> {
    let mut session = open(&settings.database).await?;
    let now = server_time(&session.client).await?;
    let head = ["table", "partition", "range", "moved_rows"];
    let mut output = Output::table(settings.json, &head);
    for table in Table::ALL {
        let interval = match settings.partition_interval {
            Some(interval) => interval,
            None => read_interval(&mut session.client, table).await?,
        };
        let ahead = settings.partitions_ahead;
        let made = ensure_ahead(&mut session.client, table, interval, now.0, ahead).await?;
        for created in made {
            let document = json!({
                "table": table.as_str(), "partition": created.name,
                "range": created.range.to_string(), "moved_rows": created.moved_rows,
            });
            output.row(
                &[&table, &created.name, &created.range, &created.moved_rows],
                document,
            );
        }
    }
    output.print()
}
