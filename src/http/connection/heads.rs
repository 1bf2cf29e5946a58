//! Refuses a bare LF as a line end in the head of an HTTP/1 request.
//!
//! hyper's parser takes a bare LF for a line end, as RFC 9112 allows. A proxy in front may not, and
//! then the two see different requests (request smuggling). So each bare LF is replaced by a NUL
//! before the parser sees it, and the parser answers 400. Only heads that begin after the response
//! before them are checked: when a client pipelines requests, this code does not know where the
//! next head begins.

/// Checks the bytes of one head as they arrive.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    /// The number of the request that the head belongs to.
    request: u64,
    /// Bytes of the current line so far.
    line: usize,
    after_cr: bool,
    begun: bool,
    ended: bool,
}

impl Heads {
    /// Replaces each bare LF in `bytes`, which belong to the head of `request`, by a NUL. Returns
    /// whether there was one.
    pub(crate) fn check(&mut self, request: u64, bytes: &mut [u8]) -> bool {
        if self.request != request {
            *self = Self {
                request,
                ..Self::default()
            };
        }
        let (mut rest, mut spoilt) = (bytes, false);
        while !self.ended {
            let Some(at) = memchr::memchr(b'\n', rest) else {
                self.line += rest.len();
                if let Some(last) = rest.last() {
                    self.after_cr = *last == b'\r';
                }
                break;
            };
            let (line, after) = rest.split_at_mut(at + 1);
            let after_cr = match line {
                [.., before, _] => *before == b'\r',
                _ => self.after_cr,
            };
            if after_cr {
                // An empty line ends a head; empty lines before the head are skipped.
                let empty = self.line + line.len() == 2;
                self.ended = empty && self.begun;
                self.begun |= !empty;
            } else {
                // The parser refuses a head with a NUL.
                line[at] = 0;
                spoilt = true;
            }
            self.line = 0;
            self.after_cr = false;
            rest = after;
        }
        spoilt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pieces: &[&str]) -> String {
        let mut heads = Heads::default();
        let mut out = Vec::new();
        for piece in pieces {
            let mut bytes = piece.as_bytes().to_vec();
            assert_eq!(heads.check(0, &mut bytes), bytes.contains(&0));
            out.extend(bytes);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bare_line_feeds_are_spoilt_in_the_head_and_left_alone_in_the_body() {
        let good = "\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n{\n}\n";
        assert_eq!(checked(&[good]), good);
        let bytes: Vec<_> = good.split_inclusive(|_| true).collect();
        assert_eq!(checked(&bytes), good);
        for (bad, spoilt) in [
            (
                "GET / HTTP/1.1\nhost: x\r\n\r\n",
                "GET / HTTP/1.1\0host: x\r\n\r\n",
            ),
            (
                "GET / HTTP/1.1\r\nhost: x\n\n",
                "GET / HTTP/1.1\r\nhost: x\0\0",
            ),
            (
                "GET / HTTP/1.1\r\nhost: x\r\n\n",
                "GET / HTTP/1.1\r\nhost: x\r\n\0",
            ),
        ] {
            assert_eq!(checked(&[bad]), spoilt);
            let bytes: Vec<_> = bad.split_inclusive(|_| true).collect();
            assert_eq!(checked(&bytes), spoilt);
        }
    }

    #[test]
    fn each_request_has_a_head() {
        let mut heads = Heads::default();
        let mut first = *b"GET / HTTP/1.1\r\n\r\n";
        assert!(!heads.check(0, &mut first));
        let mut second = *b"GET / HTTP/1.1\n\r\n";
        assert!(heads.check(1, &mut second));
        assert_eq!(&second, b"GET / HTTP/1.1\0\r\n");
    }
}
