//! How a new device and the gate get to know each other: four messages under the invite's secret, and a short code
//! that two screens must show alike (PROTOCOL.md 13.2). Each message opens only against the one before it, so that no
//! step can be skipped. Not here: the link (`invite`), sending and waiting (the client), letting the device in
//! (`roster`, `replay`).
//!
//! ```text
//! device  Join ------------------> gate      commits to a nonce that nobody else knows
//!         <------------- Challenge           the gate's nonce
//!         Reveal ---------------->           the device's nonce: now both can show the code
//!         <---------------- Answer           after a person compared
//! ```

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use wire::envelope::EnvelopeKey;
use wire::label::{PAIRING_CODE, PAIRING_COMMITMENT, labelled};
use wire::mailbox::{Capability, MailboxId};

use crate::device::Device;
use crate::fields::{Malformed, Reader, Writer};
use crate::invite::Invite;
use crate::scalar::{Digest, Text, Time};
use crate::statement::{Signed, StatementError, Verified};

/// Bytes of a pairing message: it fits the largest envelope.
pub const PAIRING_BYTES: usize = 64_000;

const JOIN: u8 = 1;
const CHALLENGE: u8 = 2;
const REVEAL: u8 = 3;
const ANSWER: u8 = 4;
const MAC_BYTES: usize = 32;

/// Why a pairing message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairingError {
    /// The invite has ended by its age.
    #[error("the invite has expired")]
    Expired,
    /// Not made with the invite's secret: the invite stays alive.
    #[error("not made with this invite")]
    Unauthentic,
    /// Made with the secret, but not the fields of such a message: the invite has ended.
    #[error("malformed pairing message")]
    Malformed,
    /// The device's certificate is none: the invite has ended.
    #[error("device certificate: {0}")]
    Device(#[from] StatementError),
    /// It doesn't continue this pairing, or opens another nonce than the one committed to: the invite has ended.
    #[error("doesn't continue this pairing")]
    OtherPairing,
    /// A field is too long to be sent.
    #[error("pairing message too large")]
    TooLarge,
}

impl From<Malformed> for PairingError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A side's 16 random bytes in the short code.
pub type Nonce = [u8; 16];

/// Where to put what is meant for the other side.
#[derive(Clone)]
pub struct Address {
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// The key to seal to.
    pub envelope_key: EnvelopeKey,
    /// Leave to put there.
    pub capability: Capability,
}

/// The first message: a device asks to be let in.
#[derive(Clone)]
pub struct Join {
    /// The device's certificate.
    pub device: Verified<Device>,
    /// Its MLS key package, for the group to judge.
    pub key_package: Vec<u8>,
    /// Where the gate answers.
    pub address: Address,
    /// [`commitment`] to the device's nonce.
    pub commitment: Digest,
}

/// The second: the gate has taken it and shows its nonce.
#[derive(Clone)]
pub struct Challenge {
    /// The gate's nonce.
    pub nonce: Nonce,
    /// Where the device writes to from now on, once it is in.
    pub address: Address,
}

/// The third: the device shows its nonce.
#[derive(Clone)]
pub struct Reveal {
    /// The nonce that it committed to.
    pub nonce: Nonce,
}

/// The last: what the gate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the device is let in.
    pub verdict: Pairing,
    /// The same in words.
    pub text: Text,
}

/// Whether a device is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// The codes were the same and the gate adds it.
    Confirmed,
    /// The codes were the same and the admins are asked.
    Waiting,
    /// No.
    Refused,
}

/// The six digits that both screens must show alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortCode(u32);

impl fmt::Display for ShortCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03} {:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// What a device commits itself to its nonce with, before it sees the gate's.
pub fn commitment(nonce: &Nonce) -> Digest {
    Digest::of(&labelled(PAIRING_COMMITMENT, &[nonce]))
}

/// The short code of this pairing. `join` and `challenge` are the messages as sent.
pub fn short_code(join: &[u8], challenge: &[u8], device_nonce: &Nonce) -> ShortCode {
    let (join, challenge) = (Digest::of(join), Digest::of(challenge));
    let Digest([a, b, c, d, e, f, g, h, ..]) = Digest::of(&labelled(
        PAIRING_CODE,
        &[join.as_bytes(), challenge.as_bytes(), device_nonce],
    ));
    let code = u64::from_be_bytes([a, b, c, d, e, f, g, h]) % 1_000_000;
    ShortCode(u32::try_from(code).unwrap_or_default())
}

impl Join {
    /// The message, under the invite's secret.
    ///
    /// # Errors
    /// [`PairingError::TooLarge`].
    pub fn seal(&self, invite: &Invite) -> Result<Vec<u8>, PairingError> {
        let mut bytes = Writer::default();
        bytes.u8(JOIN);
        bytes
            .var16(self.device.signed().as_bytes())
            .map_err(|_| PairingError::TooLarge)?;
        bytes.var16(&self.key_package).map_err(|_| PairingError::TooLarge)?;
        self.address.write(&mut bytes);
        bytes.raw(self.commitment.as_bytes());
        authenticate(invite, bytes)
    }

    /// Reads the message at the gate. Any result but [`PairingError::Unauthentic`] ends the invite.
    ///
    /// # Errors
    /// [`PairingError`]; nothing is looked at before the MAC.
    pub fn open(bytes: &[u8], invite: &Invite, now: Time) -> Result<Self, PairingError> {
        if invite.expired(now) {
            return Err(PairingError::Expired);
        }
        let mut fields = authentic(invite, JOIN, bytes)?;
        let device = Signed::parse(fields.var16()?)?.verify()?;
        let join = Self {
            device: device.device().ok_or(PairingError::Malformed)?,
            key_package: fields.var16()?.to_vec(),
            address: Address::read(&mut fields)?,
            commitment: Digest(fields.array()?),
        };
        fields.end()?;
        Ok(join)
    }
}

impl Challenge {
    /// The message that answers `join`, the bytes as received.
    ///
    /// # Errors
    /// [`PairingError::TooLarge`].
    pub fn seal(&self, invite: &Invite, join: &[u8]) -> Result<Vec<u8>, PairingError> {
        let mut bytes = Writer::default();
        bytes.u8(CHALLENGE).raw(Digest::of(join).as_bytes()).raw(&self.nonce);
        self.address.write(&mut bytes);
        authenticate(invite, bytes)
    }

    /// Reads the message at the device that sent `join`.
    ///
    /// # Errors
    /// [`PairingError`].
    pub fn open(bytes: &[u8], invite: &Invite, join: &[u8]) -> Result<Self, PairingError> {
        let mut fields = authentic(invite, CHALLENGE, bytes)?;
        continues(&mut fields, join)?;
        let challenge = Self {
            nonce: fields.array()?,
            address: Address::read(&mut fields)?,
        };
        fields.end()?;
        Ok(challenge)
    }
}

impl Reveal {
    /// The message that answers `challenge`, the bytes as received.
    ///
    /// # Errors
    /// [`PairingError::TooLarge`].
    pub fn seal(&self, invite: &Invite, challenge: &[u8]) -> Result<Vec<u8>, PairingError> {
        let mut bytes = Writer::default();
        bytes.u8(REVEAL).raw(Digest::of(challenge).as_bytes()).raw(&self.nonce);
        authenticate(invite, bytes)
    }

    /// Reads the message at the gate that took `join` and sent `challenge`, and holds the device to its commitment:
    /// one that could choose its nonce now could choose the short code.
    ///
    /// # Errors
    /// [`PairingError`].
    pub fn open(bytes: &[u8], invite: &Invite, join: &Join, challenge: &[u8]) -> Result<Self, PairingError> {
        let mut fields = authentic(invite, REVEAL, bytes)?;
        continues(&mut fields, challenge)?;
        let nonce = fields.array()?;
        fields.end()?;
        same(&commitment(&nonce), &join.commitment)?;
        Ok(Self { nonce })
    }
}

impl Answer {
    /// The message that answers `reveal`, the bytes as received.
    ///
    /// # Errors
    /// [`PairingError::TooLarge`].
    pub fn seal(&self, invite: &Invite, reveal: &[u8]) -> Result<Vec<u8>, PairingError> {
        let verdict = match self.verdict {
            Pairing::Confirmed => 1,
            Pairing::Waiting => 2,
            Pairing::Refused => 3,
        };
        let mut bytes = Writer::default();
        bytes.u8(ANSWER).raw(Digest::of(reveal).as_bytes()).u8(verdict);
        bytes
            .var16(self.text.as_untrusted().as_bytes())
            .map_err(|_| PairingError::TooLarge)?;
        authenticate(invite, bytes)
    }

    /// Reads the message at the device that sent `reveal`.
    ///
    /// # Errors
    /// [`PairingError`].
    pub fn open(bytes: &[u8], invite: &Invite, reveal: &[u8]) -> Result<Self, PairingError> {
        let mut fields = authentic(invite, ANSWER, bytes)?;
        continues(&mut fields, reveal)?;
        let verdict = match fields.u8()? {
            1 => Pairing::Confirmed,
            2 => Pairing::Waiting,
            3 => Pairing::Refused,
            _ => return Err(PairingError::Malformed),
        };
        let text = std::str::from_utf8(fields.var16()?).map_err(|_| Malformed)?;
        let answer = Self {
            verdict,
            text: Text::new(text).map_err(|_| Malformed)?,
        };
        fields.end()?;
        Ok(answer)
    }
}

impl Address {
    fn write(&self, bytes: &mut Writer) {
        bytes
            .raw(self.mailbox.as_bytes())
            .raw(self.envelope_key.as_bytes())
            .raw(&*self.capability.to_bytes());
    }

    fn read(fields: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            mailbox: MailboxId::from_bytes(fields.array()?).map_err(|_| Malformed)?,
            envelope_key: EnvelopeKey::from_bytes(fields.array()?).map_err(|_| Malformed)?,
            capability: Capability::from_bytes(&fields.array()?),
        })
    }
}

/// Puts the MAC behind everything before it.
fn authenticate(invite: &Invite, mut bytes: Writer) -> Result<Vec<u8>, PairingError> {
    let mac = mac(invite, bytes.written())?.finalize().into_bytes();
    bytes.raw(&mac);
    let bytes = bytes.finish();
    if bytes.len() > PAIRING_BYTES {
        Err(PairingError::TooLarge)
    } else {
        Ok(bytes)
    }
}

/// The fields of a message of this type, once its MAC has been compared (in constant time).
fn authentic<'b>(invite: &Invite, kind: u8, bytes: &'b [u8]) -> Result<Reader<'b>, PairingError> {
    if bytes.len() > PAIRING_BYTES {
        return Err(PairingError::Unauthentic);
    }
    let (before, given) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(PairingError::Unauthentic)?;
    mac(invite, before)?
        .verify_slice(given)
        .map_err(|_| PairingError::Unauthentic)?;
    let mut fields = Reader::new(before);
    if fields.u8()? != kind {
        return Err(PairingError::OtherPairing);
    }
    Ok(fields)
}

fn mac(invite: &Invite, bytes: &[u8]) -> Result<Hmac<Sha256>, PairingError> {
    // HMAC takes a key of any length, so this can't fail.
    let mac = Hmac::<Sha256>::new_from_slice(&*invite.mac_key()).map_err(|_| PairingError::Unauthentic)?;
    Ok(mac.chain_update(bytes))
}

fn continues(fields: &mut Reader<'_>, previous: &[u8]) -> Result<(), PairingError> {
    same(&Digest(fields.array()?), &Digest::of(previous))
}

fn same(left: &Digest, right: &Digest) -> Result<(), PairingError> {
    if bool::from(left.as_bytes().ct_eq(right.as_bytes())) {
        Ok(())
    } else {
        Err(PairingError::OtherPairing)
    }
}

#[cfg(test)]
mod tests;
