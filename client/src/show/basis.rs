//! On what a permit rests, in words (PROTOCOL.md 8.5): everywhere the same ones. Not here: whether it may (`decide`).

use std::collections::HashMap;

use approval::permit::{Basis, Confined, Permission};
use approval::policy::Policy;
use approval::replay::{Pending, Replay};
use approval::roster::Roster;
use approval::{Digest, Verified};

/// `approved by alice and bob`, `by the grant 3f2a91bc`, … `names` are those behind the approvals, as far as they are known.
pub fn basis(basis: &Basis, names: &[String], policy: Option<&Policy>) -> String {
    match basis {
        Basis::Decisions(decisions) if names.is_empty() => super::count(decisions.len() as u64, "approval"),
        Basis::Decisions(_) => format!("approved by {}", super::and(names)),
        Basis::Grant(grant) => format!("by the grant {}", grant.short()),
        Basis::Rule(number) => rule(*number, policy),
        Basis::Mode(_) => "by the policy's mode full".to_owned(),
        Basis::Unenrolled(_) => "nobody enrolled yet".to_owned(),
    }
}

/// A rule by its number, counted from 0 as everywhere, and where it is found.
pub fn rule(number: u32, policy: Option<&Policy>) -> String {
    match policy.and_then(|policy| policy.line_of(number)) {
        Some(line) => format!("by rule {number} of the policy, line {line}"),
        None => format!("by rule {number} of the policy"),
    }
}

/// Who made which decisions, for whoever tells of them after their request has ended.
pub type Names = HashMap<Digest, String>;

/// The basis of a permit, with the names of those whose approvals it cites.
pub fn of_permit(
    permit: &Permission,
    pending: Option<&Pending>,
    names: &Names,
    roster: Option<&Verified<Roster>>,
) -> String {
    let cited: &[Digest] = match &permit.basis {
        Basis::Decisions(cited) => cited,
        _ => &[],
    };
    let decision = |digest: &Digest| {
        pending?
            .decisions()
            .iter()
            .find(|decision| decision.digest() == *digest)
    };
    let name = |digest: &Digest| {
        let pending = decision(digest).map(|decision| super::who(roster, &decision.signer()));
        pending.or_else(|| names.get(digest).cloned())
    };
    let names: Option<Vec<String>> = cited.iter().map(name).collect();
    let policy = roster.and_then(|roster| roster.policy.as_ref());
    basis(&permit.basis, &names.unwrap_or_default(), policy)
}

/// The same for one that stands in the transcript that was read so far.
pub fn in_force(permit: &Permission, replay: &Replay) -> String {
    of_permit(permit, replay.request(&permit.request), &Names::new(), replay.roster())
}

/// What holds a command in; nothing where nothing does.
pub fn confined(confined: &[Confined]) -> String {
    let words: Vec<String> = confined.iter().map(ToString::to_string).collect();
    if words.is_empty() {
        String::new()
    } else {
        format!("held in by {}", super::and(&words))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use approval::outcome::Nothing;

    #[test]
    fn each_basis_has_its_words() {
        let policy =
            Policy::parse("mode = \"allowlist\"\n\n[[rule]]\neffect = \"allow\"\ncommand = [\"ls\"]\n").unwrap();
        let digest = Digest([0x3f; 32]);
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let said = |it: Basis, by: &[&str]| basis(&it, &names(by), Some(&policy));
        assert_eq!(said(Basis::Decisions(vec![digest]), &["alice"]), "approved by alice");
        let three = said(Basis::Decisions(vec![digest; 3]), &["alice", "bob", "carol"]);
        assert_eq!(three, "approved by alice, bob and carol");
        assert_eq!(said(Basis::Decisions(vec![digest]), &[]), "1 approval");
        assert_eq!(said(Basis::Grant(digest), &[]), "by the grant 3f3f3f3f");
        assert_eq!(said(Basis::Rule(0), &[]), "by rule 0 of the policy, line 3");
        assert_eq!(said(Basis::Rule(9), &[]), "by rule 9 of the policy");
        assert_eq!(said(Basis::Mode(Nothing {}), &[]), "by the policy's mode full");
        assert_eq!(said(Basis::Unenrolled(Nothing {}), &[]), "nobody enrolled yet");
    }
}
