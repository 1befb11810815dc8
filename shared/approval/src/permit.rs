//! The kind `permit`: leave to do it once, signed by the gate (PROTOCOL.md 8.5). Not here: the leave itself
//! (`decide::Permit`), which is no statement and can't be copied; this is its record, for the transcript.

use wire::identity::PartyId;

use crate::json::object;
use crate::scalar::{Digest, Time};
use crate::statement::{Kind, Payload};

object! {
    /// The record of a permit.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Permission v 1 {
        /// The digest of the request.
        pub request: Digest,
        /// The digest of the roster by which it was decided.
        pub roster: Digest,
        /// The approvals that count, in transcript order, one for each person.
        pub decisions: Vec<Digest>,
        /// When, by the gate's clock.
        pub time: Time,
    }
}

impl Payload for Permission {
    const KIND: Kind = Kind::Permit;

    fn party(&self) -> Option<PartyId> {
        None
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
