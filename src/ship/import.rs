//! A source of lines: files that are there, each read once from its position to its end.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::batch::{BatchBuilder, Refused, Times};
use super::files::{self, Found, Own, Text};
use super::line::{HEAD_BYTES, Head, Look, head_of};
use super::pipeline::Handed;
use super::positions::{FileInfo, Position};
use super::reader::{LineReader, Piece, TAIL_BYTES};
use super::rejects::{Reason, too_long};
use super::status::{Status, add, get, set};

const NO_FILE: &str = "standard input and pipes cannot be read again after an interruption, which is how each line is stored once: write the lines into a file, and import that";

/// Finds the files that the arguments name: those themselves, and those of lines below folders, in
/// the order of their names.
///
/// # Errors
/// If one is not there, or a folder holds none.
pub(crate) fn find(arguments: &[PathBuf], own: &Own) -> Result<Vec<Found>> {
    let mut all: Vec<Found> = Vec::new();
    for argument in arguments {
        let read = || format!("cannot read {}", argument.display());
        if argument.as_os_str() == "-" {
            bail!("{NO_FILE}");
        }
        let meta = fs::metadata(argument).with_context(read)?;
        if !meta.is_dir() && !meta.is_file() {
            bail!("{}: {NO_FILE}", argument.display());
        }
        if !meta.is_dir() {
            let path = fs::canonicalize(argument).with_context(read)?;
            all.push(Found::of(path, &meta));
            continue;
        }
        let folder = fs::canonicalize(argument).with_context(read)?;
        let mut found = files::walk(&folder, own).with_context(read)?;
        found.retain(|found| {
            let name = found.path.file_name().unwrap_or_default();
            files::is_of_lines(&name.to_string_lossy(), true)
        });
        if found.is_empty() {
            bail!(
                "there is no file of lines below {}: their names end in .jsonl or .ndjson, and .gz or .zst where they are compressed; name others one by one",
                argument.display()
            );
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        all.extend(found);
    }
    // A file that is named twice is read once.
    let mut seen = Vec::new();
    all.retain(|found| {
        let id = (found.device, found.inode);
        let is_new = !seen.contains(&id);
        seen.push(id);
        is_new
    });
    Ok(all)
}

/// Where lines go, as positions name it: by a hash, as the key is in it. `to` is the service or the
/// database. Lines that were rejected as they have no time are not done where they are given one.
pub(crate) fn target(to: &str, key: &str, tenant: Option<&str>, gives_time: bool) -> String {
    let mut parts = vec![to, key, tenant.unwrap_or_default()];
    parts.extend(gives_time.then_some("with a time"));
    hex::encode(Sha256::digest(parts.join("\0")))
}

/// Reads files and hands their lines over.
#[derive(Debug)]
pub(crate) struct Importer {
    pub(crate) files: Vec<Found>,
    /// Those of earlier runs, with their numbers.
    pub(crate) known: Vec<(u64, Position)>,
    /// Where the lines go: what went elsewhere, by another key for one, is not there.
    pub(crate) target: String,
    /// The time of events that have none; `None`: they are rejected.
    pub(crate) time_us: Option<i64>,
    pub(crate) next_key: u64,
    pub(crate) line_bytes_max: usize,
    pub(crate) to: flume::Sender<Handed>,
    pub(crate) status: Arc<Status>,
    pub(crate) stop: CancellationToken,
}

/// A file that could not be read to its end.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) path: PathBuf,
    pub(crate) why: String,
}

/// Why reading ends early.
enum End {
    /// The delivery takes no more lines.
    Closed,
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Importer {
    /// Reads all files. Blocks. Returns those that could not be read to their end.
    pub(crate) fn run(mut self) -> Vec<Unread> {
        let mut unread = Vec::new();
        let mut before = 0;
        set(&self.status.files, self.files.len() as u64);
        let all = self.files.iter().map(|found| found.size).sum();
        set(&self.status.all_bytes, all);
        for found in std::mem::take(&mut self.files) {
            match self.read(&found, before) {
                Ok(()) => {}
                Err(End::Closed) => return unread,
                Err(End::Io(error)) => unread.push(Unread {
                    path: found.path.clone(),
                    why: error.to_string(),
                }),
            }
            before += found.size;
        }
        unread
    }

    fn read(&mut self, found: &Found, before: u64) -> Result<(), End> {
        let Some(head) = head_of_file(&found.path)? else {
            return Ok(());
        };
        let (key, position) = self.position(found, head);
        let info = FileInfo {
            key,
            path: found.path.clone(),
            device: found.device,
            inode: found.inode,
            born_us: found.born_us,
            head,
            target: Some(self.target.clone()),
        };
        let count = Arc::default();
        let (text, offset, tail) = at_position(&found.path, position.as_ref(), &count)?;
        let from = offset.min(get(&count));
        add(&self.status.skipped_bytes, from);
        set(&self.status.done_bytes, before + from);
        let (line_bytes_max, time_us) = (self.line_bytes_max, self.time_us);
        let stamps = position.map(|position| position.stamps).unwrap_or_default();
        let file = Reading {
            importer: self,
            info: Arc::new(info),
            reader: LineReader::new(text, offset, tail, line_bytes_max),
            times: Times {
                given: &stamps,
                time_us,
            },
            disk: (before, found.size, count),
            builder: BatchBuilder::new(offset),
        };
        file.read_all()
    }

    /// The number and the position of a file that was read before.
    fn position(&mut self, found: &Found, head: Head) -> (u64, Option<Position>) {
        let is_same = |position: &Position| {
            position.head == head
                && position.target.as_ref() == Some(&self.target)
                && (position.path == found.path
                    || position.is_inode(found.device, found.inode, found.born_us))
        };
        let known = self.known.iter().find(|(_, position)| is_same(position));
        match known {
            Some((key, position)) => (*key, Some(position.clone())),
            None => {
                self.next_key += 1;
                (self.next_key - 1, None)
            }
        }
    }
}

/// A file that is read.
struct Reading<'i> {
    importer: &'i Importer,
    info: Arc<FileInfo>,
    reader: LineReader<Text>,
    times: Times<'i>,
    /// Bytes of the files before it, its own, and those that are read.
    disk: (u64, u64, Arc<AtomicU64>),
    builder: BatchBuilder,
}

impl Reading<'_> {
    fn read_all(mut self) -> Result<(), End> {
        loop {
            if self.importer.stop.is_cancelled() {
                return Err(End::Closed);
            }
            let offset = self.reader.offset();
            let piece = match self.reader.read() {
                Ok(piece) => piece,
                Err(error) => {
                    // What came before the damage is good.
                    self.hand_over(offset, None)?;
                    return Err(End::Io(error));
                }
            };
            match piece {
                Piece::Line => {
                    let look = Look::at(self.reader.line());
                    if self.builder.is_full(Some(&look)) {
                        self.hand_over(offset, Some(offset))?;
                    }
                    self.add(&look, offset);
                }
                Piece::TooLong(bytes) => {
                    if self.builder.is_full(None) {
                        self.hand_over(offset, Some(offset))?;
                    }
                    let reason = too_long(bytes, self.importer.line_bytes_max);
                    self.refuse(offset, Some(bytes), reason);
                }
                Piece::Torn(bytes) => {
                    let line = self.reader.line();
                    let is_whole = serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok();
                    if is_whole && bytes <= self.importer.line_bytes_max as u64 {
                        let look = Look::at(line);
                        self.add(&look, offset);
                        self.reader.accept_torn(bytes);
                    } else {
                        let reason = Reason::new(
                            "torn_line",
                            "the file ends within this line; import the file again once it is whole",
                        );
                        let most = self.importer.line_bytes_max as u64;
                        self.refuse(offset, (bytes > most).then_some(bytes), reason);
                    }
                    let to = self.reader.offset();
                    return self.hand_over(to, None);
                }
                Piece::End => return self.hand_over(offset, None),
            }
        }
    }

    fn add(&mut self, look: &Look, offset: u64) {
        self.builder.add(
            look,
            self.reader.line(),
            &self.info.head,
            offset,
            &self.times,
        );
    }

    fn refuse(&mut self, offset: u64, cut_from: Option<u64>, reason: Reason) {
        self.builder.refuse(Refused {
            offset,
            line: self.reader.line().to_vec(),
            cut_from,
            reason,
        });
    }

    /// Hands the batch over, which ends at `to`: before the line that was read last, if that is
    /// where `before_last` is.
    fn hand_over(&mut self, to: u64, before_last: Option<u64>) -> Result<(), End> {
        let builder = std::mem::replace(&mut self.builder, BatchBuilder::new(to));
        if builder.is_empty() {
            return Ok(());
        }
        let tail = match before_last {
            Some(_) => self.reader.tail_before(),
            None => self.reader.tail(),
        };
        let (before, size, count) = &self.disk;
        let batch = builder.finish(
            Arc::clone(&self.info),
            to,
            head_of(tail),
            before + get(count).min(*size),
        );
        add(&self.importer.status.in_flight_bytes, batch.bytes);
        let handed = Handed::Batch(Box::new(batch));
        self.importer.to.send(handed).map_err(|_| End::Closed)
    }
}

/// The first line, hashed, of a file that may be compressed; `None` if it is empty.
fn head_of_file(path: &Path) -> io::Result<Option<Head>> {
    let (mut text, _) = files::open(File::open(path)?, Arc::default())?;
    let mut first = Vec::new();
    io::BufRead::read_until(
        &mut io::Read::by_ref(&mut text).take(HEAD_BYTES as u64),
        b'\n',
        &mut first,
    )?;
    let line = first.strip_suffix(b"\n").unwrap_or(&first);
    Ok((!first.is_empty()).then(|| head_of(line)))
}

/// Opens a file at its position, or at its beginning if it is another file by now. Returns the
/// offset, and the bytes before it.
fn at_position(
    path: &Path,
    position: Option<&Position>,
    count: &Arc<AtomicU64>,
) -> io::Result<(Text, u64, Vec<u8>)> {
    let open = || {
        set(count, 0);
        files::open(File::open(path)?, Arc::clone(count))
    };
    if let Some(position) = position.filter(|position| position.offset > 0) {
        let (mut text, is_compressed) = open()?;
        let tail = match is_compressed {
            true => skip(&mut text, position.offset)?,
            false => files::tail_at(&File::open(path)?, position.offset)?,
        };
        if head_of(&tail) == position.tail {
            if !is_compressed {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(position.offset))?;
                set(count, position.offset);
                text = files::open_plain(file, Arc::clone(count));
            }
            return Ok((text, position.offset, tail));
        }
    }
    let (text, _) = open()?;
    Ok((text, 0, Vec::new()))
}

/// Reads over the bytes before `offset`; returns the last of them.
fn skip(text: &mut Text, offset: u64) -> io::Result<Vec<u8>> {
    let most = u64::try_from(TAIL_BYTES).unwrap_or(u64::MAX);
    let kept = offset.min(most);
    io::copy(&mut text.by_ref().take(offset - kept), &mut io::sink())?;
    let mut tail = Vec::new();
    text.by_ref().take(kept).read_to_end(&mut tail)?;
    Ok(tail)
}
