//! One connection: challenge, login, then frames in both directions until one side has had enough (`PROTOCOL.md`,
//! sections 3 and 4).
//!
//! What a frame does to a mailbox is deliberately not here: it becomes an order to the office, whose answers come back
//! through the connection's outbox.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use wire::envelope::Envelope;
use wire::frame::{ClientFrame, Close, Put, Reason, RelayFrame, VERSION};
use wire::limits::{FRAME_BYTES_BEFORE_LOGIN, TTL_SECONDS_MAX, TTL_SECONDS_MIN, WINDOW_ENVELOPES};
use wire::login::{self, RelayName};
use wire::mailbox::MailboxId;

use crate::door::Doorstep;
use crate::office::{Counter, Order, OwnerOrder, PutOrder};
use crate::outbox::{Out, Outbox, Outgoing, UNANSWERED, outbox};

/// How long the last word may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Pings (and unasked pongs) at once, and how many more each second allows.
const PINGS: f64 = 16.0;
const PINGS_PER_SECOND: f64 = 1.0;

/// When to come back after a shutdown: at least so late, and spread over so long, in milliseconds. Everybody at once would
/// be a storm.
const BACK_AFTER_MS: u32 = 500;
const BACK_WITHIN_MS: u32 = 4500;

/// What all connections share.
#[derive(Clone)]
pub(crate) struct House {
    pub(crate) counter: Counter,
    pub(crate) names: Vec<RelayName>,
    pub(crate) login_deadline: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) stall_deadline: Duration,
    /// True when the relay is shutting down.
    pub(crate) stopping: watch::Receiver<bool>,
}

type Socket = WebSocketStream<Doorstep>;

/// Numbers connections, so that the office can tell two of one mailbox apart.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Serves a connection to its end.
pub(crate) async fn serve(mut socket: Socket, local: SocketAddr, mut house: House) {
    let greeting = Box::pin(timeout(house.login_deadline, greet(&mut socket, local, &house.names)));
    let greeted = tokio::select! {
        greeted = greeting => greeted.unwrap_or(Err(End::Close(Close::TooSlow))),
        _ = house.stopping.wait_for(|stopping| *stopping) => Err(End::Goodbye),
    };
    let mailbox = match greeted {
        Ok(mailbox) => mailbox,
        Err(end) => return Box::pin(leave(socket, end)).await,
    };
    socket.get_mut().welcome();
    let session = Session::new(socket, mailbox, house);
    session.run().await;
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The other side left, or can't be reached.
    Gone,
    /// We close.
    Close(Close),
    /// We close after telling that another reader took over.
    Displaced,
    /// We close because the relay is shutting down.
    Goodbye,
}

/// Challenge and login.
async fn greet(socket: &mut Socket, local: SocketAddr, names: &[RelayName]) -> Result<MailboxId, End> {
    let mut nonce = [0; 32];
    OsRng.fill_bytes(&mut nonce);
    let challenge = RelayFrame::Challenge {
        version: VERSION,
        nonce,
    };
    send(socket, &challenge).await?;
    let mut pings = Bucket::new();
    let bytes = loop {
        match socket.next().await {
            Some(Ok(message)) => match sort(message, &mut pings)? {
                Some(bytes) => break bytes,
                None => socket.flush().await.map_err(|_| End::Gone)?,
            },
            Some(Err(_)) if socket.get_ref().is_overrun() => {
                return Err(End::Close(Close::TooLong));
            }
            Some(Err(error)) => return Err(end_of(&error)),
            None => return Err(End::Gone),
        }
    };
    if bytes.len() > FRAME_BYTES_BEFORE_LOGIN {
        return Err(End::Close(Close::TooLong));
    }
    let frame = ClientFrame::decode(bytes).map_err(|_| End::Close(Close::Malformed))?;
    let ClientFrame::Login {
        version,
        mailbox,
        signature,
    } = frame
    else {
        return Err(End::Close(Close::Login));
    };
    if version != VERSION {
        return Err(End::Close(Close::Login));
    }
    let own = [RelayName::from_address(local)];
    let names = if names.is_empty() { &own } else { names };
    let mailbox = login::verify(names, version, &nonce, &mailbox, &signature).map_err(|_| End::Close(Close::Login))?;
    let welcome = RelayFrame::Welcome {
        version,
        window_envelopes: WINDOW_ENVELOPES,
    };
    send(socket, &welcome).await?;
    Ok(mailbox)
}

async fn send(socket: &mut Socket, frame: &RelayFrame) -> Result<(), End> {
    let message = Message::Binary(frame.encode());
    socket.send(message).await.map_err(|_| End::Gone)
}

/// The bytes of a frame, or nothing for what needs no answer from us.
fn sort(message: Message, pings: &mut Bucket) -> Result<Option<Bytes>, End> {
    match message {
        Message::Binary(bytes) => Ok(Some(bytes)),
        Message::Text(_) => Err(End::Close(Close::Unsupported)),
        Message::Ping(_) | Message::Pong(_) if !pings.take() => Err(End::Close(Close::TooMany)),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
        Message::Close(_) => Err(End::Gone),
    }
}

fn end_of(error: &Error) -> End {
    match error {
        Error::Capacity(_) => End::Close(Close::TooLong),
        Error::Utf8(_) => End::Close(Close::Invalid),
        Error::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            End::Gone
        }
        Error::Protocol(_) => End::Close(Close::Protocol),
        _ => End::Gone,
    }
}

/// Says why, if there is something to say, and hangs up.
async fn leave(mut socket: Socket, end: End) {
    let (frame, close) = match end {
        End::Gone => (None, None),
        End::Close(close) => (None, Some(close)),
        End::Displaced => (Some(RelayFrame::Displaced), Some(Close::Displaced)),
        End::Goodbye => {
            let retry_after_ms = BACK_AFTER_MS + OsRng.next_u32() % BACK_WITHIN_MS;
            let goodbye = RelayFrame::Goodbye { retry_after_ms };
            (Some(goodbye), Some(Close::ShuttingDown))
        }
    };
    let farewell = async {
        if let Some(frame) = frame {
            send(&mut socket, &frame).await.ok();
        }
        match close {
            Some(close) => {
                let last = CloseFrame {
                    code: close.code().into(),
                    reason: close.to_string().into(),
                };
                socket.close(Some(last)).await.ok();
            }
            // Lets the answer to the other side's close go out.
            None => {
                socket.flush().await.ok();
            }
        }
    };
    if timeout(FAREWELL, farewell).await.is_ok() {
        socket.into_inner().hang_up().await;
    }
}

/// What happened to a connection.
enum Event {
    Message(Message),
    End(End),
}

struct Session {
    socket: Socket,
    mailbox: MailboxId,
    connection: u64,
    house: House,
    outbox: Outbox,
    outgoing: Outgoing,
    /// Requests handed in and not answered.
    unanswered: usize,
    /// Something is written and not flushed, and since when that stands still.
    unflushed: bool,
    stalled_since: Option<Instant>,
    heard: Instant,
    pings: Bucket,
}

impl Session {
    fn new(socket: Socket, mailbox: MailboxId, house: House) -> Self {
        let (outbox, outgoing) = outbox();
        Self {
            socket,
            mailbox,
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            house,
            outbox,
            outgoing,
            unanswered: 0,
            unflushed: false,
            stalled_since: None,
            heard: Instant::now(),
            pings: Bucket::new(),
        }
    }

    async fn run(mut self) {
        let Err(end) = Box::pin(self.attend()).await;
        tracing::debug!(connection = self.connection, ?end, "connection ends");
        self.order(OwnerOrder::Leave).await.ok();
        Box::pin(leave(self.socket, end)).await;
    }

    /// Takes messages in and gives answers out until one side has had enough.
    async fn attend(&mut self) -> Result<Infallible, End> {
        let mut tick = interval(self.house.keepalive / 3);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = self.house.stopping.clone();
        let cut = std::sync::Arc::clone(&self.outgoing.cut);
        loop {
            let event = tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return Err(End::Goodbye),
                () = cut.notified() => return Err(End::Close(Close::TooSlow)),
                _ = tick.tick() => {
                    self.check()?;
                    continue;
                }
                event = poll_fn(|context| self.poll(context)) => event,
            };
            match event {
                Event::End(end) => return Err(end),
                Event::Message(message) => {
                    self.heard = Instant::now();
                    if let Some(bytes) = sort(message, &mut self.pings)? {
                        self.hand_in(bytes).await?;
                    }
                }
            }
        }
    }

    /// Writes what is queued, all of it before one flush, and reads; neither waits for the other, so that a client which
    /// writes much before it reads doesn't lock up with us.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        while let Poll::Ready(ready) = Pin::new(&mut self.socket).poll_ready(context) {
            if ready.is_err() {
                return Poll::Ready(Event::End(End::Gone));
            }
            let Poll::Ready(out) = self.outgoing.poll_next(context) else {
                break;
            };
            let frame = match out {
                Some(Out::Answer(frame)) => {
                    self.unanswered = self.unanswered.saturating_sub(1);
                    frame
                }
                Some(Out::Deliver(frame, _)) => frame,
                Some(Out::Displaced) => return Poll::Ready(Event::End(End::Displaced)),
                Some(Out::Close(close)) => return Poll::Ready(Event::End(End::Close(close))),
                None => return Poll::Ready(Event::End(End::Gone)),
            };
            let message = Message::Binary(frame.encode());
            if Pin::new(&mut self.socket).start_send(message).is_err() {
                return Poll::Ready(Event::End(End::Gone));
            }
            self.unflushed = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.socket).poll_flush(context) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    self.stalled_since = None;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Event::End(End::Gone)),
                Poll::Pending => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                }
            }
        }
        if self.unanswered >= UNANSWERED {
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_next(context).map(|next| match next {
            Some(Ok(message)) => Event::Message(message),
            Some(Err(error)) => Event::End(end_of(&error)),
            None => Event::End(End::Gone),
        })
    }

    /// Is the other side still there, and does it read?
    fn check(&mut self) -> Result<(), End> {
        let stalled = self
            .stalled_since
            .is_some_and(|since| since.elapsed() >= self.house.stall_deadline);
        if stalled {
            return Err(End::Close(Close::TooSlow));
        }
        let silence = self.heard.elapsed();
        // With its requests unanswered we don't listen, so silence means nothing.
        if silence > self.house.keepalive * 5 / 2 && self.unanswered < UNANSWERED {
            return Err(End::Close(Close::TooSlow));
        }
        if silence > self.house.keepalive && self.stalled_since.is_none() {
            self.pings.give();
            let ping = Message::Ping(Bytes::new());
            Pin::new(&mut self.socket).start_send(ping).map_err(|_| End::Gone)?;
            self.unflushed = true;
        }
        Ok(())
    }

    async fn hand_in(&mut self, bytes: Bytes) -> Result<(), End> {
        let frame = ClientFrame::decode(bytes).map_err(|_| End::Close(Close::Malformed))?;
        let order = match frame {
            ClientFrame::Login { .. } => return Err(End::Close(Close::Malformed)),
            ClientFrame::Put(put) => return self.put(put).await,
            ClientFrame::Ack { sequence } => return self.order(OwnerOrder::Ack { sequence }).await,
            ClientFrame::Read => OwnerOrder::Read,
            ClientFrame::Allow {
                capability,
                max_envelopes,
                max_bytes,
            } => OwnerOrder::Allow {
                capability,
                max_envelopes,
                max_bytes,
            },
            ClientFrame::Revoke { capability } => OwnerOrder::Revoke { capability },
            ClientFrame::CloseMailbox => OwnerOrder::Close,
        };
        self.unanswered += 1;
        self.order(order).await
    }

    async fn put(&mut self, put: Put) -> Result<(), End> {
        self.unanswered += 1;
        let ttl = TTL_SECONDS_MIN..=TTL_SECONDS_MAX;
        if !ttl.contains(&put.ttl_seconds) {
            return self.refuse(put, Reason::Ttl);
        }
        let Ok(envelope) = Envelope::from_bytes(put.envelope.clone()) else {
            return self.refuse(put, Reason::Length);
        };
        // Hashed here, on the connection's own time, not at the desk where everybody waits.
        let order = PutOrder {
            outbox: self.outbox.clone(),
            id: put.id,
            mailbox: put.mailbox,
            capability: put.capability.hash(),
            ttl_seconds: put.ttl_seconds,
            digest: Sha256::digest(envelope.as_bytes()).into(),
            envelope,
        };
        let order = Order::Put(Box::new(order));
        self.house.counter.order(order).await.map_err(|_| End::Goodbye)
    }

    fn refuse(&self, put: Put, reason: Reason) -> Result<(), End> {
        self.outbox.answer(RelayFrame::Refused {
            id: put.id,
            reason,
            retry_after_ms: 0,
        });
        Ok(())
    }

    async fn order(&mut self, order: OwnerOrder) -> Result<(), End> {
        let order = Order::Owner {
            mailbox: *self.mailbox.as_bytes(),
            connection: self.connection,
            outbox: self.outbox.clone(),
            order,
        };
        self.house.counter.order(order).await.map_err(|_| End::Goodbye)
    }
}

/// A token bucket: so many at once, and so many more each second.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new() -> Self {
        Self {
            tokens: PINGS,
            filled: Instant::now(),
        }
    }

    fn take(&mut self) -> bool {
        let since = self.filled.elapsed().as_secs_f64();
        self.filled = Instant::now();
        self.tokens = (self.tokens + since * PINGS_PER_SECOND).min(PINGS);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    /// We asked for this one.
    fn give(&mut self) {
        self.tokens += 1.0;
    }
}
