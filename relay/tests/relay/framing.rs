//! RFC 6455 at its edges, by raw sockets: what isn't websocket closes with the code that says so, and everything odd that is
//! allowed is understood.

use super::raw::*;
use super::*;

const PROTOCOL: &[u16] = &[1002];
const TOO_LONG: &[u16] = &[1009];

/// Everything that breaks a rule in so many bytes, and the codes that may be said to it. No message is open before.
fn broken() -> Vec<(String, Vec<u8>, &'static [u16])> {
    let mut broken: Vec<(String, Vec<u8>, &'static [u16])> = Vec::new();
    let mut add = |what: &str, bytes: Vec<u8>, codes| broken.push((what.to_owned(), bytes, codes));

    add("text", frame(FIN | TEXT, b"hello"), &[1003]);
    add("text of no length", frame(FIN | TEXT, b""), &[1003]);
    // That it is text is enough; whoever looks first whether it is any may say so.
    for invalid in [&b"\xff"[..], b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f"] {
        add("invalid text", frame(FIN | TEXT, invalid), &[1003, 1007]);
    }
    let split = [frame(TEXT, b"\xff"), frame(FIN | CONTINUATION, b"\xff")].concat();
    add("invalid text in fragments", split, &[1003, 1007]);

    add("a continuation of nothing", frame(FIN | CONTINUATION, b"x"), PROTOCOL);
    add("a fragment of nothing", frame(CONTINUATION, b"x"), PROTOCOL);
    for second in [BINARY, FIN | BINARY] {
        let twice = [frame(BINARY, b"x"), frame(second, b"x")].concat();
        add("a message inside another", twice, PROTOCOL);
    }
    let other = [frame(BINARY, b"x"), frame(FIN | TEXT, b"x")].concat();
    add("a text inside another message", other, &[1002, 1003]);

    for control in [PING, PONG, CLOSE] {
        add("a control frame in fragments", frame(control, b""), PROTOCOL);
        add("a long control frame", frame(FIN | control, &[0; 126]), PROTOCOL);
        add("an unmasked control frame", unmasked(FIN | control, b""), PROTOCOL);
        for length in [Length::In64Bits(1 << 20), Length::In64Bits(1 << 40)] {
            add(
                "the head of an endless control frame",
                head(FIN | control, length),
                PROTOCOL,
            );
        }
    }
    for bit in [0x40, 0x20, 0x10] {
        for opcode in [BINARY, TEXT, PING, PONG, CLOSE] {
            add("a reserved bit", frame(FIN | bit | opcode, b""), PROTOCOL);
        }
        let inside = [frame(BINARY, b"x"), frame(FIN | bit | CONTINUATION, b"x")].concat();
        add("a reserved bit inside a message", inside, PROTOCOL);
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        add("a reserved opcode", frame(FIN | opcode, b"x"), PROTOCOL);
        add("a reserved opcode, not final", frame(opcode, b"x"), PROTOCOL);
    }
    add("an unmasked message", unmasked(FIN | BINARY, b"\x03"), PROTOCOL);
    add("an unmasked long one", unmasked(FIN | BINARY, &[3; 300]), PROTOCOL);
    let late = [frame(BINARY, b"\x03"), unmasked(FIN | CONTINUATION, b"x")].concat();
    add("an unmasked continuation", late, PROTOCOL);

    for length in [1 << 63, u64::MAX] {
        let bytes = head(FIN | BINARY, Length::In64Bits(length));
        add("a length with its highest bit set", bytes, &[1002, 1009]);
    }

    add("a close of one byte", frame(FIN | CLOSE, b"\x03"), PROTOCOL);
    for code in [0_u16, 1, 999, 1004, 1005, 1006, 1015, 1100, 2000, 2999, 5000, u16::MAX] {
        add(
            &format!("a close with {code}"),
            frame(FIN | CLOSE, &code.to_be_bytes()),
            PROTOCOL,
        );
    }
    let words = [&1000_u16.to_be_bytes()[..], b"\xff\xfe"].concat();
    add(
        "a close with words that aren't text",
        frame(FIN | CLOSE, &words),
        &[1002, 1007],
    );
    broken
}

/// Abuse case A10.
#[tokio::test]
async fn what_isnt_websocket_closes_with_the_code_that_says_so() {
    let world = World::new().await;
    for (what, bytes, codes) in broken() {
        let (mut stranger, _) = Raw::stranger(world.address, &key(1)).await;
        stranger.say(&bytes).await;
        stranger.ends_with(codes, &format!("{what}, before login")).await;
        let mut guest = Raw::guest(world.address, &key(1)).await;
        guest.say(&bytes).await;
        guest.ends_with(codes, &format!("{what}, after login")).await;
    }
    // And to everybody else nothing has happened.
    Raw::guest(world.address, &key(1)).await.works("all that").await;
}

/// Abuse cases I03 and I04: nobody has to send what a frame claims before it is refused.
#[tokio::test]
async fn a_frame_that_claims_too_much_is_refused_by_its_head_alone() {
    let world = World::with(|config| config.login_deadline = Duration::from_millis(300)).await;
    const KIB: u64 = 1024;
    for opcode in [FIN | BINARY, BINARY] {
        for length in [4 * KIB + 1, 0x1_0000, 128 * KIB, 16 * KIB * KIB, 1 << 40, (1 << 63) - 1] {
            let (mut stranger, _) = Raw::stranger(world.address, &key(1)).await;
            stranger.say(&head(opcode, Length::Fit(length))).await;
            // What a guest could send is held against the bytes that come, and against the deadline.
            let late = [1009, Close::TooSlow.code()];
            let codes = if length > 128 * KIB { TOO_LONG } else { &late };
            stranger.ends_with(codes, &format!("{length} bytes")).await;
        }
        for length in [128 * KIB + 1, 16 * KIB * KIB, 1 << 40, (1 << 63) - 1] {
            let mut guest = Raw::guest(world.address, &key(1)).await;
            guest.say(&head(opcode, Length::Fit(length))).await;
            guest.ends_with(TOO_LONG, &format!("{length} bytes")).await;
        }
    }
}

/// Abuse cases A01, I03 and I04: the bounds are those of the whole message.
#[tokio::test]
async fn a_message_in_fragments_is_no_longer_than_one_in_one_piece() {
    let world = World::new().await;
    // A stranger's bound is on its bytes, heads of frames included.
    for (most, beyond, before) in [(4000, 4097, true), (128 * 1024, 128 * 1024 + 1, false)] {
        for (length, codes) in [(most, &[4400_u16][..]), (beyond, TOO_LONG)] {
            for pieces in [1, 2, 7] {
                let mut raw = match before {
                    true => Raw::stranger(world.address, &key(1)).await.0,
                    false => Raw::guest(world.address, &key(1)).await,
                };
                // Too long for an acknowledgement, at any length.
                raw.say(&fragments(&vec![4; length], pieces).concat()).await;
                raw.ends_with(codes, &format!("{length} bytes in {pieces} pieces"))
                    .await;
            }
        }
    }
}

/// A binary message in so many frames.
fn fragments(message: &[u8], pieces: usize) -> Vec<Vec<u8>> {
    let chunks: Vec<_> = message.chunks(message.len().div_ceil(pieces).max(1)).collect();
    let last = chunks.len() - 1;
    let piece = |(at, chunk): (usize, &&[u8])| {
        let opcode = if at == 0 { BINARY } else { CONTINUATION };
        frame(if at == last { FIN | opcode } else { opcode }, chunk)
    };
    chunks.iter().enumerate().map(piece).collect()
}

/// Abuse case I04: whether they hold a byte each or nothing at all, fragments come to an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_without_end_are_cut_off() {
    let world = World::new().await;
    for before in [true, false] {
        for payload in [&b""[..], b"x"] {
            let mut raw = match before {
                true => Raw::stranger(world.address, &key(1)).await.0,
                false => Raw::guest(world.address, &key(1)).await,
            };
            raw.say(&frame(BINARY, payload)).await;
            let many = frame(CONTINUATION, payload).repeat(1000);
            // Far more than anybody could need: the relay has to say so by then.
            for _ in 0..1000 {
                if !raw.say(&many).await {
                    break;
                }
            }
            raw.ends().await;
        }
    }
}

impl Raw {
    /// The relay hangs up; what it says before may be lost on the way, as it is when there is unread data.
    async fn ends(mut self) {
        loop {
            match self.next().await {
                Heard::Frame(CLOSE, payload) => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    assert!([1002, 1008, 1009, 4408, 4429].contains(&code), "closed with {code}");
                    return;
                }
                Heard::Frame(PING | PONG, _) => {}
                Heard::End => return,
                other => panic!("not cut off but {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn fragments_are_one_message_whatever_comes_between_them() {
    let world = World::new().await;
    let (mut owner, _sender, mailbox) = world.pair().await;
    owner.read().await;
    let (mut raw, login) = Raw::stranger(world.address, &key(98)).await;
    let login = login.encode();
    let pieces = [
        frame(BINARY, b""),
        frame(FIN | PING, b"between"),
        frame(CONTINUATION, &login[..1]),
        frame(CONTINUATION, b""),
        frame(FIN | PONG, b"unasked"),
        frame(CONTINUATION, &login[1..40]),
        frame(CONTINUATION, &login[40..]),
        frame(FIN | CONTINUATION, b""),
    ];
    raw.say(&pieces.concat()).await;
    assert_eq!(raw.next().await, Heard::Frame(PONG, b"between".to_vec()));
    assert!(matches!(raw.answer().await, RelayFrame::Welcome { .. }));
    for (id, pieces) in [(1, 1), (2, 2), (3, 3), (4, 16), (5, 64)] {
        let mut bytes = Vec::new();
        let put = ClientFrame::Put(mailbox.put(id)).encode();
        for (at, piece) in fragments(&put, pieces).into_iter().enumerate() {
            bytes.extend(piece);
            if at == 1 {
                bytes.extend(frame(FIN | PING, &[id]));
            }
        }
        raw.say(&bytes).await;
        assert_eq!(owner.delivery().await, (u64::from(id), id));
        owner.ack(u64::from(id)).await;
        if pieces > 1 {
            assert_eq!(raw.next().await, Heard::Frame(PONG, vec![id]));
        }
        assert!(matches!(raw.answer().await, RelayFrame::Stored { .. }));
    }
}

#[tokio::test]
async fn a_ping_of_every_length_comes_back_exactly() {
    let world = World::new().await;
    // A connection may say only so many at once.
    for lengths in (0..=125_u8).collect::<Vec<_>>().chunks(14) {
        let (mut raw, login) = Raw::stranger(world.address, &key(1)).await;
        let (before, after) = lengths.split_at(2);
        let payload = |length: &u8| (0..*length).map(|byte| byte ^ 0xa5).collect::<Vec<_>>();
        for length in before {
            raw.say(&frame(FIN | PING, &payload(length))).await;
            assert_eq!(raw.next().await, Heard::Frame(PONG, payload(length)));
        }
        raw.say(&message(&login)).await;
        assert!(matches!(raw.answer().await, RelayFrame::Welcome { .. }));
        for length in after {
            raw.say(&frame(FIN | PING, &payload(length))).await;
            assert_eq!(raw.next().await, Heard::Frame(PONG, payload(length)));
        }
        // Nobody asked for it, and nobody answers.
        raw.say(&frame(FIN | PONG, b"unasked")).await;
        raw.works("a pong").await;
    }
}

#[tokio::test]
async fn it_doesnt_matter_where_a_frame_is_cut() {
    let world = World::new().await;
    let (mut owner, _sender, mailbox) = world.pair().await;
    owner.read().await;
    let put = |id| message(&ClientFrame::Put(mailbox.put(id)));
    let long = put(0);
    // Everywhere in the head and in what a frame begins with; of the envelope's bytes a few will do.
    let edges: Vec<_> = (1..140).chain([500, long.len() - 1]).collect();
    let mut raw = Raw::guest(world.address, &key(98)).await;
    for (number, edge) in (1_u64..).zip(edges) {
        let id = u8::try_from(number).unwrap();
        let bytes = [put(id), frame(FIN | PONG, b"")].concat();
        let (first, second) = bytes.split_at(edge);
        raw.say_apart(first).await;
        raw.say(&second[..second.len() - 6]).await;
        assert_eq!(owner.delivery().await, (number, id));
        owner.ack(number).await;
        assert!(matches!(raw.answer().await, RelayFrame::Stored { .. }), "cut at {edge}");
    }
    // And byte by byte, login and all.
    let (mut raw, login) = Raw::stranger(world.address, &key(98)).await;
    for byte in message(&login) {
        raw.say_apart(&[byte]).await;
    }
    assert!(matches!(raw.answer().await, RelayFrame::Welcome { .. }));
    for byte in frame(FIN | PING, b"slowly") {
        raw.say_apart(&[byte]).await;
    }
    assert_eq!(raw.next().await, Heard::Frame(PONG, b"slowly".to_vec()));
    raw.works("single bytes").await;
}

#[tokio::test]
async fn many_frames_in_one_segment_are_all_heard_in_order() {
    let world = World::new().await;
    let (mut owner, _sender, mailbox) = world.pair().await;
    let mut raw = Raw::guest(world.address, &key(98)).await;
    let mut bytes = Vec::new();
    for id in 0..200 {
        bytes.extend(message(&ClientFrame::Put(mailbox.put(id))));
        if id % 20 == 0 {
            bytes.extend(frame(FIN | PING, &[id]));
        }
    }
    raw.say(&bytes).await;
    let (mut stored, mut pongs) = (Vec::new(), Vec::new());
    while stored.len() < 200 || pongs.len() < 10 {
        match raw.next().await {
            Heard::Frame(PONG, payload) => pongs.push(payload[0]),
            Heard::Frame(BINARY, payload) => match RelayFrame::decode(payload.into()).unwrap() {
                RelayFrame::Stored { id, .. } => stored.push(id[0]),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    assert!(stored.iter().copied().eq(0..200), "{stored:?}");
    assert!(pongs.iter().copied().eq((0..200).step_by(20)), "{pongs:?}");
    owner.read().await;
    for id in 0..200 {
        assert_eq!(owner.delivery().await, (u64::from(id) + 1, id));
        owner.ack(u64::from(id) + 1).await;
    }
}

#[tokio::test]
async fn every_mask_and_every_length_is_understood() {
    let world = World::new().await;
    let (mut owner, _sender, mailbox) = world.pair().await;
    owner.read().await;
    let mut raw = Raw::guest(world.address, &key(98)).await;
    let mut sequence = 0;
    for (mask, length) in [
        ([0; 4], 1024),
        ([0xff; 4], 2048),
        ([1, 0, 0, 0], 4096),
        ([0, 0, 0, 0x80], 16_384),
        (MASK, 65_536),
        ([0xde, 0xad, 0xbe, 0xef], 65_536),
    ] {
        sequence += 1;
        let envelope: Bytes = (0..length)
            .map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let put = Put {
            envelope: envelope.clone(),
            ..mailbox.put(u8::try_from(sequence).unwrap())
        };
        let payload = ClientFrame::Put(put).encode();
        raw.say(&frame_with(
            FIN | BINARY,
            mask,
            Length::Fit(payload.len() as u64),
            &payload,
        ))
        .await;
        match owner.next().await {
            RelayFrame::Deliver {
                sequence: number,
                envelope: delivered,
                ..
            } => assert!(number == sequence && *delivered.as_bytes() == envelope, "{mask:?}"),
            other => panic!("no delivery but {other:?}"),
        }
        owner.ack(sequence).await;
        assert!(matches!(raw.answer().await, RelayFrame::Stored { .. }));
    }
}

/// A length that is written longer than needed breaks the rules; whoever is lenient about it must mean the same frame.
#[tokio::test]
async fn a_length_written_too_long_is_refused_or_means_what_it_says() {
    let world = World::new().await;
    for control in [false, true] {
        for length in [Length::In16Bits(5), Length::In64Bits(5), Length::In64Bits(125)] {
            let (Length::Fit(bytes) | Length::In64Bits(bytes)) = length else {
                continue;
            };
            let mut raw = Raw::guest(world.address, &key(1)).await;
            let payload = vec![b'x'; usize::try_from(bytes).unwrap()];
            let opcode = if control { PING } else { BINARY };
            raw.say(&frame_with(FIN | opcode, MASK, length, &payload)).await;
            match raw.next().await {
                Heard::Frame(PONG, echo) => assert!(control && echo == payload),
                // As the message that it is, it is malformed.
                Heard::Frame(CLOSE, why) => {
                    let code = u16::from_be_bytes([why[0], why[1]]);
                    assert!(code == 1002 || (code == 4400 && !control), "{code}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_close_is_answered_with_a_close_and_the_line_is_dead() {
    let world = World::new().await;
    let mut closes = vec![Vec::new()];
    for code in [
        1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999,
    ] {
        closes.push(code.to_be_bytes().to_vec());
        closes.push([&code.to_be_bytes()[..], "bye — ".as_bytes()].concat());
        closes.push([&code.to_be_bytes()[..], &[b'x'; 123]].concat());
    }
    for (number, payload) in closes.into_iter().enumerate() {
        let mut raw = match number % 2 {
            0 => Raw::stranger(world.address, &key(1)).await.0,
            _ => Raw::guest(world.address, &key(1)).await,
        };
        // What comes after it isn't heard any more.
        let capability = Capability::from_bytes(&[0xee; 32]).hash();
        let late = message(&ClientFrame::Revoke { capability });
        raw.say(&[frame(FIN | CLOSE, &payload), frame(FIN | PING, b"late"), late].concat())
            .await;
        match raw.next().await {
            Heard::Frame(CLOSE, answer) => {
                let code = payload.get(..2).unwrap_or(&[]);
                let normal = 1000_u16.to_be_bytes();
                assert!(
                    answer.get(..2).unwrap_or(&[]) == code || answer.starts_with(&normal),
                    "{payload:?}: {answer:?}"
                );
            }
            // It hung up on what was still to be read.
            Heard::End => continue,
            other => panic!("{payload:?}: not closed but {other:?}"),
        }
        assert_eq!(raw.next().await, Heard::End, "{payload:?}");
    }
}

/// Whoever speaks before the relay has answered the upgrade is understood or hung up on; nobody waits for ever.
#[tokio::test]
async fn a_frame_right_behind_the_request_is_answered_or_the_end() {
    let world = World::new().await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let mut raw = Raw { stream };
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        world.address
    );
    raw.say(&[request.as_bytes(), &frame(FIN | PING, b"early")].concat())
        .await;
    let mut first = [0; 12];
    if soon(raw.stream.read_exact(&mut first)).await.is_err() {
        return;
    }
    if !first.starts_with(b"HTTP/1.1 101") {
        assert!(first.starts_with(b"HTTP/1.1 400"), "{first:?}");
        return;
    }
    raw.head().await;
    let mut heard = Vec::new();
    while heard.len() < 2 {
        match raw.next().await {
            Heard::Frame(opcode, _) => heard.push(opcode),
            Heard::End => return,
        }
    }
    heard.sort_unstable();
    assert_eq!(heard, [BINARY, PONG]);
}
