//! The kind `request`: may this be done? Signed by the gate (PROTOCOL.md 8.3). Not here: the action (`action`), the
//! answer (`decide`).

use wire::identity::PartyId;
use wire::label::{NUMBER, labelled};

use crate::action::Action;
use crate::json::{object, words};
use crate::scalar::{Digest, Id16, Name, REASON_BYTES, Text, Time};
use crate::statement::{Kind, Payload};

words! {
    /// What kind of action, and so which quorum.
    pub enum Class {
        /// Run a command.
        Command = "command",
        /// Call a tool.
        Tool = "tool",
        /// Use a secret.
        Secret = "secret",
        /// Change the roster.
        Roster = "roster",
    }
}

object! {
    /// One question to the admins.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Request v 1 {
        /// The gate, which signs this statement.
        pub gate: PartyId,
        /// Drawn when the gate's state was made: another one voids all that was open.
        pub incarnation: Id16,
        /// The position of this request in the transcript: elsewhere it is void.
        pub index: u64,
        /// Drawn by the gate, so that the same action asked twice is two requests.
        pub nonce: Id16,
        /// The digest of the roster in force when it was asked.
        pub roster: Digest,
        /// What kind of action.
        pub class: Class,
        /// The class of risk by the policy in force when it was asked.
        pub risk: Option<Name>,
        /// How many people had to say yes when it was asked.
        pub need: u16,
        /// Whether one denial was enough then.
        pub veto: bool,
        /// Whether whoever asks couldn't approve then.
        pub four_eyes: bool,
        /// What the number must be that approvals repeat ([`matching`]).
        pub matching: Option<Digest>,
        /// What is to be done.
        pub action: Action,
        /// For whom.
        pub asked_by: AskedBy,
        /// The agent's words: untrusted, and no part of what is approved.
        pub reason: Text<REASON_BYTES>,
        /// When, by the gate's clock.
        pub created: Time,
        /// It lives strictly before this, by the gate's clock.
        pub expires: Time,
    }
}

object! {
    /// For whom a request is made, as the gate was told.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AskedBy {
        /// The agent.
        pub agent: Name,
        /// The agents that it works for, the outermost first.
        pub under: Vec<Name>,
        /// Who talks to it.
        pub user: Option<Text>,
        /// Where they talk.
        pub conversation: Option<Text>,
        /// On what.
        pub platform: Option<Text>,
    }
}

/// Agents above an agent.
pub const UNDER: usize = 8;

/// What a request holds in place of the number that its approvals must repeat (8.3). `number` is three ASCII digits.
pub fn matching(nonce: &Id16, number: &str) -> Digest {
    Digest::of(&labelled(NUMBER, &[&nonce.0, number.as_bytes()]))
}

/// The longest life of a request: 24 hours, in milliseconds.
pub const LIFE_MS: u64 = 24 * 60 * 60 * 1000;

impl Payload for Request {
    const KIND: Kind = Kind::Request;

    fn party(&self) -> Option<PartyId> {
        Some(self.gate)
    }

    fn check(&self) -> Result<(), String> {
        self.action.check()?;
        let own_gate = match &self.action {
            Action::Command(_) | Action::Tool(_) | Action::Secret(_) => true,
            Action::Roster(contents) => contents.gate_device.party == self.gate,
        };
        let life = self.expires.millis().checked_sub(self.created.millis());
        let rules = [
            (self.class == self.action.class(), "class doesn't match the action"),
            (self.need >= 1, "need is zero"),
            (self.asked_by.under.len() <= UNDER, "too many agents above the agent"),
            (own_gate, "gate device is another gate's"),
            (
                life.is_some_and(|life| (1..=LIFE_MS).contains(&life)),
                "expires not after created, or more than 24 hours later",
            ),
        ];
        rules
            .into_iter()
            .try_for_each(|(kept, rule)| if kept { Ok(()) } else { Err(rule.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use crate::sample::*;
    use crate::statement::{StatementError, sign};

    fn takes(edit: impl FnOnce(&mut Request)) -> bool {
        let mut request = request(&team()).get().clone();
        edit(&mut request);
        match sign(&identity(GATE), request) {
            Ok(_) => true,
            Err(StatementError::Payload(_)) => false,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn it_lives_from_a_millisecond_to_a_day() {
        assert!(takes(|request| request.expires = at(NOON + 1)));
        assert!(takes(|request| request.expires = at(NOON + LIFE_MS)));
        assert!(!takes(|request| request.expires = at(NOON)));
        assert!(!takes(|request| request.expires = at(NOON - 1)));
        assert!(!takes(|request| request.expires = at(NOON + LIFE_MS + 1)));
    }

    #[test]
    fn at_most_eight_agents_are_above_an_agent() {
        let under = |count: usize| vec!["boss".parse::<Name>().unwrap(); count];
        assert!(takes(|request| request.asked_by.under = under(UNDER)));
        assert!(!takes(|request| request.asked_by.under = under(UNDER + 1)));
    }

    #[test]
    fn a_number_is_of_one_request_alone() {
        let nonce = Id16([1; 16]);
        let here = matching(&nonce, "042");
        assert_ne!(here, matching(&nonce, "043"));
        assert_ne!(here, matching(&Id16([2; 16]), "042"));
        let by_hand = [&b"countersign/v1 number\0"[..], &[1; 16], b"042"].concat();
        assert_eq!(here, Digest::of(&by_hand));
    }

    #[test]
    fn somebody_must_say_yes() {
        assert!(!takes(|request| request.need = 0));
    }

    #[test]
    fn its_class_is_its_actions() {
        assert!(!takes(|request| request.class = Class::Roster));
        assert!(!takes(|request| request.action = Action::Roster(team().contents())));
        assert!(takes(|request| {
            request.class = Class::Roster;
            request.action = Action::Roster(team().contents());
        }));
    }

    #[test]
    fn it_cannot_put_another_gates_certificate_in_force() {
        assert!(!takes(|request| {
            request.class = Class::Roster;
            request.action = Action::Roster(genesis_of(OTHER_GATE).contents());
        }));
    }

    #[test]
    fn what_is_not_said_is_null_and_never_missing() {
        let payload = payload_of(&request(&team()));
        let read = |text: &str| serde_json::from_str::<Request>(text).is_ok();
        assert!(payload.contains(r#""conversation":null,"#) && read(&payload));
        assert!(!read(&payload.replace(r#""conversation":null,"#, "")));
    }

    #[test]
    fn the_reason_may_be_four_kib() {
        assert!(Text::<REASON_BYTES>::new("a".repeat(4096)).is_ok());
        assert!(Text::<REASON_BYTES>::new("a".repeat(4097)).is_err());
    }
}
