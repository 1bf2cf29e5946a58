//! Whether the refused rows or their table is at fault, while no row of the batch is stored.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use uuid::Uuid;

use super::savepoint::Tidy;
use crate::event::row::Key;
use crate::postgres::copy::only_row;
use crate::postgres::error::limited;
use crate::writer::error::{Error, ErrorKind, RejectedRow};
use crate::writer::transaction::Transaction;

/// This many rows with one SQLSTATE, while no row is stored, suggest that the table is at fault.
const SCHEMA_ROWS: usize = 20;

/// The same for rows with different SQLSTATEs.
const SCHEMA_ROWS_ANY_WAY: usize = 100;

/// Reading one row by the key's index takes a millisecond.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// Rows that were refused, before any was stored.
#[derive(Debug, Default)]
pub(super) struct RejectedRows(pub(super) Vec<(usize, RejectedRow)>);

impl RejectedRows {
    /// Whether there are enough of them to suspect the table.
    pub(super) fn looks_like_the_table(&self) -> bool {
        let Some((_, last)) = self.0.last() else {
            return false;
        };
        let alike = self
            .0
            .iter()
            .filter(|(_, bad)| bad.sqlstate == last.sqlstate);
        self.0.len() >= SCHEMA_ROWS_ANY_WAY || alike.count() >= SCHEMA_ROWS
    }
}

/// What a copy of a row that is already stored shows about the table.
enum Probed {
    /// The table takes it.
    Passes,
    /// The table refuses it with the same SQLSTATE.
    Refused,
    /// There is no such row, or the result proves nothing.
    Silent,
}

impl Transaction<'_> {
    /// Whether the table takes one of these rows, or a row that it has already. Stores none.
    pub(super) async fn takes_any(
        self,
        rows: &[usize],
        refused: &RejectedRows,
    ) -> Result<bool, Error> {
        Ok(self.any_passes(rows).await?
            || matches!(self.probe(refused).await?, Some(Probed::Passes)))
    }

    /// Decides whether refused rows are bad if no row of the batch was stored.
    pub(super) async fn judge(self, refused: &RejectedRows) -> Result<(), Error> {
        let is_bad = match self.probe(refused).await? {
            None | Some(Probed::Passes) => true,
            Some(Probed::Refused) => false,
            Some(Probed::Silent) => refused.0.iter().all(|(_, bad)| bad.is_evident),
        };
        match (is_bad, refused.0.last()) {
            (false, Some((_, last))) => Err(Error::Undecided {
                table: self.batch.table(),
                rows: refused.0.len(),
                last: Box::new(last.clone()),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn every_row(self, refused: RejectedRows) -> Error {
        Error::EveryRow {
            table: self.batch.table(),
            rows: refused.0.len(),
            last: Box::new(
                refused
                    .0
                    .into_iter()
                    .next_back()
                    .map_or_else(RejectedRow::default, |(_, bad)| bad),
            ),
        }
    }

    /// Whether any of these rows can be stored alone. Stores none.
    async fn any_passes(self, rows: &[usize]) -> Result<bool, Error> {
        for &at in rows {
            if let Ok(true) = self.passes(self.batch.row(at)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a row can be stored, or its error. Does not store it.
    async fn passes(self, row: &[u8]) -> Result<Result<bool, RejectedRow>, Error> {
        let tried = self.copy_rows(None, std::iter::once(row)).await;
        let passes = match tried {
            Ok(copied) => Ok(copied == 1),
            Err(error) => match error.class_if_it_lasts(self.lasts) {
                ErrorKind::RejectedRow(bad) => Err(bad),
                ErrorKind::Duplicate => Err(RejectedRow::of_duplicate(&error)),
                _ => return Err(error),
            },
        };
        self.tidy(&mut Tidy::Undo).await?;
        Ok(passes)
    }

    /// Tries a copy of a row that is already stored, under a new id, and undoes it. Batches of a
    /// single event are common, and the next event may be hours away.
    ///
    /// `None`: no row was refused.
    async fn probe(self, refused: &RejectedRows) -> Result<Option<Probed>, Error> {
        let Some((at, _)) = refused.0.first() else {
            return Ok(None);
        };
        let Some(row) = self.stored_row(self.batch.key(*at)).await? else {
            return Ok(Some(Probed::Silent));
        };
        Ok(Some(match self.passes(&row).await? {
            Ok(true) => Probed::Passes,
            Ok(false) => Probed::Silent,
            // The error may be about the copy's own values, as with a unique index.
            Err(bad) if matches!(bad.sqlstate.as_str(), "23505" | "23P01") => Probed::Silent,
            Err(bad) => match refused
                .0
                .iter()
                .any(|(_, other)| other.sqlstate == bad.sqlstate)
            {
                true => Probed::Refused,
                false => Probed::Silent,
            },
        }))
    }

    /// A row of the table under a new id, preferably the tenant's newest.
    async fn stored_row(self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        let table = self.batch.table();
        let id = Uuid::now_v7();
        let columns: Vec<_> = table
            .columns()
            .iter()
            .map(|column| match column.name {
                "event_id" => format!("'{id}'::uuid"),
                // Rows of the suite's other writers have no `received_at`.
                "received_at" => "coalesce(received_at, occurred_at)".to_owned(),
                name => name.to_owned(),
            })
            .collect();
        let columns = columns.join(", ");
        let sql = format!(
            "COPY ((SELECT {columns} FROM {table} WHERE tenant_id = '{}'
                     ORDER BY occurred_at DESC LIMIT 1)
                   UNION ALL
                   (SELECT {columns} FROM {table} LIMIT 1)
                   LIMIT 1) TO STDOUT (FORMAT binary)",
            key.tenant
        );
        let reading = async {
            let stream = self.client.copy_out(&sql).await?;
            stream.try_collect::<Vec<Bytes>>().await
        };
        match limited("read a row that is stored", PROBE_LIMIT, reading).await {
            Ok(read) => Ok(only_row(table, &read.concat())),
            // The role may write but not read: then the rows that follow have to decide.
            Err(error) if error.is_refusal() => {
                self.tidy(&mut Tidy::Undo).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
