//! What lies in the folder that a gate is started from changes nothing (abuse cases E20, E21): no policy, no settings, no environment comes from
//! there. What its admins signed and its own home are all it has.

use std::path::Path;

use super::site::{Process, Site};

/// A policy that would allow everything.
const EVERYTHING: &str = "[[rule]]\neffect = \"allow\"\ncommand = [\"touch\", { rest = true }]\n";

/// Settings as somebody would guess them.
const SETTINGS: &str = "policy = \"policy.toml\"\nmode = \"allow\"\nunenrolled = \"allow\"\nauto_approve = true\nrelay = \"ws://127.0.0.1:1\"\n\
    quorum = 0\nhttp = \"127.0.0.1:0\"\nwake_command = [\"touch\", \"woken\"]\n[gate]\npolicy = \"policy.toml\"\nauto_approve = true\n";

/// The same as variables.
const VARIABLES: &str = "COUNTERSIGN_HOME=.countersign\nCOUNTERSIGN_POLICY=policy.toml\nCOUNTERSIGN_RELAY=ws://127.0.0.1:1\n\
    COUNTERSIGN_AUTO_APPROVE=1\nCOUNTERSIGN_LOG=trace\nRUST_LOG=trace\nHTTP_PROXY=http://127.0.0.1:1\n";

/// Puts there what a program might look for.
fn tempt(folder: &Path) {
    let names = |stem: &str| ["toml", "json", "yaml", "yml", "conf", "ini"].map(|end| format!("{stem}.{end}"));
    for folder in [
        folder.to_owned(),
        folder.join(".countersign"),
        folder.join("countersign"),
        folder.join(".config/countersign"),
        folder.join(".local/share/countersign"),
        folder.join("gate"),
    ] {
        std::fs::create_dir_all(&folder).unwrap();
        for (stem, text) in [
            ("countersign", SETTINGS),
            (".countersign", SETTINGS),
            ("config", SETTINGS),
            ("settings", SETTINGS),
            ("gate", SETTINGS),
            ("policy", EVERYTHING),
            ("default", EVERYTHING),
        ] {
            for name in names(stem) {
                std::fs::write(folder.join(name), text).unwrap();
            }
        }
        for name in [".env", ".env.local", ".envrc", "environment", ".countersignrc"] {
            std::fs::write(folder.join(name), VARIABLES).unwrap();
        }
        for name in ["none", "default", "policy"] {
            std::fs::write(folder.join(name), EVERYTHING).unwrap();
        }
        // A shared library and a program of a name that it starts: neither is looked for here.
        std::fs::write(folder.join("sh"), "#!/bin/sh\ntouch found\n").unwrap();
        std::fs::write(folder.join("touch"), "#!/bin/sh\n/bin/echo found >> found\n").unwrap();
        for program in ["sh", "touch"] {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(folder.join(program), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

/// All files below, with their contents.
fn below(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_gate_takes_nothing_from_the_folder_it_is_started_in() {
    let mut site = Site::with(&["alice"]);
    let before = (
        site.gate(&["roster", "show"]).stdout,
        site.gate(&["policy", "show"]).stdout,
    );
    let folder = site.path("tempting");
    tempt(&folder);
    let tempted = below(&folder);

    drop(site.gate.take());
    let home = site.path("gate");
    let mut serving = site.command(home.to_str().unwrap(), &["gate", "serve"]);
    let gate = Process::start(serving.current_dir(&folder));
    gate.says("gate listening on ");
    let heard = (gate.stdout.so_far(), gate.stderr.so_far());
    for word in ["http on", "ALLOWED", "policy.toml", "TRACE"] {
        assert!(!heard.0.contains(word) && !heard.1.contains(word), "{heard:?}");
    }
    site.gate = Some(gate);

    // The same roster and no policy still; who asks from in there is asked about as before.
    let from_there = |arguments: &[&str]| site_command(&site, &home, &folder, arguments);
    let after = (
        from_there(&["roster", "show"]).end().stdout,
        from_there(&["policy", "show"]).end().stdout,
    );
    assert_eq!(before, after);
    let made = site.path("made").display().to_string();
    let explained = from_there(&["policy", "explain", "--", "touch", &made]).end();
    assert!(explained.text().starts_with("ask: "), "{explained:?}");
    let asking = from_there(&["run", "--", "touch", &made]);
    let request = asking.complains("request ");
    assert!(!Path::new(&made).exists());
    let shown = site.at("alice", &["show", &request[..8]]);
    assert!(
        !shown.text().contains(&format!("executable  {}", folder.display())),
        "the program is the one on the path: {shown:?}"
    );
    assert_eq!(site.at("alice", &["approve", &request[..8]]).code, 0);
    assert_eq!(asking.end().code, 0);
    assert!(Path::new(&made).exists());

    // Nothing there was run, written or taken away.
    assert!(below(&folder) == tempted);
}

fn site_command(site: &Site, home: &Path, folder: &Path, arguments: &[&str]) -> Process {
    let mut command = site.command(home.to_str().unwrap(), arguments);
    Process::start(command.current_dir(folder))
}
