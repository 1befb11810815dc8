//! The connection to one relay for one mailbox: dialled, logged in, frame by frame. What comes out of it is a frame or an error, never a belief.
//!
//! Deliberately not here: staying connected (`driver`), what an envelope holds, what to do about a refusal. PROTOCOL.md 3 to 5.

mod driver;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, error::CapacityError};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use wire::frame::{ClientFrame, Close, FrameError, RelayFrame, VERSION};
use wire::limits::{FRAME_BYTES, FRAME_BYTES_BEFORE_LOGIN, LOGIN_DEADLINE};
use wire::login::{NameError, authority, sign};
use wire::mailbox::MailboxKey;

pub use driver::{LinkEvent, LinkHandle, spawn};

/// Name lookup, TCP, TLS and the upgrade to a websocket together, on a slow network.
const DIAL_DEADLINE: Duration = Duration::from_secs(15);
/// One connection's read buffer; the library's own 128 KiB would be zeroed before each read.
const READ_BUFFER_BYTES: usize = 8 * 1024;
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// What may wait for a slow socket: a few of the largest frames, then the sender waits.
const WRITE_QUEUE_BYTES: usize = 4 * FRAME_BYTES;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The URL names no relay.
    #[error("the relay's url: {0}")]
    Url(#[from] NameError),
    /// It can't be reached: no such host, nobody listens, TLS or the upgrade failed.
    #[error("the relay can't be reached: {0}")]
    Unreachable(String),
    /// It didn't answer in time.
    #[error("the relay didn't answer in time while {0}")]
    Slow(&'static str),
    /// It speaks no version that we speak. This is version 1 and there is none below, so that there is nothing to be talked down to.
    #[error("the relay offers protocol version {offered}, this program speaks {VERSION}")]
    Version {
        /// What it offers.
        offered: u16,
    },
    /// It closed the connection with one of the protocol's reasons.
    #[error("the relay closed the connection: {0}")]
    Closed(Close),
    /// The connection ended: the network, or the relay for a reason of its own.
    #[error("the connection to the relay was lost: {0}")]
    Lost(String),
    /// It sent text; every frame is binary.
    #[error("the relay sent a text message")]
    Text,
    /// It sent bytes that are no frame.
    #[error("the relay sent a malformed frame: {0}")]
    Frame(#[from] FrameError),
    /// It sent a frame that has no place there.
    #[error("the relay sent {0}")]
    Unexpected(&'static str),
}

/// A logged-in connection.
pub struct Link {
    socket: Socket,
    window: u32,
}

impl Link {
    /// Dials the relay, answers its challenge with the mailbox key and is logged in. Nothing is created at the relay by it.
    ///
    /// The login is signed for the name in `url`, not for any name that the relay gives itself: what a hostile relay gets can't be used elsewhere.
    ///
    /// # Errors
    /// [`LinkError`]; trying again later is useful for all but [`LinkError::Url`].
    pub async fn connect(url: &str, key: &MailboxKey) -> Result<Self, LinkError> {
        let relay = authority(url)?;
        let mut socket = timeout(DIAL_DEADLINE, dial(url))
            .await
            .map_err(|_| LinkError::Slow("connecting"))??;
        let login = async {
            let RelayFrame::Challenge {
                version: offered,
                nonce,
            } = small(&mut socket).await?
            else {
                return Err(LinkError::Unexpected("something else than its challenge first"));
            };
            // The highest common version is ours, whatever higher one it offers.
            if offered < VERSION {
                return Err(LinkError::Version { offered });
            }
            let signature = sign(key, VERSION, &relay, &nonce);
            let login = ClientFrame::Login {
                version: VERSION,
                mailbox: *key.id().as_bytes(),
                signature,
            };
            socket.send(Message::Binary(login.encode())).await.map_err(lost)?;
            match small(&mut socket).await? {
                RelayFrame::Welcome {
                    version: VERSION,
                    window_envelopes,
                } => Ok(window_envelopes),
                RelayFrame::Welcome { version: offered, .. } => Err(LinkError::Version { offered }),
                _ => Err(LinkError::Unexpected("something else than its welcome")),
            }
        };
        let window = timeout(LOGIN_DEADLINE, login)
            .await
            .map_err(|_| LinkError::Slow("logging in"))??;
        Ok(Self { socket, window })
    }

    /// Sends one frame. Waits while the relay doesn't read.
    ///
    /// # Errors
    /// [`LinkError::Lost`] or [`LinkError::Closed`]: the connection is over.
    pub async fn send(&mut self, frame: &ClientFrame) -> Result<(), LinkError> {
        self.socket.send(Message::Binary(frame.encode())).await.map_err(lost)
    }

    /// Waits for the next frame, however long.
    ///
    /// # Errors
    /// [`LinkError`]: the connection is over, also where the relay broke the protocol.
    pub async fn receive(&mut self) -> Result<RelayFrame, LinkError> {
        loop {
            if let Some(frame) = frame(self.socket.next().await)? {
                return Ok(frame);
            }
        }
    }
}

async fn dial(url: &str) -> Result<Socket, LinkError> {
    // Named, because a program with two providers in its tree has no default one. An error says that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_QUEUE_BYTES)
        .max_message_size(Some(FRAME_BYTES))
        .max_frame_size(Some(FRAME_BYTES));
    let dialled = connect_async_with_config(url, Some(config), true).await;
    dialled
        .map(|(socket, _)| socket)
        .map_err(|error| LinkError::Unreachable(error.to_string()))
}

/// The next frame before login.
async fn small(socket: &mut Socket) -> Result<RelayFrame, LinkError> {
    loop {
        let message = socket.next().await;
        if matches!(&message, Some(Ok(Message::Binary(bytes))) if bytes.len() > FRAME_BYTES_BEFORE_LOGIN) {
            return Err(LinkError::Unexpected("a long frame before the login"));
        }
        if let Some(frame) = frame(message)? {
            return Ok(frame);
        }
    }
}

/// What a websocket message says; `None` for what only keeps the connection alive.
fn frame(message: Option<Result<Message, SocketError>>) -> Result<Option<RelayFrame>, LinkError> {
    match message {
        Some(Ok(Message::Binary(bytes))) => Ok(Some(RelayFrame::decode(bytes)?)),
        Some(Ok(Message::Text(_))) => Err(LinkError::Text),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        // Its words are not shown: they are a stranger's. Its number is enough.
        Some(Ok(Message::Close(close))) => Err(
            match close.as_ref().and_then(|close| Close::from_code(close.code.into())) {
                Some(known) => LinkError::Closed(known),
                None => LinkError::Lost("it said goodbye".to_owned()),
            },
        ),
        Some(Err(error)) => Err(lost(error)),
        None => Err(LinkError::Lost("it hung up".to_owned())),
    }
}

fn lost(error: SocketError) -> LinkError {
    match error {
        SocketError::Capacity(CapacityError::MessageTooLong { size, .. }) => {
            LinkError::Frame(FrameError::TooLong { bytes: size })
        }
        error => LinkError::Lost(error.to_string()),
    }
}

#[cfg(test)]
mod relay_tests;
#[cfg(test)]
mod tests;
