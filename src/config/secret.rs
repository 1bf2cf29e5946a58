//! Secrets: given as they are, or in a file that is named.
//!
//! `DATABASE_URL_FILE` names a file whose contents are `DATABASE_URL`, and so on for each secret.
//! A flag counts before the environment, whichever of the two it is. No message shows a secret.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};

use super::parse;

/// Makes a type an argument of commands: it is parsed as `$given`, whose `resolve` then makes it of
/// what was given, in which a file may stand for a secret.
macro_rules! resolved {
    ($type:ty, $given:ty) => {
        impl clap::Args for $type {
            fn augment_args(command: clap::Command) -> clap::Command {
                <$given as clap::Args>::augment_args(command)
            }

            fn augment_args_for_update(command: clap::Command) -> clap::Command {
                <$given as clap::Args>::augment_args_for_update(command)
            }
        }

        impl clap::FromArgMatches for $type {
            fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
                <$given as clap::FromArgMatches>::from_arg_matches(matches)?.resolve(matches)
            }

            fn update_from_arg_matches(
                &mut self,
                matches: &clap::ArgMatches,
            ) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}
pub(super) use resolved;

/// Ids of the secrets that have to be given, and what an operator has to know about them.
const REQUIRED: [(&str, &str); 3] = [
    (
        "database_url",
        "postgres://user:password@host:5432/database",
    ),
    (
        "api_key_hash_secret",
        "the same as in every component of the suite; where the suite has none, pass --api-key-hash-secret=",
    ),
    (
        "exposure_hash_salt",
        "the same as in every component of the suite",
    ),
];

/// Text that is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The key of the hashes of API keys.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// The key under which API keys are hashed, without white space around it, as in the suite.
    pub api_key_hash_secret: Secret,
    /// The key under which they were hashed before; for lookups alone.
    pub api_key_hash_secret_previous: Option<Secret>,
}

#[derive(Args)]
#[command(next_help_heading = "Secrets")]
struct SecretsArguments {
    /// Key of the HMAC under which API keys are stored, without white space around it; the same in every component of the suite
    #[arg(
        long,
        env = "API_KEY_HASH_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    api_key_hash_secret: Option<Secret>,

    /// A file that holds it
    #[arg(long, env = "API_KEY_HASH_SECRET_FILE", value_name = "FILE", value_parser = parse::path())]
    api_key_hash_secret_file: Option<PathBuf>,

    /// The key before it, while keys are rotated: keys that were stored under it go on working, new ones are stored under the other
    #[arg(
        long,
        env = "API_KEY_HASH_SECRET_PREVIOUS",
        value_name = "SECRET",
        hide_env_values = true
    )]
    api_key_hash_secret_previous: Option<Secret>,

    /// A file that holds it
    #[arg(long, env = "API_KEY_HASH_SECRET_PREVIOUS_FILE", value_name = "FILE", value_parser = parse::path())]
    api_key_hash_secret_previous_file: Option<PathBuf>,
}

resolved!(Secrets, SecretsArguments);

impl SecretsArguments {
    fn resolve(self, matches: &ArgMatches) -> Result<Secrets, clap::Error> {
        let trimmed = |secret: Secret| Secret::from(secret.expose().trim());
        let api_key_hash_secret = required(
            matches,
            "api_key_hash_secret",
            self.api_key_hash_secret,
            self.api_key_hash_secret_file,
        )?;
        let previous = optional(
            matches,
            "api_key_hash_secret_previous",
            self.api_key_hash_secret_previous,
            self.api_key_hash_secret_previous_file,
        )?;
        Ok(Secrets {
            api_key_hash_secret: trimmed(api_key_hash_secret),
            api_key_hash_secret_previous: previous.map(trimmed),
        })
    }
}

/// The key of the hashes of user, anonymous and session ids.
#[derive(Clone, Debug)]
pub struct Salt {
    /// The key, with all its white space, as in the suite.
    pub exposure_hash_salt: Secret,
}

#[derive(Args)]
#[command(next_help_heading = "Secrets")]
struct SaltArguments {
    /// Key of the HMAC that replaces raw user, anonymous and session ids; the same in every component of the suite, white space included
    #[arg(
        long,
        env = "EXPOSURE_HASH_SALT",
        value_name = "SECRET",
        hide_env_values = true
    )]
    exposure_hash_salt: Option<Secret>,

    /// A file that holds it; a line end at its end does not count
    #[arg(long, env = "EXPOSURE_HASH_SALT_FILE", value_name = "FILE", value_parser = parse::path())]
    exposure_hash_salt_file: Option<PathBuf>,
}

impl Salt {
    /// What an operator should know about the salt.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        let salt = self.exposure_hash_salt.expose();
        (salt != salt.trim()).then_some(
            "EXPOSURE_HASH_SALT begins or ends with white space, which counts: hashes differ from \
             those of a component whose salt has none; remove it unless every component has it",
        )
    }
}

resolved!(Salt, SaltArguments);

impl SaltArguments {
    fn resolve(self, matches: &ArgMatches) -> Result<Salt, clap::Error> {
        let exposure_hash_salt = required(
            matches,
            "exposure_hash_salt",
            self.exposure_hash_salt,
            self.exposure_hash_salt_file,
        )?;
        Ok(Salt { exposure_hash_salt })
    }
}

/// Whether a setting has to be given, itself or in a file.
#[must_use]
pub fn is_required(id: &str) -> bool {
    REQUIRED.iter().any(|(required, _)| *required == id)
}

/// Names all secrets that a command needs and was not given.
pub(super) fn missing(command: &clap::Command, matches: &ArgMatches) -> Option<clap::Error> {
    let missing: Vec<_> = REQUIRED
        .iter()
        .filter(|(id, _)| {
            let is_given = |id: &str| matches.value_source(id).is_some();
            let takes = command
                .get_arguments()
                .any(|argument| argument.get_id() == id);
            takes && !is_given(id) && !is_given(&format!("{id}_file"))
        })
        .map(|(id, _)| *id)
        .collect();
    (!missing.is_empty())
        .then(|| refusal(ErrorKind::MissingRequiredArgument, &how_to_give(&missing)))
}

pub(super) fn required(
    matches: &ArgMatches,
    id: &str,
    given: Option<Secret>,
    file: Option<PathBuf>,
) -> Result<Secret, clap::Error> {
    optional(matches, id, given, file)?
        .ok_or_else(|| refusal(ErrorKind::MissingRequiredArgument, &how_to_give(&[id])))
}

/// A secret that is no setting of `serve`: itself, or the contents of its file. `names` are the id of
/// its flag and its variable; `hint` says how to give it.
pub(super) fn in_a_file(
    matches: &ArgMatches,
    (id, variable): (&str, &str),
    given: Option<Secret>,
    file: Option<PathBuf>,
    hint: &str,
) -> Result<Secret, clap::Error> {
    named(matches, id, variable, given, file)?
        .ok_or_else(|| refusal(ErrorKind::MissingRequiredArgument, hint))
}

/// The secret itself, or the contents of its file.
fn optional(
    matches: &ArgMatches,
    id: &str,
    given: Option<Secret>,
    file: Option<PathBuf>,
) -> Result<Option<Secret>, clap::Error> {
    named(matches, id, &variable(id), given, file)
}

/// The secret itself, or the contents of its file. `id` is that of its flag.
pub(super) fn named(
    matches: &ArgMatches,
    id: &str,
    variable: &str,
    given: Option<Secret>,
    file: Option<PathBuf>,
) -> Result<Option<Secret>, clap::Error> {
    let (given, file) = match (given, file) {
        (Some(given), Some(file)) => {
            let is_flag = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
            match (is_flag(id), is_flag(&format!("{id}_file"))) {
                (true, false) => (Some(given), None),
                (false, true) => (None, Some(file)),
                _ => {
                    return Err(refusal(
                        ErrorKind::ArgumentConflict,
                        &format!(
                            "both {variable} and {variable}_FILE are given ({flag}, {flag}-file): remove one of them",
                            flag = flag(id)
                        ),
                    ));
                }
            }
        }
        one => one,
    };
    match file {
        None => Ok(given),
        Some(file) => match read(&file) {
            Ok(secret) => Ok(Some(secret)),
            Err(why) => Err(refusal(
                ErrorKind::ValueValidation,
                &format!(
                    "{}_FILE ({}-file) is '{}': {why}",
                    variable,
                    flag(id),
                    file.display()
                ),
            )),
        },
    }
}

/// Reads a file without the line end at its end.
fn read(file: &Path) -> Result<Secret, String> {
    let bytes = std::fs::read(file).map_err(|error| {
        format!("this file cannot be read ({error}); check the path and its permissions")
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| "this file is not UTF-8; a secret is text".to_owned())?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.trim().is_empty() {
        return Err("this file is empty; write the secret into it".to_owned());
    }
    Ok(Secret::from(secret))
}

fn how_to_give(ids: &[&str]) -> String {
    let mut text =
        "these settings are required and not given (an empty variable counts as not given):"
            .to_owned();
    for id in ids {
        let hint = REQUIRED.iter().find(|(required, _)| required == id);
        text.push_str(&format!(
            "\n  {variable} or {flag}: {hint}; or {variable}_FILE: a file that holds it",
            variable = variable(id),
            flag = flag(id),
            hint = hint.map_or("", |(_, hint)| *hint),
        ));
    }
    text
}

fn refusal(kind: ErrorKind, text: &str) -> clap::Error {
    clap::Error::raw(kind, format!("{text}\n"))
}

fn variable(id: &str) -> String {
    id.to_ascii_uppercase()
}

fn flag(id: &str) -> String {
    format!("--{}", id.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    fn file(contents: &[u8]) -> Result<Secret, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, contents).unwrap();
        read(&path)
    }

    #[test]
    fn a_file_holds_a_secret_without_its_last_line_end() {
        for (contents, secret) in [
            (&b"s3cret"[..], "s3cret"),
            (b"s3cret\n", "s3cret"),
            (b"s3cret\r\n", "s3cret"),
            (b"s3cret\n\n", "s3cret\n"),
            (b" s3cret \n", " s3cret "),
        ] {
            assert_eq!(file(contents), Ok(Secret::from(secret)), "{contents:?}");
        }
        for (contents, why) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"\xff\xfe", "is not UTF-8"),
        ] {
            assert!(file(contents).unwrap_err().contains(why), "{contents:?}");
        }
        let gone = read(Path::new("/no/such/file")).unwrap_err();
        assert!(gone.contains("cannot be read"), "{gone}");
    }

    #[test]
    fn white_space_is_trimmed_from_the_secret_of_keys_and_warned_of_in_the_salt() {
        let command = Secrets::augment_args(clap::Command::new("test").no_binary_name(true));
        let matches = command.try_get_matches_from(["--api-key-hash-secret", " pepper\n"]);
        let secrets = Secrets::from_arg_matches(&matches.unwrap()).unwrap();
        assert_eq!(secrets.api_key_hash_secret.expose(), "pepper");
        for (salt, warns) in [
            ("salt", false),
            ("a b", false),
            ("salt\n", true),
            (" salt", true),
        ] {
            let exposure_hash_salt = Secret::from(salt);
            assert_eq!(Salt { exposure_hash_salt }.warning().is_some(), warns);
        }
    }
}
