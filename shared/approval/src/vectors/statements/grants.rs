//! Tool calls, uses of secrets, grants and revocations that are well signed by their own author, each with one flaw in its
//! payload (PROTOCOL.md 8.3, 8.7, 8.8). Not here: the other kinds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::Value;

use super::payloads::flawed;
use super::{asking, granted};
use crate::action::Action;
use crate::sample::*;
use crate::statement::Kind;

/// Flaws of tool calls, secrets, grants and revocations.
pub(super) fn badly_granted() -> Vec<Value> {
    let (tool, secret) = (asking(Action::Tool(tool_call())), asking(Action::Secret(secret_use())));
    let (grant, revocation) = (granted(), revocation(CAROL, &granted()));
    let arguments = serde_json::to_string(&tool_call().arguments).unwrap();
    let call = |name: &str, from: &str, to: &str| flawed(name, GATE, Kind::Request, &tool, from, to);
    let with = |name: &str, to: &str| call(name, &arguments, to);
    let taken = |name: &str, from: &str, to: &str| flawed(name, GATE, Kind::Request, &secret, from, to);
    let given = |name: &str, from: &str, to: &str| flawed(name, GATE, Kind::Grant, &grant, from, to);
    let back = |name: &str, from: &str, to: &str| flawed(name, CAROL, Kind::Revocation, &revocation, from, to);
    vec![
        with("arguments_as_object", "{}"),
        with("arguments_as_list", "[]"),
        with("arguments_null", "null"),
        with(
            "arguments_of_24_kib_and_one_byte",
            &format!(r#""{{{}}}""#, " ".repeat(24 * 1024 - 1)),
        ),
        call("schema_missing", r#""schema":"#, r#""scheme":"#),
        call("server_empty", r#""server":"files""#, r#""server":"""#),
        call("server_with_a_slash", r#""server":"files""#, r#""server":"files/a""#),
        call("tool_empty", r#""tool":"write_file""#, r#""tool":"""#),
        call("server_of_1_kib_and_one_byte", "files", &"f".repeat(1025)),
        call("tool_of_another_class", r#""class":"tool""#, r#""class":"secret""#),
        taken("secret_in_upper_case", "registry-token", "Registry-Token"),
        taken("secret_without_a_host", r#""host":"registry.example.org","#, ""),
        taken("secret_with_its_value", r#""method":"#, r#""value":"x","method":"#),
        taken("secret_to_null", r#""registry.example.org""#, "null"),
        given("blank_argv_0", r#""blanks":[2]"#, r#""blanks":[0,2]"#),
        given("blanks_descending", r#""blanks":[2]"#, r#""blanks":[2,1]"#),
        given("blank_twice", r#""blanks":[2]"#, r#""blanks":[2,2]"#),
        given("blank_negative", r#""blanks":[2]"#, r#""blanks":[-2]"#),
        given("user_as_text", r#""user":true"#, r#""user":"erin""#),
        given("conversation_missing", r#""conversation":false,"#, ""),
        given(
            "not_after_beyond_2_53",
            &format!("{}", NOON + 60 * MINUTE),
            "9007199254740992",
        ),
        given(
            "not_after_missing",
            &format!(r#""not_after":{},"#, NOON + 60 * MINUTE),
            "",
        ),
        given("uses_zero", r#""uses":10"#, r#""uses":0"#),
        given("uses_of_2_31", r#""uses":10"#, r#""uses":2147483648"#),
        given("grant_citing_nothing", r#""decisions":["#, r#""decisions":[null,"#),
        given("terms_null", &serde_json::to_string(&terms()).unwrap(), "null"),
        given("grant_to_the_bearer", r#"{"v":1,"#, r#"{"v":1,"party":null,"#),
        back("revocation_of_nothing", &grant.digest().to_string(), ""),
        back("revocation_of_two", &format!(r#""{}""#, grant.digest()), "[]"),
        back("revocation_without_a_reason", r#""reason":"not any more","#, ""),
    ]
}
