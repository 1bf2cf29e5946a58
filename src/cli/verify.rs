//! `recsys-ingest verify`: checks that every accepted row is accounted for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use uuid::Uuid;

use crate::accounts::ledger::Totals;
use crate::accounts::removed;
use crate::accounts::verify::{self, LostRows, TableCheck};
use crate::admission::record::{shard_of, table_of};
use crate::config::actor::Actor;
use crate::config::database::Database;
use crate::config::parse;
use crate::log::spool;
use crate::postgres::session::Session;

use super::progress::ProgressLine;
use super::terminal::{open_as, print};

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
    /// Only compare ledger and tables: where the log is in Kafka, or the spool on another machine
    #[arg(long, conflicts_with = "skip_tables")]
    pub skip_spool: bool,
    /// Book what differs as lost or removed, for this reason, so that the accounts hold from now on
    #[arg(long, value_name = "REASON", value_parser = parse::reason)]
    pub accept: Option<String>,
    #[command(flatten)]
    pub actor: Actor,
    #[command(flatten)]
    pub database: Database,
}

/// Exit code of a command that could not read what it is to compare.
pub(crate) const COULD_NOT_LOOK: u8 = 2;

/// The accounts could not be read, so that nothing is known of them.
#[derive(Debug, thiserror::Error)]
#[error("could not look")]
pub(crate) struct CouldNotLook;

/// Compares the accepted rows with what became of them.
///
/// # Errors
///
/// [`CouldNotLook`] if they could not be read, any other error if they differ.
pub(crate) async fn run(verify: Verify) -> Result<()> {
    let mut session = open_as(&verify.database, &verify.actor)
        .await
        .context(CouldNotLook)?;
    let (looked, tables) = read(&verify, &mut session).await.context(CouldNotLook)?;
    let mut differences = 0;
    for spool::recover::scan::report::Unreadable { name, reason, .. } in &looked.unreadable {
        differences += 1;
        print(&format!(
            "{name}: CANNOT BE READ, {reason}; its rows are missing below"
        ))?;
    }
    let unreadable = differences;
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
    for stream in &looked.streams {
        let Stream {
            account, totals, ..
        } = stream;
        let table = table_of(account.number);
        let lane = format!("{table} lane {}", shard_of(account.number));
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
        let dropped = match totals.dropped {
            0 => String::new(),
            rows => format!("accepted as lost {rows} + "),
        };
        compare(
            format!(
                "{lane}: {inherited}stored {} + duplicates {} + quarantined {} + {dropped}spooled {} = accepted",
                totals.stored, totals.duplicates, totals.quarantined, account.unacked
            ),
            totals.decided() + i128::from(account.unacked),
            i128::from(account.accepted),
            "lost from the spool, or from a database that is an older copy",
        )?;
    }
    for check in &tables {
        let removed = match check.removed {
            0 => String::new(),
            rows if rows < 0 => format!(" - {} accepted as too many", -rows),
            rows => format!(" + {rows} removed on purpose"),
        };
        let what = match check.table == removed::QUARANTINE {
            true => format!("{}: rows{removed}, as the ledger says", check.table),
            false => format!(
                "{}: rows in the table{removed}, as all instances stored",
                check.table
            ),
        };
        let found = i128::from(check.counted) + i128::from(check.removed);
        compare(what, found, check.stored.into(), "")?;
    }
    anyhow::ensure!(
        fenced_off == 0,
        "this spool directory is fenced off: a later start on a copy of it holds its accounts. \
         What is in it is stored by a start on it, which fences the other one off, or, if both \
         are to be used, by a start after `recsys-ingest spool fork`"
    );
    let Some(reason) = &verify.accept else {
        anyhow::ensure!(
            differences == 0,
            "{differences} of the accounts differ; see above. Where a difference is known and \
             meant, --accept REASON books it"
        );
        return Ok(());
    };
    match differences - unreadable {
        0 => print("nothing was booked: none of the accounts differs")?,
        booked => {
            let lost = looked.lost();
            verify::accept(&mut session.client, &tables, &lost, reason)
                .await
                .context("nothing was booked")?;
            print(&format!("{booked} differences are booked: {reason}"))?;
        }
    }
    anyhow::ensure!(
        unreadable == 0,
        "{unreadable} files of the spool cannot be read, see above; move them away once nothing of them is to be saved"
    );
    Ok(())
}

/// Reads spool, ledger and tables.
async fn read(verify: &Verify, session: &mut Session) -> Result<(Looked, Vec<TableCheck>)> {
    let mut looks = 0;
    let looked = loop {
        if verify.skip_spool {
            break Looked::default();
        }
        looks += 1;
        let looked = look(&verify.spool_dir, session).await;
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
        true => Vec::new(),
        false => verify::count_tables(&mut session.client).await?,
    };
    Ok((looked, tables))
}

/// What was read of spool and ledger.
#[derive(Default)]
struct Looked {
    streams: Vec<Stream>,
    spool_id: Uuid,
    lineage: Uuid,
    unreadable: Vec<spool::recover::scan::report::Unreadable>,
}

/// A stream, by the spool and by the ledger.
struct Stream {
    account: spool::recover::open::StreamAccount,
    totals: Totals,
    /// The holder of the ledger's row, if it is not this directory.
    fenced_off_by: Option<String>,
}

impl Looked {
    /// What the lanes have lost, or have too many.
    fn lost(&self) -> Vec<LostRows> {
        let lost = self.streams.iter().map(|stream| LostRows {
            spool: self.spool_id,
            lineage: self.lineage,
            stream: stream.account.number,
            table: table_of(stream.account.number),
            rows: i64::try_from(-stream.surplus()).unwrap_or(i64::MAX),
        });
        lost.filter(|lost| lost.rows != 0).collect()
    }
}

impl Stream {
    /// Rows that are accounted for beyond those that were accepted.
    fn surplus(&self) -> i128 {
        let found = self.totals.decided() + i128::from(self.account.unacked);
        found - i128::from(self.account.accepted)
    }

    fn balances(&self) -> bool {
        self.fenced_off_by.is_none() && self.surplus() == 0
    }
}

/// Reads the ledger, then the spool: a row that is accepted in between counts as spooled.
async fn look(spool_dir: &Path, session: &mut Session) -> Result<Looked> {
    let report = spool::recover::open::inspect(spool_dir)?;
    let spool_id = report
        .spool_id
        .with_context(|| format!("there is no spool in {}", spool_dir.display()))?;
    let lineage = spool::recover::open::history(spool_dir, spool_id)?.lineage();
    let ledger = verify::read_streams(&mut session.client, spool_id, lineage).await?;
    let watermarks: Vec<_> = ledger
        .iter()
        .map(|stream| (stream.number, stream.totals.watermark, stream.opening))
        .collect();
    let spool::recover::open::Account { history, streams } =
        spool::recover::open::account(spool_dir, spool_id, &watermarks)?;
    let streams = streams
        .into_iter()
        .map(|account| {
            let mut of_stream = ledger.iter();
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
        lineage,
        unreadable: report.unreadable,
    })
}
