//! The MLS group of one gate (`PROTOCOL.md`, section 12), on OpenMLS: who is in it, what it encrypts, which commits it
//! believes.
//!
//! Deliberately not here: what the application data means (`approval`), who stands in the roster (the transcript says so, and
//! the caller passes it in as [`Membership`]), and every store, socket and relay. Rows go in through [`Mls::new`] and come out
//! through [`Mls::take_changes`]; the caller writes them in one transaction with whatever the call was about, and lets no
//! ciphertext out before that transaction is committed: encrypting again after a crash would use a message key twice.
//!
//! Start with [`Group`]. The gate creates it, [`Group::change`]s it and is the only one who does; a device makes a
//! [`key_package`], [`Group::join`]s and [`Group::receive`]s.

mod commit;
mod group;
mod key_package;
mod leaf_key;
mod mls;
#[cfg(test)]
mod tests;

use openmls::prelude::{
    BasicCredential, Ciphersuite, Credential, CredentialType, CredentialWithKey, Extension, ExtensionType, Extensions,
    GroupContext, Member, RequiredCapabilitiesExtension, UnknownExtension,
};
use thiserror::Error;
use wire::identity::PartyId;

pub use group::{Change, Group, Received};
pub use key_package::{check_key_package, key_package};
pub use leaf_key::LeafKey;
pub use mls::Mls;

/// Longest application data of one message, in bytes: with the group's framing around it, it still fits an envelope.
pub const DATA_BYTES: usize = 64_000;

/// Epochs that a message may be ahead of the group and still be worth holding: as many as messages are held for a gap.
pub const EPOCHS_AHEAD: u64 = 64;

/// The one suite: X25519, `ChaCha20-Poly1305`, SHA-256, Ed25519 (0x0003).
const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;

/// The private group-context extension: gate and roster digest.
const EXTENSION: u16 = 0xFF10;

/// A member as the tree shows it and as a device certificate names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The party, which the leaf's credential claims.
    pub party: PartyId,
    /// The Ed25519 key that signs the party's messages in the group.
    pub leaf: [u8; 32],
}

/// Who may be in the tree, as a verified roster says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The gate, from its device certificate in that roster.
    pub gate: Leaf,
    /// The devices in that roster.
    pub members: Vec<Leaf>,
    /// The digest of that roster.
    pub roster: [u8; 32],
}

/// Why a message was dropped or a group isn't what it must be. Nothing was changed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Longer than an envelope holds.
    #[error("longer than an envelope")]
    TooLong,
    /// Not an MLS message of the kind that is expected here.
    #[error("not an mls message of this kind")]
    Malformed,
    /// A handshake or welcome in clear; external commits come that way too.
    #[error("not encrypted to the group")]
    Unencrypted,
    /// A message of another group.
    #[error("of another group")]
    AnotherGroup,
    /// This member was removed.
    #[error("no longer a member")]
    NotAMember,
    /// A proposal on its own: held by reference it would block the group.
    #[error("a standalone proposal")]
    Proposal,
    /// From before what is kept: the sender must encrypt it anew.
    #[error("older than what is kept")]
    TooOld,
    /// Further ahead than can be held or stepped over.
    #[error("too far ahead")]
    TooFarAhead,
    /// Forged, damaged, or made by the other half of a fork.
    #[error("can't be opened")]
    Unopened,
    /// MLS itself doesn't allow this commit.
    #[error("not a valid commit")]
    BadCommit,
    /// A commit by somebody else than the gate.
    #[error("a commit that isn't the gate's")]
    NotTheGate,
    /// A commit with something else than adds, removes and the group-context extensions, or not by value.
    #[error("a commit with other proposals")]
    OtherProposals,
    /// The group context isn't exactly the one of section 12, or names another gate.
    #[error("not our group context")]
    Context,
    /// The roster expected isn't the one that the group names.
    #[error("another roster")]
    AnotherRoster,
    /// A leaf without a party as its credential.
    #[error("a leaf without a party")]
    BadLeaf,
    /// A leaf that is neither the gate's nor a device's in the roster.
    #[error("a leaf that isn't in the roster")]
    NotInRoster,
    /// A party has two leaves.
    #[error("a party with two leaves")]
    Twice,
    /// The gate isn't in the tree where it must be.
    #[error("the gate isn't in its place")]
    NoGate,
    /// Our own leaf isn't in the tree as it must be.
    #[error("our own leaf isn't in its place")]
    NotOurs,
}

/// What a call on the group fails with. After [`ChannelError::Broken`] the [`Mls`] and the [`Group`] must be dropped and loaded again
/// from the rows last written: what is in memory may be ahead of them, and one more message from it would corrupt the group for
/// good. The others leave both as they were.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// The rows or the group in memory aren't to be used any further.
    #[error("the group's state is unusable: {0}")]
    Broken(String),
    /// The store holds a group already.
    #[error("there is a group already")]
    GroupExists,
    /// The application data is longer than [`DATA_BYTES`].
    #[error("longer than {DATA_BYTES} bytes")]
    TooLong,
    /// This member was removed.
    #[error("no longer a member of the group")]
    NotAMember,
    /// Only the gate changes the group.
    #[error("only the gate changes the group")]
    NotTheGate,
    /// The party to be removed isn't in the group, or is the gate.
    #[error("no such member to remove")]
    NoSuchMember,
    /// The change can't be made.
    #[error("the change can't be made: {0}")]
    Change(Refused),
    /// The key package isn't what it must be.
    #[error("unusable key package: {0}")]
    KeyPackage(&'static str),
    /// The Welcome doesn't lead into this gate's group.
    #[error("unusable welcome: {0}")]
    Welcome(Refused),
}

impl ChannelError {
    fn broken(cause: impl std::fmt::Display) -> Self {
        Self::Broken(cause.to_string())
    }
}

impl Leaf {
    fn of(credential: &Credential, signature_key: &[u8]) -> Result<Self, Refused> {
        let identity = <[u8; 32]>::try_from(credential.serialized_content()).map_err(|_| Refused::BadLeaf)?;
        let basic = credential.credential_type() == CredentialType::Basic;
        let party = PartyId::from_bytes(identity).map_err(|_| Refused::BadLeaf)?;
        let leaf = <[u8; 32]>::try_from(signature_key).map_err(|_| Refused::BadLeaf)?;
        basic.then_some(Self { party, leaf }).ok_or(Refused::BadLeaf)
    }

    fn of_member(member: &Member) -> Result<Self, Refused> {
        Self::of(&member.credential, &member.signature_key)
    }

    fn credential(&self) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(self.party.as_bytes().to_vec()).into(),
            signature_key: self.leaf.to_vec().into(),
        }
    }
}

impl Membership {
    /// Holds the leaves of a tree against the roster: each is the gate's or a device's, no party twice, the gate among them.
    fn admits(&self, leaves: &[Leaf]) -> Result<(), Refused> {
        for (index, leaf) in leaves.iter().enumerate() {
            if *leaf != self.gate && !self.members.contains(leaf) {
                return Err(Refused::NotInRoster);
            }
            // OpenMLS refuses a second leaf with the same key, but not one with the same party.
            if leaves.iter().take(index).any(|other| other.party == leaf.party) {
                return Err(Refused::Twice);
            }
        }
        leaves.contains(&self.gate).then_some(()).ok_or(Refused::NoGate)
    }
}

/// What the group context says beyond MLS itself.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Context {
    gate: PartyId,
    roster: [u8; 32],
}

impl Context {
    fn required() -> RequiredCapabilitiesExtension {
        RequiredCapabilitiesExtension::new(&[ExtensionType::Unknown(EXTENSION)], &[], &[])
    }

    fn extensions(&self) -> Result<Extensions<GroupContext>, ChannelError> {
        let named = [self.gate.as_bytes().as_slice(), &self.roster].concat();
        Extensions::from_vec(vec![
            Extension::RequiredCapabilities(Self::required()),
            Extension::Unknown(EXTENSION, UnknownExtension(named)),
        ])
        .map_err(ChannelError::broken)
    }

    /// Reads the group context back. Anything besides the two extensions is refused: `external_senders`, for one, would let
    /// strangers propose.
    fn read(extensions: &Extensions<GroupContext>) -> Result<Self, Refused> {
        let ours = extensions.iter().count() == 2 && extensions.required_capabilities() == Some(&Self::required());
        let Some(UnknownExtension(named)) = extensions.unknown(EXTENSION).filter(|_| ours) else {
            return Err(Refused::Context);
        };
        let (gate, roster) = named.split_first_chunk::<32>().ok_or(Refused::Context)?;
        Ok(Self {
            gate: PartyId::from_bytes(*gate).map_err(|_| Refused::Context)?,
            roster: roster.try_into().map_err(|_| Refused::Context)?,
        })
    }
}
