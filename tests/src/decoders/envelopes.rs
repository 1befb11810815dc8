//! Envelopes from outside and from inside (PROTOCOL.md 6). Anybody who knows an envelope key can seal what they like to
//! it, so the padding is as much from outside as the envelope.

use bytes::Bytes;
use hpke_rs::hpke_types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm};
use hpke_rs::{Hpke, HpkePublicKey, Mode};
use hpke_rs_rust_crypto::HpkeRustCrypto;
use wire::envelope::{Content, Envelope, EnvelopeSecret, open, open_any};
use wire::label::ENVELOPE;
use wire::limits::{ENVELOPE_BYTES, ENVELOPE_MESSAGE_BYTES, ENVELOPE_SEAL_BYTES};
use wire::mailbox::MailboxId;

/// The reader of `tests/vectors/wire/envelopes.json`.
const SECRET: &str = "ddda4b977f42dff7924d6c692bf0250c698a90c2414c798dec7a28ef8e875378";
const MAILBOX: &str = "3dd30f5e79e58563ef7000b341ee14577ef5568112ad2e94395016105cfb760e";

/// An envelope as it comes from the relay.
pub fn envelope(bytes: &[u8]) -> bool {
    let envelope = Envelope::from_bytes(Bytes::copy_from_slice(bytes));
    assert_eq!(envelope.is_ok(), ENVELOPE_BYTES.contains(&bytes.len()));
    let Ok(envelope) = envelope else { return false };
    assert_eq!(envelope.as_bytes(), bytes);
    let (secret, mailbox) = reader();
    let opened = open(&secret, &mailbox, &envelope);
    assert_eq!(opened, open_any(&[&secret], &mailbox, &envelope));
    assert!(open_any(&[], &mailbox, &envelope).is_err());
    let Ok((_, message)) = opened else { return false };
    assert!(message.len() <= ENVELOPE_MESSAGE_BYTES);
    let elsewhere = super::identity(super::ALICE).party();
    let elsewhere = MailboxId::from_bytes(*elsewhere.as_bytes()).expect("a key");
    assert!(
        open(&secret, &elsewhere, &envelope).is_err(),
        "opens in another mailbox"
    );
    true
}

/// What is inside an envelope, filled up with zeros to the next of the five lengths and sealed by the second
/// implementation of HPKE.
pub fn envelope_inside(bytes: &[u8]) -> bool {
    let Some(length) = ENVELOPE_BYTES
        .into_iter()
        .find(|length| length - ENVELOPE_SEAL_BYTES >= bytes.len())
    else {
        return false;
    };
    let mut plain = bytes.to_vec();
    plain.resize(length - ENVELOPE_SEAL_BYTES, 0);
    let (secret, mailbox) = reader();
    let key = HpkePublicKey::new(secret.key().as_bytes().to_vec());
    let bytes_of_length = u32::try_from(length).expect("one of the five").to_be_bytes();
    let aad = [mailbox.as_bytes().as_slice(), &bytes_of_length].concat();
    let (kem, kdf) = (KemAlgorithm::DhKem25519, KdfAlgorithm::HkdfSha256);
    let mut hpke = Hpke::<HpkeRustCrypto>::new(Mode::Base, kem, kdf, AeadAlgorithm::ChaCha20Poly1305);
    let sealed = hpke.seal(&key, ENVELOPE.as_bytes(), &aad, &plain, None, None, None);
    let (enc, ciphertext) = sealed.expect("HPKE seals");
    let envelope = Envelope::from_bytes([enc, ciphertext].concat().into()).expect("of an envelope's length");
    let Ok((content, message)) = open(&secret, &mailbox, &envelope) else {
        return false;
    };
    let content = match content {
        Content::Mls => 1,
        Content::Pairing => 2,
    };
    let header = u32::try_from(message.len()).expect("at most 64 KiB").to_be_bytes();
    let mut again = [&[content], header.as_slice(), &message].concat();
    let smallest = ENVELOPE_BYTES
        .into_iter()
        .find(|length| length - ENVELOPE_SEAL_BYTES >= again.len());
    assert_eq!(smallest, Some(length), "a longer envelope than its message needs");
    again.resize(plain.len(), 0);
    assert_eq!(again, plain, "a message has one plain text");
    true
}

fn reader() -> (EnvelopeSecret, MailboxId) {
    let mailbox = MailboxId::from_bytes(unhex(MAILBOX)).expect("the vectors' mailbox");
    (EnvelopeSecret::from_bytes(&unhex(SECRET)), mailbox)
}

fn unhex(text: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"))
}
