//! Ends a server when the process that owns it ends, even if that one is killed.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::LaunchError;

/// A shell that waits for the end of its standard input, a pipe from this process: the system
/// closes it when this process ends.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    /// Watches over the server `pid`; once it has ended the server, it deletes `paths`.
    ///
    /// `lock` stays open until then.
    pub(crate) fn start(pid: u32, paths: &[PathBuf], lock: Stdio) -> Result<Self, LaunchError> {
        // SIGCONT, because a frozen server does not react to SIGQUIT. The server itself kills its
        // frozen sessions after five seconds.
        let script = "read -r _; pid=$1; shift; kill -CONT $pid; kill -QUIT $pid; n=0; \
                      while kill -0 $pid && [ $n -lt 30 ]; do sleep 1; n=$((n+1)); done; rm -rf -- \"$@\"";
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script, "sh", &pid.to_string()])
            .args(paths);
        command.current_dir("/").process_group(0);
        // Its standard output is the lock file, so the lock is held until everything is deleted.
        command
            .stdin(Stdio::piped())
            .stdout(lock)
            .stderr(Stdio::null());
        let shell = command
            .spawn()
            .map_err(LaunchError::io("run", Path::new("/bin/sh")))?;
        Ok(Self { shell })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Its input is still open, so it waits in `read` and has deleted nothing.
        if let Err(error) = self.shell.kill().and_then(|()| self.shell.wait()) {
            tracing::error!(%error, "cannot end the shell that watches over PostgreSQL");
        }
    }
}
