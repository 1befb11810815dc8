//! What is done only once a unit is safe on disk: telling, running, waking, and what the relay is to know. Sending is the outbox's.

use tokio::sync::mpsc;

use approval::Digest;
use approval::decide::Permit;
use wire::mailbox::CapabilityHash;

use crate::gate::admission::Admitted;
use crate::gate::{ClientId, Gate};
use crate::local::{Answer, Woken};
use crate::outbox;
use crate::party::{PEER_BYTES, PEER_ENVELOPES};

use super::Done;

/// What is done after the commit.
pub(in crate::gate) enum Effect {
    /// Say something to one local program.
    Answer(mpsc::Sender<Answer>, Answer),
    /// Say something to whoever waits for a request.
    Tell(Digest, Answer),
    /// Say the last thing to whoever waits for a request.
    End(Digest, Answer),
    /// Say the last thing to one program that waits.
    Hang(ClientId, mpsc::Sender<Answer>, Answer),
    /// Run what was permitted, with what it is to read.
    Run(Permit, Option<Vec<u8>>),
    /// Wake whoever asked without waiting.
    Wake(Digest, Woken),
    /// Forget what was in memory about a request that is over without a last word.
    Over(Digest),
    /// What was told about a request doesn't hold any more: it may be told again.
    Forget(Digest),
    /// A program was told how a request is and waits no more.
    Waited(ClientId),
    /// Begin to read our mailbox.
    Read,
    /// Let a device write to us.
    Allow(CapabilityHash),
    /// Stop a device writing to us.
    Revoke(CapabilityHash),
    /// Tell the pairing how it ended.
    Admitted(mpsc::Sender<Admitted>, Admitted),
}

impl Gate {
    /// Everything that had to wait for the commit.
    pub(super) async fn perform(&mut self, done: Done) {
        let Done { effects, acked, posts } = done;
        outbox::send(&self.link, posts).await;
        if let Some(sequence) = acked {
            self.link.ack(sequence).await;
        }
        for effect in effects {
            match effect {
                Effect::Answer(to, answer) => drop(to.try_send(answer)),
                Effect::Tell(request, answer) => {
                    for asker in self.askers.get(&request).into_iter().flatten() {
                        drop(asker.answers.try_send(answer.clone()));
                    }
                }
                Effect::End(request, answer) => {
                    self.asked.remove(&request);
                    for asker in self.askers.remove(&request).into_iter().flatten() {
                        let answer = answer.clone();
                        // Behind the output, which may fill the queue: the last word waits for its turn.
                        tokio::spawn(async move { drop(asker.answers.send(answer).await) });
                    }
                }
                Effect::Hang(client, to, answer) => {
                    self.forget_client(client);
                    tokio::spawn(async move { drop(to.send(answer).await) });
                }
                Effect::Run(permit, stdin) => self.start(permit, stdin),
                Effect::Wake(request, woken) => {
                    let kept = self.asked.entry(request).or_default();
                    // Told once for each thing that becomes of it.
                    if kept.told.replace(woken.state) != Some(woken.state) {
                        self.wake(&woken);
                    }
                }
                Effect::Over(request) => drop(self.asked.remove(&request)),
                Effect::Forget(request) => {
                    if let Some(kept) = self.asked.get_mut(&request) {
                        kept.told = None;
                    }
                }
                Effect::Waited(client) => self.waiters.retain(|waiter| waiter.client != client),
                Effect::Read => self.link.read().await,
                Effect::Allow(hash) => self.link.allow(hash, PEER_ENVELOPES, PEER_BYTES).await,
                Effect::Revoke(hash) => self.link.revoke(hash).await,
                Effect::Admitted(to, admitted) => drop(to.try_send(admitted)),
            }
        }
    }

    /// A program that was told that nothing came of its question waits for nothing.
    pub(super) fn forget_client(&mut self, client: ClientId) {
        self.waiters.retain(|waiter| waiter.client != client);
        self.listeners.retain(|listener| listener.client != client);
        self.askers.retain(|_, askers| {
            askers.retain(|asker| asker.client != client);
            !askers.is_empty()
        });
    }
}
