//! Reads lines of bounded length, and knows where each begins.
//!
//! Invariant: memory is bounded by the longest line that is taken, however long a line is.

use std::io::{self, BufRead};

/// Bytes of a line that is too long which are kept, to recognise it by.
pub(crate) const KEPT_OF_TOO_LONG: usize = 4096;

/// Bytes before a position by which its file is recognised.
pub(crate) const TAIL_BYTES: usize = 256;

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A line with its end.
    Line,
    /// A line with its end, longer than the limit: its first [`KEPT_OF_TOO_LONG`] bytes, and its length.
    TooLong(u64),
    /// The file ends within a line, of which this many bytes are there.
    Torn(u64),
    /// The file ends.
    End,
}

/// Reads one line after the other.
#[derive(Debug)]
pub(crate) struct LineReader<R> {
    input: R,
    /// Where the next line begins.
    offset: u64,
    line_bytes_max: usize,
    line: Vec<u8>,
    tail: Vec<u8>,
    /// The tail before the line that is read; after a torn line, the tail behind it.
    other_tail: Vec<u8>,
}

impl<R: BufRead> LineReader<R> {
    /// `input` stands at `offset` of the file; `tail` are the bytes before it.
    pub(crate) fn new(input: R, offset: u64, tail: Vec<u8>, line_bytes_max: usize) -> Self {
        Self {
            input,
            offset,
            line_bytes_max,
            line: Vec::new(),
            tail,
            other_tail: Vec::new(),
        }
    }

    /// Where the next line begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The last bytes before the next line.
    pub(crate) fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// The last bytes before the line that was read last, if it had an end.
    pub(crate) fn tail_before(&self) -> &[u8] {
        &self.other_tail
    }

    /// What was read last, without its line end.
    pub(crate) fn line(&self) -> &[u8] {
        self.line.strip_suffix(b"\n").unwrap_or(&self.line)
    }

    /// Reads on. A line without an end stays unread: the next line still begins where it does.
    pub(crate) fn read(&mut self) -> io::Result<Piece> {
        self.line.clear();
        self.other_tail.clone_from(&self.tail);
        // The limit, and a line end.
        let most = self.line_bytes_max as u64 + 1;
        let mut bytes = 0;
        loop {
            let is_short = bytes < most;
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    std::mem::swap(&mut self.tail, &mut self.other_tail);
                    return Err(error);
                }
            };
            if available.is_empty() {
                std::mem::swap(&mut self.tail, &mut self.other_tail);
                return Ok(match bytes {
                    0 => Piece::End,
                    _ => Piece::Torn(bytes),
                });
            }
            let (part, ends) = match memchr::memchr(b'\n', available) {
                Some(at) => (&available[..=at], true),
                None => (available, false),
            };
            let length = part.len();
            if is_short {
                let room = usize::try_from(most - bytes).unwrap_or(usize::MAX);
                self.line.extend_from_slice(&part[..length.min(room)]);
            }
            keep_tail(&mut self.tail, part);
            bytes += length as u64;
            self.input.consume(length);
            if ends {
                self.offset += bytes;
                if bytes <= most {
                    return Ok(Piece::Line);
                }
                self.line.truncate(KEPT_OF_TOO_LONG);
                return Ok(Piece::TooLong(bytes - 1));
            }
        }
    }

    /// Counts the line without an end that was read last as read.
    pub(crate) fn accept_torn(&mut self, bytes: u64) {
        self.offset += bytes;
        std::mem::swap(&mut self.tail, &mut self.other_tail);
    }
}

/// Adds `part` to the last bytes.
fn keep_tail(tail: &mut Vec<u8>, part: &[u8]) {
    let part = &part[part.len().saturating_sub(TAIL_BYTES)..];
    let over = (tail.len() + part.len()).saturating_sub(TAIL_BYTES);
    tail.drain(..over);
    tail.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn lines_are_read_whole_with_their_places_whatever_the_buffer() {
        let text = b"one\n\nthree is too long\nfour\ntorn";
        for buffer in 1..40 {
            let input = BufReader::with_capacity(buffer, &text[..]);
            let mut reader = LineReader::new(input, 100, Vec::new(), 5);
            let mut found = Vec::new();
            loop {
                let offset = reader.offset();
                let piece = reader.read().unwrap();
                let line = String::from_utf8(reader.line().to_vec()).unwrap();
                found.push((piece, offset, line));
                if matches!(piece, Piece::End | Piece::Torn(_)) {
                    break;
                }
            }
            let expected = [
                (Piece::Line, 100, "one"),
                (Piece::Line, 104, ""),
                (Piece::TooLong(17), 105, "three "),
                (Piece::Line, 123, "four"),
                (Piece::Torn(4), 128, "torn"),
            ]
            .map(|(piece, offset, line)| (piece, offset, line.to_owned()));
            assert_eq!(found, expected, "with a buffer of {buffer}");
            assert_eq!(reader.offset(), 128);
        }
    }

    #[test]
    fn the_tail_is_what_stands_before_the_next_line() {
        let mut text = vec![b'x'; 1000];
        text.push(b'\n');
        text.extend_from_slice(b"ab\n");
        let mut reader = LineReader::new(BufReader::with_capacity(7, &text[..]), 0, vec![], 2000);
        for end in [1001, 1004] {
            assert_eq!(reader.read().unwrap(), Piece::Line);
            assert_eq!(reader.tail(), &text[end - TAIL_BYTES..end]);
        }
    }
}
