//! Speaking with the peers in their own protocols: nats-server (core: nothing is kept or acknowledged; JetStream: one
//! stream on disk, as its makers advise, with a subject for each reader, each message acknowledged), mosquitto (QoS 0, and QoS 1
//! with sessions that last) and redis-server (streams, each group of commands flushed before it is answered).

use std::str;

use anyhow::{Context, Result, bail, ensure};

use crate::line::{Dialect, Heard, PAYLOAD};

/// The number at the end of a line of text, and the line's length with its end.
fn line(bytes: &[u8]) -> Option<(&str, usize)> {
    let end = bytes.windows(2).position(|window| window == b"\r\n")?;
    Some((str::from_utf8(&bytes[..end]).ok()?, end + 2))
}

/// A client of nats-server.
pub struct Nats {
    head: String,
}

impl Nats {
    /// Sends under this subject.
    pub fn new(to: &str) -> Self {
        Self {
            head: format!("PUB {to} {PAYLOAD}\r\n"),
        }
    }

    pub fn hello(from: &str) -> Vec<u8> {
        format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {from} 1\r\nPING\r\n").into_bytes()
    }
}

impl Dialect for Nats {
    fn say(&mut self, out: &mut Vec<u8>) {
        out.extend(self.head.as_bytes());
        out.extend([b'x'; PAYLOAD]);
        out.extend(b"\r\n");
    }

    fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>> {
        Ok(nats(bytes, out)?.map(|(_, length, heard)| (length, heard)))
    }
}

/// The first of what nats-server sent: its content, its whole length, and what it is.
fn nats<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> Result<Option<(&'a [u8], usize, Heard)>> {
    let Some((line, length)) = line(bytes) else {
        return Ok(None);
    };
    if line.starts_with("MSG ") {
        let payload: usize = line.rsplit(' ').next().unwrap_or_default().parse()?;
        let whole = length + payload + 2;
        return Ok((bytes.len() >= whole).then(|| (&bytes[length..whole - 2], whole, Heard::Delivered)));
    }
    ensure!(!line.starts_with("-ERR"), "nats-server: {line}");
    if line == "PING" {
        out.extend(b"PONG\r\n");
    }
    Ok(Some((&[], length, Heard::Other)))
}

/// A client of nats-server that appends to the stream which holds all readers' messages, each reader's under a subject of its own.
pub struct JetStream {
    head: String,
}

impl JetStream {
    pub fn new(to: &str) -> Self {
        Self {
            head: format!("PUB kept.{to} told.{to} {PAYLOAD}\r\n"),
        }
    }

    /// Makes the stream, if it isn't there yet. The answer counts as the first acknowledgement.
    pub fn hello(to: &str) -> Vec<u8> {
        const SETTINGS: &str = r#"{"name":"kept","subjects":["kept.>"],"storage":"file","retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"num_replicas":1}"#;
        let length = SETTINGS.len();
        format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB told.{to} 1\r\n\
             PUB $JS.API.STREAM.CREATE.kept told.{to} {length}\r\n{SETTINGS}\r\n"
        )
        .into_bytes()
    }
}

impl Dialect for JetStream {
    fn say(&mut self, out: &mut Vec<u8>) {
        out.extend(self.head.as_bytes());
        out.extend([b'x'; PAYLOAD]);
        out.extend(b"\r\n");
    }

    fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>> {
        let Some((message, length, heard)) = nats(bytes, out)? else {
            return Ok(None);
        };
        if heard == Heard::Other {
            return Ok(Some((length, heard)));
        }
        let answer = str::from_utf8(message)?;
        ensure!(!answer.contains(r#""error""#), "JetStream: {answer}");
        Ok(Some((length, Heard::Stored)))
    }

    fn is_told_stored(&self) -> bool {
        true
    }
}

/// A client of mosquitto: MQTT 3.1.1.
pub struct Mqtt {
    publish: Vec<u8>,
    /// Where in it the packet's identifier is, for QoS 1.
    identifier: Option<usize>,
    next: u16,
}

impl Mqtt {
    /// Sends under this topic, to be acknowledged or not.
    pub fn new(to: &str, acknowledged: bool) -> Self {
        let mut publish = vec![if acknowledged { 0x32 } else { 0x30 }];
        let identifier = acknowledged.then_some(2 + to.len());
        let length = 2 + to.len() + identifier.map_or(0, |_| 2) + PAYLOAD;
        // Seven bits each, the lowest first.
        publish.extend([(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
        let start = publish.len();
        text(&mut publish, to);
        publish.resize(start + length, b'x');
        Self {
            publish,
            identifier: identifier.map(|at| start + at),
            next: 0,
        }
    }

    /// Begins a session of this name, which outlives the connection or not.
    pub fn hello(name: &str, lasts: bool) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, "MQTT");
        body.extend([4, if lasts { 0 } else { 2 }, 0, 0]);
        text(&mut body, name);
        packet(0x10, &body)
    }

    pub fn subscribe(to: &str, acknowledged: bool) -> Vec<u8> {
        let mut body = vec![0, 1];
        text(&mut body, to);
        body.push(u8::from(acknowledged));
        packet(0x82, &body)
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind, body.len() as u8];
    packet.extend(body);
    packet
}

impl Dialect for Mqtt {
    fn say(&mut self, out: &mut Vec<u8>) {
        if let Some(at) = self.identifier {
            self.next = self.next.checked_add(1).unwrap_or(1);
            self.publish[at..at + 2].copy_from_slice(&self.next.to_be_bytes());
        }
        out.extend(&self.publish);
    }

    fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>> {
        let [kind, low, rest @ ..] = bytes else { return Ok(None) };
        let (header, length) = match (low & 0x80, rest) {
            (0, _) => (2, usize::from(*low)),
            (_, [high, ..]) => (3, usize::from(low & 0x7f) | usize::from(*high) << 7),
            _ => return Ok(None),
        };
        let Some(body) = bytes.get(header..header + length) else {
            return Ok(None);
        };
        let heard = match kind >> 4 {
            3 => {
                if kind & 0x06 != 0 {
                    let topic = body
                        .first_chunk()
                        .map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
                    let identifier = body.get(2 + topic..4 + topic).context("an identifier")?;
                    out.extend([0x40, 2]);
                    out.extend(identifier);
                }
                Heard::Delivered
            }
            4 => Heard::Stored,
            2 if body.get(1) != Some(&0) => bail!("mosquitto refuses the session"),
            _ => Heard::Other,
        };
        Ok(Some((header + length, heard)))
    }

    fn is_told_stored(&self) -> bool {
        self.identifier.is_some()
    }
}

/// A client of redis-server that appends to a stream.
pub struct Redis {
    append: Vec<u8>,
}

impl Redis {
    pub fn new(stream: &str) -> Self {
        let head = format!(
            "*5\r\n$4\r\nXADD\r\n${}\r\n{stream}\r\n$1\r\n*\r\n$1\r\np\r\n${PAYLOAD}\r\n",
            stream.len()
        );
        let mut append = head.into_bytes();
        append.extend([b'x'; PAYLOAD]);
        append.extend(b"\r\n");
        Self { append }
    }

    pub fn forget(stream: &str) -> Vec<u8> {
        format!("*2\r\n$3\r\nDEL\r\n${}\r\n{stream}\r\n", stream.len()).into_bytes()
    }
}

impl Dialect for Redis {
    fn say(&mut self, out: &mut Vec<u8>) {
        out.extend(&self.append);
    }

    /// A bulk string is the position in the stream of what was appended.
    fn hear(&mut self, bytes: &[u8], _: &mut Vec<u8>) -> Result<Option<(usize, Heard)>> {
        let Some((head, length)) = line(bytes) else {
            return Ok(None);
        };
        match head.split_at_checked(1) {
            Some(("$", count)) => {
                let length = length + count.parse::<usize>()? + 2;
                Ok((bytes.len() >= length).then_some((length, Heard::Stored)))
            }
            Some((":" | "+", _)) => Ok(Some((length, Heard::Other))),
            _ => bail!("redis-server: {head}"),
        }
    }

    fn is_told_stored(&self) -> bool {
        true
    }
}
