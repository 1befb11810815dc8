//! `policies.json`: texts that are a policy and texts that are none, what policies say about actions, and which programs run
//! others (PROTOCOL.md 16). Not here: what follows for a request (`decisions`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{frozen, text};
use crate::action::Action;
use crate::policy::{Effect, Judgement, Policy, PolicyError, Uses, marks_of_program};
use crate::request::AskedBy;
use crate::sample::*;
use crate::scalar::Time;

mod judgements;
mod texts;

/// How often rules were used, as a case says it.
struct Said(BTreeMap<u32, Vec<Time>>);

impl Uses for Said {
    fn used(&self, rule: u32, since: Option<Time>) -> u32 {
        let times = self.0.get(&rule).into_iter().flatten();
        times.filter(|time| since.is_none_or(|since| **time > since)).count() as u32
    }
}

fn refused(policy: &str) -> &'static str {
    match Policy::parse(policy) {
        Ok(_) => "ok",
        Err(PolicyError::TooLong(_)) => "too_long",
        Err(PolicyError::Refused { .. }) => "refused",
    }
}

fn said(judgement: &Judgement) -> Value {
    let effect = match judgement.effect {
        Effect::Deny { rule } => json!({"deny": rule}),
        Effect::Ask { rule } => json!({"ask": rule}),
        Effect::Allow { rule } => json!({"allow": rule}),
    };
    let terms = &judgement.terms;
    json!({
        "effect": effect,
        "risk": terms.risk,
        "quorum": terms.quorum,
        "veto": terms.veto,
        "four_eyes": terms.four_eyes,
        "number": terms.number,
        "life_ms": terms.life_ms,
    })
}

fn judged(case: &Value) -> Value {
    let action: Action = serde_json::from_str(text(case, "action")).unwrap();
    let asked_by: AskedBy = serde_json::from_value(case["asked_by"].clone()).unwrap();
    let used = case["used"].as_array().unwrap().iter().map(|used| {
        let rule: u32 = serde_json::from_value(used["rule"].clone()).unwrap();
        (rule, serde_json::from_value(used["times"].clone()).unwrap())
    });
    let now = serde_json::from_value(case["now"].clone()).unwrap();
    said(&policy_of(text(case, "policy")).judge(&action, &asked_by, now, &Said(used.collect())))
}

fn programs() -> Vec<Value> {
    let program = |executable: &str, interpreter: Option<&str>, argv0: &str| {
        let (runner, shell) = marks_of_program(executable.as_bytes(), interpreter.map(str::as_bytes), argv0.as_bytes());
        json!({"executable": executable, "interpreter": interpreter, "argv0": argv0, "runner": runner, "shell": shell})
    };
    vec![
        program("/usr/bin/ls", None, "ls"),
        program("/usr/bin/bash", None, "bash"),
        program("/usr/bin/dash", None, "sh"),
        program("/usr/bin/env", None, "env"),
        program("/usr/bin/python3.12", None, "python3"),
        program("/usr/bin/perl5.36.0", None, "x"),
        program("/usr/bin/clang-19", None, "x"),
        program("/lib64/ld-linux-x86-64.so.2", None, "x"),
        program("/opt/tool", Some("/bin/sh"), "tool"),
        program("/opt/tool", Some("/opt/ours"), "tool"),
        program("/opt/tool", None, "/any/where/xargs"),
        program("/opt/tool", None, "-bash"),
        program("/opt/tool", None, "BASH"),
        program("/usr/bin/", None, "///"),
        program("/opt/python-", None, "x"),
        program("/opt/python--3", None, "x"),
        program("/opt/python3x", None, "x"),
        program("/opt/7z", None, "x"),
        program("/opt/busybox", None, "ls"),
    ]
}

fn made() -> Value {
    json!({
        "good": texts::good(),
        "bad": texts::bad(),
        "judgements": judgements::all(),
        "programs": programs(),
    })
}

#[test]
fn every_policy_is_read_and_every_action_judged_as_frozen() {
    let frozen = frozen("policies.json", &made());
    let each = |field: &str| frozen[field].as_array().unwrap().clone();
    for vector in each("good") {
        assert_eq!(refused(text(&vector, "input")), "ok", "{}", vector["name"]);
    }
    let mut names = std::collections::BTreeSet::new();
    for vector in each("bad") {
        assert_eq!(
            refused(text(&vector, "input")),
            text(&vector, "expect"),
            "{}",
            vector["name"]
        );
        assert!(
            names.insert(text(&vector, "name").to_owned()),
            "{} twice",
            vector["name"]
        );
    }
    for case in each("judgements") {
        assert_eq!(judged(&case), case["expect"], "{}", case["name"]);
    }
}
