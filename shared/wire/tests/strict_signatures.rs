//! Signatures at the edges of Ed25519, where libraries disagree: other people's vectors, judged by our one strict rule
//! (`PROTOCOL.md`, section 2).
//!
//! An auditor must come to the same answer as the gate did. So what some verifier somewhere refuses is refused here, and
//! what must be accepted is named too: a verifier that refuses everything would pass the rest.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod vectors;

use std::collections::BTreeSet;

use serde::Deserialize;
use vectors::Hex;
use wire::identity::PartyId;
use wire::mailbox::MailboxId;

/// What identities and mailboxes say about a signature; they must never disagree.
fn accepts(key: &Hex, message: &[u8], signature: &Hex) -> bool {
    // A signature of another length can't even be said to `verify`.
    let Ok(signature) = <[u8; 64]>::try_from(signature.0.as_slice()) else {
        return false;
    };
    let Ok(key) = <[u8; 32]>::try_from(key.0.as_slice()) else {
        return false;
    };
    let party = PartyId::from_bytes(key).is_ok_and(|key| key.verify(message, &signature).is_ok());
    let mailbox = MailboxId::from_bytes(key).is_ok_and(|key| key.verify(message, &signature).is_ok());
    assert_eq!(party, mailbox);
    party
}

#[derive(Deserialize)]
struct Cctv {
    number: usize,
    key: Hex,
    sig: Hex,
    msg: String,
    flags: Option<BTreeSet<String>>,
}

#[test]
fn cctv_only_components_of_low_order_that_cancel_out_are_accepted() {
    let vectors: Vec<Cctv> = vectors::read("ed25519/cctv.json");
    assert_eq!(vectors.len(), 914);
    // A low-order component can't be seen from outside without a full-order check; with an exact, cofactorless equation
    // every verifier gives the same answer about it all the same.
    let allowed = ["low_order_component_A", "low_order_component_R"];
    let mut accepted = 0;
    for vector in vectors {
        let flags = vector.flags.unwrap_or_default();
        let expected = flags.iter().all(|flag| allowed.contains(&flag.as_str()));
        let got = accepts(&vector.key, vector.msg.as_bytes(), &vector.sig);
        assert_eq!(got, expected, "number {} {flags:?}", vector.number);
        accepted += usize::from(got);
    }
    assert_eq!(accepted, 43);
}

#[test]
fn cctv_keys_of_low_order_or_not_canonical_never_become_parties() {
    let vectors: Vec<Cctv> = vectors::read("ed25519/cctv.json");
    let unusable = ["low_order_A", "non_canonical_A"];
    for vector in vectors {
        let flags = vector.flags.unwrap_or_default();
        let expected = !flags.iter().any(|flag| unusable.contains(&flag.as_str()));
        let got = PartyId::from_bytes(vector.key.array()).is_ok();
        assert_eq!(got, expected, "number {} {flags:?}", vector.number);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wycheproof {
    number_of_tests: usize,
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    public_key: GroupKey,
    tests: Vec<Case>,
}

#[derive(Deserialize)]
struct GroupKey {
    pk: Hex,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Case {
    tc_id: usize,
    msg: Hex,
    sig: Hex,
    result: String,
}

#[test]
fn wycheproof_is_judged_as_its_authors_judge() {
    let vectors: Wycheproof = vectors::read("ed25519/wycheproof.json");
    let mut seen = 0;
    for group in vectors.test_groups {
        for case in group.tests {
            let got = accepts(&group.public_key.pk, &case.msg.0, &case.sig);
            let expected = match case.result.as_str() {
                "valid" => true,
                "invalid" => false,
                other => panic!("test {}: unknown result {other}", case.tc_id),
            };
            assert_eq!(got, expected, "test {}", case.tc_id);
            seen += 1;
        }
    }
    assert_eq!((seen, vectors.number_of_tests), (151, 151));
}

#[derive(Deserialize)]
struct Speccheck {
    message: Hex,
    pub_key: Hex,
    signature: Hex,
}

#[test]
fn speccheck_only_case_3_is_accepted() {
    let cases: Vec<Speccheck> = vectors::read("ed25519/speccheck.json");
    assert_eq!(cases.len(), 12);
    for (number, case) in cases.iter().enumerate() {
        // 0 to 2: small A or R; 4 and 5: only with the cofactor; 6 and 7: S too large; 8 to 11: not canonical.
        let got = accepts(&case.pub_key, &case.message.0, &case.signature);
        assert_eq!(got, number == 3, "case {number}");
    }
}

#[test]
fn no_bit_of_a_signature_is_free() {
    let identity = wire::identity::Identity::from_bytes(&[7; 32]);
    let signature = identity.sign(b"DSSEv1 ");
    for bit in 0..512 {
        let mut flipped = signature;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(identity.party().verify(b"DSSEv1 ", &flipped).is_err(), "bit {bit}");
    }
}
