//! A change of roster: what it leads to, and the form in which a device proposes one to the gate (PROTOCOL.md 8.2,
//! 12). It is only a wish: the gate makes a request of it, the admins decide. Not here: adding by proposal, which
//! takes a pairing.

use serde::{Deserialize, Serialize};
use wire::identity::PartyId;

use crate::device::{Certificate, Device};
use crate::policy::Policy;
use crate::roster::{Person, Quorum, Role, Roster, RosterContents, RosterError, Unenrolled};
use crate::scalar::{Digest, Name, RelayUrl, Time};
use crate::statement::Verified;

/// What a device may propose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// This person leaves with all their devices.
    RemovePerson(Name),
    /// This device is gone; its person too, if it was their last.
    RemoveDevice(PartyId),
    /// So many have to say yes from now on.
    Quorum(Quorum),
    /// This is what must be asked from now on.
    Policy(Option<Policy>),
}

impl RosterContents {
    /// These contents after the change.
    ///
    /// # Errors
    /// [`RosterError::Unknown`], [`RosterError::LastAdmin`], or the rule of 8.2 that the result would break: a quorum
    /// is never lowered silently because somebody left.
    pub fn with(&self, change: &Change) -> Result<Self, RosterError> {
        let mut next = self.clone();
        match change {
            Change::RemovePerson(name) => next.people.retain(|person| person.name != *name),
            Change::RemoveDevice(party) => {
                for person in &mut next.people {
                    person.devices.retain(|device| device.party != *party);
                }
                next.people.retain(|person| !person.devices.is_empty());
            }
            Change::Quorum(quorum) => next.quorum = *quorum,
            Change::Policy(policy) => next.policy = policy.clone(),
        }
        if next.people == self.people && !matches!(change, Change::Quorum(_) | Change::Policy(_)) {
            return Err(RosterError::Unknown);
        }
        self.lead_to(next)
    }

    /// These contents with one device more: of a new person, or of one who is there in the same role.
    ///
    /// # Errors
    /// [`RosterError::OtherRole`], so that an invite never changes what somebody may do; or the rule of 8.2 that the
    /// result would break.
    pub fn with_device(&self, name: Name, role: Role, device: Verified<Device>) -> Result<Self, RosterError> {
        let mut next = self.clone();
        let device = Certificate::from(device);
        match next.people.iter_mut().find(|person| person.name == name) {
            Some(person) if person.role != role => return Err(RosterError::OtherRole),
            Some(person) => person.devices.push(device),
            None => next.people.push(Person {
                name,
                role,
                devices: vec![device],
            }),
        }
        self.lead_to(next)
    }

    fn lead_to(&self, next: Self) -> Result<Self, RosterError> {
        let has_admin = |contents: &Self| contents.people.iter().any(|person| person.role == Role::Admin);
        if has_admin(self) && !has_admin(&next) {
            return Err(RosterError::LastAdmin);
        }
        next.check()?;
        Ok(next)
    }

    /// The roster that puts these contents in force after `before`. `basis` is the digest of the permitted request,
    /// null while `before` has no admin. Whether it may be signed is for `replay` to say.
    ///
    /// # Errors
    /// [`RosterError::Chain`] if there is no epoch left.
    pub fn after(self, before: &Verified<Roster>, basis: Option<Digest>, created: Time) -> Result<Roster, RosterError> {
        let Self {
            people,
            quorum,
            policy,
            relays,
            gate_device,
        } = self;
        // The first admin closes it for ever: with one there is always another.
        let enrolled = people.iter().any(|person| person.role == Role::Admin);
        let unenrolled = if enrolled {
            Unenrolled::Refuse
        } else {
            before.unenrolled
        };
        let epoch = before.epoch.checked_add(1).ok_or(RosterError::Chain)?;
        let previous = Some(before.digest());
        Ok(Roster {
            gate: before.gate,
            epoch,
            previous,
            basis,
            gate_device,
            people,
            quorum,
            policy,
            unenrolled,
            relays,
            created,
        })
    }
}

impl Roster {
    /// The roster of a new gate: nobody in it yet.
    pub fn genesis(gate_device: Verified<Device>, quorum: Quorum, relays: Vec<RelayUrl>, created: Time) -> Self {
        Self {
            gate: gate_device.party,
            epoch: 0,
            previous: None,
            basis: None,
            gate_device: gate_device.into(),
            people: Vec::new(),
            quorum,
            policy: None,
            unenrolled: Unenrolled::Refuse,
            relays,
            created,
        }
    }

    /// Checks that this roster comes next after `before` in form: same gate, next epoch, its digest, and a basis
    /// exactly when `before` has an admin. Not checked: that the basis was permitted (`replay`).
    ///
    /// # Errors
    /// [`RosterError::AnotherGate`] or [`RosterError::Chain`].
    pub fn follows(&self, before: &Verified<Roster>) -> Result<(), RosterError> {
        if self.gate != before.gate {
            return Err(RosterError::AnotherGate);
        }
        let next = before.epoch.checked_add(1) == Some(self.epoch) && self.previous == Some(before.digest());
        if next && self.basis.is_some() == before.is_enrolled() {
            Ok(())
        } else {
            Err(RosterError::Chain)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use crate::sample::*;
    use crate::statement::sign;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn people(contents: &RosterContents) -> Vec<(&str, usize)> {
        contents
            .people
            .iter()
            .map(|person| (person.name.as_str(), person.devices.len()))
            .collect()
    }

    #[test]
    fn a_person_leaves_with_all_devices() {
        let contents = team().contents().with(&Change::Quorum(quorum(1, 1))).unwrap();
        let next = contents.with(&Change::RemovePerson(name("alice"))).unwrap();
        assert_eq!(people(&next), [("bob", 1), ("carol", 1), ("dora", 1)]);
    }

    #[test]
    fn the_last_device_takes_its_person_along() {
        let contents = team().contents().with(&Change::Quorum(quorum(1, 1))).unwrap();
        let phone = contents
            .with(&Change::RemoveDevice(identity(ALICES_PHONE).party()))
            .unwrap();
        assert_eq!(people(&phone), [("alice", 1), ("bob", 1), ("carol", 1), ("dora", 1)]);
        let bob = phone.with(&Change::RemoveDevice(identity(BOB).party())).unwrap();
        assert_eq!(people(&bob), [("alice", 1), ("carol", 1), ("dora", 1)]);
    }

    #[test]
    fn a_quorum_is_never_lowered_silently() {
        let contents = team().contents();
        assert_eq!(
            contents.with(&Change::RemovePerson(name("bob"))),
            Err(RosterError::QuorumUnreachable)
        );
        assert!(contents.with(&Change::RemovePerson(name("dora"))).is_ok());
        assert_eq!(
            contents.with(&Change::Quorum(quorum(4, 1))),
            Err(RosterError::QuorumUnreachable)
        );
        assert_eq!(
            contents.with(&Change::Quorum(quorum(0, 1))),
            Err(RosterError::QuorumZero)
        );
    }

    #[test]
    fn a_policy_is_put_in_place_of_another_and_can_be_reached() {
        let contents = team().contents();
        let with = |text: &str| contents.with(&Change::Policy(Some(policy_of(text))));
        let next = with(POLICY).unwrap();
        assert_eq!(next.policy, Some(policy()));
        assert_eq!(next.with(&Change::Policy(None)), Ok(contents.clone()));
        assert_eq!(with("[class.c]\nquorum = 4\n"), Err(RosterError::QuorumUnreachable));
        let three = with("[class.c]\nquorum = 3\n")
            .unwrap()
            .with(&Change::Quorum(quorum(1, 1)))
            .unwrap();
        assert_eq!(
            three.with(&Change::RemovePerson(name("bob"))),
            Err(RosterError::QuorumUnreachable)
        );
    }

    #[test]
    fn the_last_admin_stays() {
        let contents = roster(
            &[("alice", Role::Admin, ALICE), ("dora", Role::Auditor, AUDITOR)],
            quorum(1, 1),
        )
        .contents();
        assert_eq!(
            contents.with(&Change::RemovePerson(name("alice"))),
            Err(RosterError::LastAdmin)
        );
        assert_eq!(
            contents.with(&Change::RemoveDevice(identity(ALICE).party())),
            Err(RosterError::LastAdmin)
        );
    }

    #[test]
    fn nobody_unknown_can_be_removed_and_not_the_gate() {
        let contents = team().contents();
        assert_eq!(
            contents.with(&Change::RemovePerson(name("erin"))),
            Err(RosterError::Unknown)
        );
        for seed in [GATE, STRANGER] {
            assert_eq!(
                contents.with(&Change::RemoveDevice(identity(seed).party())),
                Err(RosterError::Unknown)
            );
        }
    }

    #[test]
    fn an_invite_never_changes_a_role_and_never_adds_a_key_twice() {
        let contents = team().contents();
        let add = |who: &str, role, seed| contents.with_device(name(who), role, device(seed));
        assert_eq!(add("dora", Role::Admin, STRANGER), Err(RosterError::OtherRole));
        assert_eq!(add("erin", Role::Admin, ALICE), Err(RosterError::KeyTwice));
        assert_eq!(add("erin", Role::Admin, GATE), Err(RosterError::KeyTwice));
        assert_eq!(
            people(&add("dora", Role::Auditor, STRANGER).unwrap()).last(),
            Some(&("dora", 2))
        );
        assert_eq!(
            people(&add("erin", Role::Admin, STRANGER).unwrap()).last(),
            Some(&("erin", 1))
        );
    }

    #[test]
    fn one_roster_follows_another() {
        let (genesis, team) = (genesis(), team());
        assert_eq!(team.follows(&genesis), Ok(()));
        let next = |basis| team.contents().after(&team, basis, at(NOON)).unwrap();
        assert_eq!(next(Some(Digest([1; 32]))).follows(&team), Ok(()));
        // Once somebody is enrolled, the gate's word alone adds nobody.
        assert_eq!(next(None).follows(&team), Err(RosterError::Chain));
        assert_eq!(
            team.contents()
                .after(&genesis, Some(Digest([1; 32])), at(NOON))
                .unwrap()
                .follows(&genesis),
            Err(RosterError::Chain)
        );
        assert_eq!(team.follows(&team), Err(RosterError::Chain));
        let mut skipped = next(Some(Digest([1; 32])));
        skipped.epoch += 1;
        assert_eq!(skipped.follows(&team), Err(RosterError::Chain));
        assert_eq!(team.follows(&genesis_of(OTHER_GATE)), Err(RosterError::AnotherGate));
        assert!(
            sign(&identity(GATE), next(Some(Digest([1; 32]))))
                .unwrap()
                .has_contents(&team.contents())
        );
    }

    #[test]
    fn a_change_is_one_thing() {
        let party = identity(BOB).party();
        for (text, change) in [
            (
                r#"{"remove_person":"bob"}"#.to_owned(),
                Change::RemovePerson(name("bob")),
            ),
            (format!(r#"{{"remove_device":"{party}"}}"#), Change::RemoveDevice(party)),
            (
                r#"{"quorum":{"command":1,"roster":2}}"#.to_owned(),
                Change::Quorum(quorum(1, 2)),
            ),
            (r#"{"policy":null}"#.to_owned(), Change::Policy(None)),
            (
                r#"{"policy":"mode = \"deny\"\n"}"#.to_owned(),
                Change::Policy(Some(policy_of("mode = \"deny\"\n"))),
            ),
        ] {
            assert_eq!(serde_json::to_string(&change).unwrap(), text);
            assert_eq!(serde_json::from_str::<Change>(&text).unwrap(), change);
        }
        for bad in [
            r#"{"remove_person":"bob","quorum":{"command":1,"roster":1}}"#,
            r#"{"quorum":[1,1]}"#,
            r#"{"add_person":"x"}"#,
            r#"{"policy":"mode = \"none\""}"#,
            r#"{"policy":{}}"#,
        ] {
            assert!(serde_json::from_str::<Change>(bad).is_err(), "{bad}");
        }
    }
}
