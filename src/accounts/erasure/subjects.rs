//! The users who were erased, as a writer holds them.

use std::collections::HashMap;

use tokio_postgres::{Error, GenericClient};
use uuid::Uuid;

use crate::event::row::user_key;
use crate::event::table::Table;
use crate::event::time::Micros;

/// The list `ingest_erased_subjects` as it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct ErasedSubjects {
    /// By tenant and key: the time before which events are left out.
    before: HashMap<Uuid, HashMap<Vec<u8>, Micros>>,
}

impl ErasedSubjects {
    pub(crate) async fn read(client: &impl GenericClient) -> Result<Self, Error> {
        let sql = "SELECT tenant_id, user_key, before FROM ingest_erased_subjects";
        let mut erased = Self::default();
        for row in client.query(sql, &[]).await? {
            let keys = erased.before.entry(row.get(0)).or_default();
            keys.insert(row.get(1), row.get(2));
        }
        Ok(erased)
    }

    /// Whether no user was erased.
    pub(crate) fn is_empty(&self) -> bool {
        self.before.is_empty()
    }

    /// Whether a row is of a user who was erased, and of a time before that.
    pub(crate) fn has(&self, table: Table, tenant: Uuid, occurred_at: Micros, row: &[u8]) -> bool {
        let Some(keys) = self.before.get(&tenant) else {
            return false;
        };
        let before = user_key(table, row).and_then(|key| keys.get(key));
        before.is_some_and(|before| occurred_at < *before)
    }
}
