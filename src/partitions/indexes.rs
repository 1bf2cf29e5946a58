//! The indexes that a partition has in addition to its key, and those it should have.
//!
//! Invariant: an index is identified by its method, columns and predicate, never by its name.
//! Indexes of the suite, inherited from an adopted parent, count as well. All are on partitions and
//! none on the parent, which would force them on every hot partition.
//!
//! Does not decide when a partition gets them: see [`seal`](super::seal).

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use tokio_postgres::{GenericClient, Transaction};

use super::error::Error;
use crate::event::table::Table;
use crate::postgres::ident::qualified;
use crate::postgres::ident::quoted;

/// The longest name that Postgres does not truncate.
const NAME_BYTES_MAX: usize = 63;

/// When a partition gets the indexes in addition to its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexProfile {
    /// When it is sealed: a hot partition has only its key.
    #[default]
    Deferred,
    /// When it is created.
    Full,
}

/// An unknown index profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no index profile {0:?}: it is deferred or full")]
pub struct UnknownProfile(String);

impl FromStr for IndexProfile {
    type Err = UnknownProfile;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "deferred" => Ok(IndexProfile::Deferred),
            "full" => Ok(IndexProfile::Full),
            _ => Err(UnknownProfile(s.to_owned())),
        }
    }
}

impl fmt::Display for IndexProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IndexProfile::Deferred => "deferred",
            IndexProfile::Full => "full",
        })
    }
}

/// An index that a sealed partition has.
#[derive(Debug, PartialEq, Eq)]
pub struct SecondaryIndex {
    /// The last part of its name, after the partition's name.
    pub suffix: &'static str,
    /// Method, columns and predicate, exactly as `pg_get_indexdef` prints them. Used both to create
    /// the index and to find it.
    pub shape: &'static str,
}

/// The suite's indexes, without `(tenant_id, occurred_at DESC)`: the key serves its queries.
const EXPOSURES: [SecondaryIndex; 5] = [
    SecondaryIndex {
        suffix: "request_id",
        shape: "btree (tenant_id, request_id)",
    },
    SecondaryIndex {
        suffix: "surface_time",
        shape: "btree (tenant_id, surface, occurred_at DESC)",
    },
    SecondaryIndex {
        suffix: "user_time",
        shape: "btree (tenant_id, user_key, occurred_at DESC) WHERE (user_key IS NOT NULL)",
    },
    SecondaryIndex {
        suffix: "request_gin",
        shape: "gin (request)",
    },
    SecondaryIndex {
        suffix: "response_gin",
        shape: "gin (response)",
    },
];

const INTERACTIONS: [SecondaryIndex; 4] = [
    SecondaryIndex {
        suffix: "request_id",
        shape: "btree (tenant_id, request_id) WHERE (request_id IS NOT NULL)",
    },
    SecondaryIndex {
        suffix: "user_time",
        shape: "btree (tenant_id, user_key, occurred_at DESC) WHERE (user_key IS NOT NULL)",
    },
    SecondaryIndex {
        suffix: "item_time",
        shape: "btree (tenant_id, item_id, occurred_at DESC)",
    },
    SecondaryIndex {
        suffix: "meta_gin",
        shape: "gin (meta)",
    },
];

const ASSIGNMENTS: [SecondaryIndex; 2] = [
    SecondaryIndex {
        suffix: "request_id",
        shape: "btree (tenant_id, request_id)",
    },
    SecondaryIndex {
        suffix: "experiment_time",
        shape: "btree (tenant_id, experiment_id, occurred_at DESC)",
    },
];

/// The indexes that a sealed partition of `table` has in addition to its key.
pub const fn secondary_indexes(table: Table) -> &'static [SecondaryIndex] {
    match table {
        Table::Exposures => &EXPOSURES,
        Table::Interactions => &INTERACTIONS,
        Table::Assignments => &ASSIGNMENTS,
    }
}

impl SecondaryIndex {
    /// Its name on a partition. A name that would be too long is cut, and a checksum keeps it
    /// distinct.
    pub fn name_on(&self, partition: &str) -> String {
        let name = format!("{partition}_{}", self.suffix);
        if name.len() <= NAME_BYTES_MAX {
            return name;
        }
        let tail = format!(
            "_{:08x}_{}",
            crc32c::crc32c(partition.as_bytes()),
            self.suffix
        );
        let mut end = NAME_BYTES_MAX - tail.len();
        while !partition.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}{tail}", &partition[..end])
    }
}

/// Which of the indexes a partition has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexState {
    /// None: a new row updates only the key.
    Hot,
    /// Some: its sealing is in progress or was interrupted.
    Partly {
        /// Wanted indexes that exist and are valid.
        there: usize,
        /// Indexes that a sealed partition has.
        wanted: usize,
    },
    /// All.
    Sealed,
}

impl fmt::Display for IndexState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexState::Hot => f.write_str("hot"),
            IndexState::Partly { there, wanted } => write!(f, "partly ({there} of {wanted})"),
            IndexState::Sealed => f.write_str("sealed"),
        }
    }
}

/// An index in the catalog.
#[derive(Clone, Debug)]
pub(crate) struct FoundIndex {
    pub(crate) name: String,
    /// Its definition in the form of [`SecondaryIndex::shape`].
    pub(crate) shape: String,
    /// Whether queries may use it. An interrupted build leaves an invalid index.
    pub(crate) is_valid: bool,
}

impl FoundIndex {
    /// Whether it is a valid index of the wanted shape.
    pub(crate) fn serves(&self, wanted: &SecondaryIndex) -> bool {
        self.is_valid && self.shape == wanted.shape
    }
}

/// Which of the table's indexes a partition has.
pub(crate) fn state(table: Table, found: &[FoundIndex]) -> IndexState {
    let all = secondary_indexes(table);
    let there = all
        .iter()
        .filter(|wanted| found.iter().any(|index| index.serves(wanted)))
        .count();
    match there {
        0 => IndexState::Hot,
        _ if there == all.len() => IndexState::Sealed,
        _ => IndexState::Partly {
            there,
            wanted: all.len(),
        },
    }
}

/// Reads the indexes of partitions, by the partition's oid. Partitions that are not plain tables
/// (partitioned or foreign) are left out: `CREATE INDEX CONCURRENTLY` does not work on them.
pub(crate) async fn read_indexes(
    client: &impl GenericClient,
    table: Table,
    partitions: &[u32],
) -> Result<HashMap<u32, Vec<FoundIndex>>, Error> {
    // The text after USING is the shape. Storage parameters are removed from it.
    let rows = client
        .query(
            r"SELECT c.oid, x.relname::text, i.indisvalid AND i.indisready AND i.indislive,
                     regexp_replace(
                         substr(d.def, strpos(d.def, ' USING ' || m.amname || ' (') + length(' USING ')),
                         ' WITH \([^)]*\)', '')
              FROM pg_class c
              LEFT JOIN (pg_index i
                         JOIN pg_class x ON x.oid = i.indexrelid
                         JOIN pg_am m ON m.oid = x.relam
                         CROSS JOIN LATERAL (SELECT pg_get_indexdef(i.indexrelid)) AS d (def))
                     ON i.indrelid = c.oid
              WHERE c.oid = ANY ($1) AND c.relkind = 'r'",
            &[&partitions],
        )
        .await
        .map_err(|source| Error::Postgres {
            doing: "read the indexes",
            table,
            source,
        })?;
    let mut indexes: HashMap<u32, Vec<FoundIndex>> = HashMap::new();
    for row in rows {
        let of_partition = indexes.entry(row.get(0)).or_default();
        let (name, shape): (Option<String>, Option<String>) = (row.get(1), row.get(3));
        // Without a shape, the index was dropped during the query.
        if let (Some(name), Some(shape)) = (name, shape) {
            of_partition.push(FoundIndex {
                name,
                shape,
                is_valid: row.get(2),
            });
        }
    }
    Ok(indexes)
}

/// Adds the missing indexes to a new partition, which no other session sees yet.
pub(crate) async fn add_missing(
    tx: &Transaction<'_>,
    table: Table,
    schema: &str,
    partition: &str,
) -> Result<(), Error> {
    let failed = |source| Error::Postgres {
        doing: "index a new partition",
        table,
        source,
    };
    let child = qualified(schema, partition);
    let oid: u32 = tx
        .query_one("SELECT $1::text::regclass::oid", &[&child])
        .await
        .map_err(failed)?
        .get(0);
    // LIKE has already copied those of an adopted parent.
    let found = read_indexes(tx, table, &[oid]).await?;
    let found = found.get(&oid).map_or(&[][..], |found| &found[..]);
    for wanted in secondary_indexes(table) {
        if !found.iter().any(|index| index.serves(wanted)) {
            let name = quoted(&wanted.name_on(partition));
            tx.batch_execute(&format!(
                "CREATE INDEX {name} ON {child} USING {}",
                wanted.shape
            ))
            .await
            .map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(shape: &str, is_valid: bool) -> FoundIndex {
        FoundIndex {
            name: "whatever".to_owned(),
            shape: shape.to_owned(),
            is_valid,
        }
    }

    #[test]
    fn a_partition_is_sealed_when_every_index_is_there_and_valid_whatever_its_name() {
        let mut all: Vec<_> = INTERACTIONS.iter().map(|i| found(i.shape, true)).collect();
        all.push(found("btree (tenant_id, occurred_at, event_id)", true));
        assert_eq!(state(Table::Interactions, &all), IndexState::Sealed);
        all[1].is_valid = false;
        let partly = IndexState::Partly {
            there: 3,
            wanted: 4,
        };
        assert_eq!(state(Table::Interactions, &all), partly);
        assert_eq!(state(Table::Interactions, &all[4..]), IndexState::Hot);
        assert_eq!(state(Table::Interactions, &[]), IndexState::Hot);
    }

    #[test]
    fn names_fit_and_differ_however_long_the_partition_is_named() {
        let [short, long, other] = [
            "interaction_events_2026_03_10".to_owned(),
            "ä".repeat(31),
            format!("{}ö", "ä".repeat(30)),
        ];
        assert_eq!(
            INTERACTIONS[0].name_on(&short),
            "interaction_events_2026_03_10_request_id"
        );
        let mut names: Vec<_> = [short, long, other]
            .iter()
            .flat_map(|partition| INTERACTIONS.iter().map(|index| index.name_on(partition)))
            .collect();
        assert!(
            names.iter().all(|name| name.len() <= NAME_BYTES_MAX),
            "{names:?}"
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 12);
    }
}
