//! Why a policy says what it says: every rule that comes near, with the first reason why it doesn't match. It asks the
//! same questions as `judge`, of all rules. Not here: an opinion of its own; the judgement is `judge`'s.

use std::fmt;

use super::rule::{Asker, Says, What, WhyNot};
use super::{Judgement, Policy, Uses, agents, judge};
use crate::action::Action;
use crate::request::AskedBy;
use crate::scalar::{Name, Time};

/// Why a policy says what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What it says.
    pub judgement: Judgement,
    /// The rules that are about this kind of action or for who asks, in their order, for each agent.
    pub considered: Vec<Considered>,
    /// What was said for each agent, the outermost first: the strictest counts, and of equals the first.
    pub answers: Vec<Answered>,
}

/// One rule, for one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// In whose place it was asked.
    pub agent: Name,
    /// The rule, counted from 0.
    pub rule: u32,
    /// Where it begins in the text, counted from 1.
    pub line: usize,
    /// What it says.
    pub says: Says,
    /// The class of risk that it names.
    pub class: Option<Name>,
    /// Whether it matches, or the first reason why not.
    pub fate: Result<(), WhyNot>,
}

/// What was said for one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// In whose place it was asked.
    pub agent: Name,
    /// What was said.
    pub says: Says,
    /// By what.
    pub by: Whose,
}

/// What gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This rule, counted from 0.
    Rule(u32),
    /// The layer for the user.
    UserLayer,
    /// The layer for the conversation.
    ConversationLayer,
    /// The layer for the agent.
    AgentLayer,
    /// The policy's mode; that of the empty policy, if there is none.
    Mode,
}

impl Whose {
    /// The rule, if it was one.
    pub fn rule(self) -> Option<u32> {
        match self {
            Self::Rule(number) => Some(number),
            _ => None,
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(number) => write!(f, "rule {number}"),
            Self::UserLayer => f.write_str("the layer for this user"),
            Self::ConversationLayer => f.write_str("the layer for this conversation"),
            Self::AgentLayer => f.write_str("the layer for this agent"),
            Self::Mode => f.write_str("the policy's mode"),
        }
    }
}

/// Why a policy says what it says about this action, asked now. Looks at all rules: for people, not for every request.
pub fn explain(
    policy: Option<&Policy>,
    action: &Action,
    asked_by: &AskedBy,
    now: Time,
    uses: &dyn Uses,
) -> Explanation {
    let mut explanation = Explanation {
        judgement: judge(policy, action, asked_by, now, uses),
        considered: Vec::new(),
        answers: Vec::new(),
    };
    for agent in agents(asked_by) {
        let (says, by) = match policy {
            Some(policy) if !matches!(action, Action::Roster(_)) => {
                let asker = Asker::of(asked_by, agent);
                let considered = policy.consider(action, agent, asker, now, uses);
                let matching: Vec<u32> = considered
                    .iter()
                    .filter(|rule| rule.fate.is_ok())
                    .map(|rule| rule.rule)
                    .collect();
                explanation.considered.extend(considered);
                policy.settle(&matching, asker)
            }
            _ => (Says::Ask, Whose::Mode),
        };
        explanation.answers.push(Answered {
            agent: agent.clone(),
            says,
            by,
        });
    }
    explanation
}

impl Policy {
    fn consider(&self, action: &Action, agent: &Name, asker: Asker<'_>, now: Time, uses: &dyn Uses) -> Vec<Considered> {
        let rules = (0u32..).zip(&self.rules.rules);
        rules
            .filter(|(_, rule)| rule.what.is_about(action) || rule.who.matches(asker).is_ok())
            .map(|(number, rule)| Considered {
                agent: agent.clone(),
                rule: number,
                line: rule.line,
                says: rule.says,
                class: rule.class.clone(),
                fate: self.fate(number, action, asker, now, uses),
            })
            .collect()
    }
}

impl What {
    fn is_about(&self, action: &Action) -> bool {
        matches!(
            (self, action),
            (Self::Anything, _)
                | (Self::Command(_), Action::Command(_))
                | (Self::Tool { .. }, Action::Tool(_))
                | (Self::Secret(_), Action::Secret(_))
        )
    }
}
