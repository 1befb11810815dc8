//! A statement: a JSON payload under one Ed25519 signature, as DSSE writes it (PROTOCOL.md 7). [`Signed`] is what
//! came, [`Verified`] what may be believed of it: these bytes, this signer. Not here: whether the signer had a say
//! (`decide`, `replay`).
//!
//! What came has no payload before it is verified. This compiles:
//!
//! ```
//! fn kind(signed: approval::Signed) -> Result<approval::statement::Kind, approval::StatementError> {
//!     Ok(signed.verify()?.get().kind())
//! }
//! ```
//!
//! and this doesn't:
//!
//! ```compile_fail
//! fn kind(signed: approval::Signed) -> Result<approval::statement::Kind, approval::StatementError> {
//!     Ok(signed.get().kind())
//! }
//! ```
//!
//! Nobody else makes a [`Verified`], whether from its parts
//!
//! ```
//! fn parts(it: approval::Verified<u8>) -> (approval::Signed, wire::identity::PartyId, approval::Digest, u8) {
//!     (it.signed().clone(), it.signer(), it.digest(), *it.get())
//! }
//! ```
//! ```compile_fail
//! fn make(signed: approval::Signed, signer: wire::identity::PartyId, digest: approval::Digest) -> approval::Verified<u8> {
//!     approval::Verified { signed, signer, digest, payload: 1 }
//! }
//! ```
//!
//! or from JSON:
//!
//! ```
//! fn read(json: &str) -> serde_json::Result<approval::Signed> {
//!     serde_json::from_str(json)
//! }
//! ```
//! ```compile_fail
//! fn read(json: &str) -> serde_json::Result<approval::Verified<approval::Statement>> {
//!     serde_json::from_str(json)
//! }
//! ```

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use wire::identity::{Identity, PartyId};

use crate::decision::Decision;
use crate::device::Device;
use crate::grant::Grant;
use crate::outcome::Outcome;
use crate::permit::Permission;
use crate::request::Request;
use crate::revocation::Revocation;
use crate::roster::Roster;
pub use crate::scalar::{ByteString, Digest, Id16, LeafKey, Name, RelayUrl, ScalarError, Text, Time};

/// Bytes of a signed statement: one fits an envelope with its group message and its box.
pub const SIGNED_BYTES: usize = 52 * 1024;
/// Bytes of a payload, for the same reason.
pub const PAYLOAD_BYTES: usize = 36 * 1024;

/// Why a statement was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Longer than [`SIGNED_BYTES`], or its payload longer than [`PAYLOAD_BYTES`].
    #[error("statement too large")]
    TooLarge,
    /// Not the one text that PROTOCOL.md 7 allows for a signed statement.
    #[error("not the exact text of a signed statement: {0}")]
    Spelling(&'static str),
    /// A type that isn't one of this version's kinds.
    #[error("unknown kind of statement")]
    Kind,
    /// The signature isn't by the key that is named.
    #[error("signature doesn't verify")]
    Signature,
    /// The payload isn't JSON of its kind, or breaks a bound. Only seen behind a good signature.
    /// The words are printable ASCII.
    #[error("bad payload: {0}")]
    Payload(String),
    /// The payload names another party than the one that signed it.
    #[error("signed by somebody else than the party that it names")]
    Signer,
}

crate::json::words! {
    /// The kinds of this version.
    pub enum Kind {
        /// Who holds this key.
        Device = "device",
        /// Who may say yes.
        Roster = "roster",
        /// May this be done?
        Request = "request",
        /// A person's answer.
        Decision = "decision",
        /// Leave to do it once.
        Permit = "permit",
        /// How it ended.
        Outcome = "outcome",
        /// A standing permission.
        Grant = "grant",
        /// No more of that.
        Revocation = "revocation",
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A kind of payload. Only this crate has any.
pub trait Payload: sealed::Sealed + Clone + Serialize + DeserializeOwned {
    /// Its kind.
    const KIND: Kind;

    /// The party that must have signed it, where the payload names one.
    fn party(&self) -> Option<PartyId>;

    /// Checks what the types of the fields don't.
    ///
    /// # Errors
    /// The rule that is broken, in words.
    fn check(&self) -> Result<(), String>;
}

/// A verified payload of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)]
pub enum Statement {
    /// Who holds this key.
    Device(Device),
    /// Who may say yes.
    Roster(Roster),
    /// May this be done?
    Request(Request),
    /// A person's answer.
    Decision(Decision),
    /// Leave to do it once.
    Permit(Permission),
    /// How it ended.
    Outcome(Outcome),
    /// A standing permission.
    Grant(Grant),
    /// No more of that.
    Revocation(Revocation),
}

impl Statement {
    /// Which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Device(_) => Kind::Device,
            Self::Roster(_) => Kind::Roster,
            Self::Request(_) => Kind::Request,
            Self::Decision(_) => Kind::Decision,
            Self::Permit(_) => Kind::Permit,
            Self::Outcome(_) => Kind::Outcome,
            Self::Grant(_) => Kind::Grant,
            Self::Revocation(_) => Kind::Revocation,
        }
    }

    fn read(kind: Kind, signer: &PartyId, payload: &[u8]) -> Result<Self, StatementError> {
        match kind {
            Kind::Device => read(signer, payload).map(Self::Device),
            Kind::Roster => read(signer, payload).map(Self::Roster),
            Kind::Request => read(signer, payload).map(Self::Request),
            Kind::Decision => read(signer, payload).map(Self::Decision),
            Kind::Permit => read(signer, payload).map(Self::Permit),
            Kind::Outcome => read(signer, payload).map(Self::Outcome),
            Kind::Grant => read(signer, payload).map(Self::Grant),
            Kind::Revocation => read(signer, payload).map(Self::Revocation),
        }
    }
}

/// Reads a payload strictly and checks it.
fn read<T: Payload>(signer: &PartyId, payload: &[u8]) -> Result<T, StatementError> {
    let value: T = serde_json::from_slice(payload).map_err(|error| StatementError::Payload(plain(&error)))?;
    value.check().map_err(StatementError::Payload)?;
    match value.party() {
        Some(party) if party != *signer => Err(StatementError::Signer),
        _ => Ok(value),
    }
}

/// A JSON error quotes what it met, and that is the sender's: only printable ASCII of it goes on, and not much.
fn plain(error: &serde_json::Error) -> String {
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    error.to_string().chars().map(printable).take(200).collect()
}

/// A signed statement exactly as it came. Its payload can't be looked into before [`verify`](Self::verify).
#[derive(Clone)]
pub struct Signed {
    text: Arc<str>,
    parts: Arc<Parts>,
}

struct Parts {
    kind: Kind,
    payload: Vec<u8>,
    signer: PartyId,
    signature: [u8; 64],
}

impl Signed {
    /// Takes the text of a signed statement. Cheap: only the spelling and the bounds are checked, no signature.
    ///
    /// # Errors
    /// [`StatementError::TooLarge`], [`StatementError::Spelling`] or [`StatementError::Kind`].
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        if bytes.len() > SIGNED_BYTES {
            return Err(StatementError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| StatementError::Spelling("not UTF-8"))?;
        let parts = Parts::parse(text)?;
        Ok(Self {
            text: text.into(),
            parts: Arc::new(parts),
        })
    }

    /// The text, for transport and for the log.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The same as a string: printable ASCII.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What others would cite this statement by. It says nothing about who made it.
    pub fn digest(&self) -> Digest {
        Digest::of(&pre_authentication_encoding(self.parts.kind, &self.parts.payload))
    }

    /// Checks the signature and only then reads the payload: the one way from bytes to belief.
    ///
    /// # Errors
    /// [`StatementError::Signature`]; behind a good one [`StatementError::Payload`] or [`StatementError::Signer`].
    pub fn verify(&self) -> Result<Verified<Statement>, StatementError> {
        let Parts {
            kind,
            payload,
            signer,
            signature,
        } = &*self.parts;
        let encoding = pre_authentication_encoding(*kind, payload);
        signer
            .verify(&encoding, signature)
            .map_err(|_| StatementError::Signature)?;
        let payload = Statement::read(*kind, signer, payload)?;
        Ok(Verified {
            signed: self.clone(),
            signer: *signer,
            digest: Digest::of(&encoding),
            payload,
        })
    }
}

impl Parts {
    fn parse(text: &str) -> Result<Self, StatementError> {
        let spelling = StatementError::Spelling;
        let rest = text
            .strip_prefix(r#"{"payloadType":"application/vnd.countersign."#)
            .ok_or(spelling("its beginning"))?;
        let (kind, rest) = rest.split_once(r#"+json","payload":""#).ok_or(spelling("its type"))?;
        let (payload, rest) = rest
            .split_once(r#"","signatures":[{"keyid":""#)
            .ok_or(spelling("its payload"))?;
        let (keyid, rest) = rest.split_once(r#"","sig":""#).ok_or(spelling("its keyid"))?;
        let signature = rest.strip_suffix(r#""}]}"#).ok_or(spelling("its end"))?;

        let payload = STANDARD
            .decode(payload)
            .map_err(|_| spelling("payload not canonical base64"))?;
        if payload.len() > PAYLOAD_BYTES {
            return Err(StatementError::TooLarge);
        }
        let signer: PartyId = keyid.parse().map_err(|_| spelling("keyid not a party"))?;
        if signer.to_string() != keyid {
            return Err(spelling("keyid not in its one form"));
        }
        let signature = STANDARD
            .decode(signature)
            .map_err(|_| spelling("sig not canonical base64"))?;
        let signature = signature.try_into().map_err(|_| spelling("sig not 64 bytes"))?;
        let kind = Kind::from_word(kind).ok_or(StatementError::Kind)?;
        Ok(Self {
            kind,
            payload,
            signer,
            signature,
        })
    }
}

impl PartialEq for Signed {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Signed {}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({})", self.digest().short())
    }
}

/// Inside another payload a signed statement is a JSON object with exactly its text.
impl Serialize for Signed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.text).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get().as_bytes()).map_err(D::Error::custom)
    }
}

/// A payload with the proof that its signer signed it. Made by [`Signed::verify`] and [`sign`] alone; says nothing
/// about whether the signer had a say.
#[derive(Clone)]
pub struct Verified<T> {
    signed: Signed,
    signer: PartyId,
    digest: Digest,
    payload: T,
}

impl<T> Verified<T> {
    /// The party whose signature verified.
    pub fn signer(&self) -> PartyId {
        self.signer
    }

    /// What others cite this statement by. It covers type and payload, not the signer: where the payload doesn't name
    /// its signer (a decision), two who say exactly the same share it, so compare it together with
    /// [`signer`](Self::signer).
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The statement as it came.
    pub fn signed(&self) -> &Signed {
        &self.signed
    }

    /// The payload.
    pub fn get(&self) -> &T {
        &self.payload
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.payload
    }
}

impl<T> PartialEq for Verified<T> {
    fn eq(&self, other: &Self) -> bool {
        self.signed == other.signed
    }
}

impl<T> Eq for Verified<T> {}

impl<T> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({})", self.digest.short())
    }
}

/// What each kind needs: its narrowing from any kind to its own, and its place among the payloads.
macro_rules! kinds {
    ($($narrow:ident: $variant:ident($payload:ident),)*) => {
        impl Verified<Statement> {
            $(
                /// The same statement as what it is, if it is of this kind.
                pub fn $narrow(&self) -> Option<Verified<$payload>> {
                    match &self.payload {
                        Statement::$variant(payload) => Some(Verified {
                            signed: self.signed.clone(),
                            signer: self.signer,
                            digest: self.digest,
                            payload: payload.clone(),
                        }),
                        _ => None,
                    }
                }
            )*
        }

        $(
            impl sealed::Sealed for $payload {}

            impl From<Verified<$payload>> for Verified<Statement> {
                fn from(narrow: Verified<$payload>) -> Self {
                    let Verified { signed, signer, digest, payload } = narrow;
                    Self { signed, signer, digest, payload: Statement::$variant(payload) }
                }
            }
        )*
    };
}

kinds! {
    device: Device(Device),
    roster: Roster(Roster),
    request: Request(Request),
    decision: Decision(Decision),
    permit: Permit(Permission),
    outcome: Outcome(Outcome),
    grant: Grant(Grant),
    revocation: Revocation(Revocation),
}

/// Signs a payload. What it returns is what everybody else will take: the payload is read back by the same reader
/// before the key is used.
///
/// # Errors
/// [`StatementError::Payload`] if a bound is broken, [`StatementError::Signer`] if the payload names another party,
/// [`StatementError::TooLarge`].
pub fn sign<T: Payload>(identity: &Identity, payload: T) -> Result<Verified<T>, StatementError> {
    let bytes = serde_json::to_vec(&payload).map_err(|error| StatementError::Payload(plain(&error)))?;
    if bytes.len() > PAYLOAD_BYTES {
        return Err(StatementError::TooLarge);
    }
    let signer = identity.party();
    let payload = read::<T>(&signer, &bytes)?;
    let encoding = pre_authentication_encoding(T::KIND, &bytes);
    let signature = identity.sign(&encoding);
    let text = format!(
        r#"{{"payloadType":"application/vnd.countersign.{}+json","payload":"{}","signatures":[{{"keyid":"{signer}","sig":"{}"}}]}}"#,
        T::KIND,
        STANDARD.encode(&bytes),
        STANDARD.encode(signature),
    );
    Ok(Verified {
        signed: Signed::parse(text.as_bytes())?,
        signer,
        digest: Digest::of(&encoding),
        payload,
    })
}

/// DSSE's PAE: the type and the payload with their lengths, so that neither can run into the other.
fn pre_authentication_encoding(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let kind = format!("application/vnd.countersign.{kind}+json");
    let mut encoding = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    encoding.extend_from_slice(payload);
    encoding
}

#[cfg(test)]
mod tests;
