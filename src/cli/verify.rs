//! `recsys-ingest verify`: whether every accepted row is where the accounts say.

use anyhow::{Context as _, Result};
use clap::Args;

use crate::config::Database;
use crate::{spool, store};

use super::{open, print};

/// What to check.
#[derive(Args, Debug)]
pub struct Verify {
    /// Directory of the spool whose instance is checked
    #[arg(
        long,
        env = "INGEST_SPOOL_DIR",
        default_value = "spool",
        value_name = "DIR"
    )]
    pub spool_dir: std::path::PathBuf,
    /// Only compare spool and ledger; counting the rows of large tables takes a while
    #[arg(long)]
    pub skip_tables: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "documented on its type")]
    pub database: Database,
}

/// Compares what was accepted with what became of it.
pub(super) async fn run(verify: Verify) -> Result<()> {
    let instance = spool::inspect(&verify.spool_dir)?
        .instance
        .with_context(|| format!("there is no spool in {}", verify.spool_dir.display()))?;
    let mut session = open(&verify.database).await?;
    // The ledger first: what is accepted meanwhile then counts as spooled.
    let ledger = store::verify::read(&mut session.client, instance, !verify.skip_tables).await?;
    let settled: Vec<_> = ledger
        .streams
        .iter()
        .map(|(stream, totals)| (*stream, totals.settled))
        .collect();
    let account = spool::account(&verify.spool_dir, &settled)?;
    let mut differences = 0;
    let mut compare = |what: String, found: i128, expected: i128| {
        let verdict = if found == expected {
            "ok".to_owned()
        } else {
            differences += 1;
            format!("DIFFERS by {}", found - expected)
        };
        print(&format!("{what}: {found} of {expected}, {verdict}"))
    };
    for stream in account {
        let totals = ledger
            .streams
            .iter()
            .find(|(number, _)| *number == stream.number);
        let totals = totals.map(|(_, totals)| *totals).unwrap_or_default();
        compare(
            format!(
                "{} lane {}: stored {} + duplicates {} + quarantined {} + spooled {} = accepted",
                crate::queue::table_of(stream.number),
                stream.number / 2,
                totals.stored,
                totals.duplicates,
                totals.quarantined,
                stream.unsettled
            ),
            i128::from(totals.rows() + stream.unsettled),
            i128::from(stream.accepted),
        )?;
    }
    for check in &ledger.tables {
        let what = format!(
            "{}: rows in the table, as all instances stored",
            check.table
        );
        compare(what, check.counted.into(), check.stored.into())?;
    }
    if let Some((counted, expected)) = ledger.quarantine {
        compare(
            "ingest_quarantine: rows, as the ledger says".into(),
            counted.into(),
            expected.into(),
        )?;
    }
    anyhow::ensure!(
        differences == 0,
        "{differences} of the accounts differ; see above"
    );
    Ok(())
}
