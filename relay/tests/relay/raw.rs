//! A websocket by hand over a bare TCP stream: every bit of a frame is put together here, so that no library's leniency
//! stands between a test and the relay (RFC 6455, section 5.2).

use super::*;

/// The last frame of a message.
pub(super) const FIN: u8 = 0x80;
pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xa;

/// A mask that leaves no byte as it is.
pub(super) const MASK: [u8; 4] = [0x91, 0x5c, 0xe3, 0x3e];

/// How a length is written.
#[derive(Clone, Copy)]
pub(super) enum Length {
    /// In as few bytes as can be, as it has to be.
    Fit(u64),
    In16Bits(u16),
    In64Bits(u64),
}

/// The beginning of a frame, up to the mask.
fn header(first: u8, masked: bool, length: Length) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match length {
        Length::Fit(length @ 0..126) => bytes.push(bit | u8::try_from(length).unwrap()),
        Length::Fit(length @ 126..0x1_0000) => {
            return header(first, masked, Length::In16Bits(u16::try_from(length).unwrap()));
        }
        Length::Fit(length) => return header(first, masked, Length::In64Bits(length)),
        Length::In16Bits(length) => {
            bytes.push(bit | 126);
            bytes.extend(length.to_be_bytes());
        }
        Length::In64Bits(length) => {
            bytes.push(bit | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}

/// What a mask makes of a payload.
pub(super) fn masked(mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect()
}

/// All of a frame but what it carries.
pub(super) fn head(first: u8, length: Length) -> Vec<u8> {
    [header(first, true, length), MASK.to_vec()].concat()
}

/// A frame as a client sends it, with its mask.
pub(super) fn frame_with(first: u8, mask: [u8; 4], length: Length, payload: &[u8]) -> Vec<u8> {
    let header = header(first, true, length);
    [header, mask.to_vec(), masked(mask, payload)].concat()
}

/// A frame as a client sends it.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(first, MASK, Length::Fit(payload.len() as u64), payload)
}

/// One as only a server may send it.
pub(super) fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [
        header(first, false, Length::Fit(payload.len() as u64)),
        payload.to_vec(),
    ]
    .concat()
}

/// One of the protocol's frames as a whole message.
pub(super) fn message(frame: &ClientFrame) -> Vec<u8> {
    self::frame(FIN | BINARY, &frame.encode())
}

/// What comes from the relay.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A frame by its opcode, with its payload.
    Frame(u8, Vec<u8>),
    /// The end of the connection, in order or not.
    End,
}

/// A connection of which the test writes and reads the bytes.
pub(super) struct Raw {
    pub(super) stream: TcpStream,
}

impl Raw {
    /// A connection that is a websocket and nothing more yet.
    pub(super) async fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Self { stream };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        raw.say(request.as_bytes()).await;
        let answer = raw.head().await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        // The example of RFC 6455, section 1.3.
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        raw
    }

    /// The relay's answer to the upgrade.
    pub(super) async fn head(&mut self) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(soon(self.stream.read_u8()).await.unwrap());
        }
        String::from_utf8(answer).unwrap()
    }

    /// A connection that has the challenge, and the login that answers it.
    pub(super) async fn stranger(address: SocketAddr, key: &MailboxKey) -> (Self, ClientFrame) {
        let mut raw = Self::dial(address).await;
        let RelayFrame::Challenge { nonce, .. } = raw.answer().await else {
            panic!("no challenge");
        };
        let name = login::authority(&format!("ws://{address}")).unwrap();
        (raw, answer(key, &name, &nonce))
    }

    /// A connection that is logged in.
    pub(super) async fn guest(address: SocketAddr, key: &MailboxKey) -> Self {
        let (mut raw, login) = Self::stranger(address, key).await;
        raw.say(&message(&login)).await;
        assert!(matches!(raw.answer().await, RelayFrame::Welcome { .. }));
        raw
    }

    /// Writes bytes. A relay that has hung up is no failure: what it said before is still to be heard.
    pub(super) async fn say(&mut self, bytes: &[u8]) -> bool {
        soon(self.stream.write_all(bytes)).await.is_ok()
    }

    /// Writes bytes and lets the relay, which runs on this test's one thread, take them: what is written next comes by itself.
    pub(super) async fn say_apart(&mut self, bytes: &[u8]) {
        assert!(self.say(bytes).await);
        // The runtime looks for what came after so many turns at the latest (tokio's `event_interval` is 61); then it is the relay's.
        for _ in 0..3 * 61 {
            tokio::task::yield_now().await;
        }
    }

    /// The next frame, which must be one as a server sends it: whole, without reserved bits and mask, and no longer written
    /// than needed.
    pub(super) async fn next(&mut self) -> Heard {
        let Ok(first) = soon(self.stream.read_u8()).await else {
            return Heard::End;
        };
        let Ok(second) = soon(self.stream.read_u8()).await else {
            return Heard::End;
        };
        assert_eq!(first & 0xf0, FIN, "not a whole message, or reserved bits: {first:#x}");
        assert_eq!(second & 0x80, 0, "a server doesn't mask");
        let length = match second {
            126 => {
                let length = soon(self.stream.read_u16()).await.unwrap();
                assert!(length >= 126);
                u64::from(length)
            }
            127 => {
                let length = soon(self.stream.read_u64()).await.unwrap();
                assert!(length > 0xffff);
                length
            }
            short => u64::from(short),
        };
        assert!(length <= 128 * 1024, "{length}");
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        match soon(self.stream.read_exact(&mut payload)).await {
            Ok(_) => Heard::Frame(first & 0x0f, payload),
            Err(_) => Heard::End,
        }
    }

    /// The next of the protocol's frames.
    pub(super) async fn answer(&mut self) -> RelayFrame {
        match self.next().await {
            Heard::Frame(BINARY, payload) => RelayFrame::decode(payload.into()).unwrap(),
            other => panic!("no frame but {other:?}"),
        }
    }

    /// The relay closes with one of these codes and hangs up.
    pub(super) async fn ends_with(mut self, codes: &[u16], after: &str) {
        loop {
            match self.next().await {
                Heard::Frame(CLOSE, payload) => {
                    assert!(payload.len() >= 2, "after {after}: closed without a code");
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    assert!(
                        codes.contains(&code),
                        "after {after}: closed with {code}, not {codes:?}"
                    );
                    assert!(std::str::from_utf8(&payload[2..]).is_ok());
                    // The closing handshake's other half.
                    self.say(&frame(FIN | CLOSE, &payload[..2])).await;
                    // What it owed for an earlier ping may still come.
                    let mut last = self.next().await;
                    while matches!(last, Heard::Frame(PONG, _)) {
                        last = self.next().await;
                    }
                    assert_eq!(last, Heard::End, "after {after}");
                    return;
                }
                Heard::Frame(PING | PONG, _) => {}
                other => panic!("after {after}: not closed but {other:?}"),
            }
        }
    }

    /// The connection is whole: a request is answered, and its answer is what comes next.
    pub(super) async fn works(&mut self, after: &str) {
        let capability = Capability::from_bytes(&[0xee; 32]).hash();
        self.say(&message(&ClientFrame::Revoke { capability })).await;
        let answer = self.answer().await;
        assert_eq!(answer, RelayFrame::Done(Done::Revoke(capability)), "after {after}");
    }
}
