//! Splits a connection string into what tokio-postgres understands and what this service
//! implements.
//!
//! Reads both of libpq's forms (URL and `key=value`) into pairs, takes out the parameters that this
//! service implements, translates those that tokio-postgres spells or counts differently, and
//! writes the rest back.
//!
//! No message made here repeats a value, or a name that could be part of a password: error messages
//! of connection strings end up in logs. Knows nothing of certificates and opens no connection.

use anyhow::{Context as _, Result, bail};

/// A connection string with its parameters separated.
#[derive(Default)]
pub(crate) struct Dsn {
    /// For `tokio_postgres::Config`: only TLS parameters that it knows, and no unit that it
    /// misreads.
    pub(crate) rest: String,
    pub(crate) sslmode: Option<String>,
    pub(crate) sslrootcert: Option<String>,
    pub(crate) sslcert: Option<String>,
    pub(crate) sslkey: Option<String>,
    /// libpq counts this in milliseconds, tokio-postgres in seconds.
    pub(crate) tcp_user_timeout_ms: Option<u64>,
    /// tokio-postgres does not distinguish a given value from its default of two hours.
    pub(crate) names_keepalives_idle: bool,
}

/// Names that tokio-postgres accepts as they are.
const PASSED_ON: &[&str] = &[
    "application_name", "channel_binding", "connect_timeout", "dbname", "host", "hostaddr",
    "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_retries",
    "load_balance_hosts", "options", "password", "port", "sslnegotiation", "target_session_attrs",
    "user",
];

/// Names of libpq that have no effect here: the encoding is always UTF-8, nothing is compressed,
/// SNI is always sent, and GSS is never used.
const WITHOUT_EFFECT: &[&str] = &[
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "sslcompression",
    "sslsni",
];

impl Dsn {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() {
            bail!(
                "the database URL is empty; expected postgres://user:password@host:5432/database"
            );
        }
        if let Some(body) = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
        {
            return Self::from_url(body);
        }
        if text
            .split_once("://")
            .is_some_and(|(scheme, _)| !scheme.contains(['=', ' ']))
        {
            bail!("the database URL does not begin with postgres:// or postgresql://");
        }
        let mut dsn = Self::default();
        for (name, value) in key_values(text)? {
            // The name may be the end of an unquoted password with a space in it: do not repeat it.
            let Some((name, value)) = dsn.take(&name, value)? else {
                continue;
            };
            if !PASSED_ON.contains(&name.as_str()) {
                bail!(
                    "the database connection string has a parameter that is not known here; \
                     check for a misspelt name or an unquoted value with a space in it"
                );
            }
            let value = value.replace('\\', "\\\\").replace('\'', "\\'");
            dsn.rest.push_str(&format!("{name}='{value}' "));
        }
        Ok(dsn)
    }

    fn from_url(body: &str) -> Result<Self> {
        let credentials_end = match (body.find('@'), body.find('/')) {
            (Some(at), Some(slash)) if at < slash => at + 1,
            (Some(at), None) => at + 1,
            _ => 0,
        };
        let (credentials, location) = body.split_at(credentials_end);
        let (place, query) = location.split_once('?').unwrap_or((location, ""));
        let mut dsn = Self::default();
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .context("a parameter in the query of the database URL has no `=`")?;
            let (name, value) = (percent_decoded(name)?, percent_decoded(value)?);
            let Some((name, value)) = dsn.take(&name, value)? else {
                continue;
            };
            if !PASSED_ON.contains(&name.as_str()) {
                let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
                let shown = if plain { &name } else { "(not shown)" };
                bail!("the database URL has a parameter that is not known here: {shown}");
            }
            kept.push(format!("{name}={}", percent_encoded(&value)));
        }
        // tokio-postgres takes the first `@` anywhere as the end of the credentials.
        let place = place.replace('@', "%40");
        dsn.rest = format!("postgres://{credentials}{place}?{}", kept.join("&"));
        Ok(dsn)
    }

    /// Keeps a parameter of this service. Returns any other one under the name that tokio-postgres
    /// uses.
    fn take(&mut self, name: &str, value: String) -> Result<Option<(String, String)>> {
        match name {
            "sslmode" => self.sslmode = Some(value),
            // libpq also translates this JDBC spelling.
            "ssl" if value == "true" => self.sslmode = Some("require".to_owned()),
            // An empty value means the default in libpq.
            "sslrootcert" => self.sslrootcert = Some(value).filter(|path| !path.is_empty()),
            "sslcert" => self.sslcert = Some(value).filter(|path| !path.is_empty()),
            "sslkey" => self.sslkey = Some(value).filter(|path| !path.is_empty()),
            "tcp_user_timeout" => {
                let ms = value.parse().context(
                    "tcp_user_timeout in the database URL is not a number of milliseconds",
                )?;
                self.tcp_user_timeout_ms = Some(ms);
            }
            "gssencmode" if value == "require" => {
                bail!("gssencmode=require is not supported; use TLS (sslmode=verify-full) instead")
            }
            name if WITHOUT_EFFECT.contains(&name) => {}
            "keepalives_count" => return Ok(Some(("keepalives_retries".to_owned(), value))),
            name => {
                self.names_keepalives_idle |= name == "keepalives_idle";
                return Ok(Some((name.to_owned(), value)));
            }
        }
        Ok(None)
    }
}

/// `key = value` pairs. A value may be in `'` quotes; `\` escapes one character.
fn key_values(text: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, tail) = rest
            .split_once('=')
            .context("the database connection string ends in a name without `=` and a value")?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!(
                "the database connection string has a name without a value; \
                 put values with spaces in '…'"
            );
        }
        let mut chars = tail.trim_start().chars();
        let quoted = chars.as_str().starts_with('\'');
        if quoted {
            chars.next();
        }
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some('\\') => value.extend(chars.next()),
                Some(c) => value.push(c),
                None if quoted => {
                    bail!("a quoted value in the database connection string has no end")
                }
                None => break,
            }
        }
        pairs.push((name.to_owned(), value));
        rest = chars.as_str().trim_start();
    }
    Ok(pairs)
}

fn percent_decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next().unwrap_or(b' '), rest.next().unwrap_or(b' ')];
        let mut decoded = [0];
        hex::decode_to_slice(digits, &mut decoded)
            .ok()
            .context("a `%` in the query of the database URL is not followed by two hex digits")?;
        bytes.extend(decoded);
    }
    String::from_utf8(bytes)
        .ok()
        .context("a parameter of the database URL is not UTF-8")
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b',' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
