//! The task that seals what is due, for as long as the service runs.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;
use tracing::{debug, warn};

use crate::event::table::Table;
use crate::metrics::Metrics;

use super::plan::Selection;
use super::pressure::Pressure;
use super::work::{SealReport, seal};
use crate::partitions::error::Error;
use crate::partitions::indexes::IndexProfile;
use crate::postgres::checks::clock::server_time;
use crate::postgres::connect::Target;
use crate::postgres::error as postgres;
use crate::postgres::error::ErrorChain;
use crate::postgres::session::Session;

/// How often to look for partitions that are due. They come once a day; what
/// was passed over comes again, and a build that gave up is not a cheap one.
const TICK: Duration = Duration::from_secs(300);

/// How soon to try again where there was no connection.
const RETRY: Duration = Duration::from_secs(15);

/// When partitions are sealed.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Whether hot partitions are to have all indexes, too.
    pub profile: IndexProfile,
    /// The grace after the end of a partition's range.
    pub after: Duration,
}

/// Seals partitions in the background.
#[derive(Debug)]
pub struct Sealer {
    policy: Policy,
    pressure: Pressure,
    metrics: Arc<Metrics>,
}

impl Sealer {
    /// A sealer that makes way for the lanes of this instance.
    pub fn new(policy: Policy, pressure: Pressure, metrics: Arc<Metrics>) -> Self {
        Self {
            policy,
            pressure,
            metrics,
        }
    }

    /// Seals what is due every so often, until dropped. Goes by the server's
    /// clock: all instances share the partitions.
    pub async fn run(&self, target: &Target) {
        let mut failed = false;
        loop {
            match self.once(target).await {
                Ok(outcome) => {
                    failed = false;
                    outcome.log_failures();
                    if outcome.is_busy {
                        debug!("another instance is sealing");
                    }
                }
                Err(error) => {
                    if !failed {
                        warn!(error = %ErrorChain(&error), "cannot seal partitions, retrying");
                    }
                    failed = true;
                }
            }
            tokio::time::sleep(if failed { RETRY } else { TICK }).await;
        }
    }

    async fn once(&self, target: &Target) -> Result<SealReport, Error> {
        // No limit on statements: what they may wait for has its own.
        let mut session = Session::open(target, None).await?;
        // A role that owns no table can seal none; the checks say so.
        if !owns_tables(&session.client).await? {
            return Ok(SealReport::default());
        }
        let selection = Selection::Due {
            profile: self.policy.profile,
            after: self.policy.after,
            now: server_time(&session.client).await?,
        };
        seal(
            &mut session,
            &selection,
            Some(&self.pressure),
            &self.metrics,
        )
        .await
    }
}

async fn owns_tables(client: &Client) -> Result<bool, postgres::Error> {
    let row = client
        .query_one(
            "SELECT coalesce(bool_or(pg_has_role(relowner, 'USAGE')), true) FROM pg_class
              WHERE oid IN (to_regclass($1), to_regclass($2))",
            &[&Table::Exposures.as_str(), &Table::Interactions.as_str()],
        )
        .await
        .map_err(|source| postgres::Error::Statement {
            doing: "find out who owns the event tables",
            source,
        })?;
    Ok(row.get(0))
}
