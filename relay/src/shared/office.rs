//! The one task of a node that takes orders from connections: it gathers them into groups, has each group written in one
//! transaction, and answers when that is committed.
//!
//! It remembers nothing about mailboxes: any node may have changed them since. While the database is away puts are
//! refused; owners' requests wait, because done twice they are the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand_core::{OsRng, RngCore};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use wire::frame::{Close, PutId, Reason, RelayFrame};

mod answers;

use super::address::{BusUrl, DatabaseUrl};
use super::bus::{Bus, Names};
use super::database;
use super::fetch::{Fetched, Fetcher, Want};
use super::job::{Job, Key, PutJob};
use super::seats::{Sat, Seats};
use super::sweep::Sweeper;
use super::totals::Totals;
use super::writer::{Writer, Written};
use crate::Clock;
use crate::desk::Bounds;
use crate::health::Health;
use crate::metrics::measure;
use crate::office::{Counter, ORDERS, Order, OwnerOrder, PutOrder};
use crate::outbox::Outbox;
use crate::store::StoreError;

/// Most puts, and most of their bytes, that gather while a group is being written.
const GATHERED: usize = 4096;
const GATHERED_BYTES: usize = 64 * 1024 * 1024;

/// Most owners' requests that wait for the database; who comes on top is sent away, to come again later.
const REQUESTS: usize = 16 * 1024;

/// Most acknowledgements that wait for it, one for each mailbox; one that is lost is only given again.
const ACKS: usize = 100_000;

/// When to try again, in milliseconds: when the next group is written, or when the database may be back.
const SOON_MS: u32 = 100;
const BACK_MS: u32 = 1000;

/// How often the office beats, and asks whether a database that was away is back.
const BEAT: Duration = Duration::from_secs(1);

/// Answers with envelopes that wait to be looked at: each is up to 16 MiB.
const FETCHED: usize = 2;

/// The shortest time between polls.
const POLL_MIN: Duration = Duration::from_millis(10);

/// How long saying goodbye to the database may take.
const CLOSING: Duration = Duration::from_secs(2);

/// How often long-lived readers are noted as being there, in beats.
const SEEN: u64 = 6 * 3600;

/// The office of a node, ready to run.
pub(crate) struct Office {
    orders: mpsc::Receiver<Order>,
    seats: Seats,
    gathering: Gathering,
    /// A group is being written, since when.
    writing: Option<Instant>,
    /// The database was away the last time.
    failing: bool,
    node: i64,
    poll: Duration,
    bus: Bus,
    groups: mpsc::Sender<Vec<Job>>,
    written: mpsc::UnboundedReceiver<Written>,
    questions: mpsc::UnboundedSender<Vec<Want>>,
    fetched: mpsc::Receiver<Fetched>,
    tasks: JoinSet<()>,
    /// Left running until the last: it holds the lock that keeps copies out.
    sweeper: JoinSet<()>,
    totals: Arc<Totals>,
    health: Health,
}

/// What the next group will hold.
#[derive(Default)]
struct Gathering {
    jobs: Vec<Job>,
    puts: usize,
    bytes: usize,
    /// For each mailbox the highest.
    acks: HashMap<Key, u64>,
}

impl Office {
    /// Joins the other nodes: connects, brings the database's layout up to date and opens the counter.
    pub(crate) async fn open(
        url: &DatabaseUrl,
        bus: Option<&BusUrl>,
        poll: Duration,
        bounds: Bounds,
        clock: Clock,
        health: Health,
    ) -> Result<(Self, Counter), StoreError> {
        let options = url.options();
        let (mut connection, secret) = database::open(&options).await?;
        let shared = database::share(&mut connection).await;
        if !shared.map_err(|error| StoreError::database(&error.into()))? {
            return Err(StoreError::BeingCopied);
        }
        let names = Names::new(secret);
        let node = i64::from_be_bytes(OsRng.next_u64().to_be_bytes());
        let totals = Arc::new(Totals::default());
        let (sender, orders) = mpsc::channel(ORDERS);
        let (groups, groups_end) = mpsc::channel(1);
        let (written_start, written) = mpsc::unbounded_channel();
        let (questions, questions_end) = mpsc::unbounded_channel();
        let (fetched_start, fetched) = mpsc::channel(FETCHED);
        let sweeper = Sweeper {
            options: options.clone(),
            connection: Some(connection),
            totals: Arc::clone(&totals),
            abandoned_ms: bounds.abandoned_ms,
            clock: Arc::clone(&clock),
            health: health.clone(),
        };
        let fetcher = Fetcher {
            options: options.clone(),
            connection: None,
            clock: Arc::clone(&clock),
        };
        let writer = Writer {
            options,
            connection: None,
            node,
            bounds,
            totals: Arc::clone(&totals),
            clock,
        };
        let (mut tasks, mut sweeping) = (JoinSet::new(), JoinSet::new());
        sweeping.spawn(sweeper.run());
        tasks.spawn(fetcher.run(questions_end, fetched_start));
        tasks.spawn(writer.run(groups_end, written_start));
        let office = Self {
            orders,
            seats: Seats::new(names.clone(), health.clone()),
            gathering: Gathering::default(),
            writing: None,
            failing: false,
            node,
            poll: poll.max(POLL_MIN),
            bus: Bus::join(bus, names, node),
            groups,
            written,
            questions,
            fetched,
            tasks,
            sweeper: sweeping,
            totals,
            health,
        };
        Ok((office, Counter::Shared(sender)))
    }

    /// Works until told to finish, then writes what is left.
    pub(crate) async fn run(mut self, mut finish: oneshot::Receiver<()>) -> Result<(), StoreError> {
        let (mut beat, mut poll) = (interval(BEAT), interval(self.poll));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut orders = Vec::with_capacity(ORDERS);
        let mut beats = 0_u64;
        loop {
            tokio::select! {
                _ = &mut finish => break,
                count = self.orders.recv_many(&mut orders, ORDERS) => {
                    if count == 0 {
                        break;
                    }
                    for order in orders.drain(..) {
                        self.take(order);
                    }
                }
                written = self.written.recv() => self.hear(written.ok_or(StoreError::Stopped)?),
                fetched = self.fetched.recv() => self.give(fetched.ok_or(StoreError::Stopped)?),
                alias = self.bus.heard() => self.seats.hinted(&alias),
                _ = poll.tick() => self.seats.poll(),
                _ = beat.tick() => {
                    beats += 1;
                    self.beat(beats);
                }
            }
            self.ask();
            self.write();
        }
        self.finish().await
    }

    fn beat(&mut self, beats: u64) {
        self.health.beat();
        // Even with nothing to do it is seen that the database went away, or that it came back.
        self.questions.send(Vec::new()).ok();
        if self.failing && self.writing.is_none() {
            self.write_group();
        }
        if beats.is_multiple_of(SEEN) {
            let seen = self.seats.keys().map(|key| Job::Seen { key: *key });
            self.gathering.jobs.extend(seen);
        }
        self.report();
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Put(order) => self.put(order),
            Order::Owner {
                mailbox,
                connection,
                outbox,
                order,
            } => self.request(mailbox, connection, outbox, order),
        }
    }

    fn put(&mut self, order: PutOrder) {
        let refusal = if self.failing {
            Some((Reason::NotStored, BACK_MS))
        } else if self.gathering.puts >= GATHERED || self.gathering.bytes >= GATHERED_BYTES {
            Some((Reason::Busy, SOON_MS))
        } else {
            None
        };
        if let Some((reason, retry_after_ms)) = refusal {
            return refuse(&order.outbox, order.id, reason, retry_after_ms);
        }
        let body = order.envelope.as_bytes().clone();
        self.gathering.puts += 1;
        self.gathering.bytes += body.len();
        self.health.memory.take(body.len());
        self.gathering.jobs.push(Job::Put(PutJob {
            outbox: order.outbox,
            id: order.id,
            key: order.mailbox,
            capability: order.capability,
            ttl_seconds: order.ttl_seconds,
            content: order.content,
            body,
        }));
    }

    fn request(&mut self, key: Key, connection: u64, outbox: Outbox, order: OwnerOrder) {
        let job = match order {
            OwnerOrder::Ack { sequence } => {
                self.seats.acknowledge(&key, sequence);
                return self.gathering.acknowledge(key, sequence);
            }
            OwnerOrder::Leave => {
                let Some(generation) = self.seats.leave(&key, connection) else {
                    return;
                };
                Job::Release { key, generation }
            }
            OwnerOrder::Read => match self.seats.read(key, connection, outbox.clone()) {
                Sat::Claim => Job::Claim { key, connection },
                Sat::Already => Job::Look {
                    key,
                    outbox: outbox.clone(),
                },
            },
            OwnerOrder::Allow {
                capability,
                max_envelopes,
                max_bytes,
                visitor,
            } => Job::Allow {
                key,
                hash: capability,
                max_envelopes,
                max_bytes,
                visitor,
                outbox: outbox.clone(),
            },
            OwnerOrder::Revoke { capability } => Job::Revoke {
                key,
                hash: capability,
                outbox: outbox.clone(),
            },
            OwnerOrder::Close => Job::Close {
                key,
                outbox: outbox.clone(),
            },
        };
        if self.gathering.jobs.len() - self.gathering.puts >= REQUESTS {
            return outbox.close(Close::ShuttingDown);
        }
        self.gathering.jobs.push(job);
    }

    fn ask(&mut self) {
        if !self.seats.wants.is_empty() {
            // A task that is gone is noticed by its answers.
            self.questions.send(std::mem::take(&mut self.seats.wants)).ok();
        }
    }

    fn write(&mut self) {
        // A database that was away is asked again at every beat, not as fast as it can refuse.
        if self.writing.is_none() && !self.failing && !self.gathering.is_empty() {
            self.write_group();
        }
    }

    /// Hands over what has gathered, if only to see whether the database takes anything.
    fn write_group(&mut self) {
        let mut group = std::mem::take(&mut self.gathering);
        let acks = group.acks.into_iter();
        group
            .jobs
            .extend(acks.map(|(key, sequence)| Job::Ack { key, sequence }));
        self.writing = self.groups.try_send(group.jobs).is_ok().then(Instant::now);
    }

    fn report(&self) {
        let metrics = &self.health.metrics;
        let measure64 = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.waiting_envelopes.set(measure64(self.totals.envelopes()));
        metrics.waiting_bytes.set(measure64(self.totals.bytes()));
        metrics.mailboxes.set(measure64(self.totals.mailboxes()));
        metrics.puts_known.set(measure64(self.totals.puts()));
        metrics.unflushed.set(measure(self.gathering.puts));
        metrics.readers.set(measure(self.seats.len()));
        metrics.queued.set(measure(self.orders.len()));
    }

    async fn finish(mut self) -> Result<(), StoreError> {
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            self.take(order);
        }
        // One try: whoever isn't answered asks another node.
        while self.writing.is_some() || !self.gathering.is_empty() {
            if self.writing.is_none() {
                self.write_group();
            }
            let Some(written) = self.written.recv().await else {
                break;
            };
            let failed = written.outcome.is_err();
            self.hear(written);
            if failed {
                break;
            }
        }
        let Self {
            groups,
            questions,
            mut tasks,
            sweeper,
            fetched,
            ..
        } = self;
        drop((groups, questions, fetched));
        let closed = async { while tasks.join_next().await.is_some() {} };
        timeout(CLOSING, closed).await.ok();
        drop(sweeper);
        Ok(())
    }
}

impl Gathering {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.acks.is_empty()
    }

    fn acknowledge(&mut self, key: Key, sequence: u64) {
        if let Some(known) = self.acks.get_mut(&key) {
            *known = sequence.max(*known);
        } else if self.acks.len() < ACKS {
            self.acks.insert(key, sequence);
        }
    }
}

fn refuse(outbox: &Outbox, id: PutId, reason: Reason, retry_after_ms: u32) {
    outbox.answer(RelayFrame::Refused {
        id,
        reason,
        retry_after_ms,
    });
}
