//! What all keys have in common: their text form, the refusal of unusable points, and strict signatures
//! (`PROTOCOL.md`, section 2).
//!
//! No key lives here: each use has a type of its own ([`Identity`](crate::identity::Identity),
//! [`MailboxKey`](crate::mailbox::MailboxKey), [`EnvelopeSecret`](crate::envelope::EnvelopeSecret)), so that none can
//! be handed over for another.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::de::Visitor;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Why a key can't be read. Never holds any of the text: it may be a secret, and it came from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not bech32 in the one spelling that this key has: a character is wrong, missing, or in the other case.
    #[error("not a key in bech32")]
    Text,
    /// A key of another kind, for instance a secret key where a public one belongs.
    #[error("a key of another kind: expected one that starts with {expected}")]
    Kind {
        /// How the text of the expected kind starts.
        expected: &'static str,
    },
    /// Public key bytes that no honest key has: not canonical, not on the curve, or of small order.
    #[error("not a usable public key")]
    Point,
}

/// The signature isn't one by this key over these bytes. Deliberately says nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad signature")]
pub struct BadSignature;

/// How a kind of key is written: its prefix with the separator, and its case.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    /// The human-readable part and the `1` that ends it, in the case of the text.
    prefix: &'static str,
    upper: bool,
}

impl Text {
    /// A public key: lower case.
    pub(crate) const fn public(prefix: &'static str) -> Self {
        Self { prefix, upper: false }
    }

    /// A secret key: upper case, so that it can't be taken for a public one at a glance.
    pub(crate) const fn secret(prefix: &'static str) -> Self {
        Self { prefix, upper: true }
    }

    fn hrp(self) -> Result<Hrp, KeyError> {
        let hrp = self.prefix.strip_suffix('1').ok_or(KeyError::Text)?;
        Hrp::parse(hrp).map_err(|_| KeyError::Text)
    }

    /// Writes 32 bytes as text; used directly for public keys.
    pub(crate) fn write(self, bytes: &[u8; 32], out: &mut impl fmt::Write) -> fmt::Result {
        let hrp = self.hrp().map_err(|_| fmt::Error)?;
        let written = if self.upper {
            bech32::encode_upper_to_fmt::<Bech32, _>(out, hrp, bytes)
        } else {
            bech32::encode_lower_to_fmt::<Bech32, _>(out, hrp, bytes)
        };
        written.map_err(|_| fmt::Error)
    }

    /// The text in memory that is wiped; long enough from the start, since growing would leave a copy behind.
    pub(crate) fn encode(self, bytes: &[u8; 32]) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(TEXT_CAPACITY));
        // Writing 32 bytes under a constant prefix into a string has no way to fail.
        let _infallible = self.write(bytes, &mut *text);
        text
    }

    /// The prefix and the first eight characters behind it: for logs. Forty bits can be ground, so it never identifies.
    pub(crate) fn short(self, bytes: &[u8; 32]) -> String {
        self.encode(bytes).chars().take(self.prefix.len() + 8).collect()
    }

    /// Reads the one spelling of 32 bytes: right prefix, right case, right checksum, padding bits zero.
    pub(crate) fn decode(self, text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        if text.len() > TEXT_CAPACITY {
            return Err(KeyError::Text);
        }
        let checked = CheckedHrpstring::new::<Bech32>(text).map_err(|_| KeyError::Text)?;
        if checked.hrp() != self.hrp()? {
            return Err(KeyError::Kind { expected: self.prefix });
        }
        let mut bytes = Zeroizing::new([0; 32]);
        bytes
            .iter_mut()
            .zip(checked.byte_iter())
            .for_each(|(byte, read)| *byte = read);
        // The library is lenient about length, case and padding bits; a key with two spellings is two keys to a careless
        // reader. Writing it again settles all of them.
        if bool::from(self.encode(&bytes).as_bytes().ct_eq(text.as_bytes())) {
            Ok(bytes)
        } else {
            Err(KeyError::Text)
        }
    }
}

/// Longer than any of our texts (71 characters) and the bound on what is looked at: 90, BIP 173's own.
const TEXT_CAPACITY: usize = 90;

/// Keys that are kept decoded in each thread, 200 bytes each: a transcript names the same few again and again, and decoding one costs
/// a third of verifying a signature.
const DECODED: usize = 64;

thread_local! {
    static KEYS: RefCell<[Option<VerifyingKey>; DECODED]> = const { RefCell::new([None; DECODED]) };
}

/// Decodes an Ed25519 public key only if the bytes are the canonical form of a point that isn't of small order. Keeps what it
/// found: the same bytes always decode to the same.
///
/// Small-order keys have signatures that verify for many messages; a point with two encodings would be two parties.
fn decode_point(bytes: &[u8; 32]) -> Result<VerifyingKey, KeyError> {
    let place = usize::from(bytes.iter().fold(0, |mixed, byte| mixed ^ byte)) % DECODED;
    KEYS.with_borrow_mut(|keys| {
        let kept = keys.get_mut(place).ok_or(KeyError::Point)?;
        if let Some(key) = kept.filter(|key| key.as_bytes() == bytes) {
            return Ok(key);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Point)?;
        if key.is_weak() || key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::Point);
        }
        *kept = Some(key);
        Ok(key)
    })
}

/// Admits the bytes of a public key that can be used.
pub(crate) fn check_point(bytes: &[u8; 32]) -> Result<(), KeyError> {
    decode_point(bytes).map(|_| ())
}

/// Verifies one signature by the strict rules: canonical S, neither A nor R of small order, no cofactor.
///
/// Every party must come to the same answer, today's verifier and the auditor's in ten years; the lenient rules and
/// batch verification differ between libraries on crafted signatures.
pub(crate) fn verify_strict(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
    let key = decode_point(key).map_err(|_| BadSignature)?;
    key.verify_strict(message, &Signature::from_bytes(signature))
        .map_err(|_| BadSignature)
}

/// Deserializes any public key from its text.
pub(crate) fn deserialize_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err = KeyError>,
    D: serde::Deserializer<'de>,
{
    struct FromText<T>(PhantomData<T>);

    impl<T: FromStr<Err = KeyError>> Visitor<'_> for FromText<T> {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a key in bech32")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    deserializer.deserialize_str(FromText(PhantomData))
}
