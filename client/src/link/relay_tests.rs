//! A link against the real relay, in this process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use countersign_relay::{Config, Relay, Store};
use rand_core::OsRng;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wire::envelope::Envelope;
use wire::frame::{Reason, Stored};
use wire::mailbox::{Capability, MailboxKey};

use super::{Link, LinkEvent, LinkHandle, spawn};

const TTL_SECONDS: u32 = 60;

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(folder: &Path, port: u16) -> Self {
        let store = Store::Sqlite(folder.join("relay.db"));
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], port)),
            store,
            ..Config::default()
        };
        let relay = Relay::bind(config).await.unwrap();
        let address = relay.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            relay.run(shutdown).await.unwrap();
        });
        Self { address, stop, task }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

fn envelope(fill: u8) -> Envelope {
    Envelope::from_bytes(Bytes::from(vec![fill; 1024])).unwrap()
}

async fn next(events: &mut Receiver<LinkEvent>) -> LinkEvent {
    events.recv().await.expect("the link goes on")
}

/// A reader whose mailbox is open for `capability`.
async fn reader(url: &str, key: MailboxKey, capability: &Capability) -> (LinkHandle, Receiver<LinkEvent>) {
    let (link, mut events) = spawn(url, key);
    assert!(matches!(next(&mut events).await, LinkEvent::Connected));
    link.allow(capability.hash(), 10, 100_000).await;
    assert!(matches!(next(&mut events).await, LinkEvent::Allowed(hash) if hash == capability.hash()));
    link.read().await;
    assert!(matches!(next(&mut events).await, LinkEvent::Reading { .. }));
    (link, events)
}

async fn sender(url: &str) -> (LinkHandle, Receiver<LinkEvent>) {
    let (link, mut events) = spawn(url, MailboxKey::generate(&mut OsRng));
    assert!(matches!(next(&mut events).await, LinkEvent::Connected));
    (link, events)
}

#[tokio::test]
async fn an_envelope_goes_from_one_to_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Running::start(folder.path(), 0).await;
    let (key, capability) = (MailboxKey::generate(&mut OsRng), Capability::generate(&mut OsRng));
    let mailbox = key.id();
    let (reading, mut received) = reader(&relay.url(), key, &capability).await;
    let (sending, mut answers) = sender(&relay.url()).await;

    sending
        .put([1; 16], &mailbox, &capability, TTL_SECONDS, envelope(7))
        .await;
    let LinkEvent::Delivered {
        sequence: 1,
        envelope: delivered,
    } = next(&mut received).await
    else {
        panic!()
    };
    assert_eq!(delivered, envelope(7));
    reading.ack(1).await;
    assert!(matches!(
        next(&mut answers).await,
        LinkEvent::Stored { id: [1, ..], .. }
    ));

    let wrong = Capability::generate(&mut OsRng);
    sending.put([2; 16], &mailbox, &wrong, TTL_SECONDS, envelope(8)).await;
    assert!(matches!(
        next(&mut answers).await,
        LinkEvent::Refused {
            id: [2, ..],
            reason: Reason::NotAllowed,
            ..
        }
    ));

    reading.revoke(capability.hash()).await;
    assert!(matches!(next(&mut received).await, LinkEvent::Revoked(hash) if hash == capability.hash()));
    sending
        .put([3; 16], &mailbox, &capability, TTL_SECONDS, envelope(9))
        .await;
    assert!(matches!(
        next(&mut answers).await,
        LinkEvent::Refused {
            id: [3, ..],
            reason: Reason::NotAllowed,
            ..
        }
    ));

    reading.close_mailbox().await;
    assert!(matches!(next(&mut received).await, LinkEvent::MailboxClosed));
    reading.finish().await;
    assert!(received.recv().await.is_none());
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_restarts_is_found_again_and_still_has_the_envelope() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Running::start(folder.path(), 0).await;
    let (key, capability) = (MailboxKey::generate(&mut OsRng), Capability::generate(&mut OsRng));
    let mailbox = key.id();
    let (reading, mut received) = reader(&relay.url(), key, &capability).await;
    let (sending, mut answers) = sender(&relay.url()).await;
    sending
        .put([1; 16], &mailbox, &capability, TTL_SECONDS, envelope(7))
        .await;
    assert!(matches!(
        next(&mut received).await,
        LinkEvent::Delivered { sequence: 1, .. }
    ));
    assert!(
        matches!(
            next(&mut answers).await,
            LinkEvent::Stored {
                how: Stored::Flushed,
                ..
            }
        ),
        "not acknowledged"
    );

    let port = relay.address.port();
    relay.stop().await;
    assert!(matches!(next(&mut received).await, LinkEvent::Disconnected { .. }));
    let relay = Running::start(folder.path(), port).await;
    while !matches!(next(&mut received).await, LinkEvent::Connected) {}
    reading.read().await;
    assert!(matches!(
        next(&mut received).await,
        LinkEvent::Reading { next: 2, waiting: 1 }
    ));
    assert!(matches!(
        next(&mut received).await,
        LinkEvent::Delivered { sequence: 1, .. }
    ));

    // The same put again, as an outbox does that never heard the answer.
    while !matches!(next(&mut answers).await, LinkEvent::Connected) {}
    sending
        .put([1; 16], &mailbox, &capability, TTL_SECONDS, envelope(7))
        .await;
    assert!(matches!(
        next(&mut answers).await,
        LinkEvent::Stored { id: [1, ..], .. }
    ));
    sending
        .put([2; 16], &mailbox, &capability, TTL_SECONDS, envelope(8))
        .await;
    assert!(
        matches!(next(&mut received).await, LinkEvent::Delivered { sequence: 2, .. }),
        "the first came once"
    );
    relay.stop().await;
}

#[tokio::test]
async fn more_than_a_window_arrives_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Running::start(folder.path(), 0).await;
    let (key, capability) = (MailboxKey::generate(&mut OsRng), Capability::generate(&mut OsRng));
    let mailbox = key.id();
    let (reading, mut received) = reader(&relay.url(), key, &capability).await;
    reading.allow(capability.hash(), 1_000, 1_000_000).await;
    assert!(matches!(next(&mut received).await, LinkEvent::Allowed(_)));
    let (sending, mut answers) = sender(&relay.url()).await;
    let put = async {
        for id in 0..300_u16 {
            let mut put = [0; 16];
            put[..2].copy_from_slice(&id.to_be_bytes());
            sending.put(put, &mailbox, &capability, TTL_SECONDS, envelope(0)).await;
        }
        for _ in 0..300 {
            assert!(matches!(next(&mut answers).await, LinkEvent::Stored { .. }));
        }
    };
    let read = async {
        for expected in 1..=300 {
            let event = next(&mut received).await;
            assert!(
                matches!(event, LinkEvent::Delivered { sequence, .. } if sequence == expected),
                "{event:?}"
            );
            reading.ack(expected).await;
        }
    };
    tokio::join!(put, read);
    relay.stop().await;
}

#[tokio::test]
async fn the_newest_reader_wins_and_the_older_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Running::start(folder.path(), 0).await;
    let (key, capability) = (MailboxKey::generate(&mut OsRng), Capability::generate(&mut OsRng));
    let second = MailboxKey::from_bytes(&key.to_bytes());
    let (_first, mut received) = reader(&relay.url(), key, &capability).await;
    let mut newer = Link::connect(&relay.url(), &second).await.unwrap();
    newer.send(&wire::frame::ClientFrame::Read).await.unwrap();
    assert!(matches!(
        newer.receive().await,
        Ok(wire::frame::RelayFrame::Reading { .. })
    ));
    assert!(matches!(next(&mut received).await, LinkEvent::Displaced));
    assert!(matches!(next(&mut received).await, LinkEvent::Disconnected { .. }));
    relay.stop().await;
}

#[tokio::test]
async fn a_name_that_the_relay_does_not_have_is_no_login() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::Sqlite(folder.path().join("relay.db"));
    let names = vec![wire::login::RelayName::new("relay.example.org").unwrap()];
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        store,
        names,
        ..Config::default()
    };
    let relay = Relay::bind(config).await.unwrap();
    let url = format!("ws://{}", relay.local_addr());
    let task = tokio::spawn(relay.run(std::future::pending()));
    let refused = Link::connect(&url, &MailboxKey::generate(&mut OsRng))
        .await
        .err()
        .unwrap();
    assert!(
        matches!(refused, super::LinkError::Closed(wire::frame::Close::Login)),
        "{refused}"
    );
    task.abort();
}
