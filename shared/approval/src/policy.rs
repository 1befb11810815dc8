//! The policy: what may be done without asking, what is asked, and what is never done (PROTOCOL.md 16). It stands in the
//! roster as text, so that nothing local can widen it. Not here: what follows from an answer (`decide`), where uses are
//! counted (`replay`, the gate), how a command's marks are seen (the gate).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::action::Action;
use crate::request::{AskedBy, LIFE_MS};
use crate::scalar::{Digest, Name, Text, Time};

mod explain;
mod fields;
mod glob;
mod index;
mod programs;
mod read;
mod rule;
mod spelling;
#[cfg(test)]
mod tests;

pub use explain::{Answered, Considered, Explanation, Whose, explain};
pub use glob::is_plain;
pub use programs::marks_of_program;
pub use rule::{Says, WhyNot};

use rule::{Asker, Rule};

/// Bytes of a policy's text: it stands in the roster.
pub const POLICY_BYTES: usize = 16 * 1024;

/// A policy to begin with: everyday commands that only read and show nothing secret.
pub const DEFAULT: &str = include_str!("policy/default.toml");

/// A policy: its text as it stands in the roster, and what that means. Two are equal if their texts are.
#[derive(Clone)]
pub struct Policy {
    text: Arc<str>,
    rules: Arc<Compiled>,
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is too long for a roster.
    #[error("a policy of {0} bytes: it may have {POLICY_BYTES}, since it stands in the roster")]
    TooLong(usize),
    /// Something in it is refused (16.1).
    #[error("line {line}: {problem}")]
    Refused {
        /// Where, counted from 1.
        line: usize,
        /// What is wrong and what to write instead; escaped.
        problem: String,
    },
}

/// A class of risk: how carefully it is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// So many people at least.
    pub quorum: u16,
    /// Whether one denial is enough.
    pub veto: bool,
    /// Whether who asks can't approve.
    pub four_eyes: bool,
    /// Whether an approval repeats a number that is shown where it was asked.
    pub number: bool,
    /// The longest life of a request in milliseconds, if it says.
    pub expires_ms: Option<u64>,
    /// Whose attention is asked for first; empty for everybody's. For display only.
    pub first: Vec<Name>,
    /// After how many milliseconds everybody else's is. Given exactly if `first` isn't empty.
    pub after_ms: Option<u64>,
}

/// What a policy means.
struct Compiled {
    mode: Mode,
    layers: Layers,
    classes: BTreeMap<Name, Class>,
    /// The users who are a person.
    persons: BTreeMap<Name, Vec<Text>>,
    rules: Vec<Rule>,
    index: index::Index,
}

/// The answer where no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    Deny,
    #[default]
    Allowlist,
    Full,
}

/// Other modes for some.
#[derive(Default)]
struct Layers {
    users: BTreeMap<String, Mode>,
    conversations: BTreeMap<String, Mode>,
    agents: BTreeMap<String, Mode>,
}

/// How often permits rested on the rules of the policy in force, since its text is in force.
pub trait Uses {
    /// How many permits by this rule: all, or those whose time is later than `since`.
    fn used(&self, rule: u32, since: Option<Time>) -> u32;
}

/// What the policy says about an action. `rule` is counted from 0; `None` is the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It isn't done.
    Deny {
        /// By this rule.
        rule: Option<u32>,
    },
    /// The admins are asked.
    Ask {
        /// By this rule.
        rule: Option<u32>,
    },
    /// It is done.
    Allow {
        /// By this rule.
        rule: Option<u32>,
    },
}

/// What the policy says about an action, and how carefully the admins decide about it if they are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What is done.
    pub effect: Effect,
    /// On what terms it is asked.
    pub terms: RiskTerms,
}

/// The terms of a class of risk, or of none (16.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RiskTerms {
    /// The class, if the matching rules name one.
    pub risk: Option<Name>,
    /// So many people; the roster's quorum holds if it is larger.
    pub quorum: u16,
    /// Whether one denial is enough.
    pub veto: bool,
    /// Whether who asks can't approve.
    pub four_eyes: bool,
    /// Whether an approval repeats a number.
    pub number: bool,
    /// The longest life of the request in milliseconds, at most 24 hours.
    pub life_ms: u64,
    /// Whose attention is asked for first; empty for everybody's.
    pub first: Vec<Name>,
    /// After how many milliseconds everybody else's is.
    pub after_ms: Option<u64>,
}

impl Policy {
    /// What this text means.
    ///
    /// # Errors
    /// [`PolicyError`] with the line, for whatever 16.1 refuses.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_BYTES {
            return Err(PolicyError::TooLong(text.len()));
        }
        Self::parse_up_to(text, read::RULES)
    }

    /// Without the bounds on text and rules: to measure how judging grows with their number.
    ///
    /// # Errors
    /// As [`Policy::parse`] otherwise.
    #[doc(hidden)]
    pub fn parse_unbounded(text: &str) -> Result<Self, PolicyError> {
        Self::parse_up_to(text, usize::MAX)
    }

    fn parse_up_to(text: &str, most_rules: usize) -> Result<Self, PolicyError> {
        Ok(Self {
            rules: Arc::new(read::read(text, most_rules)?),
            text: Arc::from(text),
        })
    }

    /// The text as it stands in the roster: not fit for a terminal.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the text.
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }

    /// How many rules.
    pub fn rules(&self) -> usize {
        self.rules.rules.len()
    }

    /// What is no error and may still not be what its writer meant, each with its line.
    pub fn warnings(&self) -> Vec<String> {
        read::warnings(&self.rules.rules)
    }

    /// The most people that a class asks for; 1 without classes.
    pub fn largest_quorum(&self) -> u16 {
        self.classes().map(|(_, class)| class.quorum).max().unwrap_or(1)
    }

    /// The class of this name.
    pub fn class(&self, name: &Name) -> Option<&Class> {
        self.rules.classes.get(name)
    }

    /// All classes, by name.
    pub fn classes(&self) -> impl Iterator<Item = (&Name, &Class)> {
        self.rules.classes.iter()
    }

    /// Whether this user is this person: by name, or as the policy lists them.
    pub fn is_person(&self, person: &Name, user: &Text) -> bool {
        is_person(Some(self), person, user)
    }

    /// The line of the text at which this rule begins, counted from 1.
    pub fn line_of(&self, rule: u32) -> Option<usize> {
        self.rule(rule).map(|rule| rule.line)
    }

    /// What it says about this action, asked now.
    pub fn judge(&self, action: &Action, asked_by: &AskedBy, now: Time, uses: &dyn Uses) -> Judgement {
        // A change of the roster is for the admins alone (9), whatever the policy says.
        if matches!(action, Action::Roster(_)) {
            return Judgement::by_nobody();
        }
        let mut strictest: Option<(Says, Option<u32>)> = None;
        let mut matching = BTreeSet::new();
        for agent in agents(asked_by) {
            let asker = Asker::of(asked_by, agent);
            let mut own = self.rules.index.candidates(action, asker);
            own.retain(|rule| self.fate(*rule, action, asker, now, uses).is_ok());
            let (says, by) = self.settle(&own, asker);
            if strictest.is_none_or(|(strict, _)| says < strict) {
                strictest = Some((says, by.rule()));
            }
            matching.extend(own);
        }
        let (says, rule) = strictest.unwrap_or((Says::Ask, None));
        Judgement {
            effect: Effect::new(says, rule),
            terms: self.terms(&matching),
        }
    }

    fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.rules.get(number as usize)
    }

    /// Whether this rule matches; [`explain`] asks the same.
    fn fate(&self, number: u32, action: &Action, asker: Asker<'_>, now: Time, uses: &dyn Uses) -> Result<(), WhyNot> {
        let rule = self.rule(number).ok_or(WhyNot::Kind)?;
        rule.matches(action, asker, now)?;
        let Some(limit) = rule.uses else {
            return Ok(());
        };
        if asker.under {
            return Err(WhyNot::SubAgent);
        }
        // A span that reaches back before 1970 leaves nothing out.
        let ago = limit.per_ms.and_then(|per| now.millis().checked_sub(per));
        let used = uses.used(number, ago.map(Time::of_clock));
        if used < limit.most { Ok(()) } else { Err(WhyNot::UsedUp) }
    }

    /// What is said by these rules, all that match, in their order; by the mode if there are none.
    fn settle(&self, matching: &[u32], asker: Asker<'_>) -> (Says, Whose) {
        let said = matching
            .iter()
            .filter_map(|number| Some((self.rule(*number)?.says, *number)))
            .min();
        match said {
            Some((says, number)) => (says, Whose::Rule(number)),
            None => {
                let (mode, whose) = self.mode(asker);
                (mode.says(), whose)
            }
        }
    }

    fn mode(&self, asker: Asker<'_>) -> (Mode, Whose) {
        let layers = &self.rules.layers;
        let of = |modes: &BTreeMap<String, Mode>, one: Option<&str>| one.and_then(|one| modes.get(one)).copied();
        let layered = of(&layers.users, asker.user)
            .map(|mode| (mode, Whose::UserLayer))
            .or_else(|| of(&layers.conversations, asker.conversation).map(|mode| (mode, Whose::ConversationLayer)))
            .or_else(|| of(&layers.agents, Some(asker.agent)).map(|mode| (mode, Whose::AgentLayer)));
        layered.unwrap_or((self.rules.mode, Whose::Mode))
    }

    /// 16.4: of the largest quorum the first, by the order of the rules.
    fn terms(&self, matching: &BTreeSet<u32>) -> RiskTerms {
        let named = matching
            .iter()
            .filter_map(|number| self.rule(*number)?.class.as_ref())
            .filter_map(|name| Some((name, self.class(name)?)));
        let mut largest: Option<(&Name, &Class)> = None;
        for (name, class) in named {
            if largest.is_none_or(|(_, other)| class.quorum > other.quorum) {
                largest = Some((name, class));
            }
        }
        largest.map_or_else(RiskTerms::default, |(name, class)| RiskTerms::of(name, class))
    }
}

/// What a policy says about this action, asked now; without one everything is asked.
pub fn judge(policy: Option<&Policy>, action: &Action, asked_by: &AskedBy, now: Time, uses: &dyn Uses) -> Judgement {
    policy.map_or_else(Judgement::by_nobody, |policy| policy.judge(action, asked_by, now, uses))
}

/// Whether this user is this person (9.4): by name, or as the policy lists them.
pub fn is_person(policy: Option<&Policy>, person: &Name, user: &Text) -> bool {
    let listed = policy.and_then(|policy| policy.rules.persons.get(person));
    person.as_str() == user.as_untrusted() || listed.is_some_and(|users| users.contains(user))
}

/// Whether this tool is offered to whoever asks. One that would be denied isn't: what can't be used can't be talked
/// into being used.
pub fn tool_visible(
    policy: Option<&Policy>,
    asked_by: &AskedBy,
    server: &Text,
    tool: &Text,
    now: Time,
    uses: &dyn Uses,
) -> bool {
    // No rule looks at the schema or the arguments.
    let call = Action::Tool(crate::action::ToolCall {
        server: server.clone(),
        tool: tool.clone(),
        schema: Digest::of(b""),
        arguments: Text::cut("{}"),
    });
    !matches!(judge(policy, &call, asked_by, now, uses).effect, Effect::Deny { .. })
}

/// All for whom the policy is asked, the outermost first (16.3).
fn agents(asked_by: &AskedBy) -> impl Iterator<Item = &Name> {
    asked_by.under.iter().chain(std::iter::once(&asked_by.agent))
}

impl Mode {
    fn says(self) -> Says {
        match self {
            Self::Deny => Says::Deny,
            Self::Allowlist => Says::Ask,
            Self::Full => Says::Allow,
        }
    }
}

impl Effect {
    fn new(says: Says, rule: Option<u32>) -> Self {
        match says {
            Says::Deny => Self::Deny { rule },
            Says::Ask => Self::Ask { rule },
            Says::Allow => Self::Allow { rule },
        }
    }

    /// What is said.
    pub fn says(self) -> Says {
        match self {
            Self::Deny { .. } => Says::Deny,
            Self::Ask { .. } => Says::Ask,
            Self::Allow { .. } => Says::Allow,
        }
    }

    /// By which rule; `None` for the mode.
    pub fn rule(self) -> Option<u32> {
        match self {
            Self::Deny { rule } | Self::Ask { rule } | Self::Allow { rule } => rule,
        }
    }
}

impl Judgement {
    /// Where there is no policy, or none that counts.
    fn by_nobody() -> Self {
        Self {
            effect: Effect::Ask { rule: None },
            terms: RiskTerms::default(),
        }
    }
}

impl Default for RiskTerms {
    fn default() -> Self {
        Self {
            risk: None,
            quorum: 1,
            veto: true,
            four_eyes: false,
            number: false,
            life_ms: LIFE_MS,
            first: Vec::new(),
            after_ms: None,
        }
    }
}

impl RiskTerms {
    fn of(name: &Name, class: &Class) -> Self {
        Self {
            risk: Some(name.clone()),
            quorum: class.quorum,
            veto: class.veto,
            four_eyes: class.four_eyes,
            number: class.number,
            life_ms: class.expires_ms.unwrap_or(LIFE_MS).min(LIFE_MS),
            first: class.first.clone(),
            after_ms: class.after_ms,
        }
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Policy {}

/// Without the text: it is long, and not fit for a terminal.
impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policy({} bytes, {})", self.text.len(), self.digest().short())
    }
}

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
