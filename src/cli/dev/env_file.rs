//! `KEY=value` files that a shell can source.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What a line of a file begins with whose variables reach the programs that a shell starts.
const EXPORT: &str = "export ";

/// Variables, in the order in which they were set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EnvFile {
    variables: Vec<(String, String)>,
}

impl EnvFile {
    /// Reads a file that [`EnvFile::write`] wrote; a missing one is empty.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let variables = text
            .lines()
            .map(|line| line.strip_prefix(EXPORT).unwrap_or(line))
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), unquote(value)))
            .collect();
        Ok(Self { variables })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| &**value)
    }

    /// The value of a variable, which is set first if it is missing.
    pub(super) fn get_or_insert_with(
        &mut self,
        name: &str,
        make: impl FnOnce() -> String,
    ) -> String {
        if let Some(value) = self.get(name) {
            return value.to_owned();
        }
        let value = make();
        self.set(name, &value);
        value
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Writes the file atomically, readable only by its owner.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        self.write_lines(path, "")
    }

    /// The same, so that the programs that a shell starts after sourcing it have the variables.
    pub(super) fn write_exported(&self, path: &Path) -> io::Result<()> {
        self.write_lines(path, EXPORT)
    }

    fn write_lines(&self, path: &Path, before: &str) -> io::Result<()> {
        let unfinished = path.with_extension("tmp");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        for (name, value) in &self.variables {
            writeln!(file, "{before}{name}={}", quote(value))?;
        }
        file.sync_all()?;
        fs::rename(&unfinished, path)
    }
}

/// Quotes a value for a shell, but only if needed: other readers see plain values bare.
fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@?=%+,-".contains(c);
    if value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

fn unquote(value: &str) -> String {
    match value
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''))
    {
        Some(inner) => inner.replace(r"'\''", "'"),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_the_values_as_they_were_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev.env");
        let mut file = EnvFile::default();
        file.set("PLAIN", "postgresql://postgres@/recsys?host=%2Ftmp%2Fx");
        file.set("ODD", "it's $HOME & `more` \"x\" \\ #");
        let expected = format!(
            "{}|{}",
            file.get("PLAIN").unwrap(),
            file.get("ODD").unwrap()
        );
        let print = "printf '%s|%s' \"$PLAIN\" \"$ODD\"";
        let seen = |script: &str| {
            let script = format!(". {}; {script}", path.display());
            let out = Command::new("sh").args(["-c", &script]).output().unwrap();
            String::from_utf8(out.stdout).unwrap()
        };
        file.write(&path).unwrap();
        assert_eq!(EnvFile::read(&path).unwrap(), file);
        assert_eq!(seen(print), expected);
        assert_eq!(seen("sh -c 'echo $PLAIN'"), "\n");
        file.write_exported(&path).unwrap();
        assert_eq!(EnvFile::read(&path).unwrap(), file);
        assert_eq!(seen(print), expected);
        assert_eq!(
            seen(&format!("sh -c '{}'", print.replace('\'', "'\\''"))),
            expected
        );
    }
}
