//! Statements that are well signed by their own author, each with one flaw in its payload (PROTOCOL.md 8). Not here:
//! flaws around the payload.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;

use super::{command_request, outcome, permit};
use crate::action::{Command, Mark, Operand, Stdin};
use crate::decision::Answer;
use crate::outcome::{Ended, Forbidden, Nothing};
use crate::sample::*;
use crate::scalar::ByteString;
use crate::statement::{Kind, Verified};
use crate::vectors::bad;

/// A statement with one flaw in its payload, well signed by its own author.
pub(super) fn flawed<T>(name: &str, seed: u8, kind: Kind, statement: &Verified<T>, from: &str, to: &str) -> Value {
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
    let stdin = format!(
        r#""stdin":{}"#,
        serde_json::to_string(&crate::sample::command().stdin).unwrap()
    );
    let many = |count: usize| {
        (0..count)
            .map(|n| (bytes(&format!("N{n:03}")), bytes("")))
            .collect::<Vec<_>>()
    };
    vec![
        flaw(
            "env_unsorted",
            r#"[["LANG","C.UTF-8"],["PATH","/usr/local/bin:/usr/bin:/bin"]]"#,
            r#"[["PATH","/usr/local/bin:/usr/bin:/bin"],["LANG","C.UTF-8"]]"#,
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
            command.directory.path = ByteString::new("srv").unwrap()
        }),
        command("wall_time_beyond_24_hours", &|command| {
            command.limits.wall_ms = 86_400_001
        }),
        command("output_beyond_1_gib", &|command| {
            command.limits.output_bytes = (1 << 30) + 1
        }),
        flaw("stdin_inherited", &stdin, r#""stdin":"inherit""#),
        flaw("stdin_null", &stdin, r#""stdin":null"#),
        flaw("stdin_of_no_size", r#","bytes":4}"#, "}"),
        command("stdin_beyond_1_mib", &|command| {
            let Stdin::Bytes(input) = &mut command.stdin else {
                panic!()
            };
            input.bytes = (1 << 20) + 1;
        }),
        flaw("uid_beyond_u32", r#""uid":1000"#, r#""uid":4294967296"#),
        flaw("two_actions", r#""action":{"#, r#""action":{"roster":null,"#),
        flaw("unknown_action", r#""action":{"command""#, r#""action":{"message""#),
        flaw(
            "command_as_a_tool_call",
            r#""action":{"command""#,
            r#""action":{"tool""#,
        ),
        flaw("class_of_another_action", r#""class":"command""#, r#""class":"roster""#),
        flaw("class_as_object", r#""class":"command""#, r#""class":{"command":null}"#),
        flaw("memory_limit_missing", r#","memory_bytes":268435456"#, ""),
        flaw("inode_missing", r#","inode":"fd01:1a2b""#, ""),
        flaw("inode_with_a_leading_zero", "fd01:1a2b", "fd01:01a2b"),
        flaw("inode_in_upper_case", "fd01:1a2b", "FD01:1a2b"),
        flaw("inode_with_a_plus", "fd01:1a2b", "fd01:+1a2b"),
        flaw("inode_without_a_device", "fd01:1a2b", ":1a2b"),
        flaw("inode_of_three_parts", "fd01:1a2b", "fd:01:1a2b"),
        flaw("inode_beyond_u64", "fd01:1a2b", "fd01:10000000000000000"),
        flaw(
            "directory_as_text",
            r#"{"path":"/srv/app","inode":"fd01:2"}"#,
            r#""/srv/app""#,
        ),
        flaw("interpreter_missing", r#""interpreter":null,"#, ""),
        command("interpreter_relative", &|command| {
            command.interpreter = Some(crate::action::Bound {
                path: bytes("python3"),
                ..command.executable.clone()
            })
        }),
        command("operand_relative", &|command| {
            command.operands[0].file.path = bytes("production")
        }),
        command("operand_that_is_argv_0", &|command| command.operands[0].argument = 0),
        command("operand_beyond_argv", &|command| command.operands[0].argument = 4),
        command("operand_twice", &|command| {
            command.operands.push(command.operands[0].clone())
        }),
        command("operands_out_of_order", &|command| {
            let first = Operand {
                argument: 1,
                ..command.operands[0].clone()
            };
            command.operands.push(first);
        }),
        command("operands_65", &|command| {
            let operand = command.operands[0].clone();
            command.argv = vec![bytes("x"); 70];
            let each = |argument| Operand {
                argument,
                ..operand.clone()
            };
            command.operands = (1..=65).map(each).collect();
        }),
        flaw("mark_unknown", r#"["odd","writable"]"#, r#"["odd","world_writable"]"#),
        flaw("mark_as_object", r#"["odd","writable"]"#, r#"[{"odd":null}]"#),
        command("mark_twice", &|command| command.marks = vec![Mark::Odd, Mark::Odd]),
        command("marks_unsorted", &|command| command.marks.reverse()),
        flaw("marks_missing", r#","marks":["odd","writable"]"#, ""),
        flaw("under_missing", r#""under":[],"#, ""),
        flaw(
            "under_of_9",
            r#""under":[]"#,
            r#""under":["a","b","c","d","e","f","g","h","i"]"#,
        ),
        flaw("under_in_upper_case", r#""under":[]"#, r#""under":["Chief"]"#),
        flaw("risk_missing", r#""risk":null,"#, ""),
        flaw("risk_in_upper_case", r#""risk":null"#, r#""risk":"Deploy""#),
        flaw("veto_as_number", r#""veto":true"#, r#""veto":1"#),
        flaw("veto_null", r#""veto":true"#, r#""veto":null"#),
        flaw("four_eyes_missing", r#""four_eyes":false,"#, ""),
        flaw("matching_as_digits", r#""matching":null"#, r#""matching":"407""#),
        flaw("matching_missing", r#""matching":null,"#, ""),
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
    let denial = decision(CAROL, &command_request(), Answer::Deny);
    let decision = decision(ALICE, &command_request(), Answer::Approve);
    let roster = |name: &str, from: &str, to: &str| flawed(name, GATE, Kind::Roster, &team, from, to);
    let first = |name: &str, from: &str, to: &str| flawed(name, GATE, Kind::Roster, &genesis, from, to);
    let answer = |name: &str, from: &str, to: &str| flawed(name, ALICE, Kind::Decision, &decision, from, to);
    let cert = |seed| device(seed).signed().as_str().to_owned();
    let denied = outcome(Ended::Denied(Nothing {}), false);
    let unknown = outcome(Ended::Unknown(Nothing {}), true);
    let forbidden = outcome(Ended::Forbidden(Forbidden { rule: Some(3) }), false);
    let released = outcome(Ended::Released(Nothing {}), true);
    let by_people = permit();
    let by_rule = super::permit_by(crate::permit::Basis::Rule(3), &[]);
    let allowed = |name: &str, from: &str, to: &str| flawed(name, GATE, Kind::Permit, &by_people, from, to);
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
        roster("policy_missing", r#""policy":null,"#, ""),
        roster("policy_as_table", r#""policy":null"#, r#""policy":{"mode":"full"}"#),
        roster(
            "policy_of_another_mode",
            r#""policy":null"#,
            r#""policy":"mode = \"ask\"""#,
        ),
        roster(
            "policy_of_16_kib_and_one_byte",
            r#""policy":null"#,
            &format!(r#""policy":"{}""#, "#".repeat(16 * 1024 + 1)),
        ),
        roster(
            "class_quorum_beyond_the_admins",
            r#""policy":null"#,
            r#""policy":"[class.all]\nquorum = 4""#,
        ),
        roster("unenrolled_missing", r#""unenrolled":"refuse","#, ""),
        roster(
            "unenrolled_unknown",
            r#""unenrolled":"refuse""#,
            r#""unenrolled":"ask""#,
        ),
        roster(
            "unenrolled_allow_with_an_admin",
            r#""unenrolled":"refuse""#,
            r#""unenrolled":"allow""#,
        ),
        answer("number_of_two_digits", r#""number":null"#, r#""number":"07""#),
        answer("number_of_other_digits", r#""number":null"#, r#""number":"٤07""#),
        answer("number_as_number", r#""number":null"#, r#""number":407"#),
        answer("number_missing", r#""number":null,"#, ""),
        answer("grant_missing", r#""grant":null,"#, ""),
        answer("grant_without_terms", r#""grant":null"#, r#""grant":true"#),
        flawed(
            "denial_with_a_number",
            CAROL,
            Kind::Decision,
            &denial,
            r#""number":null"#,
            r#""number":"407""#,
        ),
        flawed(
            "denial_with_a_grant",
            CAROL,
            Kind::Decision,
            &denial,
            r#""grant":null"#,
            &format!(r#""grant":{}"#, serde_json::to_string(&terms()).unwrap()),
        ),
        ended(
            "forbidden_with_a_permit",
            &forbidden,
            r#""permit":null"#,
            &format!(r#""permit":"{}""#, "00".repeat(32)),
        ),
        ended("forbidden_by_nothing", &forbidden, r#"{"rule":3}"#, "{}"),
        ended("forbidden_by_a_text", &forbidden, r#"{"rule":3}"#, r#"{"rule":"3"}"#),
        ended(
            "released_with_words",
            &released,
            r#"{"released":{}}"#,
            r#"{"released":{"error":""}}"#,
        ),
        ended(
            "released_without_a_permit",
            &released,
            &format!(r#""permit":"{}""#, permit().digest()),
            r#""permit":null"#,
        ),
        allowed(
            "permit_without_a_basis",
            r#""basis":{"decisions":"#,
            r#""decisions":{"decisions":"#,
        ),
        allowed("permit_with_two_bases", r#""basis":{"#, r#""basis":{"mode":{},"#),
        allowed(
            "permit_with_an_unknown_basis",
            r#""basis":{"decisions":"#,
            r#""basis":{"people":"#,
        ),
        flawed(
            "permit_by_a_negative_rule",
            GATE,
            Kind::Permit,
            &by_rule,
            r#"{"rule":3}"#,
            r#"{"rule":-3}"#,
        ),
        flawed(
            "permit_by_the_mode_null",
            GATE,
            Kind::Permit,
            &by_rule,
            r#"{"rule":3}"#,
            r#"{"mode":null}"#,
        ),
        flawed(
            "permit_by_the_mode_full",
            GATE,
            Kind::Permit,
            &by_rule,
            r#"{"rule":3}"#,
            r#"{"mode":"full"}"#,
        ),
        allowed("confined_unsorted", r#"["cgroup"]"#, r#"["landlock","cgroup"]"#),
        allowed("confined_twice", r#"["cgroup"]"#, r#"["cgroup","cgroup"]"#),
        allowed("confined_unknown", r#"["cgroup"]"#, r#"["jail"]"#),
        allowed("confined_missing", r#""confined":["cgroup"],"#, ""),
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
