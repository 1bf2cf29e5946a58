//! Connections to one PostgreSQL server.
//!
//! A [`Target`] is a parsed connection string. [`Target::connect`] opens one connection, with TLS
//! as libpq's `sslmode` defines it, within a time limit. Nothing here spawns: the caller polls the
//! driver that moves the bytes.
//!
//! Invariant: neither a `Target` nor an error made here shows the password. Knows nothing of
//! tables, pools or retries, and does not read the environment.

pub mod connection;

pub(crate) mod certificate;
pub(crate) mod dsn;
pub(crate) mod endpoint;
pub mod environment;
pub mod error;
pub(crate) mod parameters;
pub(crate) mod password;
pub(crate) mod pem;
pub(crate) mod role;
pub(crate) mod service_file;
pub(crate) mod tls;

use connection::Connection;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rand::seq::SliceRandom as _;
use tokio::time::timeout;
use tokio_postgres::config::SslNegotiation;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::warn;

use error::ConnectError;

use endpoint::Endpoint;
use environment::LibpqEnvironment;
use parameters::Parameters;
use password::{PasswordFile, PasswordOrigin};
use role::ServerRole;
use tls::{Mode, Tls};

/// The same setting at the server: as long as its keepalives take (10 s + 3 × 5 s).
const SERVER_USER_TIMEOUT: Duration = Duration::from_secs(25);

/// The settings of a session take a single round trip. A server that takes longer is not usable.
const PREPARE_LIMIT: Duration = Duration::from_secs(10);

/// The address and credentials of PostgreSQL: a parsed `DATABASE_URL`.
#[derive(Clone)]
pub struct Target {
    endpoints: Vec<Endpoint>,
    tls: Tls,
    shuffle: bool,
    role: ServerRole,
    /// Where the given password is from; `None` if none is given.
    password: Option<parameters::Origin>,
    /// Where a password is looked up if none is given.
    password_file: Option<PasswordFile>,
}

impl Target {
    /// Parses a connection string: `postgres://user:password@host:5432/database` or `host=…
    /// user=…`, with libpq's parameters, including those for TLS.
    ///
    /// There is no `FromStr` on purpose: argument parsers that use it print a wrong text in full,
    /// with the password.
    ///
    /// # Errors
    ///
    /// When the text is malformed, names no host, or has contradictory TLS parameters. The message
    /// never repeats a value.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_with(text, &LibpqEnvironment::default())
    }

    /// Parses a connection string; what it leaves out comes from libpq's environment variables, and
    /// from the service file and the password file that they name.
    ///
    /// # Errors
    ///
    /// As for [`Target::parse`], and when there is no such service.
    pub fn parse_with(text: &str, environment: &LibpqEnvironment) -> Result<Self> {
        let parameters = Parameters::read(text, environment)?;
        let tls = Tls::of(&parameters)?;
        let shuffle = parameters.choice(
            "load_balance_hosts",
            &[("disable", false), ("random", true)],
        )?;
        let password = parameters.origin("password").cloned();
        let password_file = match password {
            Some(_) => None,
            None => PasswordFile::of(&parameters, environment),
        };
        if let Some(Err(why)) = password_file.as_ref().map(PasswordFile::read) {
            warn!("{why}");
        }
        Ok(Self {
            endpoints: Endpoint::of(&parameters, tls.mode)?,
            tls,
            shuffle: shuffle.unwrap_or_default(),
            role: ServerRole::of(&parameters)?,
            password,
            password_file,
        })
    }

    /// The database name of the first host.
    #[must_use]
    pub fn database(&self) -> &str {
        self.first()
            .config
            .get_dbname()
            .or(self.first().config.get_user())
            .unwrap_or("(default)")
    }

    /// Opens a connection, trying the hosts in turn.
    ///
    /// Ends within three connect timeouts per host (15 s by default): two dead addresses of a name
    /// may time out, and a third can still be reached.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`]; with several hosts, the error of the last one.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        let mut endpoints: Vec<&Endpoint> = self.endpoints.iter().collect();
        if self.shuffle {
            endpoints.shuffle(&mut rand::rng());
        }
        let mut failure = None;
        for endpoint in endpoints {
            let limit = endpoint.limit();
            let attempt = match timeout(limit, self.connect_endpoint(endpoint)).await {
                Ok(attempt) => attempt,
                Err(_) => Err(ConnectError::away(
                    &endpoint.place,
                    &format!("no answer within {} s", limit.as_secs()),
                    "check the address and the load of the server, and firewalls on the way",
                )),
            };
            match attempt {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.expect("a target has at least one endpoint: `parse` saw to it"))
    }

    /// Asks the server to cancel the statement that `token`'s connection runs.
    ///
    /// Ends within the same limit as a connect. Success means that the request was sent; the
    /// statement may have ended by itself.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached.
    pub async fn cancel(&self, token: &CancelToken) -> Result<()> {
        // The token knows its connection's server, and whether it used TLS.
        let connector = self.connector(self.first()).await?;
        match timeout(self.first().limit(), token.cancel_query(connector)).await {
            Ok(sent) => sent.context("cannot send a cancel request to PostgreSQL"),
            Err(_) => bail!("cannot send a cancel request to PostgreSQL: no answer in time"),
        }
    }

    async fn connect_endpoint(&self, endpoint: &Endpoint) -> Result<Connection, ConnectError> {
        let mut endpoint = endpoint.clone();
        let password = self.add_password(&mut endpoint).await;
        let connection = self.open(&endpoint, &password).await?;
        self.role.check(&endpoint, connection).await
    }

    /// Looks the password up, unless it is given.
    async fn add_password(&self, endpoint: &mut Endpoint) -> PasswordOrigin {
        if let Some(origin) = &self.password {
            return PasswordOrigin::Given(origin.clone());
        }
        let Some(file) = self.password_file.clone() else {
            return PasswordOrigin::Nowhere(None);
        };
        let account = endpoint.account.clone();
        let found = tokio::task::spawn_blocking(move || file.find(&account)).await;
        let (password, origin) = found.unwrap_or((None, PasswordOrigin::Nowhere(None)));
        if let Some(password) = password {
            endpoint.config.password(password);
        }
        origin
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        password: &PasswordOrigin,
    ) -> Result<Connection, ConnectError> {
        let explain = |error: tokio_postgres::Error| {
            ConnectError::from_postgres(&endpoint.place, &error, password)
        };
        if endpoint.unix || self.tls.mode == Mode::Disable {
            return endpoint.connect_plain().await.map_err(explain);
        }
        let mut refused_plain = None;
        if self.tls.mode == Mode::Allow {
            match endpoint.connect_plain().await {
                Err(error) if is_refused_by_hba(&error) => refused_plain = Some(error),
                outcome => return outcome.map_err(explain),
            }
        }
        let connector = self.connector(endpoint).await.map_err(|error| {
            ConnectError::misconfigured(
                &endpoint.place,
                &format!("{error:#}"),
                "correct the TLS parameters of the database URL",
            )
        })?;
        match endpoint.config.connect(connector).await {
            Ok((client, driver)) => Ok(Connection {
                client,
                driver: Box::pin(driver),
                clear_text: None,
            }),
            Err(error) if self.tls.mode == Mode::Prefer && may_do_without_tls(&error) => {
                let clear_text = Some(error::why_no_tls(&error));
                match endpoint.connect_plain().await {
                    Ok(connection) => Ok(Connection {
                        clear_text,
                        ..connection
                    }),
                    // If TLS was offered, report why it failed.
                    Err(_) if error::is_tls_offered(&error) => Err(explain(error)),
                    Err(error) => Err(explain(error)),
                }
            }
            Err(error) => match refused_plain {
                Some(refused) if !error::is_tls_offered(&error) => Err(explain(refused)),
                _ => Err(explain(error)),
            },
        }
    }

    async fn connector(&self, endpoint: &Endpoint) -> Result<MakeRustlsConnect> {
        let tls = self.tls.clone();
        let direct = endpoint.config.get_ssl_negotiation() == SslNegotiation::Direct;
        // Reading the system's CA certificates takes tens of milliseconds.
        tokio::task::spawn_blocking(move || tls.connector(direct))
            .await
            .unwrap_or_else(|error| match error.try_into_panic() {
                // Passes a panic on to the calling task, which has a name.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => bail!("reading TLS certificates was broken off"),
            })
    }

    fn first(&self) -> &Endpoint {
        self.endpoints
            .first()
            .expect("a target has at least one endpoint: `parse` saw to it")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}", endpoint.place)?;
        }
        write!(f, " (sslmode={})", self.tls.mode.name())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// The server connection was used by another session and was not reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a connection pooler in transaction mode stands between the service and PostgreSQL; \
     use session mode, or connect to PostgreSQL directly"
)]
pub struct Reused;

/// Sets what our SQL relies on in a fresh session.
///
/// `statement_timeout: None` keeps the setting of the server, database or role.
///
/// # Errors
///
/// When the server refuses, or does not answer within ten seconds.
pub async fn prepare_session(client: &Client, statement_timeout: Option<Duration>) -> Result<()> {
    // A new session has no mark. A mark is from an earlier session: a pooler passes the server
    // connection on without a reset.
    let mut settings = String::from(
        "SELECT current_setting('recsys_ingest.session', true);
         SET recsys_ingest.session = 'taken';
         SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET client_encoding = 'UTF8';",
    );
    // Server, database or role may say otherwise, and then bounds and keys of partitions, as Postgres
    // writes them, read differently.
    settings.push_str(" SET standard_conforming_strings = on; SET quote_all_identifiers = off;");
    // Connections that have nothing to do for a while are kept on purpose.
    settings.push_str(" SET idle_session_timeout = 0;");
    // `synchronous_commit = off` can lose a commit that was acknowledged: turn it on. Leave
    // stronger settings alone.
    settings.push_str(
        " SELECT set_config('synchronous_commit', 'on', false)
           WHERE current_setting('synchronous_commit') = 'off';",
    );
    // If a connection dies unnoticed, the server would keep its transaction and its row locks for
    // hours, and the retry would wait for them. A session is never idle in a transaction for longer
    // than a statement takes.
    settings.push_str(
        " SET idle_in_transaction_session_timeout = '30s'; SET tcp_keepalives_idle = 10;
          SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;",
    );
    // Keepalives are not sent while sent data is unacknowledged.
    settings.push_str(&format!(
        " SET tcp_user_timeout = {};",
        SERVER_USER_TIMEOUT.as_millis()
    ));
    if let Some(limit) = statement_timeout {
        // 0 would mean no limit, and the setting is an int4.
        let ms = limit.as_millis().clamp(1, 2_147_483_647);
        settings.push_str(&format!(" SET statement_timeout = {ms};"));
    }
    match timeout(PREPARE_LIMIT, client.simple_query(&settings)).await {
        Ok(set) => {
            let answers = set.context("cannot set up the PostgreSQL session")?;
            let first = answers.iter().find_map(|answer| match answer {
                SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default()),
                _ => None,
            });
            match first {
                None | Some("") => Ok(()),
                Some(_) => bail!(Reused),
            }
        }
        Err(_) => bail!(
            "cannot set up the PostgreSQL session: no answer within {} s",
            PREPARE_LIMIT.as_secs()
        ),
    }
}

/// Like libpq, `prefer` falls back to clear text if the TLS handshake fails, or if pg_hba.conf
/// admits this client only without TLS.
fn may_do_without_tls(error: &tokio_postgres::Error) -> bool {
    error::is_tls(error) || is_refused_by_hba(error)
}

/// Whether pg_hba.conf does not admit this client in this way.
fn is_refused_by_hba(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]
pub(crate) mod tests;
