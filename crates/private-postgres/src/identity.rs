//! The user that PostgreSQL's programs run as: they refuse to run as root.
//!
//! Invariant: a process that [`Identity::command`] starts sees a uid that is not 0 and has a name
//! (`initdb` accepts no other).
//! To find out whether that user can enter a directory, `cd` is run as that user: ACLs and
//! network file systems do not follow the mode bits.
//! Knows nothing of clusters or of where the programs are.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use crate::error::LaunchError;

/// The user that PostgreSQL's programs run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// This process runs as an ordinary user with a name, and so do the programs.
    Caller,
    /// This process runs as root, and the programs as this user.
    Account(Account),
    /// The programs run as the user of this process, which a user namespace maps to this user:
    /// for a uid without a name, and for a root that may not change its uid.
    Mapped(Account),
}

/// A line of `/etc/passwd`: the three fields that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

/// Variables that change where a server listens or what a client prints; they are removed.
const MISLEADING_ENV: [&str; 4] = ["PGDATA", "PGPORT", "PGTZ", "PGOPTIONS"];

impl Identity {
    /// Finds an identity that works for the user of this process.
    pub(crate) fn detect() -> Result<Self, LaunchError> {
        let accounts = accounts();
        let uid = geteuid().as_raw();
        if uid != 0 {
            // `id` also asks directory services, for users who are not in /etc/passwd.
            if accounts.iter().any(|account| account.uid == uid) || id_knows_us() {
                return Ok(Self::Caller);
            }
        }
        let preferred = ["postgres", "nobody"];
        let known = preferred
            .iter()
            .filter_map(|name| accounts.iter().find(|account| account.name == *name));
        let candidates: Vec<Account> = known
            .chain(
                accounts
                    .iter()
                    .filter(|account| !preferred.contains(&account.name.as_str())),
            )
            .filter(|account| account.uid != 0)
            .cloned()
            .collect();
        if uid == 0 {
            // Only these two: another account may be one of a person.
            let usable = candidates
                .iter()
                .filter(|account| preferred.contains(&account.name.as_str()))
                .map(|account| Self::Account(account.clone()));
            if let Some(found) = usable.into_iter().find(Self::works) {
                return Ok(found);
            }
        }
        if let Some(account) = candidates.into_iter().next() {
            let mapped = Self::Mapped(account);
            if mapped.works() {
                return Ok(mapped);
            }
        }
        Err(LaunchError::Failed(if uid == 0 {
            "PostgreSQL refuses to run as root, and this machine lets us use neither the user \
             `postgres` nor `nobody`: run as an ordinary user, or use a PostgreSQL server of your own"
                .to_owned()
        } else {
            format!(
                "user id {uid} has no name, which PostgreSQL needs, and user namespaces are not allowed \
                 here: add a line for {uid} to /etc/passwd, run as a user with a name, or use a \
                 PostgreSQL server of your own"
            )
        }))
    }

    /// As root, a cluster is run by the user who owns it: it may date from a start without root.
    pub(crate) fn for_cluster(self, cluster: &Path) -> Self {
        match (self, fs::metadata(cluster)) {
            (Self::Account(account), Ok(found)) if ![0, account.uid].contains(&found.uid()) => {
                let name = format!("of uid {}", found.uid());
                Self::Account(Account {
                    name,
                    uid: found.uid(),
                    gid: found.gid(),
                })
            }
            (identity, _) => identity,
        }
    }

    /// A command that runs `program` with this identity, in `/`: that user may not be able to
    /// read the current directory.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = match self {
            Self::Caller => Command::new(program),
            Self::Account(account) => {
                let mut command = Command::new(program);
                command.uid(account.uid).gid(account.gid);
                command
            }
            Self::Mapped(account) => {
                let mut command = Command::new("unshare");
                command
                    .arg("-U")
                    .arg(format!("--map-user={}", account.uid))
                    .arg("--")
                    .arg(program);
                command
            }
        };
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .env("LC_ALL", "C");
        for name in MISLEADING_ENV {
            command.env_remove(name);
        }
        command
    }

    /// Whether this identity may enter `dir`.
    pub(crate) fn can_enter(&self, dir: &Path) -> bool {
        let mut command = self.command(Path::new("/bin/sh"));
        command.args(["-c", "cd -- \"$1\"", "sh"]).arg(dir);
        succeeds(&mut command)
    }

    /// Makes this identity the owner of `path`.
    pub(crate) fn give(&self, path: &Path) -> Result<(), LaunchError> {
        match self {
            Self::Account(account) => chown(path, Some(account.uid), Some(account.gid)).map_err(
                LaunchError::io(&format!("give user `{}` the path", account.name), path),
            ),
            Self::Caller | Self::Mapped(_) => Ok(()),
        }
    }

    /// The uid that owns what this identity creates, as seen outside a user namespace.
    pub(crate) fn owner_uid(&self) -> u32 {
        match self {
            Self::Account(account) => account.uid,
            Self::Caller | Self::Mapped(_) => geteuid().as_raw(),
        }
    }

    /// For error texts: "user `postgres`".
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Caller => "this user".to_owned(),
            Self::Account(account) | Self::Mapped(account) => format!("user `{}`", account.name),
        }
    }

    fn works(&self) -> bool {
        succeeds(self.command(Path::new("/bin/sh")).args(["-c", ":"]))
    }
}

/// Whether this process runs as root: the programs then run as another user.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

fn accounts() -> Vec<Account> {
    parse_passwd(&fs::read_to_string("/etc/passwd").unwrap_or_default())
}

fn parse_passwd(text: &str) -> Vec<Account> {
    let account = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name, uid, gid })
    };
    text.lines().filter_map(account).collect()
}

fn id_knows_us() -> bool {
    succeeds(Command::new("id").arg("-un"))
}

fn succeeds(command: &mut Command) -> bool {
    let status: io::Result<_> = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn passwd_lines_that_make_no_sense_are_skipped() {
        let text = "root:x:0:0:root:/root:/bin/bash\n# comment\nnobody:*:-2:-2::/:\n\npostgres:x:101:104:P,,,:/var:/bin/sh\n";
        let names: Vec<(String, u32, u32)> = parse_passwd(text)
            .into_iter()
            .map(|a| (a.name, a.uid, a.gid))
            .collect();
        assert_eq!(
            names,
            [("root".to_owned(), 0, 0), ("postgres".to_owned(), 101, 104)]
        );
    }

    #[test]
    fn the_identity_found_here_is_not_root_in_its_own_eyes() {
        let identity = Identity::detect().unwrap();
        let output = identity
            .command(Path::new("id"))
            .arg("-u")
            .output()
            .unwrap();
        assert!(output.status.success());
        assert_ne!(String::from_utf8(output.stdout).unwrap().trim(), "0");
    }

    #[test]
    fn a_directory_below_a_closed_one_cannot_be_entered() {
        if !is_root() {
            println!("skipped: only root runs PostgreSQL as another user");
            return;
        }
        let closed = tempfile::tempdir().unwrap();
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let below = closed.path().join("below");
        fs::create_dir(&below).unwrap();
        let identity = Identity::detect().unwrap();
        assert!(identity.can_enter(Path::new("/")));
        assert_eq!(
            identity.can_enter(&below),
            matches!(identity, Identity::Mapped(_))
        );
    }
}
