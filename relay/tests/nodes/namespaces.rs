//! Network namespaces, each joined to ours by a cable of its own on which packets get lost as the test wants it. They carry this
//! process's number in their names and are gone with it.

use std::net::Ipv4Addr;
use std::process::Command;

use rustix::process::geteuid;

/// Whether this machine has what namespaces take. Without it the test is skipped and says so, but never in CI.
pub(crate) fn can_be_made() -> bool {
    let lacks = [("ip", "iproute2"), ("iptables", "iptables")].map(|(name, package)| {
        let found = Command::new(name).arg("-V").output().is_ok();
        (!found).then(|| format!("{name} is missing: apt-get install -y --no-install-recommends {package}"))
    });
    let not_root = (!geteuid().is_root()).then(|| "only root can make network namespaces".to_owned());
    let Some(why) = lacks.into_iter().flatten().next().or(not_root) else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
    false
}

/// A network of one node, and the cable to it.
pub(crate) struct Namespace {
    name: String,
    outside: Ipv4Addr,
    inside: Ipv4Addr,
}

impl Namespace {
    /// The so-manieth of this process.
    pub(crate) fn make(number: u32) -> Self {
        assert!(number < 4);
        let process = std::process::id();
        // A net of four addresses in 10.231.0.0/16.
        let net = (10 << 24) | (231 << 16) | ((process % 4096 * 4 + number) * 4);
        let namespace = Self {
            name: format!("cs{process}n{number}"),
            outside: Ipv4Addr::from(net + 1),
            inside: Ipv4Addr::from(net + 2),
        };
        let (name, far) = (&namespace.name, format!("cs{process}i{number}"));
        let near = format!("cs{process}o{number}");
        ip(&format!("netns add {name}"));
        ip(&format!("link add {near} type veth peer name {far} netns {name}"));
        ip(&format!("address add {}/30 dev {near}", namespace.outside));
        ip(&format!("link set {near} up"));
        ip(&format!("-n {name} address add {}/30 dev {far}", namespace.inside));
        ip(&format!("-n {name} link set {far} up"));
        ip(&format!("-n {name} link set lo up"));
        namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Our end of the cable.
    pub(crate) fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// The node's end of the cable.
    pub(crate) fn inside(&self) -> Ipv4Addr {
        self.inside
    }

    /// From now on so many of a hundred packets from and to this port of ours are lost; of all others, none.
    pub(crate) fn loses(&self, percent: u64, port: u16) {
        for (chain, which) in [("INPUT", "--sport"), ("OUTPUT", "--dport")] {
            let some = match percent {
                100 => String::new(),
                _ => format!("-m statistic --mode random --probability 0.{percent:02}"),
            };
            self.iptables(&format!("-A {chain} -p tcp {which} {port} {some} -j DROP"));
        }
    }

    /// From now on nothing is lost.
    pub(crate) fn heal(&self) {
        self.iptables("-F");
    }

    /// How many packets were lost since it was healed.
    pub(crate) fn lost(&self) -> u64 {
        let rules = self.iptables("-nvxL");
        let drops = rules.lines().filter(|line| line.contains(" DROP "));
        drops
            .map(|line| line.split_whitespace().next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    fn iptables(&self, words: &str) -> String {
        run(&format!("ip netns exec {} iptables {words}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cable goes with one of its ends.
        let deleted = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("the network namespace {} is left", self.name);
        }
    }
}

fn ip(words: &str) {
    run(&format!("ip {words}"));
}

fn run(words: &str) -> String {
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    let output = command.args(words).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}
