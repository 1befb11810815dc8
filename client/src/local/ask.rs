//! What a local program asks to be approved, and for whom: before a program is looked up and its files are hashed. What an action is to those who
//! answer is in `approval::action`.

use serde::{Deserialize, Serialize};

use approval::action::{SecretUse, ToolCall};
use approval::scalar::{ByteString, Id16};

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
