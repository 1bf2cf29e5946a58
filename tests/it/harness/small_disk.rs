//! A small file system.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::cluster::Cluster;

/// A tmpfs of a few MiB; unmounted when dropped.
pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts a file system of `mib` MiB. `None`, with a message, if this process may not mount.
    pub fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m,mode=0755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => {
                // The user of a PostgreSQL server needs access too.
                let open = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(dir.path(), open).unwrap();
                Some(Self { dir })
            }
            _ => {
                eprintln!("left out: a disk of limited size takes the right to mount one");
                None
            }
        }
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Creates a directory `space` that belongs to the server's user.
    pub fn give_to(&self, cluster: &Cluster) {
        let space = self.path().join("space");
        std::fs::create_dir(&space).unwrap();
        let owner = format!("/proc/{}", cluster.pid());
        let owner = std::fs::metadata(owner).unwrap();
        chown(&space, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    /// Changes the size.
    pub fn resize(&self, mib: u32) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,size={mib}m")])
            .arg(self.path())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let path = self.path();
        // Lazily: a process may still have a file open.
        drop(Command::new("umount").arg("-l").arg(path).status());
    }
}
