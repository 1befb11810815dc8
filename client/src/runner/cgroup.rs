//! A control group for one command (cgroup 2): bounds on its memory and processes, and an end for all of them at once. Abuse cases E23, I13.
//!
//! Deliberately not here: cgroup 1, and asking a service manager for a group. It must have been given: `Delegate=yes` with
//! `DelegateSubgroup=gate` in a systemd unit, or a container with groups of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";
/// What `statfs` says of cgroup 2.
const MAGIC: u64 = 0x6367_7270;
/// Processes and threads of one command.
const PIDS: u32 = 512;
/// The killed need a moment to die before their group can be removed.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_millis(1);

/// One command's group. Dropping it kills what is in it and removes it.
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes an empty one. A limit of 0 bytes is none.
    pub(super) fn create(parent: &Path, memory_bytes: u64) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("command-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Self { path };
        fs::write(group.path.join("pids.max"), PIDS.to_string())?;
        if memory_bytes > 0 {
            fs::write(group.path.join("memory.max"), memory_bytes.to_string())?;
            // Else it would go on in swap. Where swap isn't counted there is no such file.
            let _ = fs::write(group.path.join("memory.swap.max"), "0");
            let _ = fs::write(group.path.join("memory.oom.group"), "1");
        }
        Ok(group)
    }

    /// What a process writes `0` to in order to enter.
    pub(super) fn entrance(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Before Linux 5.14 there is no such file: then only what the strays' hunt finds ends.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        let deadline = Instant::now() + REMOVAL_DEADLINE;
        while fs::remove_dir(&self.path).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
            && Instant::now() < deadline
        {
            std::thread::sleep(ROUND);
        }
    }
}

/// The group below which commands get theirs, if this machine and whoever started the gate allow it.
pub(super) fn parent() -> Option<PathBuf> {
    let magic = rustix::fs::statfs(ROOT).ok()?.f_type;
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)] // The field's type differs between machines.
    if magic as u64 != MAGIC {
        return None;
    }
    let parent = parent_in(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
    // Fails harmlessly where it is so already, or where processes are in the parent itself.
    let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory +pids");
    let group = Group::create(&parent, 1 << 20).ok()?;
    let enters = rustix::fs::access(group.entrance(), rustix::fs::Access::WRITE_OK).is_ok();
    let kills = group.path.join("cgroup.kill").exists();
    (enters && kills).then_some(parent)
}

/// From `/proc/self/cgroup`: the gate's own group, or the one above where the gate was put into a subgroup by itself (a group with
/// processes can't bound those below it).
fn parent_in(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // A group outside of what this process can see.
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    let own = Path::new(ROOT).join(path);
    match (own.ends_with("gate"), own.parent()) {
        (true, Some(above)) => Some(above.to_owned()),
        _ => Some(own),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_parent_is_the_gates_group_or_the_one_that_was_delegated() {
        let parent = |text| parent_in(text).map(|path| path.to_str().unwrap().to_owned());
        assert_eq!(
            parent("0::/system.slice/countersign.service/gate\n").unwrap(),
            "/sys/fs/cgroup/system.slice/countersign.service"
        );
        assert_eq!(parent("0::/user.slice\n").unwrap(), "/sys/fs/cgroup/user.slice");
        assert_eq!(parent("0::/\n").unwrap(), "/sys/fs/cgroup/");
        assert_eq!(parent("4:memory:/a\n0::/b\n").unwrap(), "/sys/fs/cgroup/b");
        for none in ["4:memory:/a\n", "", "0::/../elsewhere\n"] {
            assert_eq!(parent(none), None, "{none}");
        }
    }
}
