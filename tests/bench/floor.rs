//! The cryptography that an approval and an audit can't do without, alone and in one thread: what their cost is compared with.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use countersign::channel::{Group, Leaf, LeafKey, Membership, Mls, Received, key_package};
use ed25519_dalek::{Signer, SigningKey};
use rand_core::OsRng;
use wire::envelope::{Content, EnvelopeSecret, open, seal};
use wire::identity::Identity;
use wire::mailbox::MailboxKey;

use crate::machine::thread_time;

/// Bytes of the message in an envelope of 2 KiB.
const MESSAGE: usize = 1500;

/// Processor time of one of each.
pub struct Floor {
    pub sign: Duration,
    pub verify: Duration,
    pub encrypt: Duration,
    pub decrypt: Duration,
    pub seal: Duration,
    pub open: Duration,
}

impl Floor {
    /// One approval: 4 signatures, 4 verified, 2 messages through the group, 2 through envelopes.
    pub fn of_approval(&self) -> Duration {
        4 * (self.sign + self.verify) + 2 * (self.encrypt + self.decrypt + self.seal + self.open)
    }

    /// Measures each a few hundred times and takes the median of the rounds.
    pub fn measure() -> Result<Self> {
        let message = vec![0x5a; MESSAGE];
        let key = SigningKey::from_bytes(&[7; 32]);
        let public = key.verifying_key();
        let signature = key.sign(&message);
        let secret = EnvelopeSecret::generate(&mut OsRng);
        let mailbox = MailboxKey::generate(&mut OsRng).id();
        let envelope = seal(&secret.key(), &mailbox, Content::Mls, &message, &mut OsRng)?;
        ensure!(envelope.bucket() == 2048, "an envelope of another length");
        let (encrypt, decrypt) = group(&message)?;
        Ok(Self {
            sign: each(|| _ = std::hint::black_box(key.sign(&message))),
            verify: each(|| assert!(public.verify_strict(&message, &signature).is_ok())),
            encrypt,
            decrypt,
            seal: each(|| {
                drop(std::hint::black_box(seal(
                    &secret.key(),
                    &mailbox,
                    Content::Mls,
                    &message,
                    &mut OsRng,
                )))
            }),
            open: each(|| assert!(open(&secret, &mailbox, &envelope).is_ok())),
        })
    }
}

/// Processor time of one call.
fn each(mut call: impl FnMut()) -> Duration {
    let mut rounds: Vec<Duration> = (0..15)
        .map(|_| {
            let began = thread_time();
            (0..40).for_each(|_| call());
            (thread_time() - began) / 40
        })
        .collect();
    rounds.sort();
    rounds[rounds.len() / 2]
}

/// Encrypting and decrypting in a group of two, without storing anything.
fn group(message: &[u8]) -> Result<(Duration, Duration)> {
    let (mut gate_mls, mut mls) = (Mls::new([]), Mls::new([]));
    let (gate_key, key) = (LeafKey::generate(), LeafKey::generate());
    let (gate, party) = (
        Identity::generate(&mut OsRng).party(),
        Identity::generate(&mut OsRng).party(),
    );
    let mut gates = Group::create(&mut gate_mls, &gate_key, gate, [0; 32])?;
    let package = key_package(&mut mls, &key, party)?;
    let change = gates.change(&mut gate_mls, &gate_key, &[package], &[], [1; 32])?;
    let own = Leaf {
        party,
        leaf: key.public(),
    };
    let mut members = Group::join(&mut mls, &own, &gate, &change.welcome.context("a welcome")?)?;
    let nobody = |_: &[u8; 32]| None::<Membership>;
    let (mut encrypts, mut decrypts) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let began = thread_time();
        let sealed = gates.encrypt(&mut gate_mls, &gate_key, message)?;
        let between = thread_time();
        let received = members.receive(&mut mls, &sealed, &nobody)?;
        encrypts.push(between - began);
        decrypts.push(thread_time() - between);
        ensure!(
            matches!(received, Received::Message { .. }),
            "a message that isn't opened"
        );
    }
    encrypts.sort();
    decrypts.sort();
    Ok((encrypts[150], decrypts[150]))
}
