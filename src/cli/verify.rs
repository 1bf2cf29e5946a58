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
    let (streams, instance) = loop {
        looks += 1;
        let looked = look(&verify.spool_dir, &mut session).await;
        let balanced = looked
            .as_ref()
            .is_ok_and(|(streams, _)| streams.iter().all(Stream::balances));
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
    let mut compare = |what: String, found: i128, expected: i128| {
        let verdict = if found == expected {
            "ok".to_owned()
        } else {
            differences += 1;
            format!("DIFFERS by {}", found - expected)
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
            i128::from(totals.rows() + account.unsettled),
            i128::from(account.accepted),
        )?;
    }
    for check in &tables.tables {
        let what = format!(
            "{}: rows in the table, as all instances stored",
            check.table
        );
        compare(what, check.counted.into(), check.stored.into())?;
    }
    if let Some((counted, expected)) = tables.quarantine {
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

/// A stream by the spool and by the ledger.
struct Stream {
    account: spool::StreamAccount,
    totals: Totals,
}

impl Stream {
    fn balances(&self) -> bool {
        self.totals.rows() + self.account.unsettled == self.account.accepted
    }
}

/// Reads the ledger, then the spool: what is accepted meanwhile then counts as spooled.
async fn look(spool_dir: &Path, session: &mut Session) -> Result<(Vec<Stream>, Uuid)> {
    let instance = spool::inspect(spool_dir)?
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
    Ok((streams, instance))
}
