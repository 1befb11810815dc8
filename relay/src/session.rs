//! One connection: challenge, login, then frames in both directions until one side has had enough (`PROTOCOL.md`,
//! sections 3 and 4).
//!
//! What a frame does to a mailbox is deliberately not here: it becomes an order to the office, whose answers come back
//! through the connection's outbox.

use std::cell::Cell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rand_core::{OsRng, RngCore};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wire::envelope::Envelope;
use wire::frame::{ClientFrame, Close, Put, PutId, Reason, RelayFrame};
use wire::limits::{TTL_SECONDS_MAX, TTL_SECONDS_MIN};
use wire::login::RelayName;
use wire::mailbox::{Capability, CapabilityHash, MailboxId};

use crate::addresses::Visitor;
use crate::bucket::{Bucket, Rate};
use crate::health::Health;
use crate::known;
use crate::metrics::{Limit, Present};
use crate::office::{Counter, OfficeClosed, Order, OwnerOrder, PutOrder};
use crate::outbox::{Gone, Out, Outbox, Outgoing, UNANSWERED, outbox};
use crate::socket::{Fault, Message, Socket, Written};

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
    socket.welcome();
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
    socket.push(frame);
    socket.flush().await.map_err(|_| End::Gone)
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Gone | Fault::Closed => Self::Gone,
            Fault::Protocol => Self::Close(Close::Protocol),
            Fault::Invalid => Self::Close(Close::Invalid),
            Fault::TooLong => Self::Close(Close::TooLong),
            Fault::Starved => Self::Close(Close::TooMany),
        }
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
        if let Some(frame) = &frame {
            socket.push(frame);
        }
        if let Some(close) = close {
            socket.close(close.code(), &close.to_string());
        }
        // Lets the answer to the other side's close go out, too.
        socket.flush().await.ok();
    };
    if timeout(FAREWELL, farewell).await.is_ok() {
        socket.hang_up().await;
    }
}

/// Frames taken in before others have their turn.
const AT_ONCE: usize = 64;

/// A socket that stands still counts as moving again when so many bytes went out.
const MOVING: usize = 4 * 1024;

thread_local! {
    /// A list for what was read, used again and again.
    static SPARE: Cell<Vec<Order>> = const { Cell::new(Vec::new()) };
}

/// What happened to a connection.
enum Event {
    /// There is no room at the counter for these orders just now.
    Queue(Vec<Order>),
    /// The other side sent too much; nothing is read for a while.
    Rest(Duration),
    End(End),
}

struct Session {
    socket: Socket,
    intake: Intake,
    outgoing: Outgoing,
    /// Taken from there and not yet handed to the socket.
    taken: VecDeque<Out>,
    /// Since when what is to be written stands still, and how much went out since.
    stalled_since: Option<Instant>,
    moved: usize,
    heard: Instant,
    junk: Bucket,
    /// How long to rest before reading on.
    rest: Option<Duration>,
    _member: Present,
}

/// What makes orders of messages.
struct Intake {
    mailbox: MailboxId,
    visitor: Visitor,
    connection: u64,
    house: House,
    outbox: Outbox,
    /// Requests handed in, and answers to them not written.
    unanswered: usize,
    pings: Bucket,
    /// The capability used last, which is nearly always used again, and its hash.
    capability: Option<(Capability, CapabilityHash)>,
}

impl Session {
    fn new(socket: Socket, mailbox: MailboxId, visitor: Visitor, house: House) -> Self {
        let (outbox, outgoing) = outbox(house.health.memory.clone());
        let _member = Present::new(&house.health.metrics.members);
        let now = Instant::now();
        Self {
            socket,
            intake: Intake {
                mailbox,
                visitor,
                connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
                house,
                outbox,
                unanswered: 0,
                pings: Bucket::full(now),
                capability: None,
            },
            outgoing,
            taken: VecDeque::new(),
            stalled_since: None,
            moved: 0,
            heard: now,
            junk: Bucket::full(now),
            rest: None,
            _member,
        }
    }

    async fn run(mut self: Box<Self>) {
        let Err(end) = self.attend().await;
        tracing::debug!(connection = self.intake.connection, ?end, "connection ends");
        if end == End::Goodbye {
            // What was put before the end is flushed before the end, and its sender told.
            Box::pin(timeout(LAST_ANSWERS, self.last_answers())).await.ok();
        }
        self.intake
            .house
            .counter
            .order(self.intake.order(OwnerOrder::Leave))
            .await
            .ok();
        Box::pin(leave(self.socket, end)).await;
    }

    /// Takes messages in and gives answers out until one side has had enough.
    async fn attend(&mut self) -> Result<Infallible, End> {
        let every = self.intake.house.keepalive / 3;
        let (mut stopping, mut stopping_later) =
            (self.intake.house.stopping.clone(), self.intake.house.stopping.clone());
        let mut stopped = pin!(stopping.wait_for(|stopping| *stopping));
        let mut tick = pin!(sleep(every));
        // Both wake this task once they are asked to, and are asked again only when they have something to say: most of what a
        // message costs would otherwise be asking.
        let mut asked = false;
        loop {
            let event = poll_fn(|context| {
                if (!asked || self.intake.house.health.is_draining()) && stopped.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Event::End(End::Goodbye));
                }
                while !asked || tick.is_elapsed() {
                    asked = true;
                    if tick.as_mut().poll(context).is_pending() {
                        break;
                    }
                    if let Err(end) = self.check() {
                        return Poll::Ready(Event::End(end));
                    }
                    tick.as_mut().reset(Instant::now() + every);
                    asked = false;
                }
                self.poll(context)
            })
            .await;
            match event {
                Event::End(end) => return Err(end),
                Event::Rest(rest) => Box::pin(self.rest(rest, &mut stopping_later)).await?,
                Event::Queue(orders) => Box::pin(self.queue(orders)).await?,
            }
        }
    }

    /// Reads nothing for a while. What is queued is written all the same: whoever shares an address with somebody rude
    /// still gets its envelopes.
    async fn rest(&mut self, rest: Duration, stopping: &mut watch::Receiver<bool>) -> Result<(), End> {
        self.intake.house.health.metrics.limited(Limit::Traffic);
        let until = Instant::now() + rest.min(REST_MAX);
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => Err(End::Goodbye),
            () = sleep_until(until) => {
                // The silence was ours.
                self.heard = Instant::now();
                Ok(())
            }
            end = poll_fn(|context| self.poll_write(context)) => Err(end),
        }
    }

    /// Writes until every request is answered and nothing is left to write.
    async fn last_answers(&mut self) {
        self.outgoing.hurry();
        poll_fn(|context| match self.poll_write(context) {
            Poll::Pending if self.intake.unanswered > 0 || self.stalled_since.is_some() => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// Reads, and writes what is queued; neither waits for the other, so that a client which writes much before it reads
    /// doesn't lock up with us. What others queue meanwhile, and what our own orders bring about, is written in the same turn.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if let Err(Gone) = self.outgoing.attend() {
            return Poll::Ready(Event::End(End::Close(Close::TooSlow)));
        }
        let event = self.poll_read(context);
        let was_full = self.intake.is_full();
        if let Poll::Ready(end) = self.poll_write(context) {
            return Poll::Ready(Event::End(end));
        }
        if was_full && !self.intake.is_full() {
            // What is waited for isn't always still to come.
            context.waker().wake_by_ref();
        }
        match event {
            Poll::Pending => self
                .rest
                .take()
                .map_or(Poll::Pending, |rest| Poll::Ready(Event::Rest(rest))),
            ready => ready,
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        if let Some(rest) = self.rest.take() {
            return Poll::Ready(Event::Rest(rest));
        }
        if self.intake.is_full() || !self.intake.house.counter.has_room(context) {
            return Poll::Pending;
        }
        let (mut orders, mut count, mut bytes) = (SPARE.take(), 0, 0);
        let mut end = None;
        let now = Instant::now();
        let intake = &mut self.intake;
        let owed = intake.unanswered;
        let taken = self.socket.poll_take(context, |message| {
            (count, bytes) = (count + 1, bytes + message.len());
            match intake.take_in(&message, now) {
                Ok(order) => orders.extend(order),
                Err(early) => {
                    end = Some(early);
                    return Ok(false);
                }
            }
            Ok(count < AT_ONCE && !intake.is_full())
        });
        if count > 0 {
            self.heard = now;
            self.rest = self.rest.max(self.intake.visitor.sends(count, bytes, now));
        }
        if self.intake.unanswered > owed {
            self.outgoing.owes(self.intake.unanswered - owed);
        }
        // What came before the end counts.
        if !orders.is_empty() && self.intake.house.counter.hand_in(&mut orders).is_err() {
            return Poll::Ready(Event::End(End::Goodbye));
        }
        if let Some(end) = end {
            return Poll::Ready(Event::End(end));
        }
        if let Poll::Ready(Err(fault)) = taken {
            if fault == Fault::Starved {
                self.intake.house.health.metrics.limited(Limit::Memory);
            }
            return Poll::Ready(Event::End(fault.into()));
        }
        if !orders.is_empty() {
            return Poll::Ready(Event::Queue(orders));
        }
        SPARE.set(orders);
        if taken.is_ready() && !self.intake.is_full() {
            // There may be more, after the others.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Waits for room at the counter.
    async fn queue(&mut self, orders: Vec<Order>) -> Result<(), End> {
        // Until the office has them.
        let bytes = orders.iter().map(|order| match order {
            Order::Put(order) => order.envelope.bucket(),
            Order::Owner { .. } => 0,
        });
        let _in_hand = self.intake.house.health.memory.charge(bytes.sum());
        for order in orders {
            let handed_in = self.intake.house.counter.order(order).await;
            handed_in.map_err(|OfficeClosed| End::Goodbye)?;
        }
        Ok(())
    }

    /// Writes what is queued, as much as possible at once. Ready only when that is the end.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<End> {
        loop {
            let mut more = true;
            while more && self.socket.has_room() {
                if self.taken.is_empty() {
                    self.outgoing.take(&mut self.taken, context);
                }
                let frame = match self.taken.pop_front() {
                    Some(Out::Answer(frame)) => {
                        if let RelayFrame::Refused { reason, .. } = &frame {
                            self.refused(*reason);
                        }
                        frame
                    }
                    Some(Out::Deliver(frame, _)) => frame,
                    Some(Out::Displaced) => return Poll::Ready(End::Displaced),
                    Some(Out::Close(close)) => return Poll::Ready(End::Close(close)),
                    None => {
                        more = false;
                        continue;
                    }
                };
                self.socket.push(&frame);
            }
            let mut written = Written::default();
            let wrote = self.socket.poll_write(context, &mut written);
            self.wrote(&written);
            match wrote {
                Poll::Ready(Ok(())) => {
                    self.stalled_since = None;
                    if !more {
                        return Poll::Pending;
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(End::Gone),
                Poll::Pending => {
                    self.stalled_since.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
    }

    fn wrote(&mut self, written: &Written) {
        if written.frames > 0 {
            self.outgoing
                .written(written.frames, written.answers, written.envelope_bytes);
            self.intake.unanswered = self.intake.unanswered.saturating_sub(written.answers);
        }
        self.moved += written.bytes;
        if self.moved >= MOVING {
            (self.stalled_since, self.moved) = (None, 0);
        }
    }

    fn refused(&mut self, reason: Reason) {
        self.intake.house.health.metrics.refused(reason);
        if reason == Reason::NotAllowed {
            let rest = self.junk.spend(1.0, JUNK, Instant::now());
            self.rest = self.rest.max(rest);
        }
    }

    /// Is the other side still there, and does it read? And gives back the room that bursts needed.
    fn check(&mut self) -> Result<(), End> {
        self.outgoing.rest();
        self.socket.rest();
        if self.taken.is_empty() {
            self.taken = VecDeque::new();
        }
        let stalled = self
            .stalled_since
            .is_some_and(|since| since.elapsed() >= self.intake.house.stall_deadline);
        if stalled {
            return Err(End::Close(Close::TooSlow));
        }
        let silence = self.heard.elapsed();
        // With its requests unanswered we don't listen, so silence means nothing.
        if silence > self.intake.house.keepalive * 5 / 2 && self.intake.unanswered < UNANSWERED {
            return Err(End::Close(Close::TooSlow));
        }
        if silence > self.intake.house.keepalive && self.stalled_since.is_none() {
            self.intake.pings.give();
            self.socket.ping();
        }
        Ok(())
    }
}

impl Intake {
    /// Whether nothing more is read before something is answered.
    fn is_full(&self) -> bool {
        self.unanswered >= UNANSWERED
    }

    /// What a message orders, if anything.
    fn take_in(&mut self, message: &Message<'_>, now: Instant) -> Result<Option<Order>, End> {
        match message {
            Message::Binary(bytes) => self.hand_in(bytes),
            Message::Text => Err(End::Close(Close::Unsupported)),
            Message::Heartbeat if !self.pings.take(PINGS, now) => Err(End::Close(Close::TooMany)),
            Message::Heartbeat => Ok(None),
        }
    }

    fn hand_in(&mut self, bytes: &[u8]) -> Result<Option<Order>, End> {
        let malformed = |_| End::Close(Close::Malformed);
        if let Some(put) = Put::decode_borrowed(bytes).map_err(malformed)? {
            return Ok(self.put(put));
        }
        if let Some(sequence) = ClientFrame::acknowledges(bytes) {
            return Ok(Some(self.order(OwnerOrder::Ack { sequence })));
        }
        let frame = ClientFrame::decode(Bytes::copy_from_slice(bytes)).map_err(malformed)?;
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
        let known = self.capability.as_ref().filter(|(known, _)| *known == put.capability);
        let capability = match known {
            Some((_, hash)) => *hash,
            None => {
                let hash = put.capability.hash();
                self.capability = Some((put.capability, hash));
                hash
            }
        };
        // Looked through here, on the connection's own time, not at the desk where everybody waits.
        Some(Order::Put(PutOrder {
            outbox: self.outbox.clone(),
            id: put.id,
            mailbox: put.mailbox,
            capability,
            ttl_seconds: put.ttl_seconds,
            content: known::content(envelope.as_bytes()),
            envelope,
            sought: None,
        }))
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
