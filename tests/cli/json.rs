//! `--json`: every line is an object that says what the words say, on stdout wherever something is read, and nothing else is there.

use serde_json::Value;

use super::site::{Site, ended};

/// Every line as an object of version 1.
fn objects(text: &str) -> Vec<Value> {
    let objects: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(objects.iter().all(|object| object.is_object()), "{text}");
    objects
}

/// The one object on stdout of a command that succeeds.
fn one(site: &Site, home: &str, arguments: &[&str]) -> Value {
    let said = site.at(home, &[&["--json"], arguments].concat());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{arguments:?}: {said:?}");
    let mut objects = objects(said.text());
    assert_eq!(objects.len(), 1, "{arguments:?}: {}", said.text());
    assert_eq!(objects[0]["v"], 1, "{arguments:?}");
    objects.remove(0)
}

#[test]
fn everything_that_is_read_can_be_read_by_programs() {
    let site = Site::with(&["alice"]);
    let status = one(&site, "gate", &["gate", "status"]);
    assert_eq!(
        (&status["connected"], &status["size"], &status["halted"]),
        (&true.into(), &2.into(), &Value::Null)
    );
    assert_eq!(status["devices"][0]["person"], "alice");
    let roster = one(&site, "alice", &["roster", "show"]);
    assert_eq!(roster["roster"]["people"][0]["name"], "alice");
    assert_eq!(roster["roster"]["gate"], status["gate"]);

    let watch = site.start("alice", &["--json", "watch"]);
    let asking = site.start("gate", &["--json", "run", "--reason", "why not", "--", "echo", "hello"]);
    let pending: Value = serde_json::from_str(&format!("{{\"expires\"{}", asking.complains("{\"expires\""))).unwrap();
    let id = pending["pending"].as_str().unwrap().to_owned();
    assert_eq!((&pending["v"], &pending["need"], id.len()), (&1.into(), &1.into(), 64));

    // Other processes of a home look at what the one that is connected has.
    watch.says("{\"digest\"");
    for home in ["alice", "gate"] {
        for arguments in [&["inbox"][..], &["show", &id[..8]]] {
            let shown = one(&site, home, arguments);
            assert_eq!(shown["id"], *id, "{home} {arguments:?}");
            assert_eq!(shown["request"]["reason"], "why not");
            assert_eq!(
                shown["request"]["action"]["command"]["argv"],
                serde_json::json!(["echo", "hello"])
            );
            assert_eq!(
                (&shown["decisions"], &shown["permitted"]),
                (&serde_json::json!([]), &false.into())
            );
        }
    }
    let approved = one(&site, "alice", &["approve", &id[..8]]);
    assert_eq!(
        (&approved["request"], &approved["exit"]),
        (&id.clone().into(), &0.into())
    );

    let said = asking.end();
    assert_eq!(
        (said.code, said.text()),
        (0, "hello\n"),
        "the command's output is its own"
    );
    let last = objects(&said.stderr).pop().unwrap();
    assert_eq!(
        (&last["request"], &last["exit"], &last["result"]["ran"]["exit"]["code"]),
        (&id.clone().into(), &0.into(), &0.into())
    );

    let seen = watch.stdout.wait(0, |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        (text.contains("\"outcome\"") && text.ends_with('\n')).then_some(text)
    });
    watch.signal(rustix::process::Signal::INT);
    assert_eq!(watch.end().code, 0);
    let kinds: Vec<String> = objects(&seen.unwrap())
        .iter()
        .map(|entry| entry["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["request", "decision", "permit", "outcome"]);

    for home in ["alice", "gate"] {
        let over = one(&site, home, &["inbox", "--all"]);
        assert_eq!(
            (&over["request"], &over["ended"]["ran"]["exit"]["code"]),
            (&id.clone().into(), &0.into())
        );
        let shown = objects(site.at(home, &["--json", "show", &id]).text());
        assert_eq!(
            (&shown[0]["id"], &shown[2]["ended"]),
            (&id.clone().into(), &over["ended"])
        );
        assert!(shown[1]["permitted"]["decisions"].is_array(), "{shown:?}");
    }

    let file = site.export();
    let audit = |verb: &str| {
        ended(
            super::site::command("countersign", site.folder.path())
                .args(["--json", "audit", verb])
                .arg(&file),
        )
    };
    let verified = objects(audit("verify").text());
    assert_eq!(
        (
            &verified[0]["holds"],
            &verified[0]["size"],
            &verified[0]["requests"]["ran"]
        ),
        (&true.into(), &6.into(), &1.into())
    );
    let entries = objects(audit("show").text());
    assert_eq!(entries.len(), 7);
    assert_eq!(entries[2]["digest"], id);
}

#[test]
fn what_is_wrong_can_be_read_by_programs_that_run_something() {
    let site = Site::new();
    for (arguments, code, kind) in [
        (&["--", "true"][..], 126, "refused"),
        (&["--", "no-such-program"], 127, "no_program"),
        (&["--wall", "0", "--", "true"], 125, "invalid"),
    ] {
        let said = site.gate(&[&["--json", "run"], arguments].concat());
        assert_eq!((said.code, said.text()), (code, ""));
        let object = objects(&said.stderr).pop().unwrap();
        assert_eq!((&object["v"], &object["kind"]), (&1.into(), &kind.into()), "{said:?}");
        assert!(object["error"].is_string());
    }
}
