//! What programs on the gate's own machine say to it: JSON lines over the gate's unix socket, one question a connection.
//! Nothing here decides; a question that needs a yes becomes a request (PROTOCOL.md section 8.3).

mod ask;
mod standing;
mod status;

use serde::{Deserialize, Serialize};

use approval::change::Change;
use approval::outcome::Ended;
use approval::roster::{Quorum, Role};

pub use ask::{Ask, AskCommand, ToolName, What};
pub use standing::{Explained, Standing, State, Woken, Would};
pub use status::{DeviceStatus, GrantStatus, Status};

/// Longest line in bytes: the largest argv with room for its escapes, and the largest standard input (1 MiB) in base64.
pub const MAX_LINE: usize = 2 * 1024 * 1024;

/// What the model is told while people are asked.
pub const ASKED: &str = "requesting admin permission for this action; you will be notified";

/// What a local program asks of the gate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// May this be done? Waits for the answer. The gate runs a command itself and streams its output back; a tool call or a secret ends with
    /// `released`, and whoever asked goes on. Hanging up takes the question back. Answers: [`Answer::Pending`], then [`Answer::Progress`],
    /// [`Answer::Permitted`], output, [`Answer::Ended`].
    Ask(Box<Ask>),
    /// May this be done? Answers at once with [`Answer::Pending`] or [`Answer::Allowed`]; what became of it is said by [`Question::Wait`] and
    /// [`Question::Events`], and done by [`Question::Redeem`]. Hanging up changes nothing.
    Request(Box<Ask>),
    /// Go on waiting for a request asked earlier with [`Question::Ask`], after the gate restarted.
    Attach {
        /// Digest of the request, or an unambiguous beginning of it (4 digits at least).
        id: String,
    },
    /// How is a request? Answers with [`Answer::State`] as soon as it is anything but pending, or when the time is over.
    Wait {
        /// Digest of the request, or an unambiguous beginning of it.
        id: String,
        /// The longest to wait, in ms; 0 to be told how it is now.
        timeout_ms: u64,
    },
    /// Take a request back that wasn't redeemed yet.
    Cancel {
        /// Digest of the request, or an unambiguous beginning of it.
        id: String,
    },
    /// Do what was allowed: once, and the very same action. Streams as [`Question::Ask`] does, from [`Answer::Permitted`] on.
    Redeem {
        /// Digest of the request, or an unambiguous beginning of it.
        id: String,
        /// The action, exactly as it was asked.
        what: Box<What>,
    },
    /// Tell what becomes of requests that nobody waits for: one [`Answer::Event`] each, until whoever listens hangs up.
    Events {},
    /// What would be the answer, and why? Nothing is written and nobody is asked. Answers with [`Answer::Explained`].
    Explain(Box<Ask>),
    /// Which of these tools may the model be told of? Answers with [`Answer::Tools`].
    Tools {
        /// Who would call them.
        #[serde(default)]
        agent: Option<String>,
        /// The agents above it, the outermost first.
        #[serde(default)]
        under: Vec<String>,
        /// For whom.
        #[serde(default)]
        user: Option<String>,
        /// In which conversation.
        #[serde(default)]
        conversation: Option<String>,
        /// On which platform.
        #[serde(default)]
        platform: Option<String>,
        /// The tools that there are.
        tools: Vec<ToolName>,
    },
    /// Which grants stand? Answers with [`Answer::Grants`].
    Grants {},
    /// Invite a device.
    Invite {
        /// Whose device it will be.
        person: String,
        /// What that person may do.
        role: Role,
        /// How long the invite lives, in minutes.
        minutes: u64,
        /// The quorum to put in force together with the device, where it is to change.
        quorum: Option<Quorum>,
    },
    /// Propose a change of the roster.
    Propose {
        /// The change.
        change: Change,
    },
    /// How is the gate?
    Status {},
}

/// What the gate answers, one line each, until it closes the connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The request exists and waits for its admins.
    Pending {
        /// Digest of the request.
        id: String,
        /// When it expires, ms since 1970.
        expires: u64,
        /// How many people must approve.
        need: u16,
        /// The request as an admin sees it.
        shown: String,
        /// Three digits that whoever asked shows to the admins by another way, where the risk wants them.
        number: Option<String>,
        /// What to tell the model.
        sentence: String,
    },
    /// It is allowed, and waits to be redeemed.
    Allowed {
        /// Digest of the request.
        id: String,
        /// When that is over, ms since 1970.
        expires: u64,
        /// What to tell the model.
        sentence: String,
        /// Who or what allows it.
        because: String,
    },
    /// Somebody decided, and more are needed.
    Progress {
        /// People who approved so far.
        have: u16,
        /// People who must.
        need: u16,
    },
    /// It is permitted: a command runs now, anything else is released to whoever asked.
    Permitted {
        /// Who approved; empty where nobody had to.
        by: Vec<String>,
        /// Who or what allows it, in words.
        because: String,
    },
    /// A piece of the command's standard output, base64.
    Stdout(String),
    /// A piece of the command's standard error, base64.
    Stderr(String),
    /// It is over.
    Ended {
        /// Digest of the request.
        id: String,
        /// How.
        result: Ended,
        /// Who denied, when it was denied.
        by: Vec<String>,
        /// What they said, when it was denied; what forbids it, when the policy does.
        reason: Option<String>,
    },
    /// How a request is.
    State(Box<Standing>),
    /// Something became of a request that nobody waits for.
    Event(Woken),
    /// What the answer would be.
    Explained(Box<Explained>),
    /// The tools that the model may be told of.
    Tools {
        /// Those of the question, in its order.
        visible: Vec<ToolName>,
    },
    /// The grants that stand.
    Grants {
        /// Oldest first.
        grants: Vec<GrantStatus>,
    },
    /// The request was taken back.
    Cancelled {
        /// Digest of the request.
        id: String,
    },
    /// The invite to hand over.
    Invite {
        /// The link.
        link: String,
        /// When it dies, ms since 1970.
        expires: u64,
    },
    /// A device answered the invite: do both sides show this code? The client answers with [`Confirm`].
    Code {
        /// The short code, `123 456`.
        code: String,
        /// The device's own name.
        device: String,
        /// The device's identity.
        party: String,
    },
    /// The device is in the roster.
    Joined {
        /// Whose device.
        person: String,
        /// Epoch of the roster that names it.
        epoch: u32,
    },
    /// The admins must approve it: this request was made.
    Proposed {
        /// Digest of the request.
        id: String,
        /// How many must approve.
        need: u16,
    },
    /// How the gate is.
    Status(Box<Status>),
    /// It can't be done.
    Error {
        /// What kind, which is what `run` turns into its exit code.
        kind: Fault,
        /// What is wrong.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// Kinds of local errors, by what the caller does differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The question can't be understood or asks for what can't be.
    Invalid,
    /// There is no such program.
    NoProgram,
    /// Not allowed as things stand: nobody is enrolled, or the request was denied or expired.
    Refused,
    /// Too much is asked: later it may be taken.
    TooMuch,
    /// No such request.
    Unknown,
    /// Nobody has allowed it yet.
    NotYet,
    /// It was redeemed already.
    Used,
    /// Another action than the one that was asked.
    Another,
    /// The gate can't sign or keep anything now.
    Broken,
}

/// The answer to [`Answer::Code`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// Whether both sides show the same code.
    pub confirm: bool,
}
