//! One process and its group: started, killed and reaped so that no signal ever reaches a stranger, and dead when nobody watches it.
//!
//! Deliberately not here: what the process is (`launcher`) and when it has to die (`runner`).

use std::io;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::sync::oneshot;

use super::cgroup::Group;
use super::strays;

/// A running process. Dropping it kills the process and its group.
pub(super) struct Child {
    process: Arc<Process>,
    ended: oneshot::Receiver<ExitStatus>,
}

struct Process {
    pid: Pid,
    /// Held while a signal is sent and while the process is reaped: afterwards its number may be somebody else's.
    reaped: Mutex<bool>,
}

impl Process {
    fn kill(&self) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            self.kill_all();
        }
    }

    fn kill_all(&self) {
        // The group exists only once the launcher made its session; before that the process is alone. Errors mean that it is gone.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }
}

impl Child {
    /// Starts the process on a thread of its own that lives until it is reaped.
    ///
    /// The kernel sends the death signal of a parent when the *thread* that started the child ends; a thread of the async runtime may end
    /// while the gate lives, and would take the command with it.
    ///
    /// The group that it enters goes when it is reaped.
    pub(super) async fn spawn(command: Command, group: Option<Group>) -> io::Result<Self> {
        let (started, starting) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("command".to_owned())
            .spawn(move || nurse(command, group, started, ending))?;
        let process = starting
            .await
            .unwrap_or_else(|_| Err(io::Error::other("its thread ended")))?;
        Ok(Self { process, ended })
    }

    /// How it ended; its group is dead by then. `None` if the system wouldn't say.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        (&mut self.ended).await.ok()
    }

    /// Kills it and its group; nothing happens if it ended already.
    pub(super) fn kill(&self) {
        self.process.kill();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn nurse(
    mut command: Command,
    group: Option<Group>,
    started: oneshot::Sender<io::Result<Arc<Process>>>,
    ending: oneshot::Sender<ExitStatus>,
) {
    let (mut child, pid) = match strays::spawn(&mut command) {
        Ok(started) => started,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    // It holds our copies of the child's ends: with them open no stream would ever end.
    drop(command);
    let process = Arc::new(Process {
        pid,
        reaped: Mutex::new(false),
    });
    if started.send(Ok(Arc::clone(&process))).is_err() {
        // Nobody waits for it any more, so it must not run.
        process.kill();
    }
    // Seen dead but not yet reaped, its number is still its own, and that of its group too.
    let dead = loop {
        match rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(Errno::INTR) => {}
            // Anything else happens where the system reaps by itself: the number may be somebody else's by now.
            result => break result.is_ok(),
        }
    };
    let status = strays::end(pid, || {
        let mut reaped = process.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if dead {
            process.kill_all();
        }
        *reaped = true;
        child.wait()
    });
    drop(group);
    if let Ok(status) = status {
        let _ = ending.send(status);
    }
}
