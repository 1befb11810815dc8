//! Signing, reading and refusing statements (PROTOCOL.md 7). Not here: the frozen vectors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

use crate::sample::*;
use proptest::prelude::*;

fn request_text() -> String {
    request(&team()).signed().as_str().to_owned()
}

fn verify(text: &str) -> Result<Verified<Statement>, StatementError> {
    Signed::parse(text.as_bytes())?.verify()
}

#[test]
fn what_is_signed_is_verified_as_it_was_sent() {
    let sent = request(&team());
    let received = verify(sent.signed().as_str()).unwrap();
    assert_eq!(received.signed().as_bytes(), sent.signed().as_bytes());
    assert_eq!(
        (received.signer(), received.digest()),
        (identity(GATE).party(), sent.digest())
    );
    assert_eq!(received.signed().digest(), sent.digest());
    assert_eq!(received.request().unwrap().get(), sent.get());
    assert!(received.decision().is_none());
    assert_eq!(Verified::<Statement>::from(sent), received);
}

#[test]
fn it_is_the_dsse_that_others_write() {
    let sent = request(&team());
    assert_eq!(
        dsse(GATE, "request", payload_of(&sent).as_bytes()),
        sent.signed().as_str()
    );
}

#[test]
fn no_byte_can_be_changed_left_out_or_added() {
    let text = device(ALICE).signed().as_str().to_owned();
    for index in 0..text.len() {
        let mut flipped = text.clone().into_bytes();
        flipped[index] ^= 1;
        assert!(
            Signed::parse(&flipped).and_then(|signed| signed.verify()).is_err(),
            "flipped {index}"
        );
        let cut = [&text[..index], &text[index + 1..]].concat();
        assert!(verify(&cut).is_err(), "cut {index}");
    }
    let keyid = identity(ALICE).party().to_string();
    for bad in [
        format!("{text}\n"),
        format!(" {text}"),
        text.replace(",\"", ", \""),
        // The same key in bech32's other case.
        text.replace(&keyid, &keyid.to_uppercase()),
    ] {
        assert!(matches!(verify(&bad), Err(StatementError::Spelling(_))));
    }
}

#[test]
fn a_stranger_cannot_speak_for_the_gate() {
    let payload = payload_of(&request(&team()));
    let forged = dsse(STRANGER, "request", payload.as_bytes());
    assert_eq!(verify(&forged), Err(StatementError::Signer));
    let (gate, stranger) = (
        identity(GATE).party().to_string(),
        identity(STRANGER).party().to_string(),
    );
    assert_eq!(
        verify(&forged.replace(&stranger, &gate)),
        Err(StatementError::Signature)
    );
}

#[test]
fn a_device_speaks_for_itself_alone() {
    let payload = payload_of(&device(ALICE));
    assert_eq!(
        verify(&dsse(BOB, "device", payload.as_bytes())),
        Err(StatementError::Signer)
    );
    assert_eq!(
        sign(&identity(BOB), device(ALICE).get().clone()),
        Err(StatementError::Signer)
    );
}

#[test]
fn a_payload_is_read_as_the_kind_that_was_signed() {
    let text = request_text();
    assert_eq!(
        verify(&text.replace(".request+", ".decision+")),
        Err(StatementError::Signature)
    );
    let payload = payload_of(&request(&team()));
    assert!(matches!(
        verify(&dsse(GATE, "decision", payload.as_bytes())),
        Err(StatementError::Payload(_))
    ));
    assert_eq!(
        verify(&dsse(GATE, "invoice", payload.as_bytes())),
        Err(StatementError::Kind)
    );
}

#[test]
fn a_payload_error_shows_nothing_of_the_sender_but_printable_ascii() {
    let long = format!("{{\"{}\":1}}", "x".repeat(500));
    for payload in [
        "{\"\u{1b}]0;owned\u{7}\u{202e}\":1}",
        // Spelled out in JSON it is a name like any other, and quoted.
        r#"{"\u001b]0;owned\u0007\u202e\u0061":1}"#,
        "{\"\u{202e}\u{e9}owned\":1}",
        &long,
    ] {
        let Err(StatementError::Payload(words)) = verify(&dsse(STRANGER, "device", payload.as_bytes())) else {
            panic!("taken")
        };
        assert!(
            words.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && words.len() <= 200,
            "{words}"
        );
    }
}

#[test]
fn the_bounds_are_exact() {
    let padded = |length: usize| {
        let payload = payload_of(&device(ALICE));
        let fill = " ".repeat(length - payload.len());
        verify(&dsse(ALICE, "device", format!("{payload}{fill}").as_bytes()))
    };
    assert!(padded(PAYLOAD_BYTES).is_ok());
    assert_eq!(padded(PAYLOAD_BYTES + 1), Err(StatementError::TooLarge));
    assert!(matches!(
        Signed::parse(&vec![b'{'; SIGNED_BYTES]),
        Err(StatementError::Spelling(_))
    ));
    assert_eq!(
        Signed::parse(&vec![b'{'; SIGNED_BYTES + 1]).unwrap_err(),
        StatementError::TooLarge
    );
}

#[test]
fn inside_another_payload_it_keeps_its_text() {
    let signed = device(ALICE).signed().clone();
    let json = serde_json::to_string(&[&signed]).unwrap();
    assert_eq!(json, format!("[{}]", signed.as_str()));
    assert_eq!(serde_json::from_str::<Vec<Signed>>(&json).unwrap(), [signed]);
    assert!(serde_json::from_str::<Vec<Signed>>(&json.replace(":", ": ")).is_err());
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Signed::parse(&bytes);
    }

    #[test]
    fn random_payloads_never_panic(kind in "device|roster|request|decision|permit|outcome", payload: String) {
        prop_assert!(verify(&dsse(GATE, &kind, payload.as_bytes())).is_err());
    }

    #[test]
    fn a_damaged_payload_is_refused_or_read_but_never_panics(at in 0usize..2000, byte: u8) {
        let mut payload = payload_of(&request(&team())).into_bytes();
        let index = at % payload.len();
        payload[index] = byte;
        let _ = verify(&dsse(GATE, "request", &payload));
    }
}
