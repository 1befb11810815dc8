//! Changes of who may say yes, and everybody's copy of what was said (PROTOCOL.md 8.2, 10, 12).

use approval::change::Change;
use approval::decision::Answer as Vote;
use approval::outcome::Ended;
use approval::roster::{Quorum, Role};
use countersign::local::{Answer, Fault, Question, State};
use countersign::member::Notice;
use countersign_tests::world::{Device, World};

async fn changes(proposer: &Device, change: Change, approvers: &[&Device]) {
    let proposal = proposer.proposes(change).await;
    let request = proposer.has_its_request(proposal).await;
    for approver in approvers {
        approver.approves(&request).await;
    }
    for approver in approvers {
        approver.sees_the_end_of(&request).await;
    }
}

#[tokio::test]
async fn a_proposal_becomes_a_request_that_the_others_must_approve() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    let before = world.epoch().await;
    let proposal = alice.proposes(Change::Quorum(Quorum { command: 1, roster: 2 })).await;
    let request = alice.has_its_request(proposal).await;
    alice.approves(&request).await;
    bob.sees_decisions(&request, 1).await;
    assert_eq!(world.epoch().await, before, "who proposes has one voice like everybody");
    bob.approves(&request).await;
    bob.has_roster(before + 1).await;
    let asking = world.asks_to_tally("once").await;
    assert_eq!(asking.need, 1);
    bob.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
    world.is_sound().await;
}

#[tokio::test]
async fn those_at_the_gate_can_watch_a_change_and_not_take_it_back() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    let proposal = alice.proposes(Change::Quorum(Quorum { command: 1, roster: 2 })).await;
    let request = alice.has_its_request(proposal).await;
    let id = request.to_string();
    assert_eq!(world.waits(&request, 1).await.state, State::Pending);
    for question in [Question::Attach { id: id.clone() }, Question::Cancel { id }] {
        match world.hears(&question).await {
            Answer::Error { kind, .. } => assert_eq!(kind, Fault::Invalid),
            other => panic!("taken: {other:?}"),
        }
    }
    let before = world.epoch().await;
    alice.approves(&request).await;
    bob.sees_decisions(&request, 1).await;
    let (standing, _) = tokio::join!(world.learns(&request), bob.approves(&request));
    assert_eq!(
        (standing.state, standing.by.as_slice()),
        (State::Used, ["alice".to_owned(), "bob".to_owned()].as_slice())
    );
    assert_eq!(world.epoch().await, before + 1);
    world.is_sound().await;
}

#[tokio::test]
async fn a_proposal_that_is_denied_changes_nothing() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    let before = world.epoch().await;
    let proposal = alice.proposes(Change::Quorum(Quorum { command: 1, roster: 1 })).await;
    let request = alice.has_its_request(proposal).await;
    bob.denies(&request, "").await;
    alice.sees_the_end_of(&request).await;
    assert_eq!(world.epoch().await, before);
    assert!(matches!(
        world.gate.copy().await.outcome(&request),
        Some(Ended::Denied(_))
    ));
    world.is_sound().await;
}

#[tokio::test]
async fn a_removed_device_hears_of_it_and_its_person_goes_on_with_the_other() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let tablet = world.enrols("alice", Role::Admin, None, &[&alice]).await;
    let asking = world.asks_to_tally("once").await;
    tablet.sees(&asking.id).await;
    let signed = tablet.signs(&asking.id, Vote::Approve).await;
    changes(&alice, Change::RemoveDevice(tablet.party), &[&alice]).await;
    tablet
        .until("its removal", |_, notices| {
            notices.iter().any(|notice| matches!(notice, Notice::Removed))
        })
        .await;
    alice.sends(signed.signed().clone()).await;
    assert_eq!(
        alice.is_refused(&signed.digest()).await,
        "not a decision of this device"
    );
    assert!(world.tally().is_empty());
    let id = asking.id;
    alice.approves(&id).await;
    assert!(asking.ends().await.ran());
    alice.sees_the_end_of(&id).await;
    assert!(
        tablet.copy().await.entries.len() < alice.copy().await.entries.len(),
        "who was removed reads no further"
    );
    world.is_sound().await;
}

#[tokio::test]
async fn a_removed_person_can_neither_read_nor_decide() {
    let (world, [alice, bob, carol]) = World::with(["alice", "bob", "carol"], 1).await;
    changes(&alice, Change::RemovePerson("carol".parse().unwrap()), &[&alice]).await;
    carol
        .until("her removal", |_, notices| {
            notices.iter().any(|notice| matches!(notice, Notice::Removed))
        })
        .await;
    let asking = world.asks_to_tally("once").await;
    let id = asking.id;
    bob.approves(&id).await;
    assert!(asking.ends().await.ran());
    bob.sees_the_end_of(&id).await;
    let carols = carol.copy().await;
    assert!(!carols.entries.iter().any(|entry| entry.digest() == id), "she reads on");
    let _ = carols.verified();
    world.is_sound().await;
}

#[tokio::test]
async fn the_last_admin_cant_be_removed() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let proposal = alice.proposes(Change::RemovePerson("alice".parse().unwrap())).await;
    let mut about = [0; 32];
    about[..16].copy_from_slice(&proposal.0);
    alice.is_refused(&approval::Digest(about)).await;
    assert_eq!(world.status().await.pending, 0);
    world.is_sound().await;
}

#[tokio::test]
async fn everybodys_copy_is_the_gates_and_verifies() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 1).await;
    for line in ["one", "two", "three"] {
        let asking = world.asks_to_tally(line).await;
        let id = asking.id;
        if line == "two" {
            bob.denies(&id, "").await;
        } else {
            bob.approves(&id).await;
        }
        asking.ends().await;
        alice.sees_the_end_of(&id).await;
        bob.sees_the_end_of(&id).await;
    }
    let gate = world.gate.copy().await;
    for device in [&alice, &bob] {
        let copy = device.copy().await;
        assert_eq!(copy.export(), gate.export());
        let tally = copy.verified().requests;
        assert_eq!((tally.ran, tally.denied, tally.open), (2, 1, 0));
        assert_eq!(device.evidence().await, Vec::<String>::new());
    }
    world.is_sound().await;
}
