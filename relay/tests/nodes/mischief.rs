//! Random mischief while three nodes carry traffic: nodes are killed and frozen, PostgreSQL crashes, NATS is wiped, the wire
//! to the database goes dead. Nothing may be lost, doubled or out of order, and everybody goes on within 30 seconds.
//!
//! The seed is printed; `COUNTERSIGN_NODE_SEED` repeats it and `COUNTERSIGN_NODE_ROUNDS` says how many rounds there are.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::{Client, put};
use crate::servers::{Nats, Node, Postgres, url};

const MAILBOXES: u8 = 3;
const SENDERS: u8 = 2;

/// Within this everybody has to be served again.
const RECOVERY: Duration = Duration::from_secs(30);

/// What everybody has to get done after each mischief.
const PROGRESS: u64 = 5;

/// SplitMix64: enough for mischief.
pub(crate) struct Dice(u64);

impl Dice {
    /// From the seed in the environment, or a new one; says which.
    pub(crate) fn thrown() -> Self {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let seed = std::env::var("COUNTERSIGN_NODE_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(u64::try_from(now.as_nanos() % 1_000_000_007).unwrap());
        eprintln!("seed {seed}");
        Self(seed)
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// A wire to the database that can go dead: nothing passes and nobody is told.
pub(crate) struct Wire {
    pub(crate) port: u16,
    dead: watch::Sender<bool>,
    _task: JoinSet<()>,
}

impl Wire {
    /// From any port of this address to that port of this machine.
    pub(crate) async fn lay(at: Ipv4Addr, to: u16) -> Self {
        let listener = TcpListener::bind((at, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (dead, state) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                while passing.try_join_next().is_some() {}
                let state = state.clone();
                passing.spawn(async move {
                    let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else {
                        return;
                    };
                    near.set_nodelay(true).ok();
                    far.set_nodelay(true).ok();
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    tokio::select! {
                        () = pass(near_read, far_write, state.clone()) => {}
                        () = pass(far_read, near_write, state) => {}
                    }
                });
            }
        });
        Self {
            port,
            dead,
            _task: task,
        }
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut dead: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut bytes).await {
        if dead.wait_for(|dead| !dead).await.is_err() || count == 0 || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// What everybody has got done so far.
struct Tally {
    sent: [[AtomicU64; SENDERS as usize]; MAILBOXES as usize],
    read: [AtomicU64; MAILBOXES as usize],
    enough: AtomicBool,
    /// How many each sender sent in the end, to be read.
    total: [AtomicU64; MAILBOXES as usize],
    /// The nodes that there are by now.
    addresses: Mutex<Vec<SocketAddr>>,
}

impl Tally {
    /// Any of the nodes.
    fn node(&self, dice: &mut Dice) -> SocketAddr {
        let addresses = self.addresses.lock().unwrap();
        addresses[usize::try_from(dice.roll(addresses.len() as u64)).unwrap()]
    }

    fn everybody(&self) -> Vec<u64> {
        let sent = self.sent.iter().flatten();
        sent.chain(&self.read)
            .map(|count| count.load(Ordering::Relaxed))
            .collect()
    }
}

/// Sends one envelope after the other, each until it is stored, under the same id to whichever node is there.
async fn send(tally: Arc<Tally>, mailbox: u8, sender: u8, mut dice: Dice) {
    let sent = &tally.sent[usize::from(mailbox)][usize::from(sender)];
    let mut client = None;
    while !tally.enough.load(Ordering::Relaxed) {
        let count = sent.load(Ordering::Relaxed);
        let mut id = [mailbox + 1; 16];
        id[1] = sender;
        id[8..].copy_from_slice(&count.to_be_bytes());
        let words = [&[sender][..], &count.to_be_bytes()].concat();
        loop {
            if client.is_none() {
                let node = tally.node(&mut dice);
                client = Client::login(node, 100 + mailbox * SENDERS + sender).await.ok();
                client = client.map(|client| client.patient(Duration::from_secs(5)));
            }
            let Some(mut connected) = client.take() else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            match connected.put(put(mailbox + 1, id, &words)).await {
                Ok(Ok(())) => {
                    client = Some(connected);
                    break;
                }
                // Not now; perhaps another node.
                Ok(Err(reason)) => {
                    assert!(matches!(reason.code(), 2 | 5 | 7), "{reason:?}");
                    sleep(Duration::from_millis(50)).await;
                }
                Err(_) => {}
            }
        }
        sent.fetch_add(1, Ordering::Relaxed);
        if dice.roll(50) == 0 {
            client = None;
        }
    }
    tally.total[usize::from(mailbox)].fetch_add(sent.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Reads on one node, then on another, and keeps what it had by its number. Acknowledges only what it has.
async fn read(tally: Arc<Tally>, mailbox: u8, mut dice: Dice, done: watch::Receiver<bool>) -> BTreeMap<u64, Vec<u8>> {
    let mut inbox = BTreeMap::new();
    let mut older = Vec::new();
    loop {
        let total = tally.total[usize::from(mailbox)].load(Ordering::Relaxed);
        if *done.borrow() && inbox.len() as u64 >= total {
            return inbox;
        }
        let node = tally.node(&mut dice);
        let Ok(client) = Client::login(node, mailbox + 1).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut client = client.patient(Duration::from_secs(3));
        if client.read().await.is_err() {
            continue;
        }
        for _ in 0..20 + dice.roll(200) {
            let Ok((sequence, bytes)) = client.delivery().await else {
                break;
            };
            let words = bytes[..9].to_vec();
            if let Some(known) = inbox.insert(sequence, words.clone()) {
                assert_eq!(known, words, "number {sequence} was given out twice");
            }
            tally.read[usize::from(mailbox)].store(inbox.len() as u64, Ordering::Relaxed);
            if dice.roll(3) == 0 && client.ack(sequence).await.is_err() {
                break;
            }
        }
        // Sometimes the older connection stays, to be displaced.
        older.clear();
        if dice.roll(2) == 0 {
            older.push(client);
        }
    }
}

pub(crate) fn rounds() -> u64 {
    let given = std::env::var("COUNTERSIGN_NODE_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok());
    given.unwrap_or(if std::env::var_os("CI").is_some() { 50 } else { 5 })
}

/// Abuse cases A18, H11 and H12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_dies_nothing_is_lost_doubled_or_out_of_order() {
    let mut dice = Dice::thrown();

    let (mut postgres, mut nats) = (Postgres::start(), Nats::start());
    let wire = Wire::lay(Ipv4Addr::LOCALHOST, postgres.port()).await;
    let node = |port: u16| Node::start(url(port), &["--bus", &nats.url()]);
    let mut nodes = [node(wire.port), node(postgres.port()), node(postgres.port())];
    let traffic = Traffic::begin(nodes.iter().map(Node::address).collect(), &mut dice).await;
    traffic.goes_on("nothing").await;
    for round in 0..rounds() {
        let victim = usize::try_from(dice.roll(3)).unwrap();
        let pause = Duration::from_millis(dice.roll(2500));
        let mischief = match dice.roll(6) {
            0 => {
                nodes[victim].kill();
                sleep(pause).await;
                nodes[victim].resume();
                "a node killed"
            }
            1 => {
                nodes[victim].freeze();
                sleep(pause * 4).await;
                nodes[victim].thaw();
                "a node frozen"
            }
            2 => {
                postgres.crash();
                sleep(pause).await;
                postgres.resume();
                "postgres crashed"
            }
            3 => {
                nats.crash();
                sleep(pause).await;
                nats.resume();
                "nats wiped"
            }
            4 => {
                wire.dead.send(true).unwrap();
                sleep(pause * 4).await;
                wire.dead.send(false).unwrap();
                "the wire dead"
            }
            _ => {
                nats.crash();
                postgres.crash();
                nodes[victim].kill();
                sleep(pause).await;
                postgres.resume();
                nodes[victim].resume();
                nats.resume();
                "everything at once"
            }
        };
        let took = traffic.goes_on(mischief).await;
        eprintln!("round {round}: {mischief} for {pause:?}, all go on after {took:?}");
    }

    traffic.end().await;
}

/// Senders and readers of all mailboxes, at work until they are told to end.
pub(crate) struct Traffic {
    tally: Arc<Tally>,
    done: watch::Sender<bool>,
    senders: JoinSet<()>,
    readers: JoinSet<(u8, BTreeMap<u64, Vec<u8>>)>,
}

impl Traffic {
    pub(crate) async fn begin(nodes: Vec<SocketAddr>, dice: &mut Dice) -> Self {
        for mailbox in 0..MAILBOXES {
            let mut owner = Client::login(nodes[1], mailbox + 1).await.unwrap();
            owner.allow(mailbox + 1, 10_000).await.unwrap();
        }
        let tally = Arc::new(Tally {
            sent: Default::default(),
            read: Default::default(),
            enough: AtomicBool::new(false),
            total: Default::default(),
            addresses: Mutex::new(nodes),
        });
        let (done, is_done) = watch::channel(false);
        let (mut senders, mut readers) = (JoinSet::new(), JoinSet::new());
        for mailbox in 0..MAILBOXES {
            for sender in 0..SENDERS {
                senders.spawn(send(Arc::clone(&tally), mailbox, sender, Dice(dice.roll(u64::MAX))));
            }
            let reader = read(Arc::clone(&tally), mailbox, Dice(dice.roll(u64::MAX)), is_done.clone());
            readers.spawn(async move { (mailbox, reader.await) });
        }
        Self {
            tally,
            done,
            senders,
            readers,
        }
    }

    /// One more node to go to.
    pub(crate) fn add(&self, node: SocketAddr) {
        self.tally.addresses.lock().unwrap().push(node);
    }

    /// Waits until everybody has got something done since; says how long that took.
    pub(crate) async fn goes_on(&self, after: &str) -> Duration {
        go_on(&self.tally, after).await
    }

    /// Lets everybody finish, and holds what was read against what was sent.
    pub(crate) async fn end(self) {
        let Self {
            tally,
            done,
            mut senders,
            mut readers,
        } = self;
        tally.enough.store(true, Ordering::Relaxed);
        let ended = timeout(RECOVERY, async {
            while senders.join_next().await.is_some_and(|ended| ended.is_ok()) {}
        });
        ended.await.expect("a sender hangs");
        done.send(true).unwrap();
        let ended = timeout(RECOVERY * 2, async {
            while let Some(reader) = readers.join_next().await {
                let (mailbox, inbox) = reader.unwrap();
                judge(&inbox, &tally.sent[usize::from(mailbox)]);
            }
        });
        ended.await.expect("a reader doesn't get everything");
    }
}

/// Waits until everybody has got something done since; says how long that took.
async fn go_on(tally: &Tally, after: &str) -> Duration {
    let (before, since) = (tally.everybody(), Instant::now());
    while !tally
        .everybody()
        .iter()
        .zip(&before)
        .all(|(now, then)| *now >= then + PROGRESS)
    {
        let (now, then) = (tally.everybody(), &before);
        assert!(
            since.elapsed() < RECOVERY,
            "after {after} not everybody goes on: {then:?} {now:?}"
        );
        sleep(Duration::from_millis(20)).await;
    }
    since.elapsed()
}

/// Each envelope of each sender once, and each sender's in the order in which it sent them.
fn judge(inbox: &BTreeMap<u64, Vec<u8>>, sent: &[AtomicU64]) {
    let mut next = vec![0; sent.len()];
    for (sequence, words) in inbox {
        let (sender, count) = words.split_first().unwrap();
        let count = u64::from_be_bytes(count.try_into().unwrap());
        let expected = &mut next[usize::from(*sender)];
        assert_eq!(count, *expected, "number {sequence}: sender {sender}");
        *expected += 1;
    }
    let sent: Vec<_> = sent.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    assert_eq!(next, sent);
}
