//! A connection that posts bodies, and asks the service how far it is.
//!
//! Keeps one invariant: every post ends in a reply within `POST_LIMIT`.
//! Decides nothing: retries and waiting are the run's.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST};
use hyper::http::response::Parts;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::answer::{self, Reply};
use crate::generate::{Encoding, Framing, Plan};
use crate::service::{Ack, word};

/// Longer than any deadline of the service for `ack=committed`.
const POST_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Far more than the results of a body can fill.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where and how the bodies of each stream are posted.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port` to connect to.
    authority: String,
    /// Asks the service what it has spooled.
    readiness: Request<()>,
    /// Asks the service what it is.
    description: Request<()>,
    /// The requests of each stream, without their bodies.
    posts: Vec<Request<()>>,
}

#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes, and ends with us.
    _driver: JoinSet<()>,
    /// An answer is outstanding that is not waited for any more.
    abandoned: bool,
}

impl Target {
    /// For a run against `url`, such as `http://127.0.0.1:8080`.
    pub fn new(url: &str, ack: Ack, plan: &Plan) -> anyhow::Result<Self> {
        let settings = &plan.settings;
        let uri: Uri = url.parse().with_context(|| {
            format!("the URL {url} is none: give one like http://127.0.0.1:8080")
        })?;
        anyhow::ensure!(
            uri.scheme_str() == Some("http"),
            "the URL {url} is not http: the load tester speaks plain HTTP only"
        );
        let host = uri
            .host()
            .with_context(|| format!("the URL {url} has no host"))?;
        let base = uri.path().trim_end_matches('/');
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        let content_type = match settings.framing {
            Framing::Json | Framing::Envelope => "application/json",
            Framing::Ndjson => "application/x-ndjson",
        };
        let encoding = match settings.encoding {
            Encoding::None => None,
            Encoding::Gzip => Some("gzip"),
            Encoding::Zstd => Some("zstd"),
        };
        let posts = plan.streams().iter().map(|stream| {
            let (table, format) = (word(stream.table), stream.format);
            let mut post = Request::post(format!("{base}/v1/{table}?ack={ack}&format={format}"))
                .header(HOST, authority)
                .header(CONTENT_TYPE, content_type);
            if let Some(encoding) = encoding {
                post = post.header(CONTENT_ENCODING, encoding);
            }
            if let Some(key) = &settings.callers[usize::from(stream.caller)].key {
                post = post.header("x-api-key", key);
            }
            post.body(())
                .context("an API key has characters that a header cannot carry")
        });
        let ask = |path: &str| {
            let request = Request::get(format!("{base}{path}"));
            request.header(HOST, authority).body(())
        };
        Ok(Self {
            readiness: ask("/readyz?verbose=1")?,
            description: ask("/openapi.json")?,
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
            posts: posts.collect::<Result<_, _>>()?,
        })
    }

    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let connect = async {
            let stream = TcpStream::connect(&self.authority).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            // Errors of the connection come back from the request that meets them.
            let mut driver = JoinSet::new();
            driver.spawn(async move { drop(connection.await) });
            anyhow::Ok(Connection {
                sender,
                _driver: driver,
                abandoned: false,
            })
        };
        tokio::time::timeout(CONNECT_LIMIT, connect)
            .await
            .context("it took too long")
            .flatten()
            .with_context(|| {
                format!(
                    "cannot connect to {}: is the service running? (--url)",
                    self.authority
                )
            })
    }

    /// Rows that the service has in its spool, if it says so.
    pub async fn spooled(&self) -> Option<u64> {
        let ready = self.ask_once(&self.readiness).await?;
        let rows = ready["rows"].as_array()?.iter();
        Some(rows.filter_map(|row| row["spooled"].as_u64()).sum())
    }

    /// The version that the service says it is, if it does there.
    pub async fn version(&self) -> Option<String> {
        let description = self.ask_once(&self.description).await?;
        Some(description["info"]["version"].as_str()?.to_owned())
    }

    /// Asks on a separate connection.
    async fn ask_once(&self, request: &Request<()>) -> Option<Value> {
        let ask = async { self.connect().await?.ask(request).await };
        let asked = tokio::time::timeout(CONNECT_LIMIT, ask).await;
        asked.ok()?.ok()
    }

    /// What the service says of the rows of each table.
    pub async fn rows(&self, connection: &mut Connection) -> anyhow::Result<Vec<Value>> {
        let mut ready = connection.ask(&self.readiness).await?;
        match ready["rows"].take() {
            Value::Array(rows) => Ok(rows),
            _ => anyhow::bail!("/readyz has no rows"),
        }
    }

    /// Posts a body of stream `stream`.
    ///
    /// A connection that broke is left behind in pieces: see [`Connection::is_usable`].
    pub async fn post(&self, connection: &mut Connection, stream: usize, body: Bytes) -> Reply {
        let exchange = connection.exchange(&self.posts[stream], body);
        match tokio::time::timeout(POST_LIMIT, exchange).await {
            Ok(Ok((head, body))) => answer::read(head.status, &head.headers, &body),
            Ok(Err(error)) => Reply::Unknown(format!("the connection broke: {error}")),
            Err(_) => {
                // The answer may still come, and must not be taken for the next one's.
                connection.abandoned = true;
                Reply::Unknown(format!("no answer within {} s", POST_LIMIT.as_secs()))
            }
        }
    }
}

impl Connection {
    async fn ask(&mut self, request: &Request<()>) -> anyhow::Result<Value> {
        let (_, body) = self.exchange(request, Bytes::new()).await?;
        serde_json::from_slice(&body).with_context(|| format!("{} is not JSON", request.uri()))
    }

    async fn exchange(
        &mut self,
        head: &Request<()>,
        body: Bytes,
    ) -> anyhow::Result<(Parts, Bytes)> {
        let request = head.clone().map(|()| Full::new(body));
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?;
        Ok((head, body.to_bytes()))
    }

    pub fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.abandoned
    }
}
