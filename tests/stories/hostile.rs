//! The hostile relay. Whatever it does, nothing runs that wasn't approved, nothing twice, and no decision counts for another request; what it keeps
//! back ends by expiring; and when it lets go, everything heals by itself (PROTOCOL.md 5, 12).

use std::collections::HashMap;

use approval::change::Change;
use approval::outcome::Ended;
use approval::roster::{Quorum, Role};
use countersign_tests::world::hand::{anew, stored, with_envelope};
use countersign_tests::world::{Does, Said, World, command};
use wire::envelope::Envelope;
use wire::frame::{ClientFrame, Put, Reason, RelayFrame, Stored};

#[tokio::test]
async fn what_it_keeps_back_ends_by_expiring() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let gate = world.gate.mailbox;
    let mut ask = command(&["sh", "-c", &world.tallying("never")], &world.place(""));
    ask.expires_ms = Some(60_000);
    let asking = world.asks_for(ask).await;
    let id = asking.id;
    alice.sees(&id).await;
    world
        .hand
        .rule(move |passing| passing.put_to(&gate).map_or(Does::Pass, stored));
    let decision = alice.approves(&id).await;
    world.hand.has_touched(1).await;
    world.clock.passes(60_000);
    assert!(matches!(asking.ends().await.result, Ended::Expired(_)));
    world.hand.lets_go();
    // The approval is said again, end to end, and comes too late.
    alice.sees_the_end_of(&id).await;
    assert_eq!(alice.is_refused(&decision).await, "the request is no longer open");
    assert!(world.tally().is_empty());
    world.is_sound().await;
}

/// Abuse case A15.
#[tokio::test]
async fn its_lie_that_a_decision_is_stored_is_healed_by_saying_it_again() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let gate = world.gate.mailbox;
    let asking = world.asks_to_tally("once").await;
    alice.sees(&asking.id).await;
    world
        .hand
        .rule(move |passing| passing.put_to(&gate).map_or(Does::Pass, stored));
    alice.approves(&asking.id).await;
    world.hand.has_touched(3).await;
    assert!(world.tally().is_empty());
    world.hand.lets_go();
    assert!(asking.ends().await.ran());
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn its_silence_about_a_decision_is_healed_by_putting_it_again() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let gate = world.gate.mailbox;
    let asking = world.asks_to_tally("once").await;
    alice.sees(&asking.id).await;
    world.hand.rule(move |passing| {
        if passing.put_to(&gate).is_some() {
            Does::Drop
        } else {
            Does::Pass
        }
    });
    alice.approves(&asking.id).await;
    world.hand.has_touched(3).await;
    world.hand.lets_go();
    assert!(asking.ends().await.ran());
    world.is_sound().await;
}

#[tokio::test]
async fn a_gap_in_what_it_delivers_is_noticed_and_filled() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 1).await;
    let to = alice.mailbox;
    world
        .hand
        .rule(move |passing| passing.put_to(&to).map_or(Does::Pass, stored));
    let first = world.asks_to_tally("first").await;
    let first_id = first.id;
    bob.approves(&first_id).await;
    assert!(first.ends().await.ran());
    world.hand.has_touched(3).await;
    // From here on it delivers again, as if nothing had been.
    world.hand.lets_go();
    let second = world.asks_to_tally("second").await;
    alice.approves(&second.id).await;
    assert!(second.ends().await.ran());
    alice.sees_the_end_of(&first_id).await;
    assert_eq!(alice.evidence().await, Vec::<String>::new());
    world.is_sound().await;
}

#[tokio::test]
async fn what_it_repeats_runs_once() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    world.hand.rule(|passing| match passing.put() {
        Some(put) => Does::Instead(vec![Said::Up(ClientFrame::Put(put.clone())), anew(put), anew(put)]),
        None => Does::Pass,
    });
    let mut asking = world.asks_to_tally("once").await;
    let id = asking.id;
    alice.approves(&id).await;
    asking.has(1).await;
    assert!(world.tally().is_empty(), "one approval said three times");
    bob.approves(&id).await;
    assert!(asking.ends().await.ran());
    alice.sees_the_end_of(&id).await;
    let copy = world.gate.copy().await;
    assert_eq!((copy.decisions(&id), copy.permits(&id)), (2, 1));
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn yesterdays_envelopes_do_nothing_today() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let yesterday = world.asks_to_tally("yesterday").await;
    let id = yesterday.id;
    alice.approves(&id).await;
    assert!(yesterday.ends().await.ran());
    alice.sees_the_end_of(&id).await;

    let today = world.asks_to_tally("today").await;
    alice.sees(&today.id).await;
    for put in world.hand.recorded() {
        if put.mailbox == *world.gate.mailbox.as_bytes() {
            world.hand.says(&alice.mailbox, anew(&put));
        } else {
            world.hand.says(&world.gate.mailbox, anew(&put));
        }
    }
    // Behind all of them in the gate's mailbox: when it is answered they were all read.
    let stray = alice.signs(&id, approval::decision::Answer::Approve).await;
    alice.sends(stray.signed().clone()).await;
    alice.is_refused(&stray.digest()).await;
    assert_eq!(world.tally(), ["yesterday"]);
    assert_eq!(world.gate.copy().await.decisions(&today.id), 0);
    alice.approves(&today.id).await;
    assert!(today.ends().await.ran());
    assert_eq!(world.tally(), ["yesterday", "today"]);
    assert_eq!(alice.evidence().await, Vec::<String>::new());
    world.is_sound().await;
}

#[tokio::test]
async fn an_old_state_of_a_mailbox_is_recognised_as_old() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let first = world.asks_to_tally("first").await;
    let id = first.id;
    alice.approves(&id).await;
    assert!(first.ends().await.ran());
    alice.sees_the_end_of(&id).await;
    // After a new login alice's mailbox holds what it held in the beginning, under its old numbers, and nothing new comes.
    let old = world.hand.recorded_for(&alice.mailbox);
    let (of, count) = (*alice.mailbox.as_bytes(), old.len());
    let mut served = false;
    world.hand.rule(move |passing| match passing.said {
        Said::Down(RelayFrame::Reading { .. }) if passing.of == of && !served => {
            served = true;
            let envelopes = old
                .iter()
                .take(40)
                .map(|put| Envelope::from_bytes(put.envelope.clone()).unwrap());
            let deliveries = (1..).zip(envelopes).map(|(sequence, envelope)| {
                Said::Down(RelayFrame::Deliver {
                    sequence,
                    received: 1,
                    envelope,
                })
            });
            let reading = Said::Down(RelayFrame::Reading {
                next_sequence: count as u64 + 1,
                waiting: count as u64,
            });
            Does::Instead(std::iter::once(reading).chain(deliveries).collect())
        }
        Said::Down(RelayFrame::Deliver { .. }) if passing.of == of => Does::Hold,
        _ => Does::Pass,
    });
    world.hand.cuts();
    world.hand.has_touched(1).await;
    let second = world.asks_to_tally("second").await;
    assert!(world.tally() == ["first"]);
    world.hand.lets_go();
    alice.approves(&second.id).await;
    assert!(second.ends().await.ran());
    assert_eq!(alice.evidence().await, Vec::<String>::new());
    assert_eq!(world.tally(), ["first", "second"]);
    world.is_sound().await;
}

#[tokio::test]
async fn envelopes_in_another_order_lead_to_the_same() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    world
        .hand
        .rule(|passing| if passing.delivers() { Does::Hold } else { Does::Pass });
    let asking = world.asks_to_tally("once").await;
    let others = [
        world.asks_to_tally("a").await,
        world.asks_to_tally("b").await,
        world.asks_to_tally("c").await,
    ];
    world.hand.has_touched(8).await;
    world.hand.lets_go_in(|held| {
        held.sort_by_key(|said| match said {
            Said::Down(RelayFrame::Deliver { sequence, .. }) => std::cmp::Reverse(*sequence),
            _ => std::cmp::Reverse(0),
        })
    });
    tokio::join!(alice.approves(&asking.id), bob.approves(&asking.id));
    assert!(asking.ends().await.ran());
    drop(others);
    assert_eq!(world.tally(), ["once"]);
    assert_eq!(alice.evidence().await, Vec::<String>::new());
    world.is_sound().await;
}

/// Abuse case A14.
#[tokio::test]
async fn envelopes_put_into_the_wrong_mailbox_cant_be_opened_there() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    // It knows every capability that was ever used, and exchanges alice's and bob's mail.
    let capabilities: HashMap<[u8; 32], Put> = world
        .hand
        .recorded()
        .into_iter()
        .map(|put| (put.mailbox, put))
        .collect();
    let (one, other) = (alice.mailbox, bob.mailbox);
    let swapped = move |put: &Put, to: &wire::mailbox::MailboxId| {
        let theirs = capabilities.get(to.as_bytes()).unwrap();
        Does::Instead(vec![Said::Up(ClientFrame::Put(Put {
            mailbox: theirs.mailbox,
            capability: theirs.capability.clone(),
            ..put.clone()
        }))])
    };
    world.hand.rule(move |passing| {
        if let Some(put) = passing.put_to(&one) {
            swapped(put, &other)
        } else if let Some(put) = passing.put_to(&other) {
            swapped(put, &one)
        } else {
            Does::Pass
        }
    });
    let asking = world.asks_to_tally("once").await;
    world.hand.has_touched(4).await;
    let id = asking.id;
    alice
        .until("nothing of it", move |member, _| {
            member.party.replay.request(&id).is_none()
        })
        .await;
    world.hand.lets_go();
    tokio::join!(alice.approves(&id), bob.approves(&id));
    assert!(asking.ends().await.ran());
    assert_eq!(alice.evidence().await, Vec::<String>::new());
    world.is_sound().await;
}

#[tokio::test]
async fn flipped_bits_are_never_believed_and_always_mended() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let mut at = 0;
    world.hand.rule(move |passing| match passing.put() {
        Some(put) => {
            let mut envelope = put.envelope.to_vec();
            at = (at + 131) % envelope.len();
            envelope[at] ^= 0x10;
            Does::Instead(vec![with_envelope(put, envelope)])
        }
        None => Does::Pass,
    });
    let asking = world.asks_to_tally("once").await;
    world.hand.has_touched(8).await;
    assert_eq!(world.status().await.pending, 1);
    world.hand.lets_go();
    alice.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
    assert_eq!(alice.evidence().await, Vec::<String>::new());
    world.is_sound().await;
}

#[tokio::test]
async fn its_own_inventions_are_nobodys_words() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let asking = world.asks_to_tally("once").await;
    alice.sees(&asking.id).await;
    let junk = |fill: u8, bytes: usize| Envelope::from_bytes(vec![fill; bytes].into()).unwrap();
    let hash = wire::mailbox::CapabilityHash::from_bytes([7; 32]);
    for of in [&world.gate.mailbox, &alice.mailbox] {
        for (sequence, bytes) in [(1, 1024), (900, 65_536), (2, 4096), (u64::MAX, 1024)] {
            world.hand.says(
                of,
                Said::Down(RelayFrame::Deliver {
                    sequence,
                    received: 0,
                    envelope: junk(9, bytes),
                }),
            );
        }
        for how in [Stored::Flushed, Stored::Acknowledged] {
            world.hand.says(of, Said::Down(RelayFrame::Stored { id: [3; 16], how }));
        }
        world.hand.says(
            of,
            Said::Down(RelayFrame::Refused {
                id: [4; 16],
                reason: Reason::NotAllowed,
                retry_after_ms: u32::MAX,
            }),
        );
        world
            .hand
            .says(of, Said::Down(RelayFrame::Done(wire::frame::Done::Revoke(hash))));
        world
            .hand
            .says(of, Said::Down(RelayFrame::Done(wire::frame::Done::CloseMailbox)));
        world.hand.says(
            of,
            Said::Down(RelayFrame::Reading {
                next_sequence: 0,
                waiting: u64::MAX,
            }),
        );
    }
    alice.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn cut_connections_lose_nothing() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    let asking = world.asks_to_tally("once").await;
    alice.sees(&asking.id).await;
    world.hand.cuts();
    alice.approves(&asking.id).await;
    world.hand.cuts();
    bob.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn a_commit_that_it_keeps_back_is_made_up_for() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 1).await;
    let before = world.epoch().await;
    let to = bob.mailbox;
    world
        .hand
        .rule(move |passing| passing.put_to(&to).map_or(Does::Pass, stored));
    for command in [2, 1, 2] {
        let proposal = alice.proposes(Change::Quorum(Quorum { command, roster: 1 })).await;
        let change = alice.has_its_request(proposal).await;
        alice.approves(&change).await;
        alice.sees_the_end_of(&change).await;
    }
    let asking = world.asks_to_tally("once").await;
    alice.approves(&asking.id).await;
    world.hand.lets_go();
    bob.has_roster(before + 3).await;
    bob.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
    assert_eq!(bob.evidence().await, Vec::<String>::new());
    world.is_sound().await;
}

#[tokio::test]
async fn a_welcome_that_it_keeps_back_is_sent_again() {
    let world = World::new().await;
    let mut inviting = world.invites("alice", Role::Admin, None).await;
    let alice = countersign_tests::world::Device::joins(&inviting.link, "alice", world.new_home("alice"))
        .await
        .unwrap();
    assert_eq!(alice.code().await, inviting.code().await);
    let (to, of) = (alice.mailbox, *world.gate.mailbox.as_bytes());
    world.hand.rule(move |passing| {
        passing
            .put_to(&to)
            .filter(|_| passing.of == of)
            .map_or(Does::Pass, stored)
    });
    inviting.confirms(true).await;
    world.hand.has_touched(1).await;
    world.hand.lets_go();
    alice.is_in().await;
    let asking = world.asks_to_tally("once").await;
    alice.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
    world.is_sound().await;
}

#[tokio::test]
async fn a_proposal_whose_answer_it_keeps_back_becomes_one_request() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let to = alice.mailbox;
    world
        .hand
        .rule(move |passing| passing.put_to(&to).map_or(Does::Pass, stored));
    let proposal = alice.proposes(Change::Quorum(Quorum { command: 1, roster: 1 })).await;
    world.hand.has_touched(6).await;
    world.hand.lets_go();
    let request = alice.has_its_request(proposal).await;
    alice.sees(&request).await;
    assert_eq!(world.status().await.pending, 1, "asked again is not asked twice");
    world.is_sound().await;
}

#[tokio::test]
async fn it_never_sees_a_word() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let mut ask = command(&["sh", "-c", "echo xyzzyplugh # xyzzyplugh"], &world.place(""));
    ask.reason = "xyzzyplugh".to_owned();
    let asking = world.asks_for(ask).await;
    let id = asking.id;
    alice.denies(&id, "xyzzyplugh").await;
    asking.ends().await;
    alice.sees_the_end_of(&id).await;
    let (party, gate) = (alice.party.to_string(), world.gate.party.to_string());
    let contains = |put: &Put, word: &[u8]| put.envelope.windows(word.len()).any(|window| window == word);
    let recorded = world.hand.recorded();
    assert!(recorded.len() > 5);
    for word in [
        b"xyzzyplugh".as_slice(),
        party.as_bytes(),
        gate.as_bytes(),
        alice.party.as_bytes(),
        b"alice",
        b"csid1",
        b"payload",
    ] {
        assert!(
            !recorded.iter().any(|put| contains(put, word)),
            "{}",
            String::from_utf8_lossy(word)
        );
    }
    assert!(
        recorded
            .iter()
            .all(|put| matches!(put.envelope.len(), 1024 | 2048 | 4096 | 16_384 | 65_536))
    );
}

#[tokio::test]
async fn a_device_that_spoke_in_vain_for_a_day_is_heard_again() {
    // One acknowledgement in 30 seconds, and the relay kept them all.
    const A_DAY: usize = 2 * 60 * 24;
    let (world, [alice]) = World::with(["alice"], 1).await;
    let asking = world.asks_to_tally("once").await;
    alice.sees(&asking.id).await;
    alice.speaks_in_vain(A_DAY).await;
    alice.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
    world.is_sound().await;
}
