//! The commands of `countersign`: what can be typed, and where it leads. One file for each person who types.

mod action;
pub mod admin;
pub mod answer;
pub mod ask;
pub mod demo;
pub mod gate;
pub mod grants;
pub mod join;
pub mod policy;
pub mod request;
pub mod roster;
mod scope;
pub mod terminal;
pub mod tools;
pub mod watch;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::home::Home;
use terminal::{Failure, Outcome};

/// Heading of the options that every command has.
const EVERYWHERE: &str = "With every command";

/// End-to-end encrypted approvals for agents
#[derive(Parser)]
#[command(name = "countersign", version, about, max_term_width = 100)]
struct Cli {
    /// The party's folder [default: $XDG_DATA_HOME/countersign]
    #[arg(long, global = true, env = "COUNTERSIGN_HOME", hide_env_values = true, value_name = "DIR", help_heading = EVERYWHERE)]
    home: Option<PathBuf>,
    /// JSON on stdout wherever something is read
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    json: bool,
    /// Say more on stderr; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = EVERYWHERE)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

/// What the commands have in common.
pub struct Context {
    home: Option<PathBuf>,
    json: bool,
}

impl Context {
    /// The home that exists.
    fn home(&self) -> Result<Home, Failure> {
        Ok(Home::open(self.home.clone())?)
    }

    /// The home, made where it is missing.
    fn new_home(&self) -> Result<Home, Failure> {
        Ok(Home::create(self.home.clone())?)
    }
}

#[derive(Subcommand)]
enum Command {
    /// A whole approval on this machine: relay, gate and admins, for real, in a temporary folder
    Demo(demo::Demo),
    /// The gate beside the agent
    #[command(subcommand)]
    Gate(gate::Gate),
    /// Ask the gate to run a command, wait for the answer, and pass its output and exit code on
    Run(ask::Run),
    /// Ask the gate for something without waiting: prints the request's id
    Request(request::Request),
    /// Wait until a request is decided
    Wait(request::Wait),
    /// Take a request back
    Cancel(request::Cancel),
    /// Do what a request allows: once, and the very same action
    Redeem(request::Redeem),
    /// Print what becomes of requests that nobody waits for, as it happens
    Events(request::Events),
    /// Of a list of tools, those that the model may be told of
    Tools(tools::Tools),
    /// What needs no asking, and what is forbidden
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Become an admin or auditor: answer an invite
    Join(join::Join),
    /// The requests that wait
    Inbox(admin::Inbox),
    /// One request, whole
    Show(admin::Show),
    /// Approve requests: this once, or from now on; or deny them
    Approve(answer::Approve),
    /// Deny requests
    Deny(answer::Deny),
    /// What is granted for good: for whom, until when, and how often it was used
    Grants(grants::Grants),
    /// Take a grant back
    Revoke(grants::Revoke),
    /// Wait for requests, show each whole, and ask for an answer
    Watch(watch::Watch),
    /// Who may say yes
    #[command(subcommand)]
    Roster(roster::Roster),
    /// Check a transcript, trusting nobody
    #[command(subcommand)]
    Audit(Audit),
    /// Completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum Audit {
    /// Check an exported transcript, or the proof of one approval: exit 0 when all holds, 3 when not
    Verify {
        /// The file, or - for standard input
        file: PathBuf,
        /// An older checkpoint, or another export, that this one must continue
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// The gate that it must be of
        #[arg(long, value_name = "CSID")]
        gate: Option<wire::identity::PartyId>,
    },
    /// Print a transcript for people
    Show {
        /// The file, or - for standard input
        file: PathBuf,
    },
    /// Print one approval with its inclusion proofs, verifiable alone
    Prove {
        /// The file, or - for standard input
        file: PathBuf,
        /// The request's id; may be shortened
        id: String,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    // A reader of our output that goes away must not look like a crash; a write error is handled where it matters.
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            if !error.use_stderr() {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            let words = commands(std::env::args_os().skip(1));
            misused(&error, &words);
            // `run` and `redeem` promise 125 where Countersign itself fails; clap's own 2 for everything else.
            return ExitCode::from(
                if words.first().is_some_and(|first| first == "run" || first == "redeem") {
                    ask::FAILED
                } else {
                    2
                },
            );
        }
    };
    logs(cli.verbose);
    keep_memory_private();
    let context = Context {
        home: cli.home,
        json: cli.json,
    };
    if let Command::Completions { shell } = cli.command {
        // Into memory first: the generator panics where its reader went away.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "countersign", &mut script);
        terminal::say_raw(&String::from_utf8_lossy(&script));
        return ExitCode::SUCCESS;
    }
    if let Command::Audit(audit) = cli.command {
        return ExitCode::from(run_audit(audit, context.json));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            Failure::new(format!("can't start: {error}")).report();
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(dispatch(cli.command, &context));
    // A thread that reads the terminal can't be stopped, and needn't be.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code)
        }
    }
}

async fn dispatch(command: Command, context: &Context) -> Outcome {
    match command {
        Command::Demo(demo) => demo.run(context).await,
        Command::Gate(gate) => gate.run(context).await,
        Command::Run(run) => run.run(context).await,
        Command::Request(request) => request.run(context).await,
        Command::Wait(wait) => wait.run(context).await,
        Command::Cancel(cancel) => cancel.run(context).await,
        Command::Redeem(redeem) => redeem.run(context).await,
        Command::Events(events) => events.run(context).await,
        Command::Tools(tools) => tools.run(context).await,
        Command::Policy(policy) => policy.run(context).await,
        Command::Join(join) => join.run(context).await,
        Command::Inbox(inbox) => inbox.run(context).await,
        Command::Show(show) => show.run(context).await,
        Command::Approve(approve) => approve.run(context).await,
        Command::Deny(deny) => deny.run(context).await,
        Command::Grants(grants) => grants.run(context).await,
        Command::Revoke(revoke) => revoke.run(context).await,
        Command::Watch(watch) => watch.run(context).await,
        Command::Roster(roster) => roster.run(context).await,
        Command::Audit(_) | Command::Completions { .. } => Ok(0),
    }
}

fn run_audit(audit: Audit, json: bool) -> u8 {
    let mut out = std::io::stdout().lock();
    let mut err = std::io::stderr().lock();
    match audit {
        Audit::Verify { file, checkpoint, gate } => {
            crate::audit::verify(&file, checkpoint.as_deref(), gate, json, &mut out, &mut err)
        }
        Audit::Show { file } => crate::audit::show(&file, json, &mut out, &mut err),
        Audit::Prove { file, id } => crate::audit::prove(&file, &id, &mut out, &mut err),
    }
}

/// The command and its subcommands as typed, without flags.
fn commands(arguments: impl Iterator<Item = OsString>) -> Vec<String> {
    let mut words = Vec::new();
    let mut command = Cli::command();
    let mut arguments = arguments.take_while(|argument| argument != "--");
    while let Some(argument) = arguments.next() {
        let word = argument.to_string_lossy().into_owned();
        if word == "--home" {
            arguments.next();
        } else if !word.starts_with('-') {
            let Some(sub) = command.find_subcommand(&word) else {
                break;
            };
            command = sub.clone();
            words.push(word);
        }
    }
    words
}

/// Says what is wrong with the arguments, in the two lines of every other error.
fn misused(error: &clap::Error, words: &[String]) {
    let said = error.render().to_string();
    if !said.starts_with("error: ") {
        // A command group alone: its help.
        terminal::complain(said.trim_end());
        return;
    }
    let said = said
        .split("\n\nUsage:")
        .next()
        .and_then(|said| said.split("\n\nFor more").next())
        .unwrap_or(&said);
    let (what, tip) = said.split_once("\n\n  tip: ").unwrap_or((said, ""));
    terminal::complain(what.trim_end());
    let help: Vec<&str> = std::iter::once("countersign")
        .chain(words.iter().map(String::as_str))
        .chain(["--help"])
        .collect();
    let tip = tip
        .lines()
        .next()
        .filter(|tip| !tip.is_empty())
        .map_or(String::new(), |tip| format!("{tip}; "));
    terminal::complain(&format!("hint: {tip}see `{}`", help.join(" ")));
}

fn logs(verbose: u8) {
    let level = match verbose {
        0 => "off",
        1 => "countersign=info",
        _ => "countersign=debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("COUNTERSIGN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .try_init();
}

/// Keys live in this process: no core file, and no other process of this user reads its memory (root still can).
fn keep_memory_private() {
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Resolves when the process is asked to end.
pub(crate) async fn shutdown() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(signal) => signal,
        Err(_) => return std::future::pending().await,
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
