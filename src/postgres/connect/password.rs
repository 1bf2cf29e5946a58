//! Where the password of a connection is from: given, or looked up in libpq's password file.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::environment::LibpqEnvironment;
use super::parameters::{Origin, Parameters};

/// Directories of Unix sockets that count as `localhost` in a password file: libpq's own default,
/// and that of Debian.
const SOCKET_FOLDERS: [&str; 3] = ["/tmp", "/run/postgresql", "/var/run/postgresql"];

/// Where a password is from.
#[derive(Clone, Debug)]
pub(crate) enum PasswordOrigin {
    Given(Origin),
    File(PathBuf),
    /// There is none; perhaps because a file is ignored.
    Nowhere(Option<String>),
}

impl PasswordOrigin {
    /// What to do if it is wrong.
    pub(crate) fn correct(&self) -> String {
        match self {
            Self::Given(origin) => format!("correct user and password in {origin}"),
            Self::File(file) => format!(
                "correct the password in {}, where it was found, or the user",
                file.display()
            ),
            Self::Nowhere(_) => "correct user and password in the database URL".to_owned(),
        }
    }

    /// What to do if there is none and the server asks for one.
    pub(crate) fn provide(&self) -> String {
        let ways = "give it in the database URL, in PGPASSWORD, or in a password file (PGPASSFILE, ~/.pgpass)";
        match self {
            Self::Nowhere(Some(why)) => format!("{why}; or {ways}"),
            _ => ways.to_owned(),
        }
    }
}

/// A password file. Read at each connect, so that a rotated password is used without a restart.
#[derive(Clone, Debug)]
pub(crate) struct PasswordFile {
    path: PathBuf,
    /// One that is named should exist.
    is_named: bool,
}

/// What a line of a password file is for.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) user: String,
}

impl PasswordFile {
    pub(crate) fn of(parameters: &Parameters, environment: &LibpqEnvironment) -> Option<Self> {
        match parameters.get("passfile") {
            Some(path) => Some(Self {
                path: PathBuf::from(path),
                is_named: true,
            }),
            None => environment.in_home(".pgpass").map(|path| Self {
                path,
                is_named: false,
            }),
        }
    }

    /// Reads the file; `None` if there is none. The error says why it is ignored.
    pub(crate) fn read(&self) -> Result<Option<String>, String> {
        let path = self.path.display();
        let ignored = |why: &str| Err(format!("the password file {path} is ignored: {why}"));
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(_) if !self.is_named => return Ok(None),
            Err(error) => return ignored(&format!("it cannot be read ({error})")),
        };
        if !metadata.is_file() {
            return ignored("it is not a plain file");
        }
        if metadata.mode() & 0o077 != 0 {
            return ignored("others than its owner may read or write it; run chmod 600 on it");
        }
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text)),
            Err(error) => ignored(&format!("it cannot be read ({error})")),
        }
    }

    /// The password of an account, and where it is from.
    pub(crate) fn find(&self, account: &Account) -> (Option<String>, PasswordOrigin) {
        match self.read() {
            Err(why) => (None, PasswordOrigin::Nowhere(Some(why))),
            Ok(None) => (None, PasswordOrigin::Nowhere(None)),
            Ok(Some(text)) => match text.lines().find_map(|line| password(line, account)) {
                Some(password) => (Some(password), PasswordOrigin::File(self.path.clone())),
                None => {
                    let why = format!("no line of {} is for this server", self.path.display());
                    (None, PasswordOrigin::Nowhere(Some(why)))
                }
            },
        }
    }
}

/// The password of a line `host:port:database:user:password`, if the line is for the account.
pub(crate) fn password(line: &str, account: &Account) -> Option<String> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.starts_with('#') {
        return None;
    }
    let is_local =
        account.host.is_empty() || SOCKET_FOLDERS.contains(&account.host.trim_end_matches('/'));
    let host = match is_local {
        true => "localhost",
        false => &account.host,
    };
    let port = account.port.to_string();
    let mut rest = line;
    for (i, expected) in [host, &port, &account.database, &account.user]
        .into_iter()
        .enumerate()
    {
        let (field, is_star, after) = field(rest)?;
        let is_path = i == 0 && field == account.host;
        if !is_star && field != expected && !is_path {
            return None;
        }
        rest = after?;
    }
    let (password, _, _) = field(rest)?;
    (!password.is_empty()).then_some(password)
}

/// The first field of a line, whether it is a bare `*`, and what stands behind its `:`.
fn field(text: &str) -> Option<(String, bool, Option<&str>)> {
    let mut field = String::new();
    let mut chars = text.chars();
    let after = loop {
        match chars.next() {
            None => break None,
            Some(':') => break Some(chars.as_str()),
            Some('\\') => field.extend(chars.next()),
            Some(c) => field.push(c),
        }
    };
    let length = text.len() - after.map_or(0, |after| after.len() + 1);
    Some((field, &text[..length] == "*", after))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn account(host: &str, database: &str, user: &str) -> Account {
        Account {
            host: host.to_owned(),
            port: 5432,
            database: database.to_owned(),
            user: user.to_owned(),
        }
    }

    #[test]
    fn a_line_is_matched_as_libpq_matches_it() {
        let ada = account("db.test", "events", "ada");
        for (line, found) in [
            ("db.test:5432:events:ada:hunter2", Some("hunter2")),
            ("db.test:5432:events:ada:hunter2\r", Some("hunter2")),
            ("*:*:*:*:hunter2", Some("hunter2")),
            (r"*:*:*:*:a\:b\\c", Some(r"a:b\c")),
            ("*:*:*:*:a:b", Some("a")),
            ("*:*:*:ada:pass word", Some("pass word")),
            (r"\*:*:*:*:hunter2", None),
            ("db.tes*:5432:events:ada:hunter2", None),
            ("db.test:5433:events:ada:hunter2", None),
            ("db.test:5432:other:ada:hunter2", None),
            ("db.test:5432:events:eve:hunter2", None),
            ("# *:*:*:*:hunter2", None),
            ("*:*:*:*:", None),
            ("*:*:*:*", None),
            ("", None),
        ] {
            assert_eq!(password(line, &ada).as_deref(), found, "{line}");
        }
        let odd = account("::1", "a:b", r"do\main");
        assert!(password(r"\:\:1:5432:a\:b:do\\main:x", &odd).is_some());
        for socket in ["/var/run/postgresql", "/tmp"] {
            let local = account(socket, "events", "ada");
            assert!(password("localhost:*:*:*:x", &local).is_some());
            assert!(password(&format!("{socket}:*:*:*:x"), &local).is_some());
        }
        let elsewhere = account("/srv/pg", "events", "ada");
        assert!(password("localhost:*:*:*:x", &elsewhere).is_none());
        assert!(password("/srv/pg:*:*:*:x", &elsewhere).is_some());
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        fs::write(&path, "# first\nother:*:*:*:no\n*:*:*:ada:hunter2\n").unwrap();
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let file = PasswordFile {
            path: path.clone(),
            is_named: true,
        };
        let ada = account("db.test", "events", "ada");
        set(0o600);
        assert_eq!(file.find(&ada).0.as_deref(), Some("hunter2"));
        let (none, origin) = file.find(&account("db.test", "events", "eve"));
        assert_eq!(none, None);
        assert!(origin.provide().contains("no line of"), "{origin:?}");
        set(0o640);
        let (none, origin) = file.find(&ada);
        assert_eq!(none, None);
        assert!(origin.provide().contains("chmod 600"), "{origin:?}");
        fs::remove_file(&path).unwrap();
        let (_, origin) = file.find(&ada);
        assert!(origin.provide().contains("cannot be read"), "{origin:?}");
    }
}
