//! The dead-letter file: lines that cannot be stored, with the reason of each.
//!
//! One JSON object a line. Invariant: after a crash the file ends where the positions say, so that
//! a line that is sent again is not written twice.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// Why a line is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    /// For programs: a code of the service, or `line_too_long` or `torn_line`.
    pub(crate) code: String,
    /// The field at fault, if it is one field.
    pub(crate) field: Option<String>,
    /// For people.
    pub(crate) message: String,
}

impl Reason {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            field: None,
            message: message.into(),
        }
    }
}

/// The reason of a line that is too long.
pub(crate) fn too_long(bytes: u64, most: usize) -> Reason {
    Reason::new(
        "line_too_long",
        format!("the line has {bytes} bytes; the most is {most} (--line-bytes-max)"),
    )
}

/// The reason of a line whose event has no time, where none is given to it. A file has no time that stays
/// the same when it is copied, and with another time an event is another one.
/// `field` is the one that has it.
pub(crate) fn without_time(field: &str) -> Reason {
    Reason {
        code: "missing_field".to_owned(),
        field: Some(field.to_owned()),
        message:
            "is required here, as a file tells no time that stays the same when it is copied; \
                  --occurred-at TIME gives one to all events without"
                .to_owned(),
    }
}

#[derive(Serialize)]
struct DeadLetter<'l> {
    file: String,
    /// Where the line begins in the file (decompressed).
    offset: u64,
    code: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'l str>,
    message: &'l str,
    rejected_at: String,
    /// The line as it stands in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<&'l str>,
    /// The same for a line that is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    line_base64: Option<String>,
    /// Bytes of the whole line, where `line` is only its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    line_bytes: Option<u64>,
}

/// A dead letter as a line of the file. `cut_from` are the bytes of the whole line if `line` is its
/// beginning.
pub(crate) fn dead_letter(
    file: &Path,
    offset: u64,
    line: &[u8],
    cut_from: Option<u64>,
    reason: &Reason,
    now_us: i64,
) -> Vec<u8> {
    // The beginning of a line may end within a character.
    let text = match (std::str::from_utf8(line), cut_from) {
        (Ok(text), _) => Some(text),
        (Err(error), Some(_)) if error.error_len().is_none() => {
            std::str::from_utf8(&line[..error.valid_up_to()]).ok()
        }
        (Err(_), _) => None,
    };
    let letter = DeadLetter {
        file: file.display().to_string(),
        offset,
        code: &reason.code,
        field: reason.field.as_deref(),
        message: &reason.message,
        rejected_at: jiff::Timestamp::from_microsecond(now_us)
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
            .to_string(),
        line: text,
        line_base64: text.is_none().then(|| STANDARD.encode(line)),
        line_bytes: cut_from,
    };
    let mut json = serde_json::to_vec(&letter).expect("strings and numbers are always JSON");
    json.push(b'\n');
    json
}

/// The file. It is opened for each write, so that it may be moved away at any time.
#[derive(Clone, Debug)]
pub(crate) struct Rejects {
    path: PathBuf,
}

impl Rejects {
    /// Opens it, and removes what a crash left behind the last position: `bytes` is how long it was
    /// then, if that is known. Returns how long it is.
    pub(crate) fn open(path: PathBuf, bytes: Option<u64>) -> Result<(Self, u64)> {
        let rejects = Self { path };
        let file = match OpenOptions::new().write(true).open(&rejects.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((rejects, 0)),
            Err(error) => return Err(error).with_context(|| rejects.failure("open")),
        };
        let shorten = || {
            let length = file.metadata()?.len();
            match bytes {
                Some(bytes) if length > bytes => {
                    file.set_len(bytes)?;
                    file.sync_all()?;
                    Ok(bytes)
                }
                _ => std::io::Result::Ok(length),
            }
        };
        let length = shorten().with_context(|| rejects.failure("shorten"))?;
        Ok((rejects, length))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends letters and syncs them; returns how long the file then is.
    pub(crate) fn append(&self, letters: &[u8]) -> Result<u64> {
        let write = || {
            let mut file: File = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)?;
            let before = file.metadata()?.len();
            let written = file.write_all(letters).and_then(|()| file.sync_all());
            if let Err(error) = written {
                // Half a letter must not stand before the next attempt's.
                file.set_len(before).ok();
                return Err(error);
            }
            Ok(before + letters.len() as u64)
        };
        write().with_context(|| self.failure("write"))
    }

    fn failure(&self, verb: &str) -> String {
        format!(
            "cannot {verb} the file of rejected lines {}",
            self.path.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn letter(line: &[u8], cut_from: Option<u64>) -> Value {
        let reason = Reason::new("c", "m");
        let bytes = dead_letter(Path::new("f"), 3, line, cut_from, &reason, 0);
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_letter_holds_every_line() {
        assert_eq!(letter("é\"".as_bytes(), None)["line"], "é\"");
        assert_eq!(letter(b"\xff", None)["line_base64"], "/w==");
        // A beginning that ends within a character.
        let cut = letter(b"a\xc3", Some(900));
        assert_eq!(
            (&cut["line"], &cut["line_bytes"]),
            (&"a".into(), &900.into())
        );
        assert_eq!(cut["offset"], 3);
    }

    #[test]
    fn what_a_crash_left_is_removed_and_a_file_that_was_moved_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rejected.jsonl");
        let rejects = Rejects::open(path.clone(), None).unwrap().0;
        assert_eq!(rejects.append(b"one\n").unwrap(), 4);
        assert_eq!(rejects.append(b"two\n").unwrap(), 8);
        drop(Rejects::open(path.clone(), Some(4)).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        assert_eq!(rejects.append(b"new\n").unwrap(), 4);
        drop(Rejects::open(path.clone(), Some(400)).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"new\n");
    }
}
