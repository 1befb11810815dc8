//! Keeps one mailbox connected: dials again and again, sends what it is given, reports what it hears.
//!
//! Deliberately not here: memory. Nothing given to a connection outlives it: on [`LinkEvent::Connected`] the caller says again what it
//! needs (`allow`, `read`, its outbox), because only the caller knows what is still true. PROTOCOL.md 4 and 5.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rand_core::{OsRng, RngCore};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use wire::envelope::Envelope;
use wire::frame::{ClientFrame, Close, Done, Put, PutId, Reason, RelayFrame, Stored};
use wire::limits::WINDOW_ENVELOPES;
use wire::mailbox::{Capability, CapabilityHash, MailboxId, MailboxKey};

use super::{Link, LinkError, Socket, frame, lost};

/// Frames that wait to be sent; whoever gives more waits (256 of the largest are 16 MiB).
const ORDERS: usize = 256;
/// Events that wait for the caller. Far more than envelopes in flight (64) and answers to what a caller hands over at once: a caller that is
/// busy giving orders must not stop this side from hearing the answers.
const EVENTS: usize = 16 * 1024;
/// Waiting between two attempts, at first and at most.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A connection that held this long was a good one: the next loss starts with the shortest wait.
const STABLE: Duration = Duration::from_secs(10);
/// Silence after which the relay is asked whether it is there; shorter than what middle boxes forget a connection after.
const PING_AFTER: Duration = Duration::from_secs(20);
/// Silence after that question which means that it is not.
const DEAD_AFTER: Duration = Duration::from_secs(20);
/// How long a relay may leave our frames unread.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// How long the last frames may take when the caller is finished.
const FINISH_DEADLINE: Duration = Duration::from_secs(5);

/// What happens on a link.
#[derive(Debug)]
pub enum LinkEvent {
    /// Logged in, on a new connection: nothing said on an earlier one is still in force here.
    Connected,
    /// The connection is gone, or couldn't be made. It is tried again.
    Disconnected {
        /// Why, for people.
        reason: String,
    },
    /// Another connection reads this mailbox now: a second process with the same key. The link comes back after the longest wait.
    Displaced,
    /// An envelope is safe.
    Stored {
        /// The put.
        id: PutId,
        /// Why it is safe.
        how: Stored,
    },
    /// An envelope was not taken.
    Refused {
        /// The put.
        id: PutId,
        /// Why not.
        reason: Reason,
        /// When to try again, in milliseconds; 0 if trying again changes nothing.
        retry_after_ms: u32,
    },
    /// An envelope for this mailbox. Acknowledge it when what it says is safe.
    Delivered {
        /// Its number in the mailbox.
        sequence: u64,
        /// The envelope.
        envelope: Envelope,
    },
    /// This connection reads the mailbox.
    Reading {
        /// The number of the next envelope that the relay accepts.
        next: u64,
        /// Envelopes that wait.
        waiting: u64,
    },
    /// A capability can be used.
    Allowed(CapabilityHash),
    /// A capability can't be used any more.
    Revoked(CapabilityHash),
    /// The mailbox is gone.
    MailboxClosed,
}

enum Order {
    Frame(ClientFrame),
    Finish,
}

/// Gives orders to a link. Each waits while too many are waiting to be sent, and is lost when the connection is: see [`LinkEvent::Connected`].
/// The link ends when all its handles are gone.
#[derive(Clone)]
pub struct LinkHandle {
    orders: mpsc::Sender<Order>,
}

impl LinkHandle {
    /// Puts an envelope into a mailbox. Answered by [`LinkEvent::Stored`] or [`LinkEvent::Refused`] with this id; without an answer the same
    /// envelope may be put again with the same id.
    pub async fn put(&self, id: PutId, to: &MailboxId, capability: &Capability, ttl_seconds: u32, envelope: Envelope) {
        let envelope = envelope.as_bytes().clone();
        self.say(ClientFrame::Put(Put {
            id,
            mailbox: *to.as_bytes(),
            capability: capability.clone(),
            ttl_seconds,
            envelope,
        }))
        .await;
    }

    /// Makes this connection the reader of its mailbox.
    pub async fn read(&self) {
        self.say(ClientFrame::Read).await;
    }

    /// Says that everything up to and including this number is safe: the relay deletes it.
    pub async fn ack(&self, sequence: u64) {
        self.say(ClientFrame::Ack { sequence }).await;
    }

    /// Lets whoever holds the capability put envelopes here, so many and so many bytes waiting at once. Answered by [`LinkEvent::Allowed`].
    pub async fn allow(&self, capability: CapabilityHash, max_envelopes: u32, max_bytes: u64) {
        self.say(ClientFrame::Allow {
            capability,
            max_envelopes,
            max_bytes,
        })
        .await;
    }

    /// Ends a capability. Answered by [`LinkEvent::Revoked`].
    pub async fn revoke(&self, capability: CapabilityHash) {
        self.say(ClientFrame::Revoke { capability }).await;
    }

    /// Deletes the mailbox and all that waits in it. Answered by [`LinkEvent::MailboxClosed`].
    pub async fn close_mailbox(&self) {
        self.say(ClientFrame::CloseMailbox).await;
    }

    /// Sends what was ordered before, ends the link and waits until it has ended: a few seconds at most, at once without a connection.
    pub async fn finish(&self) {
        if self.orders.send(Order::Finish).await.is_ok() {
            self.orders.closed().await;
        }
    }

    #[cfg(test)]
    pub(super) async fn orders_closed(&self) {
        self.orders.closed().await;
    }

    async fn say(&self, frame: ClientFrame) {
        // An error says that the link has ended; the receiver of its events knows.
        let _ = self.orders.send(Order::Frame(frame)).await;
    }
}

/// Starts a link in a task of its own. It ends with its handles, with the receiver, or by [`LinkHandle::finish`].
pub fn spawn(url: &str, key: MailboxKey) -> (LinkHandle, mpsc::Receiver<LinkEvent>) {
    let (sender, orders) = mpsc::channel(ORDERS);
    let (events, receiver) = mpsc::channel(EVENTS);
    let driver = Driver {
        url: url.to_owned(),
        key,
        orders,
        events,
    };
    tokio::spawn(driver.drive());
    (LinkHandle { orders: sender }, receiver)
}

struct Driver {
    url: String,
    key: MailboxKey,
    orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<LinkEvent>,
}

/// Nobody wants this link any more.
struct Finished;

/// How a connection ended.
enum End {
    Finished,
    Goodbye { retry_after: Duration },
    Failed(LinkError),
}

impl Driver {
    async fn drive(mut self) {
        // The only way out is that nobody wants it any more.
        let Err(Finished) = self.keep().await;
    }

    async fn keep(&mut self) -> Result<std::convert::Infallible, Finished> {
        let mut backoff = BACKOFF_MIN;
        loop {
            let (url, key) = (self.url.clone(), MailboxKey::from_bytes(&self.key.to_bytes()));
            let connected = self.discarding(async move { Link::connect(&url, &key).await }).await?;
            let end = match connected {
                Ok(link) => {
                    // Whatever was ordered before this event is dropped, whatever is ordered after it is for this connection.
                    self.report(LinkEvent::Connected).await?;
                    let since = Instant::now();
                    let end = self.converse(link).await;
                    if since.elapsed() >= STABLE {
                        backoff = BACKOFF_MIN;
                    }
                    end
                }
                Err(error) => End::Failed(error),
            };
            let (reason, wait) = match end {
                End::Finished => return Err(Finished),
                // Coming back at once would make two processes displace each other for ever.
                End::Failed(error @ LinkError::Closed(Close::Displaced)) => {
                    self.report(LinkEvent::Displaced).await?;
                    (error.to_string(), BACKOFF_MAX)
                }
                End::Failed(error) => {
                    let wait = backoff;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    (error.to_string(), wait)
                }
                End::Goodbye { retry_after } => (
                    Close::ShuttingDown.to_string(),
                    retry_after.clamp(BACKOFF_MIN, BACKOFF_MAX),
                ),
            };
            self.report(LinkEvent::Disconnected { reason }).await?;
            self.discarding(sleep(jitter(wait))).await?;
        }
    }

    async fn report(&mut self, event: LinkEvent) -> Result<(), Finished> {
        let events = self.events.clone();
        self.discarding(async move { events.send(event).await })
            .await?
            .map_err(|_| Finished)
    }

    /// Does something while there is no connection: what is ordered meanwhile is lost, and said again upon `Connected`.
    async fn discarding<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Finished> {
        let mut work = std::pin::pin!(work);
        let events = self.events.clone();
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Frame(_)) => {}
                    Some(Order::Finish) | None => return Err(Finished),
                },
                () = events.closed() => return Err(Finished),
                done = &mut work => return Ok(done),
            }
        }
    }

    async fn converse(&mut self, link: Link) -> End {
        let (mut sink, stream) = link.socket.split();
        let (ping, acked) = (Notify::new(), AtomicU64::new(0));
        // Whatever window the relay would like, ours is bounded.
        let window = u64::from(link.window.min(WINDOW_ENVELOPES));
        let listening = Listening {
            stream,
            events: &self.events,
            ping: &ping,
            acked: &acked,
            window,
            outstanding: BTreeSet::new(),
        };
        let mut listening = std::pin::pin!(listening.run());
        // Both directions at once: a relay that waits until we have read must not find us waiting until it has.
        let finished = tokio::select! {
            end = &mut listening => return end,
            finished = speak(&mut sink, &mut self.orders, &ping, &acked) => finished,
        };
        match finished {
            Ok(()) => {
                // It answers our goodbye after everything that came before it.
                let _ = timeout(FINISH_DEADLINE, listening).await;
                End::Finished
            }
            Err(error) => End::Failed(error),
        }
    }
}

/// Sends orders until the caller is finished.
async fn speak(
    sink: &mut SplitSink<Socket, Message>,
    orders: &mut mpsc::Receiver<Order>,
    ping: &Notify,
    acked: &AtomicU64,
) -> Result<(), LinkError> {
    loop {
        let mut next = tokio::select! {
            order = orders.recv() => order.map_or(Some(Order::Finish), Some),
            () = ping.notified() => {
                write(sink.send(Message::Ping(bytes::Bytes::new()))).await?;
                continue;
            }
        };
        // All that is ready, then one flush: a system call for a batch and not for each.
        while let Some(order) = next {
            match order {
                Order::Frame(frame) => {
                    if let ClientFrame::Ack { sequence } = frame {
                        // Before the relay can know of it, and so before it delivers more.
                        acked.fetch_max(sequence, Ordering::Relaxed);
                    }
                    write(sink.feed(Message::Binary(frame.encode()))).await?;
                }
                Order::Finish => {
                    let normal = CloseFrame {
                        code: CloseCode::Normal,
                        reason: "".into(),
                    };
                    return write(sink.send(Message::Close(Some(normal)))).await;
                }
            }
            next = orders.try_recv().ok();
        }
        write(sink.flush()).await?;
    }
}

async fn write(
    writing: impl Future<Output = Result<(), tokio_tungstenite::tungstenite::Error>>,
) -> Result<(), LinkError> {
    timeout(WRITE_DEADLINE, writing)
        .await
        .map_err(|_| LinkError::Slow("reading what we send"))?
        .map_err(lost)
}

struct Listening<'a> {
    stream: SplitStream<Socket>,
    events: &'a mpsc::Sender<LinkEvent>,
    ping: &'a Notify,
    acked: &'a AtomicU64,
    window: u64,
    /// Delivered and not acknowledged.
    outstanding: BTreeSet<u64>,
}

impl Listening<'_> {
    async fn run(mut self) -> End {
        loop {
            let step = match self.hear().await {
                Ok(Some(frame)) => self.take(frame),
                Ok(None) => continue,
                Err(error) => Err(End::Failed(error)),
            };
            match step {
                Ok(event) => {
                    if self.events.send(event).await.is_err() {
                        return End::Finished;
                    }
                }
                Err(end) => return end,
            }
        }
    }

    /// The next frame. Anything at all that comes in is a sign of life.
    async fn hear(&mut self) -> Result<Option<RelayFrame>, LinkError> {
        let message = match timeout(PING_AFTER, self.stream.next()).await {
            Ok(message) => message,
            Err(_) => {
                self.ping.notify_one();
                timeout(DEAD_AFTER, self.stream.next())
                    .await
                    .map_err(|_| LinkError::Slow("being asked whether it is there"))?
            }
        };
        frame(message)
    }

    fn take(&mut self, frame: RelayFrame) -> Result<LinkEvent, End> {
        Ok(match frame {
            RelayFrame::Stored { id, how } => LinkEvent::Stored { id, how },
            RelayFrame::Refused {
                id,
                reason,
                retry_after_ms,
            } => LinkEvent::Refused {
                id,
                reason,
                retry_after_ms,
            },
            RelayFrame::Deliver { sequence, envelope, .. } => {
                self.count(sequence).map_err(End::Failed)?;
                LinkEvent::Delivered { sequence, envelope }
            }
            RelayFrame::Reading { next_sequence, waiting } => LinkEvent::Reading {
                next: next_sequence,
                waiting,
            },
            RelayFrame::Done(Done::Allow(hash)) => LinkEvent::Allowed(hash),
            RelayFrame::Done(Done::Revoke(hash)) => LinkEvent::Revoked(hash),
            RelayFrame::Done(Done::CloseMailbox) => LinkEvent::MailboxClosed,
            // The close that follows says the same.
            RelayFrame::Displaced => return Err(End::Failed(LinkError::Closed(Close::Displaced))),
            RelayFrame::Goodbye { retry_after_ms } => {
                return Err(End::Goodbye {
                    retry_after: Duration::from_millis(retry_after_ms.into()),
                });
            }
            RelayFrame::Challenge { .. } | RelayFrame::Welcome { .. } => {
                return Err(End::Failed(LinkError::Unexpected("a second greeting")));
            }
        })
    }

    /// A relay that delivers more than its own window lets it would fill our memory.
    fn count(&mut self, sequence: u64) -> Result<(), LinkError> {
        let acked = self.acked.load(Ordering::Relaxed);
        self.outstanding.retain(|outstanding| *outstanding > acked);
        self.outstanding.insert(sequence);
        if self.outstanding.len() as u64 > self.window {
            return Err(LinkError::Unexpected("more envelopes than fit its window"));
        }
        Ok(())
    }
}

/// Between half and all of it: after a restart of the relay not everybody comes at the same moment.
fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + f64::from(OsRng.next_u32()) / f64::from(u32::MAX) / 2.0)
}
