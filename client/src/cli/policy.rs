//! `countersign policy`: what needs no asking and what is forbidden. Looked at, tried out and proposed here; in force only once the admins have
//! approved it, because it stands in the roster (PROTOCOL.md section 16).

mod cases;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use approval::Time;
use approval::change::Change;
use approval::escape::escape;
use approval::policy::{DEFAULT, Explanation, POLICY_BYTES, Policy as Rules, Uses, WhyNot, explain};
use clap::{Args, Subcommand};

use super::Context;
use super::action::{Wanted, Who, input};
use super::ask::Connection;
use super::terminal::{Failure, Outcome, complain, say, say_json, say_raw};
use crate::gate::considered;
use crate::local::{Answer, Explained, Question, Would};
use crate::party::Party;
use crate::show;

/// Exit code where a text is no policy.
const REFUSED: u8 = 2;

#[derive(Subcommand)]
pub(super) enum Policy {
    /// Check a file: exit 0 when it is a policy, 2 when not
    Check {
        /// The file, or - for standard input
        file: PathBuf,
    },
    /// Who would have to say yes to something, and which line says so
    Explain(Box<Explain>),
    /// The policy in force
    Show,
    /// The policy that a new gate begins with
    Default,
    /// Propose a policy to the admins
    Propose {
        /// The file, or `none` for no policy: everything is asked
        #[arg(value_name = "FILE|none")]
        file: PathBuf,
    },
    /// Try a policy against cases: exit 0 when each is answered as expected, 1 when not, 2 when a file is no policy or no cases
    Test {
        /// The policy
        file: PathBuf,
        /// The cases [default: FILE with .cases.toml in place of .toml]
        cases: Option<PathBuf>,
    },
}

#[derive(Args)]
pub(super) struct Explain {
    /// Ask this policy instead of the gate: a file, or `default`
    #[arg(long, value_name = "FILE|default")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    wanted: Wanted,
}

/// The policy in a file.
pub(super) fn read(path: &Path) -> Result<Rules, Failure> {
    // A little more than allowed, so that it is the policy's own error that says how much is.
    let bytes = input(path, 64 * POLICY_BYTES as u64)?;
    let failed = |error: String| Failure::new(format!("{}: {error}", path.display())).code(REFUSED);
    let text = String::from_utf8(bytes).map_err(|error| failed(error.to_string()))?;
    Rules::parse(&text).map_err(|error| failed(error.to_string()))
}

/// Says what is no error and may still not be what its writer meant.
fn warn(policy: &Rules) {
    for warning in policy.warnings() {
        complain(&format!("warning: {}", escape(&warning)));
    }
}

fn read_or_default(path: &Path) -> Result<Rules, Failure> {
    if path.as_os_str() == "default" {
        return Rules::parse(DEFAULT).map_err(Failure::new);
    }
    read(path)
}

/// Rules with `uses` as if none had been used yet.
struct Unused;

impl Uses for Unused {
    fn used(&self, _: u32, _: Option<Time>) -> u32 {
        0
    }
}

impl Policy {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Check { file } => check(context, &file),
            Self::Explain(explain) => explain.run(context).await,
            Self::Show => in_force(context).await,
            Self::Default => {
                say_raw(DEFAULT);
                Ok(0)
            }
            Self::Propose { file } => {
                let policy = if file.as_os_str() == "none" {
                    None
                } else {
                    let policy = read(&file)?;
                    warn(&policy);
                    Some(policy)
                };
                super::roster::propose(context, Change::Policy(policy)).await
            }
            Self::Test { file, cases } => test(context, &file, cases),
        }
    }
}

fn check(context: &Context, file: &Path) -> Outcome {
    let policy = match read(file) {
        Ok(policy) => policy,
        Err(failure) if context.json => {
            say_json(&serde_json::json!({"v": 1, "ok": false, "error": failure.message}));
            return Ok(failure.code);
        }
        Err(failure) => return Err(failure),
    };
    if context.json {
        say_json(&serde_json::json!({
            "v": 1,
            "ok": true,
            "digest": policy.digest(),
            "rules": policy.rules(),
            "warnings": policy.warnings(),
        }));
        return Ok(0);
    }
    warn(&policy);
    let rules = show::count(policy.rules() as u64, "rule");
    say(&format!("policy {}: {rules}", policy.digest().short()));
    Ok(0)
}

async fn in_force(context: &Context) -> Outcome {
    let party = Party::open_any(context.home()?).await?;
    let roster = party
        .replay
        .roster()
        .ok_or_else(|| Failure::new("no roster is known here yet"))?;
    let policy = roster.policy.as_ref();
    if context.json {
        let digest = policy.map(|policy| policy.digest().to_string());
        let text = policy.map(Rules::text);
        say_json(&serde_json::json!({"v": 1, "epoch": roster.epoch, "digest": digest, "policy": text}));
        return Ok(0);
    }
    let Some(policy) = policy else {
        complain("no policy is in force: everything is asked");
        return Ok(0);
    };
    complain(&format!(
        "policy {}, roster epoch {}",
        policy.digest().short(),
        roster.epoch
    ));
    if std::io::stdout().is_terminal() {
        // Its admins wrote it, but a comment may hold anything that TOML allows.
        policy.text().lines().for_each(|line| say(&escape(line)));
    } else {
        say_raw(policy.text());
    }
    Ok(0)
}

impl Explain {
    async fn run(self, context: &Context) -> Outcome {
        let ask = self.who.asks(self.wanted.what()?);
        let Some(path) = &self.policy else {
            let question = Question::Explain(Box::new(ask));
            return match Connection::answer(&context.home()?, &question).await? {
                Answer::Explained(explained) => explained_by_the_gate(context, &explained),
                _ => Err(Failure::new("the gate gave another answer than the one asked for")),
            };
        };
        let policy = read_or_default(path)?;
        let (action, asked_by) = foreseen(ask)?;
        let now = Time::of_clock(crate::clock::wall());
        let explanation = explain(Some(&policy), &action, &asked_by, now, &Unused);
        let judgement = &explanation.judgement;
        let line = judgement.effect.rule().and_then(|rule| policy.line_of(rule));
        let because = because(&explanation, &policy);
        if context.json {
            say_json(&serde_json::json!({
                "v": 1,
                "verdict": judgement.effect.says().to_string(),
                "because": because,
                "rule": judgement.effect.rule(),
                "line": line,
                "risk": judgement.terms.risk,
                "need": judgement.terms.quorum,
                "considered": considered(&explanation),
                "warnings": policy.warnings(),
            }));
            return Ok(0);
        }
        warn(&policy);
        say(&format!("{}: {because}", judgement.effect.says()));
        if judgement.effect.says() == approval::policy::Says::Ask {
            say(&format!(
                "needs {}, or the gate's quorum if that is larger",
                show::persons(judgement.terms.quorum)
            ));
        }
        if let Some(risk) = &judgement.terms.risk {
            say(&format!("class {risk}"));
        }
        say_considered(&considered(&explanation));
        Ok(0)
    }
}

/// The action as it would be asked now, bound to the files that are there.
fn foreseen(ask: crate::local::Ask) -> Result<(approval::action::Action, approval::request::AskedBy), Failure> {
    crate::gate::foreseen(ask).map_err(|answer| match *answer {
        Answer::Error { message, hint, .. } => super::gate::failure(message, hint),
        _ => Failure::new("it can't be asked"),
    })
}

/// What decides, with its line.
fn because(explanation: &Explanation, policy: &Rules) -> String {
    let effect = explanation.judgement.effect;
    let Some(rule) = effect.rule() else {
        let by = explanation.answers.iter().find(|answer| answer.says == effect.says());
        return by.map_or_else(|| "the policy's mode".to_owned(), |answer| answer.by.to_string());
    };
    match policy.line_of(rule) {
        Some(line) => format!("rule {rule} (line {line})"),
        None => format!("rule {rule}"),
    }
}

/// What a person wants to see of that: nothing about rules for other things.
fn say_considered(lines: &[String]) {
    let others = [
        WhyNot::Kind,
        WhyNot::Program,
        WhyNot::Server,
        WhyNot::Tool,
        WhyNot::Secret,
    ]
    .map(|why| why.to_string());
    let far = |line: &&String| others.iter().any(|other| line.ends_with(other.as_str()));
    for line in lines.iter().filter(|line| !far(line)) {
        say(&format!("  {line}"));
    }
    let left_out = lines.iter().filter(far).count() as u64;
    if left_out > 0 {
        say(&format!("  {} about other things", show::count(left_out, "rule")));
    }
}

fn explained_by_the_gate(context: &Context, explained: &Explained) -> Outcome {
    if context.json {
        let mut value = serde_json::to_value(explained)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("v".to_owned(), 1.into());
        }
        say_json(&value);
        return Ok(0);
    }
    let verdict = match explained.verdict {
        Would::Allow => "allow",
        Would::Ask => "ask",
        Would::Forbid => "deny",
        Would::Refuse => "refuse",
    };
    say(&format!("{verdict}: {}", explained.because));
    if explained.verdict == Would::Ask {
        let people = match explained.people.as_slice() {
            [] => String::new(),
            people => format!(" of {}", people.join(", ")),
        };
        say(&format!("needs {}{people}", show::persons(explained.need)));
    }
    if let Some(risk) = &explained.risk {
        say(&format!("class {risk}"));
    }
    say_considered(&explained.considered);
    Ok(0)
}

fn test(context: &Context, file: &Path, beside: Option<PathBuf>) -> Outcome {
    let policy = read_or_default(file)?;
    let beside = beside.unwrap_or_else(|| file.with_extension("cases.toml"));
    let bytes = input(&beside, 1 << 20)?;
    let failed = |error: String| Failure::new(format!("{}: {error}", beside.display())).code(REFUSED);
    let text = String::from_utf8(bytes).map_err(|error| failed(error.to_string()))?;
    let cases = cases::read(&text).map_err(failed)?;
    let now = Time::of_clock(crate::clock::wall());
    let mut failures = 0u64;
    for case in &cases {
        let Err(wrong) = case.holds(&policy, now) else { continue };
        failures += 1;
        if context.json {
            say_json(
                &serde_json::json!({"v": 1, "line": case.line, "case": case.what, "failed": wrong.message, "considered": wrong.considered}),
            );
            continue;
        }
        say(&format!(
            "{}:{}: {}: {}",
            beside.display(),
            case.line,
            case.what,
            wrong.message
        ));
        say_considered(&wrong.considered);
    }
    let all = show::count(cases.len() as u64, "case");
    if context.json {
        say_json(&serde_json::json!({"v": 1, "cases": cases.len(), "failures": failures}));
    } else if failures == 0 {
        say(&format!("{all} as expected"));
    } else {
        complain(&format!("error: {failures} of {all} not as expected"));
    }
    Ok(u8::from(failures > 0))
}
