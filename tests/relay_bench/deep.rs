//! One mailbox in which very much waits: what it costs to put into it, and to take from its front with as much put as is taken, so
//! that it stays as full as it was. Also what so much waiting takes of memory and disk, and of a start.

use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use rand_core::OsRng;
use tokio::time::sleep;
use wire::limits::CAPABILITY_ENVELOPES_MAX;
use wire::mailbox::MailboxKey;

use crate::crowd::REST;
use crate::line::Dialect as _;
use crate::ours::{Address, OurLine, PATIENT_TTL};
use crate::server::Server;
use crate::works::Round;

/// Who puts at the same time, each with capabilities of its own.
const SENDERS: u64 = 4;

/// On their way at once for each.
const WINDOW: u64 = 128;

/// How much of it.
#[derive(Clone, Copy)]
pub struct Deep {
    /// How many wait while the price is taken, first and then.
    pub shallow: u64,
    pub deep: u64,
    /// So many rounds at each, each of so many turns of putting and taking so many.
    pub rounds: usize,
    pub turns: usize,
    pub each: u64,
}

/// Prices at one level.
#[derive(Default)]
pub struct Prices {
    pub put: Vec<Round>,
    pub take: Vec<Round>,
}

/// What it came to.
pub struct Depth {
    pub shallow: Prices,
    pub deep: Prices,
    /// Filling it up.
    pub filled: Round,
    /// For each envelope that waits, in bytes.
    pub memory: f64,
    pub disk: f64,
    /// Until it serves again with all that waiting.
    pub start: Duration,
}

/// A fresh server is filled and measured.
pub async fn deep(server: &mut Server, work: Deep) -> Result<Depth> {
    let mut mailbox = Mailbox::new(server, work.deep + work.each).await?;
    mailbox.put(server, work.shallow).await?;
    let shallow = mailbox.prices(server, work).await?;
    let (memory, disk) = (server.memory()? * 1024, server.kept()?);
    let more = work.deep - work.shallow;
    let filled = mailbox.put(server, more).await?;
    sleep(REST).await;
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / more as f64;
    let (memory, disk) = (each(server.memory()? * 1024, memory), each(server.kept()?, disk));
    let deep = mailbox.prices(server, work).await?;
    let start = server.again()?;
    // It answers, and knows what waits.
    let waits = OurLine::log_in(&server.door, &mailbox.key)
        .await?
        .read_mailbox()
        .await?;
    ensure!(waits + work.each > work.deep, "only {waits} wait after the start");
    Ok(Depth {
        shallow,
        deep,
        filled,
        memory,
        disk,
        start,
    })
}

struct Mailbox {
    key: MailboxKey,
    senders: Vec<Sender>,
}

/// Puts under one capability after the other, in a ring: when it comes round, what the first held was taken.
struct Sender {
    line: OurLine,
    ring: Vec<Address>,
    said: u64,
}

impl Mailbox {
    /// With room for so many.
    async fn new(server: &Server, room: u64) -> Result<Self> {
        let key = MailboxKey::generate(&mut OsRng);
        let mut owner = OurLine::log_in(&server.door, &key).await?;
        // One more each, which fills up while another empties.
        let capabilities = room.div_ceil(SENDERS * u64::from(CAPABILITY_ENVELOPES_MAX)) + 1;
        let mut senders = Vec::new();
        for _ in 0..SENDERS {
            let mut ring = Vec::new();
            for _ in 0..capabilities {
                ring.push(owner.allow(&key).await?);
            }
            senders.push(Sender {
                line: OurLine::log_in(&server.door, &MailboxKey::generate(&mut OsRng)).await?,
                ring,
                said: 0,
            });
        }
        Ok(Self { key, senders })
    }

    /// Puts so many, until all are stored.
    async fn put(&mut self, server: &Server, count: u64) -> Result<Round> {
        let (cpu, began) = (server.spent()?, Instant::now());
        // What doesn't divide is the first's.
        let shares = (0..).map(|at: u64| count / SENDERS + if at == 0 { count % SENDERS } else { 0 });
        let puts = self
            .senders
            .iter_mut()
            .zip(shares)
            .map(|(sender, share)| sender.put(share));
        try_join_all(puts).await?;
        Ok(Round {
            messages: count,
            cpu: server.spent()? - cpu,
            wall: began.elapsed(),
            times: Vec::new(),
        })
    }

    /// Puts and takes in turn, the reader attached all the while.
    async fn prices(&mut self, server: &Server, work: Deep) -> Result<Prices> {
        let mut reader = OurLine::log_in(&server.door, &self.key).await?;
        reader.dialect.holds = true;
        reader.read_mailbox().await?;
        // The first of what waits; the sequence before it counts as acknowledged.
        reader.heard().await?;
        let (mut prices, mut due) = (Prices::default(), work.each);
        for _ in 0..work.rounds {
            let (mut put, mut took) = (Round::default(), Round::default());
            for _ in 0..work.turns {
                put.add(self.put(server, due).await?);
                let taken = take(server, &mut reader, work.each).await?;
                due = taken.messages;
                took.add(taken);
            }
            prices.put.push(put);
            prices.take.push(took);
        }
        Ok(prices)
    }
}

impl Sender {
    async fn put(&mut self, count: u64) -> Result<()> {
        let (mut stored, end) = (0, self.said + count);
        let began = self.said;
        poll_fn(|context| {
            while stored < count {
                while self.said < end && self.said - began - stored < WINDOW {
                    let each = u64::from(CAPABILITY_ENVELOPES_MAX);
                    if self.said.is_multiple_of(each) {
                        let next = usize::try_from(self.said / each).unwrap_or_default() % self.ring.len();
                        self.line.dialect.aim_for(&self.ring[next], PATIENT_TTL);
                    }
                    self.line.say();
                    self.said += 1;
                }
                let _ = self.line.poll_flush(context)?;
                stored += ready!(self.line.poll_hear(context))?.stored;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}

/// Takes so many from the front, or a few more: delivered and acknowledged. What comes beyond stays unacknowledged until the next time.
async fn take(server: &Server, reader: &mut OurLine, count: u64) -> Result<Round> {
    let (cpu, began) = (server.spent()?, Instant::now());
    let before = reader.dialect.sequence;
    reader.dialect.holds = false;
    reader.dialect.acknowledge(&mut reader.out);
    while reader.dialect.sequence < before + count {
        reader.heard().await?;
    }
    reader.dialect.holds = true;
    reader.flush().await?;
    Ok(Round {
        messages: reader.dialect.sequence - before,
        cpu: server.spent()? - cpu,
        wall: began.elapsed(),
        times: Vec::new(),
    })
}
