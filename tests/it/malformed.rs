//! Promise: a broken body gets a 4xx and leaves nothing behind.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{RawConnection, Service, click, shown};

const BODIES: usize = 10_000;
const CONNECTIONS: usize = 4;

/// A generator with a fixed seed for each connection, xorshift64*: each run sends the same
/// bodies.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[3]).collect()
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }
}

/// A broken body with its path and headers.
struct Broken {
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

fn broken(random: &mut Random) -> Broken {
    let (path, good) = match random.below(2) {
        0 => ("/v1/exposures", shown("x")),
        _ => ("/v1/interactions", click("x")),
    };
    let mut headers = Vec::new();
    let body = match random.below(10) {
        // Random bytes; the leading `x` ensures that they are not JSON.
        0 => {
            let length = random.below(300);
            let mut bytes = random.bytes(length);
            bytes.insert(0, b'x');
            bytes
        }
        1 => {
            let whole = json!([good, {"a": [1, "é\u{1F600}", null]}]).to_string();
            let cut = 1 + random.below(whole.len() - 1);
            whole.as_bytes()[..cut].to_vec()
        }
        2 => {
            // Fields of a wrong type, or empty.
            let mut event = good;
            let names = [
                "request_id", "surface", "items", "event_type", "item_id", "occurred_at",
            ];
            for name in names {
                if event.get(name).is_some() {
                    event[name] = [
                        json!(7),
                        json!(true),
                        json!([[]]),
                        json!({"a": {}}),
                        json!(""),
                    ][random.below(5)]
                    .clone();
                }
            }
            json!([event, random.next()]).to_string().into_bytes()
        }
        3 => {
            let open = random.one_of(&["[", "{\"a\":", "[{\"a\":", "[[\"\\"]);
            open.repeat(1 + random.below(3000)).into_bytes()
        }
        4 => {
            let digits = "9".repeat(401 + random.below(3000));
            let number = match random.below(4) {
                0 => digits,
                1 => format!("-{digits}.{digits}"),
                2 => format!("1e{digits}"),
                _ => format!("1E-{}", 401 + random.below(1_000_000)),
            };
            let text = good.to_string();
            format!("{},\"n\":{number}}}", &text[..text.len() - 1]).into_bytes()
        }
        5 => {
            // NUL as a byte and as an escape, unpaired surrogates, an invalid escape, a raw line
            // feed.
            let odd = random.one_of(&["\0", "\\u0000", "\\ud800", "\\udfff\\ud800", "\\x41", "\n"]);
            let text = good.to_string();
            format!("{},\"s{odd}\":\"a{odd}\"}}", &text[..text.len() - 1]).into_bytes()
        }
        6 => {
            // Bytes that are not UTF-8, inside an event.
            let mut bytes = good.to_string().into_bytes();
            let at = 1 + random.below(bytes.len() - 1);
            bytes.insert(at, 0x80 | random.next().to_le_bytes()[0]);
            bytes
        }
        7 => {
            headers.push((
                "content-encoding",
                random.one_of(&["gzip", "deflate", "zstd", "br"]),
            ));
            let length = 1 + random.below(200);
            let mut bytes = random.bytes(length);
            // Random bytes that happen to inflate are not JSON. Half of the bodies begin with
            // gzip's header, so that decoding gets further.
            if random.below(2) == 0 {
                bytes.splice(0..0, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
            }
            bytes
        }
        8 => {
            // Lines that are no events.
            headers.push(("content-type", "application/x-ndjson"));
            let lines: Vec<Vec<u8>> = (0..1 + random.below(20))
                .map(|_| {
                    let length = random.below(40);
                    let mut line = random.bytes(length);
                    line.insert(0, b'@');
                    line
                })
                .collect();
            lines.join(&b'\n')
        }
        _ => {
            headers.push((
                "content-type",
                random.one_of(&["text/plain", "text/html", "*/*"]),
            ));
            let scalar = random.one_of(&["null", "7", "\"x\"", "true", "[null]", "[[]]", "", "{}"]);
            scalar.as_bytes().to_vec()
        }
    };
    Broken {
        path,
        headers,
        body,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_malformed_bodies_get_only_4xx_and_leave_no_rows() {
    let service = Service::start().await;
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..CONNECTIONS {
        let address = service.client().address;
        clients.spawn(async move {
            let mut random = Random(0x5EED + n as u64);
            let mut connection = RawConnection::open(address).await;
            for _ in 0..BODIES / CONNECTIONS {
                let Broken {
                    path,
                    headers,
                    body,
                } = broken(&mut random);
                // A panic would close the connection without an answer.
                let reply = connection.post(path, &headers, &body).await;
                let what = String::from_utf8_lossy(&body);
                assert!(
                    (400..500).contains(&reply.status),
                    "{} {headers:?} {what:?}",
                    reply.text
                );
                assert!(reply.json["code"].is_string(), "{} {what:?}", reply.text);
                // The connection is used again, also after an answer that came before the end of
                // the body.
            }
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
    for table in ["exposure_events", "interaction_events", "ingest_quarantine"] {
        assert_eq!(service.database.count(table).await, 0, "{table}");
    }
    service.memory_is_free().await;
    // The service still works.
    assert_eq!(
        service.interactions(&click("a")).await.settled(),
        (1, 0, 0, 0)
    );
}
