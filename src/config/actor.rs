//! Who makes a change.

use clap::Args;

/// Who makes a change that is noted in `audit_log`, or removes rows (`ingest_removed_rows`).
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Who")]
pub struct Actor {
    /// Who makes the change, for audit_log and ingest_removed_rows [default: the user's name, else the database's role]
    #[arg(long, env = "INGEST_ACTOR", value_name = "NAME")]
    pub actor: Option<String>,

    /// The user's name
    #[arg(long, env = "USER", hide = true)]
    pub user: Option<String>,
}

impl Actor {
    /// The name, if one is known.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let names = [&self.actor, &self.user];
        let name = names.into_iter().flatten().next()?.trim();
        (!name.is_empty()).then_some(name)
    }
}
