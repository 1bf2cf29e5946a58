//! A small HTTP client: one connection per request, answers read whole.

use std::net::SocketAddr;

use recsys_ingest::store::directory::Role;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;

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

    /// The same client with something in the query, such as `ack=received`.
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

    /// As [`send`](Self::send), for those who expect the server to go away.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> reqwest::Result<Reply> {
        let url = format!("http://{}{path}{}", self.address, self.query);
        let mut request = self.http.request(method, url).headers(self.headers.clone());
        if !body.is_empty() {
            request = request.body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
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
    /// A header's text, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// What the answer says of committed, duplicate, quarantined and rejected events;
    /// fails unless it is a 200.
    pub fn settled(&self) -> (u64, u64, usize, usize) {
        assert_eq!(self.status, StatusCode::OK.as_u16(), "{}", self.text);
        assert_eq!(self.json["ack"], "committed", "{}", self.text);
        (
            self.json["committed"].as_u64().unwrap(),
            self.json["duplicates"].as_u64().unwrap(),
            self.json["quarantined"].as_array().unwrap().len(),
            self.json["rejected"].as_array().unwrap().len(),
        )
    }

    /// The code and field of the one event that was rejected, with all others or alone.
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

    /// The status and the problem's code.
    pub fn problem(&self) -> (u16, &str) {
        (self.status, self.json["code"].as_str().unwrap_or_default())
    }
}
