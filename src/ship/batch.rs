//! Lines of one file on their way to the service, with all that is needed to say what became of
//! them.

use std::sync::Arc;

use bytes::Bytes;

use super::line::{Endpoint, Head, Look, Place};
use super::positions::{FileInfo, Stamp};
use super::rejects::{Reason, without_time};

/// Bytes after which a batch ends: the service decodes such bodies beside others, and what is sent
/// again after a crash is little.
const BYTES: usize = 1 << 20;

/// Lines after which a batch ends; below the service's `--events-max`.
const LINES: usize = 5_000;

/// A list of recsys-pipelines is not cut, so a batch may grow to this multiple.
const MULTIPLE_OF_LISTS: usize = 2;

/// A line in a batch.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Its place in the file.
    pub(crate) offset: u64,
    /// Its place in the text, with its line end.
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The line as it stands in the file, if something was added to it.
    original: Option<Box<[u8]>>,
}

impl Line {
    /// The line as it stands in the file.
    pub(crate) fn original<'t>(&'t self, text: &'t [u8]) -> &'t [u8] {
        let sent = &text[self.from..self.to - 1];
        self.original.as_deref().unwrap_or(sent)
    }
}

/// The lines of a batch for one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) endpoint: Endpoint,
    pub(crate) text: Bytes,
    pub(crate) lines: Vec<Line>,
}

impl Part {
    /// The lines with these numbers as a body of one event a line.
    pub(crate) fn body(&self, lines: &[usize]) -> Bytes {
        let of = |number: &usize| &self.lines[*number];
        let (Some(first), Some(last)) = (lines.first().map(of), lines.last().map(of)) else {
            return Bytes::new();
        };
        let is_range = lines.windows(2).all(|two| two[0] + 1 == two[1]);
        if is_range {
            return self.text.slice(first.from..last.to);
        }
        let parts = lines.iter().map(of);
        let parts: Vec<&[u8]> = parts.map(|line| &self.text[line.from..line.to]).collect();
        parts.concat().into()
    }
}

/// A line that is not sent.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) offset: u64,
    /// The line, or its beginning.
    pub(crate) line: Vec<u8>,
    /// Bytes of the whole line, if this is only its beginning.
    pub(crate) cut_from: Option<u64>,
    pub(crate) reason: Reason,
}

/// The lines of a file from one position to another.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) file: Arc<FileInfo>,
    /// The position behind it.
    pub(crate) to: u64,
    /// A hash of the bytes before that.
    pub(crate) tail: Head,
    pub(crate) parts: Vec<Part>,
    pub(crate) refused: Vec<Refused>,
    pub(crate) lines: u64,
    /// A time that was given to events without one, which has to be known after a crash.
    pub(crate) stamp: Option<Stamp>,
    /// Bytes of the file between the two positions.
    pub(crate) bytes: u64,
    /// Bytes on disk of all files up to here, for the progress.
    pub(crate) disk_bytes: u64,
}

/// Builds a batch.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    from: u64,
    parts: [Building; Endpoint::ALL.len()],
    refused: Vec<Refused>,
    refused_bytes: usize,
    lines: u64,
    /// The list that the last line is of, and where its first line stands.
    list: Option<(u64, Mark)>,
    /// The time that was given to events without one, if it was not given before.
    stamped_us: Option<i64>,
}

#[derive(Debug, Default)]
struct Building {
    text: Vec<u8>,
    lines: Vec<Line>,
}

/// A state to which a builder can go back.
#[derive(Clone, Copy, Debug)]
struct Mark {
    offset: u64,
    text: usize,
    lines: usize,
    all_lines: u64,
}

impl BatchBuilder {
    /// A batch of what stands from `from` on.
    pub(crate) fn new(from: u64) -> Self {
        Self {
            from,
            parts: Default::default(),
            refused: Vec::new(),
            refused_bytes: 0,
            lines: 0,
            list: None,
            stamped_us: None,
        }
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines == 0
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.text.len()).sum::<usize>() + self.refused_bytes
    }

    /// Whether another line belongs into the next batch.
    pub(crate) fn is_full(&self, next: Option<&Look>) -> bool {
        let lines = usize::try_from(self.lines).unwrap_or(usize::MAX);
        let is_beyond = |times: usize| lines >= LINES * times || self.bytes() >= BYTES * times;
        let goes_on = matches!(
            (&self.list, next.and_then(|look| look.list)),
            (Some((list, _)), Some(next)) if *list == next
        );
        is_beyond(1) && !goes_on || is_beyond(MULTIPLE_OF_LISTS)
    }

    /// Adds a line. Blank ones count and are not sent, and one without a time is refused if there is
    /// none to give.
    pub(crate) fn add(
        &mut self,
        look: &Look,
        line: &[u8],
        head: &Head,
        offset: u64,
        times: &Times<'_>,
    ) {
        let time_us = match look.needs_time() {
            true => times.at(offset, &mut self.stamped_us),
            false => Some(0),
        };
        let Some(time_us) = time_us else {
            return self.refuse(Refused {
                offset,
                line: line.to_vec(),
                cut_from: None,
                reason: without_time(look.time_name()),
            });
        };
        let part = &mut self.parts[look.endpoint as usize];
        let mark = Mark {
            offset,
            text: part.text.len(),
            lines: part.lines.len(),
            all_lines: self.lines,
        };
        self.list = match (look.list, self.list) {
            (Some(list), Some((known, first))) if list == known => Some((known, first)),
            (Some(list), _) => Some((list, mark)),
            (None, _) => None,
        };
        self.lines += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let place = Place {
            head,
            offset,
            time_us,
        };
        let completed = look.completed(line, &place);
        let from = part.text.len();
        part.text
            .extend_from_slice(completed.as_deref().unwrap_or(line));
        part.text.push(b'\n');
        part.lines.push(Line {
            offset,
            from,
            to: part.text.len(),
            original: completed.map(|_| line.into()),
        });
    }

    /// Adds a line that is not sent.
    pub(crate) fn refuse(&mut self, refused: Refused) {
        self.lines += 1;
        self.list = None;
        self.refused_bytes += refused.line.len();
        self.refused.push(refused);
    }

    /// Takes the lines of the last list out again, as more of it may come. Returns where they begin.
    pub(crate) fn take_back_list(&mut self) -> Option<u64> {
        let (_, mark) = self.list.take()?;
        let part = &mut self.parts[Endpoint::Exposures as usize];
        part.text.truncate(mark.text);
        part.lines.truncate(mark.lines);
        self.lines = mark.all_lines;
        Some(mark.offset)
    }

    /// The batch, which ends at `to`.
    pub(crate) fn finish(self, file: Arc<FileInfo>, to: u64, tail: Head, disk_bytes: u64) -> Batch {
        let parts = Endpoint::ALL.into_iter().zip(self.parts);
        let parts = parts.filter(|(_, part)| !part.lines.is_empty());
        Batch {
            file,
            to,
            tail,
            parts: parts
                .map(|(endpoint, part)| Part {
                    endpoint,
                    text: part.text.into(),
                    lines: part.lines,
                })
                .collect(),
            refused: self.refused,
            lines: self.lines,
            stamp: self.stamped_us.map(|time_us| Stamp {
                from: self.from,
                to,
                time_us,
            }),
            bytes: to.saturating_sub(self.from),
            disk_bytes,
        }
    }
}

/// The times of events that have none.
#[derive(Debug)]
pub(crate) struct Times<'s> {
    /// Those that were given before a crash.
    pub(crate) given: &'s [Stamp],
    /// That of the others; `None`: they get none.
    pub(crate) time_us: Option<i64>,
}

impl Times<'_> {
    fn at(&self, offset: u64, stamped_us: &mut Option<i64>) -> Option<i64> {
        let mut given = self.given.iter();
        let given = given.find(|stamp| (stamp.from..stamp.to).contains(&offset));
        if let Some(stamp) = given {
            return Some(stamp.time_us);
        }
        let time_us = self.time_us?;
        *stamped_us = Some(time_us);
        Some(time_us)
    }
}
