//! From a local program's words to exactly what would be done and for whom (PROTOCOL.md section 8.3), outside the engine because it reads and hashes
//! files. Deliberately not here: whether it may be asked (`ask`), how a command is bound to its files (`runner`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use approval::action::{Action, Limits, OUTPUT_BYTES, WALL_MS};
use approval::request::{AskedBy, LIFE_MS};
use approval::scalar::REASON_BYTES;
use approval::{Id16, Name, Text};

use crate::local::{Answer, Ask, AskCommand, Fault, What};
use crate::runner::{self, BindError, Held};

/// Wall time of a command unless it asks for another, in ms.
const DEFAULT_WALL_MS: u64 = 30_000;
/// Output of a command unless it asks for another, in bytes of both streams.
const DEFAULT_OUTPUT_BYTES: u64 = 64 << 20;
/// How long the admins have while somebody waits, unless the asker says otherwise, in ms.
const WAITING_MS: u64 = 10 * 60 * 1000;
/// The same where nobody waits: the answer finds its way back even when it comes after lunch, and an answer that nobody fetched dies the same day.
const ASYNCHRONOUS_MS: u64 = 4 * 60 * 60 * 1000;
/// Who asks if nobody says.
const AGENT: &str = "agent";

/// What is asked for: an action with all that a request needs besides.
pub(crate) struct Asked {
    pub(super) action: Action,
    pub(super) asked_by: AskedBy,
    pub(super) reason: Text<REASON_BYTES>,
    pub(super) expires_ms: u64,
    pub(super) ticket: Option<Id16>,
    pub(super) stdin: Option<Vec<u8>>,
    pub(super) held: Keeping,
}

/// What is to be redeemed: the request, and the action as it is now.
pub(crate) struct Redeemed {
    pub(super) id: String,
    pub(super) action: Action,
    pub(super) held: Keeping,
}

/// The open files of a command on their way into the engine. They are taken once; a unit of work that is tried again finds none, and opens them anew.
pub(crate) struct Keeping(Mutex<Option<Held>>);

impl Keeping {
    fn new(held: Option<Held>) -> Self {
        Self(Mutex::new(held))
    }

    pub(super) fn take(&self) -> Option<Held> {
        self.0.lock().ok()?.take()
    }
}

/// Whether whoever asks waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The connection stays, and taking it away takes the question back.
    Waiting,
    /// The request lives on its own.
    Asynchronous,
}

pub(super) fn invalid(message: impl std::fmt::Display, hint: Option<&str>) -> Answer {
    fault(Fault::Invalid, message, hint)
}

pub(super) fn fault(kind: Fault, message: impl std::fmt::Display, hint: Option<&str>) -> Answer {
    Answer::Error {
        kind,
        message: message.to_string(),
        hint: hint.map(str::to_owned),
    }
}

type Prepared<T> = Result<T, Box<Answer>>;

/// Makes of a question the exact action that would be done. `hide` is the folder that no command may see. The error is the answer.
pub(super) fn prepare(ask: Ask, how: How, hide: &Path) -> Prepared<Asked> {
    let asked_by = asked_by(ask.agent, ask.under, [ask.user, ask.conversation, ask.platform])?;
    let (action, held, stdin) = action(ask.what, Some(hide))?;
    let reason = Text::new(ask.reason).map_err(|error| invalid(format!("the reason: {error}"), None))?;
    let default = match how {
        How::Waiting => WAITING_MS,
        How::Asynchronous => ASYNCHRONOUS_MS,
    };
    let expires_ms = limit(ask.expires_ms, default, LIFE_MS, "expiry")?;
    Ok(Asked {
        action,
        asked_by,
        reason,
        expires_ms,
        ticket: ask.ticket,
        stdin,
        held: Keeping::new(held),
    })
}

/// The action that would be asked and for whom, without a gate and so without a folder that is hidden: for whoever tries a policy out.
pub(crate) fn foreseen(ask: Ask) -> Prepared<(Action, AskedBy)> {
    let asked_by = asked_by(ask.agent, ask.under, [ask.user, ask.conversation, ask.platform])?;
    let (action, _, _) = action(ask.what, None)?;
    Ok((action, asked_by))
}

/// The same for what was asked before: it is bound again, because what was allowed is the file that was there, not its name.
pub(super) fn prepare_again(id: String, what: What, hide: &Path) -> Prepared<Redeemed> {
    let (action, held, _) = action(what, Some(hide))?;
    Ok(Redeemed {
        id,
        action,
        held: Keeping::new(held),
    })
}

fn limit(asked: Option<u64>, default: u64, most: u64, what: &str) -> Prepared<u64> {
    match asked.unwrap_or(default) {
        0 => Err(Box::new(invalid(format!("{what} of nothing"), None))),
        value if value > most => Err(Box::new(invalid(format!("{what} beyond {most}"), None))),
        value => Ok(value),
    }
}

/// For whom: an agent may be written with those above it before slashes.
pub(super) fn asked_by(agent: Option<String>, under: Vec<String>, who: [Option<String>; 3]) -> Prepared<AskedBy> {
    let name = |text: &str| -> Prepared<Name> {
        text.parse()
            .map_err(|error| Box::new(invalid(format!("the agent's name: {error}"), None)))
    };
    let agent = agent.unwrap_or_else(|| AGENT.to_owned());
    let mut agents = Vec::new();
    for text in under.iter().map(String::as_str).chain(agent.split('/')) {
        agents.push(name(text)?);
    }
    let agent = agents.pop().ok_or_else(|| invalid("an agent without a name", None))?;
    let text = |text: Option<String>, what: &str| match text {
        None => Ok(None),
        Some(text) => Text::new(text)
            .map(Some)
            .map_err(|error| Box::new(invalid(format!("the {what}: {error}"), None))),
    };
    let [user, conversation, platform] = who;
    Ok(AskedBy {
        agent,
        under: agents,
        user: text(user, "user")?,
        conversation: text(conversation, "conversation")?,
        platform: text(platform, "platform")?,
    })
}

fn action(what: What, hide: Option<&Path>) -> Prepared<(Action, Option<Held>, Option<Vec<u8>>)> {
    match what {
        What::Tool(call) => {
            // Here and nowhere else: JSON readers differ in corners, and verifiers take the arguments as text.
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(call.arguments.as_untrusted())
                .map_err(|_| invalid("the tool's arguments aren't a JSON object", None))?;
            Ok((Action::Tool(call), None, None))
        }
        What::Secret(secret) => Ok((Action::Secret(secret), None, None)),
        What::Command(command) => {
            let asking = asking(command, hide)?;
            let (command, held) = runner::bind(&asking).map_err(unbound)?;
            Ok((Action::Command(command), Some(held), asking.stdin))
        }
    }
}

fn asking(ask: AskCommand, hide: Option<&Path>) -> Prepared<runner::Asking> {
    let stdin = match ask.stdin {
        None => None,
        Some(text) => Some(
            STANDARD
                .decode(text)
                .map_err(|_| invalid("the standard input isn't canonical base64", None))?,
        ),
    };
    let limits = Limits {
        wall_ms: limit(ask.wall_ms, DEFAULT_WALL_MS, WALL_MS, "wall time")?,
        output_bytes: limit(ask.output_bytes, DEFAULT_OUTPUT_BYTES, OUTPUT_BYTES, "output")?,
        memory_bytes: ask.memory_bytes.unwrap_or(0),
    };
    Ok(runner::Asking {
        argv: ask.argv,
        env: ask.env,
        directory: PathBuf::from(OsStr::from_bytes(ask.directory.as_bytes())),
        stdin,
        limits,
        hide: hide.map(Path::to_owned),
    })
}

fn unbound(error: BindError) -> Box<Answer> {
    Box::new(match error {
        BindError::NoProgram => invalid(error, Some("put it after --")),
        BindError::NotFound { .. } => fault(
            Fault::NoProgram,
            error,
            Some("programs are looked up in /usr/local/bin, /usr/bin and /bin; give another one's absolute path"),
        ),
        error => invalid(error, None),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn who(agent: &str, under: &[&str]) -> Option<(String, Vec<String>)> {
        let under = under.iter().map(|name| (*name).to_owned()).collect();
        let asked_by = asked_by(Some(agent.to_owned()), under, [None, None, None]).ok()?;
        Some((
            asked_by.agent.to_string(),
            asked_by.under.iter().map(Name::to_string).collect(),
        ))
    }

    #[test]
    fn an_agents_parents_stand_before_the_slash() {
        let named = |agent: &str, under: &[&str]| {
            Some((agent.to_owned(), under.iter().map(|name| (*name).to_owned()).collect()))
        };
        assert_eq!(who("main", &[]), named("main", &[]));
        assert_eq!(who("main/helper", &[]), named("helper", &["main"]));
        assert_eq!(who("b/c", &["a"]), named("c", &["a", "b"]));
        for bad in ["", "/", "main/", "/helper", "a//b", "A"] {
            assert_eq!(who(bad, &[]), None, "{bad}");
        }
    }

    #[test]
    fn a_tool_is_given_a_json_object() {
        let asked = |arguments: &str| {
            let call = serde_json::json!({
                "server": "files", "tool": "read", "schema": "0".repeat(64), "arguments": arguments,
            });
            action(What::Tool(serde_json::from_value(call).unwrap()), None).is_ok()
        };
        assert!(asked("{}") && asked(r#"{"a":[1,{}],"b":null}"#) && asked(" { } "));
        for bad in ["", "[]", "1", "{}x", r#"{"a":}"#, r#""{}""#] {
            assert!(!asked(bad), "{bad}");
        }
    }

    #[test]
    fn nobody_in_particular_is_the_agent() {
        assert_eq!(
            asked_by(None, Vec::new(), [None, None, None]).unwrap().agent.as_str(),
            AGENT
        );
    }
}
