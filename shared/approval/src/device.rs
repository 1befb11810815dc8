//! The kind `device`: who holds this key, signed by the device itself (PROTOCOL.md 8.1). Not here: whose device it is
//! (`roster`).

use std::ops::Deref;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wire::identity::PartyId;

use crate::json::object;
use crate::scalar::{LeafKey, Name, Time};
use crate::statement::{Kind, Payload, Signed, Verified};

object! {
    /// A device's word about itself.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Device v 1 {
        /// The device's identity, which signs this statement.
        pub party: PartyId,
        /// The key of its leaf in the MLS group.
        pub leaf: LeafKey,
        /// What its owner calls it.
        pub name: Name,
        /// When it was made, by its own clock: for display only.
        pub created: Time,
    }
}

/// A verified `device` statement inside another payload. Reading one from JSON verifies its signature, so that a
/// verified roster holds verified devices only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate(Verified<Device>);

impl Certificate {
    /// The verified statement.
    pub fn verified(&self) -> &Verified<Device> {
        &self.0
    }
}

impl From<Verified<Device>> for Certificate {
    fn from(device: Verified<Device>) -> Self {
        Self(device)
    }
}

impl Deref for Certificate {
    type Target = Verified<Device>;

    fn deref(&self) -> &Verified<Device> {
        &self.0
    }
}

impl Serialize for Certificate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.signed().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Certificate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let signed = Signed::deserialize(deserializer)?;
        let statement = signed.verify().map_err(D::Error::custom)?;
        statement
            .device()
            .map(Self)
            .ok_or_else(|| D::Error::custom("not a device statement"))
    }
}

impl Payload for Device {
    const KIND: Kind = Kind::Device;

    fn party(&self) -> Option<PartyId> {
        Some(self.party)
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
