//! A link against relays that misbehave, played by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use bytes::Bytes;
use rand_core::OsRng;
use tokio::net::TcpListener;
use tokio::sync::mpsc::Receiver;
use tokio_tungstenite::accept_async;
use wire::envelope::Envelope;
use wire::frame::{Reason, Stored};
use wire::limits::WINDOW_ENVELOPES;
use wire::mailbox::{Capability, MailboxId};

use super::*;

/// A relay whose every word the test chooses.
struct Hand {
    listener: TcpListener,
    url: String,
}

struct Caller {
    socket: WebSocketStream<TcpStream>,
}

impl Hand {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    async fn accept(&self) -> Caller {
        let (stream, _) = self.listener.accept().await.unwrap();
        Caller {
            socket: accept_async(stream).await.unwrap(),
        }
    }

    /// An honest login, checked as a relay checks it.
    async fn welcome(&self) -> (Caller, MailboxId) {
        let mut caller = self.accept().await;
        let nonce = [7; 32];
        caller
            .say(&RelayFrame::Challenge {
                version: VERSION,
                nonce,
            })
            .await;
        let ClientFrame::Login {
            version,
            mailbox,
            signature,
        } = caller.hear().await
        else {
            panic!("no login")
        };
        let name = authority(&self.url).unwrap();
        let mailbox = wire::login::verify(&[name], version, &nonce, &mailbox, &signature).unwrap();
        caller
            .say(&RelayFrame::Welcome {
                version: VERSION,
                window_envelopes: WINDOW_ENVELOPES,
            })
            .await;
        (caller, mailbox)
    }
}

impl Caller {
    async fn say(&mut self, frame: &RelayFrame) {
        self.send(Message::Binary(frame.encode())).await;
    }

    async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    async fn hear(&mut self) -> ClientFrame {
        match self.socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => ClientFrame::decode(bytes).unwrap(),
            message => panic!("{message:?}"),
        }
    }

    async fn deliver(&mut self, sequence: u64) {
        self.say(&RelayFrame::Deliver {
            sequence,
            received: 0,
            envelope: envelope(),
        })
        .await;
    }
}

fn key() -> MailboxKey {
    MailboxKey::generate(&mut OsRng)
}

fn envelope() -> Envelope {
    Envelope::from_bytes(Bytes::from(vec![0; 1024])).unwrap()
}

/// What a login comes to when the relay says this instead of what it should.
async fn login_against(messages: &[Message]) -> LinkError {
    let hand = Hand::new().await;
    let relay = async {
        let mut caller = hand.accept().await;
        for message in messages {
            caller.send(message.clone()).await;
        }
        caller
    };
    let key = key();
    let (link, _caller) = tokio::join!(Link::connect(&hand.url, &key), relay);
    link.err().expect("the login failed")
}

fn challenge(version: u16) -> Message {
    Message::Binary(
        RelayFrame::Challenge {
            version,
            nonce: [0; 32],
        }
        .encode(),
    )
}

async fn disconnected(events: &mut Receiver<LinkEvent>) -> String {
    loop {
        match events.recv().await.unwrap() {
            LinkEvent::Disconnected { reason } => return reason,
            _ => continue,
        }
    }
}

#[tokio::test]
async fn a_login_is_signed_for_the_name_that_was_dialled() {
    let hand = Hand::new().await;
    let key = key();
    let (link, (_caller, mailbox)) = tokio::join!(Link::connect(&hand.url, &key), hand.welcome());
    assert!(link.is_ok());
    assert_eq!(mailbox, key.id());
}

/// Abuse case A12.
#[tokio::test]
async fn a_relay_that_offers_no_version_of_ours_is_left() {
    assert!(matches!(
        login_against(&[challenge(0)]).await,
        LinkError::Version { offered: 0 }
    ));
    let welcome = RelayFrame::Welcome {
        version: 2,
        window_envelopes: 64,
    }
    .encode();
    assert!(matches!(
        login_against(&[challenge(2), Message::Binary(welcome)]).await,
        LinkError::Version { offered: 2 }
    ));
}

#[tokio::test]
async fn a_relay_that_does_not_greet_properly_is_left() {
    assert!(matches!(
        login_against(&[Message::Text("hello".into())]).await,
        LinkError::Text
    ));
    assert!(matches!(
        login_against(&[Message::Binary(vec![0xff].into())]).await,
        LinkError::Frame(FrameError::UnknownType { .. })
    ));
    assert!(matches!(
        login_against(&[Message::Binary(Bytes::new())]).await,
        LinkError::Frame(_)
    ));
    assert!(matches!(
        login_against(&[Message::Binary(vec![0; 5000].into())]).await,
        LinkError::Unexpected(_)
    ));
    let displaced = Message::Binary(RelayFrame::Displaced.encode());
    assert!(matches!(
        login_against(std::slice::from_ref(&displaced)).await,
        LinkError::Unexpected(_)
    ));
    assert!(matches!(
        login_against(&[challenge(1), displaced]).await,
        LinkError::Unexpected(_)
    ));
    assert!(matches!(
        login_against(&[Message::Binary(vec![0; FRAME_BYTES + 1].into())]).await,
        LinkError::Frame(FrameError::TooLong { .. })
    ));
    assert!(matches!(
        login_against(&[challenge(1), Message::Close(None)]).await,
        LinkError::Lost(_)
    ));
}

#[tokio::test]
async fn a_refused_login_says_so() {
    let close = tokio_tungstenite::tungstenite::protocol::CloseFrame {
        code: Close::Login.code().into(),
        reason: "\u{1b}[31mhello".into(),
    };
    let error = login_against(&[challenge(1), Message::Close(Some(close))]).await;
    assert_eq!(
        error.to_string(),
        "the relay closed the connection: login failed",
        "nothing that the relay wrote is shown"
    );
}

#[tokio::test]
async fn a_url_that_names_no_relay_is_refused() {
    for url in ["", "http://example.org", "ws://", "ws://me@example.org", "example.org"] {
        assert!(
            matches!(Link::connect(url, &key()).await, Err(LinkError::Url(_))),
            "{url}"
        );
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let hand = Hand::new().await;
    let url = hand.url.clone();
    drop(hand);
    assert!(matches!(
        Link::connect(&url, &key()).await,
        Err(LinkError::Unreachable(_))
    ));
}

#[tokio::test]
async fn orders_arrive_in_order_and_answers_come_back() {
    let hand = Hand::new().await;
    let key = key();
    let own = key.id();
    let (link, mut events) = spawn(&hand.url, key);
    let (mut caller, _) = hand.welcome().await;
    assert!(matches!(events.recv().await, Some(LinkEvent::Connected)));
    let capability = Capability::from_bytes(&[3; 32]);
    link.allow(capability.hash(), 10, 20_000).await;
    link.read().await;
    link.put([1; 16], &own, &capability, 60, envelope()).await;
    link.ack(5).await;
    link.revoke(capability.hash()).await;
    assert_eq!(
        caller.hear().await,
        ClientFrame::Allow {
            capability: capability.hash(),
            max_envelopes: 10,
            max_bytes: 20_000
        }
    );
    assert_eq!(caller.hear().await, ClientFrame::Read);
    assert!(
        matches!(caller.hear().await, ClientFrame::Put(put) if put.id == [1; 16] && put.mailbox == *own.as_bytes() && put.ttl_seconds == 60)
    );
    assert_eq!(caller.hear().await, ClientFrame::Ack { sequence: 5 });
    assert_eq!(
        caller.hear().await,
        ClientFrame::Revoke {
            capability: capability.hash()
        }
    );
    caller
        .say(&RelayFrame::Stored {
            id: [1; 16],
            how: Stored::Flushed,
        })
        .await;
    caller
        .say(&RelayFrame::Refused {
            id: [2; 16],
            reason: Reason::Busy,
            retry_after_ms: 9,
        })
        .await;
    caller
        .say(&RelayFrame::Reading {
            next_sequence: 8,
            waiting: 2,
        })
        .await;
    caller.deliver(6).await;
    assert!(matches!(
        events.recv().await,
        Some(LinkEvent::Stored {
            id: [1, ..],
            how: Stored::Flushed
        })
    ));
    assert!(matches!(
        events.recv().await,
        Some(LinkEvent::Refused {
            id: [2, ..],
            reason: Reason::Busy,
            retry_after_ms: 9
        })
    ));
    assert!(matches!(
        events.recv().await,
        Some(LinkEvent::Reading { next: 8, waiting: 2 })
    ));
    assert!(matches!(
        events.recv().await,
        Some(LinkEvent::Delivered { sequence: 6, .. })
    ));
}

#[tokio::test]
async fn a_link_comes_back_and_repeats_nothing_by_itself() {
    let hand = Hand::new().await;
    let key = key();
    let own = key.id();
    let (link, mut events) = spawn(&hand.url, key);
    let (mut caller, _) = hand.welcome().await;
    assert!(matches!(events.recv().await, Some(LinkEvent::Connected)));
    link.put([1; 16], &own, &Capability::from_bytes(&[3; 32]), 60, envelope())
        .await;
    caller.hear().await;
    drop(caller);
    disconnected(&mut events).await;
    let (mut caller, _) = hand.welcome().await;
    assert!(matches!(events.recv().await, Some(LinkEvent::Connected)));
    link.read().await;
    assert_eq!(
        caller.hear().await,
        ClientFrame::Read,
        "the put of the connection before isn't sent again"
    );
}

#[tokio::test]
async fn what_is_ordered_without_a_connection_waits_for_nothing_and_is_dropped() {
    let hand = Hand::new().await;
    let (link, mut events) = spawn(&hand.url, key());
    // More than any queue holds: were these kept, this would never end.
    for sequence in 0..2_000 {
        link.ack(sequence).await;
    }
    let (mut caller, _) = hand.welcome().await;
    assert!(matches!(events.recv().await, Some(LinkEvent::Connected)));
    link.read().await;
    assert_eq!(caller.hear().await, ClientFrame::Read);
}

#[tokio::test]
async fn a_displaced_reader_is_told() {
    let hand = Hand::new().await;
    let (_link, mut events) = spawn(&hand.url, key());
    let (mut caller, _) = hand.welcome().await;
    caller.say(&RelayFrame::Displaced).await;
    assert!(matches!(events.recv().await, Some(LinkEvent::Connected)));
    assert!(matches!(events.recv().await, Some(LinkEvent::Displaced)));
    assert!(matches!(events.recv().await, Some(LinkEvent::Disconnected { .. })));
}

#[tokio::test]
async fn a_relay_that_speaks_nonsense_after_the_login_is_left() {
    for message in [
        Message::Text("hello".into()),
        Message::Binary(vec![0x42].into()),
        Message::Binary(ClientFrame::Read.encode()),
        challenge(1),
    ] {
        let hand = Hand::new().await;
        let (_link, mut events) = spawn(&hand.url, key());
        let (mut caller, _) = hand.welcome().await;
        caller.send(message).await;
        assert!(disconnected(&mut events).await.starts_with("the relay sent"));
    }
}

#[tokio::test]
async fn a_relay_that_delivers_past_its_window_is_left() {
    let hand = Hand::new().await;
    let (link, mut events) = spawn(&hand.url, key());
    let (mut caller, _) = hand.welcome().await;
    assert!(matches!(events.recv().await, Some(LinkEvent::Connected)));
    let window = u64::from(WINDOW_ENVELOPES);
    for sequence in 1..=window {
        caller.deliver(sequence).await;
    }
    link.ack(1).await;
    assert_eq!(caller.hear().await, ClientFrame::Ack { sequence: 1 });
    caller.deliver(window + 1).await;
    for expected in 1..=window + 1 {
        assert!(matches!(events.recv().await, Some(LinkEvent::Delivered { sequence, .. }) if sequence == expected));
    }
    caller.deliver(window + 2).await;
    assert!(disconnected(&mut events).await.contains("window"));
}

#[tokio::test]
async fn a_link_ends_with_its_handles_its_receiver_or_when_finished() {
    let hand = Hand::new().await;
    let (link, mut events) = spawn(&hand.url, key());
    let (mut caller, _) = hand.welcome().await;
    assert!(matches!(events.recv().await, Some(LinkEvent::Connected)));
    link.close_mailbox().await;
    let relay = async {
        assert_eq!(
            caller.hear().await,
            ClientFrame::CloseMailbox,
            "what was ordered before is sent before"
        );
        while let Some(Ok(_)) = caller.socket.next().await {}
    };
    tokio::join!(link.finish(), relay);
    assert!(events.recv().await.is_none());

    let (link, mut events) = spawn(&hand.url, key());
    let (_caller, _) = hand.welcome().await;
    drop(link);
    while events.recv().await.is_some() {}

    let (link, events) = spawn("ws://127.0.0.1:1", key());
    drop(events);
    link.orders_closed().await;

    let (link, _events) = spawn("ws://127.0.0.1:1", key());
    link.finish().await;
}
