//! `countersign grants` and `revoke`: what stands for good, for whom and until when, and how one admin takes it back
//! (PROTOCOL.md 8.7, 8.8). Giving a grant is part of an approval: `answer`.

use approval::render::utc;
use approval::replay::Replay;
use approval::standing::{Held, State};
use approval::{Digest, Time};
use clap::Args;
use tokio::time::Instant;

use super::Context;
use super::admin::{Outage, look, now};
use super::answer::{NOT_TAKEN, TAKEN};
use super::terminal::{Failure, Outcome, complain, say, say_json};
use crate::member::{Member, Notice};
use crate::party::{Kind, Party};
use crate::show;

#[derive(Args)]
pub(super) struct Grants {
    /// With those that stand no more
    #[arg(short, long)]
    all: bool,
    /// Only what is known here already
    #[arg(long)]
    offline: bool,
}

#[derive(Args)]
pub(super) struct Revoke {
    /// The grant's id; may be shortened
    id: String,
    /// Why, for the transcript
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl Grants {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let party = Party::open_any(context.home()?).await?;
        if party.kind == Kind::Gate || self.offline {
            self.list(context, &party.replay);
            return Ok(0);
        }
        party.store.close().await;
        let mut member = Member::open(context.home()?).await?;
        look(&mut member, false).await?;
        self.list(context, &member.party.replay);
        member.close().await;
        Ok(0)
    }

    fn list(&self, context: &Context, replay: &Replay) {
        let mut none = true;
        for held in replay.standing().iter() {
            let state = state(replay, held, now());
            if state != Some(State::Stands) && !self.all {
                continue;
            }
            none = false;
            if context.json {
                say_json(&json(replay, held, state));
            } else {
                say(&text(replay, held, state));
            }
        }
        if none && !context.json {
            complain(if self.all || replay.standing().is_empty() {
                "nothing is granted"
            } else {
                "nothing that is granted stands; --all shows what did"
            });
        }
    }
}

fn state(replay: &Replay, held: &Held, now: Time) -> Option<State> {
    Some(replay.standing().state(held, replay.roster()?, now))
}

/// Those who gave it; who has left the roster is named by the device's short form.
fn givers(replay: &Replay, held: &Held) -> Vec<String> {
    let mut names = Vec::new();
    for device in held.devices() {
        let name = show::who(replay.roster(), device);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn in_words(replay: &Replay, held: &Held, state: Option<State>) -> String {
    match state {
        None => "nothing is known of the roster".to_owned(),
        Some(State::Stands) => "stands".to_owned(),
        Some(State::Revoked { by, .. }) => {
            let who = show::who(replay.roster(), &by);
            let reason = held
                .revocation()
                .map(|revocation| revocation.reason.as_untrusted())
                .unwrap_or_default();
            if reason.is_empty() {
                format!("revoked by {who}")
            } else {
                format!("revoked by {who}, saying: {}", approval::escape::escape(reason))
            }
        }
        Some(State::Over) => "over".to_owned(),
        Some(State::UsedUp) => "used up".to_owned(),
        Some(State::TooFewLeft { left, need }) => {
            format!("rests: of those who gave it {left} are still admins, and it takes {need}")
        }
    }
}

fn word(state: Option<State>) -> &'static str {
    match state {
        None => "unknown",
        Some(State::Stands) => "stands",
        Some(State::Revoked { .. }) => "revoked",
        Some(State::Over) => "over",
        Some(State::UsedUp) => "used-up",
        Some(State::TooFewLeft { .. }) => "too-few-left",
    }
}

fn text(replay: &Replay, held: &Held, state: Option<State>) -> String {
    let (request, grant) = (held.request(), held.grant());
    let times = match held.used() {
        0 => "not used yet".to_owned(),
        1 => "used once".to_owned(),
        used => format!("used {used} times"),
    };
    let used = held
        .uses_left()
        .map_or_else(|| times.clone(), |left| format!("{times}, {left} left"));
    let last = held
        .last_use()
        .map_or_else(String::new, |time| format!(", last on {}", utc(time)));
    let lines = [
        format!(
            "{}  {}",
            held.digest().short(),
            show::terms::granted(request, &grant.terms)
        ),
        show::terms::reach(&grant.terms, request, grant.time),
        format!("given by {} on {}", show::and(&givers(replay, held)), utc(grant.time)),
        format!("{}; {used}{last}", in_words(replay, held, state)),
    ];
    lines.join("\n          ")
}

fn json(replay: &Replay, held: &Held, state: Option<State>) -> serde_json::Value {
    let (request, grant) = (held.request(), held.grant());
    serde_json::json!({
        "v": 1,
        "id": held.digest(),
        "request": grant.request,
        "what": show::terms::granted(request, &grant.terms),
        "reach": show::terms::reach(&grant.terms, request, grant.time),
        "terms": grant.terms,
        "asked_by": request.asked_by,
        "given_by": givers(replay, held),
        "given": grant.time,
        "used": held.used(),
        "uses_left": held.uses_left(),
        "last_use": held.last_use(),
        "state": word(state),
        "state_text": in_words(replay, held, state),
    })
}

fn find(replay: &Replay, id: &str) -> Result<Digest, Failure> {
    let shown = approval::escape::escape(id);
    let lists = "`countersign grants --all` lists them";
    let matching: Vec<&Held> = replay
        .standing()
        .iter()
        .filter(|held| show::matches(&held.digest(), id))
        .collect();
    match matching.as_slice() {
        _ if id.len() < 4 => Err(Failure::new("an id needs at least 4 hex digits").hint(lists)),
        [one] if one.revocation().is_some() => Err(Failure::new(format!("the grant {shown} is revoked already"))
            .hint(lists)
            .code(NOT_TAKEN)),
        [one] => Ok(one.digest()),
        [] => Err(Failure::new(format!("no grant {shown}")).hint(lists).code(NOT_TAKEN)),
        several => {
            let ids: Vec<String> = several.iter().map(|held| held.digest().short()).collect();
            Err(Failure::new(format!("{shown} means several grants: {}", ids.join(", "))).hint("give more of it"))
        }
    }
}

impl Revoke {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let mut member = Member::open(context.home()?).await?;
        look(&mut member, false).await?;
        let grant = find(&member.party.replay, &self.id)?;
        if !context.json
            && let Some(held) = member.party.replay.standing().get(&grant)
        {
            let replay = &member.party.replay;
            say(&text(replay, held, state(replay, held, now())));
        }
        let revocation = member.revoke(&grant, &self.reason).await?;
        let (said, code) = wait_until_it_stands(&mut member, &grant, &revocation).await?;
        member.close().await;
        if context.json {
            say_json(
                &serde_json::json!({"v": 1, "grant": grant, "revocation": revocation, "result": said, "exit": code}),
            );
        } else {
            say(&said);
        }
        Ok(code)
    }
}

async fn wait_until_it_stands(
    member: &mut Member,
    grant: &Digest,
    revocation: &Digest,
) -> Result<(String, u8), Failure> {
    let not_taken = |text: &str| format!("not taken: {}", approval::escape::escape(text));
    let until = Instant::now() + TAKEN;
    let mut outage = Outage::default();
    loop {
        let woken = tokio::select! {
            woken = member.wait() => woken,
            () = tokio::time::sleep_until(until) => {
                let queued = "signed and queued; the gate hasn't taken it yet, it is sent again by `countersign watch` or `inbox`";
                return Ok((queued.to_owned(), 0));
            }
        };
        for notice in member.take(woken).await? {
            match notice {
                Notice::Entry(entry) if entry.statement().digest() == *revocation => {
                    return Ok((format!("revoked: from entry {} on it covers nothing", entry.index()), 0));
                }
                Notice::Refused { about, text, .. } if about == *revocation => {
                    return Ok((not_taken(&text), NOT_TAKEN));
                }
                Notice::Connected => outage.over(),
                Notice::Offline(reason) => outage.say(&reason),
                Notice::Evidence(what) => complain(&format!("WARNING: {what}")),
                _ => {}
            }
        }
        // Somebody else may have been faster: then it is revoked, though not by this.
        let held = member.party.replay.standing().get(grant);
        if held
            .and_then(Held::revocation)
            .is_some_and(|other| other.digest() != *revocation)
        {
            return Ok(("revoked already, by somebody else".to_owned(), 0));
        }
        if let Some((_, text)) = member.refusal(revocation.as_bytes()).await? {
            return Ok((not_taken(&text), NOT_TAKEN));
        }
    }
}
