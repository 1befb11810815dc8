//! One client's connection, as bytes: what it says and hears is its dialect's. Written by hand and not on a websocket library, so
//! that the load costs as little as can be and the same for all servers. Not here: the dialects (`ours`, `peers`), TLS (`door`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use crate::door::{Door, Stream};

/// Bytes of a message: the smallest envelope.
pub const PAYLOAD: usize = 1024;

/// How long an answer may take before something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How much is read at a time by a connection that works.
const BUFFER: usize = 64 * 1024;

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A message from the other end.
    Delivered,
    /// The server has this end's message safe.
    Stored,
    /// Something else that needs nothing from the load.
    Other,
}

/// How a client speaks with one kind of server, once its connection is set up.
pub trait Dialect: Send {
    /// Writes one message for the other end.
    fn say(&mut self, out: &mut Vec<u8>);

    /// Takes the first of what came: how many bytes it is, and what. None until more comes.
    fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>>;

    /// Acknowledges what was delivered so far, if that is this server's way.
    fn acknowledge(&mut self, _out: &mut Vec<u8>) {}

    /// Whether each message said is answered by `Stored`.
    fn is_told_stored(&self) -> bool {
        false
    }
}

/// How many of each came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub delivered: u64,
    pub stored: u64,
}

/// See the module.
pub struct Line<D: ?Sized = dyn Dialect> {
    stream: Stream,
    input: Vec<u8>,
    start: usize,
    end: usize,
    pub out: Vec<u8>,
    written: usize,
    pub dialect: Box<D>,
}

impl<D: Dialect + ?Sized> Line<D> {
    pub async fn dial(door: &Door, dialect: Box<D>) -> Result<Self> {
        Ok(Self {
            stream: door.open().await?,
            input: Vec::new(),
            start: 0,
            end: 0,
            out: Vec::new(),
            written: 0,
            dialect,
        })
    }

    /// Queues one message for the other end.
    pub fn say(&mut self) {
        self.dialect.say(&mut self.out);
    }

    /// Writes what is queued. Ready when all of it is written.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        while self.written < self.out.len() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &self.out[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(anyhow!("the connection takes nothing")));
            }
            self.written += count;
        }
        self.out.clear();
        self.written = 0;
        // What TLS still holds back.
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        Poll::Ready(Ok(()))
    }

    pub async fn flush(&mut self) -> Result<()> {
        timeout(PATIENCE, std::future::poll_fn(|context| self.poll_flush(context))).await?
    }

    /// Reads until something was delivered or stored, and acknowledges what was delivered.
    pub fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Result<Tally>> {
        loop {
            let mut tally = Tally::default();
            while let Some((length, heard)) = self.dialect.hear(&self.input[self.start..self.end], &mut self.out)? {
                self.start += length;
                match heard {
                    Heard::Delivered => tally.delivered += 1,
                    Heard::Stored => tally.stored += 1,
                    Heard::Other => {}
                }
            }
            if tally.delivered > 0 {
                self.dialect.acknowledge(&mut self.out);
            }
            if tally.delivered + tally.stored > 0 {
                return Poll::Ready(Ok(tally));
            }
            ready!(self.poll_read(context))?;
        }
    }

    /// Waits until something is delivered or stored, writing what is queued meanwhile.
    pub async fn heard(&mut self) -> Result<Tally> {
        let heard = std::future::poll_fn(|context| {
            let _ = self.poll_flush(context)?;
            self.poll_hear(context)
        });
        timeout(PATIENCE, heard).await.context("the server is silent")?
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.make_room(BUFFER);
        let mut buffer = ReadBuf::new(&mut self.input[self.end..]);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        let count = buffer.filled().len();
        if count == 0 {
            return Poll::Ready(Err(anyhow!("the server hung up")));
        }
        self.end += count;
        Poll::Ready(Ok(()))
    }

    fn make_room(&mut self, size: usize) {
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.input.len() < size {
            self.input.resize(size, 0);
        }
    }

    /// Reads until the dialect took something, for setting up. What it took is returned as bytes.
    pub async fn next(&mut self) -> Result<Vec<u8>> {
        loop {
            let bytes = &self.input[self.start..self.end];
            if let Some((length, _)) = self.dialect.hear(bytes, &mut self.out)? {
                let taken = bytes[..length].to_vec();
                self.start += length;
                return Ok(taken);
            }
            self.read().await?;
        }
    }

    /// Reads a text of setting up that isn't of the dialect yet, to this end.
    pub async fn read_to(&mut self, end: &[u8]) -> Result<Vec<u8>> {
        loop {
            let bytes = &self.input[self.start..self.end];
            if let Some(at) = bytes.windows(end.len()).position(|window| window == end) {
                let taken = bytes[..at + end.len()].to_vec();
                self.start += taken.len();
                return Ok(taken);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<()> {
        self.make_room(4096);
        ensure!(self.end < self.input.len(), "an answer too long for setting up");
        let count = timeout(PATIENCE, self.stream.read(&mut self.input[self.end..]))
            .await
            .context("the server is silent")??;
        ensure!(count > 0, "the server hung up");
        self.end += count;
        Ok(())
    }

    /// Gives back the memory for reading and writing, before a long rest.
    pub fn rest(&mut self) {
        self.input = self.input[self.start..self.end].to_vec();
        (self.start, self.end) = (0, self.input.len());
        self.out = Vec::new();
    }

    /// Makes a websocket of it.
    pub async fn upgrade(&mut self, path: &str) -> Result<()> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        let response = self.read_to(b"\r\n\r\n").await?;
        ensure!(
            response.starts_with(b"HTTP/1.1 101 "),
            "no websocket: {}",
            String::from_utf8_lossy(&response)
        );
        Ok(())
    }
}

impl<D: Dialect + 'static> Line<D> {
    /// The same connection, its dialect told apart from others no more.
    pub fn into_dyn(self) -> Line {
        let Self {
            stream,
            input,
            start,
            end,
            out,
            written,
            dialect,
        } = self;
        Line {
            stream,
            input,
            start,
            end,
            out,
            written,
            dialect,
        }
    }
}

/// Writes a binary message of so many bytes as a client does, `fill` its content. The mask is zero, which a server can't know.
pub fn websocket_frame(out: &mut Vec<u8>, length: usize, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(0x82);
    match u16::try_from(length) {
        Ok(short) if short < 126 => out.push(0x80 | short as u8),
        Ok(middle) => {
            out.push(0x80 | 126);
            out.extend(middle.to_be_bytes());
        }
        Err(_) => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    fill(out);
}

/// The first message of what a server sent: its whole length and its content. Answers pings by itself, as empty content.
pub fn websocket_message<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> Result<Option<(usize, &'a [u8])>> {
    let [opcode, short, rest @ ..] = bytes else {
        return Ok(None);
    };
    let (header, length) = match (short, rest) {
        (126, [high, low, ..]) => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        (126, _) => return Ok(None),
        (127.., _) => bail!("a frame of a length that no server here sends"),
        (short, _) => (2, usize::from(*short)),
    };
    let Some(content) = bytes.get(header..header + length) else {
        return Ok(None);
    };
    match opcode {
        0x82 => Ok(Some((header + length, content))),
        0x89 => {
            out.extend([0x8a, 0x80, 0, 0, 0, 0]);
            Ok(Some((header + length, &[])))
        }
        0x88 => {
            let code = content
                .get(..2)
                .map_or(0, |code| u16::from_be_bytes([code[0], code[1]]));
            bail!(
                "the server closes: {code} {}",
                String::from_utf8_lossy(content.get(2..).unwrap_or_default())
            )
        }
        _ => bail!("a frame of a kind that no server here sends: {opcode:#x}"),
    }
}
