//! Where envelopes are left: a mailbox's key and name, and the capability to put into it (`PROTOCOL.md`, sections 2, 3
//! and 5).
//!
//! What a relay keeps for a mailbox, and the bytes of the login that this key signs, are deliberately not here: they
//! stand in the relay's own crate and in [`login`](crate::login).

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey};
use rand_core::CryptoRngCore;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::key::{BadSignature, KeyError, Text, check_point, deserialize_text, verify_strict};
use crate::label::{CAPABILITY, labelled};

const PUBLIC: Text = Text::public("csbox1");
const SECRET: Text = Text::secret("CSBOX-SECRET-1");

/// The secret key of a mailbox: whoever holds it reads the mailbox, allows, revokes and closes. Unlinked to any
/// identity. It has no `Debug`, isn't `Clone`, and is wiped from memory when dropped.
pub struct MailboxKey {
    key: SigningKey,
}

impl MailboxKey {
    /// Draws a new mailbox; no relay knows of it until its owner's first `allow`.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        Self {
            key: SigningKey::generate(rng),
        }
    }

    /// Takes the 32-byte seed out of a store.
    #[must_use]
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self {
            key: SigningKey::from_bytes(seed),
        }
    }

    /// The 32-byte seed, for a store that keeps it secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// Reads `CSBOX-SECRET-1…`.
    ///
    /// # Errors
    ///
    /// [`KeyError::Text`] or [`KeyError::Kind`]; neither holds any of the text.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        Ok(Self::from_bytes(&*SECRET.decode(text)?))
    }

    /// Writes `CSBOX-SECRET-1…`, into memory that is wiped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        SECRET.encode(&self.to_bytes())
    }

    /// The mailbox that this key opens.
    #[must_use]
    pub fn id(&self) -> MailboxId {
        MailboxId {
            bytes: self.key.verifying_key().to_bytes(),
        }
    }

    /// Signs a login, the only thing that a mailbox key ever signs.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

/// A mailbox: the public key of a [`MailboxKey`], always a canonical point that isn't of small order. Written `csbox1…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxId {
    bytes: [u8; 32],
}

impl MailboxId {
    /// Takes the bytes of a public key.
    ///
    /// # Errors
    ///
    /// [`KeyError::Point`] if they aren't the canonical form of a point, or the point is of small order: a mailbox that
    /// two spellings name would be two mailboxes to the relay, and one that anybody's signature opens would be nobody's.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        check_point(&bytes)?;
        Ok(Self { bytes })
    }

    /// The bytes of the public key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Verifies this mailbox key's signature over `message` by the strict rules (`PROTOCOL.md`, section 2).
    ///
    /// # Errors
    ///
    /// [`BadSignature`] for anything else than this key's signature in its one accepted form.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        verify_strict(&self.bytes, message, signature)
    }

    /// `csbox1` and eight characters, for logs. It can be ground: never let anybody compare mailboxes by it.
    #[must_use]
    pub fn short(&self) -> String {
        PUBLIC.short(&self.bytes)
    }
}

impl fmt::Display for MailboxId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        PUBLIC.write(&self.bytes, formatter)
    }
}

impl fmt::Debug for MailboxId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.short())
    }
}

impl FromStr for MailboxId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(*PUBLIC.decode(text)?)
    }
}

impl Serialize for MailboxId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MailboxId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer)
    }
}

/// Leave to put envelopes into one mailbox: 32 secret bytes, issued by the mailbox's owner to one peer. Compared in
/// constant time, without `Debug`, wiped from memory when dropped.
///
/// ```
/// let capability = wire::mailbox::Capability::from_bytes(&[7; 32]);
/// println!("{:?}", capability.hash());
/// ```
///
/// ```compile_fail
/// let capability = wire::mailbox::Capability::from_bytes(&[7; 32]);
/// println!("{:?}", capability);
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Capability {
    bytes: [u8; 32],
}

impl Capability {
    /// Draws a new capability.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        let mut capability = Self { bytes: [0; 32] };
        rng.fill_bytes(&mut capability.bytes);
        capability
    }

    /// Takes the 32 bytes out of a store, a frame, or the derivation from an invite.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self { bytes: *bytes }
    }

    /// The 32 bytes, for a `put` or a store that keeps them secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.bytes)
    }

    /// What a relay keeps of this capability: `SHA-256(CAPABILITY || 0 || capability)`.
    #[must_use]
    pub fn hash(&self) -> CapabilityHash {
        let preimage = Zeroizing::new(labelled(CAPABILITY, &[&self.bytes]));
        CapabilityHash {
            bytes: Sha256::digest(&*preimage).into(),
        }
    }
}

impl PartialEq for Capability {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl Eq for Capability {}

/// The hash of a [`Capability`]: names it to the relay, and puts nothing by itself. Not secret, so compared plainly: a
/// relay that looks a hash up leaks at most some of its bits, from which no capability can be made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapabilityHash {
    bytes: [u8; 32],
}

impl CapabilityHash {
    /// Takes 32 bytes out of a frame or a store; any are a hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { bytes }
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

impl fmt::Debug for CapabilityHash {
    /// The first six bytes in hex: enough to tell the members of a group apart in a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes
            .iter()
            .take(6)
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}
