//! Signed statements, and behind the signature the payload of every kind (PROTOCOL.md 7, 8).

use std::fmt::Debug;

use approval::action::Action;
use approval::decision::Decision;
use approval::device::Device;
use approval::escape::is_allowed;
use approval::grant::Grant;
use approval::outcome::Outcome;
use approval::permit::Permission;
use approval::policy::Policy;
use approval::render::{Reading, parse, render, render_request};
use approval::request::Request;
use approval::revocation::Revocation;
use approval::roster::Roster;
use approval::statement::{PAYLOAD_BYTES, Payload, SIGNED_BYTES};
use approval::{Signed, Statement, StatementError, Verified, sign};

use super::{ALICE, CAROL, GATE, dsse, identity};

/// The text of a statement as anybody sends it.
pub fn statement(bytes: &[u8]) -> bool {
    let Ok(signed) = Signed::parse(bytes) else {
        return false;
    };
    assert_eq!(signed.as_bytes(), bytes);
    assert!(bytes.len() <= SIGNED_BYTES);
    assert!(
        signed.as_str().bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        "not printable ASCII"
    );
    // Inside another payload it is a JSON object of the same text.
    assert_eq!(serde_json::to_vec(&signed).expect("JSON"), bytes);
    assert_eq!(serde_json::from_slice::<Signed>(bytes).expect("JSON"), signed);
    believed(&signed).is_some()
}

/// What the statement says, if it can be believed; errors are fit to be shown.
fn believed(signed: &Signed) -> Option<Verified<Statement>> {
    match signed.verify() {
        Ok(verified) => {
            assert_eq!((verified.signed(), verified.digest()), (signed, signed.digest()));
            assert!(
                signed
                    .as_str()
                    .contains(&format!("\"keyid\":\"{}\"", verified.signer()))
            );
            Some(verified)
        }
        Err(StatementError::Signature | StatementError::Signer) => None,
        Err(StatementError::Payload(words)) => {
            assert!(
                words.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "unescaped: {words:?}"
            );
            None
        }
        Err(late) => panic!("parse had to say so: {late}"),
    }
}

/// A device's payload, signed by that device.
pub fn device(bytes: &[u8]) -> bool {
    payload::<Device>(ALICE, bytes, Verified::device).is_some()
}

/// A roster's payload, signed by the gate.
pub fn roster(bytes: &[u8]) -> bool {
    let Some(roster) = payload::<Roster>(GATE, bytes, Verified::roster) else {
        return false;
    };
    reads_back(&Action::Roster(roster.contents()));
    for device in roster.devices() {
        let gate = device.party == roster.gate;
        assert_eq!(roster.person_of(&device.party).is_none(), gate, "a device of nobody");
    }
    true
}

/// A request's payload, signed by the gate.
pub fn request(bytes: &[u8]) -> bool {
    let Some(request) = payload::<Request>(GATE, bytes, Verified::request) else {
        return false;
    };
    reads_back(&request.action);
    let shown = render_request(&request);
    assert!(
        shown.starts_with(&render(&request.action)),
        "the action doesn't come first"
    );
    assert!(
        shown.chars().all(|c| c == '\n' || is_allowed(c)),
        "unescaped: {shown:?}"
    );
    if request.reason.as_untrusted().is_empty() {
        return true;
    }
    let words = shown
        .split_once("the agent's words (untrusted)\n")
        .expect("the agent's words")
        .1;
    assert!(
        words.ends_with('\n') && words.lines().all(|line| line.starts_with("| ")),
        "unfenced: {words:?}"
    );
    true
}

/// A decision's payload, signed by the device that it names.
pub fn decision(bytes: &[u8]) -> bool {
    payload::<Decision>(ALICE, bytes, Verified::decision).is_some()
}

/// A permit's payload.
pub fn permit(bytes: &[u8]) -> bool {
    payload::<Permission>(GATE, bytes, Verified::permit).is_some()
}

/// An outcome's payload.
pub fn outcome(bytes: &[u8]) -> bool {
    payload::<Outcome>(GATE, bytes, Verified::outcome).is_some()
}

/// A grant's payload.
pub fn grant(bytes: &[u8]) -> bool {
    payload::<Grant>(GATE, bytes, Verified::grant).is_some()
}

/// A revocation's payload, signed by the device that it names.
pub fn revocation(bytes: &[u8]) -> bool {
    payload::<Revocation>(CAROL, bytes, Verified::revocation).is_some()
}

/// The text of a policy.
pub fn policy(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    match Policy::parse(text) {
        Ok(policy) => {
            assert_eq!(policy.text(), text);
            let all = 0..u32::try_from(policy.rules()).expect("few");
            assert!(all.clone().all(|rule| policy.line_of(rule).is_some_and(|line| line <= text.lines().count())));
            assert_eq!(policy.line_of(all.end), None);
            true
        }
        Err(refused) => {
            let words = refused.to_string();
            assert!(words.chars().all(is_allowed), "unescaped: {words:?}");
            false
        }
    }
}

/// Two different actions never look the same.
pub(super) fn reads_back(action: &Action) {
    let shown = render(action);
    assert_eq!(parse(&shown), Ok(Reading::of(action)), "{shown}");
    assert!(
        shown.chars().all(|c| c == '\n' || is_allowed(c)),
        "unescaped: {shown:?}"
    );
}

/// Signs the bytes as a payload of this kind and reads them back; what is taken can be said again.
fn payload<T: Payload + PartialEq + Debug>(
    seed: u8,
    bytes: &[u8],
    narrow: fn(&Verified<Statement>) -> Option<Verified<T>>,
) -> Option<T> {
    let text = dsse(seed, T::KIND.as_str(), bytes);
    let Ok(signed) = Signed::parse(text.as_bytes()) else {
        assert!(bytes.len() > PAYLOAD_BYTES, "not the text of a statement: {text}");
        return None;
    };
    let Some(verified) = believed(&signed) else {
        assert_ne!(
            signed.verify().err(),
            Some(StatementError::Signature),
            "a good signature"
        );
        return None;
    };
    let verified = narrow(&verified).expect("of the kind that was signed");
    let again = sign(identity(seed), verified.get().clone()).expect("what was taken can be signed");
    assert_eq!(again.get(), verified.get());
    Some(verified.get().clone())
}
