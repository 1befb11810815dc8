//! Processes that outlive their command in a session of their own, where no signal to the command's group reaches them: found by their
//! parentage, ended and buried with it. Abuse case E23.
//!
//! How: each command is made the reaper of its own descendants (by the launcher), and this process the reaper of what is left when
//! a command ends. So whatever turns up as a child here, in another session, and isn't a running command, is a stray of one that ended.
//! Deliberately not here: strays of a gate that was killed; they are the system's.

use std::fs;
use std::io;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// The commands that run now. Held while one is started, so that no child is seen here before its number is.
static COMMANDS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
/// Held while strays are ended: only its holder buries them, so that their numbers stay theirs meanwhile.
static SWEEPING: Mutex<()> = Mutex::new(());
/// How long a fork bomb is chased: each round ends all that are there.
const SWEEP_DEADLINE: Duration = Duration::from_secs(5);
/// Between two rounds: the killed need a moment to die.
const ROUND: Duration = Duration::from_millis(1);

/// Starts a command, and answers for what becomes of its descendants.
pub(super) fn spawn(command: &mut Command) -> io::Result<(std::process::Child, Pid)> {
    // Asked for each time: it costs nothing, and a program that embeds this one may have undone it.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut commands = lock(&COMMANDS);
    let child = command.spawn()?;
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidData)?;
    commands.push(pid);
    Ok((child, pid))
}

/// Forgets a command while `bury` reaps it, then ends what it left behind.
pub(super) fn end<T>(pid: Pid, bury: impl FnOnce() -> T) -> T {
    let buried = {
        let mut commands = lock(&COMMANDS);
        let buried = bury();
        commands.retain(|running| *running != pid);
        buried
    };
    let _sweeping = lock(&SWEEPING);
    let deadline = Instant::now() + SWEEP_DEADLINE;
    loop {
        let strays = strays();
        for stray in &strays {
            // Its own children become ours by that, for the next round.
            let _ = rustix::process::kill_process(*stray, Signal::KILL);
            let _ = rustix::process::waitid(WaitId::Pid(*stray), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        if strays.is_empty() || Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(ROUND);
    }
    buried
}

fn strays() -> Vec<Pid> {
    let Some(own) = session("self") else {
        return Vec::new();
    };
    let children = children();
    // After the list was made: who is in it was started before, and is known once the lock is free.
    let commands = lock(&COMMANDS);
    // No session, no process: it was somebody else's to bury, and its number may be a stranger's by now.
    let elsewhere = |pid: &Pid| session(&pid.as_raw_nonzero().to_string()).is_some_and(|session| session != own);
    children
        .into_iter()
        .filter(|pid| !commands.contains(pid) && elsewhere(pid))
        .collect()
}

/// The session of a process. Not by `getsid`: in a container the session may be led from outside, its number is 0 then, and rustix
/// takes that for impossible.
fn session(pid: &str) -> Option<u32> {
    session_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The sixth field of a process's `stat` (proc_pid_stat(5)); the second, its name, may hold spaces and parentheses.
fn session_in(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(3)?.parse().ok()
}

/// The children of all threads of this process. Empty where the kernel doesn't say (`CONFIG_PROC_CHILDREN`): then strays stay.
fn children() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::session_in;

    #[test]
    fn a_session_led_from_outside_the_container_is_a_session_too() {
        assert_eq!(session_in("12 (a) b) S 1 12 0 0 -1 4194560"), Some(0));
        assert_eq!(session_in("13 (sh) S 12 13 13 0 -1 4194560"), Some(13));
        assert_eq!(session_in("13 (sh"), None);
    }
}
