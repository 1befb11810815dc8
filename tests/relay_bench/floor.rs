//! The floor: the least that a relay on tokio-tungstenite can do. Sockets in pairs, by path; what one sends goes to the task of the
//! other, which writes all that is there before one flush. No login, no frames, nothing kept, nothing acknowledged.

use std::collections::HashMap;
use std::future::poll_fn;
#[cfg(test)]
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use anyhow::Result;
use futures_util::{Sink, Stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use crate::line::{Dialect, Heard, PAYLOAD, websocket_frame, websocket_message};

/// As our relay's.
const READ_BUFFER: usize = 4 * 1024;
const WRITE_BUFFER: usize = 16 * 1024;

/// One end of a pair: where its messages go, and where they come from.
type End = (UnboundedSender<Message>, UnboundedReceiver<Message>);

type Waiting = Arc<Mutex<HashMap<String, End>>>;

/// Serves until the process ends. Says where on stdout.
pub async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on ws://{}", listener.local_addr()?);
    forward(listener).await
}

/// Serves on this socket.
pub async fn forward(listener: TcpListener) -> Result<()> {
    let waiting = Waiting::default();
    loop {
        let (stream, _) = listener.accept().await?;
        let waiting = Arc::clone(&waiting);
        tokio::spawn(async move {
            // In a box of its own, so that a socket at rest doesn't hold the room that its handshake needed.
            if let Some((socket, end)) = Box::pin(enter(stream, waiting)).await {
                let mut socket = Socket {
                    socket,
                    partner: end.0,
                    from_partner: end.1,
                    unflushed: false,
                };
                poll_fn(|context| socket.poll(context)).await;
            }
        });
    }
}

async fn enter(stream: TcpStream, waiting: Waiting) -> Option<(WebSocketStream<TcpStream>, End)> {
    stream.set_nodelay(true).ok()?;
    let mut path = String::new();
    // The error is the library's, and as large as it is.
    #[allow(clippy::result_large_err)]
    let note = |request: &Request, response: Response| {
        request.uri().path().clone_into(&mut path);
        Ok(response)
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER);
    let socket = accept_hdr_async_with_config(stream, note, Some(config)).await.ok()?;
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let end = waiting.remove(&path).unwrap_or_else(|| {
        let ((there, from_there), (here, from_here)) = (unbounded_channel(), unbounded_channel());
        waiting.insert(path, (here, from_there));
        (there, from_here)
    });
    drop(waiting);
    Some((socket, end))
}

struct Socket {
    socket: WebSocketStream<TcpStream>,
    partner: UnboundedSender<Message>,
    from_partner: UnboundedReceiver<Message>,
    unflushed: bool,
}

impl Socket {
    /// Ready when the socket's end has come.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            while let Poll::Ready(ready) = Pin::new(&mut self.socket).poll_ready(context) {
                let Poll::Ready(message) = self.from_partner.poll_recv(context) else {
                    break;
                };
                let (Ok(()), Some(message)) = (ready, message) else {
                    return Poll::Ready(());
                };
                if Pin::new(&mut self.socket).start_send(message).is_err() {
                    return Poll::Ready(());
                }
                self.unflushed = true;
            }
            if self.unflushed {
                match Pin::new(&mut self.socket).poll_flush(context) {
                    Poll::Ready(Ok(())) => self.unflushed = false,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            match Pin::new(&mut self.socket).poll_next(context) {
                Poll::Ready(Some(Ok(message @ Message::Binary(_)))) => {
                    if self.partner.send(message).is_err() {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// A client of the floor.
pub struct Bare;

impl Dialect for Bare {
    fn say(&mut self, out: &mut Vec<u8>) {
        websocket_frame(out, PAYLOAD, |out| out.extend([0; PAYLOAD]));
    }

    fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>> {
        let message = websocket_message(bytes, out)?;
        Ok(message.map(|(length, content)| {
            (
                length,
                if content.is_empty() {
                    Heard::Other
                } else {
                    Heard::Delivered
                },
            )
        }))
    }
}

/// A pair of the floor's own.
pub fn path() -> String {
    static PAIRS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    format!("/{}", PAIRS.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

/// Where the floor serves, if it does in this process.
#[cfg(test)]
pub async fn in_process() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(forward(listener));
    Ok(address)
}
