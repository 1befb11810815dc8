//! Keys and capabilities against the vectors: one text for each key, and no unusable key comes in (`PROTOCOL.md`, 2 and 5).

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod vectors;

use proptest::prelude::*;
use rand_core::OsRng;
use serde::Deserialize;
use vectors::Hex;
use wire::envelope::{EnvelopeKey, EnvelopeSecret};
use wire::identity::{Identity, PartyId};
use wire::key::KeyError;
use wire::mailbox::{Capability, CapabilityHash, MailboxId, MailboxKey};

#[derive(Deserialize)]
struct Keys {
    good: Vec<Good>,
    bad_texts: Vec<BadText>,
    bad_points: Vec<BadPoint>,
}

#[derive(Deserialize)]
struct Good {
    name: String,
    kind: String,
    secret: Hex,
    secret_text: String,
    public: Hex,
    public_text: String,
}

#[derive(Deserialize)]
struct BadText {
    name: String,
    kind: String,
    text: String,
    error: String,
}

#[derive(Deserialize)]
struct BadPoint {
    name: String,
    kind: String,
    public: Hex,
    text: String,
}

/// The public text, the secret text and the public bytes of the key that a seed makes.
fn of_seed(kind: &str, seed: &[u8; 32]) -> (String, String, [u8; 32]) {
    match kind {
        "identity" => {
            let key = Identity::from_bytes(seed);
            (
                key.party().to_string(),
                key.to_text().to_string(),
                *key.party().as_bytes(),
            )
        }
        "mailbox" => {
            let key = MailboxKey::from_bytes(seed);
            (key.id().to_string(), key.to_text().to_string(), *key.id().as_bytes())
        }
        "envelope" => {
            let key = EnvelopeSecret::from_bytes(seed);
            (key.key().to_string(), key.to_text().to_string(), *key.key().as_bytes())
        }
        kind => panic!("unknown kind {kind}"),
    }
}

/// The bytes that a text of a kind decodes to.
fn of_text(kind: &str, text: &str) -> Result<[u8; 32], KeyError> {
    match kind {
        "identity" => text.parse().map(|key: PartyId| *key.as_bytes()),
        "identity secret" => Identity::from_text(text).map(|key| *key.to_bytes()),
        "mailbox" => text.parse().map(|key: MailboxId| *key.as_bytes()),
        "mailbox secret" => MailboxKey::from_text(text).map(|key| *key.to_bytes()),
        "envelope" => text.parse().map(|key: EnvelopeKey| *key.as_bytes()),
        "envelope secret" => EnvelopeSecret::from_text(text).map(|key| *key.to_bytes()),
        kind => panic!("unknown kind {kind}"),
    }
}

/// What taking public key bytes says.
fn of_public(kind: &str, bytes: [u8; 32]) -> Result<[u8; 32], KeyError> {
    match kind {
        "identity" => PartyId::from_bytes(bytes).map(|key| *key.as_bytes()),
        "mailbox" => MailboxId::from_bytes(bytes).map(|key| *key.as_bytes()),
        "envelope" => EnvelopeKey::from_bytes(bytes).map(|key| *key.as_bytes()),
        kind => panic!("unknown kind {kind}"),
    }
}

#[test]
fn good_keys_have_the_texts_of_the_vectors() {
    let keys: Keys = vectors::read("keys.json");
    assert_eq!(keys.good.len(), 6);
    for key in keys.good {
        let (public_text, secret_text, public) = of_seed(&key.kind, &key.secret.array());
        assert_eq!(public_text, key.public_text, "{}", key.name);
        assert_eq!(secret_text, key.secret_text, "{}", key.name);
        assert_eq!(public, key.public.array(), "{}", key.name);
        assert_eq!(of_text(&key.kind, &key.public_text), Ok(public), "{}", key.name);
        assert_eq!(of_public(&key.kind, public), Ok(public), "{}", key.name);
        let secret = of_text(&format!("{} secret", key.kind), &key.secret_text);
        assert_eq!(secret, Ok(key.secret.array()), "{}", key.name);
    }
}

#[test]
fn bad_texts_are_refused_for_their_flaw() {
    let keys: Keys = vectors::read("keys.json");
    assert!(keys.bad_texts.len() >= 70);
    for bad in keys.bad_texts {
        let error = of_text(&bad.kind, &bad.text).unwrap_err();
        match bad.error.as_str() {
            "text" => assert_eq!(error, KeyError::Text, "{}", bad.name),
            "kind" => assert!(matches!(error, KeyError::Kind { .. }), "{}", bad.name),
            other => panic!("{}: unknown error {other}", bad.name),
        }
    }
}

#[test]
fn public_keys_that_no_honest_party_has_are_refused() {
    let keys: Keys = vectors::read("keys.json");
    assert!(keys.bad_points.len() >= 70);
    for bad in keys.bad_points {
        let refused = Err(KeyError::Point);
        assert_eq!(of_public(&bad.kind, bad.public.array()), refused, "{}", bad.name);
        assert_eq!(of_text(&bad.kind, &bad.text), refused, "{}", bad.name);
    }
}

#[test]
fn an_error_about_a_secret_holds_none_of_it() {
    let text = Identity::generate(&mut OsRng).to_text();
    let error = text.parse::<PartyId>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "a key of another kind: expected one that starts with csid1"
    );
    assert!(!format!("{error:?}").contains("SECRET"));
}

#[test]
fn public_keys_are_strings_in_json() {
    let party = Identity::from_bytes(&[7; 32]).party();
    let json = serde_json::to_string(&party).unwrap();
    assert_eq!(json, format!("\"{party}\""));
    assert_eq!(serde_json::from_str::<PartyId>(&json).unwrap(), party);
    // A string with an escape can't be borrowed, but is the same text.
    assert_eq!(
        serde_json::from_str::<PartyId>(&json.replace("cs", "c\\u0073")).unwrap(),
        party
    );
    assert!(serde_json::from_str::<PartyId>(&json.to_uppercase()).is_err());
    assert!(serde_json::from_str::<MailboxId>(&json).is_err());
    assert!(serde_json::from_str::<EnvelopeKey>("[1,2,3]").is_err());
}

#[test]
fn logs_get_short_forms() {
    let party = Identity::from_bytes(&[7; 32]).party();
    assert_eq!(format!("{party:?}"), party.short());
    assert!(party.to_string().starts_with(&party.short()));
    assert_eq!(party.short().len(), "csid1".len() + 8);
    assert_eq!(format!("{:?}", CapabilityHash::from_bytes([0xab; 32])), "abababababab");
}

#[derive(Deserialize)]
struct CapabilityVector {
    name: String,
    capability: Hex,
    hash: Hex,
}

#[test]
fn the_relay_keeps_the_labelled_hash_of_a_capability() {
    let vectors: Vec<CapabilityVector> = vectors::read("capabilities.json");
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let capability = Capability::from_bytes(&vector.capability.array());
        assert_eq!(*capability.hash().as_bytes(), vector.hash.array(), "{}", vector.name);
    }
}

#[test]
fn capabilities_are_equal_only_if_all_their_bytes_are() {
    let drawn = Capability::generate(&mut OsRng);
    let again = Capability::from_bytes(&drawn.to_bytes());
    assert!(drawn == again);
    for at in 0..32 {
        let mut bytes = *drawn.to_bytes();
        bytes[at] ^= 1;
        assert!(drawn != Capability::from_bytes(&bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_seed_has_one_text_and_comes_back(seed: [u8; 32]) {
        for kind in ["identity", "mailbox", "envelope"] {
            let (public_text, secret_text, public) = of_seed(kind, &seed);
            prop_assert_eq!(of_text(kind, &public_text), Ok(public));
            prop_assert_eq!(of_text(&format!("{kind} secret"), &secret_text), Ok(seed));
            prop_assert!(public_text.len() <= 90 && secret_text.len() <= 90);
        }
    }

    #[test]
    fn a_text_with_one_character_changed_is_no_key(seed: [u8; 32], at in 0_usize..63, to in "[ -~]") {
        let text = Identity::from_bytes(&seed).party().to_string();
        let mut changed = text.clone();
        changed.replace_range(at..=at, &to);
        prop_assert_eq!(changed.parse::<PartyId>().is_ok(), changed == text);
    }

    #[test]
    fn what_an_identity_signs_only_that_identity_signed(seed: [u8; 32], message: Vec<u8>, other: [u8; 32]) {
        let identity = Identity::from_bytes(&seed);
        let signature = identity.sign(&message);
        prop_assert!(identity.party().verify(&message, &signature).is_ok());
        let longer = [message.as_slice(), &[0]].concat();
        prop_assert!(identity.party().verify(&longer, &signature).is_err());
        prop_assume!(seed != other);
        prop_assert!(Identity::from_bytes(&other).party().verify(&message, &signature).is_err());
    }
}
