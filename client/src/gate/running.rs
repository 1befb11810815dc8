//! Commands that were permitted: from the permit on the disk to the outcome (PROTOCOL.md section 8.6). The program itself is run by `runner`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;

use approval::action::Action;
use approval::decide::Permit;
use approval::outcome::{Ended, Failed, Outcome};
use approval::{Digest, Text};

use super::work::Work;
use super::{Event, Gate, Running};
use crate::local::Answer;
use crate::party::PartyError;
use crate::runner::{self, Chunk, Held};

/// How long one of several who listen may take to accept a piece of output: who pauses must not hold up the others, nor the command.
const LISTENER_DEADLINE: Duration = Duration::from_secs(10);

impl Gate {
    /// Runs what was permitted. The permit is on disk by now, and is consumed here.
    pub(super) fn start(&mut self, permit: Permit, stdin: Option<Vec<u8>>) {
        let request = permit.request();
        let (Some(open), Some(askers)) = (self.party.replay.request(&request), self.askers.get(&request)) else {
            // Whoever asked left between permit and now: the outcome must say that it never ran.
            self.report(request, failed("whoever asked left before it began"));
            return;
        };
        let approved = open.request().clone();
        let held = self.asked.get_mut(&request).and_then(|kept| kept.held.take());
        let listeners: Vec<mpsc::Sender<Answer>> = askers.iter().map(|asker| asker.answers.clone()).collect();
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        self.running.insert(request, Running { stop });
        let (events, launcher) = (self.events.clone(), self.launcher.clone());
        tokio::spawn(async move {
            let (chunks, output) = mpsc::channel::<Chunk>(16);
            let forward = tokio::spawn(forward(output, listeners));
            let stop = async move {
                if stopped.wait_for(|stop| *stop).await.is_err() {
                    // The gate itself forgot the command, which it does only when it is over.
                    std::future::pending().await
                }
            };
            let held = match held {
                Some(held) => Ok(held),
                None => opened_again(&approved.action, stdin).await,
            };
            let result = match held {
                Ok(held) => runner::run(&launcher, permit, &approved, held, chunks, stop).await,
                Err(error) => {
                    drop((permit, chunks));
                    failed(&error)
                }
            };
            // All output before the last word.
            let _ = forward.await;
            let _ = events.send(Event::Ran { request, result }).await;
        });
    }

    fn report(&self, request: Digest, result: Ended) {
        let events = self.events.clone();
        tokio::spawn(async move { drop(events.send(Event::Ran { request, result }).await) });
    }

    /// Writes down how a permitted command ended.
    pub(super) async fn ran(&mut self, work: &mut Work, request: Digest, result: &Ended) -> Result<(), PartyError> {
        self.running.remove(&request);
        let Some(permit) = self
            .party
            .replay
            .request(&request)
            .and_then(|open| open.permit())
            .map(|permit| permit.digest())
        else {
            return Ok(());
        };
        let outcome = Outcome {
            request,
            permit: Some(permit),
            result: result.clone(),
            time: self.clock.now(),
        };
        self.end(work, outcome, Vec::new(), None).await
    }
}

/// Passes output on to all who listen, until none does.
async fn forward(mut output: mpsc::Receiver<Chunk>, mut listeners: Vec<mpsc::Sender<Answer>>) {
    while let Some(chunk) = output.recv().await {
        let answer = match chunk {
            Chunk::Stdout(bytes) => Answer::Stdout(STANDARD.encode(bytes)),
            Chunk::Stderr(bytes) => Answer::Stderr(STANDARD.encode(bytes)),
        };
        if let [listener] = listeners.as_slice() {
            // Alone, it may take its time: the command waits for it, as in a pipe.
            if listener.send(answer).await.is_err() {
                return;
            }
            continue;
        }
        let mut still = Vec::with_capacity(listeners.len());
        for listener in listeners {
            if listener.send_timeout(answer.clone(), LISTENER_DEADLINE).await.is_ok() {
                still.push(listener);
            }
        }
        listeners = still;
        if listeners.is_empty() {
            return;
        }
    }
}

/// The files of a command that was asked before this start: the same, or it doesn't run.
async fn opened_again(action: &Action, stdin: Option<Vec<u8>>) -> Result<Held, String> {
    let Action::Command(command) = action.clone() else {
        return Err("not a command".to_owned());
    };
    let held = tokio::task::spawn_blocking(move || runner::hold(&command, stdin.as_deref())).await;
    held.map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

fn failed(error: &str) -> Ended {
    Ended::Failed(Failed {
        error: Text::cut(error),
    })
}
