//! Promise: what stock clients and proxies send is taken; what is not taken is refused with its true
//! reason. Each case goes through a socket, and what it stores is counted in Postgres.

mod content;
mod keys;
mod messages;
mod switches;

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use recsys_ingest::tenants::role::Role;
use serde_json::Value;

use crate::harness::{RawConnection, Reply, Service, click, key};

const PATH: &str = "/v1/interactions";

/// A request as it is written to the socket.
struct Post {
    what: String,
    line: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
}

impl Post {
    /// A post of one event with this name, with a good key and without a Content-Type.
    fn of(what: impl ToString) -> Self {
        let what = what.to_string();
        Self {
            line: format!("POST {PATH} HTTP/1.1"),
            headers: vec![("host", b"test".to_vec())],
            body: click(&what).to_string().into_bytes(),
            what,
        }
        .header("x-api-key", key("demo", Role::Ingest))
    }

    fn line(mut self, line: impl ToString) -> Self {
        self.line = line.to_string();
        self
    }

    fn query(self, query: &str) -> Self {
        self.line(format!("POST {PATH}?{query} HTTP/1.1"))
    }

    fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name, value.as_ref().to_vec()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.line).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        write!(bytes, "content-length: {}\r\n\r\n", self.body.len()).unwrap();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A service, and how many interactions it should have stored by now.
struct Habits {
    service: Service,
    stored: i64,
}

impl Habits {
    async fn start() -> Self {
        Self::on(Service::start().await)
    }

    /// With a service that has stored nothing.
    fn on(service: Service) -> Self {
        Self { service, stored: 0 }
    }

    /// Sends a request on a new connection.
    async fn send(&self, post: &Post) -> Reply {
        let mut connection = RawConnection::open(self.service.client().address).await;
        connection.write(&post.bytes()).await;
        connection.reply().await
    }

    /// Sends a request that stores `events` events.
    async fn takes(&mut self, post: Post, events: i64) -> Reply {
        let reply = self.send(&post).await;
        assert_eq!(reply.status, 200, "{}: {}", post.what, reply.text);
        assert_eq!(
            reply.json["accepted"], events,
            "{}: {}",
            post.what, reply.text
        );
        assert_eq!(
            reply.json["rejected"],
            Value::Array(vec![]),
            "{}",
            post.what
        );
        self.stored += events;
        self.counts(&post.what).await;
        reply
    }

    /// Sends a request that is refused with this status and code, and stores nothing.
    async fn refuses(&mut self, post: Post, (status, code): (u16, &str)) -> Reply {
        let reply = self.send(&post).await;
        assert_eq!(
            reply.problem(),
            (status, code),
            "{}: {}",
            post.what,
            reply.text
        );
        self.counts(&post.what).await;
        reply
    }

    async fn counts(&self, what: &str) {
        let stored = self.service.database.count("interaction_events").await;
        assert_eq!(stored, self.stored, "{what}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
