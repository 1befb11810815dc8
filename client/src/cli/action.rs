//! What can be asked for, as it is typed: a command with its surroundings, a tool call, a secret; and for whom. Shared by all commands that put an
//! action to the gate. Deliberately not here: what becomes of it.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use approval::Text;
use approval::action::{STDIN_BYTES, SecretUse, ToolCall};
use approval::scalar::ByteString;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::terminal::Failure;
use crate::local::{Ask, AskCommand, What};

/// For whom something is asked.
#[derive(Args, Clone, Default)]
pub(super) struct Who {
    /// Who asks: a name of a-z 0-9 . _ -, or main/helper for an agent that works for another
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// For which user
    #[arg(long)]
    user: Option<String>,
    /// In which conversation
    #[arg(long)]
    conversation: Option<String>,
    /// On which platform
    #[arg(long)]
    platform: Option<String>,
}

impl Who {
    /// This action, asked for them.
    pub(super) fn asks(&self, what: What) -> Ask {
        Ask {
            agent: self.agent.clone(),
            user: self.user.clone(),
            conversation: self.conversation.clone(),
            platform: self.platform.clone(),
            ..Ask::of(what)
        }
    }
}

/// How a command is to run.
#[derive(Args, Clone, Default)]
pub(super) struct Surroundings {
    /// A variable more in the command's environment, which starts from empty; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<OsString>,
    /// Where it runs [default: here]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// What it reads, at most 1 MiB; - for standard input [default: nothing]
    #[arg(long, value_name = "FILE|-")]
    stdin: Option<PathBuf>,
    /// How long it may run, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS")]
    wall: Option<u64>,
    /// How much it may write, in bytes [default: 64 MiB]
    #[arg(long, value_name = "BYTES")]
    output: Option<u64>,
    /// How much memory it may take, in bytes [default: no limit]
    #[arg(long, value_name = "BYTES")]
    memory: Option<u64>,
}

fn bytes(bytes: &[u8], what: &str) -> Result<ByteString, Failure> {
    ByteString::new(bytes.to_vec()).map_err(|error| Failure::new(format!("{what}: {error}")))
}

impl Surroundings {
    /// This command in them.
    pub(super) fn of(&self, command: &[OsString]) -> Result<What, Failure> {
        let directory = match &self.directory {
            Some(directory) => std::path::absolute(directory)?,
            None => std::env::current_dir()?,
        };
        let variable = |pair: &OsString| {
            let raw = pair.as_bytes();
            let at = raw
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(|| Failure::new("--env takes NAME=VALUE").hint("as in --env LANG=C.UTF-8"))?;
            let (name, value) = raw.split_at(at);
            Ok::<_, Failure>((
                bytes(name, "--env")?,
                bytes(value.get(1..).unwrap_or_default(), "--env")?,
            ))
        };
        Ok(What::Command(AskCommand {
            argv: command
                .iter()
                .map(|argument| bytes(argument.as_bytes(), "an argument"))
                .collect::<Result<_, _>>()?,
            directory: bytes(&directory.into_os_string().into_vec(), "the directory")?,
            env: self.env.iter().map(variable).collect::<Result<_, _>>()?,
            stdin: match &self.stdin {
                Some(path) => Some(STANDARD.encode(input(path, STDIN_BYTES)?)),
                None => None,
            },
            wall_ms: self.wall.map(|seconds| seconds.saturating_mul(1000)),
            output_bytes: self.output,
            memory_bytes: self.memory,
        }))
    }
}

/// The bytes of a file, or of standard input where it is called `-`. One byte more than `most` is too many.
pub(super) fn input(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(most + 1).read_to_end(&mut bytes).map_err(named)?;
    } else {
        let file = std::fs::File::open(path).map_err(named)?;
        file.take(most + 1).read_to_end(&mut bytes).map_err(named)?;
    }
    if bytes.len() as u64 > most {
        return Err(Failure::new(format!("{}: more than {most} bytes", path.display())));
    }
    Ok(bytes)
}

/// An action of any kind.
#[derive(Args, Clone, Default)]
pub(super) struct Wanted {
    /// A tool call: its server and tool, cut at the first slash
    #[arg(long, value_name = "SERVER/TOOL", requires_all = ["schema", "arguments"], conflicts_with_all = ["secret", "command"])]
    tool: Option<String>,
    /// SHA-256 of the tool's schema and description
    #[arg(long, value_name = "HEX", requires = "tool")]
    schema: Option<approval::Digest>,
    /// The arguments of the call, a JSON object as it came
    #[arg(long, value_name = "JSON", requires = "tool")]
    arguments: Option<String>,
    /// The use of a secret: its name
    #[arg(long, value_name = "NAME", requires_all = ["host", "method", "path"], conflicts_with = "command")]
    secret: Option<approval::Name>,
    /// The host that it is used at
    #[arg(long, requires = "secret")]
    host: Option<String>,
    /// The method that it is used with
    #[arg(long, requires = "secret")]
    method: Option<String>,
    /// The path that it is used for
    #[arg(long, requires = "secret")]
    path: Option<String>,
    #[command(flatten)]
    surroundings: Surroundings,
    /// The command, after --
    #[arg(required_unless_present_any = ["tool", "secret"], trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Wanted {
    /// What is to be done.
    pub(super) fn what(&self) -> Result<What, Failure> {
        fn text<const MOST: usize>(text: Option<&str>, what: &str) -> Result<Text<MOST>, Failure> {
            Text::new(text.unwrap_or_default().to_owned()).map_err(|error| Failure::new(format!("{what}: {error}")))
        }
        if let (Some(tool), Some(schema)) = (&self.tool, self.schema) {
            let (server, tool) = tool
                .split_once('/')
                .ok_or_else(|| Failure::new("--tool takes SERVER/TOOL"))?;
            return Ok(What::Tool(ToolCall {
                server: text(Some(server), "the server")?,
                tool: text(Some(tool), "the tool")?,
                schema,
                arguments: text(self.arguments.as_deref(), "the arguments")?,
            }));
        }
        if let Some(name) = &self.secret {
            return Ok(What::Secret(SecretUse {
                name: name.clone(),
                host: text(self.host.as_deref(), "the host")?,
                method: text(self.method.as_deref(), "the method")?,
                path: text(self.path.as_deref(), "the path")?,
            }));
        }
        self.surroundings.of(&self.command)
    }
}
