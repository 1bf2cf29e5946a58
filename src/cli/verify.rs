//! `recsys-ingest verify`: whether every accepted row is where the accounts say.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use uuid::Uuid;

use crate::config::Database;
use crate::store::{Session, Totals};
use crate::{spool, store};

use super::{open, print};

/// A service that runs may delete a segment between our looks at the ledger and
/// at the spool; what is settled in between is then missing from both. A real
/// difference is still there when we look again.
const LOOKS_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

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
    let mut session = open(&verify.database).await?;
    let mut looks = 0;
    let Looked {
        streams,
        instance,
        unreadable,
    } = loop {
        looks += 1;
        let looked = look(&verify.spool_dir, &mut session).await;
        let balanced = looked
            .as_ref()
            .is_ok_and(|looked| looked.streams.iter().all(Stream::balances));
        if balanced || looks == LOOKS_MAX {
            break looked?;
        }
        tokio::time::sleep(PAUSE).await;
    };
    let tables = match verify.skip_tables {
        true => store::verify::Ledger::default(),
        false => store::verify::read(&mut session.client, instance, true).await?,
    };
    let mut differences = 0;
    for spool::Unreadable { name, reason, .. } in &unreadable {
        differences += 1;
        print(&format!(
            "{name}: CANNOT BE READ, {reason}; its rows are missing below"
        ))?;
    }
    let mut compare = |what: String, found: i128, expected: i128, missing: &str| {
        let verdict = match found - expected {
            0 => "ok".to_owned(),
            difference if difference < 0 && !missing.is_empty() => {
                differences += 1;
                format!("DIFFERS by {difference}: {} {missing}", -difference)
            }
            difference => {
                differences += 1;
                format!("DIFFERS by {difference}")
            }
        };
        print(&format!("{what}: {found} of {expected}, {verdict}"))
    };
    for stream in &streams {
        let Stream { account, totals } = stream;
        compare(
            format!(
                "{} lane {}: stored {} + duplicates {} + quarantined {} + spooled {} = accepted",
                crate::queue::table_of(account.number),
                account.number / 2,
                totals.stored,
                totals.duplicates,
                totals.quarantined,
                account.unsettled
            ),
            i128::from(totals.rows()) + i128::from(account.unsettled),
            i128::from(account.accepted),
            "lost from the spool, or from a database that is an older copy",
        )?;
    }
    for check in &tables.tables {
        let what = format!(
            "{}: rows in the table, as all instances stored",
            check.table
        );
        compare(what, check.counted.into(), check.stored.into(), "")?;
    }
    if let Some((counted, expected)) = tables.quarantine {
        compare(
            "ingest_quarantine: rows, as the ledger says".into(),
            counted.into(),
            expected.into(),
            "",
        )?;
    }
    anyhow::ensure!(
        differences == 0,
        "{differences} of the accounts differ; see above"
    );
    Ok(())
}

/// What was seen of spool and ledger.
struct Looked {
    streams: Vec<Stream>,
    instance: Uuid,
    unreadable: Vec<spool::Unreadable>,
}

/// A stream by the spool and by the ledger.
struct Stream {
    account: spool::StreamAccount,
    totals: Totals,
}

impl Stream {
    fn balances(&self) -> bool {
        self.totals.rows().checked_add(self.account.unsettled) == Some(self.account.accepted)
    }
}

/// Reads the ledger, then the spool: what is accepted meanwhile then counts as spooled.
async fn look(spool_dir: &Path, session: &mut Session) -> Result<Looked> {
    let report = spool::inspect(spool_dir)?;
    let instance = report
        .instance
        .with_context(|| format!("there is no spool in {}", spool_dir.display()))?;
    let ledger = store::verify::read(&mut session.client, instance, false).await?;
    let settled: Vec<_> = ledger
        .streams
        .iter()
        .map(|(stream, totals)| (*stream, totals.settled))
        .collect();
    let streams = spool::account(spool_dir, &settled)?
        .into_iter()
        .map(|account| {
            let mut of_stream = ledger.streams.iter();
            let totals = of_stream.find(|(number, _)| *number == account.number);
            Stream {
                totals: totals.map(|(_, totals)| *totals).unwrap_or_default(),
                account,
            }
        })
        .collect();
    Ok(Looked {
        streams,
        instance,
        unreadable: report.unreadable,
    })
}
