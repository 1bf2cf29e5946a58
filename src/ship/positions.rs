//! How far each file is done, on disk.
//!
//! Invariant: the file of positions is replaced whole, and synced before and after, so that a
//! crash leaves the old positions or the new ones. One process uses a directory at a time.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::line::Head;

const VERSION: u32 = 1;

/// A file, as a position names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileInfo {
    /// Its number in this process.
    pub(crate) key: u64,
    pub(crate) path: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// When it was made, in microseconds since 1970, where the file system says so.
    pub(crate) born_us: Option<i64>,
    pub(crate) head: Head,
    /// Where its lines go, if the position counts for that alone.
    pub(crate) target: Option<String>,
}

/// A time that was given to the events without one between two places of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) time_us: i64,
}

/// How far a file is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    #[serde(with = "path_text")]
    pub(crate) path: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) born_us: Option<i64>,
    /// A hash of its first line.
    #[serde(with = "hex_text")]
    pub(crate) head: Head,
    /// A hash of the bytes before `offset`.
    #[serde(with = "hex_text")]
    pub(crate) tail: Head,
    /// Everything before it is taken or rejected (of compressed files: once decompressed).
    pub(crate) offset: u64,
    pub(crate) lines: u64,
    pub(crate) rejected: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stamps: Vec<Stamp>,
    /// Where its lines went, if it counts for that alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
}

impl Position {
    /// The start of a file.
    pub(crate) fn start(file: &FileInfo) -> Self {
        Self {
            path: file.path.clone(),
            device: file.device,
            inode: file.inode,
            born_us: file.born_us,
            head: file.head,
            tail: super::line::head_of(b""),
            offset: 0,
            lines: 0,
            rejected: 0,
            stamps: Vec::new(),
            target: file.target.clone(),
        }
    }

    /// Whether this is of the file with that number, made at that time, if that is known.
    pub(crate) fn is_inode(&self, device: u64, inode: u64, born_us: Option<i64>) -> bool {
        let is_born_so = match (self.born_us, born_us) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        self.device == device && self.inode == inode && is_born_so
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    /// The file of rejected lines, and how long it is.
    #[serde(with = "path_text")]
    rejects_path: PathBuf,
    rejects_bytes: u64,
    files: Vec<Position>,
}

/// The positions of a directory.
#[derive(Debug)]
pub(crate) struct Positions {
    directory: PathBuf,
    /// Locked while this lives.
    _lock: File,
    pub(crate) rejects_path: PathBuf,
    pub(crate) rejects_bytes: u64,
    /// By the number of the file in this process.
    pub(crate) files: BTreeMap<u64, Position>,
}

impl Positions {
    /// Opens the directory, which is made if it is not there.
    ///
    /// # Errors
    /// If another process uses it, or the positions cannot be read.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| {
                format!(
                    "cannot make the directory {} for positions: make it, or name another with --state-dir",
                    directory.display()
                )
            })?;
        let lock = lock(directory)?;
        let path = directory.join(FILE);
        let document = match File::open(&path) {
            Ok(mut file) => {
                let mut text = String::new();
                file.read_to_string(&mut text)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                serde_json::from_str::<Document>(&text).with_context(|| {
                    format!(
                        "{} is damaged; remove it to begin at the start of every file: what has been stored is not stored again",
                        path.display()
                    )
                })?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Document {
                version: VERSION,
                ..Document::default()
            },
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        if document.version != VERSION {
            bail!(
                "{} is of version {}, and this program knows version {VERSION}: use the program that wrote it",
                path.display(),
                document.version
            );
        }
        Ok(Self {
            directory: directory.to_owned(),
            _lock: lock,
            rejects_path: document.rejects_path,
            rejects_bytes: document.rejects_bytes,
            files: (0..).zip(document.files).collect(),
        })
    }

    /// A number for a file that is new here.
    pub(crate) fn next_key(&self) -> u64 {
        self.files.keys().next_back().map_or(0, |last| last + 1)
    }

    /// What [`write`] puts on disk.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let document = Document {
            version: VERSION,
            rejects_path: self.rejects_path.clone(),
            rejects_bytes: self.rejects_bytes,
            files: self.files.values().cloned().collect(),
        };
        Snapshot {
            directory: self.directory.clone(),
            json: serde_json::to_vec(&document).expect("strings and numbers are always JSON"),
        }
    }
}

const FILE: &str = "positions.json";

/// Positions that are to be written.
#[derive(Debug)]
pub(crate) struct Snapshot {
    directory: PathBuf,
    json: Vec<u8>,
}

impl Snapshot {
    /// Replaces the file of positions. Blocks until it is on disk.
    pub(crate) fn write(&self) -> Result<()> {
        let path = self.directory.join(FILE);
        let unfinished = self.directory.join("positions.tmp");
        let replace = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&unfinished)?;
            file.write_all(&self.json)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        replace().with_context(|| format!("cannot write the positions {}", path.display()))
    }
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| {
            format!(
                "cannot open {}: the directory has to be writable; name another with --state-dir",
                path.display()
            )
        })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another process uses the positions in {}: stop that one, or name another directory with --state-dir",
            directory.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// A path as text; bytes that are no text in hex.
mod path_text {
    use super::{Path, PathBuf};
    use serde::{Deserialize, Deserializer, Serializer};
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

    const HEX: &str = "hex:";

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        match path.to_str().filter(|text| !text.starts_with(HEX)) {
            Some(text) => to.serialize_str(text),
            None => {
                let digits = hex::encode(path.as_os_str().as_bytes());
                to.serialize_str(&format!("{HEX}{digits}"))
            }
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(from)?;
        let Some(digits) = text.strip_prefix(HEX) else {
            return Ok(text.into());
        };
        let bytes = hex::decode(digits).map_err(serde::de::Error::custom)?;
        Ok(OsString::from_vec(bytes).into())
    }
}

mod hex_text {
    use super::Head;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &Head, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(hash))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Head, D::Error> {
        let text = String::deserialize(from)?;
        let mut hash = Head::default();
        hex::decode_to_slice(text, &mut hash).map_err(serde::de::Error::custom)?;
        Ok(hash)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn position(path: PathBuf) -> Position {
        Position {
            path,
            device: u64::MAX,
            inode: 2,
            born_us: Some(-3),
            head: [4; 32],
            tail: [5; 32],
            offset: 6,
            lines: 7,
            rejected: 8,
            stamps: vec![Stamp {
                from: 1,
                to: 6,
                time_us: 9,
            }],
            target: Some("there".to_owned()),
        }
    }

    #[test]
    fn positions_come_back_and_a_directory_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let mut positions = Positions::open(&state).unwrap();
        for path in ["day.jsonl", "hex:61"] {
            let key = positions.next_key();
            positions.files.insert(key, position(path.into()));
        }
        let odd = OsString::from_vec(vec![b'a', 0xff]);
        positions.files.insert(9, position(odd.into()));
        positions.rejects_bytes = 44;
        positions.snapshot().write().unwrap();
        let said = Positions::open(&state).unwrap_err().to_string();
        assert!(said.contains("another process uses"), "{said}");
        let known: Vec<_> = positions.files.values().cloned().collect();
        drop(positions);
        let again = Positions::open(&state).unwrap();
        assert_eq!(again.files.values().cloned().collect::<Vec<_>>(), known);
        assert_eq!((again.rejects_bytes, again.next_key()), (44, 3));
    }

    #[test]
    fn damaged_positions_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for (text, why) in [
            ("{", "is damaged"),
            (
                r#"{"version":2,"rejects_path":"","rejects_bytes":0,"files":[]}"#,
                "version 2",
            ),
        ] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let said = format!("{:#}", Positions::open(dir.path()).unwrap_err());
            assert!(said.contains(why), "{said}");
        }
    }
}
