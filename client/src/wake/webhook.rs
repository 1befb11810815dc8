//! Waking by an address: a POST with what happened, tried again a few times when it doesn't arrive. Plain http only to this machine; no
//! redirects, no cookies, and nothing of the answer but its status.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode, Uri, header, uri::Scheme};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one attempt may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Attempts for one event, and the wait after the first; each later one is twice as long.
const ATTEMPTS: u32 = 5;
const BACKOFF: Duration = Duration::from_secs(1);

/// Why an address can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// It isn't one.
    #[error("not an address to call: {0}")]
    Malformed(String),
    /// Anybody on the way could read it.
    #[error("{0} is called over https only: plain http is for this machine")]
    Plain(String),
    /// What is in an argument is no secret.
    #[error("an address to call holds no user or password")]
    Secret,
    /// The roots of trust can't be used.
    #[error("https can't be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// An address to call.
#[derive(Clone)]
pub struct Webhook {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    backoff: Duration,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum Missed {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("no answer in time")]
    Slow(#[from] tokio::time::error::Elapsed),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("{0} isn't this machine")]
    Elsewhere(SocketAddr),
    #[error("it has no address")]
    Nowhere,
    #[error("{0}")]
    Request(#[from] axum::http::Error),
}

impl Missed {
    /// Whether another attempt would fare as this one.
    fn is_final(&self) -> bool {
        match self {
            Self::Status(status) => {
                status.is_client_error()
                    && *status != StatusCode::REQUEST_TIMEOUT
                    && *status != StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }
}

impl FromStr for Webhook {
    type Err = WebhookError;

    fn from_str(text: &str) -> Result<Self, WebhookError> {
        let malformed = || WebhookError::Malformed(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let authority = uri.authority().ok_or_else(malformed)?;
        if authority.as_str().contains('@') {
            return Err(WebhookError::Secret);
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(malformed());
        }
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(malformed()),
        };
        let here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        let tls = match (https, here) {
            (true, _) => Some((
                connector()?,
                ServerName::try_from(host.clone()).map_err(|_| malformed())?,
            )),
            (false, true) => None,
            (false, false) => return Err(WebhookError::Plain(host)),
        };
        let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
        Ok(Self {
            uri,
            host,
            port,
            tls,
            backoff: BACKOFF,
        })
    }
}

/// TLS as towards a relay: the public roots, and this provider whatever another part of the process chose.
fn connector() -> Result<TlsConnector, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Webhook {
    /// Another wait between attempts, for tests.
    #[cfg(test)]
    pub(super) fn backing_off(mut self, backoff: Duration) -> Self {
        self.backoff = backoff;
        self
    }

    /// Posts an event, a few times if need be. What becomes of it is logged and changes nothing.
    pub(super) async fn call(&self, event: Bytes) {
        let mut wait = self.backoff;
        for attempt in 1..=ATTEMPTS {
            let tried = tokio::time::timeout(DEADLINE, self.attempt(event.clone()));
            let Err(missed) = tried.await.map_err(Missed::from).and_then(|tried| tried) else {
                return;
            };
            tracing::warn!(%missed, attempt, host = self.host, "the wake call didn't arrive");
            if missed.is_final() || attempt == ATTEMPTS {
                return;
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }

    async fn attempt(&self, event: Bytes) -> Result<(), Missed> {
        let mut last = Missed::Nowhere;
        for address in tokio::net::lookup_host((self.host.as_str(), self.port)).await? {
            if self.tls.is_none() && !address.ip().is_loopback() {
                // `localhost` is only a name: it must not lead away from here.
                last = Missed::Elsewhere(address);
                continue;
            }
            let stream = match TcpStream::connect(address).await {
                Ok(stream) => stream,
                Err(error) => {
                    last = error.into();
                    continue;
                }
            };
            return match &self.tls {
                Some((connector, name)) => self.post(connector.connect(name.clone(), stream).await?, event).await,
                None => self.post(stream, event).await,
            };
        }
        Err(last)
    }

    async fn post(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        event: Bytes,
    ) -> Result<(), Missed> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut connection = tokio::task::JoinSet::from_iter([async move { drop(connection.await) }]);
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(event))?;
        let status = sender.send_request(request).await?.status();
        connection.abort_all();
        if status.is_success() {
            Ok(())
        } else {
            Err(Missed::Status(status))
        }
    }
}
