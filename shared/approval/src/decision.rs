//! The kind `decision`: a person's answer, signed by one device of theirs (PROTOCOL.md 8.4). Not here: whether it
//! counts (`decide`).

use wire::identity::PartyId;

use crate::json::{object, words};
use crate::scalar::{Digest, Text, Time};
use crate::statement::{Kind, Payload};

words! {
    /// Yes or no.
    pub enum Answer {
        /// It may be done.
        Approve = "approve",
        /// It may not.
        Deny = "deny",
    }
}

object! {
    /// One device's answer to one request.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Decision v 1 {
        /// The device that answers: the signer. In the payload too, so that the same words of two people are two digests.
        pub party: PartyId,
        /// The digest of the request that is answered.
        pub request: Digest,
        /// Yes or no.
        pub verdict: Answer,
        /// Why, in the person's words.
        pub reason: Text,
        /// By the device's clock: for display only.
        pub time: Time,
        /// The last checkpoint that this device verified, as it is written (PROTOCOL.md 10.2).
        pub checkpoint: String,
    }
}

impl Payload for Decision {
    const KIND: Kind = Kind::Decision;

    fn party(&self) -> Option<PartyId> {
        Some(self.party)
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
