//! A client that speaks frames and takes it calmly when a node is gone.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use wire::frame::{ClientFrame, Done, Put, Reason, RelayFrame, VERSION};
use wire::login;
use wire::mailbox::{Capability, MailboxKey};

/// How long a client waits before it takes a node for dead.
const PATIENCE: Duration = Duration::from_secs(10);

/// The connection is of no use any more.
#[derive(Debug)]
pub(crate) struct Lost;

pub(crate) fn key(seed: u8) -> MailboxKey {
    MailboxKey::from_bytes(&[seed; 32])
}

pub(crate) fn capability(seed: u8) -> Capability {
    Capability::from_bytes(&[seed; 32])
}

/// A put of 1 KiB to mailbox `to` under capability `to`, with the words in front.
pub(crate) fn put(to: u8, id: [u8; 16], words: &[u8]) -> Put {
    let mut envelope = vec![0; 1024];
    envelope[..words.len()].copy_from_slice(words);
    Put {
        id,
        mailbox: *key(to).id().as_bytes(),
        capability: capability(to),
        ttl_seconds: 3600,
        envelope: envelope.into(),
    }
}

pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    patience: Duration,
}

impl Client {
    /// Logs in to mailbox `seed`.
    pub(crate) async fn login(address: SocketAddr, seed: u8) -> Result<Self, Lost> {
        let url = format!("ws://{address}");
        let connected = timeout(PATIENCE, connect_async(&url)).await.map_err(|_| Lost)?;
        let (socket, _) = connected.map_err(|_| Lost)?;
        let mut client = Self {
            socket,
            patience: PATIENCE,
        };
        let RelayFrame::Challenge { nonce, .. } = client.next().await? else {
            return Err(Lost);
        };
        let (key, name) = (key(seed), login::authority(&url).unwrap());
        client
            .send(ClientFrame::Login {
                version: VERSION,
                mailbox: *key.id().as_bytes(),
                signature: login::sign(&key, VERSION, &name, &nonce),
            })
            .await?;
        match client.next().await? {
            RelayFrame::Welcome { .. } => Ok(client),
            _ => Err(Lost),
        }
    }

    pub(crate) fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    pub(crate) async fn send(&mut self, frame: ClientFrame) -> Result<(), Lost> {
        let sent = self.socket.send(Message::Binary(frame.encode()));
        timeout(PATIENCE, sent).await.map_err(|_| Lost)?.map_err(|_| Lost)
    }

    pub(crate) async fn next(&mut self) -> Result<RelayFrame, Lost> {
        loop {
            match timeout(self.patience, self.socket.next()).await {
                Ok(Some(Ok(Message::Binary(bytes)))) => return Ok(RelayFrame::decode(bytes).unwrap()),
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                _ => return Err(Lost),
            }
        }
    }

    pub(crate) async fn allow(&mut self, seed: u8, max_envelopes: u32) -> Result<(), Lost> {
        let capability = capability(seed).hash();
        self.send(ClientFrame::Allow {
            capability,
            max_envelopes,
            max_bytes: 1 << 26,
        })
        .await?;
        self.done(Done::Allow(capability)).await
    }

    pub(crate) async fn revoke(&mut self, seed: u8) -> Result<(), Lost> {
        let capability = capability(seed).hash();
        self.send(ClientFrame::Revoke { capability }).await?;
        self.done(Done::Revoke(capability)).await
    }

    pub(crate) async fn close_mailbox(&mut self) -> Result<(), Lost> {
        self.send(ClientFrame::CloseMailbox).await?;
        self.done(Done::CloseMailbox).await
    }

    async fn done(&mut self, done: Done) -> Result<(), Lost> {
        loop {
            match self.next().await? {
                RelayFrame::Done(other) if other == done => return Ok(()),
                RelayFrame::Deliver { .. } => {}
                other => panic!("{other:?} instead of {done:?}"),
            }
        }
    }

    /// Nothing if it is stored, else why not.
    pub(crate) async fn put(&mut self, put: Put) -> Result<Result<(), Reason>, Lost> {
        let sent = put.id;
        self.send(ClientFrame::Put(put)).await?;
        loop {
            match self.next().await? {
                RelayFrame::Stored { id, .. } if id == sent => return Ok(Ok(())),
                RelayFrame::Refused { id, reason, .. } if id == sent => return Ok(Err(reason)),
                RelayFrame::Deliver { .. } => {}
                RelayFrame::Goodbye { .. } => return Err(Lost),
                other => panic!("{other:?} instead of an answer to a put"),
            }
        }
    }

    /// The number that the next envelope gets, and how many wait.
    pub(crate) async fn read(&mut self) -> Result<(u64, u64), Lost> {
        self.send(ClientFrame::Read).await?;
        loop {
            match self.next().await? {
                RelayFrame::Reading { next_sequence, waiting } => return Ok((next_sequence, waiting)),
                RelayFrame::Deliver { .. } => {}
                _ => return Err(Lost),
            }
        }
    }

    /// The next envelope: its number and its bytes.
    pub(crate) async fn delivery(&mut self) -> Result<(u64, Bytes), Lost> {
        match self.next().await? {
            RelayFrame::Deliver { sequence, envelope, .. } => Ok((sequence, envelope.as_bytes().clone())),
            _ => Err(Lost),
        }
    }

    pub(crate) async fn ack(&mut self, sequence: u64) -> Result<(), Lost> {
        self.send(ClientFrame::Ack { sequence }).await
    }

    /// Everything sent before is committed when this returns.
    pub(crate) async fn settle(&mut self) -> Result<(), Lost> {
        self.revoke(0xee).await
    }
}
