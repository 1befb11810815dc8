//! What a roster would change of another, in words: a person can't compare two lists of keys by eye. What is signed is the whole roster, not this.

use approval::device::Certificate;
use approval::escape::escape;
use approval::policy::Policy;
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
    match (&from.policy, &to.policy) {
        (before, after) if before == after => {}
        (_, None) => said.push("takes the policy away: everything is asked".to_owned()),
        (None, Some(after)) => said.push(format!("puts a policy in force: {}", rules(after))),
        (Some(before), Some(after)) => said.push(format!(
            "puts another policy in force: {}, not {}",
            rules(after),
            rules(before)
        )),
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

fn rules(policy: &Policy) -> String {
    super::count(policy.rules() as u64, "rule")
}

/// Comparing every line with every other one takes their product: beyond this, whole blocks are shown as changed.
const CELLS: usize = 1 << 22;

/// The policy's text, line by line: what goes, what comes, and what stays beside it. Nothing where it stays as it is.
pub(super) fn policy(from: Option<&Policy>, to: Option<&Policy>) -> String {
    let text = |policy: Option<&Policy>| policy.map_or_else(String::new, |policy| policy.text().to_owned());
    let (from, to) = (text(from), text(to));
    if from == to {
        return String::new();
    }
    let (from, to): (Vec<&str>, Vec<&str>) = (from.split('\n').collect(), to.split('\n').collect());
    let mut said = "the policy, line by line (- goes, + comes)\n".to_owned();
    for (sign, line) in lines(&from, &to) {
        said.push_str(format!("  {sign} {}", escape(line)).trim_end());
        said.push('\n');
    }
    said
}

/// The shortest way from one to the other, by their longest common lines.
fn lines<'a>(from: &[&'a str], to: &[&'a str]) -> Vec<(char, &'a str)> {
    let head = from.iter().zip(to).take_while(|(from, to)| from == to).count();
    let rest = |all: &[&'a str]| -> Vec<&'a str> { all.iter().skip(head).copied().collect() };
    let (mut left, mut right) = (rest(from), rest(to));
    let tail = left
        .iter()
        .rev()
        .zip(right.iter().rev())
        .take_while(|(from, to)| from == to)
        .count();
    let ending = left.split_off(left.len().saturating_sub(tail));
    right.truncate(right.len().saturating_sub(tail));
    let same = |lines: &[&'a str]| -> Vec<(char, &'a str)> { lines.iter().map(|line| (' ', *line)).collect() };
    let mut all: Vec<(char, &str)> = from.iter().take(head).map(|line| (' ', *line)).collect();
    all.extend(middle(&left, &right));
    all.extend(same(&ending));
    all
}

fn middle<'a>(left: &[&'a str], right: &[&'a str]) -> Vec<(char, &'a str)> {
    let gone = |line: &&'a str| ('-', *line);
    let new = |line: &&'a str| ('+', *line);
    if left.len().saturating_mul(right.len()) > CELLS {
        return left.iter().map(gone).chain(right.iter().map(new)).collect();
    }
    // How many lines what follows has in common, for each pair of positions.
    let mut common = vec![vec![0_u32; right.len() + 1]];
    for line in left.iter().rev() {
        let mut row = vec![0_u32];
        for (at, other) in right.iter().enumerate().rev() {
            let below = |at: usize| common.last().and_then(|row| row.get(at)).copied().unwrap_or_default();
            let best = if line == other {
                below(at + 1) + 1
            } else {
                below(at).max(row.last().copied().unwrap_or_default())
            };
            row.push(best);
        }
        row.reverse();
        common.push(row);
    }
    common.reverse();
    let best = |left: usize, right: usize| {
        common
            .get(left)
            .and_then(|row| row.get(right))
            .copied()
            .unwrap_or_default()
    };
    let (mut at_left, mut at_right, mut said) = (0, 0, Vec::new());
    loop {
        match (left.get(at_left), right.get(at_right)) {
            (Some(line), Some(other)) if line == other => {
                said.push((' ', *line));
                at_left += 1;
                at_right += 1;
            }
            (Some(line), other) if other.is_none() || best(at_left + 1, at_right) >= best(at_left, at_right + 1) => {
                said.push(gone(line));
                at_left += 1;
            }
            (_, Some(line)) => {
                said.push(new(line));
                at_right += 1;
            }
            _ => return said,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn diff(from: &str, to: &str) -> String {
        let (from, to): (Vec<&str>, Vec<&str>) = (from.split('\n').collect(), to.split('\n').collect());
        lines(&from, &to)
            .iter()
            .map(|(sign, line)| format!("{sign}{line}\n"))
            .collect()
    }

    #[test]
    fn a_line_that_goes_comes_or_stays() {
        assert_eq!(diff("a\nb\nc", "a\nx\nc"), " a\n-b\n+x\n c\n");
        assert_eq!(diff("a\nc", "a\nb\nc"), " a\n+b\n c\n");
        assert_eq!(diff("a\nb\nc\nd", "b\nd\ne"), "-a\n b\n-c\n d\n+e\n");
        assert_eq!(diff("a", "a"), " a\n");
    }

    #[test]
    fn what_stays_and_goes_is_the_old_and_what_stays_and_comes_the_new() {
        let texts = ["", "a", "a\nb", "b\na", "a\nb\na\nb", "b\nb\na\nc\na", "c\na\nb\nc"];
        for from in texts {
            for to in texts {
                let diff = diff(from, to);
                let of = |sign: char| -> Vec<&str> {
                    let kept = diff.lines().filter(|line| line.starts_with([' ', sign]));
                    kept.map(|line| &line[1..]).collect()
                };
                assert_eq!(
                    (of('-').join("\n"), of('+').join("\n")),
                    (from.to_owned(), to.to_owned())
                );
            }
        }
    }

    #[test]
    fn a_policy_that_allows_more_is_shown_whole_and_escaped() {
        let read = |text: &str| Policy::parse(text).unwrap();
        let before = read("mode = \"allowlist\"\n");
        let after = read("mode = \"full\" # \u{202e}\n");
        let said = policy(Some(&before), Some(&after));
        assert_eq!(
            said,
            "the policy, line by line (- goes, + comes)\n  - mode = \"allowlist\"\n  + mode = \"full\" # \\u{202e}\n\n"
        );
        assert_eq!(policy(Some(&before), Some(&before)), "");
    }
}
