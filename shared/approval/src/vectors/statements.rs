//! `statements.json`: one good statement of each kind and form, and bad ones named after their flaw (PROTOCOL.md 7,
//! 8). Not here: what statements lead to (`decisions`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use grants::badly_granted;
use payloads::{badly_asked, badly_said, badly_written};

use super::{bad, frozen, text};
use crate::action::{Action, ToolCall};
use crate::decision::{Answer, Decision};
use crate::grant::Terms;
use crate::outcome::{Ended, Exit, Failed, Forbidden, Nothing, Outcome, Ran, Stream};
use crate::permit::{Basis, Confined, Permission};
use crate::request::{Class, matching};
use crate::roster::{Role, Roster, Unenrolled};
use crate::sample::*;
use crate::scalar::{Digest, Text};
use crate::statement::{PAYLOAD_BYTES, Signed, Statement, StatementError, Verified, sign};

mod grants;
mod payloads;

fn error_name(error: &StatementError) -> &'static str {
    match error {
        StatementError::TooLarge => "too_large",
        StatementError::Spelling(_) => "spelling",
        StatementError::Kind => "kind",
        StatementError::Signature => "signature",
        StatementError::Payload(_) => "payload",
        StatementError::Signer => "signer",
    }
}

fn good(name: &str, statement: impl Into<Verified<Statement>>) -> Value {
    let statement: Verified<Statement> = statement.into();
    json!({
        "name": name,
        "input": statement.signed().as_str(),
        "expect": "ok",
        "kind": statement.kind().as_str(),
        "signer": statement.signer().to_string(),
        "digest": statement.digest().to_string(),
    })
}

fn outcome(result: Ended, permitted: bool) -> Verified<Outcome> {
    let permit = permitted.then_some(permit().digest());
    let outcome = Outcome {
        request: request(&team()).digest(),
        permit,
        result,
        time: at(NOON + 9),
    };
    sign(&identity(GATE), outcome).unwrap()
}

fn permit() -> Verified<Permission> {
    let request = request(&team());
    let decisions = [ALICE, BOB].map(|seed| decision(seed, &request, Answer::Approve).digest());
    permit_by(Basis::Decisions(decisions.to_vec()), &[Confined::Cgroup])
}

fn permit_by(basis: Basis, confined: &[Confined]) -> Verified<Permission> {
    let (team, request) = (team(), request(&team()));
    let permit = Permission {
        request: request.digest(),
        roster: team.digest(),
        basis,
        confined: confined.to_vec(),
        time: at(NOON + 5),
    };
    sign(&identity(GATE), permit).unwrap()
}

/// A request for this, by the team with the policy.
fn asking(action: Action) -> Verified<crate::request::Request> {
    request_with(&team_with(POLICY), |request| {
        request.class = action.class();
        request.action = action;
    })
}

fn granted() -> Verified<crate::grant::Grant> {
    let (team, request) = (team(), asking(Action::Command(plain_command())));
    let decisions = [ALICE, BOB].map(|seed| granting(seed, &request, &terms()));
    grant(&team, &request, &decisions, &terms())
}

/// Of this version's newer kinds and forms.
fn good_ones_of_policy() -> Vec<Value> {
    let careful = request_with(&team_with(POLICY), |request| {
        request.risk = Some("careful".parse().unwrap());
        (request.need, request.veto, request.four_eyes) = (3, false, true);
        request.matching = Some(matching(&request.nonce, "407"));
        request.asked_by.under = ["chief", "helper"].map(|name| name.parse().unwrap()).to_vec();
    });
    let numbered = Decision {
        number: Some("007".to_owned()),
        ..decision(ALICE, &careful, Answer::Approve).get().clone()
    };
    let open_genesis = Roster {
        unenrolled: Unenrolled::Allow,
        ..genesis().get().clone()
    };
    let all = [Confined::Cgroup, Confined::Landlock, Confined::Mounts];
    let forbidden = |rule| outcome(Ended::Forbidden(Forbidden { rule }), false);
    // Verifiers take a tool's arguments as text.
    let given = |arguments: &str| {
        asking(Action::Tool(ToolCall {
            arguments: Text::new(arguments).unwrap(),
            ..tool_call()
        }))
    };
    vec![
        good("roster_with_a_policy", team_with(POLICY)),
        good("roster_with_an_empty_policy", team_with("")),
        good("genesis_that_allows", sign(&identity(GATE), open_genesis).unwrap()),
        good("request_script", asking(Action::Command(script()))),
        good("request_tool", asking(Action::Tool(tool_call()))),
        good("request_tool_with_no_object", given("[1")),
        good("request_tool_with_nothing", given("")),
        good("request_tool_with_a_field_twice", given(r#"{"a":1e999,"a":-0}"#)),
        good("request_secret", asking(Action::Secret(secret_use()))),
        good("request_on_careful_terms", careful.clone()),
        good("decision_with_a_number", sign(&identity(ALICE), numbered).unwrap()),
        good("decision_that_grants", granting(ALICE, &careful, &terms())),
        good("permit_by_nobody_named", permit_by(Basis::Decisions(Vec::new()), &[])),
        good("permit_by_a_grant", permit_by(Basis::Grant(granted().digest()), &[])),
        good("permit_by_a_rule", permit_by(Basis::Rule(u32::MAX), &all)),
        good(
            "permit_by_the_mode",
            permit_by(Basis::Mode(Nothing {}), &[Confined::Mounts]),
        ),
        good("permit_unenrolled", permit_by(Basis::Unenrolled(Nothing {}), &[])),
        good("outcome_released", outcome(Ended::Released(Nothing {}), true)),
        good("outcome_forbidden_by_a_rule", forbidden(Some(0))),
        good("outcome_forbidden_by_the_mode", forbidden(None)),
        good("grant", granted()),
        good("grant_without_end", {
            let request = asking(Action::Tool(tool_call()));
            grant(
                &team(),
                &request,
                &[granting(BOB, &request, &Terms::exact())],
                &Terms::exact(),
            )
        }),
        good("revocation", revocation(CAROL, &granted())),
    ]
}

fn good_ones() -> Vec<Value> {
    let request = request(&team());
    let stream = |written: &[u8]| Stream {
        sha256: Digest::of(written),
        bytes: written.len() as u64,
    };
    let ran = Ran {
        exit: Exit::Code(0),
        stdout: stream(b"done\n"),
        stderr: stream(b""),
        wall_ms: 12,
        stopped: None,
    };
    let change = request_with(&team(), |request| {
        (request.class, request.need) = (Class::Roster, 3);
        request.action = Action::Roster(
            team()
                .contents()
                .with_device("erin".parse().unwrap(), Role::Admin, device(STRANGER))
                .unwrap(),
        );
    });
    let failed = Failed {
        error: Text::new("no such file").unwrap(),
    };
    vec![
        good("device", device(ALICE)),
        good("roster_genesis", genesis()),
        good("roster_with_people", team()),
        good("request_command", request.clone()),
        good("request_roster", change),
        good("decision_approve", decision(ALICE, &request, Answer::Approve)),
        good("decision_deny", decision(CAROL, &request, Answer::Deny)),
        good("permit", permit()),
        good("outcome_ran", outcome(Ended::Ran(ran), true)),
        good("outcome_failed", outcome(Ended::Failed(failed), true)),
        good("outcome_unknown", outcome(Ended::Unknown(Nothing {}), true)),
        good("outcome_denied", outcome(Ended::Denied(Nothing {}), false)),
        good("outcome_expired", outcome(Ended::Expired(Nothing {}), false)),
        good("outcome_withdrawn", outcome(Ended::Withdrawn(Nothing {}), false)),
    ]
}

/// Flaws in the text around the payload.
fn badly_spelled() -> Vec<Value> {
    let text = device(ALICE).signed().as_str().to_owned();
    let party = identity(ALICE).party().to_string();
    let payload = payload_of(&device(ALICE));
    let with_padding = |padding: &str| {
        let mut payload = payload.clone();
        while !dsse(ALICE, "device", payload.as_bytes()).contains(&format!("{padding}\",\"signatures")) {
            payload.push(' ');
        }
        dsse(ALICE, "device", payload.as_bytes())
    };
    let padded = with_padding("A==");
    let (start, signature) = text.split_once("\"sig\":\"").unwrap();
    let loose = ["A==", "Q==", "g==", "w=="]
        .into_iter()
        .zip(["B==", "R==", "h==", "x=="]);
    let loose = loose.fold(signature.to_owned(), |text, (from, to)| text.replace(from, to));
    let spelling = |name: &str, input: String| {
        assert_ne!(input, text, "{name}");
        bad(name, input, "spelling")
    };
    vec![
        spelling("white_space_inside", text.replace(",\"payload\"", ", \"payload\"")),
        spelling("white_space_before", format!(" {text}")),
        spelling("newline_after", format!("{text}\n")),
        spelling("trailing_bytes", format!("{text}{text}")),
        spelling("byte_order_mark", format!("\u{feff}{text}")),
        spelling("cut_short", text[..text.len() - 1].to_owned()),
        spelling("empty", String::new()),
        spelling("unknown_field_outside", text.replace("}]}", "}],\"x\":1}")),
        spelling(
            "two_signatures",
            text.replace("}]}", "},{\"keyid\":\"\",\"sig\":\"\"}]}"),
        ),
        spelling(
            "no_signature",
            format!("{}\"signatures\":[]}}", text.split_once("\"signatures\"").unwrap().0),
        ),
        spelling("type_of_somebody_else", text.replace("vnd.countersign", "vnd.in-toto")),
        spelling("escaped_letter", text.replace("keyid", "\\u006beyid")),
        spelling(
            "payload_base64_unused_bits",
            padded.replace("A==\",\"sig", "B==\",\"sig"),
        ),
        spelling(
            "payload_base64_without_padding",
            padded.replace("A==\",\"sig", "A\",\"sig"),
        ),
        spelling("sig_base64_unused_bits", format!("{start}\"sig\":\"{loose}")),
        spelling(
            "sig_of_63_bytes",
            format!("{start}\"sig\":\"{}\"}}]}}", &signature[..84]),
        ),
        spelling("sig_of_no_bytes", format!("{start}\"sig\":\"\"}}]}}")),
        spelling("keyid_in_upper_case", text.replace(&party, &party.to_uppercase())),
        spelling(
            "keyid_with_bad_checksum",
            text.replace(&party, &party.replace("csid1", "csid1q")),
        ),
        spelling("keyid_empty", text.replace(&party, "")),
        bad(
            "kind_of_a_later_version",
            dsse(GATE, "lease", payload.as_bytes()),
            "kind",
        ),
        bad("kind_in_upper_case", dsse(GATE, "Device", payload.as_bytes()), "kind"),
        bad(
            "payload_of_36_kib_and_one_byte",
            {
                let fill = " ".repeat(PAYLOAD_BYTES + 1 - payload.len());
                dsse(ALICE, "device", format!("{payload}{fill}").as_bytes())
            },
            "too_large",
        ),
    ]
}

/// Flaws of the signature.
fn badly_signed() -> Vec<Value> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let text = device(ALICE).signed().as_str().to_owned();
    let (alice, bob) = (identity(ALICE).party().to_string(), identity(BOB).party().to_string());
    let payload = payload_of(&device(ALICE));
    let (start, rest) = text.split_once("\"sig\":\"").unwrap();
    let signature: [u8; 64] = STANDARD
        .decode(rest.strip_suffix("\"}]}").unwrap())
        .unwrap()
        .try_into()
        .unwrap();
    let signed_with = |signature: &[u8]| format!("{start}\"sig\":\"{}\"}}]}}", STANDARD.encode(signature));
    let mut flipped = signature;
    flipped[5] ^= 1;
    let request = request(&team()).signed().as_str().to_owned();
    vec![
        bad("wrong_keyid", text.replace(&alice, &bob), "signature"),
        bad("flipped_signature", signed_with(&flipped), "signature"),
        bad("signature_with_s_plus_l", signed_with(&plus_l(signature)), "signature"),
        bad("signature_of_zeros", signed_with(&[0; 64]), "signature"),
        bad(
            "signature_over_the_payload_alone",
            signed_with(&identity(ALICE).sign(payload.as_bytes())),
            "signature",
        ),
        bad(
            "type_changed_after_signing",
            text.replace(".device+", ".decision+"),
            "signature",
        ),
        bad(
            "payload_of_another_statement",
            {
                let (_, rest) = text.split_once("\",\"signatures").unwrap();
                format!(
                    "{}\",\"signatures{rest}",
                    request
                        .split_once("\",\"signatures")
                        .unwrap()
                        .0
                        .replace(".request+", ".device+")
                )
            },
            "signature",
        ),
        bad(
            "device_signed_by_another",
            dsse(BOB, "device", payload.as_bytes()),
            "signer",
        ),
        bad(
            "roster_signed_by_a_stranger",
            dsse(STRANGER, "roster", payload_of(&team()).as_bytes()),
            "signer",
        ),
        bad(
            "request_signed_by_an_admin",
            dsse(ALICE, "request", payload_of(&command_request()).as_bytes()),
            "signer",
        ),
        bad(
            "revocation_signed_by_another",
            dsse(BOB, "revocation", payload_of(&revocation(CAROL, &granted())).as_bytes()),
            "signer",
        ),
    ]
}

fn command_request() -> Verified<crate::request::Request> {
    request(&team())
}

/// The same signature with the group's order added to S: a verifier that isn't strict takes both.
fn plus_l(mut signature: [u8; 64]) -> [u8; 64] {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, l) in signature[32..].iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(l) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    signature
}

fn made() -> Value {
    [
        good_ones(),
        good_ones_of_policy(),
        badly_spelled(),
        badly_signed(),
        badly_written(),
        badly_asked(),
        badly_said(),
        badly_granted(),
    ]
    .concat()
    .into()
}

#[test]
fn every_statement_is_taken_or_refused_as_frozen() {
    let frozen = frozen("statements.json", &made());
    let mut names = std::collections::BTreeSet::new();
    for vector in frozen.as_array().unwrap() {
        let name = text(vector, "name");
        assert!(names.insert(name), "{name} twice");
        let result = Signed::parse(text(vector, "input").as_bytes()).and_then(|signed| signed.verify());
        match result {
            Err(error) => assert_eq!(error_name(&error), text(vector, "expect"), "{name}: {error}"),
            Ok(statement) => {
                assert_eq!(text(vector, "expect"), "ok", "{name}");
                assert_eq!(statement.kind().as_str(), text(vector, "kind"));
                assert_eq!(statement.signer().to_string(), text(vector, "signer"));
                assert_eq!(statement.digest().to_string(), text(vector, "digest"));
            }
        }
    }
}
