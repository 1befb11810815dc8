//! The padded sealed box that a relay carries: its keys, its five lengths, sealing and opening (`PROTOCOL.md`, section 6).
//!
//! What the message inside says is deliberately not here: an envelope knows only whether MLS or pairing reads it. Nor is
//! a sender: envelopes are anonymous, whoever is inside must be authenticated by what is inside.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use rand_core::CryptoRngCore;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::hpke;
use crate::key::{KeyError, Text, deserialize_text};
use crate::label::ENVELOPE;
use crate::limits::{ENVELOPE_BYTES, ENVELOPE_HEADER_BYTES, ENVELOPE_MESSAGE_BYTES, ENVELOPE_SEAL_BYTES};
use crate::mailbox::MailboxId;

const PUBLIC: Text = Text::public("csenv1");
const SECRET: Text = Text::secret("CSENV-SECRET-1");

/// The secret key that opens envelopes. It has no `Debug`, isn't `Clone`, and is wiped from memory when dropped.
pub struct EnvelopeSecret {
    secret: StaticSecret,
}

impl EnvelopeSecret {
    /// Draws a new key.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        Self {
            secret: StaticSecret::random_from_rng(rng),
        }
    }

    /// Takes the 32 bytes out of a store.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self {
            secret: StaticSecret::from(*bytes),
        }
    }

    /// The 32 bytes, for a store that keeps them secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// Reads `CSENV-SECRET-1…`.
    ///
    /// # Errors
    ///
    /// [`KeyError::Text`] or [`KeyError::Kind`]; neither holds any of the text.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        Ok(Self::from_bytes(&*SECRET.decode(text)?))
    }

    /// Writes `CSENV-SECRET-1…`, into memory that is wiped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        SECRET.encode(&self.to_bytes())
    }

    /// The key that others seal to.
    #[must_use]
    pub fn key(&self) -> EnvelopeKey {
        EnvelopeKey {
            bytes: PublicKey::from(&self.secret).to_bytes(),
        }
    }
}

/// The public key that envelopes are sealed to: always in canonical form and never of low order. Written `csenv1…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvelopeKey {
    bytes: [u8; 32],
}

impl EnvelopeKey {
    /// Takes the bytes of a public key.
    ///
    /// # Errors
    ///
    /// [`KeyError::Point`] if no secret key has it. A low-order key would make an envelope that the relay can open; one
    /// in another than its canonical form (at or above 2^255 - 19, or with the top bit set) seals what nobody can open,
    /// because the owner mixes in the canonical form.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        // Every X25519 secret is a multiple of the cofactor, so one exchange tells the order for all of them.
        let probe = StaticSecret::from([1; 32]).diffie_hellman(&PublicKey::from(bytes));
        if !is_canonical(&bytes) || !probe.was_contributory() {
            return Err(KeyError::Point);
        }
        Ok(Self { bytes })
    }

    /// The bytes of the public key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// `csenv1` and eight characters, for logs.
    #[must_use]
    pub fn short(&self) -> String {
        PUBLIC.short(&self.bytes)
    }
}

/// Whether the bytes, as a little-endian number, are below 2^255 - 19.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    bytes.iter().rev().lt(prime.iter().rev())
}

impl fmt::Display for EnvelopeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        PUBLIC.write(&self.bytes, formatter)
    }
}

impl fmt::Debug for EnvelopeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.short())
    }
}

impl FromStr for EnvelopeKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(*PUBLIC.decode(text)?)
    }
}

impl Serialize for EnvelopeKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EnvelopeKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer)
    }
}

/// A sealed box of one of the five lengths. That is all that its type promises: it came from outside and may not open.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Envelope {
    bytes: Bytes,
}

/// The bytes aren't as long as any envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an envelope's length")]
pub struct NotAnEnvelope;

impl Envelope {
    /// Takes bytes that are as long as an envelope.
    ///
    /// # Errors
    ///
    /// [`NotAnEnvelope`] for any other length.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, NotAnEnvelope> {
        if ENVELOPE_BYTES.contains(&bytes.len()) {
            Ok(Self { bytes })
        } else {
            Err(NotAnEnvelope)
        }
    }

    /// The bytes as they travel.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes, for whoever keeps them.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The length in bytes: one of [`ENVELOPE_BYTES`].
    #[must_use]
    pub fn bucket(&self) -> usize {
        self.bytes.len()
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Envelope({} bytes)", self.bucket())
    }
}

/// Who reads the message inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// An MLS message (`PROTOCOL.md`, section 12).
    Mls,
    /// A pairing message (`PROTOCOL.md`, section 13).
    Pairing,
}

impl Content {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Mls => 1,
            Self::Pairing => 2,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Mls),
            2 => Some(Self::Pairing),
            _ => None,
        }
    }
}

/// Why a message can't be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Longer than [`ENVELOPE_MESSAGE_BYTES`]; the sender must split it.
    #[error("message of {bytes} bytes doesn't fit an envelope ({ENVELOPE_MESSAGE_BYTES} at most)")]
    TooLong {
        /// The message's length.
        bytes: usize,
    },
    /// The recipient's key makes no secret. [`EnvelopeKey`] refuses such keys, so this is the second lock.
    #[error("the recipient's envelope key is unusable")]
    Key,
}

/// The envelope doesn't open. Deliberately one error for all causes: whoever hears the difference between a wrong key, a
/// flipped bit and bad padding learns about the key or the plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the envelope doesn't open")]
pub struct CannotOpen;

/// Seals a message of at most [`ENVELOPE_MESSAGE_BYTES`] for the reader of `mailbox`, into the smallest length that holds it.
///
/// # Errors
///
/// [`SealError`].
pub fn seal(
    to: &EnvelopeKey,
    mailbox: &MailboxId,
    content: Content,
    message: &[u8],
    rng: &mut impl CryptoRngCore,
) -> Result<Envelope, SealError> {
    let bucket = bucket_for(message.len())?;
    let plain = pad(content, message, bucket)?;
    seal_plain(StaticSecret::random_from_rng(rng), to, mailbox, &plain)
}

/// Opens an envelope that was sealed to `secret` for `mailbox`.
///
/// # Errors
///
/// [`CannotOpen`], for every cause.
pub fn open(
    secret: &EnvelopeSecret,
    mailbox: &MailboxId,
    envelope: &Envelope,
) -> Result<(Content, Zeroizing<Vec<u8>>), CannotOpen> {
    let (enc, ciphertext) = envelope.bytes.split_first_chunk::<32>().ok_or(CannotOpen)?;
    let aad = associated(mailbox, envelope.bucket()).ok_or(CannotOpen)?;
    let plain =
        hpke::open(&secret.secret, enc, ENVELOPE.as_bytes(), &aad, ciphertext).map_err(|hpke::Failed| CannotOpen)?;
    unpad(plain).ok_or(CannotOpen)
}

/// Opens an envelope with the first key that does: after a rotation both the new key and the previous one are tried.
///
/// # Errors
///
/// [`CannotOpen`] if none opens it.
pub fn open_any(
    secrets: &[&EnvelopeSecret],
    mailbox: &MailboxId,
    envelope: &Envelope,
) -> Result<(Content, Zeroizing<Vec<u8>>), CannotOpen> {
    secrets
        .iter()
        .find_map(|secret| open(secret, mailbox, envelope).ok())
        .ok_or(CannotOpen)
}

/// Seals an already padded plain text; apart so that the vectors can choose the ephemeral key and pad wrongly.
pub(crate) fn seal_plain(
    ephemeral: StaticSecret,
    to: &EnvelopeKey,
    mailbox: &MailboxId,
    plain: &[u8],
) -> Result<Envelope, SealError> {
    let length = plain.len() + ENVELOPE_SEAL_BYTES;
    let aad = associated(mailbox, length).ok_or(SealError::TooLong { bytes: plain.len() })?;
    let to = PublicKey::from(to.bytes);
    let (enc, ciphertext) =
        hpke::seal(ephemeral, &to, ENVELOPE.as_bytes(), &aad, plain).map_err(|hpke::Failed| SealError::Key)?;
    Ok(Envelope {
        bytes: [enc.as_slice(), &ciphertext].concat().into(),
    })
}

/// The smallest envelope that holds a message of so many bytes.
fn bucket_for(message: usize) -> Result<usize, SealError> {
    let fits = |bucket: &usize| *bucket - ENVELOPE_SEAL_BYTES - ENVELOPE_HEADER_BYTES >= message;
    ENVELOPE_BYTES
        .into_iter()
        .find(fits)
        .ok_or(SealError::TooLong { bytes: message })
}

/// What is authenticated but not inside: a relay that moves an envelope to another mailbox makes it unreadable.
fn associated(mailbox: &MailboxId, length: usize) -> Option<[u8; 36]> {
    let mut bytes = [0; 36];
    let (front, back) = bytes.split_first_chunk_mut::<32>()?;
    *front = *mailbox.as_bytes();
    back.copy_from_slice(&u32::try_from(length).ok()?.to_be_bytes());
    Some(bytes)
}

/// `u8 content || u32 length || message || zeros`, in memory that is wiped.
fn pad(content: Content, message: &[u8], bucket: usize) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let too_long = SealError::TooLong { bytes: message.len() };
    let length = u32::try_from(message.len()).map_err(|_| too_long)?;
    let size = bucket - ENVELOPE_SEAL_BYTES;
    // All at once: growing would leave a copy of the message behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(size));
    plain.push(content.to_byte());
    plain.extend_from_slice(&length.to_be_bytes());
    plain.extend_from_slice(message);
    plain.resize(size, 0);
    Ok(plain)
}

/// Takes the message out of its padding, which must be exactly what [`pad`] makes.
fn unpad(mut plain: Zeroizing<Vec<u8>>) -> Option<(Content, Zeroizing<Vec<u8>>)> {
    let (header, rest) = plain.split_first_chunk::<ENVELOPE_HEADER_BYTES>()?;
    let [content, length @ ..] = *header;
    let content = Content::from_byte(content)?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    let (_, padding) = rest.split_at_checked(length)?;
    // One message has one plain text: neither words hidden in the padding nor a longer envelope than it needs.
    let smallest = bucket_for(length).ok()? == plain.len() + ENVELOPE_SEAL_BYTES;
    if !smallest || padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    plain.truncate(ENVELOPE_HEADER_BYTES + length);
    plain.drain(..ENVELOPE_HEADER_BYTES);
    Some((content, plain))
}
