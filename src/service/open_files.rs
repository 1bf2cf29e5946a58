//! How many HTTP connections fit into the limit on open files.
//!
//! Beyond that, a connection would take the file that the spool needs for its next segment, or a
//! writer for its connection to Postgres.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::finding::{Finding, Severity};

/// Files for all but the HTTP connections within the cap: connections that are accepted beyond it
/// (16) or evicted (64; as many to the listener for operators), open segments and those being read (about 40), up to 20 connections to
/// Postgres, the listeners, the runtime and the logs (about 12), and a quarter as many again.
const KEPT: u64 = 270;

/// Raises the soft limit to the hard one. Returns how many of `wanted` connections may be open at
/// once, and a finding if that is fewer.
pub(crate) fn connections_max(wanted: usize) -> (usize, Option<Finding>) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // The kernel may refuse the higher soft limit; the old one then stays.
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    };
    let most = files.map_or(usize::MAX, within);
    if wanted <= most {
        return (wanted, None);
    }
    let finding = Finding::new(
        Severity::Note,
        "open_files_few",
        format!(
            "this process may open {} files, too few for --connections-max (INGEST_CONNECTIONS_MAX) {wanted}",
            files.unwrap_or(u64::MAX)
        ),
        format!("at most {most} HTTP connections are open at once"),
        "raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd), or lower --connections-max",
    );
    (most, Some(finding))
}

/// The connections that fit under a limit of `files`.
fn within(files: u64) -> usize {
    let kept = KEPT.min(files / 4 * 3);
    usize::try_from(files - kept).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_for_the_spool_and_for_postgres() {
        assert_eq!(within(65_536), 65_536 - 270);
        assert_eq!(within(300), 75);
        assert_eq!(within(256), 64);
        assert_eq!(within(64), 16);
        assert_eq!(within(1), 1);
        assert_eq!(within(0), 1);
    }
}
