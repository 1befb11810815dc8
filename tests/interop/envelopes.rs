//! Envelopes that we seal are opened by somebody else's HPKE, and theirs by ours (PROTOCOL.md 6). Not here: frozen envelopes,
//! which are among the vectors of `wire`.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use countersign_tests::interop::Hpke;
use rand_core::{OsRng, RngCore};
use serde_json::{Value, json};
use wire::envelope::{Content, Envelope, EnvelopeSecret, open, seal};
use wire::limits::{ENVELOPE_BYTES, ENVELOPE_HEADER_BYTES, ENVELOPE_MESSAGE_BYTES, ENVELOPE_SEAL_BYTES};
use wire::mailbox::{MailboxId, MailboxKey};

use crate::FOLDER;

/// A mailbox, its envelope key, and the stranger.
struct Pair {
    secret: EnvelopeSecret,
    mailbox: MailboxId,
    hpke: Hpke,
}

impl Pair {
    fn new() -> Result<Self> {
        let (secret, mailbox) = (
            EnvelopeSecret::generate(&mut OsRng),
            MailboxKey::generate(&mut OsRng).id(),
        );
        Ok(Self {
            secret,
            mailbox,
            hpke: Hpke::set_up(FOLDER)?,
        })
    }

    fn they_open(&mut self, envelope: &[u8]) -> Result<Value> {
        let secret = STANDARD.encode(*self.secret.to_bytes());
        let (mailbox, envelope) = (STANDARD.encode(self.mailbox.as_bytes()), STANDARD.encode(envelope));
        self.hpke
            .ask(&json!({ "op": "open", "secret": secret, "mailbox": mailbox, "envelope": envelope }))
    }

    fn they_seal(&mut self, content: u8, message: &[u8]) -> Result<Envelope> {
        let key = STANDARD.encode(self.secret.key().as_bytes());
        let (mailbox, message) = (STANDARD.encode(self.mailbox.as_bytes()), STANDARD.encode(message));
        let question = json!({ "op": "seal", "key": key, "mailbox": mailbox, "content": content, "message": message });
        let answer = self.hpke.ask(&question)?;
        let envelope = answer
            .get("envelope")
            .and_then(Value::as_str)
            .with_context(|| answer.to_string())?;
        Ok(Envelope::from_bytes(Bytes::from(STANDARD.decode(envelope)?))?)
    }
}

/// Messages at both ends of what each of the five lengths holds, with the length.
fn messages() -> Vec<(usize, Vec<u8>)> {
    let mut shortest = 0;
    let mut all = Vec::new();
    for length in ENVELOPE_BYTES {
        let longest = length - ENVELOPE_SEAL_BYTES - ENVELOPE_HEADER_BYTES;
        for bytes in [shortest, longest] {
            let mut message = vec![0; bytes];
            OsRng.fill_bytes(&mut message);
            all.push((length, message));
        }
        shortest = longest + 1;
    }
    all
}

#[test]
fn what_we_seal_they_open() -> Result<()> {
    let mut pair = Pair::new()?;
    for (length, message) in messages() {
        for (number, content) in [(1, Content::Mls), (2, Content::Pairing)] {
            let envelope = seal(&pair.secret.key(), &pair.mailbox, content, &message, &mut OsRng)?;
            assert_eq!(envelope.bucket(), length);
            let opened = pair.they_open(envelope.as_bytes())?;
            assert_eq!(
                opened,
                json!({ "content": number, "message": STANDARD.encode(&message) })
            );
        }
    }
    Ok(())
}

#[test]
fn what_they_seal_we_open() -> Result<()> {
    let mut pair = Pair::new()?;
    for (length, message) in messages() {
        for (number, content) in [(1, Content::Mls), (2, Content::Pairing)] {
            let envelope = pair.they_seal(number, &message)?;
            assert_eq!(envelope.bucket(), length);
            let (found, opened) = open(&pair.secret, &pair.mailbox, &envelope)?;
            assert!(found == content && *opened == message);
        }
    }
    Ok(())
}

#[test]
fn a_flipped_bit_or_another_mailbox_is_refused_by_both() -> Result<()> {
    let mut pair = Pair::new()?;
    let sealed = seal(&pair.secret.key(), &pair.mailbox, Content::Mls, b"approve?", &mut OsRng)?;
    for at in [0, 31, 32, 36, 500, sealed.bucket() - 1] {
        let mut bytes = sealed.as_bytes().to_vec();
        bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
        assert!(pair.they_open(&bytes)?.get("refused").is_some(), "byte {at}");
        let envelope = Envelope::from_bytes(Bytes::from(bytes))?;
        assert!(open(&pair.secret, &pair.mailbox, &envelope).is_err(), "byte {at}");
    }
    let theirs = pair.they_seal(1, b"approve?")?;
    pair.mailbox = MailboxKey::generate(&mut OsRng).id();
    assert!(open(&pair.secret, &pair.mailbox, &theirs).is_err());
    assert!(pair.they_open(sealed.as_bytes())?.get("refused").is_some());
    Ok(())
}

#[test]
fn contents_that_nobody_knows_and_messages_too_long_are_refused_by_both() -> Result<()> {
    let mut pair = Pair::new()?;
    for content in [0, 3, 255] {
        let envelope = pair.they_seal(content, b"approve?")?;
        assert!(
            open(&pair.secret, &pair.mailbox, &envelope).is_err(),
            "content {content}"
        );
        assert!(
            pair.they_open(envelope.as_bytes())?.get("refused").is_some(),
            "content {content}"
        );
    }
    let message = vec![0; ENVELOPE_MESSAGE_BYTES + 1];
    assert!(seal(&pair.secret.key(), &pair.mailbox, Content::Mls, &message, &mut OsRng).is_err());
    assert!(pair.they_seal(1, &message).is_err());
    Ok(())
}
