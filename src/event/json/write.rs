//! Writes JSON objects, member by member.

use super::string::push_string;

/// Writes one JSON object, member by member, at the end of a string.
#[derive(Debug)]
pub struct ObjectWriter<'o> {
    out: &'o mut String,
    empty: bool,
}

impl<'o> ObjectWriter<'o> {
    /// Opens an object.
    pub fn open(out: &'o mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    /// Goes on with an object that `out` begins with and that is not closed; opens it if `out` is
    /// empty.
    pub fn resume(out: &'o mut String) -> Self {
        match out.len() {
            0 => Self::open(out),
            length => Self {
                out,
                empty: length == 1,
            },
        }
    }

    /// Writes a member with a value that is JSON text already.
    pub fn raw(&mut self, key: &str, raw: &str) -> &mut Self {
        self.name(key).push_str(raw);
        self
    }

    /// Writes a member with a string.
    pub fn str(&mut self, key: &str, value: &str) -> &mut Self {
        push_string(self.name(key), value);
        self
    }

    /// Writes a member with a string, if there is one.
    pub fn opt_str(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.str(key, value);
        }
        self
    }

    /// Writes a member's name, and returns the output for its value.
    pub fn name(&mut self, key: &str) -> &mut String {
        if !self.empty {
            self.out.push(',');
        }
        self.empty = false;
        push_string(self.out, key);
        self.out.push(':');
        self.out
    }

    /// Closes the object; returns whether it has any members.
    pub fn close(self) -> bool {
        self.out.push('}');
        !self.empty
    }
}
