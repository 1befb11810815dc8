//! What the gate says about itself to those on its own machine: what it would answer and why, which tools may be shown, which grants stand, how it is.
//! Nothing here is written anywhere.

use tokio::sync::mpsc;

use approval::Text;
use approval::decide::Verdict;
use approval::policy::{self, Effect};
use approval::request::AskedBy;
use approval::roster::Unenrolled;
use approval::standing::{self, Held};

use super::Gate;
use super::ask::Draft;
use super::prepare::{Asked, invalid};
use super::work::{Effect as Done, Work};
use crate::local::{Answer, DeviceStatus, Explained, GrantStatus, Status, ToolName, Would};
use crate::party::PartyError;

impl Gate {
    /// What would be answered, and why.
    pub(super) fn explain(
        &mut self,
        work: &mut Work,
        asked: &Asked,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), PartyError> {
        let (action, asked_by) = (asked.action.clone(), asked.asked_by.clone());
        let answer = match self.draft(action, asked_by, asked.reason.clone(), asked.expires_ms) {
            Ok(draft) => Answer::Explained(Box::new(self.explained(&draft)?)),
            Err(PartyError::Statement(error)) => invalid(error, None),
            Err(error) => return Err(error),
        };
        work.effects.push(Done::Answer(answers.clone(), answer));
        Ok(())
    }

    fn explained(&mut self, draft: &Draft) -> Result<Explained, PartyError> {
        let now = self.clock.now();
        let verdict = self.foresee(draft)?;
        let replay = &self.party.replay;
        let roster = replay.roster().ok_or(PartyError::Lacks("a roster"))?;
        let (request, demands) = (&draft.request, &draft.demands);
        let explanation = policy::explain(
            roster.policy.as_ref(),
            &request.action,
            &request.asked_by,
            now,
            replay.standing(),
        );
        let (would, because, rule) = match &verdict {
            Verdict::Open(permit) => (Would::Allow, self.basis(permit.basis()), rule_of(permit.basis())),
            Verdict::Forbidden { rule } => (Would::Forbid, self.forbidding(*rule), *rule),
            Verdict::Refused(_) => (Would::Refuse, "nobody is enrolled who could approve".to_owned(), None),
            _ => {
                let because = match demands.effect {
                    Effect::Ask { rule: Some(rule) } => format!("asked by {}", self.rule(rule)),
                    _ => "nothing allows it: people are asked".to_owned(),
                };
                (Would::Ask, because, demands.effect.rule())
            }
        };
        let asks = would == Would::Ask;
        let may_approve = |person: &approval::roster::Person| {
            let is_asker = request
                .asked_by
                .user
                .as_ref()
                .is_some_and(|user| policy::is_person(roster.policy.as_ref(), &person.name, user));
            !(demands.four_eyes && is_asker)
        };
        let people = roster.admins().filter(|person| asks && may_approve(person));
        Ok(Explained {
            verdict: would,
            because,
            rule,
            line: rule.and_then(|rule| self.line_of(rule)),
            risk: demands.risk.as_ref().map(ToString::to_string),
            need: if asks { demands.need } else { 0 },
            people: people.map(|person| person.name.to_string()).collect(),
            considered: lines(&explanation),
            shown: approval::render::render(&request.action),
        })
    }

    /// The tools that the model may be told of: those whose use isn't forbidden whatever they are given.
    pub(super) fn tools(&mut self, asked_by: &AskedBy, tools: &[ToolName]) -> Answer {
        let now = self.clock.now();
        let standing = self.party.replay.standing();
        let policy = self.party.replay.roster().and_then(|roster| roster.policy.as_ref());
        let visible = |name: &&ToolName| {
            let (Ok(server), Ok(tool)) = (Text::new(name.server.clone()), Text::new(name.tool.clone())) else {
                return false;
            };
            policy::tool_visible(policy, asked_by, &server, &tool, now, standing)
        };
        Answer::Tools {
            visible: tools.iter().filter(visible).cloned().collect(),
        }
    }

    /// The grants that stand.
    pub(super) fn grants(&mut self) -> Answer {
        let now = self.clock.now();
        let replay = &self.party.replay;
        let Some(roster) = replay.roster() else {
            return Answer::Grants { grants: Vec::new() };
        };
        let stands = |held: &&Held| replay.standing().state(held, roster, now) == standing::State::Stands;
        let shown = |held: &Held| GrantStatus {
            id: held.digest().to_string(),
            request: held.request().digest().to_string(),
            asked_by: held.request().asked_by.clone(),
            shown: approval::render::render(&held.request().action),
            terms: held.grant().terms.clone(),
            by: self.givers(held),
            used: u64::from(held.used()),
            made: held.grant().time.millis(),
        };
        Answer::Grants {
            grants: replay.standing().iter().filter(stands).map(shown).collect(),
        }
    }

    /// Names of those who gave a grant.
    pub(super) fn givers(&self, held: &Held) -> Vec<String> {
        self.names(held.devices().iter().copied())
    }

    pub(super) async fn status(&mut self, work: &mut Work) -> Result<Status, PartyError> {
        let peers = work.turn.tx.peers().await?;
        let now = self.clock.now();
        let replay = &self.party.replay;
        let roster = replay.roster();
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
            size: replay.size(),
            epoch: roster.map_or(0, |roster| roster.epoch),
            pending: replay.open().count() as u64,
            grants: replay.standing().unended(now) as u64,
            policy: roster.is_some_and(|roster| roster.policy.is_some()),
            unenrolled: roster.map_or(Unenrolled::Refuse, |roster| roster.unenrolled),
            confined: self.confined(),
            // The socket takes no other user's connections.
            same_user: true,
            devices: devices.collect(),
            clock_ahead_ms: self.clock.ahead(),
        })
    }
}

fn rule_of(basis: &approval::permit::Basis) -> Option<u32> {
    match basis {
        approval::permit::Basis::Rule(rule) => Some(*rule),
        _ => None,
    }
}

/// An explanation of the policy, a line for each rule that it looked at and one for each agent.
pub(crate) fn lines(explanation: &policy::Explanation) -> Vec<String> {
    let rules = explanation.considered.iter().map(|rule| {
        let class = rule
            .class
            .as_ref()
            .map(|class| format!(", class {class}"))
            .unwrap_or_default();
        let fate = match &rule.fate {
            Ok(()) => "it matches".to_owned(),
            Err(why) => why.to_string(),
        };
        format!(
            "line {}, rule {}, {}{class}, for {}: {fate}",
            rule.line, rule.rule, rule.says, rule.agent
        )
    });
    let answers = explanation.answers.iter();
    rules
        .chain(answers.map(|answer| format!("{}: {}, by {}", answer.agent, answer.says, answer.by)))
        .collect()
}
