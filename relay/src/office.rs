//! The one task that owns every mailbox: it takes orders from connections, decides at its desk, and has a batch written
//! whenever the last one is done (group commit: what gathered meanwhile goes into the next).
//!
//! The decisions are deliberately not here (see `desk`), nor is SQL (see `store`).

use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use wire::envelope::Envelope;
use wire::frame::PutId;
use wire::mailbox::CapabilityHash;

use crate::addresses::Visitor;
use crate::clerks::{Clerks, Report};
use crate::desk::{Bounds, Desk};
use crate::metrics::measure;
use crate::outbox::Outbox;
use crate::store::{BatchError, Store, StoreError};
use crate::{Clock, health::Health};

/// Orders queued: a bound on the envelopes that wait to be looked at. Connections wait for room.
pub(crate) const ORDERS: usize = 256;

/// How often expired envelopes are swept, and a failing disk is tried again.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How long a reader who is there has to acknowledge an envelope before it is written after all, and twice that at most:
/// what is acknowledged first needs no place on the disk.
const LINGER: Duration = Duration::from_millis(1);

/// For how many times that the memory of acknowledged puts alone may wait. A kill may take it (`PROTOCOL.md`, section 5).
const LINGERS: u32 = 20;

/// A put that passed every check that needs no mailbox.
pub(crate) struct PutOrder {
    pub(crate) outbox: Outbox,
    pub(crate) id: PutId,
    pub(crate) mailbox: [u8; 32],
    pub(crate) capability: CapabilityHash,
    pub(crate) ttl_seconds: u32,
    pub(crate) envelope: Envelope,
    /// SHA-256 of the envelope.
    pub(crate) digest: [u8; 32],
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
    Put(Box<PutOrder>),
    Owner {
        mailbox: [u8; 32],
        connection: u64,
        outbox: Outbox,
        order: OwnerOrder,
    },
}

/// The door to the office: cheap to clone.
#[derive(Clone)]
pub(crate) struct Counter {
    orders: mpsc::Sender<Order>,
}

impl Counter {
    /// The door to whoever takes the orders.
    pub(crate) fn new(orders: mpsc::Sender<Order>) -> Self {
        Self { orders }
    }

    /// Hands in an order, waiting for room.
    pub(crate) async fn order(&self, order: Order) -> Result<(), OfficeClosed> {
        self.orders.send(order).await.map_err(|_| OfficeClosed)
    }

    /// Hands in an order, or gives it back if there is no room.
    pub(crate) fn try_order(&self, order: Order) -> Result<Option<Order>, OfficeClosed> {
        match self.orders.try_send(order) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(order)) => Ok(Some(order)),
            Err(TrySendError::Closed(_)) => Err(OfficeClosed),
        }
    }
}

/// The office has closed: the relay is stopping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfficeClosed;

/// The office, ready to run.
pub(crate) struct Office {
    desk: Desk,
    clerks: Clerks,
    orders: mpsc::Receiver<Order>,
    health: Health,
    /// A batch is being written, since when.
    writing: Option<Instant>,
    /// How many times was waited for the batch that gathers, and whether that was enough.
    lingers: Option<u32>,
    due: bool,
}

impl Office {
    /// Reads the store and opens the counter.
    pub(crate) async fn open(
        mut store: Store,
        bounds: Bounds,
        clock: Clock,
        health: Health,
    ) -> Result<(Self, Counter), StoreError> {
        let mut desk = Desk::new(bounds, clock, health.clone());
        store.reader.load(|record| desk.load(record)).await?;
        let (sender, orders) = mpsc::channel(ORDERS);
        let office = Self {
            desk,
            clerks: Clerks::hire(store),
            orders,
            health,
            writing: None,
            lingers: None,
            due: false,
        };
        Ok((office, Counter::new(sender)))
    }

    /// Works until told to finish, then writes what is left and closes the store.
    pub(crate) async fn run(mut self, mut finish: oneshot::Receiver<()>) -> Result<(), StoreError> {
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut linger = interval(LINGER);
        linger.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut orders = Vec::with_capacity(ORDERS);
        loop {
            tokio::select! {
                _ = &mut finish => break,
                count = self.orders.recv_many(&mut orders, ORDERS), if self.writing.is_none() || self.desk.has_room() => {
                    if count == 0 {
                        break;
                    }
                    for order in orders.drain(..) {
                        self.desk.take(order);
                    }
                }
                report = self.clerks.reports.recv() => self.hear(report)?,
                _ = sweep.tick() => {
                    self.health.beat();
                    self.desk.sweep();
                }
                _ = linger.tick(), if self.lingers.is_some() => self.linger(),
            }
            self.send_questions();
            if self.due || self.desk.is_urgent() {
                self.write();
            } else if self.lingers.is_none() && self.desk.gathers() {
                self.lingers = Some(0);
                linger.reset();
            }
            self.desk.report();
            self.health.metrics.queued.set(measure(self.orders.len()));
        }
        self.finish().await
    }

    fn hear(&mut self, report: Option<Report>) -> Result<(), StoreError> {
        match report {
            None => return Err(StoreError::Stopped),
            Some(Report::Unreadable(source)) => return Err(StoreError::Unknown { source }),
            Some(Report::Written(batch, outcome)) => {
                if let Some(since) = self.writing.take() {
                    self.health.metrics.flush_seconds.observe(since.elapsed().as_secs_f64());
                    self.health.metrics.group_puts.observe(batch.puts.len() as f64);
                }
                match outcome {
                    Ok(()) => {
                        self.health.set(true);
                        self.desk.written(*batch);
                    }
                    Err(BatchError::Refused(error)) => {
                        tracing::error!(%error, "the store takes nothing; envelopes are refused until it does");
                        self.health.set(false);
                        self.desk.refused(*batch);
                    }
                    Err(BatchError::Unknown(source)) => {
                        self.health.set(false);
                        self.desk.refuse_all();
                        return Err(StoreError::Unknown { source });
                    }
                }
            }
            Some(Report::Bodies {
                mailbox,
                connection,
                asked,
                found,
            }) => self.desk.bodies(&mailbox, connection, &asked, found),
            Some(Report::Put { order, known }) => self.desk.put(order, Some(known)),
            Some(Report::Expired { now, puts }) => self.desk.expired(now, puts),
        }
        Ok(())
    }

    fn send_questions(&mut self) {
        for question in self.desk.questions.drain(..) {
            // A clerk that is gone is noticed by its reports.
            self.clerks.questions.send(question).ok();
        }
    }

    fn linger(&mut self) {
        let lingers = self.lingers.map_or(0, |lingers| lingers + 1);
        self.due |= self.desk.is_overdue() || lingers >= LINGERS;
        self.lingers = Some(lingers);
    }

    fn write(&mut self) {
        if self.writing.is_some() {
            return;
        }
        (self.lingers, self.due) = (None, false);
        if let Some(batch) = self.desk.next_batch() {
            self.writing = self.clerks.batches.try_send(batch).is_ok().then(Instant::now);
        }
    }

    async fn finish(mut self) -> Result<(), StoreError> {
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            self.desk.take(order);
        }
        self.desk.settle();
        loop {
            self.write();
            if self.writing.is_none() {
                break;
            }
            let report = self.clerks.reports.recv().await;
            self.hear(report)?;
        }
        self.desk.refuse_all();
        self.clerks.dismiss().await
    }
}
