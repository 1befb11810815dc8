//! `countersign roster`: who may say yes, and proposals to change that. A proposal becomes a request that the admins answer like any other.

use approval::change::Change;
use approval::message::RefusalCode;
use approval::roster::Quorum;
use clap::{Args, Subcommand};
use wire::identity::PartyId;

use super::Context;
use super::terminal::{Failure, Outcome, complain, say, say_json, say_raw};
use crate::local::{Answer, Question};
use crate::member::{Member, Notice};
use crate::party::{Kind, Party};
use crate::show;

/// How long the gate may take to answer a proposal.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(20);

/// What to do about a change that can't be.
const SEE: &str = "see who is in it: countersign roster show";

#[derive(Subcommand)]
pub(super) enum Roster {
    /// The roster in force
    Show,
    /// Propose a change to the admins
    #[command(subcommand)]
    Propose(Propose),
    /// Propose to remove a person with all devices
    Remove(Remove),
}

#[derive(Subcommand)]
pub(super) enum Propose {
    /// Remove a person with all devices
    RemovePerson(Remove),
    /// Remove one device
    RemoveDevice {
        /// The device's identity
        #[arg(value_name = "CSID")]
        party: PartyId,
    },
    /// Change how many people must approve
    Quorum {
        /// For a command
        command: u16,
        /// For a change of the roster [default: the same]
        roster: Option<u16>,
    },
}

#[derive(Args)]
pub(super) struct Remove {
    /// The person's name in the roster
    person: String,
}

impl Roster {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let person = |remove: Remove| {
            remove
                .person
                .parse()
                .map(Change::RemovePerson)
                .map_err(|error| Failure::new(format!("the person's name: {error}")).hint(SEE))
        };
        let change = match self {
            Self::Show => return shown(context).await,
            Self::Remove(remove) | Self::Propose(Propose::RemovePerson(remove)) => person(remove)?,
            Self::Propose(Propose::RemoveDevice { party }) => Change::RemoveDevice(party),
            Self::Propose(Propose::Quorum { command, roster }) => Change::Quorum(Quorum {
                command,
                roster: roster.unwrap_or(command),
            }),
        };
        propose(context, change).await
    }
}

async fn shown(context: &Context) -> Outcome {
    let party = Party::open_any(context.home()?).await?;
    let roster = party
        .replay
        .roster()
        .ok_or_else(|| Failure::new("no roster is known here yet"))?;
    if context.json {
        let text: serde_json::Value = serde_json::to_value(roster.get())?;
        say_json(&serde_json::json!({"v": 1, "digest": roster.digest().to_string(), "roster": text}));
    } else {
        say_raw(&show::roster(roster));
    }
    Ok(0)
}

/// Proposes a change: to the gate at its own machine, over the channel from elsewhere.
pub(super) async fn propose(context: &Context, change: Change) -> Outcome {
    let party = Party::open_any(context.home()?).await?;
    let kind = party.kind;
    party.store.close().await;
    let id = match kind {
        Kind::Gate => at_the_gate(context, change).await?,
        Kind::Member => over_the_channel(context, change).await?,
    };
    if context.json {
        say_json(&serde_json::json!({"v": 1, "proposed": id}));
    } else {
        say(&format!("request {}", id.chars().take(8).collect::<String>()));
        complain("the admins answer it like any other request");
    }
    Ok(0)
}

async fn at_the_gate(context: &Context, change: Change) -> Result<String, Failure> {
    let mut gate = super::ask::Connection::open(&context.home()?, &Question::Propose { change }).await?;
    match gate.next().await? {
        Some(Answer::Proposed { id, .. }) => Ok(id),
        Some(Answer::Error { message, hint, .. }) => {
            Err(super::gate::failure(message, hint.or_else(|| Some(SEE.to_owned()))))
        }
        _ => Err(Failure::new("the gate gave no answer")),
    }
}

async fn over_the_channel(context: &Context, change: Change) -> Result<String, Failure> {
    let mut member = Member::open(context.home()?).await?;
    let id = member.propose(change).await?;
    let mut about = [0; 32];
    about.iter_mut().zip(id.0).for_each(|(to, from)| *to = from);
    let until = tokio::time::Instant::now() + ANSWER;
    let answer = loop {
        if let Some(answer) = member.refusal(&about).await? {
            break answer;
        }
        if tokio::time::Instant::now() >= until {
            return Err(Failure::new("the gate hasn't answered yet")
                .hint("the proposal is on its way; look with `countersign inbox` later"));
        }
        let woken = member.wait().await;
        for notice in member.take(woken).await? {
            if let Notice::Offline(reason) = notice {
                complain(&format!("{reason}; trying again"));
            }
        }
    };
    member.close().await;
    match answer {
        (code, id) if code == RefusalCode::Taken.number() => Ok(id),
        (_, text) => Err(Failure::new(approval::escape::escape(&text)).hint(SEE)),
    }
}
