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
use tokio::time::{Instant, timeout};
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

/// How long it takes until an address that used up its new connections has all of them again.
const REFILL_SECONDS: f64 = 120.0;

/// Addresses remembered before those with nothing to remember are forgotten.
const TALLIES: usize = 10_000;

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

/// Counts the connections of each address: how many there are, and how fast new ones come. Every mailbox needs a login and
/// every login a connection, so this also bounds how fast a stranger fills the relay with mailboxes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    tallies: Arc<Mutex<HashMap<IpAddr, Tally>>>,
}

#[derive(Debug)]
struct Tally {
    connections: usize,
    /// New connections that may come at once; refilled within [`REFILL_SECONDS`].
    tokens: f64,
    filled: Instant,
}

/// One connection counted, until dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    addresses: Addresses,
    network: IpAddr,
}

impl Addresses {
    /// Counts a connection, unless `most` are there, or twice as many came lately.
    pub(crate) fn count(&self, address: IpAddr, most: usize, now: Instant) -> Option<Counted> {
        let network = network(address);
        let full = most as f64 * 2.0;
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        if tallies.len() >= TALLIES {
            tallies.retain(|_, tally| tally.connections > 0 || tally.tokens_at(now, full) < full);
        }
        let tally = tallies.entry(network).or_insert(Tally {
            connections: 0,
            tokens: full,
            filled: now,
        });
        tally.tokens = tally.tokens_at(now, full);
        tally.filled = now;
        // This machine's own programs, a proxy among them, may come as often as they like.
        let too_often = tally.tokens < 1.0 && !address.to_canonical().is_loopback();
        if tally.connections >= most || too_often {
            return None;
        }
        tally.tokens = (tally.tokens - 1.0).max(0.0);
        tally.connections += 1;
        Some(Counted {
            addresses: self.clone(),
            network,
        })
    }
}

impl Tally {
    fn tokens_at(&self, now: Instant, full: f64) -> f64 {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        (self.tokens + since * full / REFILL_SECONDS).min(full)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut tallies = self.addresses.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tally) = tallies.get_mut(&self.network) {
            tally.connections = tally.connections.saturating_sub(1);
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

    #[tokio::test]
    async fn a_relay_whose_store_takes_nothing_is_not_well() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let health = Health::new();
        health.set(false);
        client
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let entered = enter(stream, &health, Duration::from_secs(5));
        let mut answer = String::new();
        let (entered, _) = tokio::join!(entered, async {
            client.read_to_string(&mut answer).await.unwrap();
            drop(client);
        });
        assert!(entered.is_none());
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    }

    #[test]
    fn an_address_is_counted_until_its_connection_ends() {
        let (addresses, now) = (Addresses::default(), Instant::now());
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let first = addresses.count(one, 1, now).unwrap();
        assert!(addresses.count(one, 1, now).is_none());
        let other = "192.0.2.2".parse().unwrap();
        assert!(addresses.count(other, 1, now).is_some());
        drop(first);
        assert!(addresses.count(one, 1, now).is_some());
    }

    #[test]
    fn an_address_that_comes_too_often_has_to_wait_but_not_this_machine() {
        let (addresses, now) = (Addresses::default(), Instant::now());
        let comes = |address: &str, seconds| {
            let later = now + Duration::from_secs(seconds);
            let address = address.parse().unwrap();
            addresses.count(address, 2, later).is_some()
        };
        assert!((0..4).all(|_| comes("192.0.2.1", 0)));
        assert!(!comes("192.0.2.1", 0));
        assert!(comes("192.0.2.1", 30));
        assert!(!comes("192.0.2.1", 30));
        assert!((0..10).all(|_| comes("127.0.0.1", 0) && comes("::1", 0)));
    }

    #[test]
    fn addresses_with_nothing_to_remember_are_forgotten() {
        let (addresses, now) = (Addresses::default(), Instant::now());
        for number in 0..u32::try_from(TALLIES).unwrap() {
            let address = std::net::Ipv4Addr::from(number).into();
            addresses.count(address, 2, now);
        }
        let later = now + Duration::from_secs(120);
        let _kept = addresses.count("192.0.2.1".parse().unwrap(), 2, later);
        assert_eq!(addresses.tallies.lock().unwrap().len(), 1);
    }

    #[test]
    fn an_ipv6_customer_is_one_network_and_a_mapped_address_is_ipv4() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
    }
}
