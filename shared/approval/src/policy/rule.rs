//! One rule of a policy: for whom, what, until when (PROTOCOL.md 16.2, 16.3), and the first reason why it doesn't
//! match. Not here: reading it (`read`), finding it among the others (`index`), how often it was used (`judge`).

use std::collections::BTreeSet;
use std::fmt;

use super::glob::Glob;
use super::programs::{last_part, names_of};
use crate::action::{Action, Command, Mark, Stdin, ToolCall};
use crate::escape::escape_bytes;
use crate::request::AskedBy;
use crate::scalar::{Name, Time};

/// What a rule says, the strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Says {
    /// It isn't done.
    Deny,
    /// The admins are asked.
    Ask,
    /// It is done.
    Allow,
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deny => "deny",
            Self::Ask => "ask",
            Self::Allow => "allow",
        })
    }
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) says: Says,
    pub(super) who: Who,
    pub(super) what: What,
    pub(super) class: Option<Name>,
    pub(super) until: Option<Time>,
    pub(super) uses: Option<Uses>,
    /// Of its header in the text, counted from 1.
    pub(super) line: usize,
}

/// How often a rule is good.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uses {
    pub(super) most: u32,
    pub(super) per_ms: Option<u64>,
}

/// For whom: a list that is left out matches anybody.
#[derive(Debug, Default)]
pub(super) struct Who {
    pub(super) agents: Option<BTreeSet<String>>,
    pub(super) users: Option<BTreeSet<String>>,
    pub(super) conversations: Option<BTreeSet<String>>,
    pub(super) platforms: Option<BTreeSet<String>>,
}

#[derive(Debug)]
pub(super) enum What {
    Anything,
    Command(Pattern),
    /// All tools of the server, without a tool.
    Tool {
        server: String,
        tool: Option<String>,
    },
    Secret(Name),
}

/// A command line, argument by argument.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) program: String,
    pub(super) arguments: Vec<Element>,
    /// Whether anything may follow.
    pub(super) rest: bool,
}

/// What stands for one argument. A literal is never taken for a glob, whatever it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Literal(String),
    Like(Glob),
}

/// For whom it is asked, with one agent in the place of the one that asks.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) agent: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) conversation: Option<&'a str>,
    pub(super) platform: Option<&'a str>,
    /// Whether one of several agents is asked for: a sub-agent or those above it.
    pub(super) under: bool,
}

impl<'a> Asker<'a> {
    pub(super) fn of(asked_by: &'a AskedBy, agent: &'a Name) -> Self {
        Self {
            agent: agent.as_str(),
            user: asked_by.user.as_ref().map(|user| user.as_untrusted()),
            conversation: asked_by.conversation.as_ref().map(|text| text.as_untrusted()),
            platform: asked_by.platform.as_ref().map(|text| text.as_untrusted()),
            under: !asked_by.under.is_empty(),
        }
    }
}

/// The first reason why a rule doesn't match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyNot {
    /// It names other agents.
    #[error("it is for other agents")]
    Agent,
    /// It names other users.
    #[error("it is for other users")]
    User,
    /// It names other conversations.
    #[error("it is for other conversations")]
    Conversation,
    /// It names other platforms.
    #[error("it is for other platforms")]
    Platform,
    /// Its `until` has come.
    #[error("it is over")]
    Over,
    /// A permit names one rule: that another agent of the line used this one would never be counted.
    #[error("it is counted, and counted rules are for no sub-agent")]
    SubAgent,
    /// It was used as often as it says.
    #[error("it is used up")]
    UsedUp,
    /// It names an action of another kind.
    #[error("it is about another kind of action")]
    Kind,
    /// Another program, or the same name elsewhere.
    #[error("it names another program")]
    Program,
    /// This argument, counted as in argv, isn't what stands there.
    #[error("argument {0} is another")]
    Argument(usize),
    /// There are fewer arguments: this one is missing.
    #[error("argument {0} is missing")]
    Missing(usize),
    /// There are more arguments: this is the first that nothing stands for.
    #[error("argument {0} is one too many")]
    TooMany(usize),
    /// The gate saw something about it that no rule allows.
    #[error("it has the mark {0}, which a rule never allows")]
    Mark(Mark),
    /// It reads something.
    #[error("it has a standard input, which a rule never allows")]
    Stdin,
    /// A name in its environment that isn't one of the harmless ones.
    #[error("its environment holds {0}, which a rule never allows")]
    Environment(String),
    /// Programs would be looked up elsewhere.
    #[error("its environment's PATH isn't {PATH}, which a rule that allows needs")]
    Path,
    /// A script.
    #[error("it is a script, which a rule never allows")]
    Interpreter,
    /// A program that runs others, with a file.
    #[error("it runs other programs and names a file, which a rule never allows")]
    Operand,
    /// Another server.
    #[error("it names another server")]
    Server,
    /// Another tool of the same server.
    #[error("it names another tool")]
    Tool,
    /// Another secret.
    #[error("it names another secret")]
    Secret,
}

/// The only `PATH` with which a command is allowed by a rule.
pub(super) const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where a program without a slash is.
const FOLDERS: [&[u8]; 3] = [b"/usr/local/bin/", b"/usr/bin/", b"/bin/"];

/// The names that may stand in the environment of a command that is allowed by a rule: none of them is a hook.
const ENVIRONMENT: [&[u8]; 10] = [
    b"HOME",
    b"LANG",
    b"LC_ALL",
    b"LC_CTYPE",
    b"LOGNAME",
    b"PATH",
    b"SHELL",
    b"TERM",
    b"TZ",
    b"USER",
];

impl Rule {
    /// Whether it matches, but for its uses.
    pub(super) fn matches(&self, action: &Action, asker: Asker<'_>, now: Time) -> Result<(), WhyNot> {
        self.who.matches(asker)?;
        if self.until.is_some_and(|until| now >= until) {
            return Err(WhyNot::Over);
        }
        match (&self.what, action) {
            (What::Anything, _) => Ok(()),
            (What::Command(pattern), Action::Command(command)) => pattern.matches(self.says, command),
            (What::Tool { server, tool }, Action::Tool(call)) => same_tool(server, tool.as_deref(), call),
            (What::Secret(name), Action::Secret(secret)) => holds(*name == secret.name, WhyNot::Secret),
            _ => Err(WhyNot::Kind),
        }
    }
}

impl Who {
    pub(super) fn matches(&self, asker: Asker<'_>) -> Result<(), WhyNot> {
        // Whoever has no user, conversation or platform is on no list of them.
        let within = |list: &Option<BTreeSet<String>>, one: Option<&str>| match list {
            None => true,
            Some(list) => one.is_some_and(|one| list.contains(one)),
        };
        holds(within(&self.agents, Some(asker.agent)), WhyNot::Agent)?;
        holds(within(&self.users, asker.user), WhyNot::User)?;
        holds(within(&self.conversations, asker.conversation), WhyNot::Conversation)?;
        holds(within(&self.platforms, asker.platform), WhyNot::Platform)
    }
}

impl Pattern {
    fn matches(&self, says: Says, command: &Command) -> Result<(), WhyNot> {
        let program = match says {
            Says::Allow => self.is_program_of(command),
            Says::Deny | Says::Ask => self.may_be_program_of(command),
        };
        holds(program, WhyNot::Program)?;
        self.arguments_match(says, command)?;
        match says {
            Says::Allow => allowable(command),
            Says::Deny | Says::Ask => Ok(()),
        }
    }

    /// Exactly this program under a name of its own.
    fn is_program_of(&self, command: &Command) -> bool {
        let program = self.program.as_bytes();
        let path = command.executable.path.as_bytes();
        let there = if program.contains(&b'/') {
            path == program
        } else {
            FOLDERS.iter().any(|folder| path.strip_prefix(*folder) == Some(program))
        };
        let called = command.argv.first().is_some_and(|called| {
            let called = called.as_bytes();
            called == program || called == last_part(program) || called == path
        });
        there && called
    }

    /// Whatever could be meant: a copy elsewhere, another version, a script for it, or another program under its name.
    fn may_be_program_of(&self, command: &Command) -> bool {
        let meant = names_of(self.program.as_bytes());
        names_of_command(command).any(|name| meant.contains(&name))
    }

    fn arguments_match(&self, says: Says, command: &Command) -> Result<(), WhyNot> {
        let mut arguments = command.argv.iter().enumerate().skip(1);
        for (at, element) in (1..).zip(&self.arguments) {
            let (_, argument) = arguments.next().ok_or(WhyNot::Missing(at))?;
            holds(element.matches(says, argument.as_bytes()), WhyNot::Argument(at))?;
        }
        match arguments.next() {
            Some((at, _)) if !self.rest => Err(WhyNot::TooMany(at)),
            _ => Ok(()),
        }
    }
}

impl Element {
    fn matches(&self, says: Says, argument: &[u8]) -> bool {
        match self {
            Self::Literal(literal) => literal.as_bytes() == argument,
            Self::Like(glob) => says.likes(glob, argument),
        }
    }
}

impl Says {
    /// Whether this glob stands for this argument in a rule that says this.
    pub(super) fn likes(self, glob: &Glob, argument: &[u8]) -> bool {
        match self {
            Self::Allow => glob.matches(argument),
            Self::Deny | Self::Ask => glob.matches_loosely(argument),
        }
    }
}

/// The names that a command goes by where it is denied or asked: of its executable, its interpreter and argv[0].
pub(super) fn names_of_command(command: &Command) -> impl Iterator<Item = &[u8]> {
    let interpreter = command.interpreter.as_ref().map(|file| &file.path);
    [Some(&command.executable.path), interpreter, command.argv.first()]
        .into_iter()
        .flatten()
        .flat_map(|path| names_of(path.as_bytes()))
}

/// What no rule vouches for: everything about a command that isn't its program and arguments.
fn allowable(command: &Command) -> Result<(), WhyNot> {
    let runs_others = |mark: &Mark| matches!(mark, Mark::Runner | Mark::Shell);
    if let Some(mark) = command.marks.iter().find(|mark| !runs_others(mark)) {
        return Err(WhyNot::Mark(*mark));
    }
    holds(command.stdin == Stdin::None, WhyNot::Stdin)?;
    if let Some((name, _)) = command
        .env
        .iter()
        .find(|(name, _)| !ENVIRONMENT.contains(&name.as_bytes()))
    {
        return Err(WhyNot::Environment(escape_bytes(name.as_bytes())));
    }
    let path = command.env.iter().find(|(name, _)| name.as_bytes() == b"PATH");
    let usual = path.is_some_and(|(_, value)| value.as_bytes() == PATH.as_bytes());
    holds(usual, WhyNot::Path)?;
    holds(command.interpreter.is_none(), WhyNot::Interpreter)?;
    // What a file that it runs holds is beyond any pattern.
    let runner = command.marks.iter().any(runs_others);
    holds(!runner || command.operands.is_empty(), WhyNot::Operand)
}

fn same_tool(server: &str, tool: Option<&str>, call: &ToolCall) -> Result<(), WhyNot> {
    holds(server == call.server.as_untrusted(), WhyNot::Server)?;
    holds(tool.is_none_or(|tool| tool == call.tool.as_untrusted()), WhyNot::Tool)
}

fn holds(condition: bool, otherwise: WhyNot) -> Result<(), WhyNot> {
    if condition { Ok(()) } else { Err(otherwise) }
}
