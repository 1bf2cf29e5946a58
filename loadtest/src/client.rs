//! One connection that posts bodies and is made anew when it breaks.
//!
//! Keeps one invariant: every post ends in an outcome within `POST_LIMIT`.
//! Decides nothing: retries and waiting are the run's.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::answer::{self, Ack, Outcome};
use crate::generate::plan::Plan;
use crate::generate::settings::{Encoding, Framing, Settings};

/// Longer than any deadline of the service for `ack=committed`.
const POST_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Far more than the verdicts on a body can fill.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where and how the bodies of each stream are posted.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `host:port` to connect to.
    authority: String,
    host: HeaderValue,
    /// Where the service says what it has spooled.
    readiness: Uri,
    /// By stream.
    posts: Vec<Post>,
}

/// What the requests of one stream have in common.
#[derive(Clone, Debug)]
struct Post {
    path: Uri,
    key: Option<HeaderValue>,
    content_type: HeaderValue,
    encoding: Option<HeaderValue>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes, and ends with us.
    _driver: JoinSet<()>,
    /// An answer is outstanding that nobody waits for any more.
    abandoned: bool,
}

impl Target {
    /// For a run against `url`, such as `http://127.0.0.1:8080`.
    pub(crate) fn new(
        url: &str,
        ack: Ack,
        settings: &Settings,
        plan: &Plan,
    ) -> anyhow::Result<Self> {
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
        let posts = plan.streams().iter().map(|stream| {
            let path = format!(
                "{base}{}?ack={}&format={}",
                stream.table.path(),
                ack.as_str(),
                stream.format.as_str()
            );
            let key = settings.callers[usize::from(stream.caller)].key.as_deref();
            anyhow::Ok(Post {
                path: path.parse()?,
                key: key
                    .map(HeaderValue::from_str)
                    .transpose()
                    .context("an API key has characters that a header cannot carry")?,
                content_type: HeaderValue::from_static(match settings.framing {
                    Framing::Json | Framing::Envelope => "application/json",
                    Framing::Ndjson => "application/x-ndjson",
                }),
                encoding: match settings.encoding {
                    Encoding::None => None,
                    Encoding::Gzip => Some(HeaderValue::from_static("gzip")),
                    Encoding::Zstd => Some(HeaderValue::from_static("zstd")),
                },
            })
        });
        Ok(Self {
            readiness: format!("{base}/readyz?verbose=1").parse()?,
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
            host: HeaderValue::from_str(
                uri.authority().map_or(host, |authority| authority.as_str()),
            )?,
            posts: posts.collect::<Result<_, _>>()?,
        })
    }

    /// Connects.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
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
    pub(crate) async fn spooled(&self) -> Option<u64> {
        let ask = async {
            let mut connection = self.connect().await.ok()?;
            let mut request = Request::new(Full::new(Bytes::new()));
            *request.uri_mut() = self.readiness.clone();
            request
                .headers_mut()
                .insert(header::HOST, self.host.clone());
            let response = connection.sender.send_request(request).await.ok()?;
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
            let text = body.collect().await.ok()?.to_bytes();
            let ready: serde_json::Value = serde_json::from_slice(&text).ok()?;
            let rows = ready["rows"].as_array()?;
            Some(rows.iter().filter_map(|row| row["spooled"].as_u64()).sum())
        };
        tokio::time::timeout(CONNECT_LIMIT, ask).await.ok()?
    }

    /// Posts a body of stream `stream`.
    ///
    /// A connection that broke is left behind in pieces: see [`Connection::is_usable`].
    pub(crate) async fn post(
        &self,
        connection: &mut Connection,
        stream: usize,
        body: Bytes,
    ) -> Outcome {
        let post = self.exchange(connection, stream, body);
        match tokio::time::timeout(POST_LIMIT, post).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Unknown(format!("the connection broke: {error}")),
            Err(_) => {
                // The answer may still come, and must not be taken for the next one's.
                connection.abandoned = true;
                Outcome::Unknown(format!("no answer within {} s", POST_LIMIT.as_secs()))
            }
        }
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        stream: usize,
        body: Bytes,
    ) -> anyhow::Result<Outcome> {
        let post = &self.posts[stream];
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = post.path.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        headers.insert(header::CONTENT_TYPE, post.content_type.clone());
        if let Some(encoding) = &post.encoding {
            headers.insert(header::CONTENT_ENCODING, encoding.clone());
        }
        if let Some(key) = &post.key {
            headers.insert(HeaderName::from_static("x-api-key"), key.clone());
        }
        connection.sender.ready().await?;
        let response = connection.sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| anyhow::anyhow!(error))?
            .to_bytes();
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        Ok(answer::read(
            head.status,
            text("x-ingest-ack"),
            text("retry-after"),
            &body,
        ))
    }
}

impl Connection {
    /// Whether it can post once more.
    pub(crate) fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.abandoned
    }
}
