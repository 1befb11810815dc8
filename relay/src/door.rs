//! From an accepted socket to a websocket: the HTTP request, what is refused before anything is spent on it, and the health
//! page (`PROTOCOL.md`, section 4).
//!
//! Login and all frames are deliberately not here (see `session`).

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use wire::limits::{FRAME_BYTES, FRAME_BYTES_BEFORE_LOGIN};

use crate::Health;

/// Longest HTTP request.
const REQUEST_BYTES: usize = 8 * 1024;

/// How long an answer before the upgrade may take to be taken.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// Most that is read and thrown away so that the last word arrives: closing on unread bytes would reset the connection.
const DRAINED_BYTES: usize = 256 * 1024;

const READ_BUFFER: usize = 4 * 1024;
const WRITE_BUFFER: usize = 16 * 1024;
const WRITE_BUFFER_MAX: usize = 2 * FRAME_BYTES;

/// Frames are copied into one buffer and flushed together; nothing may grow beyond a frame and a few.
fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(Some(FRAME_BYTES))
        .max_frame_size(Some(FRAME_BYTES))
}

/// A socket that lets a stranger send only so much.
#[derive(Debug)]
pub(crate) struct Doorstep {
    stream: TcpStream,
    /// Bytes that may still come before login; none for no bound.
    allowance: Option<usize>,
}

impl Doorstep {
    /// The stranger has logged in.
    pub(crate) fn welcome(&mut self) {
        self.allowance = None;
    }

    /// Whether the stranger has sent more than it may.
    pub(crate) fn is_overrun(&self) -> bool {
        self.allowance == Some(0)
    }

    /// Says the last word, and waits a little for the other side to have heard it.
    pub(crate) async fn hang_up(mut self) {
        let last = async {
            self.stream.shutdown().await?;
            let mut rubbish = [0; 1024];
            let mut drained = 0;
            while drained < DRAINED_BYTES {
                match self.stream.read(&mut rubbish).await? {
                    0 => break,
                    count => drained += count,
                }
            }
            io::Result::Ok(())
        };
        timeout(ANSWER_DEADLINE, last).await.ok();
    }
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
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().len() - before;
        if let Some(allowance) = &mut self.allowance {
            *allowance = allowance.saturating_sub(came);
        }
        result
    }
}

impl AsyncWrite for Doorstep {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Takes the HTTP request and makes a websocket of it, if that is what it asks for.
pub(crate) async fn enter(
    mut stream: TcpStream,
    health: &Health,
    deadline: Duration,
) -> Option<WebSocketStream<Doorstep>> {
    let request = match timeout(deadline, read_request(&mut stream)).await {
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
    if request.uri().path() == "/healthz" {
        let (status, word) = if health.is_well() {
            ("200 OK", "ok\n")
        } else {
            ("503 Service Unavailable", "the store takes nothing\n")
        };
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
    timeout(ANSWER_DEADLINE, stream.write_all(&bytes)).await.ok()?.ok()?;
    let doorstep = Doorstep {
        stream,
        allowance: Some(FRAME_BYTES_BEFORE_LOGIN),
    };
    let config = websocket_config();
    Some(WebSocketStream::from_raw_socket(doorstep, Role::Server, Some(config)).await)
}

/// Answers without a websocket, and closes.
pub(crate) async fn answer(mut stream: TcpStream, status: &str, body: &str) {
    let response = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let sent = timeout(ANSWER_DEADLINE, stream.write_all(response.as_bytes())).await;
    if let Ok(Ok(())) = sent {
        let doorstep = Doorstep {
            stream,
            allowance: None,
        };
        doorstep.hang_up().await;
    }
}

enum RequestError {
    Gone,
    TooLong,
    Malformed,
}

async fn read_request(stream: &mut TcpStream) -> Result<Request, RequestError> {
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

/// Counts the connections of each address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection counted, until dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    addresses: Addresses,
    network: IpAddr,
}

impl Addresses {
    /// Counts a connection, unless `most` are there.
    pub(crate) fn count(&self, address: IpAddr, most: usize) -> Option<Counted> {
        let network = network(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted {
            addresses: self.clone(),
            network,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// One IPv4 address, or the /64 that one IPv6 customer has at least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let bits = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(bits.into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn an_address_is_counted_until_its_connection_ends() {
        let addresses = Addresses::default();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let first = addresses.count(one, 1).unwrap();
        assert!(addresses.count(one, 1).is_none());
        assert!(addresses.count("192.0.2.2".parse().unwrap(), 1).is_some());
        drop(first);
        assert!(addresses.count(one, 1).is_some());
        assert!(addresses.counts.lock().unwrap().is_empty());
    }

    #[test]
    fn an_ipv6_customer_is_one_network_and_a_mapped_address_is_ipv4() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
