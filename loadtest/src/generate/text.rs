//! JSON text, written straight into the body.
//!
//! Keeps one invariant: what is written between `open` and `close` is one valid
//! JSON object. Faster than a general serializer, since all names and nearly all
//! values are known to need no escape.

/// Writes one object, member by member.
#[derive(Debug)]
pub(crate) struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Object<'o> {
    /// Opens an object at the end of `out`.
    pub(crate) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Writes a member's name; its value is the caller's to write.
    pub(crate) fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A string that needs no escape.
    pub(crate) fn plain(&mut self, name: &str, value: &str) -> &mut Self {
        self.quoted(name, |out| out.extend_from_slice(value.as_bytes()))
    }

    /// A string whose inside `write` writes, escaped already.
    pub(crate) fn quoted(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let out = self.name(name);
        out.push(b'"');
        write(out);
        out.push(b'"');
        self
    }

    /// A whole number.
    pub(crate) fn number(&mut self, name: &str, value: u64) -> &mut Self {
        push_number(self.name(name), value);
        self
    }

    /// A JSON value that is written already.
    pub(crate) fn raw(&mut self, name: &str, value: &str) -> &mut Self {
        let out = self.name(name);
        out.extend_from_slice(value.as_bytes());
        self
    }

    /// Closes the object.
    pub(crate) fn close(self) {
        self.out.push(b'}');
    }
}

/// Appends a number in decimal.
pub(crate) fn push_number(out: &mut Vec<u8>, value: u64) {
    push_padded(out, value, 1);
}

/// Appends a number in decimal, with zeros in front up to `width`.
pub(crate) fn push_padded(out: &mut Vec<u8>, mut value: u64, width: usize) {
    // u64::MAX has 20 digits.
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while value > 0 {
        at -= 1;
        digits[at] += (value % 10).to_le_bytes()[0];
        value /= 10;
    }
    at = at.min(digits.len() - width);
    out.extend_from_slice(&digits[at..]);
}

/// Appends a UUID in its usual form.
pub(crate) fn push_uuid(out: &mut Vec<u8>, id: &uuid::Uuid) {
    let mut buffer = uuid::Uuid::encode_buffer();
    out.extend_from_slice(id.hyphenated().encode_lower(&mut buffer).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_padded_and_never_cut() {
        for (value, width, text) in [
            (0, 1, "0"),
            (0, 3, "000"),
            (42, 1, "42"),
            (42, 6, "000042"),
            (1_234, 2, "1234"),
            (u64::MAX, 1, "18446744073709551615"),
        ] {
            let mut out = Vec::new();
            push_padded(&mut out, value, width);
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn an_object_is_valid_json() {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.plain("a", "b").number("n", 7).raw("x", "null");
        object.close();
        assert_eq!(out, br#"{"a":"b","n":7,"x":null}"#);
    }
}
