//! Key packages: what a device hands the gate at pairing so that it can be added (`PROTOCOL.md`, sections 12 and 13).
//! Whether the device may be added at all is deliberately not decided here.

use openmls::prelude::tls_codec::DeserializeBytes as _;
use openmls::prelude::{
    Capabilities, CredentialType, ExtensionType, KeyPackage, Lifetime, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    OpenMlsProvider as _, ProtocolVersion,
};
use openmls_rust_crypto::RustCrypto;
use wire::identity::PartyId;
use wire::limits::ENVELOPE_MESSAGE_BYTES;

use super::{ChannelError, EXTENSION, Leaf, LeafKey, Mls, SUITE};

const DAY: u64 = 24 * 60 * 60;

/// How long a key package is valid, in seconds. Long, because OpenMLS checks it again wherever an add is received: an admin who
/// comes back after that time could never process the commit that added a colleague meanwhile.
const LIFETIME: u64 = 366 * DAY;

/// How far another device's clock may be behind, in seconds. OpenMLS's own hour is little: a member beyond it would refuse the
/// commit and be stuck.
const SKEW: u64 = DAY;

pub(super) fn lifetime() -> Lifetime {
    let from_now = Lifetime::new(LIFETIME);
    Lifetime::init(from_now.not_before().saturating_sub(SKEW), from_now.not_after())
}

pub(super) fn capabilities() -> Capabilities {
    Capabilities::new(
        Some(&[ProtocolVersion::Mls10]),
        Some(&[SUITE]),
        Some(&[ExtensionType::Unknown(EXTENSION)]),
        Some(&[]),
        Some(&[CredentialType::Basic]),
    )
}

/// Makes a key package for `party`, whose leaf key is `key`. Its secrets stay in `mls` until [`super::Group::join`] uses them.
///
/// # Errors
///
/// [`ChannelError::Broken`].
pub fn key_package(mls: &mut Mls, key: &LeafKey, party: PartyId) -> Result<Vec<u8>, ChannelError> {
    let own = Leaf {
        party,
        leaf: key.public(),
    };
    let bundle = KeyPackage::builder()
        .leaf_node_capabilities(capabilities())
        .key_package_lifetime(lifetime())
        .build(SUITE, mls.provider(), key, own.credential())
        .map_err(ChannelError::broken)?;
    MlsMessageOut::from(bundle.into_key_package())
        .to_bytes()
        .map_err(ChannelError::broken)
}

/// Checks a key package at pairing: that it is valid now, and is the one device's that its certificate names.
///
/// # Errors
///
/// [`ChannelError::KeyPackage`] with what is wrong with it.
pub fn check_key_package(bytes: &[u8], expect: &Leaf) -> Result<(), ChannelError> {
    let (_, leaf) = verified(bytes, &RustCrypto::default())?;
    if leaf != *expect {
        return Err(ChannelError::KeyPackage("not this device's"));
    }
    Ok(())
}

/// Reads a key package and verifies all that can be seen of it without knowing whose it should be.
pub(super) fn verified(bytes: &[u8], crypto: &RustCrypto) -> Result<(KeyPackage, Leaf), ChannelError> {
    if bytes.len() > ENVELOPE_MESSAGE_BYTES {
        return Err(ChannelError::KeyPackage("too long"));
    }
    let message =
        MlsMessageIn::tls_deserialize_exact_bytes(bytes).map_err(|_| ChannelError::KeyPackage("malformed"))?;
    let MlsMessageBodyIn::KeyPackage(unverified) = message.extract() else {
        return Err(ChannelError::KeyPackage("another kind of message"));
    };
    let package = unverified
        .validate(crypto, ProtocolVersion::Mls10)
        .map_err(|_| ChannelError::KeyPackage("not signed by its leaf key, or not valid now"))?;
    let (node, lifetime) = (package.leaf_node(), package.life_time());
    if package.ciphersuite() != SUITE {
        return Err(ChannelError::KeyPackage("another cipher suite"));
    }
    // OpenMLS knows the bound but asks nobody to keep it; the hour is its own skew.
    if lifetime.not_after().saturating_sub(lifetime.not_before()) > LIFETIME + SKEW + 60 * 60 {
        return Err(ChannelError::KeyPackage("valid for too long"));
    }
    let able = node.capabilities();
    if !able.extensions().contains(&ExtensionType::Unknown(EXTENSION))
        || !able.credentials().contains(&CredentialType::Basic)
    {
        return Err(ChannelError::KeyPackage("without a capability that the group requires"));
    }
    // Every member would have to understand it, and the last-resort extension lets a package be used twice.
    if node.extensions().iter().next().is_some() {
        return Err(ChannelError::KeyPackage("leaf extensions"));
    }
    if package.extensions().iter().next().is_some() {
        return Err(ChannelError::KeyPackage("key package extensions"));
    }
    let leaf = Leaf::of(node.credential(), node.signature_key().as_slice())
        .map_err(|_| ChannelError::KeyPackage("a leaf without a party"))?;
    Ok((package, leaf))
}

impl Mls {
    pub(super) fn verified_key_package(&self, bytes: &[u8]) -> Result<(KeyPackage, Leaf), ChannelError> {
        verified(bytes, self.provider().crypto())
    }
}
