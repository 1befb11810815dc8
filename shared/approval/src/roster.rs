//! The kind `roster`: who may say yes, signed by the gate (PROTOCOL.md 8.2). Not here: which roster is in force
//! (`replay`).

use std::collections::BTreeSet;

use wire::identity::PartyId;

use crate::device::{Certificate, Device};
use crate::json::{object, words};
use crate::policy::Policy;
use crate::request::Class;
use crate::scalar::{Digest, Name, RelayUrl, Time};
use crate::statement::{Kind, Payload, Verified};

words! {
    /// What a person may do.
    pub enum Role {
        /// Decide, and read.
        Admin = "admin",
        /// Read.
        Auditor = "auditor",
    }
}

object! {
    /// A person and their devices.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Person {
        /// Unique in the roster.
        pub name: Name,
        /// What they may do.
        pub role: Role,
        /// At least one, each verified.
        pub devices: Vec<Certificate>,
    }
}

object! {
    /// How many different people must say yes, for each class of request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Quorum {
        /// To a command.
        pub command: u16,
        /// To a change of the roster.
        pub roster: u16,
    }
}

words! {
    /// What a gate does while it has no admin.
    pub enum Unenrolled {
        /// Nothing.
        Refuse = "refuse",
        /// Whatever it is asked, and every permit says so: for development.
        Allow = "allow",
    }
}

object! {
    /// What a change of roster asks leave for: all of a roster that people decide about.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RosterContents {
        /// Who.
        pub people: Vec<Person>,
        /// How many of them.
        pub quorum: Quorum,
        /// What must be asked at all. None: everything.
        pub policy: Option<Policy>,
        /// Where the gate's mailbox may be found.
        pub relays: Vec<RelayUrl>,
        /// The gate's own certificate.
        pub gate_device: Certificate,
    }
}

object! {
    /// Who may say yes, from its entry in the transcript on until the next roster.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Roster v 1 {
        /// The gate, which signs this statement.
        pub gate: PartyId,
        /// 0 for the genesis, then one more each time.
        pub epoch: u32,
        /// The digest of the roster before.
        pub previous: Option<Digest>,
        /// The digest of the request by which the admins agreed to it.
        pub basis: Option<Digest>,
        /// The gate's own certificate.
        pub gate_device: Certificate,
        /// Who.
        pub people: Vec<Person>,
        /// How many of them.
        pub quorum: Quorum,
        /// What must be asked at all. None: everything.
        pub policy: Option<Policy>,
        /// What happens while there is no admin.
        pub unenrolled: Unenrolled,
        /// Where the gate's mailbox may be found.
        pub relays: Vec<RelayUrl>,
        /// When, by the gate's clock.
        pub created: Time,
    }
}

/// People in a roster.
pub const PEOPLE: usize = 64;
/// Devices of one person.
pub const DEVICES_OF_ONE: usize = 8;
/// Devices of all people.
pub const DEVICES: usize = 64;

/// Why a roster, or a change of one, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// More people or devices than a roster may hold.
    #[error("too many people or devices")]
    TooMany,
    /// Two people with one name.
    #[error("two people with the same name")]
    NameTwice,
    /// A party or a leaf key that occurs twice, the gate's included.
    #[error("a party or leaf key occurs twice")]
    KeyTwice,
    /// A person without a device.
    #[error("a person without a device")]
    NoDevice,
    /// A quorum of nobody.
    #[error("a quorum is zero")]
    QuorumZero,
    /// A quorum that can't be reached.
    #[error("a quorum is larger than the number of admins")]
    QuorumUnreachable,
    /// A gate with admins that would run what nobody allowed.
    #[error("unenrolled is allow although there is an admin")]
    Unenrolled,
    /// The gate's certificate isn't the gate's.
    #[error("the gate's device is another party's")]
    AnotherGate,
    /// Epoch 0 with people, a previous roster or a basis; or a later epoch without a previous roster.
    #[error("not a genesis and not a successor")]
    Chain,
    /// The change names somebody who isn't there.
    #[error("no such person or device")]
    Unknown,
    /// The person is there in another role.
    #[error("the person is there in another role")]
    OtherRole,
    /// The change would leave no admin, and so the gate alone to say who is one.
    #[error("the last admin can't be removed")]
    LastAdmin,
}

impl Quorum {
    /// The quorum for this class.
    pub fn of(&self, class: Class) -> u16 {
        match class {
            Class::Command | Class::Tool | Class::Secret => self.command,
            Class::Roster => self.roster,
        }
    }
}

impl RosterContents {
    /// The rules of 8.2 that need nothing but the contents.
    pub(crate) fn check(&self) -> Result<(), RosterError> {
        check(&self.people, self.quorum, self.policy.as_ref(), &self.gate_device)
    }
}

fn check(
    people: &[Person],
    quorum: Quorum,
    policy: Option<&Policy>,
    gate_device: &Certificate,
) -> Result<(), RosterError> {
    let devices = || people.iter().flat_map(|person| &person.devices);
    if people.len() > PEOPLE
        || devices().count() > DEVICES
        || people.iter().any(|person| person.devices.len() > DEVICES_OF_ONE)
    {
        return Err(RosterError::TooMany);
    }
    if people.iter().any(|person| person.devices.is_empty()) {
        return Err(RosterError::NoDevice);
    }
    let mut names = BTreeSet::new();
    if !people.iter().all(|person| names.insert(&person.name)) {
        return Err(RosterError::NameTwice);
    }
    let (mut parties, mut leaves) = (BTreeSet::new(), BTreeSet::new());
    if !devices()
        .chain([gate_device])
        .all(|device| parties.insert(device.party) && leaves.insert(device.leaf))
    {
        return Err(RosterError::KeyTwice);
    }
    let admins = people.iter().filter(|person| person.role == Role::Admin).count();
    if quorum.command == 0 || quorum.roster == 0 {
        return Err(RosterError::QuorumZero);
    }
    let largest = quorum
        .command
        .max(quorum.roster)
        .max(policy.map_or(0, Policy::largest_quorum));
    if admins > 0 && usize::from(largest) > admins {
        return Err(RosterError::QuorumUnreachable);
    }
    Ok(())
}

impl Roster {
    /// Those who may say yes.
    pub fn admins(&self) -> impl Iterator<Item = &Person> {
        self.people.iter().filter(|person| person.role == Role::Admin)
    }

    /// Whether anybody may say yes.
    pub fn is_enrolled(&self) -> bool {
        self.admins().next().is_some()
    }

    /// Whose device this is, and its certificate. The gate's own is nobody's.
    pub fn person_of(&self, party: &PartyId) -> Option<(&Person, &Certificate)> {
        self.people.iter().find_map(|person| {
            let device = person.devices.iter().find(|device| device.party == *party)?;
            Some((person, device))
        })
    }

    /// The admin whose device this is.
    pub fn admin_of(&self, party: &PartyId) -> Option<&Person> {
        self.person_of(party)
            .map(|(person, _)| person)
            .filter(|person| person.role == Role::Admin)
    }

    /// The gate's certificate.
    pub fn gate(&self) -> &Verified<Device> {
        self.gate_device.verified()
    }

    /// Every device of the group: the gate's, then everybody's.
    pub fn devices(&self) -> impl Iterator<Item = &Certificate> {
        [&self.gate_device]
            .into_iter()
            .chain(self.people.iter().flat_map(|person| &person.devices))
    }

    /// What a change of this roster starts from.
    pub fn contents(&self) -> RosterContents {
        RosterContents {
            people: self.people.clone(),
            quorum: self.quorum,
            policy: self.policy.clone(),
            relays: self.relays.clone(),
            gate_device: self.gate_device.clone(),
        }
    }

    /// Whether this roster has exactly these contents.
    pub fn has_contents(&self, contents: &RosterContents) -> bool {
        self.people == contents.people
            && self.quorum == contents.quorum
            && self.policy == contents.policy
            && self.relays == contents.relays
            && self.gate_device == contents.gate_device
    }
}

impl Payload for Roster {
    const KIND: Kind = Kind::Roster;

    fn party(&self) -> Option<PartyId> {
        Some(self.gate)
    }

    fn check(&self) -> Result<(), String> {
        let genesis = self.epoch == 0;
        let chain = if genesis {
            self.people.is_empty() && self.previous.is_none() && self.basis.is_none()
        } else {
            self.previous.is_some()
        };
        if !chain {
            return Err(RosterError::Chain.to_string());
        }
        if self.gate_device.party != self.gate {
            return Err(RosterError::AnotherGate.to_string());
        }
        if self.is_enrolled() && self.unenrolled == Unenrolled::Allow {
            return Err(RosterError::Unenrolled.to_string());
        }
        check(&self.people, self.quorum, self.policy.as_ref(), &self.gate_device).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use crate::sample::*;
    use crate::statement::{Signed, StatementError, sign};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_genesis_has_nobody_and_nothing_before_it() {
        let genesis = genesis();
        assert!(!genesis.is_enrolled());
        let takes = |edit: &dyn Fn(&mut Roster)| {
            let mut roster = genesis.get().clone();
            edit(&mut roster);
            sign(&identity(GATE), roster).is_ok()
        };
        assert!(takes(&|_| {}));
        assert!(!takes(&|roster| roster.previous = Some(Digest([0; 32]))));
        assert!(!takes(&|roster| roster.basis = Some(Digest([0; 32]))));
        assert!(!takes(&|roster| roster.people = team().people.clone()));
        assert!(!takes(&|roster| roster.epoch = 1));
        assert!(!takes(&|roster| roster.gate_device = device(ALICE).into()));
    }

    #[test]
    fn everybody_is_found_by_their_devices() {
        let team = team();
        let person = |seed| {
            team.person_of(&identity(seed).party())
                .map(|(person, _)| person.name.as_str())
        };
        assert_eq!(person(ALICE), Some("alice"));
        assert_eq!(person(ALICES_PHONE), Some("alice"));
        assert_eq!(person(AUDITOR), Some("dora"));
        assert_eq!((person(GATE), person(STRANGER)), (None, None));
        assert!(team.admin_of(&identity(BOB).party()).is_some());
        assert!(team.admin_of(&identity(AUDITOR).party()).is_none());
        assert_eq!((team.admins().count(), team.devices().count()), (3, 6));
        assert_eq!(team.gate().get(), device(GATE).get());
    }

    #[test]
    fn names_and_keys_occur_once() {
        let contents = team().contents();
        let broken = |edit: &dyn Fn(&mut RosterContents)| {
            let mut contents = contents.clone();
            edit(&mut contents);
            contents.check()
        };
        assert_eq!(broken(&|_| {}), Ok(()));
        assert_eq!(
            broken(&|it| it.people[1].name = name("alice")),
            Err(RosterError::NameTwice)
        );
        assert_eq!(
            broken(&|it| it.people[1].devices.push(device(ALICE).into())),
            Err(RosterError::KeyTwice)
        );
        assert_eq!(
            broken(&|it| it.people[1].devices.push(device(GATE).into())),
            Err(RosterError::KeyTwice)
        );
        assert_eq!(broken(&|it| it.people[1].devices.clear()), Err(RosterError::NoDevice));
        let mut stolen = device(STRANGER).get().clone();
        stolen.leaf = device(ALICE).leaf;
        let stolen = sign(&identity(STRANGER), stolen).unwrap();
        assert_eq!(
            broken(&|it| it.people[1].devices.push(stolen.clone().into())),
            Err(RosterError::KeyTwice)
        );
    }

    #[test]
    fn a_quorum_can_be_reached_and_is_not_nobody() {
        let with = |command, roster| {
            let mut contents = team().contents();
            contents.quorum = quorum(command, roster);
            contents.check()
        };
        assert_eq!((with(1, 1), with(3, 3)), (Ok(()), Ok(())));
        assert_eq!(
            (with(0, 1), with(1, 0)),
            (Err(RosterError::QuorumZero), Err(RosterError::QuorumZero))
        );
        assert_eq!(with(4, 1), Err(RosterError::QuorumUnreachable));
        assert_eq!(with(1, 4), Err(RosterError::QuorumUnreachable));
    }

    #[test]
    fn a_class_of_risk_asks_for_nobody_who_is_not_there() {
        let with = |quorum: u16| {
            let mut contents = team().contents();
            contents.policy = Some(policy_of(&format!("[class.c]\nquorum = {quorum}\n")));
            contents.check()
        };
        assert_eq!((with(3), with(4)), (Ok(()), Err(RosterError::QuorumUnreachable)));
        let mut nobody = genesis().contents();
        nobody.policy = Some(policy_of("[class.c]\nquorum = 4\n"));
        assert_eq!(nobody.check(), Ok(()));
    }

    #[test]
    fn with_an_admin_nothing_happens_unasked() {
        let mut roster = team().get().clone();
        roster.unenrolled = Unenrolled::Allow;
        assert!(sign(&identity(GATE), roster).is_err());
        let mut free = genesis().get().clone();
        free.unenrolled = Unenrolled::Allow;
        let free = sign(&identity(GATE), free).unwrap();
        // It stays so with an auditor, and ends with the first admin.
        let with = |role| {
            let contents = free
                .contents()
                .with_device(name("erin"), role, device(STRANGER))
                .unwrap();
            contents.after(&free, None, at(NOON)).unwrap().unenrolled
        };
        assert_eq!(
            (with(Role::Auditor), with(Role::Admin)),
            (Unenrolled::Allow, Unenrolled::Refuse)
        );
    }

    #[test]
    fn another_policy_is_another_roster() {
        let contents = team_with(POLICY).contents();
        assert!(team_with(POLICY).has_contents(&contents));
        assert!(!team().has_contents(&contents) && !team_with("").has_contents(&contents));
    }

    #[test]
    fn a_person_has_at_most_eight_devices() {
        let devices = |count: u8| {
            let mut contents = genesis().contents();
            let devices = (10..10 + count).map(|seed| device(seed).into()).collect();
            contents.people.push(Person {
                name: name("erin"),
                role: Role::Admin,
                devices,
            });
            contents.check()
        };
        assert_eq!((devices(8), devices(9)), (Ok(()), Err(RosterError::TooMany)));
    }

    #[test]
    fn all_together_have_at_most_sixty_four() {
        let devices = |people: u8, more: u8| {
            let mut contents = genesis().contents();
            for person in 0..people {
                let devices = (0..8).map(|n| device(10 + person * 8 + n).into()).collect();
                contents.people.push(Person {
                    name: name(&format!("p{person}")),
                    role: Role::Admin,
                    devices,
                });
            }
            for person in 0..more {
                let devices = vec![device(100 + person).into()];
                contents.people.push(Person {
                    name: name(&format!("q{person}")),
                    role: Role::Admin,
                    devices,
                });
            }
            contents.check()
        };
        assert_eq!((devices(8, 0), devices(8, 1)), (Ok(()), Err(RosterError::TooMany)));
    }

    #[test]
    fn a_certificate_inside_is_verified_too() {
        let payload = payload_of(&team());
        let good = device(BOB).signed().as_str().to_owned();
        assert!(payload.contains(&good));
        // Another device's signature under the same name.
        let (_, signature) = good.split_once(r#""sig":""#).unwrap();
        let other = device(CAROL).signed().as_str().to_owned();
        let (_, wrong) = other.split_once(r#""sig":""#).unwrap();
        let forged = dsse(GATE, "roster", payload.replace(signature, wrong).as_bytes());
        let refused = Signed::parse(forged.as_bytes()).unwrap().verify();
        assert!(matches!(refused, Err(StatementError::Payload(words)) if words.contains("signature")));
        let decision = decision(BOB, &request(&team()), crate::decision::Answer::Approve);
        let other_kind = dsse(
            GATE,
            "roster",
            payload.replace(&good, decision.signed().as_str()).as_bytes(),
        );
        assert!(Signed::parse(other_kind.as_bytes()).unwrap().verify().is_err());
    }
}
