//! What a roster would change of another, in words: a person can't compare two lists of keys by eye. What is signed is the whole roster, not this.

use approval::device::Certificate;
use approval::roster::{Person, Roster, RosterContents};

/// The differences, one each; empty where there are none.
pub(super) fn changes(from: &Roster, to: &RosterContents) -> Vec<String> {
    let mut said = Vec::new();
    for person in &to.people {
        let before = from.people.iter().find(|before| before.name == person.name);
        said.extend(lacking(before, person).map(|device| {
            let whose = if before.is_some() {
                person.name.to_string()
            } else {
                format!("{} ({})", person.name, person.role)
            };
            format!("adds {} of {whose}: {}", device.name, device.party)
        }));
        if before.is_some_and(|before| before.role != person.role) {
            said.push(format!("makes {} an {}", person.name, person.role));
        }
    }
    for person in &from.people {
        let after = to.people.iter().find(|after| after.name == person.name);
        said.extend(
            lacking(after, person)
                .map(|device| format!("removes {} of {}: {}", device.name, person.name, device.party)),
        );
        if after.is_none() {
            said.push(format!("removes {} ({}) altogether", person.name, person.role));
        }
    }
    for (what, before, after) in [
        ("a command", from.quorum.command, to.quorum.command),
        ("a change of the roster", from.quorum.roster, to.quorum.roster),
    ] {
        if before != after {
            said.push(format!("needs {} for {what}, not {before}", super::persons(after)));
        }
    }
    if from.relays != to.relays {
        let relays: Vec<&str> = to.relays.iter().map(|relay| relay.as_str()).collect();
        said.push(format!("moves to {}", relays.join(", ")));
    }
    if from.gate_device != to.gate_device {
        said.push("replaces the gate's own device".to_owned());
    }
    said
}

/// The devices of a person that another state of them doesn't have.
fn lacking<'a>(other: Option<&'a Person>, person: &'a Person) -> impl Iterator<Item = &'a Certificate> {
    person
        .devices
        .iter()
        .filter(move |device| !other.is_some_and(|other| other.devices.contains(device)))
}
