//! Keys as text and as bytes (PROTOCOL.md 2).

use bech32::{Bech32, Hrp};
use wire::envelope::{EnvelopeKey, EnvelopeSecret};
use wire::identity::{Identity, PartyId};
use wire::mailbox::{MailboxId, MailboxKey};

/// A key's text, of any kind.
pub fn key_text(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let kinds = written(text);
    for again in &kinds {
        assert_eq!(again, text, "a key has one text");
    }
    assert!(kinds.len() <= 1, "one text, two kinds of key");
    !kinds.is_empty()
}

/// A key's bytes: as they stand in a frame, and as text of every kind with a right checksum.
pub fn key_bytes(bytes: &[u8]) -> bool {
    let key: Option<[u8; 32]> = bytes.try_into().ok();
    let ed25519 = key.is_some_and(|key| PartyId::from_bytes(key).is_ok());
    let x25519 = key.is_some_and(|key| EnvelopeKey::from_bytes(key).is_ok());
    assert_eq!(key.is_some_and(|key| MailboxId::from_bytes(key).is_ok()), ed25519);
    let kinds = [
        ("csid", ed25519),
        ("csbox", ed25519),
        ("csenv", x25519),
        ("CSID-SECRET-", key.is_some()),
        ("CSBOX-SECRET-", key.is_some()),
        ("CSENV-SECRET-", key.is_some()),
    ];
    for (prefix, good) in kinds {
        let hrp = Hrp::parse(prefix).expect("a prefix");
        let text = if prefix.starts_with("CS") {
            bech32::encode_upper::<Bech32>(hrp, bytes)
        } else {
            bech32::encode_lower::<Bech32>(hrp, bytes)
        };
        let Ok(text) = text else { return false };
        assert_eq!(written(&text), if good { vec![text] } else { vec![] }, "{prefix}");
    }
    ed25519 || x25519
}

/// The text put through every decoder, and what each that took it writes.
fn written(text: &str) -> Vec<String> {
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
