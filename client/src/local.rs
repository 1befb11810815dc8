//! What programs on the gate's own machine say to it: JSON lines over the gate's unix socket, one question a connection.
//! Nothing here decides; a question that needs a yes becomes a request (PROTOCOL.md section 8.3).

use serde::{Deserialize, Serialize};

use approval::change::Change;
use approval::outcome::Ended;
use approval::roster::{Quorum, Role};
use approval::scalar::{ByteString, Id16};

/// Longest line in bytes: the largest argv with room for its escapes.
pub const MAX_LINE: usize = 512 * 1024;

/// What a local program asks of the gate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// May this command run? The gate runs it and streams its output back.
    Ask(Box<Ask>),
    /// Go on waiting for a request asked earlier, after the gate restarted.
    Attach {
        /// Digest of the request, or an unambiguous beginning of it.
        id: String,
    },
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

/// A command to be approved.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The whole argument vector; the first element names the program.
    pub argv: Vec<ByteString>,
    /// Where it is to run.
    pub directory: ByteString,
    /// Additions to the gate's default environment.
    #[serde(default)]
    pub env: Vec<(ByteString, ByteString)>,
    /// The agent's words about it.
    #[serde(default)]
    pub reason: String,
    /// Who asks.
    #[serde(default)]
    pub agent: Option<String>,
    /// For whom.
    #[serde(default)]
    pub user: Option<String>,
    /// In which conversation.
    #[serde(default)]
    pub conversation: Option<String>,
    /// On which platform.
    #[serde(default)]
    pub platform: Option<String>,
    /// Wall-time limit in ms.
    #[serde(default)]
    pub wall_ms: Option<u64>,
    /// Limit of the output of both streams in bytes.
    #[serde(default)]
    pub output_bytes: Option<u64>,
    /// How long the admins have, in ms.
    #[serde(default)]
    pub expires_ms: Option<u64>,
    /// Drawn by whoever asks, at random: asking again with it, after a connection that broke, goes on with the same request.
    #[serde(default)]
    pub ticket: Option<Id16>,
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
    },
    /// Somebody decided, and more are needed.
    Progress {
        /// People who approved so far.
        have: u16,
        /// People who must.
        need: u16,
    },
    /// It may run, and runs now.
    Permitted {
        /// Who approved.
        by: Vec<String>,
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
        /// What they said, when it was denied.
        reason: Option<String>,
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
    /// Not allowed as things stand: nobody is enrolled, too much is pending.
    Refused,
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
