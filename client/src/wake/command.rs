//! Waking by a program: run as it is, without a shell, with what happened on its standard input and nothing of the gate's environment. It has
//! ten seconds; what it started goes with it.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{self, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};

/// How long it may run.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Its whole environment.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A program and its arguments.
#[derive(Clone, Debug)]
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    deadline: Duration,
}

impl Command {
    /// Of a program (a path, or a name that is looked up in /usr/local/bin, /usr/bin and /bin) and its arguments. `None` of nothing.
    pub fn new(words: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut words = words.into_iter();
        let program = words.next().filter(|program| !program.is_empty())?;
        // A path is meant from here, not from where the gate happens to be when it wakes somebody.
        let program = if program.as_encoded_bytes().contains(&b'/') {
            std::path::absolute(&program).map_or(program, std::path::PathBuf::into_os_string)
        } else {
            program
        };
        Some(Self {
            program,
            arguments: words.collect(),
            deadline: DEADLINE,
        })
    }

    /// Another time to live, for tests.
    #[cfg(test)]
    pub(super) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it with `event` on its standard input. What becomes of it is logged and changes nothing.
    pub(super) async fn run(&self, event: Vec<u8>) {
        let this = self.clone();
        let ended = tokio::task::spawn_blocking(move || this.run_to_its_end(&event)).await;
        match ended {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => tracing::warn!(program = ?self.program, "the wake command failed, or took too long"),
            Ok(Err(error)) => tracing::warn!(%error, program = ?self.program, "the wake command can't be run"),
            Err(error) => tracing::warn!(%error, "the wake command was given up"),
        }
    }

    fn run_to_its_end(&self, event: &[u8]) -> std::io::Result<bool> {
        let mut child = process::Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own, to end it with all that it started.
            .process_group(0)
            .spawn()?;
        let until = Instant::now() + self.deadline;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let stdin = child.stdin.take();
        // An event is smaller than a pipe, but a program that reads nothing must not hold this thread whatever comes later.
        let writing = event.to_vec();
        let writer = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&writing)));
        let Some(group) = group else {
            return Ok(false);
        };
        let looking = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while matches!(rustix::process::waitid(WaitId::Pid(group), looking), Ok(None)) && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        // Before it is reaped: so long, the number of its group can't become another's.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let status = child.wait()?;
        // What it started became ours when it ended, as this process buries its commands' orphans.
        while let Ok(Some(_)) = rustix::process::waitpgid(group, WaitOptions::NOHANG) {}
        let _ = writer.join();
        Ok(status.success())
    }
}
