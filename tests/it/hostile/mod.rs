//! Promise: each hostile request has its one answer, and hurts no other.
//!
//! Each row is written to a socket as it stands. It is answered as the table says, once: what stands
//! behind a request that is refused is never taken for a second one. After each, an honest event is
//! posted on a new connection and stored.

mod callers;
mod content;
mod frames;
mod messages;

use std::net::SocketAddr;

use recsys_ingest::tenants::role::Role;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{SOON, Service, click, key};

const PATH: &str = "/v1/interactions";

/// What must come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Events are stored.
    Stored(i64),
    /// A problem with this status and code. Without a code: the parser's answer, which has no body,
    /// because there is no request that it could be for.
    Problem(u16, &'static str),
    /// The only event is rejected with this code.
    Rejected(&'static str),
    /// The connection ends without an answer.
    Closed,
    /// HTTP/2: the connection ends with a GOAWAY of this error code.
    GoAway(u32),
    /// HTTP/2: the stream is reset with this error code.
    Reset(u32),
}

use Answer::Problem;

/// A hostile request.
struct Row {
    what: String,
    bytes: Vec<u8>,
    answer: Answer,
    /// Words of the answer, where the cause is easily mistaken.
    words: &'static str,
}

impl Row {
    fn says(mut self, words: &'static str) -> Self {
        self.words = words;
        self
    }

    /// A request as it stands, in which `KEY` is an API key, `EVENT` an event and `LEN` its length.
    fn raw(what: &str, text: impl AsRef<[u8]>, answer: Answer) -> Self {
        let event = click(what).to_string();
        let length = event.len().to_string();
        let mut bytes = text.as_ref().to_vec();
        for (name, value) in [
            ("KEY", key("demo", Role::Ingest)),
            ("EVENT", event),
            ("LEN", length),
        ] {
            bytes = replaced(&bytes, name.as_bytes(), value.as_bytes());
        }
        Self {
            what: what.to_owned(),
            bytes,
            answer,
            words: "",
        }
    }

    /// A good post of one event, but for these header lines.
    fn lines(what: &str, lines: &str, answer: Answer) -> Self {
        let text = format!(
            "POST {PATH} HTTP/1.1\r\nhost: test\r\nx-api-key: KEY\r\n{lines}content-length: LEN\r\n\r\nEVENT"
        );
        Self::raw(what, text, answer)
    }

    /// A good post of one event, but for its request line.
    fn line(what: &str, line: &str, answer: Answer) -> Self {
        let text =
            format!("{line}\r\nhost: test\r\nx-api-key: KEY\r\ncontent-length: LEN\r\n\r\nEVENT");
        Self::raw(what, text, answer)
    }

    /// A post of this body with these header lines.
    fn body(what: &str, lines: &str, body: impl AsRef<[u8]>, answer: Answer) -> Self {
        let body = body.as_ref();
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: test\r\nx-api-key: KEY\r\n{lines}content-length: {}\r\n\r\n",
            body.len()
        );
        let mut row = Self::raw(what, head, answer);
        row.bytes.extend_from_slice(body);
        row
    }
}

/// `bytes` with `new` in each place of `old`.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(old.len()).position(|part| part == old) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(new);
        rest = &rest[at + old.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Writes `bytes`, ends the sending side, and reads to the end.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut received = Vec::new();
    let talk = async {
        // The service may answer and close before it has read everything.
        if stream.write_all(bytes).await.is_ok() {
            drop(stream.shutdown().await);
        }
        while matches!(stream.read_buf(&mut received).await, Ok(1..)) {}
    };
    tokio::time::timeout(SOON, talk)
        .await
        .expect("the connection stays open");
    received
}

/// The answer in what was received over HTTP/1.
fn answer_in(received: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(received);
    if text.is_empty() {
        return Answer::Closed;
    }
    let answers = text
        .split("HTTP/1.")
        .skip(1)
        // The minor version, and a status.
        .filter(|rest| matches!(rest.as_bytes(), [b'0' | b'1', b' ', b'0'..=b'9', ..]));
    if answers.count() != 1 {
        return Problem(0, text.into_owned().leak());
    }
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    if status == 200 {
        return Answer::Stored(json["committed"].as_i64().unwrap_or_default());
    }
    let codes = [
        "malformed_body",
        "no_events",
        "invalid_ack",
        "invalid_format",
        "invalid_query",
        "invalid_sent_at",
        "invalid_compression",
        "body_incomplete",
        "duplicate_field",
        "invalid_host",
        "missing_api_key",
        "invalid_api_key",
        "role_not_allowed",
        "unknown_tenant",
        "tenant_mismatch",
        "tenant_not_active",
        "origin_not_allowed",
        "not_found",
        "method_not_allowed",
        "body_too_large",
        "too_many_events",
        "unsupported_media_type",
        "unsupported_charset",
        "unsupported_encoding",
        "unsupported_transfer_encoding",
    ];
    let code = json["code"].as_str().unwrap_or_default();
    if code == "all_events_rejected" {
        let code = json["rejected"][0]["code"].as_str().unwrap().to_owned();
        return Answer::Rejected(code.leak());
    }
    let code = codes.into_iter().find(|known| *known == code);
    Answer::Problem(status, code.unwrap_or_else(|| body.to_owned().leak()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hostile_request_has_its_answer_and_hurts_no_other() {
    let service = Service::with(|settings| settings.with("--body-bytes-max", "1MiB")).await;
    let address = service.client().address;
    let rows: Vec<Row> = messages::rows()
        .into_iter()
        .chain(content::rows())
        .chain(callers::rows())
        .chain(frames::rows())
        .collect();
    let (mut stored, mut wrong) = (0, Vec::new());
    for (n, row) in rows.iter().enumerate() {
        let received = exchange(address, &row.bytes).await;
        let answer = match row.answer {
            Answer::GoAway(_) | Answer::Reset(_) => frames::answer_in(&received),
            _ => answer_in(&received),
        };
        // The connection ends right behind the frames, so that the reset may come too late.
        let is_refused = matches!(row.answer, Answer::GoAway(_) | Answer::Reset(_))
            && matches!(
                answer,
                Answer::GoAway(_) | Answer::Reset(_) | Answer::Closed
            );
        if answer != row.answer && !is_refused {
            wrong.push(format!("{}: {answer:?}, not {:?}", row.what, row.answer));
        }
        let text = String::from_utf8_lossy(&received);
        if !text.contains(row.words) {
            wrong.push(format!("{}: no '{}' in {text}", row.what, row.words));
        }
        if let Answer::Stored(events) = answer {
            stored += events;
        }
        let honest = service.interactions(&click(&format!("honest {n}"))).await;
        assert_eq!(honest.settled(), (1, 0, 0, 0), "after {}", row.what);
        stored += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(service.database.count("interaction_events").await, stored);
    service.memory_is_free().await;
    println!("{} hostile requests", rows.len());
}
