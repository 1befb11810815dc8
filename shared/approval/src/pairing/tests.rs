//! A pairing that goes well, and what must not go on (PROTOCOL.md 13.2). Not here: the frozen vectors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

use proptest::prelude::*;

use crate::invite::InviteSecret;
use crate::sample::*;

struct Run {
    invite: Invite,
    join: Vec<u8>,
    challenge: Vec<u8>,
    reveal: Vec<u8>,
    answer: Vec<u8>,
}

/// A whole pairing, as it goes well.
fn run() -> Run {
    let invite = invite();
    let join = join().seal(&invite).unwrap();
    let challenge = Challenge {
        nonce: GATE_NONCE,
        address: address(0x55),
    }
    .seal(&invite, &join)
    .unwrap();
    let reveal = Reveal { nonce: DEVICE_NONCE }.seal(&invite, &challenge).unwrap();
    let confirmed = Answer {
        verdict: Pairing::Confirmed,
        text: Text::cut("welcome"),
    };
    let answer = confirmed.seal(&invite, &reveal).unwrap();
    Run {
        invite,
        join,
        challenge,
        reveal,
        answer,
    }
}

/// Bytes under the invite's MAC.
fn under_mac(invite: &Invite, bytes: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.raw(bytes);
    authenticate(invite, writer).unwrap()
}

#[test]
fn a_device_and_a_gate_get_to_know_each_other() {
    let Run {
        invite,
        join,
        challenge,
        reveal,
        answer,
    } = run();
    let joined = Join::open(&join, &invite, at(NOON)).unwrap();
    assert_eq!(joined.device, device(ALICE));
    assert_eq!(joined.key_package, b"key package");
    assert_eq!(joined.address.mailbox, address(0x54).mailbox);
    assert!(joined.address.capability == address(0x54).capability);
    let challenged = Challenge::open(&challenge, &invite, &join).unwrap();
    assert_eq!(
        (challenged.nonce, challenged.address.envelope_key),
        (GATE_NONCE, address(0x55).envelope_key)
    );
    let revealed = Reveal::open(&reveal, &invite, &joined, &challenge).unwrap();
    assert_eq!(
        short_code(&join, &challenge, &revealed.nonce),
        short_code(&join, &challenge, &DEVICE_NONCE)
    );
    let answered = Answer::open(&answer, &invite, &reveal).unwrap();
    assert_eq!(
        (answered.verdict, answered.text.as_untrusted()),
        (Pairing::Confirmed, "welcome")
    );
}

#[test]
fn no_byte_of_any_message_can_be_changed() {
    let Run {
        invite,
        join,
        challenge,
        reveal,
        answer,
    } = run();
    let joined = Join::open(&join, &invite, at(NOON)).unwrap();
    let flipped = |bytes: &[u8], index: usize| {
        let mut bytes = bytes.to_vec();
        bytes[index] ^= 1;
        bytes
    };
    let unauthentic = Some(PairingError::Unauthentic);
    for index in 0..join.len() {
        assert_eq!(Join::open(&flipped(&join, index), &invite, at(NOON)).err(), unauthentic);
    }
    for index in 0..challenge.len() {
        assert_eq!(
            Challenge::open(&flipped(&challenge, index), &invite, &join).err(),
            unauthentic
        );
    }
    for index in 0..reveal.len() {
        assert_eq!(
            Reveal::open(&flipped(&reveal, index), &invite, &joined, &challenge).err(),
            unauthentic
        );
    }
    for index in 0..answer.len() {
        assert_eq!(
            Answer::open(&flipped(&answer, index), &invite, &reveal).err(),
            unauthentic
        );
    }
}

#[test]
fn another_secret_or_another_gate_opens_nothing() {
    let Run { invite, join, .. } = run();
    let guessed = Invite {
        secret: InviteSecret::from_bytes([0; 16]),
        ..invite.clone()
    };
    let elsewhere = Invite {
        gate: identity(OTHER_GATE).party(),
        ..invite
    };
    for invite in [guessed, elsewhere] {
        assert_eq!(
            Join::open(&join, &invite, at(NOON)).err(),
            Some(PairingError::Unauthentic)
        );
    }
}

#[test]
fn an_invite_that_has_expired_takes_nobody() {
    let Run { invite, join, .. } = run();
    assert!(Join::open(&join, &invite, at(invite.expires.millis() - 1)).is_ok());
    assert_eq!(
        Join::open(&join, &invite, invite.expires).err(),
        Some(PairingError::Expired)
    );
}

#[test]
fn a_device_cannot_reveal_another_nonce_than_it_committed_to() {
    let Run { invite, challenge, .. } = run();
    let other = Reveal { nonce: GATE_NONCE }.seal(&invite, &challenge).unwrap();
    assert_eq!(
        Reveal::open(&other, &invite, &join(), &challenge).err(),
        Some(PairingError::OtherPairing)
    );
}

#[test]
fn no_step_is_taken_over_from_another_pairing() {
    let Run {
        invite,
        join,
        challenge,
        reveal,
        answer,
    } = run();
    let mut second = self::join();
    second.address = address(0x60);
    let second = second.seal(&invite).unwrap();
    let other = Some(PairingError::OtherPairing);
    assert_eq!(Challenge::open(&challenge, &invite, &second).err(), other);
    let mixed = Challenge {
        nonce: [9; 16],
        address: address(0x55),
    }
    .seal(&invite, &join)
    .unwrap();
    assert_eq!(Reveal::open(&reveal, &invite, &self::join(), &mixed).err(), other);
    assert_eq!(Answer::open(&answer, &invite, &challenge).err(), other);
    // A message reflected to its sender isn't what the sender waits for.
    assert_eq!(Challenge::open(&join, &invite, &join).err(), other);
    assert_eq!(Answer::open(&reveal, &invite, &reveal).err(), other);
}

#[test]
fn the_code_hangs_on_both_messages_and_the_nonce() {
    let Run { join, challenge, .. } = run();
    let code = short_code(&join, &challenge, &DEVICE_NONCE);
    assert_ne!(code, short_code(&challenge, &challenge, &DEVICE_NONCE));
    assert_ne!(code, short_code(&join, &join, &DEVICE_NONCE));
    assert_ne!(code, short_code(&join, &challenge, &GATE_NONCE));
}

#[test]
fn the_code_is_two_times_three_digits() {
    assert_eq!(ShortCode(0).to_string(), "000 000");
    assert_eq!(ShortCode(1_020).to_string(), "001 020");
    assert_eq!(ShortCode(999_999).to_string(), "999 999");
}

#[test]
fn fields_behind_a_good_mac_are_still_checked() {
    let Run { invite, join, .. } = run();
    let body = &join[..join.len() - MAC_BYTES];
    let longer = under_mac(&invite, &[body, &[0]].concat());
    assert_eq!(
        Join::open(&longer, &invite, at(NOON)).err(),
        Some(PairingError::Malformed)
    );
    let shorter = under_mac(&invite, &body[..body.len() - 1]);
    assert_eq!(
        Join::open(&shorter, &invite, at(NOON)).err(),
        Some(PairingError::Malformed)
    );
    let mut forged = body.to_vec();
    forged[100] ^= 1;
    assert!(matches!(
        Join::open(&under_mac(&invite, &forged), &invite, at(NOON)),
        Err(PairingError::Device(_))
    ));
}

#[test]
fn a_certificate_must_be_a_devices() {
    let invite = invite();
    let mut bytes = Writer::default();
    bytes.u8(JOIN).var16(genesis().signed().as_bytes()).unwrap();
    let join = under_mac(&invite, bytes.written());
    assert_eq!(
        Join::open(&join, &invite, at(NOON)).err(),
        Some(PairingError::Malformed)
    );
}

#[test]
fn too_much_is_not_sealed() {
    let mut join = join();
    join.key_package = vec![0; 65_536];
    assert_eq!(join.seal(&invite()).err(), Some(PairingError::TooLarge));
    join.key_package = vec![0; PAIRING_BYTES];
    assert_eq!(join.seal(&invite()).err(), Some(PairingError::TooLarge));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>, kind in 1u8..5) {
        let invite = invite();
        let behind = under_mac(&invite, &[&[kind], bytes.as_slice()].concat());
        for bytes in [&bytes, &behind] {
            prop_assert!(Join::open(bytes, &invite, at(NOON)).is_err());
            prop_assert!(Challenge::open(bytes, &invite, b"").is_err());
            prop_assert!(Reveal::open(bytes, &invite, &join(), b"").is_err());
            prop_assert!(Answer::open(bytes, &invite, b"").is_err());
        }
    }
}
