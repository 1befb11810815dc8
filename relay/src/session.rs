//! One connection: challenge, login, then frames in both directions until one side has had enough (`PROTOCOL.md`,
//! sections 3 and 4).
//!
//! What a frame does to a mailbox is deliberately not here: it becomes an order to the office, whose answers come back
//! through the connection's outbox.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream};
use rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha256};
use tokio::sync::futures::Notified;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use wire::envelope::Envelope;
use wire::frame::{ClientFrame, Close, Put, PutId, Reason, RelayFrame};
use wire::limits::{TTL_SECONDS_MAX, TTL_SECONDS_MIN};
use wire::login::RelayName;
use wire::mailbox::MailboxId;

use crate::addresses::Visitor;
use crate::bucket::{Bucket, Rate};
use crate::door::Doorstep;
use crate::health::Health;
use crate::metrics::{Limit, Present};
use crate::office::{Counter, OfficeClosed, Order, OwnerOrder, PutOrder};
use crate::outbox::{Out, Outbox, Outgoing, UNANSWERED, outbox};

/// How long the last word may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long a connection that ends with the relay may wait for its last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Pings, and unasked pongs.
const PINGS: Rate = Rate {
    at_once: 16.0,
    per_second: 1.0,
};

/// Puts refused as not allowed, which cost the relay more than they cost the sender. Whoever has used them up is read no
/// faster than they come back.
const JUNK: Rate = Rate {
    at_once: 256.0,
    per_second: 256.0,
};

/// Longest rest of a connection that sent too much, so that it isn't taken for dead.
const REST_MAX: Duration = Duration::from_secs(5);

/// When to try again if memory is used up, in milliseconds.
const FULL_MS: u32 = 1000;

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
    pub(crate) health: Health,
}

/// Whose connection it is, as far as that can be known before login.
pub(crate) struct Person {
    /// The address that was reached.
    pub(crate) local: SocketAddr,
    pub(crate) visitor: Visitor,
    /// Counted as a stranger until this is dropped.
    pub(crate) stranger: Present,
}

mod greeting;

use greeting::greet;

type Socket = WebSocketStream<Doorstep>;

/// Numbers connections, so that the office can tell two of one mailbox apart.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Serves a connection to its end.
pub(crate) async fn serve(socket: Socket, person: Person, house: House) {
    // Gone with its box before the long rest begins, and what is left is in one box: a future keeps a copy of all that was
    // ever moved through it.
    let admitted = Box::pin(admit(socket, person, house)).await;
    if let Some(session) = admitted {
        session.run().await;
    }
}

/// Lets in whoever can log in.
async fn admit(mut socket: Socket, person: Person, mut house: House) -> Option<Box<Session>> {
    let greeting = greet(&mut socket, &person, &house.names);
    let greeting = Box::pin(timeout(house.login_deadline, greeting));
    let greeted = tokio::select! {
        greeted = greeting => greeted.unwrap_or(Err(End::Close(Close::TooSlow))),
        _ = house.stopping.wait_for(|stopping| *stopping) => Err(End::Goodbye),
    };
    let mailbox = match greeted {
        Ok(mailbox) => mailbox,
        Err(end) => {
            let metrics = &house.health.metrics;
            match end {
                End::Close(Close::Login) => {
                    person.visitor.failed_login(Instant::now());
                    metrics.logins_failed.inc();
                }
                End::Close(Close::TooMany) => metrics.limited(Limit::Logins),
                _ => {}
            }
            Box::pin(leave(socket, end)).await;
            return None;
        }
    };
    socket.get_mut().welcome();
    let Person { visitor, stranger, .. } = person;
    drop(stranger);
    Some(Box::new(Session::new(socket, mailbox, visitor, house)))
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

async fn send(socket: &mut Socket, frame: &RelayFrame) -> Result<(), End> {
    let message = Message::Binary(frame.encode());
    socket.send(message).await.map_err(|_| End::Gone)
}

/// The bytes of a frame, or nothing for what needs no answer from us.
fn sort(message: Message, pings: &mut Bucket) -> Result<Option<Bytes>, End> {
    match message {
        Message::Binary(bytes) => Ok(Some(bytes)),
        Message::Text(_) => Err(End::Close(Close::Unsupported)),
        Message::Ping(_) | Message::Pong(_) if !pings.take(PINGS, Instant::now()) => Err(End::Close(Close::TooMany)),
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

/// Messages taken in before others have their turn.
const AT_ONCE: usize = 64;

/// What happened to a connection.
enum Event {
    /// An order for which there is no room at the counter just now.
    Queue(Order),
    /// The other side sent too much; nothing is read for a while.
    Rest(Duration),
    End(End),
}

struct Session {
    socket: Socket,
    mailbox: MailboxId,
    visitor: Visitor,
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
    junk: Bucket,
    /// How long to rest before reading on.
    rest: Option<Duration>,
    _member: Present,
}

impl Session {
    fn new(socket: Socket, mailbox: MailboxId, visitor: Visitor, house: House) -> Self {
        let (outbox, outgoing) = outbox(house.health.memory.clone());
        let _member = Present::new(&house.health.metrics.members);
        Self {
            socket,
            mailbox,
            visitor,
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            house,
            outbox,
            outgoing,
            unanswered: 0,
            unflushed: false,
            stalled_since: None,
            heard: Instant::now(),
            pings: Bucket::full(Instant::now()),
            junk: Bucket::full(Instant::now()),
            rest: None,
            _member,
        }
    }

    async fn run(mut self: Box<Self>) {
        let Err(end) = Box::pin(self.attend()).await;
        tracing::debug!(connection = self.connection, ?end, "connection ends");
        if end == End::Goodbye {
            // What was put before the end is flushed before the end, and its sender told.
            Box::pin(timeout(LAST_ANSWERS, self.last_answers())).await.ok();
        }
        self.house.counter.order(self.order(OwnerOrder::Leave)).await.ok();
        Box::pin(leave(self.socket, end)).await;
    }

    /// Takes messages in and gives answers out until one side has had enough.
    async fn attend(&mut self) -> Result<Infallible, End> {
        let mut tick = interval(self.house.keepalive / 3);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cut = std::sync::Arc::clone(&self.outgoing.cut);
        let (mut stopping, mut stopping_later) = (self.house.stopping.clone(), self.house.stopping.clone());
        // Made once: most of what a message costs would otherwise be waiting for what never comes.
        let mut stopped = pin!(stopping.wait_for(|stopping| *stopping));
        let mut cut_off = pin!(cut.notified());
        loop {
            let event = tokio::select! {
                _ = &mut stopped => return Err(End::Goodbye),
                () = &mut cut_off => return Err(End::Close(Close::TooSlow)),
                _ = tick.tick() => {
                    self.check()?;
                    continue;
                }
                event = poll_fn(|context| self.poll(context)) => event,
            };
            match event {
                Event::End(end) => return Err(end),
                Event::Rest(rest) => Box::pin(self.rest(rest, &mut stopping_later, cut_off.as_mut())).await?,
                Event::Queue(order) => self.queue(order).await?,
            }
        }
    }

    /// Reads nothing for a while. What is queued is written all the same: whoever shares an address with somebody rude
    /// still gets its envelopes.
    async fn rest(
        &mut self,
        rest: Duration,
        stopping: &mut watch::Receiver<bool>,
        cut_off: Pin<&mut Notified<'_>>,
    ) -> Result<(), End> {
        self.house.health.metrics.limited(Limit::Traffic);
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => Err(End::Goodbye),
            () = cut_off => Err(End::Close(Close::TooSlow)),
            () = sleep(rest.min(REST_MAX)) => {
                // The silence was ours.
                self.heard = Instant::now();
                Ok(())
            }
            end = poll_fn(|context| self.poll_write(context)) => Err(end),
        }
    }

    /// Writes until every request is answered and nothing is left to write.
    async fn last_answers(&mut self) {
        poll_fn(|context| match self.poll_write(context) {
            Poll::Pending if self.unanswered > 0 || self.unflushed => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// Writes what is queued and reads; neither waits for the other, so that a client which writes much before it reads
    /// doesn't lock up with us.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(end) = self.poll_write(context) {
            return Poll::Ready(Event::End(end));
        }
        for _ in 0..AT_ONCE {
            if let Some(rest) = self.rest.take() {
                return Poll::Ready(Event::Rest(rest));
            }
            if self.unanswered >= UNANSWERED {
                return Poll::Pending;
            }
            let order = match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(message)) => self.take_in(message),
                Some(Err(_)) if self.socket.get_ref().is_starved() => {
                    self.house.health.metrics.limited(Limit::Memory);
                    Err(End::Close(Close::TooMany))
                }
                Some(Err(error)) => Err(end_of(&error)),
                None => Err(End::Gone),
            };
            let order = match order {
                Ok(None) => continue,
                Ok(Some(order)) => self.house.counter.try_order(order),
                Err(end) => return Poll::Ready(Event::End(end)),
            };
            match order {
                Ok(None) => {}
                Ok(Some(order)) => return Poll::Ready(Event::Queue(order)),
                Err(OfficeClosed) => return Poll::Ready(Event::End(End::Goodbye)),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// What a message orders, if anything.
    fn take_in(&mut self, message: Message) -> Result<Option<Order>, End> {
        self.heard = Instant::now();
        self.socket.get_mut().finished();
        self.rest = self.visitor.sends(message.len(), self.heard);
        match sort(message, &mut self.pings)? {
            Some(bytes) => self.hand_in(bytes),
            None => Ok(None),
        }
    }

    /// Waits for room at the counter.
    async fn queue(&mut self, order: Order) -> Result<(), End> {
        // Until the desk has it.
        let bytes = if let Order::Put(order) = &order {
            order.envelope.bucket()
        } else {
            0
        };
        let _in_hand = self.house.health.memory.charge(bytes);
        self.house.counter.order(order).await.map_err(|_| End::Goodbye)
    }

    /// Writes what is queued, all of it before one flush. Ready only when that is the end.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<End> {
        while let Poll::Ready(ready) = Pin::new(&mut self.socket).poll_ready(context) {
            if ready.is_err() {
                return Poll::Ready(End::Gone);
            }
            let Poll::Ready(out) = self.outgoing.poll_next(context) else {
                break;
            };
            let frame = match out {
                Some(Out::Answer(frame)) => {
                    self.unanswered = self.unanswered.saturating_sub(1);
                    if let RelayFrame::Refused { reason, .. } = &frame {
                        self.refused(*reason);
                    }
                    frame
                }
                Some(Out::Deliver(frame, _)) => frame,
                Some(Out::Displaced) => return Poll::Ready(End::Displaced),
                Some(Out::Close(close)) => return Poll::Ready(End::Close(close)),
                None => return Poll::Ready(End::Gone),
            };
            let message = Message::Binary(frame.encode());
            if Pin::new(&mut self.socket).start_send(message).is_err() {
                return Poll::Ready(End::Gone);
            }
            self.unflushed = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.socket).poll_flush(context) {
                Poll::Ready(Ok(())) => {
                    self.unflushed = false;
                    self.stalled_since = None;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Pending => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                }
            }
        }
        Poll::Pending
    }

    fn refused(&mut self, reason: Reason) {
        self.house.health.metrics.refused(reason);
        if reason == Reason::NotAllowed {
            let rest = self.junk.spend(1.0, JUNK, Instant::now());
            self.rest = self.rest.max(rest);
        }
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

    fn hand_in(&mut self, bytes: Bytes) -> Result<Option<Order>, End> {
        let frame = ClientFrame::decode(bytes).map_err(|_| End::Close(Close::Malformed))?;
        let order = match frame {
            ClientFrame::Login { .. } => return Err(End::Close(Close::Malformed)),
            ClientFrame::Put(put) => return Ok(self.put(put)),
            ClientFrame::Ack { sequence } => return Ok(Some(self.order(OwnerOrder::Ack { sequence }))),
            ClientFrame::Read => OwnerOrder::Read,
            ClientFrame::Allow {
                capability,
                max_envelopes,
                max_bytes,
            } => OwnerOrder::Allow {
                capability,
                max_envelopes,
                max_bytes,
                visitor: self.visitor.clone(),
            },
            ClientFrame::Revoke { capability } => OwnerOrder::Revoke { capability },
            ClientFrame::CloseMailbox => OwnerOrder::Close,
        };
        self.unanswered += 1;
        Ok(Some(self.order(order)))
    }

    fn put(&mut self, put: Put) -> Option<Order> {
        self.unanswered += 1;
        let ttl = TTL_SECONDS_MIN..=TTL_SECONDS_MAX;
        if !ttl.contains(&put.ttl_seconds) {
            return self.refuse(put.id, Reason::Ttl, 0);
        }
        let Ok(envelope) = Envelope::from_bytes(put.envelope) else {
            return self.refuse(put.id, Reason::Length, 0);
        };
        if self.house.health.memory.is_full() {
            self.house.health.metrics.limited(Limit::Memory);
            return self.refuse(put.id, Reason::Busy, FULL_MS);
        }
        // Hashed here, on the connection's own time, not at the desk where everybody waits.
        Some(Order::Put(Box::new(PutOrder {
            outbox: self.outbox.clone(),
            id: put.id,
            mailbox: put.mailbox,
            capability: put.capability.hash(),
            ttl_seconds: put.ttl_seconds,
            digest: Sha256::digest(envelope.as_bytes()).into(),
            envelope,
        })))
    }

    fn refuse(&self, id: PutId, reason: Reason, retry_after_ms: u32) -> Option<Order> {
        self.outbox.answer(RelayFrame::Refused {
            id,
            reason,
            retry_after_ms,
        });
        None
    }

    fn order(&self, order: OwnerOrder) -> Order {
        Order::Owner {
            mailbox: *self.mailbox.as_bytes(),
            connection: self.connection,
            outbox: self.outbox.clone(),
            order,
        }
    }
}
