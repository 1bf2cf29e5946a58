//! HTTP/2 frames that no client library sends.

use super::Answer::{GoAway, Reset};
use super::{Answer, Row};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection that begins well, and then sends these frames.
fn row(what: &str, frames: &[Vec<u8>], answer: Answer) -> Row {
    let begin = [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    Row {
        what: format!("HTTP/2: {what}"),
        bytes: [begin, frames.concat()].concat(),
        answer,
        words: "",
    }
}

/// Header fields as literals without indexing.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The head of a request with one field more.
fn head(more: (&str, &str)) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/interactions"),
        more,
    ];
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields))
}

pub(super) fn rows() -> Vec<Row> {
    let open = frame(
        HEADERS,
        END_HEADERS,
        1,
        &block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/v1/interactions"),
        ]),
    );
    let half = frame(HEADERS, END_STREAM, 1, &block(&[(":method", "POST")]));
    let wide = u32::MAX >> 1;
    let window = [frame(WINDOW_UPDATE, 0, 0, &wide.to_be_bytes())];
    vec![
        row(
            "headers on stream 0",
            &[frame(HEADERS, END_HEADERS, 0, &[0x82])],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "headers on an even stream",
            &[frame(HEADERS, END_HEADERS, 2, &[0x82])],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "data on stream 0",
            &[frame(DATA, 0, 0, b"x")],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "data on a stream that is not open",
            &[frame(DATA, 0, 7, b"x")],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "a continuation of nothing",
            &[frame(CONTINUATION, END_HEADERS, 1, &[0x82])],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "a ping within headers",
            &[half, frame(PING, 0, 0, &[0; 8])],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "a push to the server",
            &[
                open.clone(),
                frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            ],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "a frame of 17 KB",
            &[frame(DATA, 0, 1, &[0; 17_000])],
            GoAway(FRAME_SIZE_ERROR),
        ),
        row(
            "settings of five bytes",
            &[frame(SETTINGS, 0, 0, &[0; 5])],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "a ping of seven bytes",
            &[frame(PING, 0, 0, &[0; 7])],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "a window beyond its most",
            &window,
            GoAway(FLOW_CONTROL_ERROR),
        ),
        row(
            "an index beyond the table",
            &[frame(HEADERS, END_HEADERS, 1, &[0xff, 0x7f])],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "a reset of a stream that is not open",
            &[frame(RST_STREAM, 0, 9, &[0, 0, 0, 8])],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "a name in capitals",
            &[head(("X-Api-Key", "x"))],
            GoAway(PROTOCOL_ERROR),
        ),
        row(
            "a connection header",
            &[head(("connection", "close"))],
            Reset(PROTOCOL_ERROR),
        ),
        row(
            "chunks",
            &[head(("transfer-encoding", "chunked"))],
            Reset(PROTOCOL_ERROR),
        ),
        row(
            "a pseudo-header twice",
            &[head((":path", "/metrics"))],
            Reset(PROTOCOL_ERROR),
        ),
        row(
            "a length that the body has not",
            &[head(("content-length", "9"))],
            Reset(PROTOCOL_ERROR),
        ),
    ]
}

/// The first reset or GOAWAY with an error in what was received.
pub(super) fn answer_in(received: &[u8]) -> Answer {
    let mut rest = received;
    while let Some((head, behind)) = rest.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, behind)) = behind.split_at_checked(length) else {
            break;
        };
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match head[3] {
            RST_STREAM => return Reset(code(0)),
            GOAWAY if code(4) != 0 => return GoAway(code(4)),
            _ => rest = behind,
        }
    }
    Answer::Closed
}
