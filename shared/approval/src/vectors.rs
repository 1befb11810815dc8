//! The frozen vectors of `tests/vectors/approval/` (tests only): what is made here today must be what was frozen, and
//! what is frozen must be taken or refused as it says. With `COUNTERSIGN_VECTORS=write` the files are written anew: a
//! change of them is a change of the protocol. Not here: the second verifier, in another language.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

mod decisions;
mod messages;
mod pairings;
mod policies;
mod renderings;
mod statements;

fn path(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/approval")).join(file)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// What is frozen in this file, once what is made now was found to be the same.
fn frozen(file: &str, made: &Value) -> Value {
    if std::env::var_os("COUNTERSIGN_VECTORS").is_some_and(|wish| wish == "write") {
        fs::create_dir_all(path("")).unwrap();
        fs::write(path(file), format!("{}\n", serde_json::to_string_pretty(made).unwrap())).unwrap();
    }
    let frozen: Value = serde_json::from_slice(&fs::read(path(file)).unwrap()).unwrap();
    assert!(frozen == *made, "{file} isn't what is made now");
    frozen
}

fn text<'v>(vector: &'v Value, field: &str) -> &'v str {
    vector[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} in {}", vector["name"]))
}

fn bad(name: &str, input: impl Into<String>, expect: &str) -> Value {
    json!({"name": name, "input": input.into(), "expect": expect})
}
