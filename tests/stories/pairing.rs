//! Letting a device in, and who tries to get in instead (PROTOCOL.md 13).

use approval::device::Device as Certificate;
use approval::invite::Invite;
use approval::pairing::{Address, Challenge, Join, Reveal, commitment, short_code};
use approval::roster::Role;
use approval::scalar::LeafKey as Leaf;
use approval::{Time, sign};
use countersign::channel::{LeafKey, Mls, key_package};
use countersign::clock::wall;
use countersign::link::{LinkEvent, LinkHandle, spawn};
use countersign::local::{Answer, Fault};
use countersign::member::{JoinError, Notice};
use countersign_tests::world::hand::with_envelope;
use countersign_tests::world::{Device, Does, PATIENCE, Said, World};
use rand_core::OsRng;
use tokio::sync::mpsc;
use wire::envelope::{Content, EnvelopeSecret, open, seal};
use wire::frame::RelayFrame;
use wire::identity::Identity;
use wire::mailbox::{Capability, MailboxKey};

fn refused(answer: &Answer) -> bool {
    matches!(
        answer,
        Answer::Error {
            kind: Fault::Refused,
            ..
        }
    )
}

#[tokio::test]
async fn a_code_that_isnt_confirmed_lets_nobody_in() {
    let world = World::new().await;
    let mut inviting = world.invites("alice", Role::Admin, None).await;
    let alice = Device::joins(&inviting.link, "alice", world.new_home("alice"))
        .await
        .unwrap();
    assert_eq!(alice.code().await, inviting.code().await);
    assert!(refused(&inviting.confirms(false).await));
    alice.until("a refusal", |_, notices| notices.iter().any(|notice| matches!(notice, Notice::Answered(answer) if answer.verdict == approval::pairing::Pairing::Refused))).await;
    assert_eq!(world.epoch().await, 0);
    world.is_turned_away(&["true"]).await;

    // The link is dead: the relay takes nothing for its mailbox any more.
    let mailbox = Invite::parse(&inviting.link).unwrap().mailbox;
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut to_it = None;
    world.hand.rule(move |passing| {
        if let Some(put) = passing.put_to(&mailbox) {
            to_it = Some(put.id);
        }
        if matches!(passing.said, Said::Down(RelayFrame::Refused { id, .. }) if Some(*id) == to_it) {
            let _ = tell.send(());
        }
        Does::Pass
    });
    let _again = Device::joins(&inviting.link, "alice", world.new_home("alice"))
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
    assert_eq!(world.epoch().await, 0);
}

/// Whether any roster names this device.
async fn is_named(world: &World, device: &Device) -> bool {
    let copy = world.gate.copy().await;
    copy.statements().any(|statement| match statement {
        approval::Statement::Roster(roster) => {
            let mut devices = roster.people.iter().flat_map(|person| &person.devices);
            devices.any(|named| named.party == device.party)
        }
        _ => false,
    })
}

#[tokio::test]
async fn whoever_answers_the_link_between_join_and_reveal_doesnt_get_in() {
    let world = World::new().await;
    let mut inviting = world.invites("alice", Role::Admin, None).await;
    let mailbox = Invite::parse(&inviting.link).unwrap().mailbox;
    // Alice's join goes through, her reveal waits, and what comes after it overtakes it.
    let mut number = 0;
    world.hand.rule(move |passing| match passing.put_to(&mailbox) {
        Some(_) => {
            number += 1;
            if number == 2 { Does::Hold } else { Does::Pass }
        }
        None => Does::Pass,
    });
    let alice = Device::joins(&inviting.link, "alice", world.new_home("alice"))
        .await
        .unwrap();
    alice.code().await;
    world.hand.has_touched(1).await;
    let mallory = Device::joins(&inviting.link, "mallory", world.new_home("mallory"))
        .await
        .unwrap();
    // In the place of the reveal: the invite is dead, for alice as well.
    let end = inviting.ends().await;
    assert!(refused(&end), "{end:?}");
    world.hand.lets_go();
    assert!(!is_named(&world, &mallory).await && !is_named(&world, &alice).await);
    assert_eq!(world.epoch().await, 0);
}

#[tokio::test]
async fn an_invite_is_good_for_one_device() {
    let world = World::new().await;
    let mut inviting = world.invites("alice", Role::Admin, None).await;
    let alice = Device::joins(&inviting.link, "alice", world.new_home("alice"))
        .await
        .unwrap();
    let code = inviting.code().await;
    assert_eq!(alice.code().await, code);
    // While the first is being compared, somebody else answers the same link.
    let of = *Invite::parse(&inviting.link).unwrap().mailbox.as_bytes();
    world
        .hand
        .touches(move |passing| passing.of == of && passing.delivers());
    let mallory = Device::joins(&inviting.link, "mallory", world.new_home("mallory"))
        .await
        .unwrap();
    world.hand.has_touched(1).await;
    assert!(matches!(inviting.confirms(true).await, Answer::Joined { .. }));
    alice.is_in().await;
    assert!(!is_named(&world, &mallory).await);
    assert_eq!(world.epoch().await, 1);
}

#[tokio::test]
async fn an_expired_invite_is_refused_before_anything_is_sent() {
    let world = World::new().await;
    let inviting = world.invites("alice", Role::Admin, None).await;
    let invite = Invite {
        expires: Time::of_clock(wall() - 1),
        ..Invite::parse(&inviting.link).unwrap()
    };
    let home = world.new_home("alice");
    let late = Device::joins(&invite.link(), "alice", home).await;
    assert!(matches!(late, Err(JoinError::Expired)));
    assert!(world.hand.recorded_for(&invite.mailbox).is_empty());
}

#[tokio::test]
async fn a_relay_without_the_link_can_only_break_a_pairing() {
    let world = World::new().await;
    let mut inviting = world.invites("alice", Role::Admin, None).await;
    let mailbox = Invite::parse(&inviting.link).unwrap().mailbox;
    // Every byte of the first join could be another: all of them are junk to the gate, and none ends the invite.
    let mut number = 0;
    world.hand.rule(move |passing| match passing.put_to(&mailbox) {
        Some(put) => {
            let damaged = |at: usize| {
                let mut envelope = put.envelope.to_vec();
                let at = at % envelope.len();
                envelope[at] ^= 1;
                with_envelope(
                    &wire::frame::Put {
                        id: [u8::try_from(at % 251).unwrap(); 16],
                        ..put.clone()
                    },
                    envelope,
                )
            };
            number += 1;
            let genuine = Said::Up(wire::frame::ClientFrame::Put(put.clone()));
            Does::Instead(vec![
                damaged(number),
                damaged(number + 40),
                damaged(number + 900),
                genuine,
            ])
        }
        None => Does::Pass,
    });
    let alice = Device::joins(&inviting.link, "alice", world.new_home("alice"))
        .await
        .unwrap();
    assert_eq!(alice.code().await, inviting.code().await);
    assert!(matches!(inviting.confirms(true).await, Answer::Joined { .. }));
    alice.is_in().await;
    assert_eq!(world.epoch().await, 1);
}

/// Somebody in the middle who had the link before the admin did, and gave her another one with keys of their own in it.
struct Middleman {
    link: LinkHandle,
    events: mpsc::Receiver<LinkEvent>,
    key: MailboxKey,
    secret: EnvelopeSecret,
}

impl Middleman {
    async fn arrives(relay: &str) -> Self {
        let key = MailboxKey::generate(&mut OsRng);
        let (link, events) = spawn(relay, MailboxKey::from_bytes(&key.to_bytes()));
        let mut middleman = Self {
            link,
            events,
            key,
            secret: EnvelopeSecret::generate(&mut OsRng),
        };
        while !matches!(middleman.events.recv().await, Some(LinkEvent::Connected)) {}
        middleman
    }

    async fn lets_in(&self, capability: &Capability) {
        self.link.allow(capability.hash(), 16, 1 << 20).await;
        self.link.read().await;
    }

    async fn hears(&mut self) -> Vec<u8> {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv())
                .await
                .unwrap()
                .unwrap();
            if let LinkEvent::Delivered { sequence, envelope } = event {
                self.link.ack(sequence).await;
                if let Ok((Content::Pairing, message)) = open(&self.secret, &self.key.id(), &envelope) {
                    return message.to_vec();
                }
            }
        }
    }

    async fn says(&self, to: &Address, message: &[u8]) {
        let envelope = seal(&to.envelope_key, &to.mailbox, Content::Pairing, message, &mut OsRng).unwrap();
        self.link
            .put(rand_id(), &to.mailbox, &to.capability, 600, envelope)
            .await;
    }
}

fn rand_id() -> [u8; 16] {
    let mut id = [0; 16];
    rand_core::RngCore::fill_bytes(&mut OsRng, &mut id);
    id
}

#[tokio::test]
async fn a_middleman_who_swapped_the_link_shows_two_different_codes() {
    let world = World::new().await;
    let relay = format!("ws://{}", world.hand.authority());
    let mut inviting = world.invites("alice", Role::Admin, None).await;
    let genuine = Invite::parse(&inviting.link).unwrap();
    // Towards alice: the gate's name and secret, the middleman's mailbox and keys.
    let mut near = Middleman::arrives(&relay).await;
    let swapped = Invite {
        mailbox: near.key.id(),
        envelope_key: near.secret.key(),
        ..genuine.clone()
    };
    near.lets_in(&swapped.capability()).await;
    // Towards the gate: a device of their own under alice's name.
    let mut far = Middleman::arrives(&relay).await;
    let capability = Capability::generate(&mut OsRng);
    far.lets_in(&capability).await;
    let own = Address {
        mailbox: far.key.id(),
        envelope_key: far.secret.key(),
        capability,
    };

    let alice = Device::joins(&swapped.link(), "alice", world.new_home("alice"))
        .await
        .unwrap();
    let alices_bytes = near.hears().await;
    let alices = Join::open(&alices_bytes, &swapped, Time::of_clock(wall())).unwrap();

    let (identity, leaf, nonce) = (Identity::generate(&mut OsRng), LeafKey::generate(), rand_id());
    let mut mls = Mls::new(std::iter::empty());
    let certificate = Certificate {
        party: identity.party(),
        leaf: Leaf(leaf.public()),
        name: alices.device.name.clone(),
        created: Time::of_clock(wall()),
    };
    let device = sign(&identity, certificate).unwrap();
    let packaged = key_package(&mut mls, &leaf, identity.party()).unwrap();
    let join = Join {
        device,
        key_package: packaged,
        address: own,
        commitment: commitment(&nonce),
    }
    .seal(&genuine)
    .unwrap();
    let gate_side = Address {
        mailbox: genuine.mailbox,
        envelope_key: genuine.envelope_key,
        capability: genuine.capability(),
    };
    far.says(&gate_side, &join).await;
    let gates_bytes = far.hears().await;
    let gates = Challenge::open(&gates_bytes, &genuine, &join).unwrap();

    // The gate's nonce is passed on, which is all the influence that there is over alice's code before she reveals.
    let to_alice = Challenge {
        nonce: gates.nonce,
        address: gates.address.clone(),
    }
    .seal(&swapped, &alices_bytes)
    .unwrap();
    near.says(&alices.address, &to_alice).await;
    let revealed = Reveal::open(&near.hears().await, &swapped, &alices, &to_alice).unwrap();
    let to_gate = Reveal { nonce }.seal(&genuine, &gates_bytes).unwrap();
    far.says(&gate_side, &to_gate).await;

    let (there, here) = (alice.code().await, inviting.code().await);
    assert_eq!(there, short_code(&alices_bytes, &to_alice, &revealed.nonce).to_string());
    assert_ne!(there, here, "the person at the gate sees that somebody is in between");
    assert!(refused(&inviting.confirms(false).await));
    assert_eq!(world.epoch().await, 0);
}
