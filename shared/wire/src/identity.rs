//! Who somebody is: an Ed25519 key that signs statements, and for a gate its checkpoints (`PROTOCOL.md`, section 2).
//!
//! What may be signed isn't decided here: statements are in `approval`. An identity never logs in at a relay (that is
//! the mailbox key's part), so a relay sees none.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey};
use rand_core::CryptoRngCore;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::key::{BadSignature, KeyError, Text, check_point, deserialize_text, verify_strict};

const PUBLIC: Text = Text::public("csid1");
const SECRET: Text = Text::secret("CSID-SECRET-1");

/// A party's secret key. It has no `Debug`, isn't `Clone`, and is wiped from memory when dropped.
///
/// ```
/// let identity = wire::identity::Identity::from_bytes(&[7; 32]);
/// println!("{:?}", identity.party());
/// ```
///
/// ```compile_fail
/// let identity = wire::identity::Identity::from_bytes(&[7; 32]);
/// println!("{:?}", identity);
/// ```
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// Draws a new identity.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        Self {
            key: SigningKey::generate(rng),
        }
    }

    /// Takes the 32-byte seed out of a store. The public key is always computed from it and never read beside it:
    /// signing with a public key that doesn't belong to the secret one gives the secret away (RUSTSEC-2022-0093).
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

    /// Reads `CSID-SECRET-1…`.
    ///
    /// # Errors
    ///
    /// [`KeyError::Text`] or [`KeyError::Kind`]; neither holds any of the text.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        Ok(Self::from_bytes(&*SECRET.decode(text)?))
    }

    /// Writes `CSID-SECRET-1…`, into memory that is wiped.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        SECRET.encode(&self.to_bytes())
    }

    /// The party that this key makes its holder.
    #[must_use]
    pub fn party(&self) -> PartyId {
        PartyId {
            bytes: self.key.verifying_key().to_bytes(),
        }
    }

    /// Signs bytes that say themselves what they are: a DSSE encoding (`DSSEv1 `) or a gate's checkpoint
    /// (`countersign/`), and nothing else.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

/// A party: the public key of an [`Identity`], always a canonical point that isn't of small order. Written `csid1…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartyId {
    bytes: [u8; 32],
}

impl PartyId {
    /// Takes the bytes of a public key.
    ///
    /// # Errors
    ///
    /// [`KeyError::Point`] if they aren't the canonical form of a point, or the point is of small order.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        check_point(&bytes)?;
        Ok(Self { bytes })
    }

    /// The bytes of the public key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Verifies this party's signature over `message` by the strict rules (`PROTOCOL.md`, section 2).
    ///
    /// # Errors
    ///
    /// [`BadSignature`] for anything else than this key's signature in its one accepted form.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        verify_strict(&self.bytes, message, signature)
    }

    /// `csid1` and eight characters, for logs. It can be ground: never let anybody compare parties by it.
    #[must_use]
    pub fn short(&self) -> String {
        PUBLIC.short(&self.bytes)
    }
}

impl fmt::Display for PartyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        PUBLIC.write(&self.bytes, formatter)
    }
}

impl fmt::Debug for PartyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.short())
    }
}

impl FromStr for PartyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(*PUBLIC.decode(text)?)
    }
}

impl Serialize for PartyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PartyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer)
    }
}
