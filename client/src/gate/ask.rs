//! Commands: from a local program's question to a request, and from a permit to an outcome (PROTOCOL.md sections 8.3, 8.5, 8.6).
//! The program itself is run by `runner`; who may say yes is not decided here.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;

use approval::action::{Action, Command, Limits, Stdin};
use approval::decide::Permit;
use approval::outcome::{Ended, Outcome};
use approval::request::AskedBy;
use approval::scalar::{ByteString, REASON_BYTES};
use approval::{Digest, Id16, Text, sign};

use super::work::{Effect, Work};
use super::{Asker, ClientId, Event, Gate, Running};
use crate::local::{Answer, Ask, DeviceStatus, Fault, Question, Status};
use crate::party::PartyError;
use crate::runner::{self, Chunk};

/// Wall time of a command unless it asks for another, in ms.
const WALL_MS: u64 = 30_000;
/// Most wall time that may be asked for, in ms (section 14).
const MAX_WALL_MS: u64 = 24 * 60 * 60 * 1000;
/// Output of a command unless it asks for another, in bytes of both streams.
const OUTPUT_BYTES: u64 = 64 << 20;
/// Most output that may be asked for (section 14).
const MAX_OUTPUT_BYTES: u64 = 1 << 30;
/// How long the admins have unless the asker says otherwise, in ms.
const EXPIRES_MS: u64 = 10 * 60 * 1000;
/// The longest that may be asked for (section 8.3).
const MAX_EXPIRES_MS: u64 = 24 * 60 * 60 * 1000;
/// Requests pending at once (section 14).
const MAX_PENDING: usize = 64;

/// A command that a local program asks for, resolved and hashed.
pub(crate) struct Asked {
    command: Command,
    asked_by: AskedBy,
    reason: Text<REASON_BYTES>,
    expires_ms: u64,
    ticket: Option<Id16>,
}

fn invalid(message: impl std::fmt::Display, hint: Option<&str>) -> Answer {
    Answer::Error {
        kind: Fault::Invalid,
        message: message.to_string(),
        hint: hint.map(str::to_owned),
    }
}

/// Makes of a question the exact action that would run, reading the program from disk. The error is the answer.
pub(super) fn prepare(ask: Ask) -> Result<Asked, Box<Answer>> {
    let limit = |asked: Option<u64>, default: u64, most: u64, what: &str| match asked.unwrap_or(default) {
        0 => Err(Box::new(invalid(format!("{what} of nothing"), None))),
        value if value > most => Err(Box::new(invalid(format!("{what} beyond {most}"), None))),
        value => Ok(value),
    };
    let text = |text: Option<String>, what: &str| match text {
        None => Ok(None),
        Some(text) => Text::new(text)
            .map(Some)
            .map_err(|error| Box::new(invalid(format!("the {what}: {error}"), None))),
    };
    let program = ask
        .argv
        .first()
        .ok_or_else(|| invalid("no program to run", Some("put it after --")))?;
    let executable = runner::resolve(OsStr::from_bytes(program.as_bytes())).map_err(|error| match error {
        runner::ExecutableError::NotFound { .. } => Answer::Error {
            kind: Fault::NoProgram,
            message: error.to_string(),
            hint: Some(
                "programs are looked up in /usr/local/bin, /usr/bin and /bin; give another one's absolute path"
                    .to_owned(),
            ),
        },
        error => invalid(error, None),
    })?;
    let env = runner::environment(&ask.env).map_err(|error| invalid(error, None))?;
    let directory = runner::resolve_directory(Path::new(OsStr::from_bytes(ask.directory.as_bytes())))
        .map_err(|error| invalid(error, None))?;
    let directory = ByteString::new(directory.into_os_string().into_vec()).map_err(|error| invalid(error, None))?;
    let agent = ask.agent.unwrap_or_else(|| "agent".to_owned());
    let asked_by = AskedBy {
        agent: agent
            .parse()
            .map_err(|error| invalid(format!("the agent's name: {error}"), None))?,
        user: text(ask.user, "user")?,
        conversation: text(ask.conversation, "conversation")?,
        platform: text(ask.platform, "platform")?,
    };
    let limits = Limits {
        wall_ms: limit(ask.wall_ms, WALL_MS, MAX_WALL_MS, "wall time")?,
        output_bytes: limit(ask.output_bytes, OUTPUT_BYTES, MAX_OUTPUT_BYTES, "output")?,
    };
    let command = Command {
        executable,
        argv: ask.argv,
        env,
        directory,
        stdin: Stdin::None,
        limits,
        uid: rustix::process::geteuid().as_raw(),
    };
    let reason = Text::new(ask.reason).map_err(|error| invalid(format!("the reason: {error}"), None))?;
    let expires_ms = limit(ask.expires_ms, EXPIRES_MS, MAX_EXPIRES_MS, "expiry")?;
    Ok(Asked {
        command,
        asked_by,
        reason,
        expires_ms,
        ticket: ask.ticket,
    })
}

impl Gate {
    fn refused(&self, message: &str, hint: &str) -> Answer {
        Answer::Error {
            kind: Fault::Refused,
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
        }
    }

    /// Why nothing can be asked now, if so.
    fn closed(&self) -> Option<Answer> {
        if let Some(halted) = &self.halted {
            let message = format!("the gate doesn't sign: {halted}");
            return Some(Answer::Error {
                kind: Fault::Broken,
                message,
                hint: Some("see `countersign gate status`".to_owned()),
            });
        }
        if !self.enrolled() {
            return Some(self.refused(
                "nobody is enrolled who could approve",
                "enrol the first admin: countersign gate invite --person NAME",
            ));
        }
        if self.party.replay.open().count() >= MAX_PENDING {
            return Some(self.refused(
                "too many requests are pending",
                "wait until some are answered or expire",
            ));
        }
        None
    }

    pub(super) async fn ask(
        &mut self,
        work: &mut Work,
        client: ClientId,
        asked: &Asked,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), PartyError> {
        if let Some(ticket) = &asked.ticket
            && let Some(request) = work.turn.tx.ticketed(&ticket.0).await?
        {
            if let Some(answer) = self.attach(work, client, &request.to_string(), answers).await? {
                work.effects.push(Effect::Answer(answers.clone(), answer));
            }
            return Ok(());
        }
        if let Some(answer) = self.closed() {
            work.effects.push(Effect::Answer(answers.clone(), answer));
            return Ok(());
        }
        let action = Action::Command(asked.command.clone());
        let shown = approval::render::render(&action);
        let request = match self
            .request(
                work,
                action,
                asked.asked_by.clone(),
                asked.reason.clone(),
                asked.expires_ms,
            )
            .await
        {
            Ok(request) => request,
            Err(PartyError::Statement(error)) => {
                work.effects.push(Effect::Answer(
                    answers.clone(),
                    invalid(error, Some("a request must fit one message: shorten its arguments")),
                ));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Some(ticket) = &asked.ticket {
            work.turn
                .tx
                .set_ticket(&ticket.0, &request, crate::clock::wall())
                .await?;
        }
        self.askers.insert(
            request,
            Asker {
                client,
                answers: answers.clone(),
            },
        );
        let (expires, need) = self
            .party
            .replay
            .request(&request)
            .map_or((0, 0), |open| (open.request().expires.millis(), open.request().need));
        work.effects.push(Effect::Tell(
            request,
            Answer::Pending {
                id: request.to_string(),
                expires,
                need,
                shown,
            },
        ));
        Ok(())
    }

    pub(super) async fn question(
        &mut self,
        work: &mut Work,
        client: ClientId,
        question: &Question,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), PartyError> {
        let answer = match question {
            Question::Attach { id } => match self.attach(work, client, id, answers).await? {
                Some(answer) => answer,
                None => return Ok(()),
            },
            Question::Propose { change } => match self.closed() {
                Some(answer) => answer,
                None => match self.propose(work, change, "operator").await? {
                    Ok(id) => Answer::Proposed {
                        id: id.to_string(),
                        need: self.party.replay.request(&id).map_or(0, |open| open.request().need),
                    },
                    Err(message) => Answer::Error {
                        kind: Fault::Invalid,
                        message,
                        hint: None,
                    },
                },
            },
            Question::Status {} => Answer::Status(Box::new(self.status(work).await?)),
            // Prepared before the engine, or a pairing of its own.
            Question::Ask(_) | Question::Invite { .. } => invalid("not a question for the engine", None),
        };
        work.effects.push(Effect::Answer(answers.clone(), answer));
        Ok(())
    }

    /// Takes up waiting for a request again. `None` when the answer comes later.
    async fn attach(
        &mut self,
        work: &mut Work,
        client: ClientId,
        id: &str,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<Option<Answer>, PartyError> {
        let matching: Vec<Digest> = self
            .party
            .replay
            .open()
            .map(|open| open.request().digest())
            .filter(|digest| digest.to_string().starts_with(id))
            .collect();
        if let ([request], true) = (matching.as_slice(), id.len() >= 4) {
            let request = *request;
            if self.askers.contains_key(&request) {
                return Ok(Some(self.refused(
                    "somebody waits for this request already",
                    "its answer goes to them",
                )));
            }
            self.askers.insert(
                request,
                Asker {
                    client,
                    answers: answers.clone(),
                },
            );
            if let Some(open) = self.party.replay.request(&request) {
                let shown = approval::render::render(&open.request().action);
                let (expires, need) = (open.request().expires.millis(), open.request().need);
                work.effects.push(Effect::Tell(
                    request,
                    Answer::Pending {
                        id: request.to_string(),
                        expires,
                        need,
                        shown,
                    },
                ));
            }
            self.judge(work, request).await?;
            return Ok(None);
        }
        // It may be over by now.
        for signed in work.turn.tx.newest("outcome", 1024).await? {
            let Some(outcome) = signed.verify().ok().and_then(|verified| verified.outcome()) else {
                continue;
            };
            let digest = outcome.request.to_string();
            if id.len() >= 4 && digest.starts_with(id) {
                let (by, reason) = self.denial(work, &outcome.request).await?;
                return Ok(Some(Answer::Ended {
                    id: digest,
                    result: outcome.result.clone(),
                    by,
                    reason,
                }));
            }
        }
        Ok(Some(invalid(
            format!("no request {id}"),
            Some("see `countersign inbox` in the gate's home"),
        )))
    }

    /// Who denied a request that is over, and why.
    async fn denial(&self, work: &mut Work, request: &Digest) -> Result<(Vec<String>, Option<String>), PartyError> {
        for signed in work.turn.tx.newest("decision", 1024).await? {
            let Some(decision) = signed.verify().ok().and_then(|verified| verified.decision()) else {
                continue;
            };
            if decision.request == *request && decision.verdict == approval::decision::Answer::Deny {
                let reason = decision.reason.as_untrusted().to_owned();
                return Ok((
                    self.names(std::iter::once(decision.signer())),
                    Some(reason).filter(|reason| !reason.is_empty()),
                ));
            }
        }
        Ok((Vec::new(), None))
    }

    /// Withdraws what nobody waits for any more: asked before this start, by somebody who hasn't come back in time. An admin's yes would lead nowhere.
    pub(super) async fn withdraw_orphans(&mut self, work: &mut Work) -> Result<(), PartyError> {
        if self.started.elapsed().as_millis() < u128::from(self.party.pace.orphans) {
            return Ok(());
        }
        let now = self.clock.now();
        let waits = |open: &&approval::replay::Pending| {
            open.permit().is_none() && matches!(open.request().action, Action::Command(_))
        };
        let open: Vec<Digest> = self
            .party
            .replay
            .open()
            .filter(waits)
            .map(|open| open.request().digest())
            .collect();
        for request in open
            .into_iter()
            .filter(|request| !self.askers.contains_key(request))
            .collect::<Vec<_>>()
        {
            self.close(work, request, Ended::Withdrawn(approval::outcome::Nothing {}), now)
                .await?;
        }
        Ok(())
    }

    /// Whoever asked went away: what waits is withdrawn, what runs is ended.
    pub(super) async fn left(&mut self, work: &mut Work, client: ClientId) -> Result<(), PartyError> {
        let theirs: Vec<Digest> = self
            .askers
            .iter()
            .filter(|(_, asker)| asker.client == client)
            .map(|(request, _)| *request)
            .collect();
        for request in theirs {
            self.askers.remove(&request);
            let open = self
                .party
                .replay
                .request(&request)
                .is_some_and(|open| open.permit().is_none());
            if open && self.halted.is_none() {
                let now = self.clock.now();
                self.close(work, request, Ended::Withdrawn(approval::outcome::Nothing {}), now)
                    .await?;
            }
        }
        for running in self.running.values().filter(|running| running.client == client) {
            let _ = running.stop.send(true);
        }
        Ok(())
    }

    /// Runs what was permitted. The permit is on disk by now, and is consumed here.
    pub(super) fn start(&mut self, permit: Permit) {
        let request = permit.request();
        let (Some(open), Some(asker)) = (self.party.replay.request(&request), self.askers.get(&request)) else {
            // Whoever asked left between permit and now: the outcome must say that it never ran.
            let result = Ended::Failed(approval::outcome::Failed {
                error: Text::cut("whoever asked left before it began"),
            });
            self.report(request, result);
            return;
        };
        let approved = open.request().clone();
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        self.running.insert(
            request,
            Running {
                stop,
                client: asker.client,
            },
        );
        let (events, answers, launcher) = (self.events.clone(), asker.answers.clone(), self.launcher.clone());
        tokio::spawn(async move {
            let (chunks, mut output) = mpsc::channel::<Chunk>(16);
            let forward = tokio::spawn(async move {
                while let Some(chunk) = output.recv().await {
                    let answer = match chunk {
                        Chunk::Stdout(bytes) => Answer::Stdout(STANDARD.encode(bytes)),
                        Chunk::Stderr(bytes) => Answer::Stderr(STANDARD.encode(bytes)),
                    };
                    if answers.send(answer).await.is_err() {
                        break;
                    }
                }
            });
            let stop = async move {
                if stopped.wait_for(|stop| *stop).await.is_err() {
                    // The gate itself forgot the command, which it does only when it is over.
                    std::future::pending().await
                }
            };
            let result = runner::run(&launcher, permit, &approved, chunks, stop).await;
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
        let time = self.clock.now();
        let outcome = sign(
            &self.party.identity,
            Outcome {
                request,
                permit: Some(permit),
                result: result.clone(),
                time,
            },
        )?;
        self.append(work, outcome.signed()).await?;
        work.effects.push(Effect::End(
            request,
            Answer::Ended {
                id: request.to_string(),
                result: result.clone(),
                by: Vec::new(),
                reason: None,
            },
        ));
        Ok(())
    }

    async fn status(&mut self, work: &mut Work) -> Result<Status, PartyError> {
        let peers = work.turn.tx.peers().await?;
        let roster = self.party.replay.roster();
        let devices = roster
            .into_iter()
            .flat_map(|roster| roster.people.iter())
            .flat_map(|person| {
                person.devices.iter().map(|device| {
                    let peer = peers.iter().find(|peer| peer.party == device.party);
                    DeviceStatus {
                        party: device.party.to_string(),
                        person: person.name.to_string(),
                        device: device.name.to_string(),
                        acked: peer.map_or(0, |peer| peer.acked_size),
                        heard: peer.map_or(0, |peer| peer.heard),
                    }
                })
            });
        Ok(Status {
            gate: self.party.gate.to_string(),
            relay: self.party.relay.clone(),
            connected: self.connected,
            halted: self.halted.clone(),
            size: self.party.replay.size(),
            epoch: roster.map_or(0, |roster| roster.epoch),
            pending: self.party.replay.open().count() as u64,
            devices: devices.collect(),
            clock_ahead_ms: self.clock.ahead(),
        })
    }
}
