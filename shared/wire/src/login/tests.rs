//! The frozen logins and names of `tests/vectors/wire/login.json`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/wire/login.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn array<const N: usize>(text: &Value) -> [u8; N] {
    unhex(text).try_into().unwrap()
}

struct Attempt {
    names: Vec<RelayName>,
    version: u16,
    nonce: [u8; 32],
    mailbox: [u8; 32],
    signature: [u8; 64],
}

impl Attempt {
    fn of(vector: &Value) -> Self {
        let names = vector["relay_names"].as_array().unwrap();
        Self {
            names: names
                .iter()
                .map(|name| RelayName::new(name.as_str().unwrap()).unwrap())
                .collect(),
            version: vector["version"].as_u64().unwrap().try_into().unwrap(),
            nonce: array(&vector["nonce"]),
            mailbox: array(&vector["mailbox"]),
            signature: array(&vector["signature"]),
        }
    }

    fn verify(&self) -> Result<MailboxId, LoginRefused> {
        verify(&self.names, self.version, &self.nonce, &self.mailbox, &self.signature)
    }
}

#[test]
fn the_good_logins_are_signed_and_accepted() {
    for vector in vectors()["good"].as_array().unwrap() {
        let attempt = Attempt::of(vector);
        let name = &attempt.names[0];
        let key = MailboxKey::from_bytes(&array(&vector["seed"]));
        assert_eq!(
            signed_bytes(1, name, &attempt.nonce, &attempt.mailbox),
            unhex(&vector["signed"])
        );
        assert_eq!(
            sign(&key, 1, name, &attempt.nonce),
            attempt.signature,
            "{}",
            vector["name"]
        );
        assert_eq!(attempt.verify(), Ok(key.id()), "{}", vector["name"]);
    }
}

#[test]
fn the_bad_logins_are_refused() {
    for vector in vectors()["bad"].as_array().unwrap() {
        assert_eq!(Attempt::of(vector).verify(), Err(LoginRefused), "{}", vector["name"]);
    }
}

#[test]
fn urls_name_the_authority_that_was_dialled() {
    let vectors = vectors();
    for vector in vectors["names"].as_array().unwrap() {
        let url = vector["url"].as_str().unwrap();
        assert_eq!(authority(url).unwrap().as_str(), vector["name"], "{url}");
    }
    for vector in vectors["bad_names"].as_array().unwrap() {
        let url = vector["url"].as_str().unwrap();
        let name = match authority(url).unwrap_err() {
            NameError::Scheme => "scheme",
            NameError::User => "user",
            NameError::Host => "host",
            NameError::Port => "port",
            NameError::TooLong => "too long",
        };
        assert_eq!(name, vector["error"], "{url}");
    }
}

#[test]
fn a_relay_of_several_names_accepts_each_and_no_other() {
    let key = MailboxKey::from_bytes(&[7; 32]);
    let names = ["a.example", "b.example:7447"].map(|name| RelayName::new(name).unwrap());
    let other = RelayName::new("c.example").unwrap();
    let check = |name| verify(&names, 1, &[9; 32], key.id().as_bytes(), &sign(&key, 1, name, &[9; 32]));
    assert!(names.iter().all(|name| check(name).is_ok()));
    assert!(check(&other).is_err());
}

#[test]
fn an_accepted_socket_has_the_name_that_a_client_dials() {
    for (address, url) in [
        ("127.0.0.1:7447", "ws://127.0.0.1:7447"),
        ("[::1]:7447", "ws://[::1]:7447"),
        ("[::ffff:127.0.0.1]:7447", "ws://127.0.0.1:7447"),
    ] {
        assert_eq!(
            RelayName::from_address(address.parse().unwrap()),
            authority(url).unwrap()
        );
    }
}

#[test]
fn a_default_port_that_an_operator_wrote_can_be_left_out() {
    let without = |name| {
        RelayName::new(name)
            .unwrap()
            .without_default_port()
            .map(|name| name.to_string())
    };
    assert_eq!(without("a.example:443").as_deref(), Some("a.example"));
    assert_eq!(without("a.example:80").as_deref(), Some("a.example"));
    assert_eq!(without("a.example:8443"), None);
    assert_eq!(without("a.example"), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_name_or_an_error(text in "\\PC{0,300}") {
        if let Ok(name) = authority(&text) {
            prop_assert!(name.as_str().len() <= RELAY_NAME_BYTES);
            prop_assert_eq!(RelayName::new(name.as_str()).unwrap(), name);
        }
    }

    #[test]
    fn what_looks_like_a_url_has_a_name_that_names_itself(url in "wss?://[a-zA-Z0-9.:@\\[\\]-]{0,20}(:[0-9]{1,6})?/?") {
        if let Ok(name) = authority(&url) {
            prop_assert_eq!(RelayName::new(name.as_str()).unwrap(), name);
        }
    }
}
