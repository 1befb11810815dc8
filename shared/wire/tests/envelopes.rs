//! Envelopes against the vectors and against a second HPKE: every length opens, nothing that was touched does
//! (`PROTOCOL.md`, section 6).

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod vectors;

use bytes::Bytes;
use hpke_rs::hpke_types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm};
use hpke_rs::{Hpke, HpkePrivateKey, HpkePublicKey, Mode};
use hpke_rs_rust_crypto::HpkeRustCrypto;
use proptest::prelude::*;
use rand_core::OsRng;
use serde::Deserialize;
use vectors::Hex;
use wire::envelope::{CannotOpen, Content, Envelope, EnvelopeSecret, NotAnEnvelope, SealError, open, open_any, seal};
use wire::label::ENVELOPE;
use wire::limits::{ENVELOPE_BYTES, ENVELOPE_MESSAGE_BYTES};
use wire::mailbox::{MailboxId, MailboxKey};

#[derive(Deserialize)]
struct Envelopes {
    mailbox: Hex,
    secret: Hex,
    good: Vec<Good>,
    bad: Vec<Bad>,
    not_envelope_lengths: Vec<usize>,
}

#[derive(Deserialize)]
struct Good {
    name: String,
    content: String,
    message_bytes: usize,
    length: usize,
    envelope: Option<Hex>,
    file: Option<String>,
}

#[derive(Deserialize)]
struct Bad {
    name: String,
    undo: String,
    #[serde(default)]
    mailbox: Hex,
    #[serde(default)]
    secret: Hex,
    #[serde(default)]
    at: usize,
    #[serde(default)]
    mask: u8,
    envelope: Hex,
}

/// The mailbox and key that all vectors are for, unless one says otherwise.
struct Reader {
    mailbox: MailboxId,
    secret: EnvelopeSecret,
}

impl Reader {
    fn of(vectors: &Envelopes) -> Self {
        Self {
            mailbox: MailboxId::from_bytes(vectors.mailbox.array()).unwrap(),
            secret: EnvelopeSecret::from_bytes(&vectors.secret.array()),
        }
    }

    fn draw() -> Self {
        Self {
            mailbox: MailboxKey::generate(&mut OsRng).id(),
            secret: EnvelopeSecret::generate(&mut OsRng),
        }
    }

    fn opens(&self, bytes: &[u8]) -> bool {
        open(&self.secret, &self.mailbox, &envelope(bytes)).is_ok()
    }
}

fn envelope(bytes: &[u8]) -> Envelope {
    Envelope::from_bytes(Bytes::copy_from_slice(bytes)).unwrap()
}

fn message(bytes: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(bytes).collect()
}

/// The second implementation: the one that OpenMLS uses.
fn second() -> Hpke<HpkeRustCrypto> {
    let (kem, kdf) = (KemAlgorithm::DhKem25519, KdfAlgorithm::HkdfSha256);
    Hpke::new(Mode::Base, kem, kdf, AeadAlgorithm::ChaCha20Poly1305)
}

fn associated(mailbox: &MailboxId, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).unwrap();
    [mailbox.as_bytes().as_slice(), &length.to_be_bytes()].concat()
}

/// Opens the box with the second implementation, without looking at the padding.
fn open_by_second(reader: &Reader, bytes: &[u8]) -> Option<Vec<u8>> {
    let secret = HpkePrivateKey::new(reader.secret.to_bytes().to_vec());
    let aad = associated(&reader.mailbox, bytes.len());
    let (enc, sealed) = bytes.split_at(32);
    second()
        .open(enc, &secret, ENVELOPE.as_bytes(), &aad, sealed, None, None, None)
        .ok()
}

#[test]
fn good_envelopes_open() {
    let vectors: Envelopes = vectors::read("envelopes.json");
    let reader = Reader::of(&vectors);
    let mut lengths = Vec::new();
    for good in &vectors.good {
        let bytes = match (&good.envelope, &good.file) {
            (Some(hex), None) => hex.0.clone(),
            (None, Some(file)) => vectors::read_bytes(file),
            _ => panic!("{}: neither text nor file", good.name),
        };
        let envelope = envelope(&bytes);
        assert_eq!(envelope.bucket(), good.length, "{}", good.name);
        let (content, opened) = open(&reader.secret, &reader.mailbox, &envelope).unwrap();
        let expected = if good.content == "mls" {
            Content::Mls
        } else {
            Content::Pairing
        };
        assert_eq!(
            (content, &*opened),
            (expected, &message(good.message_bytes)),
            "{}",
            good.name
        );
        assert!(open_by_second(&reader, &bytes).is_some(), "{}", good.name);
        lengths.push(good.length);
    }
    lengths.dedup();
    assert_eq!(lengths, ENVELOPE_BYTES);
}

#[test]
fn bad_envelopes_do_not_open_and_their_flaw_is_the_only_one() {
    let vectors: Envelopes = vectors::read("envelopes.json");
    let reader = Reader::of(&vectors);
    assert!(vectors.bad.len() >= 19);
    for bad in &vectors.bad {
        let bytes = &bad.envelope.0;
        let error = open(&reader.secret, &reader.mailbox, &envelope(bytes)).unwrap_err();
        assert_eq!(error, CannotOpen, "{}", bad.name);
        // Undoing the flaw must open it: otherwise it was refused for something else, and the vector shows nothing.
        let undone = match bad.undo.as_str() {
            "inside" => open_by_second(&reader, bytes).is_some(),
            "mailbox" => {
                let mailbox = MailboxId::from_bytes(bad.mailbox.array()).unwrap();
                open(&reader.secret, &mailbox, &envelope(bytes)).is_ok()
            }
            "secret" => {
                let secret = EnvelopeSecret::from_bytes(&bad.secret.array());
                open(&secret, &reader.mailbox, &envelope(bytes)).is_ok()
            }
            "flip" => {
                let mut bytes = bytes.clone();
                bytes[bad.at] ^= bad.mask;
                reader.opens(&bytes)
            }
            "nothing known" => open_by_second(&reader, bytes).is_none(),
            other => panic!("{}: unknown undo {other}", bad.name),
        };
        assert!(undone, "{}", bad.name);
    }
}

#[test]
fn any_other_length_is_no_envelope() {
    let vectors: Envelopes = vectors::read("envelopes.json");
    for length in vectors.not_envelope_lengths {
        assert_eq!(
            Envelope::from_bytes(vec![0; length].into()),
            Err(NotAnEnvelope),
            "{length}"
        );
    }
}

#[test]
fn the_second_implementation_opens_what_we_seal() {
    let reader = Reader::draw();
    for (size, length) in [(0, 1024), (5000, 16_384), (ENVELOPE_MESSAGE_BYTES, 65_536)] {
        let message = message(size);
        let sealed = seal(
            &reader.secret.key(),
            &reader.mailbox,
            Content::Pairing,
            &message,
            &mut OsRng,
        )
        .unwrap();
        let plain = open_by_second(&reader, sealed.as_bytes()).unwrap();
        let header = [&[2_u8][..], &u32::try_from(size).unwrap().to_be_bytes()].concat();
        assert_eq!(plain.len(), length - 48);
        assert_eq!(plain[..5], header);
        assert_eq!(plain[5..5 + size], message);
        assert!(plain[5 + size..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn we_open_what_the_second_implementation_seals() {
    let reader = Reader::draw();
    let mut plain = vec![1, 0, 0, 0, 3, b'y', b'e', b's'];
    plain.resize(1024 - 48, 0);
    let to = HpkePublicKey::new(reader.secret.key().as_bytes().to_vec());
    let aad = associated(&reader.mailbox, 1024);
    let (enc, sealed) = second()
        .seal(&to, ENVELOPE.as_bytes(), &aad, &plain, None, None, None)
        .unwrap();
    let sealed = envelope(&[enc, sealed].concat());
    let (content, opened) = open(&reader.secret, &reader.mailbox, &sealed).unwrap();
    assert_eq!((content, opened.as_slice()), (Content::Mls, b"yes".as_slice()));
}

#[test]
fn the_smallest_length_that_holds_a_message_is_used() {
    let reader = Reader::draw();
    let mut shortest = 0;
    for length in ENVELOPE_BYTES {
        let longest = length - 53;
        for size in [shortest, longest] {
            let sealed = seal(
                &reader.secret.key(),
                &reader.mailbox,
                Content::Mls,
                &message(size),
                &mut OsRng,
            );
            assert_eq!(sealed.unwrap().bucket(), length, "{size}");
        }
        shortest = longest + 1;
    }
    let bytes = ENVELOPE_MESSAGE_BYTES + 1;
    let sealed = seal(
        &reader.secret.key(),
        &reader.mailbox,
        Content::Mls,
        &message(bytes),
        &mut OsRng,
    );
    assert_eq!(sealed, Err(SealError::TooLong { bytes }));
}

#[test]
fn after_a_rotation_the_previous_key_still_opens_what_is_under_way() {
    let before = Reader::draw();
    let after = EnvelopeSecret::generate(&mut OsRng);
    let stranger = EnvelopeSecret::generate(&mut OsRng);
    for key in [before.secret.key(), after.key()] {
        let sealed = seal(&key, &before.mailbox, Content::Mls, b"hello", &mut OsRng).unwrap();
        let both = open_any(&[&after, &before.secret], &before.mailbox, &sealed);
        assert_eq!(both.unwrap().1.as_slice(), b"hello");
        assert_eq!(open_any(&[&stranger], &before.mailbox, &sealed), Err(CannotOpen));
        assert_eq!(open_any(&[], &before.mailbox, &sealed), Err(CannotOpen));
    }
}

#[test]
fn the_same_message_never_seals_to_the_same_envelope() {
    let reader = Reader::draw();
    let seal = || {
        seal(
            &reader.secret.key(),
            &reader.mailbox,
            Content::Mls,
            b"again",
            &mut OsRng,
        )
    };
    let (first, second) = (seal().unwrap(), seal().unwrap());
    let parts = |sealed: &Envelope| sealed.as_bytes().split_at(32).0.to_vec();
    assert_ne!(parts(&first), parts(&second));
    assert_ne!(first, second);
}

#[test]
fn no_byte_of_a_small_envelope_is_free() {
    let reader = Reader::draw();
    let sealed = seal(&reader.secret.key(), &reader.mailbox, Content::Mls, b"yes", &mut OsRng).unwrap();
    assert!(reader.opens(sealed.as_bytes()));
    for at in 0..sealed.bucket() {
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[at] ^= 0x80;
        assert!(!reader.opens(&bytes), "byte {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_message_comes_back(size in 0..=ENVELOPE_MESSAGE_BYTES, byte: u8, pairing: bool) {
        let reader = Reader::draw();
        let content = if pairing { Content::Pairing } else { Content::Mls };
        let message = vec![byte; size];
        let sealed =
            seal(&reader.secret.key(), &reader.mailbox, content, &message, &mut OsRng).unwrap();
        let carried = envelope(sealed.as_bytes());
        let (got, opened) = open(&reader.secret, &reader.mailbox, &carried).unwrap();
        prop_assert_eq!(got, content);
        prop_assert_eq!(&*opened, &message);
    }

    #[test]
    fn a_touched_envelope_never_opens(
        size in 0..=ENVELOPE_MESSAGE_BYTES,
        at: prop::sample::Index,
        mask in 1_u8..,
    ) {
        let reader = Reader::draw();
        let sealed =
            seal(&reader.secret.key(), &reader.mailbox, Content::Mls, &message(size), &mut OsRng)
                .unwrap();
        let mut bytes = sealed.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        prop_assert!(!reader.opens(&bytes));
    }

    #[test]
    fn a_truncated_or_extended_envelope_never_opens(cut in 0_usize..5, to in 0_usize..5) {
        let reader = Reader::draw();
        let (from, to) = (ENVELOPE_BYTES[cut], ENVELOPE_BYTES[to]);
        prop_assume!(from != to);
        let sealed = seal(
            &reader.secret.key(),
            &reader.mailbox,
            Content::Mls,
            &message(from - 53),
            &mut OsRng,
        );
        let mut bytes = sealed.unwrap().as_bytes().to_vec();
        bytes.resize(to, 0);
        prop_assert!(!reader.opens(&bytes));
    }
}
