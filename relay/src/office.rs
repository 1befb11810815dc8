//! The counter where connections hand in orders, and behind it the one task that has batches written, one whenever the last is
//! done (group commit: what gathered meanwhile goes into the next).
//!
//! The decisions are deliberately not here (see `desk`), nor is SQL (see `store`). Orders are decided on the connection's own
//! time, under the desk's lock: a task that did it for all would be one more to wake for every message.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use wire::envelope::Envelope;
use wire::frame::PutId;
use wire::mailbox::CapabilityHash;

use crate::addresses::Visitor;
use crate::clerks::{Clerks, Report};
use crate::desk::{Bounds, Desk};
use crate::known::Print;
use crate::outbox::Outbox;
use crate::store::{Batch, BatchError, Store, StoreError};
use crate::{Clock, health::Health};

/// Orders queued for a node's office: a bound on the envelopes that wait to be looked at. Connections wait for room.
pub(crate) const ORDERS: usize = 256;

/// How often expired envelopes are swept, and a failing disk is tried again.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How long an answer that can wait for others waits at most, and a reader who is there has to acknowledge an envelope before it is
/// written after all, or twice that: what is acknowledged first needs no place on the disk.
const LINGER: Duration = Duration::from_millis(4);

/// For how many times that the memory of acknowledged puts alone may wait. A kill may take it (`PROTOCOL.md`, section 5).
const LINGERS: u32 = 62;

/// A put that passed every check that needs no mailbox.
pub(crate) struct PutOrder {
    pub(crate) outbox: Outbox,
    pub(crate) id: PutId,
    pub(crate) mailbox: [u8; 32],
    pub(crate) capability: CapabilityHash,
    pub(crate) ttl_seconds: u32,
    /// Of bytes of its own: those of a frame may pin a whole read buffer.
    pub(crate) envelope: Envelope,
    /// What tells it from another envelope (see `known`).
    pub(crate) content: u64,
    /// Set at the desk: under which name it was looked for in memory, in the mailbox of which number.
    pub(crate) sought: Option<(i64, Print)>,
}

/// What the owner of a mailbox wants.
pub(crate) enum OwnerOrder {
    Read,
    Ack {
        sequence: u64,
    },
    Allow {
        capability: CapabilityHash,
        max_envelopes: u32,
        max_bytes: u64,
        /// Who is to answer for the mailbox, if this makes one.
        visitor: Visitor,
    },
    Revoke {
        capability: CapabilityHash,
    },
    Close,
    /// The connection is gone.
    Leave,
}

/// An order to the office.
pub(crate) enum Order {
    Put(PutOrder),
    Owner {
        mailbox: [u8; 32],
        connection: u64,
        outbox: Outbox,
        order: OwnerOrder,
    },
}

/// Where orders are handed in: at a desk that decides at once, or for a node's office. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Counter {
    Alone(Arc<Hatch>),
    Shared(mpsc::Sender<Order>),
}

impl Counter {
    /// Hands in these orders, or as many as there is room for; the others stay.
    pub(crate) fn hand_in(&self, orders: &mut Vec<Order>) -> Result<(), OfficeClosed> {
        match self {
            Self::Alone(hatch) => hatch.take(orders),
            Self::Shared(sender) => {
                let mut waiting = std::mem::take(orders).into_iter();
                for order in waiting.by_ref() {
                    match sender.try_send(order) {
                        Ok(()) => {}
                        Err(TrySendError::Full(order)) => {
                            orders.push(order);
                            break;
                        }
                        Err(TrySendError::Closed(_)) => return Err(OfficeClosed),
                    }
                }
                orders.extend(waiting);
                Ok(())
            }
        }
    }

    /// Hands in an order, waiting for room.
    pub(crate) async fn order(&self, order: Order) -> Result<(), OfficeClosed> {
        match self {
            Self::Alone(hatch) => hatch.take(&mut vec![order]),
            Self::Shared(sender) => sender.send(order).await.map_err(|_| OfficeClosed),
        }
    }

    /// Whether more should be read; if not, the task is woken when it should.
    pub(crate) fn has_room(&self, context: &mut Context<'_>) -> bool {
        match self {
            Self::Alone(hatch) => hatch.poll_room(context).is_ready(),
            Self::Shared(_) => true,
        }
    }
}

/// The office has closed: the relay is stopping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfficeClosed;

/// What the office knows of the batch that gathers.
const NOTHING: u8 = 0;
const GATHERS: u8 = 1;
const URGENT: u8 = 2;

/// The desk behind its lock, and what is told to the office and to connections about it.
pub(crate) struct Hatch {
    desk: Mutex<Desk>,
    /// The batch that gathers, as the office was last told.
    told: AtomicU8,
    bell: Notify,
    /// Too much isn't flushed yet.
    full: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    closed: AtomicBool,
}

impl Hatch {
    fn new(desk: Desk) -> Self {
        Self {
            desk: Mutex::new(desk),
            told: AtomicU8::new(NOTHING),
            bell: Notify::new(),
            full: AtomicBool::new(false),
            waiting: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// A desk at which somebody panicked can't be trusted any more: the relay has to end.
    fn desk(&self) -> Result<MutexGuard<'_, Desk>, OfficeClosed> {
        self.desk.lock().map_err(|_| {
            self.bell.notify_one();
            OfficeClosed
        })
    }

    fn take(&self, orders: &mut Vec<Order>) -> Result<(), OfficeClosed> {
        if self.closed.load(Ordering::Acquire) {
            return Err(OfficeClosed);
        }
        let mut desk = self.desk()?;
        desk.take(orders);
        let wakers = desk.wakers(SPARE.take());
        let state = if desk.is_urgent() {
            URGENT
        } else if desk.gathers() || desk.waits_for_a_nudge() {
            GATHERS
        } else {
            NOTHING
        };
        if !desk.has_room() {
            self.full.store(true, Ordering::Release);
        }
        drop(desk);
        wake(wakers);
        if self.told.fetch_max(state, Ordering::AcqRel) < state {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Whoever was given something while the office was at the desk is woken when it has left it.
    fn at_desk<T>(&self, what: impl FnOnce(&mut Desk) -> T) -> Result<T, OfficeClosed> {
        let mut desk = self.desk()?;
        let done = what(&mut desk);
        let wakers = desk.wakers(SPARE.take());
        drop(desk);
        wake(wakers);
        Ok(done)
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.full.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at again with the lock held: else room could be made just before, and nobody be woken.
        if !self.full.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        waiting.push(context.waker().clone());
        Poll::Pending
    }

    fn make_room(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.full.store(false, Ordering::Release);
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        for waker in woken {
            waker.wake();
        }
    }
}

thread_local! {
    /// A list for those to be woken, used again and again.
    static SPARE: Cell<Vec<Waker>> = const { Cell::new(Vec::new()) };
}

fn wake(mut wakers: Vec<Waker>) {
    for waker in wakers.drain(..) {
        waker.wake();
    }
    SPARE.set(wakers);
}

/// The office, ready to run.
pub(crate) struct Office {
    hatch: Arc<Hatch>,
    clerks: Clerks,
    health: Health,
    /// A batch is being written, since when.
    writing: Option<Instant>,
    /// How many times was waited for the batch that gathers, and whether that was enough.
    lingers: Option<u32>,
    due: bool,
    finishing: bool,
}

impl Office {
    /// Reads the store and opens the counter.
    pub(crate) async fn open(
        mut store: Store,
        bounds: Bounds,
        clock: Clock,
        health: Health,
    ) -> Result<(Self, Counter), StoreError> {
        let (questions, questions_end) = mpsc::unbounded_channel();
        let mut desk = Desk::new(bounds, clock, health.clone(), questions);
        let mut numbers = HashMap::new();
        store.reader.load(|record| desk.load(record, &mut numbers)).await?;
        let hatch = Arc::new(Hatch::new(desk));
        let office = Self {
            hatch: Arc::clone(&hatch),
            clerks: Clerks::hire(store, questions_end),
            health,
            writing: None,
            lingers: None,
            due: false,
            finishing: false,
        };
        Ok((office, Counter::Alone(hatch)))
    }

    /// Works until told to finish, then writes what is left and closes the store.
    pub(crate) async fn run(mut self, mut finish: oneshot::Receiver<()>) -> Result<(), StoreError> {
        let hatch = Arc::clone(&self.hatch);
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut linger = interval(LINGER);
        linger.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut finish => break,
                () = hatch.bell.notified() => {}
                report = self.clerks.reports.recv() => self.hear(report).await?,
                _ = sweep.tick() => self.sweep().await?,
                _ = linger.tick(), if self.lingers.is_some() => self.linger()?,
            }
            if self.next(&hatch)? {
                linger.reset();
            }
        }
        self.finish().await
    }

    /// Has the next batch written, if it is time. Says whether a wait for it begins.
    fn next(&mut self, hatch: &Hatch) -> Result<bool, StoreError> {
        let mut desk = hatch.desk().map_err(|_| StoreError::Stopped)?;
        desk.report();
        if self.writing.is_none() && (self.due || desk.is_urgent()) {
            self.due = false;
            // The clock of those who wait goes on: batch upon batch, it would never strike.
            self.lingers = self.lingers.map(|_| 0);
            if let Some(batch) = desk.next_batch(self.finishing) {
                self.writing = self.clerks.batches.try_send(batch).is_ok().then(Instant::now);
            }
        }
        let waits = self.writing.is_some() || desk.gathers() || desk.waits_for_a_nudge();
        let begins = self.lingers.is_none() && waits;
        self.lingers = waits.then(|| self.lingers.unwrap_or(0));
        // While a batch is written nobody needs to ring for the next, and while it lingers only for what is urgent.
        let told = match (self.writing, self.lingers) {
            (Some(_), _) => URGENT,
            (None, Some(_)) => GATHERS,
            (None, None) => NOTHING,
        };
        hatch.told.store(told, Ordering::Release);
        Ok(begins)
    }

    async fn hear(&mut self, report: Option<Report>) -> Result<(), StoreError> {
        match report {
            None => Err(StoreError::Stopped),
            Some(Report::Unreadable(error)) => Err(error),
            Some(Report::Written(batch, outcome)) => self.written(*batch, outcome),
            Some(Report::Bundles {
                mailbox,
                connection,
                asked,
                found,
            }) => self.at_desk(|desk| desk.bundles(&mailbox, connection, &asked, found)),
            Some(Report::Expired { rows, more }) => self.at_desk(|desk| desk.forget(rows, more)),
        }
    }

    fn written(&mut self, batch: Batch, outcome: Result<(), BatchError>) -> Result<(), StoreError> {
        if let Some(since) = self.writing.take() {
            self.health.metrics.flush_seconds.observe(since.elapsed().as_secs_f64());
            self.health.metrics.group_puts.observe(batch.puts() as f64);
        }
        let has_room = match outcome {
            Ok(()) => {
                self.health.set(true);
                self.at_desk(|desk| {
                    desk.written(&batch);
                    desk.has_room()
                })?
            }
            Err(BatchError::Refused(error)) => {
                tracing::error!(%error, "the store takes nothing; envelopes are refused until it does");
                self.health.set(false);
                self.at_desk(|desk| {
                    desk.refused(batch);
                    desk.has_room()
                })?
            }
            Err(BatchError::Unknown(source)) => {
                self.health.set(false);
                self.at_desk(Desk::refuse_all)?;
                self.hatch.closed.store(true, Ordering::Release);
                return Err(StoreError::Unknown { source });
            }
        };
        if has_room {
            self.hatch.make_room();
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        self.health.beat();
        self.at_desk(Desk::sweep)?;
        let mut look = None;
        loop {
            look = self.at_desk(|desk| desk.expire(look))?;
            if look.is_none() {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    fn linger(&mut self) -> Result<(), StoreError> {
        let lingers = self.lingers.map_or(0, |lingers| lingers + 1);
        let overdue = self.at_desk(|desk| {
            desk.nudge();
            desk.is_overdue()
        })?;
        self.due |= self.writing.is_none() && (overdue || lingers >= LINGERS);
        self.lingers = (lingers < LINGERS || self.due).then_some(lingers);
        Ok(())
    }

    fn at_desk<T>(&self, what: impl FnOnce(&mut Desk) -> T) -> Result<T, StoreError> {
        self.hatch.at_desk(what).map_err(|_| StoreError::Stopped)
    }

    async fn finish(mut self) -> Result<(), StoreError> {
        let hatch = Arc::clone(&self.hatch);
        hatch.closed.store(true, Ordering::Release);
        self.finishing = true;
        self.at_desk(Desk::settle)?;
        loop {
            self.due = true;
            self.next(&hatch)?;
            if self.writing.is_none() {
                break;
            }
            let report = self.clerks.reports.recv().await;
            self.hear(report).await?;
        }
        self.at_desk(|desk| {
            desk.refuse_all();
            desk.dismiss();
        })?;
        self.clerks.dismiss().await
    }
}
