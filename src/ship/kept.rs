//! Hard links to the files that are followed: a file that is removed is read to its end from its
//! link, also after this process was killed.
//!
//! Invariant: a link is there from before the first line of its file is sent until all of them are
//! done, so the inode is not used for another file in between.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::files::{Found, is_inode};

/// The folder of the links, in that of the positions.
const FOLDER: &str = "unread";

/// The links.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    /// Links that the pipeline was told to remove, and has not yet.
    leaving: HashSet<PathBuf>,
    /// It was told that no link can be made.
    has_failed: bool,
}

impl Kept {
    /// The links in a folder of positions.
    pub(crate) fn of(state: &Path) -> Self {
        Self {
            folder: state.join(FOLDER),
            leaving: HashSet::new(),
            has_failed: false,
        }
    }

    /// The files that have a link which is not about to be removed.
    pub(super) fn found(&mut self) -> Vec<Found> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut found = Vec::new();
        let mut leaving = HashSet::new();
        for entry in entries {
            let path = entry.path();
            if self.leaving.contains(&path) {
                leaving.insert(path);
            } else if let Ok(meta) = entry.metadata()
                && meta.is_file()
            {
                found.push(Found::of(path, &meta));
            }
        }
        self.leaving = leaving;
        found
    }

    /// Makes a link to the file at `path` if it is the one with this number. `None`: it is another
    /// one by now, or no link can be made.
    pub(super) fn keep(&mut self, path: &Path, device: u64, inode: u64) -> Option<PathBuf> {
        match self.link(path, device, inode) {
            Ok(link) => link,
            // It was removed since it was found.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    warn!(
                        path = %path.display(), links = %self.folder.display(), %error,
                        "no hard link to a file can be made, so one that is removed while it is unread can be read only as long as this process runs; have --state-dir on the file system of --dir, and run as the owner of the files"
                    );
                }
                None
            }
        }
    }

    fn link(&self, path: &Path, device: u64, inode: u64) -> io::Result<Option<PathBuf>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let link = self.folder.join(format!("{device:x}-{inode:x}-{name}"));
        if is_inode(&link, device, inode)? {
            return Ok(Some(link));
        }
        fs::create_dir_all(&self.folder)?;
        // Of a symbolic link the file counts.
        fs::hard_link(fs::canonicalize(path)?, &link)?;
        if is_inode(&link, device, inode)? {
            return Ok(Some(link));
        }
        // Between the look and the link another file took its path.
        fs::remove_file(&link)?;
        Ok(None)
    }

    /// A link is removed once what was handed over before is done.
    pub(super) fn leave(&mut self, link: &Path) {
        self.leaving.insert(link.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_link_keeps_a_removed_file_until_it_is_told_to_leave() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::of(dir.path());
        assert!(kept.found().is_empty());
        let path = dir.path().join("a.jsonl");
        fs::write(&path, "line\n").unwrap();
        let meta = fs::metadata(&path).unwrap();
        let through = dir.path().join("through.jsonl");
        std::os::unix::fs::symlink(&path, &through).unwrap();
        let links: Vec<_> = [&path, &path, &through]
            .map(|path| kept.keep(path, meta.dev(), meta.ino()).unwrap())
            .into();
        assert_eq!(links[0], links[1]);
        fs::remove_file(&path).unwrap();
        assert_eq!(kept.found().len(), 2);
        assert_eq!(fs::read_to_string(&links[2]).unwrap(), "line\n");
        // Another file at the path is not the one that was meant.
        fs::write(&path, "other\n").unwrap();
        let gone = links[0].clone();
        fs::remove_file(&gone).unwrap();
        assert_eq!(kept.keep(&path, meta.dev(), meta.ino()), None);
        assert!(!gone.exists());

        kept.leave(&links[2]);
        assert!(kept.found().is_empty());
        fs::remove_file(&links[2]).unwrap();
        assert!(kept.found().is_empty());
        // The next file with the number may have the name.
        fs::hard_link(&path, &links[2]).unwrap();
        assert_eq!(kept.found().len(), 1);
    }

    #[test]
    fn where_no_link_can_be_made_the_file_is_followed_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        fs::write(&path, "line\n").unwrap();
        let meta = fs::metadata(&path).unwrap();
        // A file where the folder of the links would be.
        fs::write(dir.path().join(FOLDER), "x").unwrap();
        let mut kept = Kept::of(dir.path());
        assert_eq!(kept.keep(&path, meta.dev(), meta.ino()), None);
        assert!(kept.has_failed);
    }
}
