//! Makes again what the migrations have made and what was dropped since: views, functions, and indexes
//! of this program's tables. A table is left to a person, as its rows are gone.

use std::time::Duration;

use tokio_postgres::Client;

use super::lock::{lock, unlock};
use super::objects::{Object, missing};
use super::{WAIT_MAX, look};
use crate::postgres::error::describe;
use crate::postgres::patience::{LOCK_WAIT_MS, Patience, is_contention};

/// How long something is tried while others hold the locks that it needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was gone.
#[derive(Debug, Default)]
pub struct Remade {
    /// What was made again.
    pub made: Vec<Object>,
    /// What is still gone, and why it was not made: PostgreSQL's reason, `None` for a table.
    pub left: Vec<(Object, Option<String>)>,
}

/// Makes again what is gone. Changes nothing if nothing is.
///
/// # Errors
///
/// When the connection is lost, or another process that migrates does not end.
pub async fn remake(client: &mut Client) -> anyhow::Result<Remade> {
    let history = look(client).await?;
    let gone = missing(client, &history).await?;
    if !gone.iter().any(Object::can_be_made) {
        let left = gone.into_iter().map(|object| (object, None)).collect();
        return Ok(Remade {
            left,
            ..Remade::default()
        });
    }
    let backend = lock(client, WAIT_MAX).await?;
    let outcome = make_missing(client).await;
    let unlocked = unlock(client, backend).await;
    // The first failure is the cause. A lost lock matters only if nothing failed.
    let remade = outcome?;
    unlocked?;
    Ok(remade)
}

/// Makes what is gone; the lock is held.
async fn make_missing(client: &mut Client) -> anyhow::Result<Remade> {
    // Another process may have made some of it since.
    let history = look(client).await?;
    let gone = missing(client, &history).await?;
    let (mut waiting, tables): (Vec<Object>, Vec<Object>) =
        gone.into_iter().partition(Object::can_be_made);
    let mut made = Vec::new();
    loop {
        let mut refused = Vec::new();
        let before = made.len();
        for object in waiting {
            match make_patiently(client, &object).await {
                Ok(()) => made.push(object),
                Err(error) => refused.push((object, describe(&error))),
            }
        }
        anyhow::ensure!(!client.is_closed(), "the connection was lost");
        // A view may need one that comes after it.
        if refused.is_empty() || made.len() == before {
            let tables = tables.into_iter().map(|table| (table, None));
            let refused = refused.into_iter().map(|(one, why)| (one, Some(why)));
            return Ok(Remade {
                made,
                left: tables.chain(refused).collect(),
            });
        }
        waiting = refused.into_iter().map(|(object, _)| object).collect();
    }
}

/// Makes an object, however often others hold a lock that it needs.
async fn make_patiently(client: &mut Client, object: &Object) -> Result<(), tokio_postgres::Error> {
    let patience = Patience::new(PATIENCE);
    loop {
        match make(client, object).await {
            Err(error) if is_contention(&error) && patience.pause().await => {}
            done => return done,
        }
    }
}

async fn make(client: &mut Client, object: &Object) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let limit = format!("SET LOCAL lock_timeout = {LOCK_WAIT_MS}");
    transaction.batch_execute(&limit).await?;
    for statement in object.sql() {
        transaction.batch_execute(statement).await?;
    }
    transaction.commit().await
}
