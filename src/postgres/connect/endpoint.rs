//! The hosts of a connection string, each with a separate config.
//!
//! A Unix socket among the hosts must not ask for TLS, and each host has a limit and a name in
//! error messages. Knows nothing of certificates; the caller passes the connector.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::{Config, NoTls};

use super::connection::Connection;

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
}

impl Endpoint {
    /// One config per host, because a Unix socket needs another `sslmode`.
    pub(crate) fn of(config: &Config) -> Result<Vec<Self>> {
        let (hosts, addresses, ports) = (
            config.get_hosts(),
            config.get_hostaddrs(),
            config.get_ports(),
        );
        let count = hosts.len().max(addresses.len());
        if count == 0 {
            bail!(
                "the database URL names no host; \
             add one, or the directory of the Unix socket (?host=/var/run/postgresql)"
            );
        }
        if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
            bail!(
                "the database URL has {} host but {} hostaddr",
                hosts.len(),
                addresses.len()
            );
        }
        if ports.len() > 1 && ports.len() != count {
            bail!(
                "the database URL has {count} hosts but {} ports; give one for all or one each",
                ports.len()
            );
        }
        let user = config.get_user().unwrap_or("(this system user)");
        let database = config.get_dbname().unwrap_or(user);
        let mut endpoints = Vec::with_capacity(count);
        for i in 0..count {
            let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
            let mut one = without_hosts(config);
            one.port(port);
            if let Some(address) = addresses.get(i) {
                one.hostaddr(*address);
            }
            let (unix, shown) = match (hosts.get(i), addresses.get(i)) {
                (Some(Host::Unix(path)), _) => {
                    one.host_path(path);
                    (true, path.display().to_string())
                }
                (Some(Host::Tcp(name)), _) => {
                    one.host(name);
                    (false, name.clone())
                }
                (None, Some(address)) => {
                    // TLS needs a name. Use the address, which a certificate can contain.
                    one.host(address.to_string());
                    (false, address.to_string())
                }
                (None, None) => bail!("the database URL has fewer hosts than it counts"),
            };
            let place = format!("database \"{database}\" at {shown}:{port} as user \"{user}\"");
            endpoints.push(Self {
                config: one,
                place,
                unix,
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

/// A copy without host, hostaddr and port, which a `Config` can only append to.
fn without_hosts(config: &Config) -> Config {
    let mut copy = Config::new();
    if let Some(user) = config.get_user() {
        copy.user(user);
    }
    if let Some(password) = config.get_password() {
        copy.password(password);
    }
    if let Some(dbname) = config.get_dbname() {
        copy.dbname(dbname);
    }
    if let Some(options) = config.get_options() {
        copy.options(options);
    }
    if let Some(name) = config.get_application_name() {
        copy.application_name(name);
    }
    if let Some(limit) = config.get_connect_timeout() {
        copy.connect_timeout(*limit);
    }
    if let Some(limit) = config.get_tcp_user_timeout() {
        copy.tcp_user_timeout(*limit);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        copy.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        copy.keepalives_retries(retries);
    }
    copy.keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding())
        .load_balance_hosts(config.get_load_balance_hosts());
    copy
}
