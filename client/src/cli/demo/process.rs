//! The processes that the demo starts, relay and gate: this same program with other arguments, ended with the demo. What they do is their own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::STEP;
use crate::cli::terminal::Failure;

/// The subcommand by which the demo starts the relay as a process of its own.
pub const RELAY: &str = "__relay";

/// The arguments of the relay that the demo starts: those of `countersign-relay`.
#[derive(clap::Parser)]
struct RelayArguments {
    #[command(flatten)]
    relay: countersign_relay::cli::Args,
}

/// Runs the demo's relay, in a process that ends with its parent.
pub fn relay_main() -> std::process::ExitCode {
    end_with_parent();
    let arguments = <RelayArguments as clap::Parser>::parse_from(std::env::args_os().skip(1));
    countersign_relay::cli::run(arguments.relay)
}

/// Makes this process end when the one that started it does, however that happens.
pub(in crate::cli) fn end_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
}

/// A process of the demo, ended with it.
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts this program with other arguments and waits for its first line.
    pub(super) async fn start(arguments: &[&std::ffi::OsStr], log: &Path) -> Result<(Self, String), Failure> {
        let program = std::env::current_exe()?;
        let log = std::fs::File::create(log)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| Failure::new("a process without an output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(STEP, lines.next_line())
            .await
            .map_err(|_| Failure::new("a process of the demo doesn't start"))??;
        let first = first.ok_or_else(|| {
            Failure::new("a process of the demo ended at once").hint("with --keep DIR its log stays in DIR")
        })?;
        // Its later words are of no use here, but a full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((Self { child }, first))
    }

    /// Asks it to end, as an operator would, and waits.
    pub(super) async fn stop(mut self) {
        if let Some(id) = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(Duration::from_secs(10), self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
    }
}
