//! The cases of abuse that have no better place: what a stranger says to get in, whom a slow reader hurts, and how everybody
//! comes back. A case's number is in the comment of its test, wherever that is.

use std::time::Instant;

use futures_util::future::join_all;
use rustix::process::Signal;

use super::raw::*;
use super::*;

/// Abuse case A02: that there is something in the signature's place opens nothing.
#[tokio::test]
async fn a_login_needs_a_signature_and_not_just_bytes_in_its_place() {
    let world = World::new().await;
    let (own, name) = (key(1), login::authority(&world.url()).unwrap());
    // The neutral point, which would make a signature of zeros true for everything, and one of order 8.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let order_8 = *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a";
    let signed = |mailbox: [u8; 32], sign: &dyn Fn(&[u8; 32]) -> [u8; 64], nonce: &[u8; 32]| ClientFrame::Login {
        version: VERSION,
        mailbox,
        signature: sign(nonce),
    };
    let mine = *own.id().as_bytes();
    let zeros: &dyn Fn(&[u8; 32]) -> [u8; 64] = &|_| [0; 64];
    let neutral_r: &dyn Fn(&[u8; 32]) -> [u8; 64] = &|_| {
        let mut signature = [0; 64];
        signature[0] = 1;
        signature
    };
    let others: &dyn Fn(&[u8; 32]) -> [u8; 64] = &|nonce| login::sign(&key(2), VERSION, &name, nonce);
    let old: &dyn Fn(&[u8; 32]) -> [u8; 64] = &|_| login::sign(&own, VERSION, &name, &[7; 32]);
    let flipped: &dyn Fn(&[u8; 32]) -> [u8; 64] = &|nonce| {
        let mut signature = login::sign(&own, VERSION, &name, nonce);
        signature[63] ^= 0x10;
        signature
    };
    for (mailbox, sign) in [
        (mine, zeros),
        (mine, &|_| [0xff; 64]),
        (mine, neutral_r),
        (mine, others),
        (mine, old),
        (mine, flipped),
        (neutral, zeros),
        (neutral, neutral_r),
        (order_8, neutral_r),
        ([0xff; 32], zeros),
    ] {
        let mut client = Client::dial(world.address).await;
        let nonce = client.challenge().await;
        client.send(signed(mailbox, sign, &nonce)).await;
        assert_eq!(client.closed().await, Close::Login.code(), "{mailbox:?}");
    }
    // Without one, with half of one, and with something behind it, it isn't even a login.
    let (mut raw, login) = Raw::stranger(world.address, &own).await;
    let whole = login.encode();
    raw.say(&frame(FIN | BINARY, &whole)).await;
    assert!(matches!(raw.answer().await, RelayFrame::Welcome { .. }));
    for cut in [1, 35, 67, whole.len() - 1] {
        let (mut raw, login) = Raw::stranger(world.address, &own).await;
        raw.say(&frame(FIN | BINARY, &login.encode()[..cut])).await;
        raw.ends_with(&[Close::Malformed.code()], "half a login").await;
    }
}

/// Abuse case A05: there is no role to claim; what is said beside the key is refused, and one's own key opens one's own mailbox.
#[tokio::test]
async fn nobody_is_more_than_the_owner_of_a_mailbox() {
    let world = World::new().await;
    for claim in [&b"\x01"[..], b"admin", b"{\"role\":\"admin\",\"scopes\":[\"*\"]}"] {
        let (mut raw, login) = Raw::stranger(world.address, &key(2)).await;
        raw.say(&frame(FIN | BINARY, &[&login.encode()[..], claim].concat()))
            .await;
        raw.ends_with(&[Close::Malformed.code()], "a login that claims more")
            .await;
    }
    let (mut owner, mut sender, mailbox) = world.pair().await;
    sender.put_stored(mailbox.put(1)).await;
    // All that somebody else can order, under the same capability's hash.
    let mut other = world.client(&key(2)).await;
    assert_eq!(other.read().await, (1, 0));
    other.ack(u64::MAX).await;
    let capability = mailbox.capability.hash();
    other.send(ClientFrame::Revoke { capability }).await;
    assert_eq!(other.next().await, RelayFrame::Done(Done::Revoke(capability)));
    other.send(ClientFrame::CloseMailbox).await;
    assert_eq!(other.next().await, RelayFrame::Done(Done::CloseMailbox));
    sender.put_stored(mailbox.put(2)).await;
    assert_eq!(owner.read().await, (3, 2));
    assert_eq!((owner.delivery().await, owner.delivery().await), ((1, 1), (2, 2)));
}

/// Abuse case A11.
#[tokio::test]
async fn a_flood_of_pongs_is_cut_off_too_before_login_and_after() {
    let world = World::new().await;
    for opcode in [PING, PONG] {
        for before in [true, false] {
            let mut raw = match before {
                true => Raw::stranger(world.address, &key(1)).await.0,
                false => Raw::guest(world.address, &key(1)).await,
            };
            raw.say(&frame(FIN | opcode, b"x").repeat(200)).await;
            raw.ends_with(&[Close::TooMany.code(), 1008], "a flood").await;
        }
    }
}

/// Abuse case I02: a request's head has 8 KiB, in however many lines, and nobody waits for its end to refuse it.
#[tokio::test]
async fn a_request_without_end_is_refused_at_8_kib() {
    let world = World::new().await;
    let begin = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for filling in ["X: ", "X: y\r\n", "\r", "Cookie: a=b; ", "\u{0}"] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let mut sent = begin.len();
        stream.write_all(begin.as_bytes()).await.unwrap();
        let piece = filling.repeat(1024 / filling.len());
        // What the kernels on both sides take unread isn't the relay's.
        while sent < 64 << 20 && soon(stream.write_all(piece.as_bytes())).await.is_ok() {
            sent += piece.len();
        }
        assert!(sent < 16 << 20, "{sent} bytes of {filling:?} were taken");
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.ok();
        let answer = String::from_utf8(answer).unwrap();
        // It may be lost when the relay hangs up on what is unread.
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 400 "),
            "{answer}"
        );
    }
    // One that is just long is let in.
    let long = format!("{begin}X: {}\r\n\r\n", "y".repeat(8 * 1024 - begin.len() - 64));
    let mut raw = Raw {
        stream: TcpStream::connect(world.address).await.unwrap(),
    };
    raw.say(long.as_bytes()).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
}

/// Requests that look like an upgrade and aren't one.
#[tokio::test]
async fn an_upgrade_that_isnt_one_is_refused_before_the_websocket() {
    let world = World::new().await;
    let whole = [
        "GET / HTTP/1.1",
        "Host: a",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    for (at, line) in [
        (0, "POST / HTTP/1.1"),
        (0, "GET / HTTP/1.0"),
        (2, "Connection: close"),
        (3, "Upgrade: h2c"),
        (4, "Sec-WebSocket-Version: 8"),
        (4, "Sec-WebSocket-Version: 12"),
        (5, "Sec-WebSocket-Other: a"),
    ] {
        let mut lines = whole;
        lines[at] = line;
        let answer = http(world.address, &format!("{}\r\n\r\n", lines.join("\r\n"))).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{line}: {answer}");
    }
}

/// Abuse case I05: who never reads is held up alone, costs a bounded queue, is cut off when it doesn't drain, and nothing that
/// was stored is lost by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_is_cut_off_and_the_next_gets_everything() {
    const COUNT: u64 = 300;
    let world = World::set(|config| {
        config.stall_deadline = Duration::from_millis(500);
        // How often that is looked at goes by this.
        config.keepalive = Duration::from_secs(3);
        config.metrics = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    owner.allow(&mailbox.capability, 10_000, 64 << 20).await;
    drop(owner);
    let other = Mailbox::new(2);
    let mut honest = world.client(&other.key).await;
    honest.allow(&other.capability, 10_000, 64 << 20).await;
    honest.read().await;
    let mut deaf = Raw::guest(world.address, &mailbox.key).await;
    let before = world.metric("memory_counted_bytes").await;
    deaf.say(&message(&ClientFrame::Read)).await;
    for number in 0..COUNT {
        let mut put = Put {
            envelope: vec![(number % 251) as u8; 65_536].into(),
            ..mailbox.put(0)
        };
        put.id[8..].copy_from_slice(&number.to_be_bytes());
        sender.put_stored(put.clone()).await;
        if number % 50 == 0 {
            put.mailbox = *other.key.id().as_bytes();
            put.capability = other.capability.clone();
            sender.send(ClientFrame::Put(put)).await;
            assert_eq!(honest.delivery().await.0, number / 50 + 1);
            honest.ack(number / 50 + 1).await;
            assert!(matches!(sender.next().await, RelayFrame::Stored { .. }));
            let counted = world.metric("memory_counted_bytes").await.saturating_sub(before);
            // A window of envelopes is 4 MiB; all that wait would be 19.
            assert!(counted < 8 << 20, "{counted} bytes of memory after {number} envelopes");
        }
    }
    // It doesn't know yet, because it doesn't read.
    soon(async {
        while world.metric("readers").await > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(deaf);
    let mut owner = world.client(&mailbox.key).await;
    assert_eq!(owner.read().await, (COUNT + 1, COUNT));
    for number in 0..COUNT {
        let (sequence, byte) = owner.delivery().await;
        assert_eq!((sequence, u64::from(byte)), (number + 1, number % 251));
        if sequence % 8 == 0 {
            owner.ack(sequence).await;
        }
    }
}

/// Abuse case I05, its other side: slow isn't dead. Who drains, however slowly, stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_is_only_slow_stays_and_gets_everything() {
    const COUNT: u64 = 120;
    let world = World::set(|config| {
        config.stall_deadline = Duration::from_millis(1500);
        config.keepalive = Duration::from_secs(3);
        config.metrics = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let (_owner, mut sender, mailbox) = world.pair().await;
    let mut slow = Raw::guest(world.address, &mailbox.key).await;
    slow.say(&message(&ClientFrame::Read)).await;
    let put = |number: u64| {
        let mut put = Put {
            envelope: vec![(number % 251) as u8; 65_536].into(),
            ..mailbox.put(0)
        };
        put.id[8..].copy_from_slice(&number.to_be_bytes());
        put
    };
    for number in 0..COUNT {
        sender.put_stored(put(number)).await;
    }
    // The whole takes several deadlines; a pause is well within one.
    let mut next = 1;
    while next <= COUNT {
        match slow.answer().await {
            RelayFrame::Deliver { sequence, .. } => {
                assert_eq!(sequence, next);
                next += 1;
                if next % 10 == 0 {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    slow.say(&message(&ClientFrame::Ack { sequence })).await;
                }
            }
            RelayFrame::Reading { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    slow.works("all that").await;
}

/// Abuse case I08: forged logins cost those who send them, and nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burn_of_forged_logins_doesnt_hold_up_the_honest() {
    let world = World::set(|config| {
        config.spares_loopback = false;
        config.failed_logins_per_address = 20;
        config.max_connections_per_address = 1000;
        config.metrics = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    owner.read().await;
    let address = world.address;
    let burn = tokio::spawn(async move {
        for _ in 0..10 {
            join_all((0..20).map(|_| async move {
                let (mut raw, login) = Raw::stranger(address, &key(7)).await;
                let mut forged = login.encode().to_vec();
                *forged.last_mut().unwrap() ^= 1;
                raw.say(&frame(FIN | BINARY, &forged)).await;
                raw.ends_with(&[Close::Login.code(), Close::TooMany.code()], "a forged login")
                    .await;
            }))
            .await;
        }
    });
    for id in 0..100 {
        sender.send(ClientFrame::Put(mailbox.put(id))).await;
        assert_eq!(owner.delivery().await, (u64::from(id) + 1, id));
        owner.ack(u64::from(id) + 1).await;
        assert!(matches!(sender.next().await, RelayFrame::Stored { .. }));
    }
    soon(burn).await.unwrap();
    // The cheap check comes first: after so many, none of that address is looked at.
    let (failed, unseen) = (
        world.metric("logins_failed_total").await,
        world.metric("rate_limited_total{limit=\"logins\"}").await,
    );
    assert_eq!(failed + unseen, 200);
    assert!((20..40).contains(&failed), "{failed} were looked at");
}

/// Abuse case I15, with as many as a test may open: everybody is told when to come back, not all at once, and is served when
/// they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_everybody_is_back_and_nobody_was_told_the_same_time() {
    const CLIENTS: u8 = 200;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("relay.db");
    let mut program = Program::start(&store);
    let mut readers = Vec::new();
    for seed in 0..CLIENTS {
        let mailbox = Mailbox::new(seed);
        let mut reader = Client::login(program.address, &mailbox.key).await;
        reader.allow(&mailbox.capability, 10, 1 << 20).await;
        reader.read().await;
        readers.push(reader);
    }
    program.signal(Signal::TERM);
    let told = join_all(readers.iter_mut().map(|reader| async {
        match reader.next().await {
            RelayFrame::Goodbye { retry_after_ms } => retry_after_ms,
            other => panic!("no goodbye but {other:?}"),
        }
    }))
    .await;
    drop(readers);
    let (soonest, latest) = (told.iter().min().unwrap(), told.iter().max().unwrap());
    assert!(*soonest >= 500 && *latest <= 60_000, "{soonest} to {latest} ms");
    assert!(latest - soonest > 1000, "a storm: {soonest} to {latest} ms");
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
    // Ruder than they were asked to be: all at once.
    let program = Program::start(&store);
    let begun = Instant::now();
    join_all((0..CLIENTS).map(|seed| async move {
        let mailbox = Mailbox::new(seed);
        let mut reader = Client::login(program.address, &mailbox.key).await;
        assert_eq!(reader.read().await, (1, 0));
        reader.send(ClientFrame::Put(mailbox.put(seed))).await;
        let frames = [reader.next().await, reader.next().await];
        assert!(frames.iter().any(|frame| matches!(frame, RelayFrame::Deliver { .. })));
        assert!(frames.iter().any(|frame| matches!(frame, RelayFrame::Stored { .. })));
    }))
    .await;
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    program.signal(Signal::TERM);
    let mut program = program;
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

/// Abuse case H10: a clock that jumps ahead ends what it ends, and one that jumps back brings nothing of it again, neither to a
/// relay that runs nor to one that is started anew.
#[tokio::test]
async fn a_clock_that_jumps_back_brings_nothing_again() {
    let mut world = World::new().await;
    let (mut owner, mut sender, mailbox) = world.pair().await;
    let put = |id: u8, ttl_seconds: u32| Put {
        ttl_seconds,
        ..mailbox.put(id)
    };
    for (id, ttl_seconds) in [(1, 60), (2, 86_400), (3, 60), (4, 60)] {
        sender.put_stored(put(id, ttl_seconds)).await;
    }
    assert_eq!(owner.read().await, (5, 4));
    for id in 1..=4 {
        assert_eq!(owner.delivery().await, (u64::from(id), id));
    }
    drop(owner);
    // An hour ahead: of the four one is left, whoever asks.
    world.wait(3600);
    let mut owner = world.client(&mailbox.key).await;
    assert_eq!(owner.read().await, (5, 1));
    assert_eq!(owner.delivery().await, (2, 2));
    drop(owner);
    for jump in [3600, 7200, 1] {
        world.clock.fetch_sub(jump * 1000, Ordering::Relaxed);
        let mut owner = world.client(&mailbox.key).await;
        assert_eq!(owner.read().await, (5, 1));
        assert_eq!(owner.delivery().await, (2, 2));
        drop(owner);
        world = world.restart().await;
        let mut owner = world.client(&mailbox.key).await;
        assert_eq!(owner.read().await, (5, 1));
        assert_eq!(owner.delivery().await, (2, 2));
    }
    // With an earlier time it goes on in order all the same.
    let mut sender = world.client(&key(99)).await;
    sender.put_stored(put(5, 60)).await;
    let mut owner = world.client(&mailbox.key).await;
    assert_eq!(owner.read().await, (6, 2));
    assert_eq!((owner.delivery().await, owner.delivery().await), ((2, 2), (5, 5)));
    owner.ack(5).await;
    owner.settle().await;
    world.clock.fetch_sub(3_600_000, Ordering::Relaxed);
    let world = world.crash().await;
    let mut owner = world.client(&mailbox.key).await;
    // Killed, it may go on with a higher number.
    let (next, waiting) = owner.read().await;
    assert!(next >= 6 && waiting == 0, "{next}, {waiting}");
}
