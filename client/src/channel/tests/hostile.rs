//! What a member that isn't the gate, a gate beside the rules, a stranger and the wire may try on the group.

use openmls::prelude::tls_codec::{DeserializeBytes as _, Serialize as _};
use openmls::prelude::*;
use openmls::schedule::{ExternalPsk, PreSharedKeyId, Psk};
use rand_core::RngCore as _;

use super::*;

/// A commit that only OpenMLS had a say in. Its maker doesn't apply it.
fn rogue(
    by: &mut Device,
    make: impl for<'a> FnOnce(CommitBuilder<'a, Initial>) -> CommitBuilder<'a, Initial>,
) -> Vec<u8> {
    let (provider, group) = (by.mls.provider(), &mut by.group.as_mut().unwrap().inner);
    let builder = make(group.commit_builder()).load_psks(provider.storage()).unwrap();
    let built = builder
        .build(provider.rand(), provider.crypto(), &by.key, |_| true)
        .unwrap();
    let commit = built.stage_commit(provider).unwrap().into_commit().to_bytes().unwrap();
    group.clear_pending_commit(provider.storage()).unwrap();
    commit
}

/// The group works on after whatever was refused: a genuine commit is applied and both sides hear each other.
fn still_works(rosters: &mut Rosters, gate: &mut Device, device: &mut Device) {
    let members = gate.group().leaves();
    rosters.0.insert(
        [99; 32],
        Membership {
            gate: gate.own,
            members,
            roster: [99; 32],
        },
    );
    let commit = gate.change(&[], &[], [99; 32]).unwrap().commit;
    let epoch = gate.group().epoch();
    assert_eq!(device.hear(rosters, &commit), changed(epoch, false));
    let (there, back) = (gate.say(b"there"), device.say(b"back"));
    assert_eq!(device.hear(rosters, &there), message(gate, b"there"));
    assert_eq!(gate.hear(rosters, &back), message(device, b"back"));
}

fn package_of(device: &mut Device) -> KeyPackage {
    let bytes = device.key_package();
    device.mls.verified_key_package(&bytes).unwrap().0
}

fn context(extensions: Vec<Extension>) -> Extensions<GroupContext> {
    Extensions::from_vec(extensions).unwrap()
}

fn named(gate: &Device, roster: [u8; 32]) -> Extension {
    Extension::Unknown(
        EXTENSION,
        UnknownExtension([gate.own.party.as_bytes().as_slice(), &roster].concat()),
    )
}

#[test]
fn only_the_gate_commits() {
    let (mut rosters, mut gate, mut devices) = group_of(2);
    let [ann, bob] = devices.as_mut_slice() else { panic!() };
    let update = rogue(bob, |builder| builder.force_self_update(true));
    let ousting = rogue(bob, |builder| builder.propose_removals([LeafNodeIndex::new(1)]));
    let friend = package_of(&mut Device::new());
    let adding = rogue(bob, |builder| builder.propose_adds([friend]));
    for commit in [update, ousting, adding] {
        for _ in 0..2 {
            assert_eq!(ann.hear(&rosters, &commit), Received::Refused(Refused::NotTheGate));
            assert_eq!(
                gate.hear(&Rosters::default(), &commit),
                Received::Refused(Refused::NotTheGate)
            );
        }
    }
    assert!(matches!(bob.change(&[], &[], [9; 32]), Err(ChannelError::NotTheGate)));
    still_works(&mut rosters, &mut gate, ann);
}

#[test]
fn a_leaf_that_calls_itself_the_gate_is_not_the_gate() {
    let (mut rosters, mut gate, mut devices) = group_of(1);
    let (mut ann, mut mallory) = (devices.remove(0), Device::new());
    mallory.own.party = gate.own.party;
    let twin = package_of(&mut mallory);
    let roster = rosters.verify(2, &gate, &[&ann]);
    let commit = rogue(&mut gate, |builder| builder.propose_adds([twin]));
    assert_eq!(ann.hear(&rosters, &commit), Received::Refused(Refused::NotInRoster));
    let refused = gate.change(&[mallory.key_package()], &[], roster);
    assert_eq!(refused.unwrap_err(), ChannelError::Change(Refused::Twice));
    still_works(&mut rosters, &mut gate, &mut ann);
}

#[test]
fn external_commits_are_refused() {
    let (mut rosters, mut gate, mut devices) = group_of(1);
    let (ann, mut mallory) = (&mut devices[0], Device::new());
    let info = ann
        .group
        .as_mut()
        .unwrap()
        .inner
        .export_group_info(ann.mls.provider().crypto(), &ann.key, true)
        .unwrap();
    let info = MlsMessageIn::tls_deserialize_exact_bytes(&info.to_bytes().unwrap()).unwrap();
    let MlsMessageBodyIn::GroupInfo(info) = info.extract() else {
        panic!()
    };
    let provider = mallory.mls.provider();
    let (_, bundle) = ExternalCommitBuilder::new()
        .build_group(provider, info, mallory.own.credential())
        .unwrap()
        .leaf_node_parameters(
            LeafNodeParameters::builder()
                .with_capabilities(key_package::capabilities())
                .build(),
        )
        .load_psks(provider.storage())
        .unwrap()
        .build(provider.rand(), provider.crypto(), &mallory.key, |_| true)
        .unwrap()
        .finalize(provider)
        .unwrap();
    let commit = bundle.into_commit().to_bytes().unwrap();
    rosters.verify(1, &gate, &[ann, &mallory]);
    assert_eq!(ann.hear(&rosters, &commit), Received::Refused(Refused::Unencrypted));
    assert_eq!(gate.hear(&rosters, &commit), Received::Refused(Refused::Unencrypted));
    drop(mallory.mls.take_changes());
    still_works(&mut rosters, &mut gate, ann);
}

#[test]
fn standalone_proposals_are_dropped_and_block_nobody() {
    let (mut rosters, mut gate, mut devices) = group_of(2);
    let [ann, bob] = devices.as_mut_slice() else { panic!() };
    let group = &mut bob.group.as_mut().unwrap().inner;
    let leave = group
        .leave_group(bob.mls.provider(), &bob.key)
        .unwrap()
        .to_bytes()
        .unwrap();
    for device in [&mut gate, &mut *ann] {
        assert_eq!(device.hear(&rosters, &leave), Received::Refused(Refused::Proposal));
        assert!(!device.group().inner.has_pending_proposals());
    }
    // A commit of the gate to a proposal that nobody kept doesn't get through either.
    let (provider, inner) = (gate.mls.provider(), &mut gate.group.as_mut().unwrap().inner);
    inner
        .propose_remove_member(provider, &gate.key, LeafNodeIndex::new(2))
        .unwrap();
    let commit = rogue(&mut gate, |builder| builder);
    let (provider, inner) = (gate.mls.provider(), &mut gate.group.as_mut().unwrap().inner);
    inner.clear_pending_proposals(provider.storage()).unwrap();
    assert_eq!(ann.hear(&rosters, &commit), Received::Refused(Refused::BadCommit));
    still_works(&mut rosters, &mut gate, ann);
}

#[test]
fn a_pre_shared_key_is_no_allowed_proposal() {
    let (mut rosters, mut gate, mut devices) = group_of(1);
    let ann = &mut devices[0];
    let id = PreSharedKeyId::new(
        SUITE,
        gate.mls.provider().rand(),
        Psk::External(ExternalPsk::new(vec![1])),
    )
    .unwrap();
    for device in [&mut gate, &mut *ann] {
        id.store(device.mls.provider(), &[7; 32]).unwrap();
    }
    let proposal = Proposal::PreSharedKey(Box::new(PreSharedKeyProposal::new(id)));
    let commit = rogue(&mut gate, |builder| builder.add_proposal(proposal));
    assert_eq!(ann.hear(&rosters, &commit), Received::Refused(Refused::OtherProposals));
    still_works(&mut rosters, &mut gate, ann);
}

#[test]
fn nobody_beside_the_roster_and_nobody_twice() {
    let (mut rosters, mut gate, mut devices) = group_of(1);
    let (mut ann, mut mallory, mut twin) = (devices.remove(0), Device::new(), Device::new());
    let stranger = package_of(&mut mallory);
    let commit = rogue(&mut gate, |builder| builder.propose_adds([stranger]));
    assert_eq!(ann.hear(&rosters, &commit), Received::Refused(Refused::NotInRoster));
    // A second leaf for Ann, even with a leaf key that the roster names for her.
    twin.own.party = ann.own.party;
    let second = package_of(&mut twin);
    rosters.verify(1, &gate, &[&ann, &twin]);
    let commit = rogue(&mut gate, |builder| builder.propose_adds([second]));
    assert_eq!(ann.hear(&rosters, &commit), Received::Refused(Refused::Twice));
    let refused = gate.change(&[twin.key_package()], &[], [1; 32]);
    assert_eq!(refused.unwrap_err(), ChannelError::Change(Refused::Twice));
    still_works(&mut rosters, &mut gate, &mut ann);
}

#[test]
fn a_gate_that_is_not_the_rosters_gate_any_more() {
    let (mut rosters, mut gate, mut devices) = group_of(1);
    let ann = &mut devices[0];
    // The same party with another leaf key, as the next roster doesn't say.
    let other = Device::new();
    let credential = Leaf {
        party: gate.own.party,
        leaf: other.own.leaf,
    }
    .credential();
    let (provider, group) = (gate.mls.provider(), &mut gate.group.as_mut().unwrap().inner);
    let signer = NewSignerBundle {
        signer: &other.key,
        credential_with_key: credential,
    };
    let builder = group.commit_builder().load_psks(provider.storage()).unwrap();
    let built = builder
        .build_with_new_signer(provider.rand(), provider.crypto(), &gate.key, signer, |_| true)
        .unwrap();
    let commit = built.stage_commit(provider).unwrap().into_commit().to_bytes().unwrap();
    group.clear_pending_commit(provider.storage()).unwrap();
    assert_eq!(ann.hear(&rosters, &commit), Received::Refused(Refused::NotInRoster));
    // The roster in force names another leaf key for the gate: its commits count for nothing.
    let genuine = rogue(&mut gate, |builder| builder.force_self_update(true));
    let members = vec![gate.own, ann.own];
    let replaced = Membership {
        gate: Leaf {
            leaf: other.own.leaf,
            ..gate.own
        },
        members,
        roster: [1; 32],
    };
    let kept = rosters.0.insert([1; 32], replaced).unwrap();
    assert_eq!(ann.hear(&rosters, &genuine), Received::Refused(Refused::NotTheGate));
    rosters.0.insert([1; 32], kept);
    still_works(&mut rosters, &mut gate, ann);
}

#[test]
fn the_group_context_is_ours_and_nothing_else() {
    let (mut rosters, mut gate, mut devices) = group_of(1);
    let (ann, other) = (&mut devices[0], Device::new());
    let required = || Extension::RequiredCapabilities(Context::required());
    let senders = Extension::ExternalSenders(vec![ExternalSender::new(
        other.own.leaf.to_vec().into(),
        other.own.credential().credential,
    )]);
    for extensions in [
        vec![required(), named(&other, [1; 32])],
        // A roster that nobody knows must not make it wait.
        vec![required(), named(&other, [77; 32])],
        vec![required(), named(&gate, [1; 32]), senders],
        vec![required()],
        vec![required(), Extension::Unknown(EXTENSION, UnknownExtension(vec![1; 63]))],
        vec![],
    ] {
        let commit = rogue(&mut gate, |builder| {
            builder.propose_group_context_extensions(context(extensions)).unwrap()
        });
        assert_eq!(ann.hear(&rosters, &commit), Received::Refused(Refused::Context));
    }
    still_works(&mut rosters, &mut gate, ann);
}

#[test]
fn a_welcome_into_another_group_is_refused_and_the_key_package_kept() {
    let (mut gate, mut other, mut ann) = (Device::gate([1; 32]), Device::gate([1; 32]), Device::new());
    let package = ann.key_package();
    ann.flush();
    let wrong = other
        .change(std::slice::from_ref(&package), &[], [1; 32])
        .unwrap()
        .welcome
        .unwrap();
    assert_eq!(ann.join(&gate, &wrong), Err(ChannelError::Welcome(Refused::NoGate)));
    // The group of a stranger that claims to be the gate in the context but not in the tree, or the reverse.
    let liar = rogue_welcome(&other, &gate.own.party, &package);
    assert_eq!(ann.join(&gate, &liar), Err(ChannelError::Welcome(Refused::NoGate)));
    assert_eq!(
        ann.join(&gate, b"welcome"),
        Err(ChannelError::Welcome(Refused::Malformed))
    );
    assert!(ann.mls.take_changes().is_empty());
    let mut not_me = ann.own;
    not_me.leaf = [3; 32];
    let right = gate.change(&[package], &[], [1; 32]).unwrap().welcome.unwrap();
    assert!(matches!(
        Group::join(&mut ann.mls, &not_me, &gate.own.party, &right),
        Err(ChannelError::Welcome(Refused::NotOurs))
    ));
    ann.join(&gate, &right).unwrap();
    assert_eq!(
        ann.join(&gate, &right),
        Err(ChannelError::Welcome(Refused::Unopened)),
        "a key package is used once"
    );
    let said = Membership {
        gate: gate.own,
        members: vec![ann.own],
        roster: [1; 32],
    };
    assert_eq!(ann.group().check(&said), Ok(()));
    let rekeyed = Leaf {
        leaf: [3; 32],
        ..gate.own
    };
    let elsewhere = Membership {
        gate: rekeyed,
        members: vec![gate.own, ann.own],
        roster: [1; 32],
    };
    assert_eq!(ann.group().check(&elsewhere), Err(Refused::NoGate));
    let of_other = Membership {
        gate: other.own,
        ..said.clone()
    };
    assert_eq!(ann.group().check(&of_other), Err(Refused::Context));
    assert_eq!(
        ann.group().check(&Membership {
            roster: [2; 32],
            ..said.clone()
        }),
        Err(Refused::AnotherRoster)
    );
    assert_eq!(
        ann.group().check(&Membership {
            members: vec![],
            ..said
        }),
        Err(Refused::NotInRoster)
    );
}

/// A Welcome into a group of `by`'s whose context names `gate`.
fn rogue_welcome(by: &Device, gate: &PartyId, package: &[u8]) -> Vec<u8> {
    let mut mls = Mls::new([]);
    let mut group = Group::create(&mut mls, &by.key, by.own.party, [1; 32]).unwrap();
    let (package, _) = mls.verified_key_package(package).unwrap();
    let provider = mls.provider();
    let named = Context {
        gate: *gate,
        roster: [1; 32],
    }
    .extensions()
    .unwrap();
    let builder = group
        .inner
        .commit_builder()
        .propose_adds([package])
        .propose_group_context_extensions(named)
        .unwrap();
    let built =
        builder
            .load_psks(provider.storage())
            .unwrap()
            .build(provider.rand(), provider.crypto(), &by.key, |_| true);
    built
        .unwrap()
        .stage_commit(provider)
        .unwrap()
        .into_welcome_msg()
        .unwrap()
        .to_bytes()
        .unwrap()
}

#[test]
fn a_key_package_must_be_the_devices_own_and_plain() {
    let (mut ann, bob) = (Device::new(), Device::new());
    let package = ann.key_package();
    check_key_package(&package, &ann.own).unwrap();
    for other in [
        Leaf {
            party: bob.own.party,
            ..ann.own
        },
        Leaf {
            leaf: bob.own.leaf,
            ..ann.own
        },
        bob.own,
    ] {
        assert_eq!(
            check_key_package(&package, &other),
            Err(ChannelError::KeyPackage("not this device's"))
        );
    }
    for position in (0..package.len()).step_by(3) {
        let mut damaged = package.clone();
        damaged[position] ^= 4;
        assert!(check_key_package(&damaged, &ann.own).is_err(), "{position}");
    }
    assert_eq!(
        check_key_package(&ann.say_nothing(), &ann.own),
        Err(ChannelError::KeyPackage("another kind of message"))
    );
    let build_for = |suite, builder: KeyPackageBuilder| {
        let built = builder
            .build(suite, ann.mls.provider(), &ann.key, ann.own.credential())
            .unwrap();
        MlsMessageOut::from(built.into_key_package()).to_bytes().unwrap()
    };
    let build = |builder| build_for(SUITE, builder);
    let plain = || KeyPackage::builder().leaf_node_capabilities(key_package::capabilities());
    let more = [
        ExtensionType::Unknown(EXTENSION),
        ExtensionType::LastResort,
        ExtensionType::ApplicationId,
    ];
    let able = || KeyPackage::builder().leaf_node_capabilities(Capabilities::new(None, None, Some(&more), None, None));
    let twice = able().mark_as_last_resort();
    let named = Extensions::single(Extension::ApplicationId(ApplicationIdExtension::new(b"x"))).unwrap();
    let other_suite = build_for(Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519, able());
    assert_eq!(
        check_key_package(&other_suite, &ann.own),
        Err(ChannelError::KeyPackage("another cipher suite"))
    );
    for (builder, why) in [
        (KeyPackage::builder(), "without a capability that the group requires"),
        (
            plain().key_package_lifetime(Lifetime::new(20 * 366 * 24 * 60 * 60)),
            "valid for too long",
        ),
        (
            plain().key_package_lifetime(Lifetime::init(0, 1)),
            "not signed by its leaf key, or not valid now",
        ),
        (twice, "key package extensions"),
        (able().leaf_node_extensions(named), "leaf extensions"),
    ] {
        assert_eq!(
            check_key_package(&build(builder), &ann.own),
            Err(ChannelError::KeyPackage(why))
        );
    }
}

impl Device {
    fn say_nothing(&self) -> Vec<u8> {
        let mut alone = Self::gate([0; 32]);
        alone.say(b"")
    }
}

#[test]
fn whatever_bit_is_flipped_nothing_is_accepted_and_nothing_lost() {
    let (mut rosters, mut gate, mut devices) = group_of(2);
    let [ann, bob] = devices.as_mut_slice() else { panic!() };
    let roster = rosters.verify(2, &gate, &[ann]);
    let said = gate.say(b"run it");
    let commit = gate.change(&[], &[bob.own.party], roster).unwrap().commit;
    for genuine in [&said, &commit] {
        let step = (genuine.len() / 150).max(1);
        ann.mls.take_changes();
        for position in (0..genuine.len()).step_by(step) {
            let mut damaged = genuine.clone();
            damaged[position] ^= 1 << (position % 8);
            let heard = ann.hear(&rosters, &damaged);
            assert!(
                matches!(heard, Received::Refused(_) | Received::Early | Received::Known),
                "{position}: {heard:?}"
            );
        }
        for length in (0..genuine.len()).step_by(step) {
            assert!(matches!(ann.hear(&rosters, &genuine[..length]), Received::Refused(_)));
        }
        assert!(ann.mls.take_changes().is_empty());
        let heard = ann.hear(&rosters, genuine);
        assert!(
            matches!(heard, Received::Message { .. } | Received::Changed { .. }),
            "{heard:?}"
        );
    }
}

#[test]
fn random_bytes_and_other_kinds_of_messages_do_nothing() {
    let (rosters, mut gate, mut devices) = group_of(1);
    let ann = &mut devices[0];
    let (genuine, package) = (gate.say(b"x"), ann.key_package());
    let welcome = gate
        .change(&[Device::new().key_package()], &[], [2; 32])
        .unwrap()
        .welcome
        .unwrap();
    ann.mls.take_changes();
    for length in 0..400 {
        let mut noise = vec![0; length];
        OsRng.fill_bytes(&mut noise);
        assert!(matches!(ann.hear(&rosters, &noise), Received::Refused(_)));
        // The same behind a head that leads into the decoder.
        let mut headed = genuine.get(..30.min(length)).unwrap_or_default().to_vec();
        headed.extend(noise);
        assert!(matches!(ann.hear(&rosters, &headed), Received::Refused(_)));
        let _ = Group::join(&mut ann.mls, &ann.own, &gate.own.party, &headed).is_err();
    }
    for other in [package, welcome] {
        assert_eq!(ann.hear(&rosters, &other), Received::Refused(Refused::Malformed));
    }
    let long = vec![0; ENVELOPE_MESSAGE_BYTES + 1];
    assert_eq!(ann.hear(&rosters, &long), Received::Refused(Refused::TooLong));
    let elsewhere = Device::gate([1; 32]).say(b"x");
    assert_eq!(ann.hear(&rosters, &elsewhere), Received::Refused(Refused::AnotherGroup));
    assert!(ann.mls.take_changes().is_empty());
}

#[test]
fn an_epoch_beyond_all_gaps_is_not_held() {
    let (rosters, mut gate, mut devices) = group_of(1);
    let genuine = gate.say(b"x");
    // Version, wire format, the id with its length: then the epoch.
    let at = 2 + 2 + 1 + gate.group().inner.group_id().tls_serialize_detached().unwrap().len() - 1;
    for (ahead, expected) in [
        (EPOCHS_AHEAD, Received::Early),
        (EPOCHS_AHEAD + 1, Received::Refused(Refused::TooFarAhead)),
        (u64::MAX - 1, Received::Refused(Refused::TooFarAhead)),
    ] {
        let mut forged = genuine.clone();
        forged[at..at + 8].copy_from_slice(&(1 + ahead).to_be_bytes());
        assert_eq!(devices[0].hear(&rosters, &forged), expected);
    }
}
