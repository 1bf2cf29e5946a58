//! One file that is followed: its state, and the reading of its next lines.

use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{Batch, BatchBuilder, Refused, Times};
use super::files::{self, Found};
use super::line::{Head, Look, head_of};
use super::positions::{FileInfo, Position};
use super::reader::{LineReader, Piece};
use super::rejects::{Reason, too_long};

/// A list of recsys-pipelines at the end of a file is whole once nothing was added for so long.
const LIST_QUIET: Duration = Duration::from_secs(2);
/// Bytes of a line without an end that are written to the rejects.
const TORN_KEPT: usize = 64 << 10;

/// A file that is followed.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) key: u64,
    /// Its position; `offset` is what was read, and may not be delivered yet. The head counts once
    /// `has_head`.
    pub(super) position: Position,
    pub(super) has_head: bool,
    pub(super) handle: Option<File>,
    /// A link that stays when the file is removed.
    pub(super) link: Option<PathBuf>,
    pub(super) size: u64,
    pub(super) modified_ns: i128,
    /// When the size or the time of the file was last seen to change.
    pub(super) changed_at: Instant,
    /// Whether the last scan found it.
    pub(super) is_there: bool,
    /// When it was last seen.
    pub(super) seen_at: Instant,
    /// Head and tail were compared since the last change.
    pub(super) is_checked: bool,
    /// The size at which there was no whole line.
    pub(super) waits_at: Option<u64>,
}

/// What a file has to read.
#[derive(Debug)]
pub(super) enum Next {
    Batch(Batch),
    /// Nothing yet.
    Nothing,
    /// It is another file by now.
    WrittenOver,
}

impl Followed {
    /// A file that was found now.
    pub(super) fn new(key: u64, found: &Found, now: Instant) -> Self {
        let info = FileInfo {
            key,
            path: found.path.clone(),
            device: found.device,
            inode: found.inode,
            born_us: found.born_us,
            head: Head::default(),
            target: None,
        };
        Self {
            key,
            position: Position::start(&info),
            has_head: false,
            handle: None,
            link: None,
            size: found.size,
            modified_ns: found.modified_ns,
            changed_at: now,
            is_there: true,
            seen_at: now,
            is_checked: false,
            waits_at: None,
        }
    }

    /// A file of an earlier run, which was not found yet.
    pub(super) fn known(key: u64, position: Position, now: Instant) -> Self {
        Self {
            key,
            size: position.offset,
            position,
            has_head: true,
            handle: None,
            link: None,
            modified_ns: 0,
            changed_at: now,
            is_there: false,
            seen_at: now,
            is_checked: false,
            waits_at: None,
        }
    }

    /// It is another file from now on, with another number.
    pub(super) fn begin_again(&mut self, key: u64) {
        self.key = key;
        self.position = Position::start(&FileInfo {
            head: Head::default(),
            ..self.info()
        });
        (self.has_head, self.is_checked, self.waits_at) = (false, false, None);
    }

    /// Whether a file of which all was read has changed and has other lines by now: as many bytes
    /// were written after it had been truncated. One that has grown is looked at when it is read.
    pub(super) fn is_replaced(&mut self) -> bool {
        let offset = self.position.offset;
        if self.is_checked || !self.has_head || self.size != offset || offset == 0 {
            return false;
        }
        match self.is_same() {
            Ok(Some(is_same)) => {
                self.is_checked = is_same;
                !is_same
            }
            // The next look tells.
            Ok(None) | Err(_) => false,
        }
    }

    /// Whether head and tail are those of the position; `None` if the path leads elsewhere by now.
    fn is_same(&self) -> io::Result<Option<bool>> {
        let Position {
            path,
            device,
            inode,
            ..
        } = &self.position;
        let opened = match &self.handle {
            Some(_) => None,
            None => open_same(path, *device, *inode)?,
        };
        let Some(file) = self.handle.as_ref().or(opened.as_ref()) else {
            return Ok(None);
        };
        let tail = files::tail_at(file, self.position.offset)?;
        let has_head = files::head_at(file)? == Some(self.position.head);
        Ok(Some(has_head && head_of(&tail) == self.position.tail))
    }

    fn info(&self) -> FileInfo {
        let position = &self.position;
        FileInfo {
            key: self.key,
            path: position.path.clone(),
            device: position.device,
            inode: position.inode,
            born_us: position.born_us,
            head: position.head,
            target: position.target.clone(),
        }
    }

    /// Notes the size and the time that the file has by now.
    pub(super) fn note(&mut self, size: u64, modified_ns: i128, now: Instant) {
        if (self.size, self.modified_ns) != (size, modified_ns) {
            (self.size, self.modified_ns) = (size, modified_ns);
            self.changed_at = now;
            (self.is_checked, self.waits_at) = (false, None);
        }
    }

    /// Whether nothing was added for so long, as was seen or as the file says.
    pub(super) fn is_quiet(&self, time: Duration, now: Instant, now_us: i64) -> bool {
        let modified_us = i64::try_from(self.modified_ns / 1000).unwrap_or(i64::MAX);
        let since_us = u64::try_from(now_us.saturating_sub(modified_us)).unwrap_or(0);
        now.duration_since(self.changed_at)
            .max(Duration::from_micros(since_us))
            >= time
    }

    /// The end of a removed file that has no line end, as a rejected line.
    pub(super) fn torn_end(&self) -> Option<Batch> {
        let handle = self.handle.as_ref()?;
        let from = self.position.offset;
        let bytes = self.size.checked_sub(from).filter(|bytes| *bytes > 0)?;
        let mut builder = BatchBuilder::new(from);
        let kept = usize::try_from(bytes).unwrap_or(TORN_KEPT).min(TORN_KEPT);
        let mut line = vec![0; kept];
        handle.read_exact_at(&mut line, from).ok()?;
        builder.refuse(Refused {
            offset: from,
            line,
            cut_from: (kept as u64 != bytes).then_some(bytes),
            reason: Reason::new(
                "torn_line",
                "the file was removed, and ends within this line",
            ),
        });
        let info = Arc::new(self.info());
        Some(builder.finish(info, self.size, Head::default(), 0))
    }

    /// Reads the next batch of a file, if there is one.
    pub(super) fn read(&mut self, line_bytes_max: usize, now_us: i64) -> io::Result<Next> {
        if self.size <= self.position.offset || self.waits_at == Some(self.size) {
            return Ok(Next::Nothing);
        }
        let Some(handle) = &self.handle else {
            return Ok(Next::Nothing);
        };
        let offset = self.position.offset;
        if !self.has_head {
            match files::head_at(handle)? {
                Some(head) => {
                    self.position.head = head;
                    self.has_head = true;
                }
                None => {
                    self.waits_at = Some(self.size);
                    return Ok(Next::Nothing);
                }
            }
        } else if !self.is_checked && self.is_same()? == Some(false) {
            return Ok(Next::WrittenOver);
        }
        self.is_checked = true;
        let mut from = handle.try_clone()?;
        from.seek(SeekFrom::Start(offset))?;
        let input = BufReader::with_capacity(256 << 10, from);
        let mut reader = LineReader::new(input, offset, Vec::new(), line_bytes_max);
        let mut builder = BatchBuilder::new(offset);
        let head = self.position.head;
        let times = Times {
            given: &self.position.stamps,
            time_us: Some(now_us),
        };
        let (mut to, at_end) = loop {
            let offset = reader.offset();
            match reader.read()? {
                Piece::Line => {
                    let look = Look::at(reader.line());
                    if builder.is_full(Some(&look)) {
                        break (offset, false);
                    }
                    builder.add(&look, reader.line(), &head, offset, &times);
                }
                Piece::TooLong(bytes) => {
                    if builder.is_full(None) {
                        break (offset, false);
                    }
                    builder.refuse(Refused {
                        offset,
                        line: reader.line().to_vec(),
                        cut_from: Some(bytes),
                        reason: too_long(bytes, line_bytes_max),
                    });
                }
                Piece::Torn(_) | Piece::End => break (offset, true),
            }
        };
        let waits = at_end && self.is_there && self.changed_at.elapsed() < LIST_QUIET;
        if waits && let Some(from) = builder.take_back_list() {
            to = from;
        } else if at_end {
            self.waits_at = Some(self.size);
        }
        if builder.is_empty() {
            return Ok(Next::Nothing);
        }
        let tail = head_of(&files::tail_at(handle, to)?);
        let batch = builder.finish(Arc::new(self.info()), to, tail, 0);
        self.position.offset = to;
        self.position.tail = tail;
        self.position.stamps.retain(|stamp| stamp.to > to);
        Ok(Next::Batch(batch))
    }
}

/// Opens a file if it is still the one with this number.
pub(super) fn open_same(path: &Path, device: u64, inode: u64) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    Ok((meta.dev() == device && meta.ino() == inode).then_some(file))
}
