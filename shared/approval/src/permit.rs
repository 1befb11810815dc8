//! The kind `permit`: leave to do it once, signed by the gate (PROTOCOL.md 8.5). Not here: the leave itself
//! (`decide::Permit`), which is no statement and can't be copied; this is its record, for the transcript.

use serde::{Deserialize, Serialize};
use wire::identity::PartyId;

use crate::json::{Nothing, object, words};
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
        /// Why it may be done.
        pub basis: Basis,
        /// What holds the command in, sorted.
        pub confined: Vec<Confined>,
        /// When, by the gate's clock.
        pub time: Time,
    }
}

/// Why something may be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// People said yes: the approvals that count, in transcript order, one for each person.
    Decisions(Vec<Digest>),
    /// A grant stands for it.
    Grant(Digest),
    /// This rule of the policy, counted from 0.
    Rule(u32),
    /// The policy's mode `full`.
    Mode(Nothing),
    /// There is no admin yet, and the genesis allows that.
    Unenrolled(Nothing),
}

words! {
    /// What holds a command in, beyond what holds in every one.
    pub enum Confined {
        /// A control group of its own.
        Cgroup = "cgroup",
        /// A Landlock domain.
        Landlock = "landlock",
        /// Mounts of its own: scripts are frozen, the gate's home is hidden.
        Mounts = "mounts",
    }
}

impl Payload for Permission {
    const KIND: Kind = Kind::Permit;

    fn party(&self) -> Option<PartyId> {
        None
    }

    fn check(&self) -> Result<(), String> {
        let sorted = self
            .confined
            .iter()
            .zip(self.confined.iter().skip(1))
            .all(|(one, next)| one < next);
        if sorted {
            Ok(())
        } else {
            Err("confined not sorted, or one twice".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use crate::sample::*;
    use crate::statement::sign;

    #[test]
    fn what_confines_is_sorted_and_once() {
        let takes = |confined: &[Confined]| {
            let permit = Permission {
                request: Digest([1; 32]),
                roster: Digest([2; 32]),
                basis: Basis::Mode(Nothing {}),
                confined: confined.to_vec(),
                time: at(NOON),
            };
            sign(&identity(GATE), permit).is_ok()
        };
        assert!(takes(&[]) && takes(&[Confined::Cgroup, Confined::Landlock, Confined::Mounts]));
        assert!(!takes(&[Confined::Mounts, Confined::Cgroup]) && !takes(&[Confined::Mounts, Confined::Mounts]));
    }

    #[test]
    fn a_basis_is_one_thing() {
        let read = |text: &str| serde_json::from_str::<Basis>(text).ok();
        assert_eq!(read(r#"{"rule":3}"#), Some(Basis::Rule(3)));
        assert_eq!(read(r#"{"mode":{}}"#), Some(Basis::Mode(Nothing {})));
        assert_eq!(read(r#"{"unenrolled":{}}"#), Some(Basis::Unenrolled(Nothing {})));
        assert_eq!(read(r#"{"decisions":[]}"#), Some(Basis::Decisions(Vec::new())));
        for bad in [
            r#""mode""#,
            r#"{"mode":null}"#,
            r#"{"rule":-1}"#,
            r#"{"rule":null}"#,
            r#"{"rule":1,"mode":{}}"#,
            "{}",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
