//! Who has to say yes, and whose yes counts for nothing (PROTOCOL.md 9).

use approval::change::Change;
use approval::decision::Answer as Vote;
use approval::outcome::Ended;
use approval::roster::{Quorum, Role};
use countersign::local::Fault;
use countersign_tests::world::hand::anew;
use countersign_tests::world::{Does, World};
use wire::frame::{ClientFrame, Put};

#[tokio::test]
async fn two_of_three_is_enough() {
    let (world, [alice, _bob, carol]) = World::with(["alice", "bob", "carol"], 2).await;
    let mut asking = world.asks_to_tally("once").await;
    assert_eq!(asking.need, 2);
    alice.approves(&asking.id).await;
    asking.has(1).await;
    assert!(world.tally().is_empty(), "one of two has approved");
    carol.approves(&asking.id).await;
    let end = asking.ends().await;
    assert!(end.ran());
    assert_eq!(end.approved_by, ["alice", "carol"]);
    assert_eq!(end.stdout, b"did once\n");
    assert_eq!(world.tally(), ["once"]);
    assert_eq!(world.is_sound().await.requests.ran, 1);
}

#[tokio::test]
async fn a_denial_ends_it_and_the_agent_hears_why() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    let mut asking = world.asks_to_tally("never").await;
    alice.approves(&asking.id).await;
    asking.has(1).await;
    bob.denies(&asking.id, "not on a friday").await;
    let end = asking.ends().await;
    assert!(matches!(end.result, Ended::Denied(_)));
    assert_eq!(end.denied_by, ["bob"]);
    assert_eq!(end.reason.as_deref(), Some("not on a friday"));
    assert!(world.tally().is_empty());
    world.is_sound().await;
}

#[tokio::test]
async fn nobody_enrolled_means_no() {
    let world = World::new().await;
    let (kind, why) = world.is_turned_away(&["sh", "-c", &world.tallying("never")]).await;
    assert_eq!(kind, Fault::Refused);
    assert!(why.contains("nobody is enrolled"), "{why}");
    assert!(world.tally().is_empty());
}

#[tokio::test]
async fn one_person_with_two_devices_counts_once() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    let tablet = world.enrols("alice", Role::Admin, None, &[&alice, &bob]).await;
    let mut asking = world.asks_to_tally("once").await;
    alice.approves(&asking.id).await;
    tablet.approves(&asking.id).await;
    bob.sees_decisions(&asking.id, 2).await;
    asking.has(1).await;
    assert!(world.tally().is_empty(), "two devices and one person have approved");
    bob.approves(&asking.id).await;
    let end = asking.ends().await;
    assert_eq!(end.approved_by, ["alice", "bob"]);
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn two_devices_of_one_person_that_answer_at_once_make_one_run() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let tablet = world.enrols("alice", Role::Admin, None, &[&alice]).await;
    let asking = world.asks_to_tally("once").await;
    let id = asking.id;
    tokio::join!(alice.approves(&id), tablet.approves(&id));
    assert!(asking.ends().await.ran());
    alice.sees_the_end_of(&id).await;
    assert_eq!(world.tally(), ["once"]);
    assert_eq!(world.gate.copy().await.permits(&id), 1);
    world.is_sound().await;
}

#[tokio::test]
async fn a_yes_and_a_no_from_two_devices_of_one_person_is_one_or_the_other() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let tablet = world.enrols("alice", Role::Admin, None, &[&alice]).await;
    let asking = world.asks_to_tally("once").await;
    let id = asking.id;
    tokio::join!(alice.approves(&id), tablet.denies(&id, "no"));
    let end = asking.ends().await;
    assert_eq!(end.ran(), world.tally() == ["once"]);
    assert!(end.ran() || matches!(end.result, Ended::Denied(_)));
    world.is_sound().await;
}

#[tokio::test]
async fn what_a_removed_admin_signed_before_counts_for_nothing_afterwards() {
    let (world, [alice, bob, carol]) = World::with(["alice", "bob", "carol"], 2).await;
    let mut asking = world.asks_to_tally("once").await;
    carol.approves(&asking.id).await;
    asking.has(1).await;

    let proposal = alice.proposes(Change::RemovePerson("carol".parse().unwrap())).await;
    let change = alice.has_its_request(proposal).await;
    tokio::join!(alice.approves(&change), bob.approves(&change));
    tokio::join!(alice.sees_the_end_of(&change), bob.sees_the_end_of(&change));

    bob.approves(&asking.id).await;
    alice.sees_decisions(&asking.id, 2).await;
    assert!(world.tally().is_empty(), "carol's approval is recorded and she is gone");
    alice.approves(&asking.id).await;
    let end = asking.ends().await;
    assert!(end.ran());
    assert_eq!(end.approved_by, ["bob", "alice"]);
    world.is_sound().await;
}

#[tokio::test]
async fn a_removed_admins_decision_that_arrives_late_is_worth_nothing() {
    let (world, [alice, bob, carol]) = World::with(["alice", "bob", "carol"], 2).await;
    let asking = world.asks_to_tally("once").await;
    let (of, gate) = (*carol.mailbox.as_bytes(), world.gate.mailbox);
    carol.sees(&asking.id).await;
    world.hand.rule(move |passing| {
        if passing.of == of && passing.put_to(&gate).is_some() {
            Does::Hold
        } else {
            Does::Pass
        }
    });
    let signed = carol.signs(&asking.id, Vote::Approve).await;
    carol.approves(&asking.id).await;
    world.hand.has_touched(1).await;

    let proposal = alice.proposes(Change::RemovePerson("carol".parse().unwrap())).await;
    let change = alice.has_its_request(proposal).await;
    tokio::join!(alice.approves(&change), bob.approves(&change));
    tokio::join!(alice.sees_the_end_of(&change), bob.sees_the_end_of(&change));
    carol
        .until("her removal", |_, notices| {
            notices
                .iter()
                .any(|notice| matches!(notice, countersign::member::Notice::Removed))
        })
        .await;

    // Her own capability is revoked; somebody who still has one carries her envelopes, and then her statement, in.
    let bobs = world
        .hand
        .recorded()
        .into_iter()
        .rfind(|put| put.mailbox == *gate.as_bytes())
        .unwrap();
    let mut carried = Vec::new();
    world.hand.lets_go_in(|held| carried = std::mem::take(held));
    for said in carried {
        if let countersign_tests::world::Said::Up(ClientFrame::Put(put)) = said {
            world.hand.says(
                &bob.mailbox,
                anew(&Put {
                    capability: bobs.capability.clone(),
                    ..put
                }),
            );
        }
    }
    bob.sends(signed.signed().clone()).await;
    assert_eq!(bob.is_refused(&signed.digest()).await, "not a decision of this device");

    bob.approves(&asking.id).await;
    alice.sees_decisions(&asking.id, 1).await;
    assert!(world.tally().is_empty());
    alice.approves(&asking.id).await;
    assert_eq!(asking.ends().await.approved_by, ["bob", "alice"]);
    world.is_sound().await;
}

#[tokio::test]
async fn an_auditor_sees_everything_and_decides_nothing() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let dora = world.enrols("dora", Role::Auditor, None, &[&alice]).await;
    let asking = world.asks_to_tally("once").await;
    let decision = dora.approves(&asking.id).await;
    assert_eq!(dora.is_refused(&decision).await, "only admins decide");
    assert!(world.tally().is_empty());
    let id = asking.id;
    alice.approves(&id).await;
    assert!(asking.ends().await.ran());
    dora.sees_the_end_of(&id).await;
    assert_eq!(dora.copy().await.export(), world.gate.copy().await.export());
    world.is_sound().await;
}

#[tokio::test]
async fn a_decision_about_another_gates_request_is_worth_nothing_here() {
    let ((here, [alice]), (there, [bob])) = tokio::join!(World::with(["alice"], 1), World::with(["bob"], 1));
    let (mine, theirs) = tokio::join!(here.asks_to_tally("here"), there.asks_to_tally("there"));
    bob.sees(&theirs.id).await;
    let bobs = bob.signs(&theirs.id, Vote::Approve).await;
    alice.sends(bobs.signed().clone()).await;
    assert_eq!(alice.is_refused(&bobs.digest()).await, "not a decision of this device");
    let confused = alice.signs(&theirs.id, Vote::Approve).await;
    alice.sends(confused.signed().clone()).await;
    assert_eq!(
        alice.is_refused(&confused.digest()).await,
        "the request is no longer open"
    );
    assert!(here.tally().is_empty() && there.tally().is_empty());

    // One that quotes the other gate's log about this gate's request can be read, and counts nowhere.
    let forged = {
        let (request, checkpoint) = (mine.id, bobs.checkpoint.clone());
        alice
            .with(move |member| {
                Box::pin(async move {
                    let party = member.party.identity.party();
                    let decision = approval::decision::Decision {
                        party,
                        request,
                        verdict: Vote::Approve,
                        number: None,
                        grant: None,
                        reason: approval::Text::cut(""),
                        time: approval::Time::of_clock(0),
                        checkpoint,
                    };
                    approval::sign(&member.party.identity, decision).unwrap()
                })
            })
            .await
    };
    alice.sees(&mine.id).await;
    alice.sends(forged.signed().clone()).await;
    alice.is_refused(&forged.digest()).await;
    assert!(here.tally().is_empty());
    alice.approves(&mine.id).await;
    assert!(mine.ends().await.ran());
    here.is_sound().await;
}

#[tokio::test]
async fn a_raised_quorum_holds_for_what_was_asked_before() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 1).await;
    let mut asking = world.asks_to_tally("once").await;
    assert_eq!(asking.need, 1);
    let proposal = alice.proposes(Change::Quorum(Quorum { command: 2, roster: 1 })).await;
    let change = alice.has_its_request(proposal).await;
    alice.approves(&change).await;
    alice.sees_the_end_of(&change).await;
    alice.approves(&asking.id).await;
    asking.has(1).await;
    assert!(world.tally().is_empty());
    bob.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
    world.is_sound().await;
}
