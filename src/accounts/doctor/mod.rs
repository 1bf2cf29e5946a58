//! What an operator should know of a database: what the service's checks find, and what makes
//! rows dear, slow or unsafe.
//!
//! Invariant: looking changes nothing. [`mend`] alone does, and only what blocks no reader and no
//! writer and takes nothing away.
//!
//! Each probe stands for itself: one that the role may not make costs the others nothing.

pub mod diagnosis;

mod attached;
mod gone;
mod layout;
mod probe;
mod server;
mod tables;

use anyhow::Result;
use tokio_postgres::Client;

use crate::event::time::Micros;
use crate::partitions::create::ensure;
use crate::postgres::checks::{self, clock, history, lean};
use crate::postgres::error::describe;
use crate::postgres::migrate::{self, History};

use diagnosis::{Diagnosis, Examination, Mend};

/// Looks at everything. The service needs `connections`; `now` is this machine's clock.
///
/// # Errors
///
/// When the connection is lost, or the catalog cannot be read at all.
pub async fn examine(
    client: &mut Client,
    connections: u32,
    now: fn() -> Micros,
) -> Result<Examination> {
    let mut examination = Examination::default();
    let found = checks::inspect(client, connections).await?;
    let history = migrate::look(client).await?;
    let is_bare = matches!(&history, History::Behind(names) if names.len() == migrate::count());
    // What `lean` says of indexes and DEFAULT partitions is said below, with sizes.
    let found = found
        .into_iter()
        .filter(|finding| !lean::CODES.contains(&finding.code))
        // Where no migration ran, one finding says it all.
        .filter(|finding| !(is_bare && finding.code == "table_missing"));
    let gone = migrate::objects::missing(client, &history).await?;
    examination.diagnoses.extend(gone::judge(&gone, found));
    let finding = match &history {
        History::Current => None,
        History::Behind(names) => Some(history::behind(names)),
        History::Foreign => Some(history::foreign()),
        History::Unreadable => Some(history::unreadable(client).await?),
    };
    examination.diagnoses.extend(finding.map(Diagnosis::from));
    let clocks = clock::compare(client, now).await.map(clock::judge);
    let clocks = clocks.map(|found| found.into_iter().map(Diagnosis::from).collect());
    examination.add("the clocks", clocks.map_err(anyhow::Error::from));
    let server_now = clock::server_time(client).await?;
    layout::look(client, server_now, &mut examination).await;
    let attached = attached::look(client).await;
    examination.add("foreign keys, indexes and triggers", attached);
    examination.add("the settings", server::settings(client).await);
    examination.add("the sessions", server::sessions(client).await);
    examination.add("the WAL and its checkpoints", server::wal(client).await);
    examination.add("dead rows", tables::dead_rows(client).await);
    if !is_bare {
        examination.add("the quarantine", tables::quarantine(client).await);
        examination.add("the erased users", tables::erased_ahead(client).await);
    }
    anyhow::ensure!(!client.is_closed(), "the connection was lost");
    examination.sort();
    Ok(examination)
}

/// Does what is safe about a finding; returns what was done, `None` if it is not safe.
///
/// # Errors
///
/// In words, when Postgres refuses it.
pub async fn mend(client: &mut Client, diagnosis: &Diagnosis) -> Option<Result<String, String>> {
    match &diagnosis.mend {
        Mend::SafeSql(sql) => {
            let done = client.batch_execute(sql).await;
            Some(match done {
                Ok(()) => Ok(format!("ran {sql}")),
                Err(error) => Err(format!("{sql} was refused: {}", describe(&error))),
            })
        }
        Mend::Partitions(ranges) => {
            let table = diagnosis.finding.table?;
            let mut made = Vec::new();
            for &range in ranges {
                match ensure(client, table, range, "doctor --fix").await {
                    Ok(ensured) => {
                        made.extend(ensured.created().iter().map(|created| created.name.clone()));
                    }
                    Err(error) => return Some(Err(format!("{:#}", anyhow::Error::new(error)))),
                }
            }
            Some(Ok(match made.is_empty() {
                true => "the partitions are there by now".to_owned(),
                false => format!("made {}", made.join(", ")),
            }))
        }
        Mend::Words | Mend::Command(_) | Mend::Sql(_) => None,
    }
}
