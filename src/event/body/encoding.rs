//! The character encoding of a body, as far as its first bytes show it.

/// UTF-8's byte order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes of the byte order marks at the start of `text`. Several stand there where programs that
/// each write one worked on the same file.
pub(super) fn mark_bytes(text: &[u8]) -> usize {
    let mut rest = text;
    while let Some(behind) = rest.strip_prefix(MARK) {
        rest = behind;
    }
    text.len() - rest.len()
}

/// What is behind byte order marks and white space.
pub(super) fn content(text: &[u8]) -> &[u8] {
    let mut rest = text.trim_ascii_start();
    while let Some(behind) = rest.strip_prefix(MARK) {
        rest = behind.trim_ascii_start();
    }
    rest
}

/// The name of the encoding, if it is certainly another one than UTF-8.
///
/// Without a mark it shows in the first two characters: those of a JSON text are ASCII.
pub(super) fn foreign(text: &[u8]) -> Option<&'static str> {
    match *text {
        [0xff, 0xfe, 0, 0, ..] | [1..=255, 0, 0, 0, ..] => Some("UTF-32LE"),
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, 1..=255, ..] => Some("UTF-32BE"),
        [0xff, 0xfe, ..] | [1..=255, 0, 1..=255, 0, ..] => Some("UTF-16LE"),
        [0xfe, 0xff, ..] | [0, 1..=255, 0, 1..=255, ..] => Some("UTF-16BE"),
        _ => None,
    }
}

/// The name of the compression that the first bytes belong to; they are those of no text.
pub(super) fn compression(text: &[u8]) -> Option<&'static str> {
    match *text {
        [0x1f, 0x8b, 8, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_body_is_known_by_its_first_bytes() {
        for (text, name) in [
            (&b"\x1f\x8b\x08\0"[..], Some("gzip")),
            (b"\x28\xb5\x2f\xfd\x20", Some("zstd")),
            (b"\x1f\x8b", None),
            (b"(\xc2\xb5/", None),
            (b"{}", None),
            (b"", None),
        ] {
            assert_eq!(compression(text), name, "{text:?}");
        }
    }

    #[test]
    fn another_encoding_is_known_with_and_without_its_mark() {
        let text = "{\"a\": \"é\"}";
        let wide = |mark: bool| {
            let text = format!("{}{text}", if mark { "\u{feff}" } else { "" });
            let both: Vec<u16> = text.encode_utf16().collect();
            let long: Vec<u32> = text.chars().map(u32::from).collect();
            [
                (
                    "UTF-16LE",
                    both.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
                ),
                (
                    "UTF-16BE",
                    both.iter().flat_map(|unit| unit.to_be_bytes()).collect(),
                ),
                (
                    "UTF-32LE",
                    long.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
                ),
                (
                    "UTF-32BE",
                    long.iter()
                        .flat_map(|unit| unit.to_be_bytes())
                        .collect::<Vec<u8>>(),
                ),
            ]
        };
        for (name, bytes) in wide(true).into_iter().chain(wide(false)) {
            assert_eq!(foreign(&bytes), Some(name));
        }
        for utf8 in [text, "\u{feff}{}", "{}", "{", "", "\0\0\0\0", "\0\0"] {
            assert_eq!(foreign(utf8.as_bytes()), None, "{utf8:?}");
        }
    }
}
