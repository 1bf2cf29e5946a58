//! Members and elements of values that the scanner has let through.

use super::{Field, Scanner};

/// The members of a scanned object; `None` if the value is something else.
pub fn members(raw: &str) -> Option<Vec<Field<'_>>> {
    let mut scanner = Scanner::new(raw);
    let mut fields = Vec::new();
    if !scanner.take(b'{') {
        return None;
    }
    if scanner.take(b'}') {
        return Some(fields);
    }
    loop {
        let (key, _) = scanner.key().ok()?;
        let value = scanner.value(0).ok()?;
        fields.push(Field {
            key,
            raw: value.raw,
            escaped: value.escaped,
        });
        if !scanner.take(b',') {
            return Some(fields);
        }
    }
}

/// The elements of a scanned array; `None` if the value is something else.
pub fn elements(raw: &str) -> Option<Vec<&str>> {
    let mut scanner = Scanner::new(raw);
    let mut values = Vec::new();
    if !scanner.take(b'[') {
        return None;
    }
    if scanner.take(b']') {
        return Some(values);
    }
    loop {
        values.push(scanner.value(0).ok()?.raw);
        if !scanner.take(b',') {
            return Some(values);
        }
    }
}
