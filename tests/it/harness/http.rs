//! A small HTTP client: one connection for each request, answers read in full.

use std::net::SocketAddr;

use recsys_ingest::tenants::role::Role;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::documented::assert_documented;
use super::settings::key;

/// A client with one API key.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: SocketAddr,
    http: reqwest::Client,
    headers: HeaderMap,
    query: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// The text as JSON, or null.
    pub json: Value,
}

impl Client {
    /// A client of the tenant `demo` with the role `ingest`.
    pub fn new(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()
            .unwrap();
        Self {
            address,
            http,
            headers: HeaderMap::new(),
            query: String::new(),
        }
        .role("demo", Role::Ingest)
        .header("content-type", "application/json")
    }

    /// The same client with another key.
    pub fn role(&self, tenant: &str, role: Role) -> Self {
        self.header("x-api-key", &key(tenant, role))
    }

    /// The same client with another header.
    pub fn header(&self, name: &str, value: &str) -> Self {
        let mut changed = self.clone();
        let name = HeaderName::try_from(name).unwrap();
        changed
            .headers
            .insert(name, HeaderValue::try_from(value).unwrap());
        changed
    }

    /// The same client without a header.
    pub fn without(&self, name: &str) -> Self {
        let mut changed = self.clone();
        drop(changed.headers.remove(name));
        changed
    }

    /// The same client with a query, such as `ack=received`.
    pub fn query(&self, query: &str) -> Self {
        let mut changed = self.clone();
        changed.query = format!("?{query}");
        changed
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, Vec::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_bytes(path, body.to_string()).await
    }

    pub async fn post_bytes(&self, path: &str, body: impl Into<Vec<u8>>) -> Reply {
        self.send(Method::POST, path, body.into()).await
    }

    pub async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Reply {
        self.try_send(method, path, body).await.unwrap()
    }

    /// As [`send`](Self::send), but returns an error if the connection breaks.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> reqwest::Result<Reply> {
        let url = format!("http://{}{path}{}", self.address, self.query);
        let mut request = self
            .http
            .request(method.clone(), url)
            .headers(self.headers.clone());
        if !body.is_empty() {
            request = request.body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        assert_documented(&method, path, status.as_u16());
        let text = response.text().await?;
        Ok(Reply {
            status: status.as_u16(),
            headers,
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        })
    }
}

impl Reply {
    /// The text of a header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The numbers of committed, duplicate, quarantined and rejected events; fails unless the
    /// answer is a 200 at `committed`.
    pub fn settled(&self) -> (u64, u64, usize, usize) {
        assert_eq!(self.status, StatusCode::OK.as_u16(), "{}", self.text);
        assert_eq!(self.json["ack"], "committed", "{}", self.text);
        // Events that are listed, and events that a `_more` summary counts.
        let all = |told: &str, more: &str| {
            let told = self.json[told].as_array().unwrap().len();
            let more = self.json[more].as_array().into_iter().flatten();
            let more: u64 = more.map(|more| more["count"].as_u64().unwrap()).sum();
            told + usize::try_from(more).unwrap()
        };
        (
            self.json["committed"].as_u64().unwrap(),
            self.json["duplicates"].as_u64().unwrap(),
            all("quarantined", "quarantined_more"),
            all("rejected", "rejected_more"),
        )
    }

    /// Code and field of the only rejected event.
    pub fn rejection(&self) -> (&str, &str) {
        let rejected = self.json["rejected"].as_array();
        let [one] = rejected.map_or(&[][..], |all| &all[..]) else {
            panic!("not one rejected event: {} {}", self.status, self.text);
        };
        (
            one["code"].as_str().unwrap(),
            one["field"].as_str().unwrap_or_default(),
        )
    }

    /// The status, and the code of the problem.
    pub fn problem(&self) -> (u16, &str) {
        (self.status, self.json["code"].as_str().unwrap_or_default())
    }
}

/// A connection that sends any bytes at any time.
pub struct RawConnection {
    stream: tokio::net::TcpStream,
    unread: Vec<u8>,
}

impl RawConnection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Connects from another loopback address, such as 127.0.0.2.
    pub async fn open_from(source: &str, address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(source.parse().unwrap(), 0))
            .unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Half-closes the connection: nothing more will be sent.
    pub async fn end_writing(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Writes; returns whether the connection is still open.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Reads until the service closes the connection; returns the rest.
    pub async fn read_to_end(&mut self) -> String {
        let rest = async {
            // A reset ends the connection too.
            while matches!(self.stream.read_buf(&mut self.unread).await, Ok(1..)) {}
        };
        tokio::time::timeout(super::SOON, rest)
            .await
            .expect("the connection stays open");
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// Whether the service has closed the connection; received bytes are kept.
    pub fn is_closed(&mut self) -> bool {
        loop {
            match self.stream.try_read_buf(&mut self.unread) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Sends the head of a POST by `demo` with the role `ingest`, as JSON unless `headers`
    /// contain a content type.
    pub async fn send_head(&mut self, path: &str, headers: &[(&str, &str)]) {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nx-api-key: {}\r\n",
            key("demo", Role::Ingest)
        );
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            head.push_str("content-type: application/json\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.write(head.as_bytes()).await;
    }

    /// Writes, and ignores an error: the server may answer early and close the connection.
    pub async fn write(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes).await);
    }

    /// Sends a request and reads the answer.
    pub async fn post(&mut self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let length = body.len().to_string();
        let mut all = headers.to_vec();
        all.push(("content-length", &length));
        self.send_head(path, &all).await;
        self.write(body).await;
        self.reply().await
    }

    /// Reads one answer; the connection can be used again.
    pub async fn reply(&mut self) -> Reply {
        tokio::time::timeout(super::SOON, self.read_reply())
            .await
            .expect("no answer")
    }

    /// Reads a head without a body, such as 100 Continue.
    pub async fn interim(&mut self) -> String {
        let head = async {
            while find(&self.unread, b"\r\n\r\n").is_none() {
                self.read_more().await;
            }
        };
        tokio::time::timeout(super::SOON, head)
            .await
            .expect("no answer");
        let end = find(&self.unread, b"\r\n\r\n").unwrap() + 4;
        let rest = self.unread.split_off(end);
        String::from_utf8(std::mem::replace(&mut self.unread, rest)).unwrap()
    }

    async fn read_reply(&mut self) -> Reply {
        let head = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                let rest = self.unread.split_off(at + 4);
                break String::from_utf8(std::mem::replace(&mut self.unread, rest)).unwrap();
            }
            self.read_more().await;
        };
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: HeaderMap = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").unwrap();
                let name = HeaderName::try_from(name).unwrap();
                (name, HeaderValue::try_from(value).unwrap())
            })
            .collect();
        let length = match headers.get("content-length") {
            Some(length) => length.to_str().unwrap().parse().unwrap(),
            None if status == StatusCode::NO_CONTENT.as_u16() => 0,
            None => panic!("answers have a length"),
        };
        while self.unread.len() < length {
            self.read_more().await;
        }
        let rest = self.unread.split_off(length);
        let text = String::from_utf8(std::mem::replace(&mut self.unread, rest)).unwrap();
        Reply {
            status,
            headers,
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        }
    }

    async fn read_more(&mut self) {
        let read = self.stream.read_buf(&mut self.unread).await.unwrap();
        assert!(read > 0, "the connection was closed without an answer");
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}
