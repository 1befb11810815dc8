//! The group among honest parties, on a network that loses, repeats and reorders, and with devices that crash. What hostile
//! members and strangers try is in `hostile`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod hostile;

use std::collections::HashMap;

use openmls_traits::OpenMlsProvider as _;
use rand_core::OsRng;
use wire::identity::Identity;
use wire::limits::ENVELOPE_MESSAGE_BYTES;

use super::*;

type Rows = HashMap<Vec<u8>, Vec<u8>>;

/// A party with its store.
struct Device {
    own: Leaf,
    key: LeafKey,
    rows: Rows,
    mls: Mls,
    group: Option<Group>,
}

/// The rosters that were verified so far, by digest.
#[derive(Default)]
struct Rosters(HashMap<[u8; 32], Membership>);

impl Device {
    fn new() -> Self {
        let key = LeafKey::generate();
        let own = Leaf {
            party: Identity::generate(&mut OsRng).party(),
            leaf: key.public(),
        };
        Self {
            own,
            key,
            rows: Rows::new(),
            mls: Mls::new([]),
            group: None,
        }
    }

    fn gate(roster: [u8; 32]) -> Self {
        let mut gate = Self::new();
        gate.group = Some(Group::create(&mut gate.mls, &gate.key, gate.own.party, roster).unwrap());
        gate
    }

    fn group(&mut self) -> &mut Group {
        self.group.as_mut().unwrap()
    }

    fn key_package(&mut self) -> Vec<u8> {
        key_package(&mut self.mls, &self.key, self.own.party).unwrap()
    }

    fn join(&mut self, gate: &Device, welcome: &[u8]) -> Result<(), ChannelError> {
        self.group = Some(Group::join(&mut self.mls, &self.own, &gate.own.party, welcome)?);
        Ok(())
    }

    fn say(&mut self, data: &[u8]) -> Vec<u8> {
        self.group
            .as_mut()
            .unwrap()
            .encrypt(&mut self.mls, &self.key, data)
            .unwrap()
    }

    fn hear(&mut self, rosters: &Rosters, bytes: &[u8]) -> Received {
        let known = |digest: &[u8; 32]| rosters.0.get(digest).cloned();
        self.group
            .as_mut()
            .unwrap()
            .receive(&mut self.mls, bytes, &known)
            .unwrap()
    }

    fn change(&mut self, add: &[Vec<u8>], remove: &[PartyId], roster: [u8; 32]) -> Result<Change, ChannelError> {
        self.group
            .as_mut()
            .unwrap()
            .change(&mut self.mls, &self.key, add, remove, roster)
    }

    /// Writes what changed, as the store's transaction would.
    fn flush(&mut self) {
        for (key, value) in self.mls.take_changes() {
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => assert!(self.rows.remove(&key).is_some()),
            }
        }
    }

    /// Forgets everything that wasn't written.
    fn crash(&mut self) {
        self.mls = Mls::new(self.rows.clone());
        self.group = Group::load(&self.mls).unwrap();
    }
}

impl Rosters {
    fn verify(&mut self, number: u8, gate: &Device, members: &[&Device]) -> [u8; 32] {
        let members = members.iter().map(|device| device.own).collect();
        self.0.insert(
            [number; 32],
            Membership {
                gate: gate.own,
                members,
                roster: [number; 32],
            },
        );
        [number; 32]
    }
}

/// A gate and as many devices, all in the group under roster 1, everything written.
fn group_of(devices: usize) -> (Rosters, Device, Vec<Device>) {
    let (mut rosters, mut gate) = (Rosters::default(), Device::gate([0; 32]));
    let mut devices: Vec<_> = (0..devices).map(|_| Device::new()).collect();
    let packages: Vec<_> = devices.iter_mut().map(Device::key_package).collect();
    let roster = rosters.verify(1, &gate, &devices.iter().collect::<Vec<_>>());
    let change = gate.change(&packages, &[], roster).unwrap();
    let welcome = change.welcome.unwrap();
    gate.flush();
    for device in &mut devices {
        device.join(&gate, &welcome).unwrap();
        device.group().check(&rosters.0[&roster]).unwrap();
        device.flush();
    }
    (rosters, gate, devices)
}

fn message(from: &Device, data: &[u8]) -> Received {
    Received::Message {
        from: from.own.party,
        data: data.to_vec(),
    }
}

fn changed(epoch: u64, forgot_past: bool) -> Received {
    Received::Changed { epoch, forgot_past }
}

#[test]
fn gate_and_two_admins_talk() {
    let (rosters, mut gate, mut devices) = group_of(2);
    let [ann, bob] = devices.as_mut_slice() else { panic!() };
    let question = gate.say(b"may I");
    assert_eq!(ann.hear(&rosters, &question), message(&gate, b"may I"));
    assert_eq!(bob.hear(&rosters, &question), message(&gate, b"may I"));
    let answer = ann.say(b"yes");
    assert_eq!(gate.hear(&rosters, &answer), message(ann, b"yes"));
    assert_eq!(gate.group().leaves(), [gate.own, ann.own, bob.own]);
    assert_eq!(ann.group().leaves(), gate.group().leaves());
    assert_eq!(bob.group().epoch_authenticator(), gate.group().epoch_authenticator());
    assert_eq!(gate.group().epoch_authenticator().len(), 32);
    assert_eq!((gate.group().roster(), ann.group().roster()), ([1; 32], [1; 32]));
}

#[test]
fn an_admin_is_added_and_reads_only_from_then_on() {
    let (mut rosters, mut gate, mut devices) = group_of(1);
    let (mut ann, mut bob) = (devices.remove(0), Device::new());
    let before = gate.say(b"before");
    let roster = rosters.verify(2, &gate, &[&ann, &bob]);
    let change = gate.change(&[bob.key_package()], &[], roster).unwrap();
    assert_eq!(ann.hear(&rosters, &change.commit), changed(2, false));
    bob.join(&gate, &change.welcome.unwrap()).unwrap();
    bob.group().check(&rosters.0[&roster]).unwrap();
    assert_eq!(bob.hear(&rosters, &before), Received::Refused(Refused::TooOld));
    assert_eq!(ann.hear(&rosters, &before), message(&gate, b"before"));
    let after = gate.say(b"after");
    assert_eq!(bob.hear(&rosters, &after), message(&gate, b"after"));
}

#[test]
fn a_removed_admin_reads_and_says_nothing_more() {
    let (mut rosters, mut gate, mut devices) = group_of(2);
    let [ann, bob] = devices.as_mut_slice() else { panic!() };
    let (late, honest) = (bob.say(b"approve"), ann.say(b"in flight"));
    let roster = rosters.verify(2, &gate, &[ann]);
    let change = gate.change(&[], &[bob.own.party], roster).unwrap();
    assert_eq!(change.welcome, None);
    assert_eq!(ann.hear(&rosters, &change.commit), changed(2, true));
    let secret = gate.say(b"secret");
    assert_eq!(bob.hear(&rosters, &secret), Received::Early);
    // What was encrypted before the removal is gone for all, so that nothing of the removed member comes through late.
    for old in [&late, &honest] {
        assert_eq!(gate.hear(&rosters, old), Received::Refused(Refused::TooOld));
    }
    assert_eq!(ann.hear(&rosters, &late), Received::Refused(Refused::TooOld));
    assert_eq!(bob.hear(&rosters, &change.commit), Received::Removed);
    assert_eq!(bob.hear(&rosters, &secret), Received::Refused(Refused::NotAMember));
    assert_eq!(
        bob.group.as_mut().unwrap().encrypt(&mut bob.mls, &bob.key, b"x"),
        Err(ChannelError::NotAMember)
    );
    bob.flush();
    assert!(
        bob.rows.keys().all(|row| row.starts_with(b"KeyPackage")),
        "secrets of the group were kept"
    );
    assert!(Group::load(&bob.mls).unwrap().is_none());
    assert_eq!(ann.hear(&rosters, &secret), message(&gate, b"secret"));
}

#[test]
fn a_device_is_swapped_for_a_fresh_leaf_of_its_own() {
    let (mut rosters, mut gate, mut devices) = group_of(2);
    let [ann, bob] = devices.as_mut_slice() else { panic!() };
    bob.key_package();
    let (again, roster) = (bob.key_package(), rosters.verify(2, &gate, &[ann, bob]));
    let change = gate.change(&[again], &[bob.own.party], roster).unwrap();
    assert_eq!(ann.hear(&rosters, &change.commit), changed(2, true));
    // The commit tells the old leaf that it is out; the key package for the way back survives that.
    assert_eq!(bob.hear(&rosters, &change.commit), Received::Removed);
    bob.flush();
    bob.crash();
    bob.join(&gate, &change.welcome.unwrap()).unwrap();
    bob.flush();
    assert!(
        !bob.rows.keys().any(|row| row.starts_with(b"KeyPackage")),
        "an unused key package was kept"
    );
    let hello = bob.say(b"back");
    assert_eq!(gate.hear(&rosters, &hello), message(bob, b"back"));
    assert_eq!(gate.group().leaves().len(), 3);
}

#[test]
fn a_second_gate_state_takes_the_first_ones_place() {
    let (rosters, lost, mut devices) = group_of(1);
    let ann = &mut devices[0];
    let mut gate = Device::gate([1; 32]);
    (gate.own.party, gate.key) = (lost.own.party, LeafKey::from_bytes(&lost.key.to_bytes()));
    gate.mls = Mls::new([]);
    gate.group = Some(Group::create(&mut gate.mls, &gate.key, gate.own.party, [1; 32]).unwrap());
    let welcome = gate
        .change(&[ann.key_package()], &[], [1; 32])
        .unwrap()
        .welcome
        .unwrap();
    ann.join(&lost, &welcome).unwrap();
    ann.group().check(&rosters.0[&[1; 32]]).unwrap();
    ann.flush();
    ann.crash();
    let hello = gate.say(b"new group");
    assert_eq!(ann.hear(&rosters, &hello), message(&lost, b"new group"));
    assert!(matches!(
        Group::create(&mut gate.mls, &gate.key, gate.own.party, [1; 32]),
        Err(ChannelError::GroupExists)
    ));
}

#[test]
fn lost_repeated_and_reordered_messages() {
    let (rosters, mut gate, mut devices) = group_of(1);
    let ann = &mut devices[0];
    let said: Vec<_> = (0..40_u8).map(|n| gate.say(&[n])).collect();
    for n in [5_u8, 3, 39, 8] {
        assert_eq!(ann.hear(&rosters, &said[usize::from(n)]), message(&gate, &[n]));
        assert_eq!(ann.hear(&rosters, &said[usize::from(n)]), Received::Known);
    }
    assert_eq!(ann.hear(&rosters, &said[38]), message(&gate, &[38]));
    assert_eq!(ann.hear(&rosters, &said[7]), Received::Refused(Refused::TooOld));
    assert_eq!(gate.hear(&rosters, &said[0]), Received::Known, "own echo");
}

#[test]
fn a_message_two_commits_old_is_heard_and_three_commits_old_is_not() {
    let (mut rosters, mut gate, mut devices) = group_of(1);
    let ann = &mut devices[0];
    let (early, soon) = (ann.say(b"1"), ann.say(b"2"));
    let mut commits = Vec::new();
    for number in 2..=4 {
        let roster = rosters.verify(number, &gate, &[ann]);
        commits.push(gate.change(&[], &[], roster).unwrap().commit);
        if number == 3 {
            assert_eq!(gate.hear(&rosters, &soon), message(ann, b"2"));
        }
    }
    assert_eq!(gate.hear(&rosters, &early), Received::Refused(Refused::TooOld));
    // The commits arrive in the wrong order, one of them twice.
    assert_eq!(ann.hear(&rosters, &commits[1]), Received::Early);
    assert_eq!(ann.hear(&rosters, &commits[0]), changed(2, false));
    assert_eq!(ann.hear(&rosters, &commits[0]), Received::Known);
    assert_eq!(ann.hear(&rosters, &commits[2]), Received::Early);
    assert_eq!(ann.hear(&rosters, &commits[1]), changed(3, false));
    assert_eq!(ann.hear(&rosters, &commits[2]), changed(4, false));
    assert_eq!(gate.hear(&rosters, &commits[2]), Received::Known, "own echo");
    assert_eq!(ann.group().epoch_authenticator(), gate.group().epoch_authenticator());
}

#[test]
fn a_commit_to_an_unknown_roster_waits_for_the_transcript() {
    let (mut rosters, mut gate, mut devices) = group_of(1);
    let (mut ann, mut bob) = (devices.remove(0), Device::new());
    let commit = gate.change(&[bob.key_package()], &[], [2; 32]).unwrap().commit;
    ann.mls.take_changes();
    for _ in 0..3 {
        assert_eq!(ann.hear(&rosters, &commit), Received::Early);
    }
    assert!(ann.mls.take_changes().is_empty(), "waiting must leave no trace");
    let still = ann.say(b"still here");
    assert_eq!(gate.hear(&rosters, &still), message(&ann, b"still here"));
    rosters.verify(2, &gate, &[&ann, &bob]);
    assert_eq!(ann.hear(&rosters, &commit), changed(2, false));
    // One who has just joined and has no transcript yet believes no commit either.
    let next = gate.change(&[], &[], [2; 32]).unwrap().commit;
    let mut unverified = Rosters::default();
    assert_eq!(ann.hear(&unverified, &next), Received::Early);
    let then = gate.change(&[], &[], [3; 32]).unwrap().commit;
    rosters.verify(3, &gate, &[&ann, &bob]);
    assert_eq!(ann.hear(&rosters, &next), changed(3, false));
    unverified.verify(3, &gate, &[&ann, &bob]);
    assert_eq!(
        ann.hear(&unverified, &then),
        Received::Early,
        "the roster in force is unknown"
    );
    assert_eq!(ann.hear(&rosters, &then), changed(4, false));
}

#[test]
fn only_members_other_than_the_gate_can_be_removed() {
    let (_, mut gate, _) = group_of(1);
    for party in [gate.own.party, Device::new().own.party] {
        assert_eq!(gate.change(&[], &[party], [2; 32]), Err(ChannelError::NoSuchMember));
    }
    assert_eq!(gate.group().epoch(), 1);
}

#[test]
fn a_crash_before_the_commit_of_the_store_loses_nothing() {
    let (mut rosters, mut gate, mut devices) = group_of(1);
    let ann = &mut devices[0];
    let said = gate.say(b"one");
    assert_eq!(ann.hear(&rosters, &said), message(&gate, b"one"));
    ann.crash();
    assert_eq!(ann.hear(&rosters, &said), message(&gate, b"one"));
    ann.flush();
    ann.crash();
    assert_eq!(ann.hear(&rosters, &said), Received::Known);
    let roster = rosters.verify(2, &gate, &[ann]);
    let commit = gate.change(&[], &[], roster).unwrap().commit;
    assert_eq!(ann.hear(&rosters, &commit), changed(2, false));
    ann.crash();
    assert_eq!(ann.group().epoch(), 1);
    assert_eq!(ann.hear(&rosters, &commit), changed(2, false));
    ann.flush();
    ann.crash();
    assert_eq!(ann.hear(&rosters, &commit), Received::Known);
    let answer = ann.say(b"two");
    assert_eq!(gate.hear(&rosters, &answer), message(ann, b"two"));
}

#[test]
fn a_gate_that_crashes_before_its_commit_is_stored_makes_another() {
    let (mut rosters, mut gate, mut devices) = group_of(1);
    let ann = &mut devices[0];
    gate.flush();
    let roster = rosters.verify(2, &gate, &[ann]);
    gate.change(&[], &[], roster).unwrap();
    gate.crash();
    assert_eq!(gate.group().epoch(), 1);
    let commit = gate.change(&[], &[], roster).unwrap().commit;
    assert_eq!(ann.hear(&rosters, &commit), changed(2, false));
    let said = gate.say(b"on");
    assert_eq!(ann.hear(&rosters, &said), message(&gate, b"on"));
}

#[test]
fn the_changed_rows_are_all_there_is() {
    let (mut rosters, mut gate, mut devices) = group_of(3);
    let cut = devices.pop().unwrap();
    for round in 2..5_u8 {
        let said = gate.say(&[round]);
        let roster = rosters.verify(round, &gate, &devices.iter().collect::<Vec<_>>());
        let removed = [cut.own.party];
        let commit = gate
            .change(&[], if round == 3 { &removed } else { &[] }, roster)
            .map(|change| change.commit);
        // Only round 3's roster matches the tree; the ones before name a device that isn't admitted.
        for device in &mut devices {
            assert_eq!(device.hear(&rosters, &said), message(&gate, &[round]));
            if round == 2 {
                rosters.0.get_mut(&roster).unwrap().members.push(cut.own);
            }
            device.hear(&rosters, commit.as_ref().unwrap());
        }
        for device in devices.iter_mut().chain([&mut gate]) {
            device.flush();
            let stored: Rows = device.mls.provider().storage().values.read().unwrap().clone();
            assert_eq!(device.rows, stored);
            assert!(device.mls.take_changes().is_empty());
            device.crash();
        }
    }
    for device in &mut devices {
        assert_eq!(device.group().epoch_authenticator(), gate.group().epoch_authenticator());
    }
}

#[test]
fn the_longest_message_and_the_largest_group_fit_an_envelope() {
    let (_, mut gate, _) = group_of(1);
    let longest = gate.say(&vec![7; DATA_BYTES]);
    assert!(longest.len() <= ENVELOPE_MESSAGE_BYTES, "{}", longest.len());
    let group = gate.group.as_mut().unwrap();
    let longer = group.encrypt(&mut gate.mls, &gate.key, &vec![7; DATA_BYTES + 1]);
    assert_eq!(longer, Err(ChannelError::TooLong));
    // Gate and 64 devices, the bound of section 14, all added at once: the longest Welcome and commit that there can be.
    let mut gate = Device::gate([0; 32]);
    let packages: Vec<_> = (0..64).map(|_| Device::new().key_package()).collect();
    let change = gate.change(&packages, &[], [1; 32]).unwrap();
    assert!(change.commit.len().max(change.welcome.unwrap().len()) < ENVELOPE_MESSAGE_BYTES / 2);
}
