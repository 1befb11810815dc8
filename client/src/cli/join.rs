//! `countersign join`: a device becomes one of a person's, from the link to the roster. What is sent is in `member`.

use approval::Time;
use approval::pairing::Pairing;
use clap::Args;

use super::admin::{Outage, now};
use super::terminal::{Failure, Lines, Outcome, complain, confirmed, interactive, say, say_json};
use super::{Context, shutdown};
use crate::member::{Begun, Member, Notice};

#[derive(Args)]
pub(super) struct Join {
    /// The link that `countersign gate invite` printed; without one, an interrupted join goes on
    link: Option<String>,
    /// This device's name [default: this machine's]
    #[arg(long)]
    name: Option<String>,
    /// Don't ask before joining
    #[arg(short, long)]
    yes: bool,
}

impl Join {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let mut expires = None;
        let mut member = match &self.link {
            Some(link) => {
                let begun = Begun::read(link)?;
                let invite = &begun.invite;
                complain(&format!("you would join as {} ({})", invite.person, invite.role));
                complain(&format!("gate   {}", invite.gate));
                complain(&format!("relay  {}", invite.relay.as_str()));
                if !self.yes {
                    if !interactive() {
                        return Err(Failure::new("nobody can be asked here")
                            .hint("say --yes if gate and relay are the right ones"));
                    }
                    if !confirmed(&mut Lines::of_stdin(), "go on?").await {
                        return Err(Failure::new("not joined"));
                    }
                }
                expires = Some(invite.expires);
                let name = self.name.clone().unwrap_or_else(|| super::gate::machine_name("device"));
                begun.join(context.new_home()?, &name).await?
            }
            None => Member::open(context.home()?).await?,
        };
        let joined = wait_to_be_in(&mut member, expires, context).await;
        member.close().await;
        joined
    }
}

/// `expires` is the end of an invite that nobody has answered yet: a used one is never answered.
async fn wait_to_be_in(member: &mut Member, mut expires: Option<Time>, context: &Context) -> Outcome {
    let mut outage = Outage::default();
    if expires.is_some() {
        complain("waiting for the gate to answer");
    }
    // One for all turns: a signal that comes between two turns must not be lost.
    let mut shutdown = std::pin::pin!(shutdown());
    loop {
        if member.enrolled() && member.in_group().await? {
            let party = member.party.identity.party();
            let roster = member.party.replay.roster();
            let (person, role) = roster
                .and_then(|roster| roster.person_of(&party))
                .map_or((String::new(), String::new()), |(person, _)| {
                    (person.name.to_string(), person.role.to_string())
                });
            if context.json {
                say_json(&serde_json::json!({"v": 1, "joined": person, "role": role, "party": party.to_string()}));
            } else {
                say(&format!("joined as {person} ({role})"));
                complain("next: countersign watch");
            }
            return Ok(0);
        }
        if expires.is_some_and(|expires| now() >= expires) {
            return Err(Failure::new("the gate didn't answer before the invite expired")
                .hint("it may have been used already; ask for a new one, and join in a new folder"));
        }
        let woken = tokio::select! {
            woken = member.wait() => woken,
            () = &mut shutdown => {
                complain("interrupted; `countersign join` without a link goes on");
                return Ok(130);
            }
        };
        for notice in member.take(woken).await? {
            match notice {
                Notice::Code(code) if context.json => {
                    expires = None;
                    say_json(&serde_json::json!({"v": 1, "code": code}));
                }
                Notice::Code(code) => {
                    expires = None;
                    say(&format!("code {code}"));
                    complain("the gate must show the same code; whoever is there confirms it");
                }
                Notice::Answered(answer) => match answer.verdict {
                    Pairing::Refused => {
                        return Err(Failure::new(format!(
                            "refused: {}",
                            approval::escape::escape(answer.text.as_untrusted())
                        ))
                        .hint("ask for a new invite; this folder can be deleted"));
                    }
                    Pairing::Waiting => complain(&format!(
                        "confirmed; {}",
                        approval::escape::escape(answer.text.as_untrusted())
                    )),
                    Pairing::Confirmed => complain("confirmed"),
                },
                Notice::Connected => outage.over(),
                Notice::Offline(reason) => outage.say(&reason),
                Notice::Evidence(what) => return Err(Failure::new(what)),
                _ => {}
            }
        }
    }
}
