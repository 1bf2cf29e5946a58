//! `recsys-ingest verify`: checks that every accepted row is accounted for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use uuid::Uuid;

use crate::accounts::ledger::Totals;
use crate::config::database::Database;
use crate::config::parse;
use crate::log::spool;
use crate::postgres::session::Session;

use super::progress::ProgressLine;
use super::terminal::{open, print};

/// Most attempts at a consistent reading. A running service may delete a segment after the ledger
/// was read and before the spool is: rows stored in between are then missing from both. A real
/// difference is still there at the next attempt.
const LOOKS_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// What to check.
#[derive(Args, Debug)]
pub struct Verify {
    /// Directory of the spool to check
    #[arg(
        long,
        env = "INGEST_SPOOL_DIR",
        default_value = "spool",
        value_parser = parse::path(),
        value_name = "DIR"
    )]
    pub spool_dir: std::path::PathBuf,
    /// Only compare spool and ledger; counting the rows of large tables takes a while
    #[arg(long)]
    pub skip_tables: bool,
    #[command(flatten)]
    pub database: Database,
}

/// Compares the accepted rows with what became of them.
pub(crate) async fn run(verify: Verify) -> Result<()> {
    let mut session = open(&verify.database).await?;
    let mut looks = 0;
    let Looked {
        streams,
        spool_id,
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
    let progress = ProgressLine::new();
    progress.show("counting the rows of the tables");
    let tables = match verify.skip_tables {
        true => crate::accounts::verify::Ledger::default(),
        false => {
            crate::accounts::verify::read(&mut session.client, spool_id, Uuid::nil(), true).await?
        }
    };
    drop(progress);
    let mut differences = 0;
    for spool::recover::scan::report::Unreadable { name, reason, .. } in &unreadable {
        differences += 1;
        print(&format!(
            "{name}: CANNOT BE READ, {reason}; its rows are missing below"
        ))?;
    }
    let mut compare = |what: String, found: i128, expected: i128, missing: &str| {
        let outcome = match found - expected {
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
        print(&format!("{what}: {found} of {expected}, {outcome}"))
    };
    let mut fenced_off = 0;
    for stream in &streams {
        let Stream {
            account, totals, ..
        } = stream;
        let lane = format!(
            "{} lane {}",
            crate::admission::record::table_of(account.number),
            crate::admission::record::shard_of(account.number)
        );
        if let Some(other) = &stream.fenced_off_by {
            fenced_off += 1;
            print(&format!(
                "{lane}: FENCED OFF by {other}, so its account is not this directory's; \
                 accepted {}, of which up to {} may be in this directory only",
                account.accepted, account.unacked
            ))?;
            continue;
        }
        let inherited = match totals.inherited {
            0 => String::new(),
            rows => format!("inherited {rows} + "),
        };
        compare(
            format!(
                "{lane}: {inherited}stored {} + duplicates {} + quarantined {} + spooled {} = accepted",
                totals.stored, totals.duplicates, totals.quarantined, account.unacked
            ),
            totals.decided() + i128::from(account.unacked),
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
        fenced_off == 0,
        "this spool directory is fenced off: a later start on a copy of it holds its accounts. \
         What is in it is stored by a start on it, which fences the other one off, or, if both \
         are to be used, by a start after `recsys-ingest spool fork`"
    );
    anyhow::ensure!(
        differences == 0,
        "{differences} of the accounts differ; see above"
    );
    Ok(())
}

/// What was read of spool and ledger.
struct Looked {
    streams: Vec<Stream>,
    spool_id: Uuid,
    unreadable: Vec<spool::recover::scan::report::Unreadable>,
}

/// A stream, by the spool and by the ledger.
struct Stream {
    account: spool::recover::open::StreamAccount,
    totals: Totals,
    /// The holder of the ledger's row, if it is not this directory.
    fenced_off_by: Option<String>,
}

impl Stream {
    fn balances(&self) -> bool {
        let expected = i128::from(self.account.accepted);
        let found = self.totals.decided() + i128::from(self.account.unacked);
        self.fenced_off_by.is_none() && found == expected
    }
}

/// Reads the ledger, then the spool: a row that is accepted in between counts as spooled.
async fn look(spool_dir: &Path, session: &mut Session) -> Result<Looked> {
    let report = spool::recover::open::inspect(spool_dir)?;
    let spool_id = report
        .spool_id
        .with_context(|| format!("there is no spool in {}", spool_dir.display()))?;
    let lineage = spool::recover::open::history(spool_dir, spool_id)?.lineage();
    let ledger =
        crate::accounts::verify::read(&mut session.client, spool_id, lineage, false).await?;
    let watermarks: Vec<_> = ledger
        .streams
        .iter()
        .map(|stream| (stream.number, stream.totals.watermark, stream.opening))
        .collect();
    let spool::recover::open::Account { history, streams } =
        spool::recover::open::account(spool_dir, spool_id, &watermarks)?;
    let streams = streams
        .into_iter()
        .map(|account| {
            let mut of_stream = ledger.streams.iter();
            let entered = of_stream.find(|entered| entered.number == account.number);
            let other = entered.filter(|entered| !history.knows(entered.opening));
            Stream {
                totals: entered.map(|entered| entered.totals).unwrap_or_default(),
                fenced_off_by: other.map(|other| match &other.holder {
                    Some(holder) => holder.to_string(),
                    None => "an unknown process".to_owned(),
                }),
                account,
            }
        })
        .collect();
    Ok(Looked {
        streams,
        spool_id,
        unreadable: report.unreadable,
    })
}
