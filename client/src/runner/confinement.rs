//! What holds a command in beyond what holds in every one: mounts of its own, a Landlock domain, a control group. Which of them this
//! machine allows is tried once, said in every permit (PROTOCOL.md 8.5), and then demanded of every command. Abuse cases E23, I13, J11.
//!
//! Deliberately not here: how mounts are made (`mounts`), how a group is kept (`cgroup`).

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use approval::permit::Confined;
use landlock::{
    AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};

use super::launcher::{self, Launcher, Order};
use super::{cgroup, descriptors};

/// How long the launcher may take to try things.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);

/// What this machine allows. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Whether commands get mounts of their own: scripts are frozen, the gate's home is hidden.
    pub mounts: bool,
    /// Whether commands get a Landlock domain of their own.
    pub landlock: bool,
    /// Below which control group commands get one of their own.
    pub cgroup: Option<PathBuf>,
}

impl Confinement {
    /// Tries everything, with a process of its own. Blocks for some milliseconds; at start.
    pub fn probe(launcher: &Launcher) -> Self {
        let tried = try_in(launcher).unwrap_or_default();
        Self {
            mounts: tried.contains(&launcher::MOUNTS),
            landlock: tried.contains(&launcher::LANDLOCK),
            cgroup: cgroup::parent(),
        }
    }

    /// As a permit says it, sorted.
    pub fn names(&self) -> Vec<Confined> {
        let all = [
            (Confined::Cgroup, self.cgroup.is_some()),
            (Confined::Landlock, self.landlock),
            (Confined::Mounts, self.mounts),
        ];
        all.into_iter().filter_map(|(name, is)| is.then_some(name)).collect()
    }
}

fn try_in(launcher: &Launcher) -> std::io::Result<Vec<u8>> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(PROBE_DEADLINE))?;
    descriptors::send(&ours, &[])?;
    let mut process = launcher.command();
    process
        .stdin(OwnedFd::from(theirs))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut child = process.spawn()?;
    // Its copy of the other end: with it open the report would never end.
    drop(process);
    let mut report = Vec::new();
    let told = std::io::Write::write_all(&mut &ours, &Order::probe(launcher).bytes())
        .and_then(|()| ours.shutdown(std::net::Shutdown::Write))
        .and_then(|()| ours.take(64).read_to_end(&mut report));
    let _ = child.kill();
    let _ = child.wait();
    told.map(|_| report)
}

/// Puts this process, and all that it becomes and starts, into a Landlock domain: no new devices, no signals and no nameless sockets to
/// processes outside, no tracing of them (that is forbidden in any domain), no mounts. False if the system can't do all of it.
pub(super) fn enter_landlock() -> bool {
    let enter = || -> Result<RulesetStatus, RulesetError> {
        let root = PathFd::new("/").ok();
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            // Moving files between folders is forbidden by any domain that doesn't allow it.
            .handle_access(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::Refer)?
            .scope(Scope::Signal | Scope::AbstractUnixSocket)?
            .create()?;
        let rules = root.map(|root| Ok::<_, RulesetError>(PathBeneath::new(root, AccessFs::Refer)));
        Ok(ruleset.add_rules(rules)?.restrict_self()?.ruleset)
    };
    matches!(enter(), Ok(RulesetStatus::FullyEnforced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_names_what_holds_in_sorted_order() {
        let all = Confinement {
            mounts: true,
            landlock: true,
            cgroup: Some("/sys/fs/cgroup/x".into()),
        };
        assert_eq!(all.names(), [Confined::Cgroup, Confined::Landlock, Confined::Mounts]);
        assert_eq!(Confinement::default().names(), []);
    }
}
