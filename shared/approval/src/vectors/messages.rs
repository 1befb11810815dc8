//! `messages.json`: channel messages, in hex (PROTOCOL.md 12). Not here: pairing messages (`pairings`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::{bad, frozen, hex, text, unhex};
use crate::change::Change;
use crate::decision::Answer;
use crate::message::{Message, MessageError, RefusalCode};
use crate::sample::*;
use crate::scalar::{Id16, Text};

fn good(name: &str, message: &Message) -> Value {
    json!({"name": name, "input": hex(&message.encode().unwrap()), "expect": "ok"})
}

fn made() -> Value {
    let request = request(&team());
    let decision = decision(ALICE, &request, Answer::Approve).signed().clone();
    let given = granting(ALICE, &request, &terms());
    let revocation = revocation(BOB, &grant(&team(), &request, &[given], &terms()))
        .signed()
        .clone();
    let entries = vec![
        genesis().signed().clone(),
        team().signed().clone(),
        request.signed().clone(),
    ];
    let propose = |change| Message::Propose {
        id: Id16([4; 16]),
        change,
    };
    let refusal = Message::Refusal {
        about: request.digest(),
        code: RefusalCode::NotOpen,
        text: Text::cut("too late"),
    };
    let ack = Message::Ack {
        epoch: 1,
        checkpoint: Some(checkpoint(3)),
    };
    let bare = Message::Entries {
        first: 3,
        checkpoint: checkpoint(3),
        leaves: Vec::new(),
    };
    let (ack_bytes, refusal_bytes) = (ack.encode().unwrap(), refusal.encode().unwrap());
    let flawed = |name: &str, bytes: &[u8]| bad(name, hex(bytes), "malformed");
    let mut no_code = refusal_bytes.clone();
    no_code[33] = 7;
    let mut ack_cut = ack_bytes.clone();
    ack_cut.pop();
    let mut more_than_there_is = bare.encode().unwrap();
    *more_than_there_is.last_mut().unwrap() = 1;
    vec![
        good(
            "entries",
            &Message::Entries {
                first: 0,
                checkpoint: checkpoint(3),
                leaves: entries,
            },
        ),
        good("entries_bare_head", &bare),
        good("decision", &Message::Decision(decision)),
        good("ack", &ack),
        good(
            "ack_of_nothing",
            &Message::Ack {
                epoch: 1,
                checkpoint: None,
            },
        ),
        good("refusal", &refusal),
        good(
            "propose_remove_person",
            &propose(Change::RemovePerson("bob".parse().unwrap())),
        ),
        good(
            "propose_remove_device",
            &propose(Change::RemoveDevice(identity(ALICES_PHONE).party())),
        ),
        good("propose_policy", &propose(Change::Policy(Some(policy())))),
        good("propose_no_policy", &propose(Change::Policy(None))),
        good("revocation", &Message::Revocation(revocation)),
        good("propose_quorum", &propose(Change::Quorum(quorum(1, 2)))),
        good(
            "address",
            &Message::Address {
                envelope_key: address(9).envelope_key,
            },
        ),
        flawed("empty", b""),
        flawed("kind_0", &[0]),
        flawed("kind_8", &[8]),
        flawed("revocation_without_a_statement", &[7]),
        flawed("ack_cut_short", &ack_bytes[..ack_bytes.len() - 1]),
        flawed("ack_with_trailing_byte", &[ack_bytes.as_slice(), &[0]].concat()),
        flawed("ack_cut_in_its_checkpoint", &ack_cut),
        flawed("refusal_with_unknown_code", &no_code),
        flawed("entries_count_beyond_the_leaves", &more_than_there_is),
        flawed(
            "propose_unknown_change",
            &[&[5], &[4; 16][..], &[0, 15], br#"{"add":"alice"}"#].concat(),
        ),
        flawed("propose_a_policy_that_is_none", &{
            let change = br#"{"policy":"mode = 1"}"#;
            [&[5], &[4; 16][..], &[0, change.len() as u8], change].concat()
        }),
        flawed(
            "propose_two_changes",
            &[
                &[5],
                &[4; 16][..],
                &[0, 43],
                br#"{"remove_person":"a","remove_person":"bcd"}"#,
            ]
            .concat(),
        ),
        flawed("address_of_zeros", &[&[6], &[0; 32][..]].concat()),
        bad(
            "decision_not_a_statement",
            hex(&[&[2], &[0, 0, 0, 2][..], b"{}"].concat()),
            "statement",
        ),
    ]
    .into()
}

#[test]
fn every_message_is_read_or_refused_as_frozen() {
    for vector in frozen("messages.json", &made()).as_array().unwrap() {
        let bytes = unhex(text(vector, "input"));
        let found = match Message::decode(&bytes) {
            Ok(message) => {
                assert_eq!(message.encode().unwrap(), bytes);
                "ok"
            }
            Err(MessageError::Malformed) => "malformed",
            Err(MessageError::TooLarge) => "too_large",
            Err(MessageError::Statement(_)) => "statement",
        };
        assert_eq!(found, text(vector, "expect"), "{}", vector["name"]);
    }
}
