//! What became of a request, as its agent is told, and what would become of one that isn't asked. Who decides it is in `approval::decide`.

use serde::{Deserialize, Serialize};

use approval::outcome::Ended;
use approval::request::AskedBy;

/// What may have become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its admins are asked.
    Pending,
    /// It may be redeemed.
    Allowed,
    /// It is permitted, and its command runs.
    Running,
    /// It was redeemed, or its command is over.
    Used,
    /// An admin said no.
    Denied,
    /// The policy says no.
    Forbidden,
    /// Nobody said yes in time, or nobody redeemed it in time.
    Expired,
    /// Whoever asked took it back.
    Withdrawn,
}

impl State {
    /// Whether nothing can become of it any more.
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Pending | Self::Allowed | Self::Running)
    }
}

/// How a request is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// Digest of the request.
    pub id: String,
    /// Who asked.
    pub asked_by: AskedBy,
    /// What became of it.
    pub state: State,
    /// What to tell the model.
    pub sentence: String,
    /// What those said who denied it, or what forbids it.
    pub reason: Option<String>,
    /// People who approved, or denied.
    pub by: Vec<String>,
    /// When it expires or expired, ms since 1970.
    pub expires: u64,
    /// Three digits to show to the admins, while they are asked.
    pub number: Option<String>,
    /// How it ended, if it did.
    pub result: Option<Ended>,
}

/// Something became of a request that nobody waits for: its agent is to be woken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Woken {
    /// Digest of the request.
    pub id: String,
    /// Who asked.
    pub asked_by: AskedBy,
    /// What became of it.
    pub state: State,
    /// What to tell the model.
    pub sentence: String,
    /// What those said who denied it, or what forbids it.
    pub reason: Option<String>,
}

/// What the answer to a question would be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explained {
    /// What would happen.
    pub verdict: Would,
    /// Who or what says so, in words.
    pub because: String,
    /// The rule that decides, counted from 0.
    pub rule: Option<u32>,
    /// Where that rule stands in the policy's text, counted from 1.
    pub line: Option<u32>,
    /// The class of risk.
    pub risk: Option<String>,
    /// How many people must say yes, where people are asked.
    pub need: u16,
    /// Who they could be.
    pub people: Vec<String>,
    /// All that the policy has to say about it, in its order.
    pub considered: Vec<String>,
    /// The action as an admin would see it.
    pub shown: String,
}

/// What would happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    /// It would be done at once.
    Allow,
    /// The admins would be asked.
    Ask,
    /// It would be forbidden.
    Forbid,
    /// The gate would refuse: nobody is enrolled.
    Refuse,
}
