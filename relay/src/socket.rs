//! A websocket after its handshake, on the server's side: messages in, frames out (RFC 6455, sections 5 to 7), on the library's
//! frame header.
//!
//! The library's own socket is deliberately not here: its buffers belong to each connection, and most connections rest. These
//! read into a buffer of the thread, and write what is queued from where it lies, all of it at once. What the messages mean is
//! in `session`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, Cursor, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use wire::frame::RelayFrame;
use wire::limits::FRAME_BYTES;

use crate::door::Doorstep;

/// Read at a time, at most: some thirty of the smallest envelopes.
const READ: usize = 32 * 1024;

/// What is held of an unfinished frame and not more than this is moved to the front of the thread's buffer before more is read;
/// a longer beginning is added to where it is.
const MOVED: usize = 4 * 1024;

/// Most fragments of a message: no client of ours sends any, and each costs more than its bytes.
const FRAGMENTS: usize = 64;

/// Longest content of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES: usize = 125;

/// Longest header of a frame that we send: without a mask.
const HEADER_BYTES: usize = 10;

/// Pieces gathered for one write, and the slices of those.
const PIECES: usize = 64;
const SLICES: usize = 2 * PIECES;

/// Room that an empty queue keeps.
const KEPT: usize = 4;

/// So little is copied into one place before it is written: a system call with many places costs more.
const COPIED: usize = 8 * 1024;

thread_local! {
    static CORK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; MOVED + READ]);
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    Binary(&'a [u8]),
    Text,
    /// A ping, which is answered by itself, or a pong.
    Heartbeat,
}

impl Message<'_> {
    /// The length of what is for us, in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Binary(bytes) => bytes.len(),
            Self::Text | Self::Heartbeat => 0,
        }
    }
}

/// Why a socket can't be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The other side left, or can't be reached.
    Gone,
    /// The other side said goodbye, and was answered.
    Closed,
    /// It broke the rules of RFC 6455.
    Protocol,
    /// A text that isn't UTF-8.
    Invalid,
    /// A frame or message above its bound.
    TooLong,
    /// No memory is left for what has come of a frame.
    Starved,
}

/// Whether to go on taking messages.
pub(crate) type GoOn = bool;

/// What is to be written: a head, and bytes that lie elsewhere.
struct Piece {
    head: [u8; HEADER_BYTES + RelayFrame::HEAD_BYTES],
    head_bytes: usize,
    body: Bytes,
    /// Of an envelope, for whoever counts them.
    envelope_bytes: usize,
    /// Whether it is a frame of ours and not the websocket's.
    is_frame: bool,
}

impl Piece {
    fn new(opcode: OpCode, body: Bytes, frame: Option<&RelayFrame>) -> Self {
        let mut head = [0; HEADER_BYTES + RelayFrame::HEAD_BYTES];
        let mut own = [0; RelayFrame::HEAD_BYTES];
        let mut rest = own.as_mut_slice();
        if let Some(frame) = frame {
            frame.encode_head(&mut rest);
        }
        let own_bytes = RelayFrame::HEAD_BYTES - rest.len();
        let header = FrameHeader {
            opcode,
            ..FrameHeader::default()
        };
        let mut rest = head.as_mut_slice();
        // It fits: there is room for the longest of both.
        header.format((own_bytes + body.len()) as u64, &mut rest).ok();
        rest.put_slice(own.get(..own_bytes).unwrap_or_default());
        let left = rest.len();
        Self {
            head_bytes: head.len() - left,
            head,
            body,
            envelope_bytes: 0,
            is_frame: frame.is_some(),
        }
    }

    fn head(&self) -> &[u8] {
        self.head.get(..self.head_bytes).unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.head_bytes + self.body.len()
    }
}

/// Fragments of a message that isn't whole.
struct Fragments {
    is_text: bool,
    count: usize,
    bytes: Vec<u8>,
}

/// How many of our frames, of those without an envelope, and bytes of envelopes, were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) frames: usize,
    pub(crate) answers: usize,
    pub(crate) envelope_bytes: usize,
    /// Whatever it was.
    pub(crate) bytes: usize,
}

/// See the module.
pub(crate) struct Socket {
    stream: Doorstep,
    /// What came and isn't taken yet, in the first so many of these bytes.
    held: Vec<u8>,
    filled: usize,
    fragments: Option<Box<Fragments>>,
    pieces: VecDeque<Piece>,
    /// How much of the first piece is written.
    begun: usize,
    unflushed: bool,
}

impl Socket {
    pub(crate) fn new(stream: Doorstep) -> Self {
        Self {
            stream,
            held: Vec::new(),
            filled: 0,
            fragments: None,
            pieces: VecDeque::new(),
            begun: 0,
            unflushed: false,
        }
    }

    /// The stranger at this socket has logged in.
    pub(crate) fn welcome(&mut self) {
        self.stream.welcome();
    }

    /// Hands messages to `take` as long as it wants more and there are any. Ready when it wants no more.
    pub(crate) fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        mut take: impl FnMut(Message<'_>) -> Result<GoOn, Fault>,
    ) -> Poll<Result<(), Fault>> {
        if self.filled > 0 {
            // It may hold whole frames, if somebody wanted no more of them.
            let mut held = std::mem::take(&mut self.held);
            let filled = held.get_mut(..self.filled).unwrap_or_default();
            let taken = self.take_frames(filled, &mut take);
            let (consumed, go_on) = match taken {
                Ok(taken) => taken,
                Err(fault) => return Poll::Ready(Err(fault)),
            };
            held.copy_within(consumed..self.filled, 0);
            (self.held, self.filled) = (held, self.filled - consumed);
            if !self.hold() {
                return Poll::Ready(Err(Fault::Starved));
            }
            if !go_on {
                return Poll::Ready(Ok(()));
            }
        }
        loop {
            let taken = if self.filled <= MOVED {
                BUFFER.with_borrow_mut(|buffer| self.poll_buffer(context, buffer, &mut take))
            } else {
                self.poll_held(context, &mut take)
            };
            match ready!(taken) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Ok(())),
                Err(fault) => return Poll::Ready(Err(fault)),
            }
        }
    }

    /// Reads once into the thread's buffer, behind what is held, and takes what is whole.
    fn poll_buffer(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        take: &mut impl FnMut(Message<'_>) -> Result<GoOn, Fault>,
    ) -> Poll<Result<GoOn, Fault>> {
        let before = self.filled;
        let came = {
            let Some(room) = buffer.get_mut(before..before + READ) else {
                return Poll::Ready(Err(Fault::Gone));
            };
            ready!(self.poll_read(context, room))?
        };
        if before > 0 {
            let (Some(start), Some(held)) = (buffer.get_mut(..before), self.held.get(..before)) else {
                return Poll::Ready(Err(Fault::Gone));
            };
            start.copy_from_slice(held);
        }
        let Some(bytes) = buffer.get_mut(..before + came) else {
            return Poll::Ready(Err(Fault::Gone));
        };
        let (consumed, go_on) = self.take_frames(bytes, take)?;
        let rest = bytes.get(consumed..).unwrap_or_default();
        self.held.clear();
        self.held.extend_from_slice(rest);
        self.filled = rest.len();
        if !self.hold() {
            return Poll::Ready(Err(Fault::Starved));
        }
        Poll::Ready(Ok(go_on))
    }

    /// Reads once behind what is held, the beginning of a long frame, and takes it when it is whole.
    fn poll_held(
        &mut self,
        context: &mut Context<'_>,
        take: &mut impl FnMut(Message<'_>) -> Result<GoOn, Fault>,
    ) -> Poll<Result<GoOn, Fault>> {
        let held = self.held.get(..self.filled).unwrap_or_default();
        let whole = match header(held)? {
            Some(frame) => frame.end(),
            None => return Poll::Ready(Err(Fault::Protocol)),
        };
        // Twice what came at most: what is only announced takes no memory.
        let room = whole.min(self.filled * 2).max(self.filled + 1);
        let mut held = std::mem::take(&mut self.held);
        held.resize(room, 0);
        let behind = held.get_mut(self.filled..).unwrap_or_default();
        let came = self.poll_read(context, behind);
        self.held = held;
        let came = ready!(came)?;
        self.filled += came;
        if !self.hold() {
            return Poll::Ready(Err(Fault::Starved));
        }
        if self.filled < whole {
            return Poll::Ready(Ok(true));
        }
        let mut held = std::mem::take(&mut self.held);
        let taken = self.take_frames(held.get_mut(..self.filled).unwrap_or_default(), take);
        self.filled = 0;
        self.hold();
        taken.map(|(_, go_on)| go_on).into()
    }

    fn poll_read(&mut self, context: &mut Context<'_>, room: &mut [u8]) -> Poll<Result<usize, Fault>> {
        let mut room = ReadBuf::new(room);
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut room));
        Poll::Ready(match (read, room.filled().len()) {
            (Ok(()), 0) => Err(Fault::Gone),
            (Ok(()), came) => Ok(came),
            (Err(_), _) if self.stream.is_overrun() => Err(Fault::TooLong),
            (Err(_), _) => Err(Fault::Gone),
        })
    }

    /// Counts what is held, and gives back what isn't.
    fn hold(&mut self) -> bool {
        if self.filled == 0 {
            self.held = Vec::new();
        }
        let fragments = self.fragments.as_ref().map_or(0, |fragments| fragments.bytes.len());
        self.stream.holds(self.held.capacity() + fragments)
    }

    /// Takes the whole frames that these bytes begin with. Says how many bytes they were, and whether more are wanted.
    fn take_frames(
        &mut self,
        bytes: &mut [u8],
        take: &mut impl FnMut(Message<'_>) -> Result<GoOn, Fault>,
    ) -> Result<(usize, GoOn), Fault> {
        let mut consumed = 0;
        while let Some(rest) = bytes.get_mut(consumed..).filter(|rest| !rest.is_empty()) {
            let Some(frame) = header(rest)? else { break };
            let Some(content) = rest.get_mut(frame.start..frame.end()) else {
                break;
            };
            unmask(content, frame.mask);
            consumed += frame.end();
            if !self.take_frame(&frame, content, take)? {
                return Ok((consumed, false));
            }
        }
        Ok((consumed, true))
    }

    fn take_frame(
        &mut self,
        frame: &Header,
        content: &[u8],
        take: &mut impl FnMut(Message<'_>) -> Result<GoOn, Fault>,
    ) -> Result<GoOn, Fault> {
        match frame.opcode {
            OpCode::Control(Control::Ping) => {
                let pong = Bytes::copy_from_slice(content);
                self.pieces
                    .push_back(Piece::new(OpCode::Control(Control::Pong), pong, None));
                take(Message::Heartbeat)
            }
            OpCode::Control(Control::Close) => {
                let answer = farewell(content)?;
                self.pieces
                    .push_back(Piece::new(OpCode::Control(Control::Close), answer, None));
                Err(Fault::Closed)
            }
            OpCode::Control(_) => take(Message::Heartbeat),
            OpCode::Data(Data::Continue) => {
                let fragments = self.fragments.as_mut().ok_or(Fault::Protocol)?;
                fragments.count += 1;
                if fragments.count > FRAGMENTS || fragments.bytes.len() + content.len() > FRAME_BYTES {
                    return Err(Fault::TooLong);
                }
                fragments.bytes.extend_from_slice(content);
                if !frame.is_final {
                    return Ok(true);
                }
                match self.fragments.take() {
                    Some(whole) => take(message(whole.is_text, &whole.bytes)?),
                    None => Ok(true),
                }
            }
            OpCode::Data(kind) => {
                if self.fragments.is_some() {
                    return Err(Fault::Protocol);
                }
                let is_text = kind == Data::Text;
                if frame.is_final {
                    return take(message(is_text, content)?);
                }
                self.fragments = Some(Box::new(Fragments {
                    is_text,
                    count: 1,
                    bytes: content.to_vec(),
                }));
                Ok(true)
            }
        }
    }

    /// Whether more should be queued before what is queued is written.
    pub(crate) fn has_room(&self) -> bool {
        self.pieces.len() < PIECES
    }

    /// Queues a frame of ours, whose envelope isn't copied.
    pub(crate) fn push(&mut self, frame: &RelayFrame) {
        let envelope = frame.envelope().map(|envelope| envelope.as_bytes().clone());
        let body = envelope.unwrap_or_default();
        let mut piece = Piece::new(OpCode::Data(Data::Binary), body, Some(frame));
        piece.envelope_bytes = piece.body.len();
        self.pieces.push_back(piece);
    }

    /// Queues a ping.
    pub(crate) fn ping(&mut self) {
        self.pieces
            .push_back(Piece::new(OpCode::Control(Control::Ping), Bytes::new(), None));
    }

    /// Queues the websocket's last word.
    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        let mut content = code.to_be_bytes().to_vec();
        content.extend(reason.bytes().take(CONTROL_BYTES - 2));
        self.pieces
            .push_back(Piece::new(OpCode::Control(Control::Close), content.into(), None));
    }

    /// Writes what is queued and adds up what was written. Ready when all of it is.
    pub(crate) fn poll_write(&mut self, context: &mut Context<'_>, written: &mut Written) -> Poll<io::Result<()>> {
        while !self.pieces.is_empty() {
            let wrote = if self.pending_at_most(COPIED) {
                CORK.with_borrow_mut(|cork| {
                    cork.clear();
                    for part in parts(&self.pieces, self.begun) {
                        cork.extend_from_slice(part);
                    }
                    Pin::new(&mut self.stream).poll_write(context, cork)
                })
            } else {
                self.poll_write_slices(context)
            };
            let wrote = ready!(wrote)?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            written.bytes += wrote;
            self.begun += wrote;
            while let Some(first) = self.pieces.front().filter(|first| first.len() <= self.begun) {
                self.begun -= first.len();
                written.frames += usize::from(first.is_frame);
                written.answers += usize::from(first.is_frame && first.envelope_bytes == 0);
                written.envelope_bytes += first.envelope_bytes;
                self.pieces.pop_front();
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn pending_at_most(&self, bytes: usize) -> bool {
        let mut sum = 0;
        self.pieces.iter().take(PIECES).all(|piece| {
            sum += piece.len();
            sum <= bytes
        })
    }

    fn poll_write_slices(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(parts(&self.pieces, self.begun)) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        let slices = slices.get(..count).unwrap_or_default();
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    /// Gives back the room that a burst needed.
    pub(crate) fn rest(&mut self) {
        self.pieces.shrink_to(KEPT);
    }

    /// Writes all that is queued.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_write(context, &mut Written::default())).await
    }

    /// Says the last word, and waits a little for the other side to have heard it.
    pub(crate) async fn hang_up(self) {
        self.stream.hang_up().await;
    }
}

/// What of these is still to be written, in its order and without what is written of the first.
fn parts(pieces: &VecDeque<Piece>, begun: usize) -> impl Iterator<Item = &[u8]> {
    let mut skip = begun;
    let parts = pieces.iter().take(PIECES);
    let parts = parts.flat_map(|piece| [piece.head(), &piece.body]);
    parts.filter_map(move |part| {
        let over = skip.min(part.len());
        skip -= over;
        part.get(over..).filter(|part| !part.is_empty())
    })
}

/// What a frame's header says, and where its content is.
struct Header {
    is_final: bool,
    opcode: OpCode,
    mask: [u8; 4],
    start: usize,
    bytes: usize,
}

impl Header {
    fn end(&self) -> usize {
        self.start + self.bytes
    }
}

/// The header that these bytes begin with, if it is whole, and within all bounds.
fn header(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let mut cursor = Cursor::new(bytes);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Fault::Protocol)?;
    let Some((header, length)) = parsed else {
        return Ok(None);
    };
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(Fault::Protocol);
    }
    let mask = header.mask.ok_or(Fault::Protocol)?;
    let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
    if matches!(header.opcode, OpCode::Control(_)) && (!header.is_final || length > CONTROL_BYTES as u64) {
        return Err(Fault::Protocol);
    }
    // A length has one form, the shortest.
    if start != header.len(length) {
        return Err(Fault::Protocol);
    }
    let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= FRAME_BYTES);
    Ok(Some(Header {
        is_final: header.is_final,
        opcode: header.opcode,
        mask,
        start,
        bytes: bytes.ok_or(Fault::TooLong)?,
    }))
}

/// Takes the mask off (RFC 6455, section 5.3).
fn unmask(content: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = content.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

fn message(is_text: bool, content: &[u8]) -> Result<Message<'_>, Fault> {
    if !is_text {
        return Ok(Message::Binary(content));
    }
    match std::str::from_utf8(content) {
        Ok(_) => Ok(Message::Text),
        Err(_) => Err(Fault::Invalid),
    }
}

/// The answer to the other side's last word, which is the same word.
fn farewell(content: &[u8]) -> Result<Bytes, Fault> {
    let Some((code, reason)) = content.split_first_chunk() else {
        return if content.is_empty() {
            Ok(Bytes::new())
        } else {
            Err(Fault::Protocol)
        };
    };
    if !CloseCode::from(u16::from_be_bytes(*code)).is_allowed() {
        return Err(Fault::Protocol);
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Fault::Invalid);
    }
    Ok(Bytes::copy_from_slice(code))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::task::Waker;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use wire::envelope::Envelope;

    use super::*;
    use crate::memory::Memory;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    async fn pair(memory: &Memory) -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = Socket::new(Doorstep::new(stream.into(), memory.charge(1000)));
        socket.welcome();
        (socket, client)
    }

    /// A frame as a client sends it.
    fn frame(first: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match u16::try_from(content.len()) {
            Ok(short) if short < 126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
            Ok(middle) => {
                bytes.push(0x80 | 126);
                bytes.put_u16(middle);
            }
            Err(_) => {
                bytes.push(0x80 | 127);
                bytes.put_u64(content.len() as u64);
            }
        }
        bytes.extend(MASK);
        bytes.extend(content.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// What comes until `most` messages did, or the end.
    async fn messages(socket: &mut Socket, most: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let mut came = Vec::new();
        let taken = poll_fn(|context| {
            socket.poll_take(context, |message| {
                if let Message::Binary(bytes) = message {
                    came.push(bytes.to_vec());
                }
                Ok(came.len() < most)
            })
        });
        taken.await.map(|()| came)
    }

    #[tokio::test]
    async fn frames_of_every_length_come_through_in_whatever_pieces_they_arrive() {
        let lengths = [0, 1, 125, 126, 4096, 65_535, 65_536, 100_000, 131_072, 7, 33_000];
        let contents = lengths.map(|length: usize| (0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>());
        let bytes = contents
            .iter()
            .flat_map(|content| frame(0x82, content))
            .collect::<Vec<_>>();
        for piece in [bytes.len(), 40_000, 1000] {
            let (mut socket, mut client) = pair(&Memory::default()).await;
            let sent = async {
                for piece in bytes.chunks(piece) {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (came, ()) = tokio::join!(messages(&mut socket, contents.len()), sent);
            assert!(came.unwrap() == contents, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn what_isnt_wanted_yet_is_held_and_comes_without_anything_new() {
        let (mut socket, mut client) = pair(&Memory::default()).await;
        let bytes = [frame(0x82, b"one"), frame(0x82, b"two"), frame(0x82, b"three")].concat();
        client.write_all(&bytes).await.unwrap();
        assert_eq!(messages(&mut socket, 1).await, Ok(vec![b"one".to_vec()]));
        assert_eq!(
            messages(&mut socket, 2).await,
            Ok(vec![b"two".to_vec(), b"three".to_vec()])
        );
    }

    #[tokio::test]
    async fn a_growing_frame_is_counted_and_cut_when_memory_is_used_up() {
        let memory = Memory::new(400_000);
        let (mut socket, mut client) = pair(&memory).await;
        let bytes = frame(0x82, &[0; 120_000]);
        let (first, rest) = bytes.split_at(60_000);
        client.write_all(first).await.unwrap();
        // All of it is read when as much is held; what was only announced isn't counted.
        let mut context = Context::from_waker(Waker::noop());
        while socket.filled < first.len() {
            assert!(socket.poll_take(&mut context, |_| Ok(true)).is_pending());
            tokio::task::yield_now().await;
        }
        assert!((61_000..=121_000).contains(&memory.used()), "{}", memory.used());
        let elsewhere = memory.charge(400_000);
        client.write_all(&rest[..10_000]).await.unwrap();
        assert_eq!(messages(&mut socket, 1).await, Err(Fault::Starved));
        drop((elsewhere, socket));
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn what_is_queued_is_written_in_order_however_little_is_taken_at_a_time() {
        let (mut socket, mut client) = pair(&Memory::default()).await;
        let mut expected = Vec::new();
        for sequence in 1..=100 {
            let length = [1024, 65_536][usize::try_from(sequence).unwrap() % 2];
            let envelope = Envelope::from_bytes(vec![(sequence % 251) as u8; length].into()).unwrap();
            let deliver = RelayFrame::Deliver {
                sequence,
                received: 5,
                envelope,
            };
            socket.push(&deliver);
            let content = deliver.encode();
            let header = FrameHeader {
                opcode: OpCode::Data(Data::Binary),
                ..FrameHeader::default()
            };
            header.format(content.len() as u64, &mut expected).unwrap();
            expected.extend_from_slice(&content);
        }
        let mut written = Written::default();
        let writing = poll_fn(|context| socket.poll_write(context, &mut written));
        let reading = async {
            let mut came = vec![0; expected.len()];
            tokio::io::AsyncReadExt::read_exact(&mut client, &mut came)
                .await
                .unwrap();
            came
        };
        let (wrote, came) = tokio::join!(writing, reading);
        wrote.unwrap();
        assert!(came == expected, "other bytes came");
        assert_eq!(
            (written.frames, written.answers, written.bytes),
            (100, 0, expected.len())
        );
        assert_eq!(written.envelope_bytes, 50 * (1024 + 65_536));
    }

    #[test]
    fn a_mask_is_taken_off_whatever_the_length() {
        for length in 0..40 {
            let plain: Vec<u8> = (0..length).collect();
            let mut masked = frame(0x82, &plain).split_off(6);
            unmask(&mut masked, MASK);
            assert_eq!(masked, plain);
        }
    }
}
