//! The parameters of a connection: libpq's words, and where each was given.
//!
//! A connection string counts first, then the service that it names, then libpq's environment
//! variables. Every word of libpq is taken, ignored where it changes nothing here, or refused with
//! the reason. An empty value counts as not given.
//!
//! No message repeats a value of a connection string, which may be a part of its password.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

use super::dsn::{self, Form};
use super::environment::LibpqEnvironment;
use super::service_file;

/// What happens to a word.
#[derive(Clone, Copy, Debug)]
enum Use {
    Taken,
    /// It changes nothing here: the encoding is always UTF-8, nothing is compressed, SNI is always
    /// sent, and GSS is never used.
    Ignored,
    Refused(&'static str),
}

use Use::{Ignored, Refused, Taken};

const NO_REVOCATION: &str = "lists of revoked certificates are not read here; leave it out, and let certificates live shortly";
const NO_SCRAM_KEYS: &str = "keys of SCRAM are not taken here; give the password";
const NO_OAUTH: &str = "OAuth is not supported here; use a password or a client certificate";

/// libpq's words, with their environment variables.
const WORDS: &[(&str, &str, Use)] = &[
    ("application_name", "PGAPPNAME", Taken),
    ("authtype", "", Ignored),
    ("channel_binding", "PGCHANNELBINDING", Taken),
    // Checked: no other encoding than UTF-8 is spoken.
    ("client_encoding", "", Taken),
    ("connect_timeout", "PGCONNECT_TIMEOUT", Taken),
    ("dbname", "PGDATABASE", Taken),
    ("fallback_application_name", "", Ignored),
    ("gssdelegation", "PGGSSDELEGATION", Ignored),
    ("gssencmode", "PGGSSENCMODE", Taken),
    ("gsslib", "PGGSSLIB", Ignored),
    ("host", "PGHOST", Taken),
    ("hostaddr", "PGHOSTADDR", Taken),
    ("keepalives", "", Taken),
    ("keepalives_count", "", Taken),
    ("keepalives_idle", "", Taken),
    ("keepalives_interval", "", Taken),
    ("krbsrvname", "PGKRBSRVNAME", Ignored),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS", Taken),
    ("max_protocol_version", "PGMAXPROTOCOLVERSION", Ignored),
    ("min_protocol_version", "PGMINPROTOCOLVERSION", Taken),
    ("oauth_client_id", "", Refused(NO_OAUTH)),
    ("oauth_client_secret", "", Refused(NO_OAUTH)),
    ("oauth_issuer", "", Refused(NO_OAUTH)),
    ("oauth_scope", "", Refused(NO_OAUTH)),
    ("options", "PGOPTIONS", Taken),
    ("passfile", "PGPASSFILE", Taken),
    ("password", "PGPASSWORD", Taken),
    ("port", "PGPORT", Taken),
    ("replication", "", Taken),
    (
        "require_auth",
        "PGREQUIREAUTH",
        Refused(
            "ways of authentication are not chosen here; channel_binding=require takes SCRAM alone",
        ),
    ),
    (
        "requirepeer",
        "PGREQUIREPEER",
        Refused(
            "the owner of a Unix socket is not checked here; protect its directory, or use sslmode=verify-full",
        ),
    ),
    ("requiressl", "PGREQUIRESSL", Taken),
    ("scram_client_key", "", Refused(NO_SCRAM_KEYS)),
    ("scram_server_key", "", Refused(NO_SCRAM_KEYS)),
    ("service", "PGSERVICE", Taken),
    ("servicefile", "PGSERVICEFILE", Taken),
    ("sslcert", "PGSSLCERT", Taken),
    ("sslcertmode", "PGSSLCERTMODE", Taken),
    ("sslcompression", "PGSSLCOMPRESSION", Ignored),
    ("sslcrl", "PGSSLCRL", Refused(NO_REVOCATION)),
    ("sslcrldir", "PGSSLCRLDIR", Refused(NO_REVOCATION)),
    ("sslkey", "PGSSLKEY", Taken),
    (
        "sslkeylogfile",
        "",
        Refused("the keys of sessions are not written down here"),
    ),
    ("sslmode", "PGSSLMODE", Taken),
    ("sslnegotiation", "PGSSLNEGOTIATION", Taken),
    (
        "sslpassword",
        "",
        Refused(
            "encrypted keys are not read here; decrypt the file of sslkey (openssl pkey) and protect it",
        ),
    ),
    ("sslrootcert", "PGSSLROOTCERT", Taken),
    ("sslsni", "PGSSLSNI", Ignored),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Taken),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Taken),
    ("target_session_attrs", "PGTARGETSESSIONATTRS", Taken),
    ("tcp_user_timeout", "", Taken),
    ("tty", "PGTTY", Ignored),
    ("user", "PGUSER", Taken),
    // Not sslmode's spelling: see `translated`.
    (
        "ssl",
        "",
        Refused("write sslmode=disable, prefer, require, verify-ca or verify-full instead"),
    ),
];

/// Where a parameter was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    ConnectionString,
    Service { name: String, file: PathBuf },
    Environment(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionString => f.write_str("the database URL"),
            Self::Service { name, file } => {
                write!(f, "the service \"{name}\" of {}", file.display())
            }
            Self::Environment(variable) => f.write_str(variable),
        }
    }
}

/// A value, and where it is from.
#[derive(Clone)]
pub(crate) struct Parameter {
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

/// The parameters of a connection, by libpq's names.
pub(crate) struct Parameters(BTreeMap<&'static str, Parameter>);

impl Parameters {
    /// Reads a connection string, and gathers what it leaves out.
    pub(crate) fn read(text: &str, environment: &LibpqEnvironment) -> Result<Self> {
        let (form, pairs) = dsn::split(text)?;
        let mut parameters = Self(BTreeMap::new());
        let mut behind_secret = false;
        for (name, value) in pairs {
            let (name, value) = translated(name, value);
            let Some((word, usage)) = word(&name) else {
                bail!(unknown(form, &name, behind_secret));
            };
            // In a URL a password ends where the host begins.
            behind_secret |= form == Form::KeyValue && is_secret(word);
            // A later value replaces an earlier one, an empty one too.
            parameters.0.remove(word);
            parameters.put(word, usage, value, Origin::ConnectionString)?;
        }
        parameters.add_service(environment)?;
        for &(word, variable, usage) in WORDS {
            if let Some(value) = environment.get(variable) {
                let origin = Origin::Environment(variable);
                parameters.put(word, usage, value.to_owned(), origin)?;
            }
        }
        parameters.check()?;
        Ok(parameters)
    }

    /// The value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|parameter| parameter.value.as_str())
    }

    /// Where a parameter is from.
    pub(crate) fn origin(&self, name: &str) -> Option<&Origin> {
        self.0.get(name).map(|parameter| &parameter.origin)
    }

    /// A number.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.trim().parse::<i32>() {
            Ok(number) => Ok(Some(number.into())),
            Err(_) => bail!(self.refusal(name, "it has to be a whole number")),
        }
    }

    /// One of the words of a closed list, in any case.
    pub(crate) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let mut found = choices.iter();
        match found.find(|(word, _)| word.eq_ignore_ascii_case(text.trim())) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
                let why = format!("it has to be one of {}", words.join(", "));
                bail!(self.refusal(name, &why))
            }
        }
    }

    /// A refusal that names a parameter, and its value unless that may be a secret.
    pub(crate) fn refusal(&self, name: &str, why: &str) -> anyhow::Error {
        match self.0.get(name) {
            Some(Parameter { value, origin }) => refusal(name, value, origin, why),
            None => anyhow!("{name}: {why}"),
        }
    }

    fn put(&mut self, word: &'static str, usage: Use, value: String, origin: Origin) -> Result<()> {
        if value.is_empty() || self.0.contains_key(word) {
            return Ok(());
        }
        match usage {
            Ignored => Ok(()),
            Refused(why) => Err(refusal(word, &value, &origin, why)),
            Taken => {
                self.0.insert(word, Parameter { value, origin });
                Ok(())
            }
        }
    }

    fn add_service(&mut self, environment: &LibpqEnvironment) -> Result<()> {
        let Some(name) = self.get("service").or_else(|| environment.get("PGSERVICE")) else {
            return Ok(());
        };
        let name = name.to_owned();
        let (file, pairs) = service_file::find(&name, self.get("servicefile"), environment)?;
        for (key, value) in pairs {
            let origin = Origin::Service {
                name: name.clone(),
                file: file.clone(),
            };
            let (key, value) = translated(key, value);
            match word(&key) {
                Some(("service" | "servicefile", _)) => {
                    bail!(
                        "{origin} names another service, which is not supported; libpq does not either"
                    )
                }
                Some((word, usage)) => self.put(word, usage, value, origin)?,
                None => bail!("{origin} has a parameter that is not known here: {key}"),
            }
        }
        Ok(())
    }

    /// Checks words that have one acceptable value.
    fn check(&mut self) -> Result<()> {
        // The spelling of old versions of libpq.
        if let Some(mut parameter) = self.0.remove("requiressl")
            && parameter.value == "1"
        {
            parameter.value = "require".to_owned();
            self.0.entry("sslmode").or_insert(parameter);
        }
        self.choice(
            "client_encoding",
            &[("UTF8", ()), ("UTF-8", ()), ("unicode", ()), ("auto", ())],
        )?;
        if self.get("gssencmode") == Some("require") {
            bail!(self.refusal(
                "gssencmode",
                "require is not supported; use TLS (sslmode=verify-full) instead"
            ));
        }
        self.choice("gssencmode", &[("disable", ()), ("prefer", ())])?;
        let is_off = |value| matches!(value, "false" | "off" | "no" | "0");
        if self.get("replication").is_some_and(|value| !is_off(value)) {
            bail!(self.refusal(
                "replication",
                "a replication connection takes no rows; leave it out"
            ));
        }
        let is_newer = |value| matches!(value, "3.2" | "latest");
        if self.get("min_protocol_version").is_some_and(is_newer) {
            bail!(self.refusal(
                "min_protocol_version",
                "the protocol that is spoken here is 3.0; leave it out"
            ));
        }
        Ok(())
    }
}

/// Replaces spellings of other programs: JDBC's, which libpq translates as well, and
/// tokio-postgres's.
fn translated(name: String, value: String) -> (String, String) {
    match (name.as_str(), value.as_str()) {
        ("ssl", "true") => ("sslmode".to_owned(), "require".to_owned()),
        ("keepalives_retries", _) => ("keepalives_count".to_owned(), value),
        _ => (name, value),
    }
}

fn word(name: &str) -> Option<(&'static str, Use)> {
    let mut words = WORDS.iter();
    let (word, _, usage) = words.find(|(word, _, _)| *word == name)?;
    Some((word, *usage))
}

fn refusal(name: &str, value: &str, origin: &Origin, why: &str) -> anyhow::Error {
    match origin {
        Origin::ConnectionString => anyhow!("{name} in {origin}: {why}"),
        _ if is_secret(name) => anyhow!("{name} in {origin}: {why}"),
        Origin::Environment(variable) => anyhow!("{variable} is '{value}': {why}"),
        Origin::Service { .. } => anyhow!("{name} in {origin} is '{value}': {why}"),
    }
}

/// Whether values of this parameter are never repeated.
fn is_secret(name: &str) -> bool {
    name.contains("password") || name.ends_with("_key") || name.ends_with("_secret")
}

/// Refuses a name that is none. `behind_secret`: it may be the end of a password with a space in it.
fn unknown(form: Form, name: &str, behind_secret: bool) -> String {
    let (source, path_option) = match form {
        Form::Url => ("the database URL", "options=-c%20search_path%3DNAME"),
        Form::KeyValue => (
            "the database connection string",
            "options='-c search_path=NAME'",
        ),
    };
    if behind_secret {
        return format!(
            "{source} has a parameter behind its password that is not known here: check for a misspelt name, or put the password into quotes, as in password='two words'"
        );
    }
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let shown = if plain { name } else { "(not shown)" };
    let known = WORDS.iter().map(|(word, _, _)| *word);
    let near = known
        .map(|word| (strsim::jaro_winkler(name, word), word))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let hint = match near {
        _ if matches!(name, "schema" | "search_path" | "currentSchema") => {
            format!("; write {path_option}")
        }
        Some((alike, word)) if alike > 0.9 => format!("; did you mean {word}?"),
        _ => String::new(),
    };
    format!("{source} has a parameter that is not known here: {shown}{hint}")
}
