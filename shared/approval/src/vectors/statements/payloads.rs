//! Statements that are well signed by their own author, each with one flaw in its payload (PROTOCOL.md 8). Not here:
//! flaws around the payload.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;

use super::{command_request, outcome, permit};
use crate::action::Command;
use crate::decision::Answer;
use crate::outcome::{Ended, Nothing};
use crate::sample::*;
use crate::scalar::ByteString;
use crate::statement::{Kind, Verified};
use crate::vectors::bad;

/// A statement with one flaw in its payload, well signed by its own author.
fn flawed<T>(name: &str, seed: u8, kind: Kind, statement: &Verified<T>, from: &str, to: &str) -> Value {
    let payload = payload_of(statement);
    assert!(payload.contains(from), "{name}: {from} not in {payload}");
    bad(
        name,
        dsse(seed, kind.as_str(), payload.replacen(from, to, 1).as_bytes()),
        "payload",
    )
}

/// Flaws that any payload could have.
pub(super) fn badly_written() -> Vec<Value> {
    let device = device(ALICE);
    let flaw = |name: &str, from: &str, to: &str| flawed(name, ALICE, Kind::Device, &device, from, to);
    let payload = payload_of(&device);
    let signed = |name: &str, payload: &[u8]| bad(name, dsse(ALICE, "device", payload), "payload");
    vec![
        flaw("duplicate_field", "\"created\"", "\"name\":\"device-2\",\"created\""),
        flaw("duplicate_version", "{\"v\":1,", "{\"v\":1,\"v\":1,"),
        flaw("unknown_field", "{\"v\":1,", "{\"v\":1,\"x\":1,"),
        flaw("missing_field", "\"name\":\"device-2\",", ""),
        flaw("version_2", "{\"v\":1,", "{\"v\":2,"),
        flaw("version_missing", "{\"v\":1,", "{"),
        flaw("version_as_text", "{\"v\":1,", "{\"v\":\"1\","),
        flaw("version_as_fraction", "{\"v\":1,", "{\"v\":1.0,"),
        flaw("name_in_upper_case", "device-2", "Device-2"),
        flaw("name_with_a_space", "device-2", "device 2"),
        flaw("name_empty", "device-2", ""),
        flaw("name_of_65_characters", "device-2", &"n".repeat(65)),
        flaw("name_starting_with_a_dot", "device-2", ".device"),
        flaw("leaf_of_33_bytes", "\"leaf\":\"QkJC", "\"leaf\":\"QkJCQkJC"),
        flaw("leaf_with_unused_bits", "QkI=\"", "QkJ=\""),
        flaw("time_beyond_2_53", "1800000000000", "9007199254740992"),
        flaw("time_negative", "1800000000000", "-1"),
        flaw("time_as_fraction", "1800000000000", "1800000000000.0"),
        flaw("time_with_exponent", "1800000000000", "18e11"),
        signed("payload_empty", b""),
        signed("payload_null", b"null"),
        signed(
            "payload_as_array",
            format!("[1,\"{}\",\"{}\",\"a\",1]", device.party, device.leaf).as_bytes(),
        ),
        signed("trailing_bytes_in_payload", format!("{payload}{{}}").as_bytes()),
        signed("payload_with_byte_order_mark", format!("\u{feff}{payload}").as_bytes()),
        signed("payload_not_utf8", &[payload.as_bytes(), b"\xff"].concat()),
        bad("kind_mismatch", dsse(ALICE, "decision", payload.as_bytes()), "payload"),
    ]
}

/// Flaws of a request.
pub(super) fn badly_asked() -> Vec<Value> {
    let request = command_request();
    let flaw = |name: &str, from: &str, to: &str| flawed(name, GATE, Kind::Request, &request, from, to);
    let command = |name: &str, edit: &dyn Fn(&mut Command)| {
        let (good, mut changed) = (command(), command());
        edit(&mut changed);
        flaw(
            name,
            &serde_json::to_string(&good).unwrap(),
            &serde_json::to_string(&changed).unwrap(),
        )
    };
    let many = |count: usize| {
        (0..count)
            .map(|n| (bytes(&format!("N{n:03}")), bytes("")))
            .collect::<Vec<_>>()
    };
    vec![
        flaw(
            "env_unsorted",
            r#"[["LANG","C.UTF-8"],["PATH","/usr/bin:/bin"]]"#,
            r#"[["PATH","/usr/bin:/bin"],["LANG","C.UTF-8"]]"#,
        ),
        flaw("env_name_twice", r#"["PATH","#, r#"["LANG","#),
        flaw("env_name_empty", r#"["LANG","#, r#"["","#),
        flaw("env_name_with_equals", r#"["LANG","#, r#"["LANG=C","#),
        flaw(
            "env_entry_of_three",
            r#"["LANG","C.UTF-8"]"#,
            r#"["LANG","C.UTF-8",""]"#,
        ),
        flaw("utf8_as_base64", r#""--to""#, r#"{"base64":"LS10bw=="}"#),
        flaw("bytes_base64_unused_bits", "//4=", "//5="),
        flaw("zero_byte_in_argv", r#""--to""#, r#""--to\u0000""#),
        flaw("zero_byte_in_base64", "//4=", "/wA="),
        flaw(
            "argv_empty",
            r#"["deploy","--to","production",{"base64":"//4="}]"#,
            "[]",
        ),
        flaw(
            "argv_as_one_text",
            r#"["deploy","--to","production",{"base64":"//4="}]"#,
            "\"deploy --to production\"",
        ),
        command("argv_of_1025_elements", &|command| command.argv = vec![bytes(""); 1025]),
        command("argv_of_24_kib_and_one_byte", &|command| {
            command.argv = vec![bytes(&"a".repeat(24 * 1024 + 1))]
        }),
        command("env_of_129_entries", &|command| command.env = many(129)),
        command("env_of_8_kib_and_one_byte", &|command| {
            command.env = vec![(bytes("A"), bytes(&"a".repeat(8 * 1024)))]
        }),
        command("executable_relative", &|command| {
            command.executable.path = bytes("deploy")
        }),
        command("directory_relative", &|command| {
            command.directory = ByteString::new("srv").unwrap()
        }),
        command("wall_time_beyond_24_hours", &|command| {
            command.limits.wall_ms = 86_400_001
        }),
        command("output_beyond_1_gib", &|command| {
            command.limits.output_bytes = (1 << 30) + 1
        }),
        flaw("stdin_inherited", r#""stdin":"none""#, r#""stdin":"inherit""#),
        flaw("uid_beyond_u32", r#""uid":1000"#, r#""uid":4294967296"#),
        flaw("two_actions", r#""action":{"#, r#""action":{"roster":null,"#),
        flaw("unknown_action", r#""action":{"command""#, r#""action":{"tool""#),
        flaw("class_of_another_action", r#""class":"command""#, r#""class":"roster""#),
        flaw("class_as_object", r#""class":"command""#, r#""class":{"command":null}"#),
        flaw("need_zero", r#""need":2"#, r#""need":0"#),
        flaw("index_negative", r#""index":2"#, r#""index":-2"#),
        flaw(
            "nonce_in_upper_case",
            &"22".repeat(16),
            &format!("{}AA", "22".repeat(15)),
        ),
        flaw("nonce_of_15_bytes", &"22".repeat(16), &"22".repeat(15)),
        flaw("nullable_field_missing", r#""conversation":null,"#, ""),
        flaw("reason_of_4_kib_and_one_byte", "the tests are green", &"a".repeat(4097)),
        flaw("user_of_1_kib_and_one_byte", "matrix", &"a".repeat(1025)),
        flaw(
            "expires_when_created",
            r#""expires":1800000060000"#,
            r#""expires":1800000000000"#,
        ),
        flaw(
            "expires_after_24_hours_and_a_millisecond",
            r#""expires":1800000060000"#,
            r#""expires":1800086400001"#,
        ),
    ]
}

/// Flaws of the other kinds.
pub(super) fn badly_said() -> Vec<Value> {
    let (team, genesis) = (team(), genesis());
    let decision = decision(ALICE, &command_request(), Answer::Approve);
    let roster = |name: &str, from: &str, to: &str| flawed(name, GATE, Kind::Roster, &team, from, to);
    let first = |name: &str, from: &str, to: &str| flawed(name, GATE, Kind::Roster, &genesis, from, to);
    let answer = |name: &str, from: &str, to: &str| flawed(name, ALICE, Kind::Decision, &decision, from, to);
    let cert = |seed| device(seed).signed().as_str().to_owned();
    let denied = outcome(Ended::Denied(Nothing {}), false);
    let unknown = outcome(Ended::Unknown(Nothing {}), true);
    let ended = |name: &str, statement, from: &str, to: &str| flawed(name, GATE, Kind::Outcome, statement, from, to);
    let people = format!(
        r#""people":[{{"name":"bob","role":"admin","devices":[{}]}}]"#,
        cert(BOB)
    );
    vec![
        first("genesis_with_people", r#""people":[]"#, &people),
        first(
            "genesis_with_previous",
            r#""previous":null"#,
            &format!(r#""previous":"{}""#, "00".repeat(32)),
        ),
        first(
            "genesis_with_basis",
            r#""basis":null"#,
            &format!(r#""basis":"{}""#, "00".repeat(32)),
        ),
        first("later_roster_without_previous", r#""epoch":0"#, r#""epoch":1"#),
        first("gate_device_of_another", &cert(GATE), &cert(OTHER_GATE)),
        first("relay_url_empty", "wss://relay.example", ""),
        first("relay_url_of_256_bytes", "wss://relay.example", &"a".repeat(256)),
        roster("person_twice", r#""name":"bob""#, r#""name":"alice""#),
        roster("device_twice", &cert(BOB), &cert(ALICE)),
        roster("person_without_device", &cert(BOB), ""),
        roster("certificate_with_forged_signature", &cert(BOB), &{
            let (start, _) = cert(BOB)
                .split_once("\"sig\":\"")
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .unwrap();
            format!(
                "{start}\"sig\":\"{}\"}}]}}",
                cert(CAROL)
                    .split_once("\"sig\":\"")
                    .unwrap()
                    .1
                    .trim_end_matches("\"}]}")
            )
        }),
        roster(
            "certificate_respelled",
            &cert(BOB),
            &cert(BOB).replace(",\"payload\"", ", \"payload\""),
        ),
        roster("certificate_of_another_kind", &cert(BOB), decision.signed().as_str()),
        roster("role_unknown", r#""role":"auditor""#, r#""role":"owner""#),
        roster("quorum_zero", r#""quorum":{"command":2"#, r#""quorum":{"command":0"#),
        roster(
            "quorum_beyond_the_admins",
            r#""quorum":{"command":2"#,
            r#""quorum":{"command":4"#,
        ),
        roster(
            "quorum_as_array",
            r#""quorum":{"command":2,"roster":3}"#,
            r#""quorum":[2,3]"#,
        ),
        roster("epoch_beyond_u32", r#""epoch":1"#, r#""epoch":4294967296"#),
        answer("verdict_unknown", r#""verdict":"approve""#, r#""verdict":"maybe""#),
        answer(
            "verdict_as_object",
            r#""verdict":"approve""#,
            r#""verdict":{"approve":null}"#,
        ),
        answer(
            "reason_of_1_kib_and_one_byte",
            r#""reason":"""#,
            &format!(r#""reason":"{}""#, "a".repeat(1025)),
        ),
        flawed(
            "permit_citing_a_number",
            GATE,
            Kind::Permit,
            &permit(),
            r#""decisions":["#,
            r#""decisions":[1,"#,
        ),
        ended(
            "denied_with_a_permit",
            &denied,
            r#""permit":null"#,
            &format!(r#""permit":"{}""#, "00".repeat(32)),
        ),
        ended("permit_missing", &denied, r#""permit":null,"#, ""),
        ended("result_as_text", &denied, r#"{"denied":{}}"#, r#""denied""#),
        ended("result_null", &denied, r#"{"denied":{}}"#, r#"{"denied":null}"#),
        ended(
            "two_results",
            &denied,
            r#"{"denied":{}}"#,
            r#"{"denied":{},"expired":{}}"#,
        ),
        ended(
            "unknown_without_a_permit",
            &unknown,
            &format!(r#""permit":"{}""#, permit().digest()),
            r#""permit":null"#,
        ),
    ]
}
