//! Files of lines: which there are, what names each, and how they are opened.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use flate2::bufread::MultiGzDecoder;

use super::line::{HEAD_BYTES, Head, head_of};
use super::reader::TAIL_BYTES;
use super::status::add;

/// Folders within folders that are looked into.
const DEPTH_MAX: usize = 16;

/// Buffer of a reader.
const BUFFER_BYTES: usize = 256 << 10;

/// Names of files of lines.
const LINES: [&str; 3] = [".jsonl", ".ndjson", ".jsonlines"];
/// Ends of the names of compressed files.
const COMPRESSED: [&str; 3] = [".gz", ".zst", ".zstd"];

/// A file that was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) born_us: Option<i64>,
    pub(crate) size: u64,
    /// In nanoseconds since 1970.
    pub(crate) modified_ns: i128,
}

impl Found {
    pub(crate) fn of(path: PathBuf, meta: &Metadata) -> Self {
        let born = meta.created().ok();
        let born = born.and_then(|at| jiff::Timestamp::try_from(at).ok());
        Self {
            path,
            device: meta.dev(),
            inode: meta.ino(),
            born_us: born.map(jiff::Timestamp::as_microsecond),
            size: meta.len(),
            modified_ns: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        }
    }
}

/// Whether a file of this name holds lines of JSON: `*.jsonl`, and what rotation makes of it
/// (`a.jsonl.1`, `a.jsonl-20260524`), compressed if `compressed` is asked for.
pub(crate) fn is_of_lines(name: &str, compressed: bool) -> bool {
    let name = name.to_ascii_lowercase();
    if name.starts_with('.') || name.ends_with('~') {
        return false;
    }
    let plain = COMPRESSED.iter().find_map(|end| name.strip_suffix(end));
    if plain.is_some() && !compressed {
        return false;
    }
    let name = plain.unwrap_or(&name);
    LINES.iter().any(|end| {
        name.rsplit_once(end).is_some_and(|(_, rest)| {
            let is_rotated = |rest: &str| {
                rest.bytes()
                    .all(|byte| byte.is_ascii_digit() || b".-_tz:".contains(&byte))
            };
            rest.is_empty() || rest.starts_with(['.', '-', '_']) && is_rotated(rest)
        })
    })
}

/// What a shipper writes itself: it must not read that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own(Vec<PathBuf>);

impl Own {
    /// The directory of the positions, and the file of rejected lines.
    pub(crate) fn of(paths: &[&Path]) -> Self {
        Self(paths.iter().map(|path| canonical(path)).collect())
    }
}

/// The path without links, also of a file that is not there yet.
fn canonical(path: &Path) -> PathBuf {
    let below = |parent: PathBuf| parent.join(path.file_name().unwrap_or_default());
    let parent = || {
        let parent = path.parent()?;
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        fs::canonicalize(parent).ok()
    };
    fs::canonicalize(path)
        .ok()
        .or_else(|| parent().map(below))
        .unwrap_or_else(|| path.to_owned())
}

/// All files below a folder, but for hidden ones, those of hidden folders, and `own`.
///
/// # Errors
/// If the folder itself cannot be read; below it, what is gone by then is passed over.
pub(crate) fn walk(folder: &Path, own: &Own) -> io::Result<Vec<Found>> {
    let mut all = Vec::new();
    walk_into(&fs::canonicalize(folder)?, own, 0, &mut all)?;
    Ok(all)
}

fn walk_into(folder: &Path, own: &Own, depth: usize, all: &mut Vec<Found>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if own.0.contains(&path) {
            continue;
        }
        // Of a link to a file the file counts; links to folders may lead in a circle.
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() => all.push(Found::of(path, &meta)),
            Ok(meta) if meta.is_dir() && !is_link && depth < DEPTH_MAX => {
                match walk_into(&path, own, depth + 1, all) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the file at `path` is the one with this number.
pub(crate) fn is_inode(path: &Path, device: u64, inode: u64) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(meta.dev() == device && meta.ino() == inode),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The first line of a file, hashed; `None` while it has no end.
pub(crate) fn head_at(file: &File) -> io::Result<Option<Head>> {
    let mut bytes = vec![0; HEAD_BYTES];
    let filled = read_at(file, &mut bytes, 0)?;
    let bytes = &bytes[..filled];
    Ok(match memchr::memchr(b'\n', bytes) {
        Some(end) => Some(head_of(&bytes[..end])),
        None if filled == HEAD_BYTES => Some(head_of(bytes)),
        None => None,
    })
}

/// The last bytes before `offset`.
pub(crate) fn tail_at(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let from = offset.saturating_sub(TAIL_BYTES as u64);
    let mut bytes = vec![0; usize::try_from(offset - from).unwrap_or(TAIL_BYTES)];
    let filled = read_at(file, &mut bytes, from)?;
    bytes.truncate(filled);
    Ok(bytes)
}

fn read_at(file: &File, bytes: &mut [u8], from: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Counts the bytes that are read from a file.
struct Counting {
    file: File,
    count: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(into)?;
        add(&self.count, bytes as u64);
        Ok(bytes)
    }
}

/// A file as text, decompressed if its first bytes say that it is compressed.
pub(crate) type Text = BufReader<Box<dyn Read + Send>>;

/// Opens a file from its beginning. `count` counts its bytes on disk.
pub(crate) fn open(file: File, count: Arc<AtomicU64>) -> io::Result<(Text, bool)> {
    let mut raw = BufReader::with_capacity(BUFFER_BYTES, Counting { file, count });
    let magic = raw.fill_buf()?;
    let is_gzip = magic.starts_with(&[0x1f, 0x8b]);
    let is_zstd = magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let text: Box<dyn Read + Send> = if is_gzip {
        Box::new(MultiGzDecoder::new(raw))
    } else if is_zstd {
        Box::new(zstd::stream::read::Decoder::with_buffer(raw)?)
    } else {
        Box::new(raw)
    };
    let text = BufReader::with_capacity(BUFFER_BYTES, text);
    Ok((text, is_gzip || is_zstd))
}

/// A file that is not compressed, from where it stands.
pub(crate) fn open_plain(file: File, count: Arc<AtomicU64>) -> Text {
    BufReader::with_capacity(BUFFER_BYTES, Box::new(Counting { file, count }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_of_lines_are_known_by_what_rotation_makes_of_them() {
        for (name, plain, compressed) in [
            ("exposure-2026-05-24.jsonl", true, true),
            ("a.jsonl.1", true, true),
            ("a.jsonl-20260524", true, true),
            ("A.NDJSON", true, true),
            ("a.jsonl.1.gz", false, true),
            ("a.jsonl.zst", false, true),
            ("a.jsonl.tmp", false, false),
            ("a.jsonl.swp", false, false),
            ("a.jsonl~", false, false),
            (".a.jsonl", false, false),
            ("a.json", false, false),
            ("a.log", false, false),
        ] {
            assert_eq!(is_of_lines(name, false), plain, "{name}");
            assert_eq!(is_of_lines(name, true), compressed, "{name}");
        }
    }

    #[test]
    fn files_are_found_below_folders_and_hidden_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "b.jsonl", "t/s/a.jsonl", ".h.jsonl", ".state/c.jsonl", "state/rejected.jsonl",
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink(dir.path(), dir.path().join("circle")).unwrap();
        let own = Own::of(&[
            &dir.path().join("state"),
            &dir.path().join("rejected.jsonl"),
        ]);
        fs::write(dir.path().join("rejected.jsonl"), "x").unwrap();
        let mut found: Vec<_> = walk(dir.path(), &own).unwrap();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let root = fs::canonicalize(dir.path()).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|found| found.path.strip_prefix(&root).unwrap())
            .collect();
        assert_eq!(names, [Path::new("b.jsonl"), Path::new("t/s/a.jsonl")]);
        assert!(walk(&dir.path().join("none"), &own).is_err());
    }
}
