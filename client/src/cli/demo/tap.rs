//! Somebody who listens between everybody and the relay, and the account of what was heard: sizes and times, and no word of what was said.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Demo, REASON};
use crate::cli::terminal::{Failure, say};

/// A wire-tapper between everybody and the relay.
pub(super) struct Tap {
    pub(super) url: String,
    heard: Arc<Mutex<Heard>>,
}

/// What the tap heard.
#[derive(Default)]
struct Heard {
    connections: u64,
    to_relay: u64,
    from_relay: Vec<u8>,
}

impl Tap {
    /// Opens the tap before the relay is there: the relay must know the address that everybody dials.
    pub(super) async fn open() -> Result<(Self, TcpListener), Failure> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("ws://{}", listener.local_addr()?);
        Ok((
            Self {
                url,
                heard: Arc::default(),
            },
            listener,
        ))
    }

    pub(super) fn lead(&self, listener: TcpListener, relay: String) {
        let heard = Arc::clone(&self.heard);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&relay).await else {
                    continue;
                };
                note(&heard, |heard| heard.connections += 1);
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                let (up, down) = (Arc::clone(&heard), Arc::clone(&heard));
                tokio::spawn(pass(near_read, far_write, move |bytes| {
                    note(&up, |heard| heard.to_relay += bytes.len() as u64)
                }));
                tokio::spawn(pass(far_read, near_write, move |bytes| {
                    note(&down, |heard| heard.from_relay.extend_from_slice(bytes))
                }));
            }
        });
    }
}

fn note(heard: &Mutex<Heard>, what: impl FnOnce(&mut Heard)) {
    what(&mut heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
}

async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut told: impl FnMut(&[u8]),
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        told(bytes);
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

impl Demo {
    /// What the relay, and anybody on its wire, got to see; searched for what must not be there.
    pub(super) fn account(&self, tap: &Tap, store: &Path, transcript: &[u8]) {
        let mut secrets: Vec<Vec<u8>> = vec![REASON.as_bytes().to_vec(), b"demo-gate".to_vec(), b"csid1".to_vec()];
        secrets.extend(
            self.argv()
                .iter()
                .map(|argument| argument.as_encoded_bytes().to_vec())
                .filter(|argument| argument.len() > 5),
        );
        let mut kept = Vec::new();
        for ending in ["", "-wal"] {
            let mut path = store.as_os_str().to_owned();
            path.push(ending);
            kept.extend(std::fs::read(path).unwrap_or_default());
        }
        note(&tap.heard, |heard| {
            let found = secrets
                .iter()
                .filter(|secret| contains(&heard.from_relay, secret) || contains(&kept, secret))
                .count();
            say("   agent -> gate: over a unix socket of the gate's user; gate <-> admins: sealed, through the relay");
            say("   the relay saw: random mailbox keys, sizes of 1, 2, 4, 16 or 64 KiB, times, and addresses");
            say(&format!(
                "   on its wire: {} connections, {} bytes in, {} bytes out\n   searched, with its database, for the command, the reason, names and identities: {found} found",
                heard.connections,
                heard.to_relay,
                heard.from_relay.len()
            ));
            say(&format!(
                "   the transcript of {} bytes was never there in clear",
                transcript.len()
            ));
        });
    }
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}
