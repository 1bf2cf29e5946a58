//! Reads a connection string, in both of libpq's forms, into names and values.
//!
//! No message made here repeats a value, or a name that could be part of a password: error messages
//! of connection strings end up in logs. Knows no parameter's meaning.

use anyhow::{Context as _, Result, bail, ensure};

/// What is said where a password may be the cause.
const ESCAPES: &str =
    "in a user or a password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25";

/// A form of connection string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Url,
    KeyValue,
}

/// Names and values, in the order in which they stand.
type Pairs = Vec<(String, String)>;

/// Splits a connection string. A later value of a name replaces an earlier one.
pub(crate) fn split(text: &str) -> Result<(Form, Pairs)> {
    let text = text.trim();
    if text.is_empty() {
        bail!("the database URL is empty; expected postgres://user:password@host:5432/database");
    }
    for quote in ['"', '\''] {
        ensure!(
            !(text.len() > 1 && text.starts_with(quote) && text.ends_with(quote)),
            "the database URL stands in quotes, which are taken as part of it: remove them"
        );
    }
    let Some((scheme, body)) = text.split_once("://") else {
        return Ok((Form::KeyValue, key_values(text)?));
    };
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "postgres" | "postgresql" => Ok((Form::Url, url(body)?)),
        // The `://` is inside of a value.
        other if other.contains(['=', ' ']) => Ok((Form::KeyValue, key_values(text)?)),
        other if other.starts_with("jdbc:") => bail!(
            "the database URL is one of JDBC: remove jdbc: in front of it, and put user and password before the host"
        ),
        other if other.starts_with("postgres") => bail!(
            "the database URL names a driver behind postgres: it has to begin with postgres:// or postgresql://"
        ),
        _ => bail!("the database URL does not begin with postgres:// or postgresql://"),
    }
}

/// `[user[:password]@][host][:port][,...][/dbname][?name=value[&...]]`
fn url(body: &str) -> Result<Pairs> {
    let mut pairs = Vec::new();
    let mut put = |name: &str, value: String| pairs.push((name.to_owned(), value));
    // As in libpq, credentials end at the first `@` in front of the first `/`.
    let before_path = body.split('/').next().unwrap_or_default();
    let location = match before_path.split_once('@') {
        None => body,
        Some((credentials, _)) => {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            let decoded = |text| {
                percent_decoded(text)
                    .with_context(|| format!("user or password of the database URL; {ESCAPES}"))
            };
            put("user", decoded(user)?);
            put("password", decoded(password)?);
            &body[credentials.len() + 1..]
        }
    };
    let (place, query) = location.split_once('?').unwrap_or((location, ""));
    let (hosts, database) = place.split_once('/').unwrap_or((place, ""));
    ensure!(
        !hosts.contains('@'),
        "the database URL has more than one @ in front of its host; {ESCAPES}"
    );
    ensure!(
        !database.contains('@'),
        "the name of the database in the database URL has an @: write it as %40 there, or, if this is still the password, {ESCAPES}"
    );
    if !hosts.is_empty() {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for (i, chunk) in hosts.split(',').enumerate() {
            let (name, port) = host_and_port(chunk)
                .with_context(|| format!("host {} of the database URL; {ESCAPES}", i + 1))?;
            names.push(percent_decoded(name).context("a host of the database URL")?);
            ports.push(port);
        }
        put("host", names.join(","));
        if ports.iter().any(|port| !port.is_empty()) {
            put("port", ports.join(","));
        }
    }
    put(
        "dbname",
        percent_decoded(database).context("the name of the database in the database URL")?,
    );
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            match query.contains('@') {
                true => bail!("a parameter in the query of the database URL has no `=`; {ESCAPES}"),
                false => bail!("a parameter in the query of the database URL has no `=`"),
            }
        };
        let decoded = |text| percent_decoded(text).context("a parameter of the database URL");
        put(&decoded(name)?, decoded(value)?);
    }
    Ok(pairs)
}

fn host_and_port(chunk: &str) -> Result<(&str, &str)> {
    let (host, port) = match chunk.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest
                .split_once(']')
                .context("an IPv6 address stands in [ ]")?;
            let port = rest.strip_prefix(':');
            ensure!(
                port.is_some() || rest.is_empty(),
                "only a port may follow the ] of an IPv6 address"
            );
            (host, port.unwrap_or_default())
        }
        None => chunk.split_once(':').unwrap_or((chunk, "")),
    };
    ensure!(
        port.is_empty() || port.parse::<u16>().is_ok_and(|port| port > 0),
        "its port is not a number from 1 to 65535"
    );
    Ok((host, port))
}

/// `key = value` pairs. A value may be in `'` quotes; `\` escapes one character.
fn key_values(text: &str) -> Result<Pairs> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, tail) = rest.split_once('=').context(
            "the database connection string ends in a name without `=` and a value; \
                 put values with spaces in '…'",
        )?;
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
            .context("a % is not followed by two hex digits")?;
        ensure!(decoded != [0], "%00 stands for a byte that no text has");
        bytes.extend(decoded);
    }
    String::from_utf8(bytes).ok().context("it is not UTF-8")
}
