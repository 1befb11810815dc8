//! `links.json` and `pairings.json`: invites with what is derived from them, one whole pairing in hex, and what must
//! not continue it (PROTOCOL.md 13). Not here: the group that the device then joins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::Digest as _;

use super::{bad, frozen, hex, text, unhex};
use crate::invite::{Invite, InviteError, InviteSecret};
use crate::pairing::{Answer, Challenge, Join, Pairing, PairingError, Reveal, short_code};
use crate::roster::Role;
use crate::sample::*;
use crate::scalar::Text;

fn derived(name: &str, invite: &Invite) -> Value {
    json!({
        "name": name,
        "input": invite.link().as_str(),
        "expect": "ok",
        "role": invite.role,
        "expires": invite.expires,
        "secret": hex(invite.secret.as_bytes()),
        "gate": invite.gate,
        "mailbox": invite.mailbox,
        "envelope_key": invite.envelope_key,
        "person": invite.person,
        "relay": invite.relay,
        "capability": hex(&*invite.capability().to_bytes()),
        "mac_key": hex(&*invite.mac_key()),
    })
}

/// The link around the good one's fields after `edit`, with a right sum.
fn resummed(edit: impl FnOnce(&mut Vec<u8>)) -> String {
    let link = invite().link();
    let mut bytes = URL_SAFE_NO_PAD.decode(link.split_at(13).1).unwrap();
    bytes.truncate(bytes.len() - 4);
    edit(&mut bytes);
    let sum = sha2::Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum[..4]);
    format!("countersign:1{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn links() -> Value {
    let link = invite().link().to_string();
    let malformed = |name: &str, link: String| bad(name, link, "malformed");
    vec![
        derived("admin", &invite()),
        derived(
            "auditor",
            &Invite {
                role: Role::Auditor,
                person: "dora".parse().unwrap(),
                ..invite()
            },
        ),
        bad("mistyped", link.replacen("UVFR", "UVFS", 1), "damaged"),
        malformed("of_version_2", link.replacen(":1", ":2", 1)),
        malformed("with_padding", format!("{link}=")),
        malformed("with_a_space_before", format!(" {link}")),
        malformed("empty", String::new()),
        malformed("of_1025_bytes", format!("{link}{}", "A".repeat(1025 - link.len()))),
        malformed("role_0", resummed(|bytes| bytes[0] = 0)),
        malformed("role_3", resummed(|bytes| bytes[0] = 3)),
        malformed("expires_beyond_2_53", resummed(|bytes| bytes[1..9].fill(0xff))),
        malformed("gate_of_small_order", resummed(|bytes| bytes[25..57].fill(0))),
        malformed("mailbox_of_small_order", resummed(|bytes| bytes[57..89].fill(0))),
        malformed("person_in_upper_case", resummed(|bytes| bytes[122] = b'A')),
        malformed("person_longer_than_the_link", resummed(|bytes| bytes[121] = 0xff)),
        malformed("trailing_bytes", resummed(|bytes| bytes.push(0))),
    ]
    .into()
}

#[test]
fn every_link_is_read_or_refused_as_frozen() {
    for vector in frozen("links.json", &links()).as_array().unwrap() {
        match Invite::parse(text(vector, "input")) {
            Ok(invite) => assert_eq!(derived(text(vector, "name"), &invite), *vector),
            Err(InviteError::Malformed) => assert_eq!(text(vector, "expect"), "malformed", "{vector}"),
            Err(InviteError::Damaged) => assert_eq!(text(vector, "expect"), "damaged", "{vector}"),
        }
    }
}

fn pairing() -> Value {
    let invite = invite();
    let join = join().seal(&invite).unwrap();
    let challenge = Challenge {
        nonce: GATE_NONCE,
        address: address(0x55),
    }
    .seal(&invite, &join)
    .unwrap();
    let reveal = Reveal { nonce: DEVICE_NONCE }.seal(&invite, &challenge).unwrap();
    let answer = Answer {
        verdict: Pairing::Confirmed,
        text: Text::cut("welcome"),
    }
    .seal(&invite, &reveal)
    .unwrap();

    let guessed = Invite {
        secret: InviteSecret::from_bytes([0; 16]),
        ..invite.clone()
    };
    let elsewhere = Invite {
        gate: identity(OTHER_GATE).party(),
        ..invite.clone()
    };
    let mut flipped = join.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let other_nonce = Reveal { nonce: GATE_NONCE }.seal(&invite, &challenge).unwrap();
    let other_join = Challenge {
        nonce: GATE_NONCE,
        address: address(0x55),
    }
    .seal(&invite, b"another join")
    .unwrap();
    let other_reveal = Answer {
        verdict: Pairing::Confirmed,
        text: Text::default(),
    }
    .seal(&invite, b"another reveal")
    .unwrap();
    let wrong = |name: &str, step: &str, input: &[u8], expect: &str| json!({"name": name, "step": step, "input": hex(input), "expect": expect});
    json!({
        "link": invite.link().as_str(),
        "now": NOON,
        "device_nonce": hex(&DEVICE_NONCE),
        "gate_nonce": hex(&GATE_NONCE),
        "join": hex(&join),
        "challenge": hex(&challenge),
        "reveal": hex(&reveal),
        "answer": hex(&answer),
        "code": short_code(&join, &challenge, &DEVICE_NONCE).to_string(),
        "bad": [
            wrong("join_under_another_secret", "join", &join_under(&guessed), "unauthentic"),
            wrong("join_for_another_gate", "join", &join_under(&elsewhere), "unauthentic"),
            wrong("join_with_flipped_mac", "join", &flipped, "unauthentic"),
            wrong("join_empty", "join", b"", "unauthentic"),
            wrong("join_that_is_a_reveal", "join", &reveal, "other_pairing"),
            wrong("challenge_to_another_join", "challenge", &other_join, "other_pairing"),
            wrong("challenge_that_is_the_join", "challenge", &join, "other_pairing"),
            wrong("reveal_of_another_nonce", "reveal", &other_nonce, "other_pairing"),
            wrong("answer_to_another_reveal", "answer", &other_reveal, "other_pairing"),
        ],
    })
}

fn join_under(invite: &Invite) -> Vec<u8> {
    join().seal(invite).unwrap()
}

fn error_name(error: &PairingError) -> &'static str {
    match error {
        PairingError::Expired => "expired",
        PairingError::Unauthentic => "unauthentic",
        PairingError::Malformed => "malformed",
        PairingError::Device(_) => "device",
        PairingError::OtherPairing => "other_pairing",
        PairingError::TooLarge => "too_large",
    }
}

#[test]
fn the_pairing_goes_on_only_as_frozen() {
    let frozen = frozen("pairings.json", &pairing());
    let invite = Invite::parse(text(&frozen, "link")).unwrap();
    let bytes = |field: &str| unhex(text(&frozen, field));
    let now = at(frozen["now"].as_u64().unwrap());
    let (join, challenge, reveal) = (bytes("join"), bytes("challenge"), bytes("reveal"));
    let joined = Join::open(&join, &invite, now).unwrap();
    let open = |step: &str, bytes: &[u8]| match step {
        "join" => Join::open(bytes, &invite, now).map(|_| ()),
        "challenge" => Challenge::open(bytes, &invite, &join).map(|_| ()),
        "reveal" => Reveal::open(bytes, &invite, &joined, &challenge).map(|_| ()),
        "answer" => Answer::open(bytes, &invite, &reveal).map(|_| ()),
        other => panic!("{other}"),
    };
    for step in ["join", "challenge", "reveal", "answer"] {
        assert_eq!(open(step, &bytes(step)), Ok(()));
    }
    let revealed = Reveal::open(&reveal, &invite, &joined, &challenge).unwrap();
    assert_eq!(
        short_code(&join, &challenge, &revealed.nonce).to_string(),
        text(&frozen, "code")
    );
    for vector in frozen["bad"].as_array().unwrap() {
        let error = open(text(vector, "step"), &unhex(text(vector, "input"))).unwrap_err();
        assert_eq!(error_name(&error), text(vector, "expect"), "{}", vector["name"]);
    }
}
