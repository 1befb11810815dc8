//! The kind `decision`: a person's answer, signed by one device of theirs (PROTOCOL.md 8.4). Not here: whether it
//! counts (`decide`).

use wire::identity::PartyId;

use crate::grant::Terms;
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
        /// The number that was shown where it was asked: three digits.
        pub number: Option<String>,
        /// What is granted for good beside this one time.
        pub grant: Option<Terms>,
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
        let digits = |number: &String| number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit());
        if !self.number.iter().all(digits) {
            return Err("a number that isn't three digits".to_owned());
        }
        if self.verdict == Answer::Deny && (self.number.is_some() || self.grant.is_some()) {
            return Err("a denial with a number or a grant".to_owned());
        }
        self.grant.as_ref().map_or(Ok(()), Terms::check)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use crate::sample::*;
    use crate::statement::sign;

    fn takes(verdict: Answer, number: Option<&str>, grant: Option<Terms>) -> bool {
        let decision = Decision {
            number: number.map(str::to_owned),
            grant,
            ..decision(ALICE, &request(&team()), verdict).get().clone()
        };
        sign(&identity(ALICE), decision).is_ok()
    }

    #[test]
    fn a_number_is_three_digits() {
        assert!(takes(Answer::Approve, None, None) && takes(Answer::Approve, Some("007"), None));
        for bad in ["", "12", "1234", "12a", " 12", "\u{661}\u{662}\u{663}"] {
            assert!(!takes(Answer::Approve, Some(bad), None), "{bad}");
        }
    }

    #[test]
    fn a_denial_grants_nothing_and_takes_no_number() {
        assert!(takes(Answer::Approve, Some("123"), Some(terms())));
        assert!(takes(Answer::Deny, None, None));
        assert!(!takes(Answer::Deny, Some("123"), None) && !takes(Answer::Deny, None, Some(terms())));
    }

    #[test]
    fn the_terms_of_a_grant_are_checked_where_they_are_said() {
        let bad = Terms {
            uses: Some(0),
            ..terms()
        };
        assert!(!takes(Answer::Approve, None, Some(bad)));
    }
}
