//! Waking an agent that asked and went on: each time that something becomes of a request that nobody waits for, a program is run or an address
//! called with what happened. Only a hint, and delivered as well as can be: what holds is what the gate answers when the agent comes back.
//! Deliberately not here: anything that decides; and any secret.

mod command;
mod webhook;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::caller::Caller;
use crate::local::{Answer, Question, Woken};

pub use command::Command;
pub use webhook::{Webhook, WebhookError};

/// Events that wait for a slow program or server; more are dropped, the newest first.
const QUEUE: usize = 256;

/// How long the connection to the gate stays away before it is tried again.
const AWAY: Duration = Duration::from_millis(500);

/// Whom to wake.
#[derive(Default)]
pub struct Wake {
    /// The program to run.
    pub command: Option<Command>,
    /// The address to call.
    pub webhook: Option<Webhook>,
}

impl Wake {
    /// Whether there is nobody to wake.
    pub fn is_empty(&self) -> bool {
        self.command.is_none() && self.webhook.is_none()
    }

    /// Listens to the gate on `socket` and passes on what it says, until it is dropped.
    pub async fn serve(self, socket: PathBuf) {
        let mut tasks = tokio::task::JoinSet::new();
        let mut ways: Vec<mpsc::Sender<Vec<u8>>> = Vec::new();
        if let Some(command) = self.command {
            let (way, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
            ways.push(way);
            tasks.spawn(async move {
                while let Some(event) = queue.recv().await {
                    command.run(event).await;
                }
            });
        }
        if let Some(webhook) = self.webhook {
            let (way, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
            ways.push(way);
            tasks.spawn(async move {
                while let Some(event) = queue.recv().await {
                    webhook.call(event.into()).await;
                }
            });
        }
        loop {
            if let Ok(mut caller) = Caller::open(&socket, &Question::Events {}).await {
                while let Ok(Some(answer)) = caller.next().await {
                    if let Answer::Event(woken) = answer {
                        pass_on(&ways, &woken);
                    }
                }
            }
            tokio::time::sleep(AWAY).await;
        }
    }
}

/// What is said: the event with a version, as everywhere at this machine.
fn message(woken: &Woken) -> Option<Vec<u8>> {
    let mut value = serde_json::to_value(woken).ok()?;
    value.as_object_mut()?.insert("v".to_owned(), 1.into());
    serde_json::to_vec(&value).ok()
}

fn pass_on(ways: &[mpsc::Sender<Vec<u8>>], woken: &Woken) {
    let Some(message) = message(woken) else { return };
    for way in ways {
        if way.try_send(message.clone()).is_err() {
            tracing::warn!(request = %woken.id, "nobody was woken: {QUEUE} events wait already");
        }
    }
}

#[cfg(test)]
mod tests;
