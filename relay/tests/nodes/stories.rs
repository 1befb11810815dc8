//! What each of several nodes promises, one story each.

use std::process::Command;
use std::time::Duration;

use wire::frame::{Reason, RelayFrame};

use crate::client::{Client, put};
use crate::servers::{Nats, Node, Postgres, relay};

/// So seldom that whatever comes sooner came by a hint.
const BY_HINT: &str = "600s";

/// Two nodes of one relay, and what they stand on.
struct World {
    a: Node,
    b: Node,
    _nats: Option<Nats>,
    postgres: Postgres,
}

impl World {
    fn on_a_bus() -> Self {
        let (postgres, nats) = (Postgres::start(), Nats::start());
        let node = || Node::start(postgres.url(), &["--bus", &nats.url(), "--poll", BY_HINT]);
        let (a, b) = (node(), node());
        Self {
            a,
            b,
            _nats: Some(nats),
            postgres,
        }
    }

    fn without_a_bus() -> Self {
        let postgres = Postgres::start();
        let node = || Node::start(postgres.url(), &["--poll", "100ms"]);
        let (a, b) = (node(), node());
        Self {
            a,
            b,
            _nats: None,
            postgres,
        }
    }

    /// An owner on node a, whose mailbox 1 takes so many envelopes, and a sender on node b.
    async fn pair(&self, max_envelopes: u32) -> (Client, Client) {
        let mut owner = Client::login(self.a.address(), 1).await.unwrap();
        owner.allow(1, max_envelopes).await.unwrap();
        (owner, Client::login(self.b.address(), 2).await.unwrap())
    }
}

async fn stored(sender: &mut Client, id: u8) {
    let answer = sender.put(put(1, [id; 16], &[id])).await.unwrap();
    assert_eq!(answer, Ok(()));
}

async fn delivered(reader: &mut Client) -> (u64, u8) {
    let (sequence, bytes) = reader.delivery().await.unwrap();
    (sequence, bytes[0])
}

#[tokio::test]
async fn what_one_node_takes_another_delivers_by_a_hint() {
    let world = World::on_a_bus();
    let (mut reader, mut sender) = world.pair(100).await;
    assert_eq!(reader.read().await.unwrap(), (1, 0));
    // Until both nodes are on the bus a hint may be missed; then the next envelope brings this one too.
    let mut seen = Vec::new();
    for id in 1..100 {
        stored(&mut sender, id).await;
        let hinted = tokio::time::timeout(Duration::from_millis(500), delivered(&mut reader));
        if let Ok(first) = hinted.await {
            seen.push(first);
            break;
        }
    }
    let last = seen.first().expect("no hint arrives").1;
    for id in last + 1..last + 4 {
        stored(&mut sender, id).await;
        loop {
            let delivery = delivered(&mut reader).await;
            seen.push(delivery);
            if delivery.1 == id {
                break;
            }
        }
    }
    let order: Vec<_> = seen.iter().map(|(sequence, id)| (*sequence, u64::from(*id))).collect();
    assert!(order.iter().all(|(sequence, id)| sequence == id), "{order:?}");
    // And so does the word that somebody else reads now.
    let mut newer = Client::login(world.b.address(), 1).await.unwrap();
    newer.read().await.unwrap();
    assert_eq!(reader.next().await.unwrap(), RelayFrame::Displaced);
}

/// Abuse cases A07, A18 and H12.
#[tokio::test]
async fn without_a_bus_polling_finds_it_and_the_newest_reader_wins_on_whichever_node() {
    let world = World::without_a_bus();
    let (mut first, mut sender) = world.pair(100).await;
    first.read().await.unwrap();
    stored(&mut sender, 1).await;
    assert_eq!(delivered(&mut first).await, (1, 1));
    let mut second = Client::login(world.b.address(), 1).await.unwrap();
    assert_eq!(second.read().await.unwrap(), (2, 1));
    // Not acknowledged, so it is the newer reader's too.
    assert_eq!(delivered(&mut second).await, (1, 1));
    assert_eq!(first.next().await.unwrap(), RelayFrame::Displaced);
    second.ack(1).await.unwrap();
    second.settle().await.unwrap();
    let mut third = Client::login(world.a.address(), 1).await.unwrap();
    assert_eq!(third.read().await.unwrap(), (2, 0));
    assert_eq!(second.next().await.unwrap(), RelayFrame::Displaced);
    stored(&mut sender, 2).await;
    assert_eq!(delivered(&mut third).await, (2, 2));
}

/// Abuse cases A18 and H11.
#[tokio::test]
async fn a_put_counts_once_whichever_nodes_hear_it_and_however_they_end() {
    let mut world = World::without_a_bus();
    let (mut owner, mut sender) = world.pair(100).await;
    stored(&mut sender, 1).await;
    let mut elsewhere = Client::login(world.a.address(), 2).await.unwrap();
    stored(&mut elsewhere, 1).await;
    let other = elsewhere.put(put(1, [1; 16], b"another envelope")).await.unwrap();
    assert_eq!(other, Err(Reason::IdUsed));
    assert_eq!(owner.read().await.unwrap(), (2, 1));
    assert_eq!(delivered(&mut owner).await, (1, 1));
    owner.ack(1).await.unwrap();
    owner.settle().await.unwrap();
    world.b.kill();
    world.b.resume();
    world.postgres.crash();
    world.postgres.resume();
    let mut sender = Client::login(world.b.address(), 2).await.unwrap();
    // Away for a moment, perhaps; then it is known still, though acknowledged.
    while sender.put(put(1, [1; 16], &[1])).await.unwrap() == Err(Reason::NotStored) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(
        world
            .postgres
            .ask("SELECT count(*), max(next_sequence) FROM mailboxes")
            .unwrap(),
        "1|2"
    );
    assert_eq!(world.postgres.ask("SELECT count(*) FROM puts").unwrap(), "1");
    assert_eq!(world.postgres.ask("SELECT count(*) FROM envelopes").unwrap(), "0");
}

/// Abuse cases A16 and I06.
#[tokio::test]
async fn a_quota_and_a_revocation_hold_on_every_node() {
    let world = World::without_a_bus();
    let (mut owner, mut sender) = world.pair(2).await;
    let mut elsewhere = Client::login(world.a.address(), 2).await.unwrap();
    stored(&mut sender, 1).await;
    stored(&mut elsewhere, 2).await;
    for client in [&mut sender, &mut elsewhere] {
        let full = client.put(put(1, [3; 16], &[3])).await.unwrap();
        assert_eq!(full, Err(Reason::EnvelopeQuota));
    }
    assert_eq!(owner.read().await.unwrap(), (3, 2));
    assert_eq!(
        (delivered(&mut owner).await, delivered(&mut owner).await),
        ((1, 1), (2, 2))
    );
    // Cumulative, and from whichever node.
    let mut owner_elsewhere = Client::login(world.b.address(), 1).await.unwrap();
    owner_elsewhere.ack(1).await.unwrap();
    owner_elsewhere.settle().await.unwrap();
    stored(&mut sender, 3).await;
    owner_elsewhere.revoke(1).await.unwrap();
    for client in [&mut sender, &mut elsewhere] {
        let ended = client.put(put(1, [4; 16], &[4])).await.unwrap();
        assert_eq!(ended, Err(Reason::NotAllowed));
        // Not even what is known is told to who may not put.
        assert_eq!(
            client.put(put(1, [1; 16], &[1])).await.unwrap(),
            Err(Reason::NotAllowed)
        );
    }
    // What was put stays, and doesn't count against the capability when it is allowed anew.
    owner.allow(1, 1).await.unwrap();
    stored(&mut sender, 5).await;
    assert_eq!(
        sender.put(put(1, [6; 16], &[6])).await.unwrap(),
        Err(Reason::EnvelopeQuota)
    );
}

#[tokio::test]
async fn a_closed_mailbox_is_gone_on_every_node_and_its_numbering_goes_on() {
    let world = World::without_a_bus();
    let (mut owner, mut sender) = world.pair(100).await;
    for id in 1..=3 {
        stored(&mut sender, id).await;
    }
    let mut owner_elsewhere = Client::login(world.b.address(), 1).await.unwrap();
    owner_elsewhere.close_mailbox().await.unwrap();
    assert_eq!(
        sender.put(put(1, [1; 16], &[1])).await.unwrap(),
        Err(Reason::NotAllowed)
    );
    assert_eq!(owner.read().await.unwrap(), (4, 0));
    owner.allow(1, 100).await.unwrap();
    // What the mailbox knew before, it doesn't know any more.
    stored(&mut sender, 1).await;
    assert_eq!(delivered(&mut owner).await, (4, 1));
    let litter =
        "SELECT (SELECT count(*) FROM litter) + (SELECT count(*) FROM envelopes) + (SELECT count(*) FROM puts)";
    until(|| world.postgres.ask(litter).unwrap() == "2").await;
}

#[tokio::test]
async fn an_envelope_past_its_ttl_is_swept_by_one_node_and_leaves_a_gap() {
    let world = World::without_a_bus();
    let (mut owner, mut sender) = world.pair(1).await;
    let mut short = put(1, [1; 16], &[1]);
    short.ttl_seconds = 1;
    assert_eq!(sender.put(short).await.unwrap(), Ok(()));
    until(|| world.postgres.ask("SELECT count(*) FROM envelopes").unwrap() == "0").await;
    until(|| world.postgres.ask("SELECT count(*) FROM puts").unwrap() == "0").await;
    stored(&mut sender, 2).await;
    assert_eq!(owner.read().await.unwrap(), (3, 1));
    assert_eq!(delivered(&mut owner).await, (2, 2));
}

/// Abuse case H11.
#[tokio::test]
async fn a_node_whose_database_is_away_says_so_and_recovers_by_itself() {
    let mut world = World::without_a_bus();
    let (mut owner, mut sender) = world.pair(100).await;
    stored(&mut sender, 1).await;
    world.postgres.crash();
    assert_eq!(sender.put(put(1, [2; 16], &[2])).await.unwrap(), Err(Reason::NotStored));
    until(|| world.b.get("/readyz") == 503).await;
    // An owner's request waits for the database instead.
    owner.send(wire::frame::ClientFrame::Read).await.unwrap();
    world.postgres.resume();
    assert_eq!(
        owner.next().await.unwrap(),
        RelayFrame::Reading {
            next_sequence: 2,
            waiting: 1
        }
    );
    until(|| world.b.get("/readyz") == 200).await;
    stored(&mut sender, 2).await;
    assert_eq!(
        (delivered(&mut owner).await, delivered(&mut owner).await),
        ((1, 1), (2, 2))
    );
}

#[tokio::test]
async fn a_drain_is_in_order_within_the_window_and_a_mailbox_is_gone_through_by_acknowledging() {
    let world = World::without_a_bus();
    let (mut owner, mut sender) = world.pair(1000).await;
    for id in 0..200_u8 {
        stored(&mut sender, id).await;
    }
    assert_eq!(owner.read().await.unwrap(), (201, 200));
    for id in 0..200_u8 {
        assert_eq!(delivered(&mut owner).await, (u64::from(id) + 1, id));
        if id % 16 == 15 {
            owner.ack(u64::from(id) + 1).await.unwrap();
        }
    }
    // Acknowledged on one node, not waiting on the other.
    owner.ack(200).await.unwrap();
    owner.settle().await.unwrap();
    let mut elsewhere = Client::login(world.b.address(), 1).await.unwrap();
    assert_eq!(elsewhere.read().await.unwrap(), (201, 0));
}

#[tokio::test]
async fn a_store_moves_to_a_database_and_back_and_nobody_notices() {
    let postgres = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let (file, back) = (folder.path().join("relay.db"), folder.path().join("back.db"));
    let copy = |from: &str, to: &str| relay().args(["migrate", from, to]).output().unwrap();

    let mut node = Node::start(&file, &[]);
    let mut owner = Client::login(node.address(), 1).await.unwrap();
    owner.allow(1, 4).await.unwrap();
    let mut sender = Client::login(node.address(), 2).await.unwrap();
    for id in 1..=3 {
        stored(&mut sender, id).await;
    }
    owner.read().await.unwrap();
    owner.ack(1).await.unwrap();
    owner.settle().await.unwrap();
    node.stop();
    let copied = copy(file.to_str().unwrap(), &postgres.url());
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let words = String::from_utf8(copied.stdout).unwrap();
    assert!(
        words.starts_with("copied 1 mailboxes, 1 capabilities, 2 envelopes and 3 puts"),
        "{words}"
    );
    let again = copy(file.to_str().unwrap(), &postgres.url());
    assert!(String::from_utf8_lossy(&again.stderr).contains("isn't empty"));

    let mut node = Node::start(postgres.url(), &["--poll", "100ms"]);
    let running = copy(&postgres.url(), back.to_str().unwrap());
    assert!(String::from_utf8_lossy(&running.stderr).contains("a relay runs on the database"));
    let mut sender = Client::login(node.address(), 2).await.unwrap();
    // Known still, though acknowledged and moved; the quota counts what was moved.
    stored(&mut sender, 1).await;
    stored(&mut sender, 4).await;
    stored(&mut sender, 5).await;
    assert_eq!(
        sender.put(put(1, [6; 16], &[6])).await.unwrap(),
        Err(Reason::EnvelopeQuota)
    );
    let mut owner = Client::login(node.address(), 1).await.unwrap();
    assert_eq!(owner.read().await.unwrap(), (6, 4));
    assert_eq!(
        (delivered(&mut owner).await, delivered(&mut owner).await),
        ((2, 2), (3, 3))
    );
    owner.ack(2).await.unwrap();
    owner.settle().await.unwrap();
    node.stop();

    let copied = copy(&postgres.url(), back.to_str().unwrap());
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let node = Node::start(&back, &[]);
    let mut owner = Client::login(node.address(), 1).await.unwrap();
    assert_eq!(owner.read().await.unwrap(), (6, 3));
    for expected in [(3, 3), (4, 4), (5, 5)] {
        assert_eq!(delivered(&mut owner).await, expected);
    }
    let mut sender = Client::login(node.address(), 2).await.unwrap();
    stored(&mut sender, 1).await;
}

#[test]
fn a_password_in_an_address_is_never_shown() {
    let address = "postgres://relay:hunter2@127.0.0.1:1/relay";
    let words = |command: &mut Command| {
        let output = command.output().unwrap();
        let words = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!words.contains("hunter2"), "{words}");
        words
    };
    assert!(words(relay().args(["--store", address])).starts_with("error: store: the database is away"));
    words(
        relay()
            .args(["config", "check", "--bus", "nats://relay:hunter2@a"])
            .env("COUNTERSIGN_RELAY_STORE", address),
    );
    words(relay().arg("--help").env("COUNTERSIGN_RELAY_STORE", address));
    words(relay().args(["--store", "postgres://relay:hunter2@a:port/relay"]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("address");
    std::fs::write(&file, format!("{address}\n")).unwrap();
    let from_file = words(relay().env("COUNTERSIGN_RELAY_STORE_FILE", &file));
    assert!(
        from_file.starts_with("error: store: the database is away"),
        "{from_file}"
    );
}

/// Waits for something that happens by itself.
async fn until(mut happened: impl FnMut() -> bool) {
    for _ in 0..600 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it doesn't happen");
}
