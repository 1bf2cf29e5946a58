//! Where Postgres is.

use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches};

use super::environment;
use super::parse;
use super::secret::{Secret, required};
use crate::postgres::connect::Target;
use crate::postgres::connect::environment::LibpqEnvironment;

/// Where Postgres is.
#[derive(Clone, Debug)]
pub struct Database {
    /// A connection string.
    pub database_url: Secret,
    /// What the connection string leaves out.
    pub libpq: LibpqEnvironment,
}

#[derive(Args)]
#[command(next_help_heading = "PostgreSQL")]
struct DatabaseArguments {
    /// Postgres, as a URL or key=value pairs with libpq's parameters (sslmode, service and passfile too); what it leaves out comes from PGHOST, PGPASSWORD and libpq's other variables
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<Secret>,

    /// A file that holds it
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE", value_parser = parse::path())]
    database_url_file: Option<PathBuf>,
}

impl Database {
    /// Parses the connection settings.
    ///
    /// # Errors
    /// When they are malformed or contradict each other.
    pub fn target(&self) -> anyhow::Result<Target> {
        Target::parse_with(self.database_url.expose(), &self.libpq)
    }
}

impl Args for Database {
    fn augment_args(command: clap::Command) -> clap::Command {
        DatabaseArguments::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        DatabaseArguments::augment_args_for_update(command)
    }
}

impl FromArgMatches for Database {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = DatabaseArguments::from_arg_matches(matches)?;
        let database_url = required(
            matches, "database_url", given.database_url, given.database_url_file,
        )?;
        Ok(Self {
            database_url,
            libpq: LibpqEnvironment::new(environment::variables()),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
