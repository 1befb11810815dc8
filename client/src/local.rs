//! What programs on the gate's own machine say to it: JSON lines over the gate's unix socket, one question a connection.
//! Nothing here decides; a question that needs a yes becomes a request (PROTOCOL.md section 8.3).

use serde::{Deserialize, Serialize};

use approval::action::{SecretUse, ToolCall};
use approval::change::Change;
use approval::grant::Terms;
use approval::outcome::Ended;
use approval::permit::Confined;
use approval::request::AskedBy;
use approval::roster::{Quorum, Role, Unenrolled};
use approval::scalar::{ByteString, Id16};

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

/// An action to be approved, and for whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// What is to be done.
    pub what: What,
    /// The agent's words about it.
    #[serde(default)]
    pub reason: String,
    /// Who asks: a name, or `outer/inner` for an agent that works for another.
    #[serde(default)]
    pub agent: Option<String>,
    /// The agents above it, the outermost first; those before a slash in `agent` come after these.
    #[serde(default)]
    pub under: Vec<String>,
    /// For whom.
    #[serde(default)]
    pub user: Option<String>,
    /// In which conversation.
    #[serde(default)]
    pub conversation: Option<String>,
    /// On which platform.
    #[serde(default)]
    pub platform: Option<String>,
    /// How long the admins have, in ms.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// Drawn by whoever asks, at random: asking again with it, after a connection that broke, goes on with the same request.
    #[serde(default)]
    pub ticket: Option<Id16>,
}

impl Ask {
    /// This action, asked by nobody in particular.
    pub fn of(what: What) -> Self {
        Self {
            what,
            reason: String::new(),
            agent: None,
            under: Vec::new(),
            user: None,
            conversation: None,
            platform: None,
            expires_ms: None,
            ticket: None,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Run this program; the gate does it.
    Command(AskCommand),
    /// Call this tool; whoever asked does it.
    Tool(ToolCall),
    /// Use this secret; whoever asked does it.
    Secret(SecretUse),
}

/// A command, before its program is looked up and its files are hashed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskCommand {
    /// The whole argument vector; the first element names the program.
    pub argv: Vec<ByteString>,
    /// Where it is to run.
    pub directory: ByteString,
    /// Additions to the gate's default environment.
    #[serde(default)]
    pub env: Vec<(ByteString, ByteString)>,
    /// What it reads, in base64; nothing if left out.
    #[serde(default)]
    pub stdin: Option<String>,
    /// Wall-time limit in ms.
    #[serde(default)]
    pub wall_ms: Option<u64>,
    /// Limit of the output of both streams in bytes.
    #[serde(default)]
    pub output_bytes: Option<u64>,
    /// Limit of its memory in bytes; 0 or left out for none.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

/// A tool of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolName {
    /// The server.
    pub server: String,
    /// The tool.
    pub tool: String,
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

/// A grant that stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GrantStatus {
    /// Its digest.
    pub id: String,
    /// Digest of the request whose like it covers.
    pub request: String,
    /// For whom.
    pub asked_by: AskedBy,
    /// That request's action as an admin saw it.
    pub shown: String,
    /// What else it covers, and for how long.
    pub terms: Terms,
    /// Who gave it.
    pub by: Vec<String>,
    /// Permits by it so far.
    pub used: u64,
    /// When it was given, ms since 1970.
    pub made: u64,
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

/// How a gate is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its identity.
    pub gate: String,
    /// Its relay.
    pub relay: String,
    /// Whether it is connected to the relay now.
    pub connected: bool,
    /// Why it refuses to sign, if it does.
    pub halted: Option<String>,
    /// Entries in the transcript.
    pub size: u64,
    /// Epoch of the roster in force.
    pub epoch: u32,
    /// Requests that wait.
    pub pending: u64,
    /// Grants that stand.
    pub grants: u64,
    /// Whether a policy is in force; without one everything is asked.
    pub policy: bool,
    /// What happens while nobody is enrolled.
    pub unenrolled: Unenrolled,
    /// What holds commands in, as found at the gate's start.
    pub confined: Vec<Confined>,
    /// Whether the agent can be the gate's own user, who can read its keys.
    pub same_user: bool,
    /// By how many ms the gate's clock is ahead of a wall clock that was set back.
    pub clock_ahead_ms: u64,
    /// The devices it writes to.
    pub devices: Vec<DeviceStatus>,
}

/// How one device is, as the gate knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its identity.
    pub party: String,
    /// Whose it is.
    pub person: String,
    /// Its name.
    pub device: String,
    /// The transcript size that it acknowledged.
    pub acked: u64,
    /// When it was last heard of, ms since 1970; 0 for never.
    pub heard: u64,
}
