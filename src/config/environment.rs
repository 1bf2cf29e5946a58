//! The environment: which of its variables count, and what is said about a bad one.
//!
//! An empty variable counts as unset. A refused value is reported with the names of its flag and
//! its variable. A variable that begins like one of the settings and is none is reported, too: it
//! is a misspelt one.

use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};

use super::secret;

/// What the names of the service's own variables begin with.
const PREFIX: &str = "INGEST_";

/// A name that is less like a known one than this is not taken for a misspelt one.
const LIKENESS_MIN: f64 = 0.85;

/// Reads a command line; what it leaves out comes from the environment.
///
/// # Errors
/// Names the flag and the variable of a value that is missing or refused, and what is accepted.
pub fn read(
    command: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<ArgMatches, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = effective(command.clone());
    let arguments = with_negative_numbers(&command, &arguments);
    not_utf8(&command, &arguments)?;
    match command.clone().try_get_matches_from(&arguments) {
        Ok(matches) => {
            match secret::missing(leaf(&command, &matches).0, leaf(&command, &matches).1) {
                Some(missing) => Err(missing),
                None => Ok(matches),
            }
        }
        Err(error) => Err(explained(&command, &arguments, error)),
    }
}

/// The variables of this process that are text and not blank.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        (!value.trim().is_empty()).then_some((name, value))
    })
}

/// A sentence for each variable that looks like one of the settings and is none. `others` are
/// variables that are known and are no settings.
pub fn unknown(
    command: &Command,
    others: &[&str],
    variables: impl IntoIterator<Item = (String, String)>,
) -> Vec<String> {
    let mut known: Vec<String> = settings(command);
    known.extend(others.iter().map(|&name| name.to_owned()));
    let mut unknown: Vec<_> = variables
        .into_iter()
        .filter(|(name, value)| {
            name.to_ascii_uppercase().starts_with(PREFIX)
                && !known.contains(name)
                && !is_of_kubernetes(name, value)
        })
        .map(|(name, _)| match nearest(&name, &known) {
            Some(near) => format!(
                "the environment variable {name} is not a setting and has no effect; did you mean {near}?"
            ),
            None => format!(
                "the environment variable {name} is not a setting and has no effect; `recsys-ingest serve --help` lists those there are"
            ),
        })
        .collect();
    unknown.sort_unstable();
    unknown
}

/// The command without the variables that are blank.
fn effective(command: Command) -> Command {
    command
        .mut_args(|argument| match value_of(&argument) {
            Some(value) if is_blank(&value) => argument.env(Resettable::Reset),
            _ => argument,
        })
        .mut_subcommands(effective)
}

fn value_of(argument: &Arg) -> Option<OsString> {
    std::env::var_os(argument.get_env()?)
}

fn is_blank(value: &OsString) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}

/// The subcommand that was called, and its own arguments.
fn leaf<'a>(
    mut command: &'a Command,
    mut matches: &'a ArgMatches,
) -> (&'a Command, &'a ArgMatches) {
    while let Some((name, inside)) = matches.subcommand()
        && let Some(found) = command.find_subcommand(name)
    {
        (command, matches) = (found, inside);
    }
    (command, matches)
}

/// The commands that a command line calls, outermost first.
fn called<'a>(command: &'a Command, arguments: &[OsString]) -> Vec<&'a Command> {
    let mut called = vec![command];
    for argument in arguments {
        let inner = *called.last().expect("it begins with one");
        called.extend(
            argument
                .to_str()
                .and_then(|name| inner.find_subcommand(name)),
        );
    }
    called
}

/// The command line with each negative number joined to the flag before it. Otherwise the library takes
/// it for another flag, and names neither the setting nor what is accepted.
fn with_negative_numbers(command: &Command, arguments: &[OsString]) -> Vec<OsString> {
    let called = called(command, arguments);
    let takes_value = |flag: &str| {
        let mut all = called.iter().flat_map(|command| command.get_arguments());
        all.any(|argument| {
            argument.get_long() == Some(flag)
                && argument.get_action().takes_values()
                && argument
                    .get_num_args()
                    .is_none_or(|count| count.min_values() > 0)
        })
    };
    let is_negative = |text: &str| {
        let number = text.strip_prefix('-');
        number.is_some_and(|text| text.starts_with(|c: char| c.is_ascii_digit()))
    };
    let mut joined: Vec<OsString> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let flag = joined
            .last()
            .and_then(|last| last.to_str()?.strip_prefix("--"));
        match (flag, argument.to_str()) {
            (Some(flag), Some(number)) if is_negative(number) && takes_value(flag) => {
                let both = format!("--{flag}={number}");
                joined.pop();
                joined.push(both.into());
            }
            _ => joined.push(argument.clone()),
        }
    }
    joined
}

/// Refuses a variable that is not UTF-8 where text is needed: the library would not name it.
fn not_utf8(command: &Command, arguments: &[OsString]) -> Result<(), clap::Error> {
    for command in called(command, arguments) {
        for argument in command.get_arguments() {
            let is_path = argument.get_value_parser().type_id() == TypeId::of::<PathBuf>();
            if !is_path && value_of(argument).is_some_and(|value| value.to_str().is_none()) {
                let name = Setting::of(argument, false).name;
                return Err(clap::Error::raw(
                    ErrorKind::InvalidUtf8,
                    format!("{name} is not UTF-8; it has to be text\n"),
                ));
            }
        }
    }
    Ok(())
}

/// How a setting is named in a message.
struct Setting {
    name: String,
    is_secret: bool,
}

impl Setting {
    fn of(argument: &Arg, is_flag: bool) -> Self {
        let flag = argument.get_long().unwrap_or_default();
        let variable = argument.get_env().unwrap_or_default().to_string_lossy();
        Self {
            name: match is_flag {
                true => format!("the flag --{flag} (environment variable {variable})"),
                false => format!("the environment variable {variable} (flag --{flag})"),
            },
            is_secret: argument.is_hide_env_values_set(),
        }
    }
}

/// Names the variable beside the flag, and says what is accepted.
fn explained(command: &Command, arguments: &[OsString], error: clap::Error) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    if !matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
    ) {
        return error;
    }
    let (Some(named), Some(value)) = (
        text(ContextKind::InvalidArg),
        text(ContextKind::InvalidValue),
    ) else {
        return error;
    };
    let flag = named.split_whitespace().next().unwrap_or_default();
    let flag = flag.split(['=', '[']).next().unwrap_or_default();
    let found = called(command, arguments).into_iter().find_map(|command| {
        command.get_arguments().find(|argument| {
            argument.get_env().is_some()
                && argument
                    .get_long()
                    .is_some_and(|long| Some(long) == flag.strip_prefix("--"))
        })
    });
    let Some(argument) = found else {
        return error;
    };
    let is_flag = arguments
        .iter()
        .filter_map(|text| text.to_str())
        .any(|text| {
            text == flag
                || text
                    .strip_prefix(flag)
                    .is_some_and(|rest| rest.starts_with('='))
        });
    let Setting { name, is_secret } = Setting::of(argument, is_flag);
    let accepted = match (
        std::error::Error::source(&error),
        error.get(ContextKind::ValidValue),
    ) {
        (Some(why), _) => why.to_string(),
        (None, Some(ContextValue::Strings(words))) => {
            format!("it has to be one of {}", words.join(", "))
        }
        _ => "it needs a value".to_owned(),
    };
    let shown = match is_secret {
        true => String::new(),
        false => format!(" is '{value}'"),
    };
    clap::Error::raw(error.kind(), format!("{name}{shown}: {accepted}\n"))
}

/// The variables of all settings.
fn settings(command: &Command) -> Vec<String> {
    let own = command
        .get_arguments()
        .filter_map(|argument| argument.get_env())
        .map(|name| name.to_string_lossy().into_owned());
    let mut all: Vec<_> = own
        .chain(command.get_subcommands().flat_map(settings))
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let name = name.to_ascii_uppercase();
    // What all of them begin with says nothing.
    let tail = |name: &str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let alike = |known: &String| {
        let (a, b) = (tail(&name), tail(known));
        // A word too few, or too many, is as common as a wrong letter.
        let is_part = a.len().min(b.len()) > 3 && (a.contains(&b) || b.contains(&a));
        let alike = strsim::jaro_winkler(&a, &b);
        if is_part {
            alike.max(LIKENESS_MIN)
        } else {
            alike
        }
    };
    known
        .iter()
        .map(|known| (alike(known), known))
        .filter(|(alike, _)| *alike >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known.as_str())
}

/// Whether Kubernetes has set a variable, for a service whose name begins with `ingest`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    fn command() -> Command {
        let with = |name, env| Arg::new(name).long(name).env(env);
        Command::new("test").subcommand(
            Command::new("serve")
                .arg(with("listen", "INGEST_LISTEN"))
                .arg(with("body-bytes-max", "INGEST_BODY_BYTES_MAX"))
                .arg(with("spool-dir", "INGEST_SPOOL_DIR"))
                .arg(with("seal", "INGEST_SEAL")),
        )
    }

    #[test]
    fn a_negative_number_belongs_to_the_flag_before_it() {
        let command = Command::new("test").arg(Arg::new("v").long("v").action(ArgAction::Count));
        let command = command.subcommand(
            Command::new("serve")
                .arg(Arg::new("most").long("most").env("INGEST_MOST"))
                .arg(Arg::new("seal").long("seal").num_args(0..=1)),
        );
        for (given, joined) in [
            ("serve --most -1", "serve --most=-1"),
            ("serve --most -1s --seal no", "serve --most=-1s --seal no"),
            ("serve --most 1 --seal -1", "serve --most 1 --seal -1"),
            ("serve --most --seal", "serve --most --seal"),
            ("serve --other -1 --most=2", "serve --other -1 --most=2"),
            ("--v -1 serve", "--v -1 serve"),
        ] {
            let words = |text: &str| -> Vec<OsString> { text.split(' ').map(Into::into).collect() };
            let found = with_negative_numbers(&command, &words(given));
            assert_eq!(found, words(joined), "{given}");
        }
    }

    #[test]
    fn a_misspelt_variable_is_reported_with_the_nearest_setting() {
        for (name, near) in [
            ("INGEST_LISTN", Some("INGEST_LISTEN")),
            ("INGEST_LISTEN_ADDR", Some("INGEST_LISTEN")),
            ("ingest_listen", Some("INGEST_LISTEN")),
            ("INGEST_BODY_MAX_BYTES", Some("INGEST_BODY_BYTES_MAX")),
            ("INGEST_SPOOLDIR", Some("INGEST_SPOOL_DIR")),
            ("INGEST_SPOOL", Some("INGEST_SPOOL_DIR")),
            ("INGEST_URLS", Some("INGEST_URL")),
            ("INGEST_COLOUR", None),
        ] {
            let variables = [(name.to_owned(), "x".to_owned())];
            let said = unknown(&command(), &["INGEST_URL"], variables);
            assert_eq!(said.len(), 1, "{name}");
            assert!(said[0].contains(name), "{said:?}");
            match near {
                Some(near) => assert!(
                    said[0].ends_with(&format!("did you mean {near}?")),
                    "{said:?}"
                ),
                None => assert!(said[0].contains("lists those"), "{said:?}"),
            }
        }
        for (name, value) in [
            ("INGEST_LISTEN", ":8080"),
            ("INGEST_URL", "http://127.0.0.1:8080"),
            ("INGEST_SERVICE_HOST", "10.0.0.1"),
            ("INGEST_SERVICE_PORT_HTTP", "8080"),
            ("INGEST_PORT", "tcp://10.0.0.1:8080"),
            ("INGEST_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("PATH", "/bin"),
        ] {
            let variables = [(name.to_owned(), value.to_owned())];
            let said = unknown(&command(), &["INGEST_URL"], variables);
            assert!(said.is_empty(), "{said:?}");
        }
    }
}
