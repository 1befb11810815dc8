//! From an accepted socket to a websocket: TLS if there is any, the HTTP request, what is refused before anything is spent
//! on it, and the pages about health (`PROTOCOL.md`, section 4).
//!
//! Login and all frames are deliberately not here (see `session`), nor are certificates (see `tls`).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use wire::limits::FRAME_BYTES_BEFORE_LOGIN;

use crate::health::Health;
use crate::memory::Charge;
use crate::socket::Socket;

/// Longest HTTP request.
const REQUEST_BYTES: usize = 8 * 1024;

/// How long an answer before the upgrade may take to be taken.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// Most that is read and thrown away so that the last word arrives: closing on unread bytes would reset the connection.
const DRAINED_BYTES: usize = 256 * 1024;

/// Most that a stranger may send for TLS alone: its hello, with what is new in it after quantum computers, and its end.
const TLS_BYTES: usize = 16 * 1024;

/// How much of what came and isn't taken yet isn't worth counting.
const UNCOUNTED: usize = 8 * 1024;

/// A socket, with or without TLS.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<Threshold>>),
}

/// What is under TLS: it lets a stranger send only so much before there is TLS at all.
#[derive(Debug)]
pub(crate) struct Threshold {
    stream: TcpStream,
    /// Bytes that may still come; none for no bound.
    allowance: Option<usize>,
}

/// A socket that lets a stranger send only so much, and counts what is held of what came.
#[derive(Debug)]
pub(crate) struct Doorstep {
    stream: Stream,
    /// Bytes that may still come before login; none for no bound.
    allowance: Option<usize>,
    /// What the connection takes, and what it took at first.
    charge: Charge,
    at_first: usize,
}

impl Doorstep {
    pub(crate) fn new(stream: Stream, charge: Charge) -> Self {
        Self {
            stream,
            allowance: Some(FRAME_BYTES_BEFORE_LOGIN),
            at_first: charge.bytes(),
            charge,
        }
    }

    /// The stranger has logged in.
    pub(crate) fn welcome(&mut self) {
        self.allowance = None;
    }

    /// Whether the stranger has sent more than it may.
    pub(crate) fn is_overrun(&self) -> bool {
        self.allowance == Some(0)
    }

    /// So many bytes are held of what came and isn't taken yet. Says whether there is memory for them.
    pub(crate) fn holds(&mut self, bytes: usize) -> bool {
        let counted = if bytes > UNCOUNTED { bytes } else { 0 };
        if self.charge.bytes() != self.at_first + counted {
            self.charge.set(self.at_first + counted);
        }
        counted == 0 || !self.charge.memory().is_exhausted()
    }

    /// Says the last word, and waits a little for the other side to have heard it.
    pub(crate) async fn hang_up(self) {
        hang_up(self.stream).await;
    }
}

async fn hang_up(mut stream: Stream) {
    let last = async {
        stream.shutdown().await?;
        let mut rubbish = [0; 1024];
        let mut drained = 0;
        while drained < DRAINED_BYTES {
            match stream.read(&mut rubbish).await? {
                0 => break,
                count => drained += count,
            }
        }
        io::Result::Ok(())
    };
    timeout(ANSWER_DEADLINE, last).await.ok();
}

impl AsyncRead for Doorstep {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_overrun() {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        let Some(allowance) = self.allowance else {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        };
        let room = allowance.min(buffer.remaining());
        let mut bounded = ReadBuf::new(buffer.initialize_unfilled_to(room));
        let result = Pin::new(&mut self.stream).poll_read(context, &mut bounded);
        let came = bounded.filled().len();
        buffer.advance(came);
        self.allowance = Some(allowance - came);
        result
    }
}

impl AsyncWrite for Doorstep {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Threshold {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().len() - before;
        match &mut self.allowance {
            Some(allowance) if *allowance < came => return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into())),
            Some(allowance) => *allowance -= came,
            None => {}
        }
        result
    }
}

impl AsyncWrite for Threshold {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

async fn cross(stream: TcpStream, acceptor: Option<TlsAcceptor>) -> io::Result<Stream> {
    let Some(acceptor) = acceptor else {
        return Ok(Stream::Plain(stream));
    };
    let threshold = Threshold {
        stream,
        allowance: Some(TLS_BYTES),
    };
    let mut stream = acceptor.accept(threshold).await?;
    stream.get_mut().0.allowance = None;
    Ok(Stream::Tls(Box::new(stream)))
}

/// Takes the HTTP request and makes a websocket of it, if that is what it asks for.
pub(crate) async fn enter(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    health: &Health,
    charge: Charge,
    deadline: Duration,
) -> Option<Socket> {
    let until = Instant::now() + deadline;
    let mut stream = timeout_at(until, cross(stream, acceptor)).await.ok()?.ok()?;
    let request = match timeout_at(until, read_request(&mut stream)).await {
        Ok(Ok(request)) => request,
        Ok(Err(RequestError::Gone)) => return None,
        Ok(Err(RequestError::TooLong)) => {
            answer(stream, "431 Request Header Fields Too Large", "").await;
            return None;
        }
        Ok(Err(RequestError::Malformed)) => {
            answer(stream, "400 Bad Request", "").await;
            return None;
        }
        Err(_) => {
            answer(stream, "408 Request Timeout", "").await;
            return None;
        }
    };
    if let Some((status, word)) = page(request.uri().path(), health) {
        answer(stream, status, word).await;
        return None;
    }
    // Only browsers send it, and no page may speak for the person in front of it.
    if request.headers().contains_key("Origin") {
        answer(stream, "403 Forbidden", "origin refused\n").await;
        return None;
    }
    let mut bytes = Vec::new();
    let response = create_response(&request).and_then(|response| write_response(&mut bytes, &response));
    if response.is_err() {
        answer(stream, "426 Upgrade Required", "this is a relay: dial ws://\n").await;
        return None;
    }
    let sent = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    timeout(ANSWER_DEADLINE, sent).await.ok()?.ok()?;
    Some(Socket::new(Doorstep::new(stream, charge)))
}

/// The pages about health, which say nothing that a stranger couldn't find out.
pub(crate) fn page(path: &str, health: &Health) -> Option<(&'static str, &'static str)> {
    let state = match path {
        "/healthz" => health.is_alive(),
        "/readyz" => health.is_ready(),
        _ => return None,
    };
    Some(match state {
        Ok(()) => ("200 OK", "ok\n"),
        Err(ailment) => ("503 Service Unavailable", ailment.words()),
    })
}

/// Answers without a websocket, in plain words, and closes.
pub(crate) async fn answer(stream: Stream, status: &str, body: &str) {
    answer_as(stream, status, "text/plain", body).await;
}

/// The same in another format.
pub(crate) async fn answer_as(mut stream: Stream, status: &str, format: &str, body: &str) {
    let response = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {format}\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let sending = async {
        stream.write_all(response.as_bytes()).await?;
        stream.flush().await
    };
    let sent = timeout(ANSWER_DEADLINE, sending).await;
    if let Ok(Ok(())) = sent {
        hang_up(stream).await;
    }
}

pub(crate) enum RequestError {
    Gone,
    TooLong,
    Malformed,
}

/// Reads an HTTP request to its end.
pub(crate) async fn read_request(stream: &mut Stream) -> Result<Request, RequestError> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let read = stream.read_buf(&mut bytes).await;
        if read.map_err(|_| RequestError::Gone)? == 0 {
            return Err(RequestError::Gone);
        }
        if bytes.len() > REQUEST_BYTES {
            return Err(RequestError::TooLong);
        }
        // Its end is at the end of what has come, or something follows that shouldn't; both are seen when it is parsed.
        if bytes.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    match Request::try_parse(&bytes) {
        // A client that sends more before it has its answer doesn't speak websocket.
        Ok(Some((length, request))) if length == bytes.len() => Ok(request),
        _ => Err(RequestError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    async fn ask(path: &str, health: &Health) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let entered = enter(stream, None, health, health.memory.charge(1), Duration::from_secs(5));
        let mut answer = String::new();
        let (entered, _) = tokio::join!(entered, async {
            client.read_to_string(&mut answer).await.unwrap();
            drop(client);
        });
        assert!(entered.is_none());
        answer
    }

    #[tokio::test]
    async fn a_relay_whose_store_takes_nothing_is_alive_and_not_ready() {
        let health = Health::default();
        health.set(false);
        let answer = ask("/readyz", &health).await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        let answer = ask("/healthz", &health).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}
