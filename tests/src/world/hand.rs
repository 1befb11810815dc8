//! The hand on the wire: a websocket proxy between every party and the real relay that reads each frame (PROTOCOL.md 4) and does with it what a story
//! says. Together with the relay behind it, it is the hostile relay. It holds no key of anybody.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{SinkExt, StreamExt};
use rand_core::{OsRng, RngCore};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, connect_async};
use wire::frame::{ClientFrame, Put, RelayFrame, Stored};
use wire::mailbox::MailboxId;

use super::PATIENCE;

/// A frame, and which way it goes.
#[derive(Clone, Debug)]
pub enum Said {
    /// A party to the relay.
    Up(ClientFrame),
    /// The relay to a party.
    Down(RelayFrame),
}

/// A frame on its way.
#[derive(Debug)]
pub struct Passing<'a> {
    /// The mailbox that this connection logged in with; zeros before that.
    pub of: [u8; 32],
    /// The frame.
    pub said: &'a Said,
}

impl Passing<'_> {
    /// The put in it, if it is one to this mailbox.
    #[must_use]
    pub fn put_to(&self, mailbox: &MailboxId) -> Option<&Put> {
        self.put().filter(|put| put.mailbox == *mailbox.as_bytes())
    }

    /// The put in it.
    #[must_use]
    pub fn put(&self) -> Option<&Put> {
        match self.said {
            Said::Up(ClientFrame::Put(put)) => Some(put),
            _ => None,
        }
    }

    /// Whether an envelope is delivered.
    #[must_use]
    pub fn delivers(&self) -> bool {
        matches!(self.said, Said::Down(RelayFrame::Deliver { .. }))
    }
}

/// What the hand does with a frame.
#[derive(Debug)]
pub enum Does {
    /// Nothing.
    Pass,
    /// It is gone.
    Drop,
    /// It is kept back until [`Hand::lets_go`].
    Hold,
    /// These go their ways on the same connection instead.
    Instead(Vec<Said>),
}

/// The lie about a put that is thrown away.
#[must_use]
pub fn stored(put: &Put) -> Does {
    Does::Instead(vec![Said::Down(RelayFrame::Stored {
        id: put.id,
        how: Stored::Flushed,
    })])
}

/// The same put with another envelope.
#[must_use]
pub fn with_envelope(put: &Put, envelope: Vec<u8>) -> Said {
    Said::Up(ClientFrame::Put(Put {
        envelope: envelope.into(),
        ..put.clone()
    }))
}

/// The same envelope as a put that the relay doesn't know yet.
#[must_use]
pub fn anew(put: &Put) -> Said {
    let mut id = [0; 16];
    OsRng.fill_bytes(&mut id);
    Said::Up(ClientFrame::Put(Put { id, ..put.clone() }))
}

type Rule = Box<dyn FnMut(&Passing<'_>) -> Does + Send>;

struct Line {
    of: [u8; 32],
    up: UnboundedSender<Message>,
    down: UnboundedSender<Message>,
    _cut: watch::Sender<()>,
}

impl Line {
    fn say(&self, said: Said) {
        // An error means that the connection is gone, and what was said on it with it.
        let _ = match said {
            Said::Up(frame) => self.up.send(Message::Binary(frame.encode())),
            Said::Down(frame) => self.down.send(Message::Binary(frame.encode())),
        };
    }
}

#[derive(Default)]
struct State {
    rule: Option<Rule>,
    lines: HashMap<u64, Line>,
    next: u64,
    held: Vec<(u64, Said)>,
    recorded: Vec<Put>,
}

struct Inner {
    state: Mutex<State>,
    touched: watch::Sender<u64>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, number: u64, said: Said) {
        let mut state = self.state();
        let state = &mut *state;
        let Some(line) = state.lines.get_mut(&number) else {
            return;
        };
        match &said {
            Said::Up(ClientFrame::Login { mailbox, .. }) => line.of = *mailbox,
            Said::Up(ClientFrame::Put(put)) => state.recorded.push(put.clone()),
            _ => {}
        }
        let passing = Passing {
            of: line.of,
            said: &said,
        };
        let does = state.rule.as_mut().map_or(Does::Pass, |rule| rule(&passing));
        if !matches!(does, Does::Pass) {
            self.touched.send_modify(|touched| *touched += 1);
        }
        match does {
            Does::Pass => line.say(said),
            Does::Drop => {}
            Does::Hold => state.held.push((number, said)),
            Does::Instead(others) => others.into_iter().for_each(|said| line.say(said)),
        }
    }
}

/// The hand. It does nothing until it is told to.
pub struct Hand {
    authority: String,
    inner: Arc<Inner>,
    task: Option<JoinHandle<()>>,
}

impl Hand {
    /// Opens the address that every party dials, before the relay is there: the relay must know it by this name.
    pub(super) async fn open() -> (Self, TcpListener) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let authority = listener.local_addr().expect("its address").to_string();
        let inner = Arc::new(Inner {
            state: Mutex::default(),
            touched: watch::channel(0).0,
        });
        (
            Self {
                authority,
                inner,
                task: None,
            },
            listener,
        )
    }

    /// Leads everybody to the relay.
    pub(super) fn lead(&mut self, listener: TcpListener, relay: SocketAddr) {
        let inner = Arc::clone(&self.inner);
        self.task = Some(tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(converse(near, relay, Arc::clone(&inner)));
            }
        }));
    }

    /// `host:port`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What happens to each frame from now on.
    pub fn rule(&self, rule: impl FnMut(&Passing<'_>) -> Does + Send + 'static) {
        self.inner.state().rule = Some(Box::new(rule));
    }

    /// Every frame goes its way; those that fit are counted, for [`Hand::has_touched`].
    pub fn touches(&self, fits: impl Fn(&Passing<'_>) -> bool + Send + 'static) {
        self.inner.touched.send_replace(0);
        self.rule(move |passing| {
            if fits(passing) {
                Does::Instead(vec![passing.said.clone()])
            } else {
                Does::Pass
            }
        });
    }

    /// From now on nothing happens to any frame; what was kept back goes its way, in order.
    pub fn lets_go(&self) {
        self.lets_go_in(|_| {});
    }

    /// The same, after what was kept back was put into another order.
    pub fn lets_go_in(&self, order: impl FnOnce(&mut Vec<Said>)) {
        let mut state = self.inner.state();
        state.rule = None;
        let held = std::mem::take(&mut state.held);
        let lines: Vec<u64> = held.iter().map(|(line, _)| *line).collect();
        let mut said: Vec<Said> = held.into_iter().map(|(_, said)| said).collect();
        order(&mut said);
        for (index, said) in said.into_iter().enumerate() {
            let line = lines.get(index).or(lines.last()).and_then(|line| state.lines.get(line));
            if let Some(line) = line {
                line.say(said);
            }
        }
    }

    /// Every put that was ever seen, oldest first.
    #[must_use]
    pub fn recorded(&self) -> Vec<Put> {
        self.inner.state().recorded.clone()
    }

    /// Every put to this mailbox that was ever seen.
    #[must_use]
    pub fn recorded_for(&self, mailbox: &MailboxId) -> Vec<Put> {
        self.recorded()
            .into_iter()
            .filter(|put| put.mailbox == *mailbox.as_bytes())
            .collect()
    }

    /// Says something on the connection of this mailbox, to the relay or to its owner.
    pub fn says(&self, of: &MailboxId, said: Said) {
        let state = self.inner.state();
        let line = state
            .lines
            .values()
            .find(|line| line.of == *of.as_bytes())
            .expect("a connection of that mailbox");
        line.say(said);
    }

    /// Cuts every connection.
    pub fn cuts(&self) {
        self.inner.state().lines.clear();
    }

    /// Waits until the hand has meddled with so many frames.
    pub async fn has_touched(&self, frames: u64) {
        let mut touched = self.inner.touched.subscribe();
        let enough = touched.wait_for(|touched| *touched >= frames);
        let _ = tokio::time::timeout(PATIENCE, enough)
            .await
            .expect("the hand got something to meddle with");
    }

    /// How many frames the hand has meddled with.
    #[must_use]
    pub fn touched(&self) -> u64 {
        *self.inner.touched.borrow()
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.cuts();
    }
}

async fn converse(near: TcpStream, relay: SocketAddr, inner: Arc<Inner>) {
    let _ = near.set_nodelay(true);
    let Ok(near) = accept_async(near).await else { return };
    let Ok((far, _)) = connect_async(format!("ws://{relay}")).await else {
        return;
    };
    let ((up, to_relay), (down, to_party)) = (unbounded_channel(), unbounded_channel());
    let (cut, cutting) = watch::channel(());
    let number = {
        let mut state = inner.state();
        state.next += 1;
        let number = state.next;
        state.lines.insert(
            number,
            Line {
                of: [0; 32],
                up,
                down,
                _cut: cut,
            },
        );
        number
    };
    carry(near, far, to_relay, to_party, cutting, |said| inner.pass(number, said)).await;
    inner.state().lines.remove(&number);
}

async fn carry<N, F>(
    near: WebSocketStream<N>,
    far: WebSocketStream<F>,
    mut to_relay: UnboundedReceiver<Message>,
    mut to_party: UnboundedReceiver<Message>,
    mut cutting: watch::Receiver<()>,
    pass: impl Fn(Said),
) where
    N: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    F: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut party, mut from_party) = near.split();
    let (mut relay, mut from_relay) = far.split();
    loop {
        tokio::select! {
            _ = cutting.changed() => return,
            Some(message) = to_relay.recv() => if relay.send(message).await.is_err() { return },
            Some(message) = to_party.recv() => if party.send(message).await.is_err() { return },
            message = from_party.next() => match message {
                Some(Ok(Message::Binary(bytes))) => pass(Said::Up(ClientFrame::decode(bytes).expect("a party says frames"))),
                Some(Ok(Message::Close(close))) => {
                    // Everything said before the goodbye goes first.
                    while let Ok(message) = to_relay.try_recv() {
                        let _ = relay.send(message).await;
                    }
                    let _ = relay.send(Message::Close(close)).await;
                    let _ = party.close().await;
                    return;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            message = from_relay.next() => match message {
                Some(Ok(Message::Binary(bytes))) => pass(Said::Down(RelayFrame::decode(bytes).expect("the relay says frames"))),
                Some(Ok(Message::Close(close))) => {
                    while let Ok(message) = to_party.try_recv() {
                        let _ = party.send(message).await;
                    }
                    let _ = party.send(Message::Close(close)).await;
                    return;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}
