//! A keep-alive connection that posts bodies with little work.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use recsys_ingest::tenants::role::Role;

use crate::harness::key;

/// Longest wait for an answer; then the connection counts as broken.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A connection, opened on demand.
pub(super) struct Wire {
    head: String,
    stream: Option<(SocketAddr, TcpStream)>,
    request: Vec<u8>,
    unread: Vec<u8>,
}

/// An answer.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) has_retry_after: bool,
    body: &'a str,
}

/// No answer arrived.
pub(super) struct Broken {
    /// Whether the request may have arrived.
    pub(super) sent: bool,
}

impl Wire {
    pub(super) fn new(path: &str, ack: &str) -> Self {
        let key = key("demo", Role::Ingest);
        Self {
            head: format!(
                "POST {path}?ack={ack} HTTP/1.1\r\nhost: test\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n"
            ),
            stream: None,
            request: Vec::new(),
            unread: vec![0; 16 * 1024],
        }
    }

    /// Posts a body; reconnects if necessary.
    pub(super) fn post(&mut self, to: SocketAddr, body: &[u8]) -> Result<Answer<'_>, Broken> {
        if self.stream.as_ref().is_none_or(|(at, _)| *at != to) {
            let stream = TcpStream::connect(to).map_err(|_| Broken { sent: false })?;
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
            stream.set_write_timeout(Some(ANSWER_MAX)).unwrap();
            self.stream = Some((to, stream));
        }
        self.request.clear();
        self.request.extend_from_slice(self.head.as_bytes());
        write!(self.request, "content-length: {}\r\n\r\n", body.len()).unwrap();
        self.request.extend_from_slice(body);
        let (_, mut stream) = self.stream.take().unwrap();
        stream
            .write_all(&self.request)
            .map_err(|_| Broken { sent: true })?;
        let (head, end) = self.read(&mut stream).ok_or(Broken { sent: true })?;
        let text = std::str::from_utf8(&self.unread[..end]).unwrap();
        let (lines, body) = (text[..head].to_ascii_lowercase(), &text[head..]);
        if !lines.contains("\r\nconnection: close") {
            self.stream = Some((to, stream));
        }
        Ok(Answer {
            status: lines[9..12].parse().unwrap(),
            has_retry_after: lines.contains("\r\nretry-after: "),
            body,
        })
    }

    /// Reads an answer; returns the start and the end of its body.
    fn read(&mut self, stream: &mut TcpStream) -> Option<(usize, usize)> {
        let mut filled = 0;
        loop {
            match stream.read(&mut self.unread[filled..]) {
                Ok(0) | Err(_) => return None,
                Ok(read) => filled += read,
            }
            let bytes = &self.unread[..filled];
            if let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let lines = std::str::from_utf8(&bytes[..head]).unwrap();
                let (_, length) = lines
                    .split("\r\n")
                    .filter_map(|line| line.split_once(": "))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .expect("answers have a length");
                let end = head + 4 + length.parse::<usize>().unwrap();
                if filled >= end {
                    return Some((head + 4, end));
                }
                if self.unread.len() < end {
                    self.unread.resize(end, 0);
                }
            }
        }
    }
}

impl<'a> Answer<'a> {
    /// The value of a text field, or an empty text.
    pub(super) fn text(&self, name: &str) -> &'a str {
        self.after(name)
            .and_then(|rest| rest.strip_prefix('"')?.split('"').next())
            .unwrap_or_default()
    }

    /// The value of a numeric field, or 0.
    pub(super) fn number(&self, name: &str) -> u64 {
        let digits = self.after(name).unwrap_or_default();
        let digits = digits.split(|c: char| !c.is_ascii_digit()).next();
        digits.unwrap_or_default().parse().unwrap_or(0)
    }

    /// Number of events that are listed as quarantined.
    pub(super) fn quarantined(&self) -> u64 {
        let list = self.after("quarantined").unwrap_or_default();
        list.matches("\"index\":").count() as u64
    }

    /// The whole answer, for messages.
    pub(super) fn whole(&self) -> String {
        format!("{} {}", self.status, self.body)
    }

    fn after(&self, name: &str) -> Option<&'a str> {
        let (_, rest) = self.body.split_once(&format!("\"{name}\":"))?;
        Some(rest)
    }
}
