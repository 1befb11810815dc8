//! Hints between nodes: "look at this mailbox". Nothing depends on one to arrive; it only comes sooner than the next poll.
//!
//! A hint says nothing to who listens on the bus: its subject is the receiving node's number and a keyed hash of the
//! mailbox, its payload is empty.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio::sync::mpsc;

use super::address::BusUrl;
use super::job::Key;

/// Hints that wait to be sent, or to be heard; what comes on top is dropped.
const QUEUED: usize = 4096;

/// The longest rest between attempts to reach the bus.
const REST: Duration = Duration::from_secs(1);

/// What a mailbox is called on the bus.
pub(super) type Alias = [u8; 16];

/// Names mailboxes so that only nodes of this relay know which is meant.
#[derive(Clone)]
pub(super) struct Names {
    secret: [u8; 32],
}

impl Names {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    pub(super) fn of(&self, key: &Key) -> Alias {
        let mut alias = Alias::default();
        // A key of any length will do.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) {
            mac.update(key);
            for (to, from) in alias.iter_mut().zip(mac.finalize().into_bytes()) {
                *to = from;
            }
        }
        alias
    }

    /// Where hints for a node go. Several relays may share a bus: the first part tells them apart.
    fn subject(&self, node: i64, last: &str) -> String {
        let relay = hex(&self.of(&[0; 32]));
        format!("countersign.{relay}.{node:016x}.{last}")
    }
}

/// This node's end of the bus; without one, hints go nowhere.
pub(super) struct Bus {
    names: Names,
    hints: Option<mpsc::Sender<String>>,
    heard: mpsc::Receiver<Alias>,
    _tasks: tokio::task::JoinSet<()>,
}

impl Bus {
    /// Joins the bus, or keeps trying to, in the background.
    pub(super) fn join(url: Option<&BusUrl>, names: Names, node: i64) -> Self {
        let (hints, to_send) = mpsc::channel(QUEUED);
        let (to_hear, heard) = mpsc::channel(QUEUED);
        let mut tasks = tokio::task::JoinSet::new();
        let mut bus = Self {
            hints: None,
            heard,
            names: names.clone(),
            _tasks: tokio::task::JoinSet::new(),
        };
        if let Some(url) = url {
            tasks.spawn(attend(url.clone(), names.subject(node, "*"), to_send, to_hear));
            bus.hints = Some(hints);
            bus._tasks = tasks;
        }
        bus
    }

    /// Tells a node to look at a mailbox.
    pub(super) fn hint(&self, node: i64, key: &Key) {
        if let Some(hints) = &self.hints {
            let subject = self.names.subject(node, &hex(&self.names.of(key)));
            hints.try_send(subject).ok();
        }
    }

    /// The next mailbox that another node tells this one to look at; never, without a bus.
    pub(super) async fn heard(&mut self) -> Alias {
        match self.heard.recv().await {
            Some(alias) => alias,
            None => std::future::pending().await,
        }
    }
}

async fn attend(url: BusUrl, subject: String, mut hints: mpsc::Receiver<String>, heard: mpsc::Sender<Alias>) {
    let Some((client, mut subscription)) = dial(&url, subject).await else {
        return;
    };
    loop {
        tokio::select! {
            hint = hints.recv() => match hint {
                // Without a connection they would queue up, to be sent when nobody needs them any more.
                Some(subject) if client.connection_state() == State::Connected => {
                    client.publish(subject, Bytes::new()).await.ok();
                }
                Some(_) => {}
                None => return,
            },
            message = subscription.next() => match message {
                Some(message) => {
                    let alias = message.subject.rsplit('.').next().and_then(unhex);
                    if let Some(alias) = alias {
                        heard.try_send(alias).ok();
                    }
                }
                None => return,
            },
        }
    }
}

async fn dial(url: &BusUrl, subject: String) -> Option<(Client, Subscriber)> {
    let events = |event| async move {
        match event {
            async_nats::Event::Connected => tracing::info!("on the bus"),
            async_nats::Event::Disconnected => {
                tracing::warn!("off the bus; other nodes' envelopes are found by polling")
            }
            _ => {}
        }
    };
    let client = url
        .credentials()
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            REST.min(Duration::from_millis(50).saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX)))
        })
        .ping_interval(Duration::from_secs(5))
        .subscription_capacity(QUEUED)
        .event_callback(events)
        .connect(url.servers())
        .await;
    let subscribed = match client {
        Ok(client) => client
            .subscribe(subject)
            .await
            .map(|subscription| (client, subscription))
            .map_err(|_| ()),
        Err(_) => Err(()),
    };
    if subscribed.is_err() {
        // What is wrong could quote the address.
        tracing::error!("the bus can't be used; other nodes' envelopes are found by polling");
    }
    subscribed.ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Alias> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_mailbox_is_called_the_same_by_nodes_of_one_relay_and_by_no_other() {
        let key = [7; 32];
        let (ours, theirs) = (Names::new([1; 32]), Names::new([2; 32]));
        let alias = ours.of(&key);
        assert_eq!(alias, Names::new([1; 32]).of(&key));
        assert_ne!(alias, theirs.of(&key));
        assert_ne!(ours.subject(1, "*"), theirs.subject(1, "*"));
        assert!(!ours.subject(1, &hex(&alias)).contains(&hex(&key)[..8]));
        assert_eq!(unhex(&hex(&alias)), Some(alias));
        assert_eq!(unhex("not a mailbox"), None);
    }
}
