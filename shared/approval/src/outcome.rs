//! The kind `outcome`: how it ended, signed by the gate (PROTOCOL.md 8.6). Not here: whether the log allows it there
//! (`replay`).

use serde::{Deserialize, Serialize};

use wire::identity::PartyId;

pub use crate::json::Nothing;
use crate::json::{object, words};
use crate::scalar::{Digest, Text, Time};
use crate::statement::{Kind, Payload};

object! {
    /// How a request ended.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Outcome v 1 {
        /// The digest of the request.
        pub request: Digest,
        /// The digest of its permit statement, if it was permitted.
        pub permit: Option<Digest>,
        /// What happened.
        pub result: Ended,
        /// When, by the gate's clock.
        pub time: Time,
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// It ran.
    Ran(Ran),
    /// Permitted, and handed to whoever asked.
    Released(Nothing),
    /// It was permitted, but never started.
    Failed(Failed),
    /// It was permitted, and the gate can't say what happened.
    Unknown(Nothing),
    /// An admin said no.
    Denied(Nothing),
    /// Nobody said yes in time.
    Expired(Nothing),
    /// The asker took it back.
    Withdrawn(Nothing),
    /// The policy says no.
    Forbidden(Forbidden),
}

object! {
    /// What in the policy says no.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Forbidden {
        /// The rule, counted from 0; null for the mode.
        pub rule: Option<u32>,
    }
}

impl Ended {
    /// Whether this can only follow a permit.
    pub fn needs_permit(&self) -> bool {
        matches!(
            self,
            Self::Ran(_) | Self::Released(_) | Self::Failed(_) | Self::Unknown(_)
        )
    }
}

object! {
    /// A command that ran to its end.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Ran {
        /// How it ended.
        pub exit: Exit,
        /// What it wrote to standard output.
        pub stdout: Stream,
        /// What it wrote to standard error.
        pub stderr: Stream,
        /// How long it took, in milliseconds.
        pub wall_ms: u64,
        /// Why the gate stopped it, if it did.
        pub stopped: Option<Stopped>,
    }
}

object! {
    /// A command that never started.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Failed {
        /// Why.
        pub error: Text,
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

object! {
    /// Everything that was written to a stream, also what was dropped because of the limit.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Stream {
        /// SHA-256 of all of it.
        pub sha256: Digest,
        /// How many bytes.
        pub bytes: u64,
    }
}

words! {
    /// Why the gate stopped a command.
    pub enum Stopped {
        /// It ran longer than allowed.
        WallLimit = "wall_limit",
        /// It wrote more than allowed.
        OutputLimit = "output_limit",
        /// Whoever asked for it went away.
        AskerLeft = "asker_left",
    }
}

impl Payload for Outcome {
    const KIND: Kind = Kind::Outcome;

    fn party(&self) -> Option<PartyId> {
        None
    }

    fn check(&self) -> Result<(), String> {
        match (self.permit, self.result.needs_permit()) {
            (None, true) => Err("ended after a permit, but names none".to_owned()),
            (Some(_), false) => Err("never permitted, but names a permit".to_owned()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use crate::sample::*;
    use crate::statement::{StatementError, sign};

    fn outcome(result: Ended, permitted: bool) -> Outcome {
        let permit = permitted.then_some(Digest([2; 32]));
        Outcome {
            request: Digest([1; 32]),
            permit,
            result,
            time: at(NOON),
        }
    }

    #[test]
    fn only_what_was_permitted_ran_failed_or_is_unknown() {
        let stream = Stream {
            sha256: Digest::of(b""),
            bytes: 0,
        };
        let ran = Ran {
            exit: Exit::Signal(9),
            stdout: stream,
            stderr: stream,
            wall_ms: 5,
            stopped: Some(Stopped::WallLimit),
        };
        let permitted = [
            Ended::Ran(ran),
            Ended::Failed(Failed {
                error: Text::cut("gone"),
            }),
            Ended::Unknown(Nothing {}),
            Ended::Released(Nothing {}),
        ];
        let refused = [
            Ended::Denied(Nothing {}),
            Ended::Expired(Nothing {}),
            Ended::Withdrawn(Nothing {}),
            Ended::Forbidden(Forbidden { rule: Some(3) }),
            Ended::Forbidden(Forbidden { rule: None }),
        ];
        for (results, needs_permit) in [(&permitted[..], true), (&refused[..], false)] {
            for result in results {
                let signed = sign(&identity(GATE), outcome(result.clone(), needs_permit)).unwrap();
                assert_eq!(signed.signed().verify().unwrap().outcome().unwrap().get(), signed.get());
                let other = sign(&identity(GATE), outcome(result.clone(), !needs_permit));
                assert!(matches!(other, Err(StatementError::Payload(_))));
            }
        }
    }

    #[test]
    fn a_result_is_one_thing() {
        let read = |text: &str| serde_json::from_str::<Ended>(text).is_ok();
        assert!(read(r#"{"denied":{}}"#) && read(r#"{"failed":{"error":"x"}}"#));
        for bad in [
            r#""denied""#,
            r#"{"denied":null}"#,
            r#"{"denied":[]}"#,
            r#"{"denied":{},"expired":{}}"#,
            r#"{"forbidden":{}}"#,
            r#"{"denied":{"by":"x"}}"#,
            r#"{"Denied":{}}"#,
            "{}",
        ] {
            assert!(!read(bad), "{bad}");
        }
        let exit = |text: &str| serde_json::from_str::<Exit>(text).is_ok();
        assert!(exit(r#"{"code":-1}"#) && !exit(r#"{"code":2147483648}"#) && !exit(r#"{"code":0,"signal":9}"#));
    }
}
