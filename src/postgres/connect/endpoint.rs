//! The hosts of a connection string, each with a separate config.
//!
//! A Unix socket among the hosts must not ask for TLS, and each host has a limit and a name in
//! error messages. Knows nothing of certificates; the caller passes the connector.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::{Config, NoTls};

use super::connection::Connection;
use super::parameters::Parameters;
use super::password::Account;
use super::tls::Mode;

/// Long enough for a handshake across an ocean with one or two lost packets.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A dead peer with unacknowledged data is noticed after this time, instead of the kernel's fifteen
/// minutes.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Probes idle connections well within the five minutes after which common NAT gateways and load
/// balancers drop a flow.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVES_RETRIES: u32 = 3;

const APPLICATION_NAME: &str = "recsys-ingest";

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
    /// One config per host, because a Unix socket needs another `sslmode`.
    pub(crate) fn of(parameters: &Parameters, mode: Mode) -> Result<Vec<Self>> {
        let config = common(parameters, mode)?;
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

/// What all hosts have in common.
fn common(parameters: &Parameters, mode: Mode) -> Result<Config> {
    let mut config = Config::new();
    if let Some(user) = parameters.get("user") {
        config.user(user);
    }
    if let Some(password) = parameters.get("password") {
        config.password(password);
    }
    if let Some(dbname) = parameters.get("dbname") {
        config.dbname(dbname);
    }
    if let Some(options) = parameters.get("options") {
        config.options(options);
    }
    config.application_name(
        parameters
            .get("application_name")
            .unwrap_or(APPLICATION_NAME),
    );
    let positive = |name| -> Result<Option<u64>> {
        let number = parameters.integer(name)?;
        // As in libpq, 0 and less mean the default.
        Ok(number
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| *number > 0))
    };
    let seconds = |name| Ok::<_, anyhow::Error>(positive(name)?.map(Duration::from_secs));
    config
        .connect_timeout(seconds("connect_timeout")?.unwrap_or(CONNECT_TIMEOUT))
        .keepalives(parameters.integer("keepalives")? != Some(0))
        .keepalives_idle(seconds("keepalives_idle")?.unwrap_or(KEEPALIVES_IDLE))
        .keepalives_interval(seconds("keepalives_interval")?.unwrap_or(KEEPALIVES_INTERVAL));
    let retries = positive("keepalives_count")?.and_then(|count| u32::try_from(count).ok());
    config.keepalives_retries(retries.unwrap_or(KEEPALIVES_RETRIES));
    // libpq counts this in milliseconds, and takes 0 for the system's default.
    let user_timeout = match parameters.integer("tcp_user_timeout")? {
        None => TCP_USER_TIMEOUT,
        Some(ms) => Duration::from_millis(u64::try_from(ms).unwrap_or_default()),
    };
    config.tcp_user_timeout(user_timeout);
    let binding = parameters.choice(
        "channel_binding",
        &[
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ],
    )?;
    config.channel_binding(binding.unwrap_or(ChannelBinding::Prefer));
    config.ssl_mode(match mode {
        Mode::Disable => SslMode::Disable,
        // `prefer` as well: the library would silently fall back to clear text.
        _ => SslMode::Require,
    });
    let negotiation = parameters.choice(
        "sslnegotiation",
        &[
            ("postgres", SslNegotiation::Postgres),
            ("direct", SslNegotiation::Direct),
        ],
    )?;
    if mode < Mode::Require && negotiation == Some(SslNegotiation::Direct) {
        bail!("sslnegotiation=direct needs sslmode=require or stronger");
    }
    config.ssl_negotiation(negotiation.unwrap_or_default());
    Ok(config)
}
