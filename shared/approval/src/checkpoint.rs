//! A gate's signed word that its log has this size and this root: a C2SP tlog-checkpoint in one exact spelling.
//!
//! PROTOCOL.md 10.2. A signed note with one signature and no extension lines. Witnesses' cosignatures and keys of other
//! algorithms are deliberately not here; the tree behind the root is in [`crate::transcript`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use wire::identity::{Identity, PartyId};

use crate::transcript::TreeHash;

/// Bytes that a checkpoint can have at most: about 330 are needed; longer text isn't looked at.
pub const MAX_CHECKPOINT: usize = 512;

/// The signed-note algorithm number of Ed25519, hashed with the key into its short id.
const ALGORITHM_ED25519: u8 = 1;

/// Why a text is not a checkpoint of this gate.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointError {
    /// The text isn't exactly as it must be spelled.
    #[error("not a checkpoint in its exact spelling")]
    Malformed,
    /// A checkpoint, but by another gate.
    #[error("a checkpoint of another gate")]
    OtherGate,
    /// The signature isn't the gate's over this size and root.
    #[error("the checkpoint's signature is wrong")]
    Signature,
}

/// A size and root that the gate has signed. Made only by [`Checkpoint::sign`] and [`Checkpoint::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    gate: PartyId,
    size: u64,
    root: TreeHash,
    text: String,
}

impl Checkpoint {
    /// Signs that the gate's log has `size` entries under `root`. The gate does this only after the entries are flushed.
    #[must_use]
    pub fn sign(gate: &Identity, size: u64, root: TreeHash) -> Self {
        let party = gate.party();
        let body = body(&party, size, &root);
        let signature = gate.sign(body.as_bytes());
        let text = note(&party, &body, &signature);
        Self {
            gate: party,
            size,
            root,
            text,
        }
    }

    /// Believes a text if it is, byte for byte, a checkpoint by this gate.
    ///
    /// # Errors
    /// [`CheckpointError`]; which one doesn't matter for trust.
    pub fn verify(text: &str, gate: &PartyId) -> Result<Self, CheckpointError> {
        let unsigned = Unsigned::parse(text).ok_or(CheckpointError::Malformed)?;
        if unsigned.origin != origin(gate) {
            return Err(CheckpointError::OtherGate);
        }
        let body = body(gate, unsigned.size, &unsigned.root);
        // The text is derived anew from what was read: leading zeros, a second signature, other line ends, an extension
        // line or unused base64 bits all end here.
        if note(gate, &body, &unsigned.signature) != text {
            return Err(CheckpointError::Malformed);
        }
        gate.verify(body.as_bytes(), &unsigned.signature)
            .map_err(|_| CheckpointError::Signature)?;
        Ok(Self {
            gate: *gate,
            size: unsigned.size,
            root: unsigned.root,
            text: text.to_owned(),
        })
    }

    /// The gate that signed.
    #[must_use]
    pub fn gate(&self) -> &PartyId {
        &self.gate
    }

    /// Number of entries in the log.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root over these entries.
    #[must_use]
    pub fn root(&self) -> TreeHash {
        self.root
    }

    /// The checkpoint's exact text, with its line feeds.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// What a text claims, before anything of it is believed.
struct Unsigned<'a> {
    origin: &'a str,
    size: u64,
    root: TreeHash,
    signature: [u8; 64],
}

impl<'a> Unsigned<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text.len() > MAX_CHECKPOINT {
            return None;
        }
        let (body, signature) = text.split_once("\n\n")?;
        let mut lines = body.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let signature = signed_note::Signature::from_bytes(signature.strip_suffix('\n')?.as_bytes()).ok()?;
        Some(Self {
            origin,
            size: size.parse().ok()?,
            root: STANDARD.decode(root).ok()?.try_into().ok()?,
            signature: signature.signature().try_into().ok()?,
        })
    }
}

/// The name under which a gate signs, and the log's name: one gate has one log.
fn origin(gate: &PartyId) -> String {
    format!("countersign/{gate}")
}

/// The signed bytes.
fn body(gate: &PartyId, size: u64, root: &TreeHash) -> String {
    format!("{}\n{size}\n{}\n", origin(gate), STANDARD.encode(root))
}

fn note(gate: &PartyId, body: &str, signature: &[u8; 64]) -> String {
    let origin = origin(gate);
    let mut key = Vec::with_capacity(33);
    key.push(ALGORITHM_ED25519);
    key.extend_from_slice(gate.as_bytes());
    let mut signed = signed_note::key_id(&origin, &key).to_be_bytes().to_vec();
    signed.extend_from_slice(signature);
    format!("{body}\n\u{2014} {origin} {}\n", STANDARD.encode(signed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    fn gate() -> Identity {
        Identity::from_bytes(&[7; 32])
    }

    fn good() -> Checkpoint {
        Checkpoint::sign(&gate(), 51, [0x5a; 32])
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_signed() {
        let read = Checkpoint::verify(good().as_str(), &gate().party()).unwrap();
        assert_eq!(read, good());
        assert_eq!(
            (read.size(), read.root(), *read.gate()),
            (51, [0x5a; 32], gate().party())
        );
        assert!(Checkpoint::sign(&gate(), u64::MAX, [0; 32]).as_str().len() <= MAX_CHECKPOINT);
    }

    #[test]
    fn an_ordinary_note_verifier_accepts_it() {
        let name = origin(&gate().party());
        let key = ed25519_dalek::VerifyingKey::from_bytes(gate().party().as_bytes()).unwrap();
        let verifier = signed_note::StandardVerifier::new(&signed_note::new_ed25519_verifier_key(&name, &key)).unwrap();
        let note = signed_note::Note::from_bytes(good().as_str().as_bytes()).unwrap();
        note.verify(&signed_note::VerifierList::new(vec![Box::new(verifier)]))
            .unwrap();
        let parsed = tlog_tiles::checkpoint::Checkpoint::from_bytes(note.text()).unwrap();
        assert_eq!(
            (parsed.origin(), parsed.size(), parsed.hash().0),
            (name.as_str(), 51, [0x5a; 32])
        );
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let text = good().as_str().as_bytes().to_vec();
        for at in 0..text.len() {
            for flip in 1..=255_u8 {
                let mut changed = text.clone();
                changed[at] ^= flip;
                if let Ok(changed) = String::from_utf8(changed) {
                    // Only the signature itself needs arithmetic; there a few flips are enough.
                    if at > text.len() - 90 && !flip.is_power_of_two() {
                        continue;
                    }
                    assert!(
                        Checkpoint::verify(&changed, &gate().party()).is_err(),
                        "byte {at} ^ {flip}"
                    );
                }
            }
        }
    }

    #[test]
    fn another_gate_and_another_signer_are_told_apart() {
        let other = Identity::from_bytes(&[8; 32]);
        assert_eq!(
            Checkpoint::verify(good().as_str(), &other.party()),
            Err(CheckpointError::OtherGate)
        );
        let body = body(&gate().party(), 51, &[0x5a; 32]);
        let forged = note(&gate().party(), &body, &other.sign(body.as_bytes()));
        assert_eq!(
            Checkpoint::verify(&forged, &gate().party()),
            Err(CheckpointError::Signature)
        );
    }

    #[test]
    fn other_spellings_are_refused() {
        let text = good().as_str().to_owned();
        let (body, signature) = text.split_once("\n\n").unwrap();
        for other in [
            text.replace("\n51\n", "\n051\n"),
            text.replace("\n51\n", "\n+51\n"),
            text.replace("\n51\n", "\n51 \n"),
            text.replace("\n51\n", "\n18446744073709551616\n"),
            text.replace('\n', "\r\n"),
            text.replace('\u{2014}', "-"),
            format!("{text}\n"),
            format!("\n{text}"),
            format!("{body}\n\n{signature}{signature}"),
            format!("{body}\nextension\n\n{signature}"),
            format!("{body}\n\n\n{signature}"),
            text.trim_end().to_owned(),
            format!("{body}\n\n"),
            body.to_owned(),
            String::new(),
        ] {
            assert_eq!(
                Checkpoint::verify(&other, &gate().party()),
                Err(CheckpointError::Malformed),
                "{other:?}"
            );
        }
    }
}
