//! Cases kept beside a policy: what is asked, for whom, and what the answer must be. They are tried on the machine where they are run, with the
//! programs that are there. Deliberately not here: any answer; that is the policy's.

use std::ops::Range;

use approval::Time;
use approval::action::{SecretUse, ToolCall};
use approval::escape::escape;
use approval::policy::{Policy, Says, explain};
use approval::scalar::ByteString;
use approval::{Digest, Name, Text};
use serde::Deserialize;
use toml::Spanned;

use super::{Unused, because, foreseen};
use crate::gate::considered;
use crate::local::{Ask, AskCommand, What};

/// A file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Spanned<Written>>,
}

/// One case as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    command: Option<Vec<String>>,
    /// Where the command would run.
    directory: Option<String>,
    tool: Option<String>,
    secret: Option<Name>,
    agent: Option<String>,
    user: Option<String>,
    conversation: Option<String>,
    platform: Option<String>,
    expect: Expected,
    /// The class of risk, where that is a part of what is expected.
    class: Option<Name>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Allow,
    Ask,
    Deny,
}

impl Expected {
    fn says(self) -> Says {
        match self {
            Self::Allow => Says::Allow,
            Self::Ask => Says::Ask,
            Self::Deny => Says::Deny,
        }
    }
}

/// One case.
pub(super) struct Case {
    /// Where it begins, counted from 1.
    pub(super) line: usize,
    /// What is asked, in a few words; escaped.
    pub(super) what: String,
    ask: Ask,
    expected: Says,
    class: Option<Name>,
}

/// Why a case doesn't hold.
pub(super) struct Wrong {
    pub(super) message: String,
    /// Every rule that came near.
    pub(super) considered: Vec<String>,
}

/// The cases of a file. The error names its line.
pub(super) fn read(text: &str) -> Result<Vec<Case>, String> {
    let at = |range: Option<Range<usize>>| {
        let before = text.as_bytes().iter().take(range.map_or(0, |range| range.start));
        1 + before.filter(|byte| **byte == b'\n').count()
    };
    let file: File =
        toml::from_str(text).map_err(|error| format!("line {}: {}", at(error.span()), escape(error.message())))?;
    let case = |written: Spanned<Written>| {
        let line = at(Some(written.span()));
        let written = written.into_inner();
        let (what, name) = written.what().map_err(|error| format!("line {line}: {error}"))?;
        Ok(Case {
            line,
            what: name,
            expected: written.expect.says(),
            class: written.class,
            ask: Ask {
                agent: written.agent,
                user: written.user,
                conversation: written.conversation,
                platform: written.platform,
                ..Ask::of(what)
            },
        })
    };
    file.case.into_iter().map(case).collect()
}

impl Written {
    fn what(&self) -> Result<(What, String), String> {
        fn text<const MOST: usize>(text: &str) -> Result<Text<MOST>, String> {
            Text::new(text.to_owned()).map_err(|error| error.to_string())
        }
        let bytes = |text: &str| ByteString::new(text.as_bytes().to_vec()).map_err(|error| error.to_string());
        match (&self.command, &self.tool, &self.secret) {
            (Some(command), None, None) => {
                let name = command
                    .iter()
                    .map(|argument| approval::escape::escape_field(argument.as_bytes()));
                let name = name.collect::<Vec<_>>().join(" ");
                let command = AskCommand {
                    argv: command
                        .iter()
                        .map(|argument| bytes(argument))
                        .collect::<Result<_, _>>()?,
                    directory: bytes(self.directory.as_deref().unwrap_or("/"))?,
                    env: Vec::new(),
                    stdin: None,
                    wall_ms: None,
                    output_bytes: None,
                    memory_bytes: None,
                };
                Ok((What::Command(command), name))
            }
            (None, Some(tool), None) if self.directory.is_none() => {
                let (server, name) = tool.split_once('/').ok_or("`tool` must be \"server/tool\"")?;
                let call = ToolCall {
                    server: text(server)?,
                    tool: text(name)?,
                    // No rule looks at them.
                    schema: Digest::of(b""),
                    arguments: text("{}")?,
                };
                Ok((What::Tool(call), escape(tool)))
            }
            (None, None, Some(secret)) if self.directory.is_none() => {
                let secret_use = SecretUse {
                    name: secret.clone(),
                    host: text("host")?,
                    method: text("GET")?,
                    path: text("/")?,
                };
                Ok((What::Secret(secret_use), secret.to_string()))
            }
            _ => Err("a case has exactly one of command, tool, secret; directory goes with command".to_owned()),
        }
    }
}

impl Case {
    /// Whether the policy answers as expected.
    ///
    /// # Errors
    /// What it says instead, and why.
    pub(super) fn holds(&self, policy: &Policy, now: Time) -> Result<(), Wrong> {
        let (action, asked_by) = foreseen(self.ask.clone()).map_err(|failure| Wrong {
            message: failure.message,
            considered: Vec::new(),
        })?;
        let explanation = explain(Some(policy), &action, &asked_by, now, &Unused);
        let judgement = &explanation.judgement;
        let says = judgement.effect.says();
        let class = judgement.terms.risk.as_ref();
        let message = if says != self.expected {
            let because = because(&explanation, policy);
            format!("expected {}, is {says}: {because}", self.expected)
        } else if self.class.is_some() && self.class.as_ref() != class {
            let named = |class: Option<&Name>| class.map_or_else(|| "none".to_owned(), Name::to_string);
            format!("expected the class {}, is {}", named(self.class.as_ref()), named(class))
        } else {
            return Ok(());
        };
        Err(Wrong {
            message,
            considered: considered(&explanation),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const POLICY: &str = r#"
[class.high]
number = true

[[rule]]
effect = "allow"
command = ["ls", "-l"]

[[rule]]
effect = "ask"
agents = ["main"]
tool = "files/delete"
class = "high"

[[rule]]
effect = "deny"
agents = ["helper"]
secret = "deploy-key"
"#;

    fn tried(cases: &str) -> Vec<Result<(), String>> {
        let policy = Policy::parse(POLICY).unwrap();
        let now = Time::of_clock(1_800_000_000_000);
        let cases = read(cases).unwrap();
        cases
            .iter()
            .map(|case| case.holds(&policy, now).map_err(|wrong| wrong.message))
            .collect()
    }

    #[test]
    fn what_is_expected_holds() {
        let cases = r#"
[[case]]
command = ["ls", "-l"]
expect = "allow"

[[case]]
command = ["ls", "-a"]
expect = "ask"

[[case]]
tool = "files/delete"
agent = "main/helper"
expect = "ask"
class = "high"

[[case]]
secret = "deploy-key"
agent = "main/helper"
expect = "deny"

[[case]]
secret = "deploy-key"
agent = "main"
expect = "ask"
"#;
        assert_eq!(tried(cases), vec![Ok(()); 5]);
    }

    #[test]
    fn what_is_not_says_which_line_of_the_policy_decides() {
        let cases = r#"
[[case]]
command = ["ls", "-l"]
expect = "deny"

[[case]]
command = ["ls"]
expect = "allow"

[[case]]
tool = "files/delete"
agent = "main"
expect = "ask"
class = "low"

[[case]]
command = ["no-such-program-anywhere"]
expect = "ask"
"#;
        let tried = tried(cases);
        assert_eq!(tried[0], Err("expected deny, is allow: rule 0 (line 5)".to_owned()));
        assert_eq!(tried[1], Err("expected allow, is ask: the policy's mode".to_owned()));
        assert_eq!(tried[2], Err("expected the class low, is high".to_owned()));
        assert!(tried[3].is_err());
    }

    #[test]
    fn a_failing_case_comes_with_every_rule_that_came_near() {
        let policy = Policy::parse(POLICY).unwrap();
        let cases = read("[[case]]\ncommand = [\"ls\"]\nexpect = \"allow\"\n").unwrap();
        let wrong = cases[0].holds(&policy, Time::of_clock(0)).unwrap_err();
        assert_eq!((cases[0].line, cases[0].what.as_str()), (1, "ls"));
        let near = wrong
            .considered
            .iter()
            .any(|line| line.starts_with("line 5,") && line.ends_with("argument 1 is missing"));
        assert!(near, "{:?}", wrong.considered);
    }

    #[test]
    fn what_is_no_case_is_refused_with_its_line() {
        for (bad, line) in [
            ("[[case]]\nexpect = \"ask\"\n", "line 1:"),
            (
                "\n[[case]]\ncommand = [\"ls\"]\ntool = \"a/b\"\nexpect = \"ask\"\n",
                "line 2:",
            ),
            ("[[case]]\ncommand = [\"ls\"]\nexpect = \"maybe\"\n", "line 3:"),
            (
                "[[case]]\ncommand = [\"ls\"]\nexpect = \"ask\"\nexpects = \"ask\"\n",
                "line ",
            ),
            ("[[case]]\ntool = \"files\"\nexpect = \"ask\"\n", "line 1:"),
            ("case = 1\n", "line 1:"),
        ] {
            let error = read(bad).err().unwrap_or_else(|| panic!("{bad} is taken"));
            assert!(error.starts_with(line), "{bad}: {error}");
        }
    }
}
