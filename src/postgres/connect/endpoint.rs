//! The hosts of a connection string, each with a separate config.
//!
//! A Unix socket among the hosts must not ask for TLS, and each host has a limit and a name in
//! error messages. Knows nothing of certificates; the caller passes the connector.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::{Config, NoTls};

use super::connection::Connection;
use super::parameters::Parameters;
use super::password::Account;

/// Long enough for a handshake across an ocean with one or two lost packets.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One host of a target.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) config: Config,
    /// For messages: user, host, port and database.
    pub(crate) place: String,
    /// PostgreSQL does not offer TLS on Unix sockets.
    pub(crate) unix: bool,
    /// What a password is looked up for.
    pub(crate) account: Account,
}

impl Endpoint {
    /// One config per host, because a Unix socket needs another `sslmode`. `config` has neither
    /// hosts nor ports.
    pub(crate) fn of(parameters: &Parameters, config: &Config) -> Result<Vec<Self>> {
        let list = |name| {
            let parts = parameters.get(name).map(|text| text.split(','));
            parts.map(|parts| parts.map(str::trim).collect::<Vec<_>>())
        };
        let (hosts, addresses) = (list("host"), list("hostaddr"));
        let ports = list("port").unwrap_or_default();
        let count = match (&hosts, &addresses) {
            (None, None) => bail!(
                "the database URL names no host; \
                 add one, or the directory of the Unix socket (?host=/var/run/postgresql), or set PGHOST"
            ),
            (Some(hosts), Some(addresses)) if hosts.len() != addresses.len() => bail!(
                "the database URL has {} host but {} hostaddr",
                hosts.len(),
                addresses.len()
            ),
            (Some(listed), _) | (None, Some(listed)) => listed.len(),
        };
        if ports.len() > 1 && ports.len() != count {
            bail!(
                "the database URL has {count} hosts but {} ports; give one for all or one each",
                ports.len()
            );
        }
        let user = parameters.get("user").unwrap_or("(this system user)");
        let database = parameters.get("dbname").unwrap_or(user);
        let mut endpoints = Vec::with_capacity(count);
        for i in 0..count {
            let at = |list: &Option<Vec<&'_ str>>| -> Option<String> {
                let entry = list.as_ref()?.get(i).copied()?;
                (!entry.is_empty()).then(|| entry.to_owned())
            };
            let port = match ports.get(i).or(ports.first()) {
                None | Some(&"") => 5432,
                Some(text) => text
                    .parse()
                    .ok()
                    .filter(|port| *port > 0)
                    .with_context(|| {
                        parameters
                            .refusal("port", "it has to be a number from 1 to 65535")
                            .to_string()
                    })?,
            };
            let mut one = config.clone();
            one.port(port);
            let (host, address) = (at(&hosts), at(&addresses));
            if let Some(address) = &address {
                one.hostaddr(address.parse().map_err(|_| {
                    parameters.refusal(
                        "hostaddr",
                        "it has to be an IP address, or several with commas between",
                    )
                })?);
            }
            let (unix, shown) = match (host, address) {
                (Some(host), _) if host.starts_with('/') => {
                    one.host_path(&host);
                    (true, host)
                }
                (Some(host), _) if host.starts_with('@') => bail!(
                    "a host of the database URL is an abstract Unix socket, which is not supported: name the directory of a socket"
                ),
                // Without a name TLS uses the address, which a certificate can contain.
                (Some(host), _) | (None, Some(host)) => {
                    one.host(&host);
                    (false, host)
                }
                (None, None) => bail!(
                    "host {} of the database URL is empty; name it, or remove its comma",
                    i + 1
                ),
            };
            let place = format!("database \"{database}\" at {shown}:{port} as user \"{user}\"");
            let user = match parameters.get("user") {
                Some(user) => user.to_owned(),
                None => whoami::username().unwrap_or_default(),
            };
            let account = Account {
                host: shown,
                port,
                database: parameters.get("dbname").unwrap_or(&user).to_owned(),
                user,
            };
            endpoints.push(Self {
                config: one,
                place,
                unix,
                account,
            });
        }
        Ok(endpoints)
    }

    /// The limit of one attempt, with all its addresses and round trips.
    pub(crate) fn limit(&self) -> Duration {
        self.config
            .get_connect_timeout()
            .copied()
            .unwrap_or(CONNECT_TIMEOUT)
            .saturating_mul(3)
    }

    pub(crate) async fn connect_plain(&self) -> Result<Connection, tokio_postgres::Error> {
        let mut config = self.config.clone();
        // Direct negotiation is refused without TLS, even if TLS is never used.
        config
            .ssl_mode(SslMode::Disable)
            .ssl_negotiation(SslNegotiation::Postgres);
        let (client, driver) = config.connect(NoTls).await?;
        Ok(Connection {
            client,
            driver: Box::pin(driver),
            clear_text: None,
        })
    }
}
