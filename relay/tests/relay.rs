//! A relay on port 0 and clients that speak frames to it: what `PROTOCOL.md` sections 3 to 5 promise, and what strangers,
//! slow ones and full disks must not be able to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use countersign_relay::{Certificate, Config, Relay, RelayError, Store, StoreError};
use futures_util::{SinkExt, StreamExt};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use wire::frame::{ClientFrame, Close, Done, Put, Reason, RelayFrame, Stored, VERSION};
use wire::login::{self, RelayName};
use wire::mailbox::{Capability, MailboxKey};

#[path = "relay/abuse.rs"]
mod abuse;
#[path = "relay/fairness.rs"]
mod fairness;
#[path = "relay/framing.rs"]
mod framing;
#[path = "relay/operated.rs"]
mod operated;
#[path = "relay/raw.rs"]
mod raw;
#[path = "relay/tls.rs"]
mod tls;

/// Long enough never to be reached, short enough that a hang is seen.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happened")
}

/// A running relay, its folder and its clock.
struct World {
    folder: TempDir,
    clock: Arc<AtomicU64>,
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    certificate: Option<Certificate>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), RelayError>>,
    change: fn(&mut Config),
}

impl World {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: fn(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
        Self::start(folder, clock, change).await
    }

    /// With settings that are known only now. It can't be restarted.
    async fn set(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
        let mut config = config(&folder.path().join("relay.db"), &clock, |_| ());
        change(&mut config);
        Self::serve(folder, clock, config, |_| ()).await
    }

    async fn start(folder: TempDir, clock: Arc<AtomicU64>, change: fn(&mut Config)) -> Self {
        let config = config(&folder.path().join("relay.db"), &clock, change);
        Self::serve(folder, clock, config, change).await
    }

    async fn serve(folder: TempDir, clock: Arc<AtomicU64>, config: Config, change: fn(&mut Config)) -> Self {
        let relay = Relay::bind(config).await.unwrap();
        let address = relay.local_addr();
        let (metrics, certificate) = (relay.metrics_addr(), relay.certificate());
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(relay.run(async {
            stopped.await.ok();
        }));
        Self {
            folder,
            clock,
            address,
            metrics,
            certificate,
            stop: Some(stop),
            running,
            change,
        }
    }

    /// Stops cleanly and starts again on the same store.
    async fn restart(mut self) -> Self {
        self.stop.take().unwrap().send(()).unwrap();
        soon(self.running).await.unwrap().unwrap();
        Self::start(self.folder, self.clock, self.change).await
    }

    /// Drops everything where it is, and starts again on the same store.
    async fn crash(self) -> Self {
        self.running.abort();
        assert!(soon(self.running).await.unwrap_err().is_cancelled());
        // The store's lock goes with the last of its tasks.
        soon(async {
            let lock = std::fs::File::open(self.folder.path().join("relay.db.lock")).unwrap();
            while lock.try_lock().is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        Self::start(self.folder, self.clock, self.change).await
    }

    fn wait(&self, seconds: u64) {
        self.clock.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    async fn client(&self, key: &MailboxKey) -> Client {
        Client::login(self.address, key).await
    }

    /// A reader's connection with one capability allowed, and a sender's.
    async fn pair(&self) -> (Client, Client, Mailbox) {
        let mailbox = Mailbox::new(1);
        let mut owner = self.client(&mailbox.key).await;
        owner.allow(&mailbox.capability, 1000, 1 << 24).await;
        let sender = self.client(&key(99)).await;
        (owner, sender, mailbox)
    }
}

fn config(store: &Path, clock: &Arc<AtomicU64>, change: fn(&mut Config)) -> Config {
    let clock = Arc::clone(clock);
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        store: Store::Sqlite(store.to_owned()),
        clock: Arc::new(move || clock.load(Ordering::Relaxed)),
        ..Config::default()
    };
    change(&mut config);
    config
}

fn key(seed: u8) -> MailboxKey {
    MailboxKey::from_bytes(&[seed; 32])
}

struct Mailbox {
    key: MailboxKey,
    capability: Capability,
}

impl Mailbox {
    fn new(seed: u8) -> Self {
        Self {
            key: key(seed),
            capability: Capability::from_bytes(&[seed; 32]),
        }
    }

    fn put(&self, id: u8) -> Put {
        Put {
            id: [id; 16],
            mailbox: *self.key.id().as_bytes(),
            capability: self.capability.clone(),
            ttl_seconds: 3600,
            envelope: envelope(id),
        }
    }
}

fn envelope(byte: u8) -> Bytes {
    vec![byte; 1024].into()
}

/// Speaks frames over a websocket.
struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    async fn dial(address: SocketAddr) -> Self {
        let (socket, _) = soon(connect_async(format!("ws://{address}"))).await.unwrap();
        Self { socket }
    }

    async fn login(address: SocketAddr, key: &MailboxKey) -> Self {
        let name = login::authority(&format!("ws://{address}")).unwrap();
        let mut client = Self::dial(address).await;
        client.answer_challenge(key, &name).await;
        let welcome = RelayFrame::Welcome {
            version: VERSION,
            window_envelopes: 64,
        };
        assert_eq!(client.next().await, welcome);
        client
    }

    async fn challenge(&mut self) -> [u8; 32] {
        let RelayFrame::Challenge { version, nonce } = self.next().await else {
            panic!("the relay doesn't speak first");
        };
        assert_eq!(version, VERSION);
        nonce
    }

    async fn answer_challenge(&mut self, key: &MailboxKey, name: &RelayName) {
        let nonce = self.challenge().await;
        self.send(answer(key, name, &nonce)).await;
    }

    async fn send(&mut self, frame: ClientFrame) {
        self.send_raw(Message::Binary(frame.encode())).await;
    }

    async fn send_raw(&mut self, message: Message) {
        soon(self.socket.send(message)).await.unwrap();
    }

    async fn next(&mut self) -> RelayFrame {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Binary(bytes))) => return RelayFrame::decode(bytes).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no frame but {other:?}"),
            }
        }
    }

    /// Waits for the relay to close, and says with which code.
    async fn closed(&mut self) -> u16 {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("not closed but {other:?}"),
            }
        }
    }

    async fn allow(&mut self, capability: &Capability, max_envelopes: u32, max_bytes: u64) {
        let capability = capability.hash();
        self.send(ClientFrame::Allow {
            capability,
            max_envelopes,
            max_bytes,
        })
        .await;
        assert_eq!(self.next().await, RelayFrame::Done(Done::Allow(capability)));
    }

    async fn put(&mut self, put: Put) -> RelayFrame {
        let id = put.id;
        self.send(ClientFrame::Put(put)).await;
        let frame = self.next().await;
        let (RelayFrame::Stored { id: answered, .. } | RelayFrame::Refused { id: answered, .. }) = frame else {
            panic!("no answer to a put: {frame:?}");
        };
        assert_eq!(answered, id);
        frame
    }

    async fn put_stored(&mut self, put: Put) {
        let frame = self.put(put).await;
        assert!(matches!(frame, RelayFrame::Stored { .. }), "{frame:?}");
    }

    async fn put_refused(&mut self, put: Put) -> Reason {
        match self.put(put).await {
            RelayFrame::Refused { reason, .. } => reason,
            other => panic!("not refused but {other:?}"),
        }
    }

    async fn read(&mut self) -> (u64, u64) {
        self.send(ClientFrame::Read).await;
        match self.next().await {
            RelayFrame::Reading { next_sequence, waiting } => (next_sequence, waiting),
            other => panic!("not reading but {other:?}"),
        }
    }

    /// The next delivery: its number and the byte that its envelope is made of.
    async fn delivery(&mut self) -> (u64, u8) {
        match self.next().await {
            RelayFrame::Deliver { sequence, envelope, .. } => (sequence, envelope.as_bytes()[0]),
            other => panic!("no delivery but {other:?}"),
        }
    }

    async fn ack(&mut self, sequence: u64) {
        self.send(ClientFrame::Ack { sequence }).await;
    }

    /// Everything sent before has been seen to when this returns.
    async fn settle(&mut self) {
        let capability = Capability::from_bytes(&[0xee; 32]).hash();
        self.send(ClientFrame::Revoke { capability }).await;
        loop {
            match self.next().await {
                RelayFrame::Done(Done::Revoke(done)) if done == capability => return,
                RelayFrame::Done(_) | RelayFrame::Deliver { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

fn answer(key: &MailboxKey, name: &RelayName, nonce: &[u8; 32]) -> ClientFrame {
    ClientFrame::Login {
        version: VERSION,
        mailbox: *key.id().as_bytes(),
        signature: login::sign(key, VERSION, name, nonce),
    }
}

// Login

/// Abuse case A04.
#[tokio::test]
async fn a_login_for_another_relays_name_is_refused() {
    let world = World::new().await;
    let mut client = Client::dial(world.address).await;
    let other = RelayName::new("relay.example.org").unwrap();
    client.answer_challenge(&key(1), &other).await;
    assert_eq!(client.closed().await, Close::Login.code());
}

#[tokio::test]
async fn a_relay_with_names_accepts_those_and_not_its_address() {
    let world = World::with(|config| {
        config.names = vec![RelayName::new("Relay.example.org:443").unwrap()];
    })
    .await;
    for name in ["relay.example.org", "relay.example.org:443"] {
        let mut client = Client::dial(world.address).await;
        client.answer_challenge(&key(1), &RelayName::new(name).unwrap()).await;
        assert!(matches!(client.next().await, RelayFrame::Welcome { .. }));
    }
    let mut client = Client::dial(world.address).await;
    let name = login::authority(&world.url()).unwrap();
    client.answer_challenge(&key(1), &name).await;
    assert_eq!(client.closed().await, Close::Login.code());
}

/// Abuse case A03.
#[tokio::test]
async fn a_captured_login_is_worthless_on_another_connection() {
    let world = World::new().await;
    let name = login::authority(&world.url()).unwrap();
    let mut first = Client::dial(world.address).await;
    let nonce = first.challenge().await;
    let captured = answer(&key(1), &name, &nonce);
    first.send(captured.clone()).await;
    assert!(matches!(first.next().await, RelayFrame::Welcome { .. }));
    // On its own connection a challenge is good for one login.
    first.send(captured.clone()).await;
    assert_eq!(first.closed().await, Close::Malformed.code());
    let mut second = Client::dial(world.address).await;
    assert_ne!(second.challenge().await, nonce);
    second.send(captured).await;
    assert_eq!(second.closed().await, Close::Login.code());
}

#[tokio::test]
async fn a_login_of_another_version_is_refused() {
    let world = World::new().await;
    let name = login::authority(&world.url()).unwrap();
    let mut client = Client::dial(world.address).await;
    let nonce = client.challenge().await;
    client
        .send(ClientFrame::Login {
            version: 2,
            mailbox: *key(1).id().as_bytes(),
            signature: login::sign(&key(1), 2, &name, &nonce),
        })
        .await;
    assert_eq!(client.closed().await, Close::Login.code());
}

/// Abuse case A01.
#[tokio::test]
async fn anything_else_before_login_closes() {
    let world = World::new().await;
    for (message, close) in [
        (Message::Binary(ClientFrame::Read.encode()), Close::Login),
        (Message::Binary(Bytes::from_static(b"\x7f")), Close::Malformed),
        (Message::Text("hello".into()), Close::Unsupported),
        (Message::Binary(vec![2; 4097].into()), Close::TooLong),
        (Message::Binary(vec![2; 100_000].into()), Close::TooLong),
    ] {
        let mut client = Client::dial(world.address).await;
        client.challenge().await;
        client.send_raw(message).await;
        assert_eq!(client.closed().await, close.code());
    }
}

/// Abuse cases A03 and I01.
#[tokio::test]
async fn whoever_doesnt_log_in_in_time_is_closed() {
    let world = World::with(|config| config.login_deadline = Duration::from_millis(20)).await;
    let mut client = Client::dial(world.address).await;
    client.challenge().await;
    assert_eq!(client.closed().await, Close::TooSlow.code());
}

/// Abuse case I01.
#[tokio::test]
async fn whoever_doesnt_finish_the_handshake_in_time_is_closed() {
    let world = World::with(|config| config.handshake_deadline = Duration::from_millis(20)).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

// HTTP

async fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn the_health_page_is_on_the_same_port() {
    let world = World::new().await;
    let answer = http(world.address, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
}

/// Abuse case I02.
#[tokio::test]
async fn what_isnt_a_websocket_request_is_answered_and_closed() {
    let world = World::new().await;
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(9000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "426"),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("\r\n\r\n\r\n", "400"),
        (long.as_str(), "431"),
    ] {
        let answer = http(world.address, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

/// Abuse case A17.
#[tokio::test]
async fn a_browser_page_is_refused_before_the_upgrade() {
    let world = World::new().await;
    let mut request = world.url().into_client_request().unwrap();
    request
        .headers_mut()
        .insert("Origin", "https://evil.example".parse().unwrap());
    match soon(connect_async(request)).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 403),
        other => panic!("not refused: {other:?}"),
    }
}

/// Abuse case I10.
#[tokio::test]
async fn compression_is_never_agreed_to() {
    let world = World::new().await;
    let mut request = world.url().into_client_request().unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Extensions", "permessage-deflate".parse().unwrap());
    let (_, response) = soon(connect_async(request)).await.unwrap();
    assert!(!response.headers().contains_key("Sec-WebSocket-Extensions"));
}

#[tokio::test]
async fn one_address_gets_only_so_many_connections() {
    let world = World::with(|config| config.max_connections_per_address = 2).await;
    let first = Client::dial(world.address).await;
    let mut second = Client::dial(world.address).await;
    match soon(connect_async(world.url())).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 429),
        other => panic!("not refused: {other:?}"),
    }
    drop(first);
    second.challenge().await;
    soon(async {
        while connect_async(world.url()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

// After login

/// Abuse case A10.
#[tokio::test]
async fn broken_rules_after_login_close_with_their_code() {
    let world = World::new().await;
    for (message, close) in [
        (Message::Text("hello".into()), Close::Unsupported),
        (Message::Binary(Bytes::new()), Close::Malformed),
        (Message::Binary(Bytes::from_static(b"\x03x")), Close::Malformed),
        (Message::Binary(Bytes::from_static(b"\x81")), Close::Malformed),
        (Message::Binary(vec![2; 128 * 1024 + 1].into()), Close::TooLong),
    ] {
        let mut client = world.client(&key(1)).await;
        client.send_raw(message).await;
        assert_eq!(client.closed().await, close.code());
    }
}

/// Abuse case A11.
#[tokio::test]
async fn a_flood_of_pings_is_cut_off() {
    let world = World::new().await;
    let mut client = world.client(&key(1)).await;
    for _ in 0..40 {
        if client.socket.send(Message::Ping(Bytes::new())).await.is_err() {
            break;
        }
    }
    assert_eq!(client.closed().await, Close::TooMany.code());
}

#[tokio::test]
async fn a_dead_peer_is_noticed() {
    let world = World::with(|config| config.keepalive = Duration::from_millis(30)).await;
    let mut client = world.client(&key(1)).await;
    // A client that doesn't read doesn't answer pings either.
    let stream = client.socket.get_mut();
    let MaybeTlsStream::Plain(stream) = stream else {
        panic!("not a plain socket");
    };
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.unwrap();
    let close = [&[0x88][..], &[2 + 8], &4408_u16.to_be_bytes(), b"too slow"].concat();
    assert!(bytes.ends_with(&close), "{bytes:?}");
    assert!(bytes.starts_with(&[0x89, 0]), "{bytes:?}");
}

#[tokio::test]
async fn put_deliver_and_acknowledge() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    assert_eq!(owner.read().await, (1, 0));
    sender.send(ClientFrame::Put(mailbox.put(7))).await;
    match owner.next().await {
        RelayFrame::Deliver {
            sequence,
            received,
            envelope: delivered,
        } => {
            assert_eq!((sequence, received), (1, 1_700_000_000_000));
            assert_eq!(delivered.as_bytes(), &envelope(7));
        }
        other => panic!("no delivery but {other:?}"),
    }
    assert!(matches!(sender.next().await, RelayFrame::Stored { .. }));
    owner.ack(1).await;
    owner.settle().await;
    let mut again = world.client(&mailbox.key).await;
    assert_eq!(again.read().await, (2, 0));
}

#[tokio::test]
async fn the_window_holds_64_and_moves_with_each_acknowledgement() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    for id in 1..=70 {
        sender.put_stored(mailbox.put(id)).await;
    }
    assert_eq!(owner.read().await, (71, 70));
    for id in 1..=64 {
        assert_eq!(owner.delivery().await, (u64::from(id), id));
    }
    // Nothing more comes before an acknowledgement: the answer to the next request is next.
    let capability = Capability::from_bytes(&[5; 32]).hash();
    owner.send(ClientFrame::Revoke { capability }).await;
    assert_eq!(owner.next().await, RelayFrame::Done(Done::Revoke(capability)));
    owner.ack(2).await;
    assert_eq!(owner.delivery().await, (65, 65));
    assert_eq!(owner.delivery().await, (66, 66));
}

/// Abuse case A09.
#[tokio::test]
async fn what_wasnt_acknowledged_is_delivered_to_the_next_reader() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    for id in 1..=3 {
        sender.put_stored(mailbox.put(id)).await;
    }
    owner.read().await;
    for id in 1..=3 {
        assert_eq!(owner.delivery().await, (u64::from(id), id));
    }
    owner.ack(1).await;
    owner.settle().await;
    drop(owner);
    let mut owner = world.client(&mailbox.key).await;
    assert_eq!(owner.read().await, (4, 2));
    assert_eq!(owner.delivery().await, (2, 2));
    assert_eq!(owner.delivery().await, (3, 3));
}

/// Abuse case A07.
#[tokio::test]
async fn a_newer_reader_displaces_the_older() {
    let world = World::new().await;
    let (mut older, mut sender, mailbox) = world.pair().await;
    older.read().await;
    let mut newer = world.client(&mailbox.key).await;
    newer.read().await;
    assert_eq!(older.next().await, RelayFrame::Displaced);
    assert_eq!(older.closed().await, Close::Displaced.code());
    sender.put_stored(mailbox.put(1)).await;
    assert_eq!(newer.delivery().await, (1, 1));
}

#[tokio::test]
async fn reading_twice_on_one_connection_delivers_once() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    sender.put_stored(mailbox.put(1)).await;
    assert_eq!(owner.read().await, (2, 1));
    assert_eq!(owner.delivery().await, (1, 1));
    assert_eq!(owner.read().await, (2, 1));
    sender.put_stored(mailbox.put(2)).await;
    assert_eq!(owner.delivery().await, (2, 2));
}

#[tokio::test]
async fn acknowledging_what_was_never_sent_harms_nothing_to_come() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    owner.ack(u64::MAX).await;
    owner.settle().await;
    sender.put_stored(mailbox.put(1)).await;
    assert_eq!(owner.read().await, (2, 1));
}

// Who may put

/// Abuse case A06.
#[tokio::test]
async fn an_unknown_mailbox_and_a_wrong_capability_get_one_answer() {
    let world = World::new().await;
    let (_owner, mut sender, mailbox) = world.pair().await;
    let mut wrong = mailbox.put(1);
    wrong.capability = Capability::from_bytes(&[42; 32]);
    let wrong = sender.put(wrong).await;
    let unknown = sender.put(Mailbox::new(2).put(1)).await;
    assert_eq!(wrong, unknown);
    assert!(matches!(
        wrong,
        RelayFrame::Refused {
            reason: Reason::NotAllowed,
            ..
        }
    ));
}

/// Abuse case A16.
#[tokio::test]
async fn a_revoked_capability_puts_nothing_more_and_what_it_put_stays() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    sender.put_stored(mailbox.put(1)).await;
    let capability = mailbox.capability.hash();
    owner.send(ClientFrame::Revoke { capability }).await;
    assert_eq!(owner.next().await, RelayFrame::Done(Done::Revoke(capability)));
    assert_eq!(sender.put_refused(mailbox.put(2)).await, Reason::NotAllowed);
    // Not even what it put before can be asked after.
    assert_eq!(sender.put_refused(mailbox.put(1)).await, Reason::NotAllowed);
    let world = world.crash().await;
    let mut sender = world.client(&key(99)).await;
    assert_eq!(sender.put_refused(mailbox.put(3)).await, Reason::NotAllowed);
    let mut owner = world.client(&mailbox.key).await;
    owner.read().await;
    assert_eq!(owner.delivery().await, (1, 1));
}

/// Abuse case A06.
#[tokio::test]
async fn logging_in_and_reading_create_no_mailbox() {
    let world = World::new().await;
    let mailbox = Mailbox::new(1);
    let mut owner = world.client(&mailbox.key).await;
    assert_eq!(owner.read().await, (1, 0));
    let mut sender = world.client(&key(99)).await;
    assert_eq!(sender.put_refused(mailbox.put(1)).await, Reason::NotAllowed);
    // But its reader is there when it comes to be.
    owner.allow(&mailbox.capability, 10, 1 << 20).await;
    sender.put_stored(mailbox.put(1)).await;
    assert_eq!(owner.delivery().await, (1, 1));
}

/// Abuse case I06.
#[tokio::test]
async fn quotas_hold_and_acknowledging_gives_them_back() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    owner.allow(&mailbox.capability, 2, 1 << 20).await;
    sender.put_stored(mailbox.put(1)).await;
    sender.put_stored(mailbox.put(2)).await;
    assert_eq!(sender.put_refused(mailbox.put(3)).await, Reason::EnvelopeQuota);
    // A repeat takes no room.
    sender.put_stored(mailbox.put(2)).await;
    owner.allow(&mailbox.capability, 10, 3 * 1024).await;
    sender.put_stored(mailbox.put(3)).await;
    assert_eq!(sender.put_refused(mailbox.put(4)).await, Reason::ByteQuota);
    let world = world.restart().await;
    let mut sender = world.client(&key(99)).await;
    assert_eq!(sender.put_refused(mailbox.put(4)).await, Reason::ByteQuota);
    let mut owner = world.client(&mailbox.key).await;
    owner.ack(1).await;
    owner.settle().await;
    sender.put_stored(mailbox.put(4)).await;
}

/// Abuse case I06.
#[tokio::test]
async fn one_capability_doesnt_use_up_anothers_quota() {
    let world = World::new().await;
    let (mut owner, mut sender, mut mailbox) = world.pair().await;
    owner.allow(&mailbox.capability, 1, 1 << 20).await;
    sender.put_stored(mailbox.put(1)).await;
    assert_eq!(sender.put_refused(mailbox.put(2)).await, Reason::EnvelopeQuota);
    mailbox.capability = Capability::from_bytes(&[200; 32]);
    owner.allow(&mailbox.capability, 1, 1 << 20).await;
    sender.put_stored(mailbox.put(2)).await;
}

#[tokio::test]
async fn the_257th_capability_closes_the_connection() {
    let world = World::new().await;
    let mut owner = world.client(&key(1)).await;
    for number in 0..256_u16 {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        owner.allow(&Capability::from_bytes(&bytes), 1, 1024).await;
    }
    owner
        .send(ClientFrame::Allow {
            capability: Capability::from_bytes(&[255; 32]).hash(),
            max_envelopes: 1,
            max_bytes: 1024,
        })
        .await;
    assert_eq!(owner.closed().await, Close::TooMany.code());
}

/// Abuse case I07.
#[tokio::test]
async fn a_full_relay_takes_no_more_mailboxes() {
    let world = World::with(|config| config.max_mailboxes = 1).await;
    let (_owner, _sender, _mailbox) = world.pair().await;
    let mut other = world.client(&key(2)).await;
    other
        .send(ClientFrame::Allow {
            capability: Capability::from_bytes(&[2; 32]).hash(),
            max_envelopes: 1,
            max_bytes: 1024,
        })
        .await;
    assert_eq!(other.closed().await, Close::TooMany.code());
}

#[tokio::test]
async fn a_full_relay_is_busy() {
    let world = World::with(|config| config.max_bytes = 1500).await;
    let (_owner, mut sender, mailbox) = world.pair().await;
    sender.put_stored(mailbox.put(1)).await;
    assert_eq!(sender.put_refused(mailbox.put(2)).await, Reason::Busy);
}

/// Abuse case A13.
#[tokio::test]
async fn a_wrong_length_and_a_wrong_ttl_are_refused() {
    let world = World::new().await;
    let (_owner, mut sender, mailbox) = world.pair().await;
    for length in [0, 1023, 1025, 65_537] {
        let mut put = mailbox.put(1);
        put.envelope = vec![1; length].into();
        assert_eq!(sender.put_refused(put).await, Reason::Length);
    }
    for ttl_seconds in [0, 30 * 24 * 3600 + 1, u32::MAX] {
        let put = Put {
            ttl_seconds,
            ..mailbox.put(1)
        };
        assert_eq!(sender.put_refused(put).await, Reason::Ttl);
    }
    for (id, length) in [1024, 2048, 4096, 16_384, 65_536].into_iter().enumerate() {
        let mut put = mailbox.put(id as u8);
        put.envelope = vec![1; length].into();
        sender.put_stored(put).await;
    }
}

// Idempotence

#[tokio::test]
async fn a_repeated_put_is_stored_once_also_after_a_restart_and_an_acknowledgement() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    sender.put_stored(mailbox.put(1)).await;
    sender.put_stored(mailbox.put(1)).await;
    assert_eq!(owner.read().await, (2, 1));
    let world = world.restart().await;
    let mut sender = world.client(&key(99)).await;
    sender.put_stored(mailbox.put(1)).await;
    let mut owner = world.client(&mailbox.key).await;
    assert_eq!(owner.read().await, (2, 1));
    assert_eq!(owner.delivery().await, (1, 1));
    owner.ack(1).await;
    owner.settle().await;
    sender.put_stored(mailbox.put(1)).await;
    let world = world.crash().await;
    let mut sender = world.client(&key(99)).await;
    sender.put_stored(mailbox.put(1)).await;
    let mut owner = world.client(&mailbox.key).await;
    assert_eq!(owner.read().await.1, 0);
}

#[tokio::test]
async fn two_repeats_sent_at_once_are_one_put() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    for _ in 0..10 {
        sender.send(ClientFrame::Put(mailbox.put(1))).await;
    }
    for _ in 0..10 {
        assert!(matches!(sender.next().await, RelayFrame::Stored { .. }));
    }
    assert_eq!(owner.read().await, (2, 1));
}

#[tokio::test]
async fn an_id_used_for_another_envelope_is_refused() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    let other = || Put {
        envelope: envelope(200),
        ..mailbox.put(1)
    };
    sender.send(ClientFrame::Put(mailbox.put(1))).await;
    // Whether the first is flushed by now or not.
    sender.send(ClientFrame::Put(other())).await;
    let mut answers = [sender.next().await, sender.next().await];
    answers.sort_by_key(|frame| matches!(frame, RelayFrame::Refused { .. }));
    assert!(matches!(answers[0], RelayFrame::Stored { .. }));
    assert!(matches!(
        answers[1],
        RelayFrame::Refused {
            reason: Reason::IdUsed,
            ..
        }
    ));
    owner.ack(1).await;
    owner.settle().await;
    assert_eq!(sender.put_refused(other()).await, Reason::IdUsed);
    let world = world.restart().await;
    let mut sender = world.client(&key(99)).await;
    assert_eq!(sender.put_refused(other()).await, Reason::IdUsed);
}

#[tokio::test]
async fn an_id_is_new_again_when_its_ttl_is_over() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    let short = || Put {
        ttl_seconds: 5,
        ..mailbox.put(1)
    };
    sender.put_stored(short()).await;
    // The ttl that counts is the first one.
    sender.put_stored(mailbox.put(1)).await;
    world.wait(5);
    sender.put_stored(mailbox.put(1)).await;
    assert_eq!(owner.read().await, (3, 1));
    assert_eq!(owner.delivery().await, (2, 1));
}

#[tokio::test]
async fn the_same_id_in_two_mailboxes_is_two_puts() {
    let world = World::new().await;
    let (_owner, mut sender, mailbox) = world.pair().await;
    let second = Mailbox::new(2);
    let mut other = world.client(&second.key).await;
    other.allow(&second.capability, 10, 1 << 20).await;
    sender.put_stored(mailbox.put(1)).await;
    sender.put_stored(second.put(1)).await;
    assert_eq!(other.read().await, (2, 1));
}

// Order and numbers

#[tokio::test]
async fn order_and_numbers_survive_a_restart_and_are_never_used_twice() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    for id in 1..=3 {
        sender.put_stored(mailbox.put(id)).await;
    }
    let world = world.restart().await;
    let mut sender2 = world.client(&key(99)).await;
    sender2.put_stored(mailbox.put(4)).await;
    drop((owner, sender));
    owner = world.client(&mailbox.key).await;
    assert_eq!(owner.read().await, (5, 4));
    for id in 1..=4 {
        assert_eq!(owner.delivery().await, (u64::from(id), id));
    }
    owner.ack(4).await;
    owner.settle().await;
    // Nothing is left from which the last number could be told.
    let world = world.restart().await;
    sender = world.client(&key(99)).await;
    sender.put_stored(mailbox.put(5)).await;
    let mut owner = world.client(&mailbox.key).await;
    assert_eq!(owner.read().await, (6, 1));
    assert_eq!(owner.delivery().await, (5, 5));
}

#[tokio::test]
async fn after_a_crash_every_stored_envelope_is_there_and_no_number_comes_again() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    owner.read().await;
    for id in 1..=20 {
        sender.put_stored(mailbox.put(id)).await;
        assert_eq!(owner.delivery().await, (u64::from(id), id));
    }
    owner.ack(20).await;
    owner.settle().await;
    for id in 21..=40 {
        sender.put_stored(mailbox.put(id)).await;
    }
    let world = world.crash().await;
    let mut owner = world.client(&mailbox.key).await;
    let (next, waiting) = owner.read().await;
    assert!(next > 40, "{next}");
    assert_eq!(waiting, 20);
    for id in 21..=40 {
        assert_eq!(owner.delivery().await, (u64::from(id), id));
    }
    let mut sender = world.client(&key(99)).await;
    sender.put_stored(mailbox.put(41)).await;
    assert_eq!(owner.delivery().await, (next, 41));
}

#[tokio::test]
async fn a_reader_that_comes_later_gets_everything_from_the_store_in_order() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    for id in 0..200 {
        sender.send(ClientFrame::Put(mailbox.put(id))).await;
    }
    for _ in 0..200 {
        assert!(matches!(sender.next().await, RelayFrame::Stored { .. }));
    }
    owner.read().await;
    for id in 0..200 {
        let (sequence, byte) = owner.delivery().await;
        assert_eq!((sequence, byte), (u64::from(id) + 1, id));
        owner.ack(sequence).await;
    }
    owner.settle().await;
    let mut again = world.client(&mailbox.key).await;
    assert_eq!(again.read().await, (201, 0));
}

#[tokio::test]
async fn large_envelopes_come_through_too() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    let put = |id: u8| Put {
        envelope: vec![id; 65_536].into(),
        ..mailbox.put(id)
    };
    for id in 0..40 {
        sender.put_stored(put(id)).await;
    }
    owner.read().await;
    for id in 0..40 {
        let (sequence, byte) = owner.delivery().await;
        assert_eq!((sequence, byte), (u64::from(id) + 1, id));
        owner.ack(sequence).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_senders_at_once_lose_nothing_and_nothing_comes_twice() {
    let world = World::new().await;
    let (mut owner, _sender, mailbox) = world.pair().await;
    owner.read().await;
    let mut senders = tokio::task::JoinSet::new();
    for number in 0..8_u8 {
        let address = world.address;
        let put = mailbox.put(number);
        senders.spawn(async move {
            let mut sender = Client::login(address, &key(100 + number)).await;
            for round in 0..100_u8 {
                let mut put = put.clone();
                put.id[1] = round;
                // One in flight while the next is sent.
                sender.send(ClientFrame::Put(put)).await;
                if round % 2 == 1 {
                    for _ in 0..2 {
                        let frame = sender.next().await;
                        assert!(matches!(frame, RelayFrame::Stored { .. }), "{frame:?}");
                    }
                }
            }
        });
    }
    let mut by_sender = [0; 8];
    for expected in 1..=800 {
        let (sequence, sender) = owner.delivery().await;
        assert_eq!(sequence, expected);
        by_sender[usize::from(sender)] += 1;
        if sequence % 5 == 0 {
            owner.ack(sequence).await;
        }
    }
    assert_eq!(by_sender, [100; 8]);
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
    owner.settle().await;
    let world = world.restart().await;
    let mut owner = world.client(&mailbox.key).await;
    assert_eq!(owner.read().await, (801, 0));
}

#[tokio::test]
async fn stored_says_whether_the_reader_was_first() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    // Nobody reads: it can only be flushed.
    let frame = sender.put(mailbox.put(1)).await;
    assert_eq!(
        frame,
        RelayFrame::Stored {
            id: [1; 16],
            how: Stored::Flushed
        }
    );
    owner.read().await;
    owner.delivery().await;
}

// Ttl and closing

/// Abuse case H10.
#[tokio::test]
async fn an_envelope_past_its_ttl_is_deleted_unread_and_leaves_a_gap() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    for (id, ttl_seconds) in [(1, 3600), (2, 10), (3, 3600)] {
        sender
            .put_stored(Put {
                ttl_seconds,
                ..mailbox.put(id)
            })
            .await;
    }
    world.wait(10);
    assert_eq!(owner.read().await, (4, 2));
    assert_eq!(owner.delivery().await, (1, 1));
    assert_eq!(owner.delivery().await, (3, 3));
    // A clock that jumps back brings nothing back.
    world.clock.fetch_sub(10_000, Ordering::Relaxed);
    let world = world.restart().await;
    let mut owner = world.client(&mailbox.key).await;
    assert_eq!(owner.read().await, (4, 2));
}

#[tokio::test]
async fn a_closed_mailbox_is_gone_and_its_numbers_go_on_if_it_is_opened_again() {
    let world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    sender.put_stored(mailbox.put(1)).await;
    owner.send(ClientFrame::CloseMailbox).await;
    assert_eq!(owner.next().await, RelayFrame::Done(Done::CloseMailbox));
    assert_eq!(sender.put_refused(mailbox.put(2)).await, Reason::NotAllowed);
    let world = world.restart().await;
    let mut sender = world.client(&key(99)).await;
    assert_eq!(sender.put_refused(mailbox.put(2)).await, Reason::NotAllowed);
    let mut owner = world.client(&mailbox.key).await;
    owner.allow(&mailbox.capability, 10, 1 << 20).await;
    // What was put before is forgotten with the mailbox.
    sender.put_stored(mailbox.put(1)).await;
    assert_eq!(owner.read().await, (3, 1));
    assert_eq!(owner.delivery().await, (2, 1));
}

// Stopping

#[tokio::test]
async fn a_shutdown_says_goodbye() {
    let mut world = World::new().await;
    let (mut owner, _sender, _mailbox) = world.pair().await;
    let mut stranger = Client::dial(world.address).await;
    stranger.challenge().await;
    world.stop.take().unwrap().send(()).unwrap();
    for client in [&mut owner, &mut stranger] {
        let frame = client.next().await;
        assert!(matches!(frame, RelayFrame::Goodbye { retry_after_ms } if retry_after_ms >= 500));
        assert_eq!(client.closed().await, Close::ShuttingDown.code());
    }
    soon(world.running).await.unwrap().unwrap();
}

/// The program itself, on a store of its own.
struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(store: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_countersign-relay"))
            .args(["--listen", "127.0.0.1:0", "--store"])
            .arg(store)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on ws://").unwrap();
        Self {
            address: address.parse().unwrap(),
            child,
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

/// Abuse case H01.
#[tokio::test]
async fn a_killed_program_keeps_every_stored_envelope_and_a_terminated_one_exits_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("deep").join("relay.db");
    let mut program = Program::start(&store);
    let mailbox = Mailbox::new(1);
    let mut owner = Client::login(program.address, &mailbox.key).await;
    owner.allow(&mailbox.capability, 1000, 1 << 24).await;
    let mut sender = Client::login(program.address, &key(99)).await;
    for id in 0..100 {
        sender.send(ClientFrame::Put(mailbox.put(id))).await;
    }
    let mut stored = Vec::new();
    for _ in 0..60 {
        match sender.next().await {
            RelayFrame::Stored { id, .. } => stored.push(id[0]),
            other => panic!("not stored: {other:?}"),
        }
    }
    program.signal(rustix::process::Signal::KILL);
    program.child.wait().unwrap();
    let mut program = Program::start(&store);
    let mut owner = Client::login(program.address, &mailbox.key).await;
    let (_, waiting) = owner.read().await;
    let mut delivered = Vec::new();
    for _ in 0..waiting {
        let (sequence, byte) = owner.delivery().await;
        delivered.push(byte);
        owner.ack(sequence).await;
    }
    assert!(delivered.is_sorted());
    assert!(stored.iter().all(|id| delivered.contains(id)));
    program.signal(rustix::process::Signal::TERM);
    assert!(matches!(owner.next().await, RelayFrame::Goodbye { .. }));
    assert_eq!(owner.closed().await, Close::ShuttingDown.code());
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_wrong_is_said_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("relay.db");
    std::fs::write(&store, "not a database at all").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_countersign-relay"))
        .args(["--listen", "127.0.0.1:0", "--store"])
        .arg(&store)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let words = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = words.lines().collect();
    assert_eq!(
        lines[0],
        format!("error: store {} is damaged: only 21 bytes long", store.display())
    );
    assert!(lines[1].starts_with("hint: restore it from a copy"), "{words}");
}

#[test]
fn the_settings_can_be_checked_without_serving() {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign-relay"))
        .args([
            "config",
            "check",
            "--store",
            "/nowhere/relay.db",
            "--name",
            "Relay.Example.org",
        ])
        .output()
        .unwrap();
    assert!(output.status.success());
    let words = String::from_utf8(output.stdout).unwrap();
    assert!(
        words.contains("listen = \"127.0.0.1:7447\"\nstore = \"/nowhere/relay.db\"\nnames = [\"relay.example.org\"]\n"),
        "{words}"
    );
}

// The store

async fn open(path: PathBuf) -> Result<Relay, StoreError> {
    let clock = Arc::new(AtomicU64::new(0));
    match Relay::bind(config(&path, &clock, |_| ())).await {
        Ok(relay) => Ok(relay),
        Err(RelayError::Store(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

/// The file of a stopped relay with some envelopes in it.
async fn used_store() -> (TempDir, PathBuf) {
    let mut world = World::new().await;
    let (_owner, mut sender, mailbox) = world.pair().await;
    for id in 0..50 {
        sender.put_stored(mailbox.put(id)).await;
    }
    world.stop.take().unwrap().send(()).unwrap();
    soon(world.running).await.unwrap().unwrap();
    let path = world.folder.path().join("relay.db");
    (world.folder, path)
}

/// It is refused, and left as it is.
async fn assert_damaged(path: &Path) {
    let before = std::fs::read(path).unwrap();
    let error = open(path.to_owned()).await.err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(
        std::fs::read(path).unwrap() == before,
        "changed: {error}, {} bytes",
        before.len()
    );
}

#[tokio::test]
async fn two_relays_on_one_store_are_refused() {
    let world = World::new().await;
    let path = world.folder.path().join("relay.db");
    let error = open(path).await.err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

/// Abuse case H05.
#[tokio::test]
async fn a_truncated_store_is_refused() {
    let (_folder, path) = used_store().await;
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 1, 99, 100, 4096, whole.len() / 2, whole.len() - 4096] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_damaged(&path).await;
    }
    std::fs::write(&path, &whole).unwrap();
    open(path).await.unwrap();
}

/// Abuse case H05.
#[tokio::test]
async fn a_store_with_a_page_of_rubbish_is_refused() {
    let (_folder, path) = used_store().await;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 * 3..4096 * 4].fill(0xa5);
    std::fs::write(&path, &bytes).unwrap();
    assert_damaged(&path).await;
}

/// Abuse case H05.
#[tokio::test]
async fn a_foreign_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.db");
    let mut foreign = vec![0x5a; 8192];
    std::fs::write(&path, &foreign).unwrap();
    let error = open(path.clone()).await.err().unwrap();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    // Another program's database.
    foreign[..16].copy_from_slice(b"SQLite format 3\0");
    std::fs::write(&path, &foreign).unwrap();
    let error = open(path.clone()).await.err().unwrap();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), foreign);
}

/// Abuse case H05.
#[tokio::test]
async fn a_newer_store_is_refused() {
    let (_folder, path) = used_store().await;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let error = open(path).await.err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}

/// Abuse case H07.
#[tokio::test]
async fn a_vanished_store_whose_log_is_left_isnt_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.db");
    std::fs::write(folder.path().join("relay.db-wal"), "left over").unwrap();
    let error = open(path.clone()).await.err().unwrap();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn the_store_is_nobody_elses_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own").join("relay.db");
    let _relay = open(path.clone()).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for name in ["relay.db", "relay.db-wal", "relay.db.lock"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
}
