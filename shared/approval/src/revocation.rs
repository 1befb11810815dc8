//! The kind `revocation`: an admin takes a grant back, signed by one device of theirs (PROTOCOL.md 8.8). Not here: whether
//! there is such a grant (`replay`).

use wire::identity::PartyId;

use crate::json::object;
use crate::scalar::{Digest, Text, Time};
use crate::statement::{Kind, Payload};

object! {
    /// No more of that. One person is enough: it takes leave away and gives none.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Revocation v 1 {
        /// The device that says so: the signer.
        pub party: PartyId,
        /// The digest of the grant.
        pub grant: Digest,
        /// Why, in the person's words.
        pub reason: Text,
        /// By the device's clock: for display only.
        pub time: Time,
    }
}

impl Payload for Revocation {
    const KIND: Kind = Kind::Revocation;

    fn party(&self) -> Option<PartyId> {
        Some(self.party)
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
