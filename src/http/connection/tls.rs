//! TLS on accepted connections, with a certificate that can be replaced while it is in use.
//!
//! TLS 1.2 and 1.3; HTTP/2 and HTTP/1 by ALPN. Knows nothing of deadlines: the listener drives a
//! handshake under those of the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::lingering::Lingering;

/// The protocols that are offered, the preferred one first. curl names HTTP/1.0 where it is told to
/// speak it, and a client whose protocols are all unknown is refused.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// The TLS side of a listener.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
}

/// The certificate that new connections get.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// # Errors
    /// If the library refuses its own defaults.
    pub(crate) fn new(certificate: Arc<CertifiedKey>) -> Result<Self> {
        let current = Arc::new(Current(ArcSwap::new(certificate)));
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("cannot set up TLS")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Current>::clone(&current));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self {
            config: Arc::new(config),
            current,
        })
    }

    /// Gives new connections another certificate. Open ones keep theirs.
    pub(crate) fn replace(&self, certificate: Arc<CertifiedKey>) {
        self.current.0.store(certificate);
    }

    /// Shakes hands on a new connection.
    ///
    /// # Errors
    /// What kind of failure it was, for the metric.
    pub(crate) async fn accept(&self, stream: Lingering) -> Result<Accepted, Failure> {
        // Clients that speak HTTP to the wrong port get an answer that they understand. Each method
        // begins with a capital letter, and no TLS record does.
        match stream.first_byte().await {
            Ok(b'A'..=b'Z') => return Ok(Accepted::PlainHttp(Stream::Plain(stream))),
            Ok(_) => {}
            Err(_) => return Err(Failure::Closed),
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        match acceptor.accept(stream).await {
            Ok(stream) => Ok(Accepted::Tls(Stream::Tls(Box::new(stream)))),
            Err(error) => Err(Failure::of(&error)),
        }
    }
}

/// A connection to a TLS port, after the handshake.
pub(crate) enum Accepted {
    Tls(Stream),
    /// The client sends HTTP without TLS.
    PlainHttp(Stream),
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The client ended the connection, or it broke.
    Closed,
    /// The client does not trust the certificate.
    CertificateRefused,
    /// No version, cipher suite or protocol is common to both sides.
    Incompatible,
    /// What the client sent is not TLS, or breaks its rules.
    Invalid,
}

impl Failure {
    /// The label of the metric.
    pub(crate) const fn cause(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::CertificateRefused => "certificate_refused",
            Self::Incompatible => "incompatible",
            Self::Invalid => "invalid",
        }
    }

    fn of(error: &io::Error) -> Self {
        use AlertDescription as Alert;
        let inner = error.get_ref();
        match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            None => Self::Closed,
            Some(rustls::Error::AlertReceived(
                Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateUnknown
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::UnsupportedCertificate
                | Alert::AccessDenied,
            )) => Self::CertificateRefused,
            Some(
                rustls::Error::PeerIncompatible(_)
                | rustls::Error::NoApplicationProtocol
                | rustls::Error::AlertReceived(
                    Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity,
                ),
            ) => Self::Incompatible,
            Some(rustls::Error::AlertReceived(Alert::CloseNotify | Alert::UserCanceled)) => {
                Self::Closed
            }
            Some(_) => Self::Invalid,
        }
    }
}

/// A connection with or without TLS.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Lingering),
    /// Boxed: the state of TLS takes a kilobyte, and most connections have none.
    Tls(Box<TlsStream<Lingering>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
