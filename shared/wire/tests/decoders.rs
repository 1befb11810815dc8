//! Whatever bytes come in, a decoder answers and never panics; and what it takes, it gives back unchanged.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use wire::envelope::{Envelope, EnvelopeKey, EnvelopeSecret, open, open_any};
use wire::identity::{Identity, PartyId};
use wire::mailbox::{MailboxId, MailboxKey};

/// Text that looks like a key from afar: the prefixes and alphabet of bech32, in any case, with strays.
fn near_texts() -> impl Strategy<Value = String> {
    let prefix = prop::sample::select(vec![
        "csid1",
        "csbox1",
        "csenv1",
        "CSID-SECRET-1",
        "CSBOX-SECRET-1",
        "CSENV-SECRET-1",
        "",
        "1",
        "csid-secret-1",
    ]);
    let data = "[02-9ac-hj-np-z]{0,70}|[02-9AC-HJ-NP-Z]{0,70}|\\PC{0,70}|[ -~]{0,2000}";
    (prefix, data).prop_map(|(prefix, data)| format!("{prefix}{data}"))
}

/// The text put through every decoder, and what each that took it writes.
fn decoded(text: &str) -> Vec<String> {
    let public = [
        text.parse::<PartyId>().ok().map(|key| key.to_string()),
        text.parse::<MailboxId>().ok().map(|key| key.to_string()),
        text.parse::<EnvelopeKey>().ok().map(|key| key.to_string()),
    ];
    let secret = [
        Identity::from_text(text).ok().map(|key| key.to_text()),
        MailboxKey::from_text(text).ok().map(|key| key.to_text()),
        EnvelopeSecret::from_text(text).ok().map(|key| key.to_text()),
    ];
    let secret = secret.into_iter().flatten().map(|text| text.to_string());
    public.into_iter().flatten().chain(secret).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn texts(text in near_texts()) {
        for again in decoded(&text) {
            prop_assert_eq!(again.as_str(), text.as_str());
        }
    }

    #[test]
    fn json(text in "\\PC{0,100}", bytes: Vec<u8>) {
        let _ = serde_json::from_str::<PartyId>(&text).is_ok();
        let _ = serde_json::from_value::<MailboxId>(text.into()).is_ok();
        let _ = serde_json::from_slice::<EnvelopeKey>(&bytes).is_ok();
    }

    #[test]
    fn public_keys_and_signatures(key: [u8; 32], message: Vec<u8>, signature: [[u8; 32]; 2]) {
        let signature = signature.concat().try_into().unwrap();
        if let Ok(party) = PartyId::from_bytes(key) {
            prop_assert_eq!(party.as_bytes(), &key);
            prop_assert_eq!(party.to_string().parse(), Ok(party));
            prop_assert!(party.verify(&message, &signature).is_err());
        }
        prop_assert_eq!(MailboxId::from_bytes(key).is_ok(), PartyId::from_bytes(key).is_ok());
        if let Ok(key) = EnvelopeKey::from_bytes(key) {
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn envelopes(length in prop::sample::select(vec![0, 1, 31, 32, 47, 48, 1023, 1024, 1025, 2048, 4096]), byte: u8, noise: Vec<u8>) {
        let mut bytes = noise;
        bytes.resize(length, byte);
        let envelope = Envelope::from_bytes(Bytes::from(bytes));
        prop_assert_eq!(envelope.is_ok(), [1024, 2048, 4096].contains(&length));
        if let Ok(envelope) = envelope {
            let secret = EnvelopeSecret::from_bytes(&[1; 32]);
            let mailbox = MailboxKey::from_bytes(&[2; 32]).id();
            prop_assert!(open(&secret, &mailbox, &envelope).is_err());
            prop_assert!(open_any(&[&secret, &secret], &mailbox, &envelope).is_err());
        }
    }
}
