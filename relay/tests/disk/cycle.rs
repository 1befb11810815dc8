//! One full cycle of a relay's life, what it promised in it, and whether it keeps its promises when it is started again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wire::frame::{ClientFrame, Done, Put, Reason, RelayFrame, Stored};

use crate::client::{Client, Lost, capability, put};
use crate::program::{Ending, Program};

const OWNER: u8 = 1;
const SENDER: u8 = 2;

/// An answer that doesn't come within this, from a relay that lives, is a relay that hangs.
const PATIENCE: Duration = Duration::from_secs(8);

/// What a relay was asked for and what it said to that.
#[derive(Debug, Default)]
pub(crate) struct Promised {
    pub(crate) allowed: bool,
    /// What was put, in this order.
    put: Vec<u8>,
    pub(crate) stored: BTreeMap<u8, Stored>,
    /// What was delivered, by its number.
    delivered: BTreeMap<u64, u8>,
    /// Up to where it was acknowledged, perhaps without anybody hearing.
    acknowledged: u64,
    /// Up to where the relay has certainly heard it.
    deleted: u64,
    pub(crate) refused: usize,
}

fn envelope(id: u8) -> Put {
    put(OWNER, [id; 16], &[id, id ^ 0xff])
}

impl Promised {
    /// Everything once: allow, put to nobody, read, acknowledge, put to a reader. Whether it came to its end; if not, the relay
    /// has hung up.
    pub(crate) async fn cycle(&mut self, address: SocketAddr) -> bool {
        let begun = Instant::now();
        let whole = self.go_through(address).await.is_ok();
        assert!(begun.elapsed() < PATIENCE, "the relay hangs");
        whole
    }

    async fn go_through(&mut self, address: SocketAddr) -> Result<(), Lost> {
        let mut owner = Client::login(address, OWNER).await?.patient(PATIENCE);
        let mut sender = Client::login(address, SENDER).await?.patient(PATIENCE);
        self.allow(&mut owner).await?;
        self.puts(&mut sender, &[1, 2]).await?;
        self.puts(&mut sender, &[3, 4]).await?;
        owner.send(ClientFrame::Read).await?;
        let RelayFrame::Reading { waiting, .. } = self.hear(&mut owner).await? else {
            return Err(Lost);
        };
        for _ in 0..waiting {
            self.hear(&mut owner).await?;
        }
        if let Some((second, _)) = self.delivered.iter().nth(1) {
            self.acknowledge(&mut owner, *second).await?;
        }
        for id in [5, 6] {
            self.puts(&mut sender, &[id]).await?;
            while self.stored.contains_key(&id) && !self.delivered.values().any(|known| *known == id) {
                self.hear(&mut owner).await?;
            }
        }
        let fifth = self.delivered.iter().find(|(_, id)| **id == 5);
        if let Some((fifth, _)) = fifth {
            self.acknowledge(&mut owner, *fifth).await?;
        }
        Ok(())
    }

    async fn allow(&mut self, owner: &mut Client) -> Result<(), Lost> {
        owner
            .send(ClientFrame::Allow {
                capability: capability(OWNER).hash(),
                max_envelopes: 1000,
                max_bytes: 1 << 26,
            })
            .await?;
        match self.hear(owner).await? {
            RelayFrame::Done(Done::Allow(_)) => self.allowed = true,
            _ => return Err(Lost),
        }
        Ok(())
    }

    /// Puts these at once and waits for an answer to each.
    async fn puts(&mut self, sender: &mut Client, ids: &[u8]) -> Result<(), Lost> {
        for id in ids {
            self.put.push(*id);
            sender.send(ClientFrame::Put(envelope(*id))).await?;
        }
        for _ in ids {
            match sender.next().await? {
                RelayFrame::Stored { id, how } => {
                    self.stored.insert(id[0], how);
                }
                RelayFrame::Refused { reason, .. } => {
                    assert_eq!(reason, Reason::NotStored);
                    self.refused += 1;
                }
                _ => return Err(Lost),
            }
        }
        Ok(())
    }

    /// Acknowledges, and waits until that has been seen to.
    async fn acknowledge(&mut self, owner: &mut Client, sequence: u64) -> Result<(), Lost> {
        self.acknowledged = self.acknowledged.max(sequence);
        owner.ack(sequence).await?;
        let capability = capability(0xee).hash();
        owner.send(ClientFrame::Revoke { capability }).await?;
        while !matches!(self.hear(owner).await?, RelayFrame::Done(_)) {}
        self.deleted = self.deleted.max(sequence);
        Ok(())
    }

    /// The next frame for the owner. What it delivers must be what was put, under a number of its own, in order.
    async fn hear(&mut self, owner: &mut Client) -> Result<RelayFrame, Lost> {
        let frame = owner.next().await?;
        if let RelayFrame::Deliver { sequence, envelope, .. } = &frame {
            let id = envelope.as_bytes()[0];
            assert_eq!(*envelope.as_bytes(), self::envelope(id).envelope, "not what was put");
            if let Some(known) = self.delivered.insert(*sequence, id) {
                assert_eq!(known, id, "number {sequence} was given out twice");
            }
            let mut numbers = self.delivered.iter().filter(|(_, known)| **known == id);
            assert_eq!(numbers.next(), Some((sequence, &id)), "{id} has two numbers");
            assert_eq!(numbers.next(), None, "{id} has two numbers");
            let order = |id: &u8| self.put.iter().position(|put| put == id).expect("it was put");
            assert!(
                self.delivered.values().map(order).is_sorted(),
                "out of order: {:?}",
                self.delivered
            );
        }
        Ok(frame)
    }

    /// What must still be there, and what may.
    fn must_wait(&self, id: u8) -> bool {
        self.stored.contains_key(&id) && self.number(id).is_none_or(|number| number > self.acknowledged)
    }

    fn number(&self, id: u8) -> Option<u64> {
        let mut numbers = self.delivered.iter();
        numbers.find(|(_, known)| **known == id).map(|(number, _)| *number)
    }

    /// Starts the relay again, on a disk that is well, and holds it to everything. Says how it refused if it did, which it may
    /// only if it never promised anything.
    pub(crate) async fn holds(mut self, store: &Path) -> Option<Ending> {
        let program = Program::start(store, &[]);
        let Some(address) = program.address() else {
            let ending = program.end();
            assert!(ending.is_refusal(), "{}", ending.words);
            let nothing = !self.allowed && self.stored.is_empty();
            assert!(nothing, "{self:?}, and then: {}", ending.words);
            return Some(ending);
        };
        self.reckon(address).await.expect("the relay answers");
        program.signal(Signal::TERM);
        let ending = program.end();
        assert!(ending.is_well(), "{}", ending.words);
        None
    }

    async fn reckon(&mut self, address: SocketAddr) -> Result<(), Lost> {
        let mut owner = Client::login(address, OWNER).await?;
        let mut sender = Client::login(address, SENDER).await?;
        owner.send(ClientFrame::Read).await?;
        let RelayFrame::Reading { next_sequence, waiting } = owner.next().await? else {
            return Err(Lost);
        };
        let mut now = Vec::new();
        for _ in 0..waiting {
            match self.hear(&mut owner).await? {
                RelayFrame::Deliver { sequence, envelope, .. } => now.push((sequence, envelope.as_bytes()[0])),
                other => panic!("{other:?}"),
            }
        }
        assert!(
            self.delivered.keys().all(|number| *number < next_sequence),
            "{next_sequence} comes next, after {:?}",
            self.delivered
        );
        for (id, how) in self.stored.clone() {
            assert!(
                !self.must_wait(id) || now.iter().any(|(_, here)| *here == id),
                "{id} was stored ({how:?}) and is gone: {self:?}, now {now:?}"
            );
        }
        for (number, id) in &now {
            assert!(*number > self.deleted, "{id} was acknowledged and is back: {self:?}");
        }
        if !self.allowed {
            self.allow(&mut owner).await?;
        }
        // Every put is repeated, as by a sender who heard nothing; none counts twice.
        for id in self.put.clone() {
            sender.send(ClientFrame::Put(envelope(id))).await?;
            let answer = sender.next().await?;
            assert!(matches!(answer, RelayFrame::Stored { .. }), "{id}: {answer:?}");
            if self.stored.get(&id) == Some(&Stored::Flushed) {
                let mut other = envelope(id);
                other.envelope = vec![0; 1024].into();
                sender.send(ClientFrame::Put(other)).await?;
                let answer = sender.next().await?;
                let is_known = matches!(
                    answer,
                    RelayFrame::Refused {
                        reason: Reason::IdUsed,
                        ..
                    }
                );
                assert!(is_known, "{id} is forgotten: {answer:?}");
            }
        }
        // New ones are taken as ever, behind everything else. What was new to the relay in the repeats comes first.
        let repeats: Vec<u8> = self.put.clone();
        self.put
            .extend(repeats.iter().filter(|id| !self.stored.contains_key(id)));
        for id in [100, 101] {
            self.puts(&mut sender, &[id]).await?;
            assert!(self.stored.contains_key(&id), "{id} isn't stored");
        }
        let mut came = Vec::new();
        loop {
            match owner.next().await? {
                RelayFrame::Deliver { sequence, envelope, .. } => {
                    let id = envelope.as_bytes()[0];
                    assert!(sequence >= next_sequence, "{id} has the old number {sequence}");
                    assert!(!came.contains(&id), "{id} came twice");
                    let known = self.stored.get(&id) == Some(&Stored::Flushed) && id < 100;
                    assert!(!known && now.iter().all(|(_, here)| *here != id), "{id} came again");
                    came.push(id);
                    if id == 101 {
                        break;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(came.ends_with(&[100, 101]), "{came:?}");
        owner.ack(u64::MAX).await?;
        let capability = capability(0xee).hash();
        owner.send(ClientFrame::Revoke { capability }).await?;
        while !matches!(owner.next().await?, RelayFrame::Done(_)) {}
        owner.send(ClientFrame::Read).await?;
        match owner.next().await? {
            RelayFrame::Reading { waiting, .. } => assert_eq!(waiting, 0),
            other => panic!("{other:?}"),
        }
        Ok(())
    }
}
