//! Connections to the service. One exchange at a time on each; they are kept for the next one.
//!
//! Invariant: every exchange ends within [`EXCHANGE_LIMIT`]. Decides nothing about answers.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::tls;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longer than the service's own deadlines for a body and for `ack=committed` together.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(120);
/// How the client calls itself.
const AGENT: &str = concat!("recsys-ingest/", env!("CARGO_PKG_VERSION"));
/// Far more than the verdicts of a batch can fill.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Compression of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// Who posts what to where.
#[derive(Clone, Debug)]
pub(crate) struct ClientSettings<'s> {
    pub(crate) url: &'s str,
    pub(crate) key: &'s str,
    /// For X-Org-Id.
    pub(crate) tenant: Option<&'s str>,
    pub(crate) ca: Option<&'s Path>,
}

/// The service, and connections to it.
pub(crate) struct Client {
    host: String,
    port: u16,
    /// For the header `Host`.
    authority: HeaderValue,
    /// The path before `/v1/…`.
    base: String,
    key: HeaderValue,
    tenant: Option<HeaderValue>,
    tls: Option<TlsConnector>,
    idle: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({}:{})", self.host, self.port)
    }
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes, and ends with the connection.
    _driver: JoinSet<()>,
}

/// An answer, with any status.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

impl Client {
    /// # Errors
    /// If the URL is none, or the key has characters that a header cannot carry.
    pub(crate) fn new(settings: &ClientSettings<'_>) -> Result<Self> {
        let url = settings.url.trim();
        let uri: Uri = url.parse().with_context(|| {
            format!("--url {url} is no URL; give one like http://127.0.0.1:8080")
        })?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("--url {url} begins with neither http:// nor https://"),
        };
        let host = uri
            .host()
            .with_context(|| format!("--url {url} names no host"))?;
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        if authority.contains('@') {
            bail!("--url has a user before the host: give the key with --api-key-file instead");
        }
        if uri.query().is_some() {
            bail!("--url has a query; leave it out");
        }
        let header = |text: &str, what: &str| {
            HeaderValue::try_from(text.trim())
                .with_context(|| format!("{what} has characters that a header cannot carry"))
        };
        let mut key = header(settings.key, "the API key")?;
        key.set_sensitive(true);
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            authority: header(authority, "the host in --url")?,
            base: base_of(uri.path()).to_owned(),
            key,
            tenant: settings
                .tenant
                .map(|tenant| header(tenant, "--tenant"))
                .transpose()?,
            tls: match is_https {
                true => Some(tls::config(settings.ca)?.into()),
                false => None,
            },
            idle: Mutex::default(),
        })
    }

    /// Whether the service is on this machine.
    pub(crate) fn is_local(&self) -> bool {
        let ip = self.host.parse::<IpAddr>();
        self.host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    }

    /// Asks for a path with its query.
    ///
    /// # Errors
    /// If there is no answer.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        let request = Request::get(format!("{}{path}", self.base))
            .header(HOST, &self.authority)
            .header(USER_AGENT, AGENT)
            .header("x-api-key", &self.key)
            .body(Full::default())
            .context("cannot make a request")?;
        self.exchange_in_time(request).await
    }

    /// Posts lines of JSON to a path with its query.
    ///
    /// # Errors
    /// If there is no answer: then the lines may be stored or not.
    pub(crate) async fn post(&self, path: &str, coding: Coding, body: Bytes) -> Result<Answer> {
        let mut post = Request::post(format!("{}{path}", self.base))
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header(USER_AGENT, AGENT)
            .header("x-api-key", &self.key);
        if let Some(tenant) = &self.tenant {
            post = post.header("x-org-id", tenant);
        }
        post = match coding {
            Coding::Identity => post,
            Coding::Gzip => post.header(CONTENT_ENCODING, "gzip"),
            Coding::Zstd => post.header(CONTENT_ENCODING, "zstd"),
        };
        let request = post
            .body(Full::new(body))
            .context("cannot make a request")?;
        self.exchange_in_time(request).await
    }

    async fn exchange_in_time(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        tokio::time::timeout(EXCHANGE_LIMIT, self.exchange(request))
            .await
            .map_err(|_| anyhow!("no answer within {} s", EXCHANGE_LIMIT.as_secs()))?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let mut connection = match self.idle_connection() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection
            .sender
            .ready()
            .await
            .context("the connection broke")?;
        let response = connection
            .sender
            .send_request(request)
            .await
            .context("the connection broke")?;
        let status = response.status().as_u16();
        let after = response.headers().get(RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body
            .collect()
            .await
            .map_err(|error| anyhow!(error).context("the connection broke within an answer"))?;
        if !connection.sender.is_closed() {
            self.lock_idle().push(connection);
        }
        Ok(Answer {
            status,
            retry_after: after.map(Duration::from_secs),
            body: body.to_bytes(),
        })
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle_connection(&self) -> Option<Connection> {
        let mut idle = self.lock_idle();
        idle.retain(|connection| !connection.sender.is_closed());
        idle.pop()
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Names the address and what failed.
    async fn connect(&self) -> Result<Connection> {
        let connect = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = &self.tls else {
                return speak(stream).await;
            };
            let name = ServerName::try_from(self.host.clone())?;
            speak(tls.connect(name, stream).await?).await
        };
        tokio::time::timeout(CONNECT_LIMIT, connect)
            .await
            .context("it took too long")
            .flatten()
            .with_context(|| format!("cannot connect to {}:{} (--url)", self.host, self.port))
    }

    /// Checks that something answers at the address.
    ///
    /// # Errors
    /// Names the address and what failed.
    pub(crate) async fn check(&self) -> Result<()> {
        let connection = self.connect().await?;
        self.lock_idle().push(connection);
        Ok(())
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Connection> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Errors of the connection come back from the request that meets them.
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    Ok(Connection {
        sender,
        _driver: driver,
    })
}

/// The path of a URL before `/v1/…`, which people may have written, too.
fn base_of(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    let path = ["/exposures", "/interactions", "/assignments"]
        .into_iter()
        .find_map(|end| path.strip_suffix(end))
        .unwrap_or(path);
    path.strip_suffix("/v1").unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Client> {
        Client::new(&ClientSettings {
            url,
            key: "k",
            tenant: None,
            ca: None,
        })
    }

    #[test]
    fn a_url_is_taken_as_people_write_it() {
        for (url, host, port, base, is_local) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, "", true),
            (" http://[::1]:8080/ ", "::1", 8080, "", true),
            ("http://LocalHost", "LocalHost", 80, "", true),
            (
                "http://ingest.example/a/v1/exposures",
                "ingest.example",
                80,
                "/a",
                false,
            ),
            ("http://ingest.example/v1", "ingest.example", 80, "", false),
        ] {
            let client = client(url).unwrap();
            assert_eq!(
                (&*client.host, client.port, &*client.base),
                (host, port, base),
                "{url}"
            );
            assert_eq!(client.is_local(), is_local, "{url}");
        }
        for (url, why) in [
            ("127.0.0.1:8080", "neither http://"),
            ("ftp://a", "neither http://"),
            ("http://u:hunter2@a", "a user before the host"),
            ("http://a?key=hunter2", "has a query"),
            ("not a url", "is no URL"),
        ] {
            let said = format!("{:#}", client(url).unwrap_err());
            assert!(said.contains(why), "{url}: {said}");
        }
    }
}
