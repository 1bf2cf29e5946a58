//! The partitions that can be sealed, with what decides the next step.
//!
//! Only reads: order and time are decided elsewhere.

use tokio_postgres::Client;

use super::catalog::{Bound, begin, end, read_parent, read_partitions};
use super::error::Error;
use super::history::histories;
use super::indexes::{FoundIndex, read_indexes};
use super::range::Range;
use crate::event::table::Table;

/// A partition that is a plain table with a range of time.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) table: Table,
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) range: Range,
    pub(crate) indexes: Vec<FoundIndex>,
    /// When it was created; `None` if this service did not create it.
    pub(crate) made_us: Option<i64>,
    /// The log says that it was sealed, so it was also analyzed.
    pub(crate) is_logged_sealed: bool,
}

/// Reads them. Left out are default partitions, partitions that are being detached, and those that
/// are not plain tables.
pub(crate) async fn leaves(client: &mut Client, table: Table) -> Result<Vec<Leaf>, Error> {
    let tx = begin(client, table, true).await?;
    let parent = read_parent(&tx, table).await?;
    let partitions = read_partitions(&tx, &parent).await?;
    let oids: Vec<u32> = partitions.iter().map(|partition| partition.oid).collect();
    let mut indexes = read_indexes(&tx, table, &oids).await?;
    let histories = histories(&tx, table).await?;
    end(tx, table).await?;
    Ok(partitions
        .into_iter()
        .filter(|partition| !partition.is_detaching)
        .filter_map(|partition| {
            let Bound::Range(range) = partition.bound else {
                return None;
            };
            let history = histories.get(&partition.name).copied().unwrap_or_default();
            Some(Leaf {
                table,
                oid: partition.oid,
                indexes: indexes.remove(&partition.oid)?,
                schema: partition.schema,
                name: partition.name,
                range,
                made_us: history.made_us,
                is_logged_sealed: history.is_sealed,
            })
        })
        .collect())
}
