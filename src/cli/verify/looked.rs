//! What spool and ledger say of a spool's lanes.

use std::path::Path;

use anyhow::{Context as _, Result};
use uuid::Uuid;

use crate::accounts::ledger::Totals;
use crate::accounts::verify::{self, LostRows};
use crate::admission::record::table_of;
use crate::log::spool;
use crate::log::spool::recover::open::StreamAccount;
use crate::log::spool::recover::scan::report::Unreadable;
use crate::postgres::session::Session;

/// What was read of spool and ledger.
#[derive(Default)]
pub(super) struct Looked {
    pub(super) streams: Vec<Stream>,
    spool_id: Uuid,
    lineage: Uuid,
    /// Files of the spool whose rows are not counted.
    pub(super) unreadable: Vec<Unreadable>,
}

/// A stream, by the spool and by the ledger.
pub(super) struct Stream {
    pub(super) account: StreamAccount,
    pub(super) totals: Totals,
    /// The holder of the ledger's row, if it is not this directory.
    pub(super) fenced_off_by: Option<String>,
}

impl Looked {
    /// What the lanes have lost, or have too many.
    pub(super) fn lost(&self) -> Vec<LostRows> {
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
    /// Rows that are accounted for: by the ledger, and in the spool.
    pub(super) fn found(&self) -> i128 {
        self.totals.decided() + i128::from(self.account.unacked)
    }

    /// Rows that are accounted for beyond those that were accepted.
    pub(super) fn surplus(&self) -> i128 {
        self.found() - i128::from(self.account.accepted)
    }

    pub(super) fn balances(&self) -> bool {
        self.fenced_off_by.is_none() && self.surplus() == 0
    }
}

/// Reads the ledger, then the spool: a row that is accepted in between counts as spooled.
pub(super) async fn look(spool_dir: &Path, session: &mut Session) -> Result<Looked> {
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
