//! The demo's admins: each with a home of its own, paired by an invite as in earnest. What they answer is in `question`.

use std::path::Path;
use std::time::Duration;

use approval::Digest;
use approval::decision::Answer as Vote;
use approval::roster::Role;
use tokio::time::Instant;

use super::STEP;
use crate::cli::ask::Connection;
use crate::cli::terminal::{Failure, say};
use crate::home::Home;
use crate::local::{Answer, Confirm, Question};
use crate::member::{Begun, Member, Notice};

/// An admin of the demo.
pub(super) struct Admin {
    pub(super) name: &'static str,
    pub(super) member: Member,
}

impl Admin {
    /// Whether this admin's roster has everybody in it.
    fn knows(&self, admins: &[Admin]) -> bool {
        self.member
            .party
            .replay
            .roster()
            .is_some_and(|roster| roster.people.len() == admins.len())
    }
}

/// Lets every admin take in what comes, until all is as it should be.
pub(super) async fn pump(admins: &mut [Admin], done: impl Fn(&[Admin]) -> bool) -> Result<(), Failure> {
    let until = Instant::now() + STEP;
    while !done(admins) {
        if Instant::now() > until {
            return Err(Failure::new("the demo's parties don't hear from each other")
                .hint("with --keep DIR their logs stay in DIR"));
        }
        for admin in admins.iter_mut() {
            if let Ok(woken) = tokio::time::timeout(Duration::from_millis(20), admin.member.wait()).await {
                for notice in admin.member.take(woken).await? {
                    if let Notice::Evidence(what) = notice {
                        return Err(Failure::new(what));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Invites and pairs one admin; those who are in already approve it.
pub(super) async fn enrol(
    folder: &Path,
    gate: &Path,
    name: &'static str,
    quorum: Option<u16>,
    admins: &mut Vec<Admin>,
) -> Result<(), Failure> {
    let quorum = quorum
        .filter(|quorum| *quorum > 1)
        .map(|k| approval::roster::Quorum { command: k, roster: k });
    let question = Question::Invite {
        person: name.to_owned(),
        role: Role::Admin,
        minutes: 10,
        quorum,
    };
    let mut inviting = Connection::open(&Home::open(Some(gate.to_owned()))?, &question).await?;
    let Some(Answer::Invite { link, .. }) = inviting.next().await? else {
        return Err(Failure::new("the gate made no invite"));
    };
    let member = Begun::read(&link)?
        .join(Home::create(Some(folder.join(name)))?, &format!("{name}-laptop"))
        .await?;
    let mut joining = vec![Admin { name, member }];
    let device = code(&mut joining).await?;
    let shown = match inviting.next().await? {
        Some(Answer::Code { code, .. }) => code,
        Some(Answer::Error { message, hint, .. }) => return Err(Failure { message, hint, code: 1 }),
        _ => return Err(Failure::new("the gate showed no code")),
    };
    say(&format!(
        "   {name:<6} the gate shows {shown}, the device shows {device}"
    ));
    inviting
        .send(&Confirm {
            confirm: shown == device,
        })
        .await?;
    match inviting.next().await? {
        Some(Answer::Joined { .. }) => say(&format!(
            "          {name} is enrolled by whoever runs the gate, being the first"
        )),
        Some(Answer::Proposed { id, .. }) => {
            let request = id.parse::<Digest>()?;
            let mut who = Vec::new();
            let need = admins
                .first()
                .and_then(|admin| admin.member.party.replay.roster())
                .map_or(1, |roster| usize::from(roster.quorum.roster));
            for turn in 0..need {
                let arrived = |admins: &[Admin]| {
                    admins
                        .get(turn)
                        .is_some_and(|admin| admin.member.party.replay.request(&request).is_some())
                };
                pump(admins, arrived).await?;
                let Some(admin) = admins.get_mut(turn) else { break };
                admin.member.decide(&request, Vote::Approve, "").await?;
                who.push(admin.name);
            }
            say(&format!(
                "          {name} is enrolled by {}: later people need the admins",
                who.join(", ")
            ));
        }
        Some(Answer::Error { message, hint, .. }) => return Err(Failure { message, hint, code: 1 }),
        _ => return Err(Failure::new("the gate gave no answer")),
    }
    admins.append(&mut joining);
    pump(admins, |admins| {
        admins
            .iter()
            .all(|admin| admin.member.enrolled() && admin.knows(admins))
    })
    .await
}

/// Waits for the short code on the joining device.
async fn code(joining: &mut [Admin]) -> Result<String, Failure> {
    let until = Instant::now() + STEP;
    while Instant::now() < until {
        for admin in joining.iter_mut() {
            let woken = admin.member.wait().await;
            for notice in admin.member.take(woken).await? {
                if let Notice::Code(code) = notice {
                    return Ok(code);
                }
            }
        }
    }
    Err(Failure::new("the device saw no answer to its join request"))
}
