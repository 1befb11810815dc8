//! The house's own rules, checked on its source: who may import whom, that each file says what it is, that the map in the README is true, and that the
//! protocol's page and the code have the same labels and bounds. What the programs do is deliberately not here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Every file that git would keep, as a path from the root.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(ROOT).join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            let text = path.to_str().unwrap().to_owned();
            // A file in a second working tree.
            if text == ".git" {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                let made = text == "target"
                    || ["node_modules", "__pycache__", "seeds", "corpus"]
                        .iter()
                        .any(|made| path.ends_with(made))
                    || text == "tests/fuzz/target";
                if !made {
                    folders.push(path);
                }
            } else {
                found.push(text);
            }
        }
    }
    found.sort();
    assert!(found.len() > 100, "{}", found.len());
    found
}

/// Every source file of ours, with its text.
fn sources() -> Vec<(String, String)> {
    let rust = files().into_iter().filter(|path| path.ends_with(".rs"));
    rust.map(|path| (path.clone(), fs::read_to_string(Path::new(ROOT).join(path)).unwrap()))
        .collect()
}

fn page(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// Our crates that a package is built on, as cargo sees it.
fn ours_below(package: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "tree",
        "--offline",
        "--package",
        package,
        "--edges",
        "normal,build",
        "--all-features",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let said = cargo.current_dir(ROOT).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let text = String::from_utf8(said.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_relay_is_built_on_the_wire_and_on_nothing_else_of_ours() {
    let below = ours_below("countersign-relay");
    assert!(below.contains("wire") && below.contains("tokio"), "{below:?}");
    for other in ["approval", "countersign", "countersign-tests", "openmls", "hpke-rs"] {
        assert!(!below.contains(other), "the relay is built on {other}");
    }
}

#[test]
fn what_is_said_and_decided_does_no_io() {
    let below = ours_below("approval");
    assert!(below.contains("wire"));
    for other in [
        "tokio",
        "sqlx",
        "rustls",
        "openmls",
        "countersign",
        "countersign-relay",
        "rustix",
        "tempfile",
    ] {
        assert!(!below.contains(other), "approval is built on {other}");
    }
    for other in ["approval", "tokio", "sqlx", "rustls", "openmls"] {
        assert!(!ours_below("wire").contains(other), "wire is built on {other}");
    }
}

/// A relay's source file that names `approval` doesn't compile, while the same one that names `wire` does: the relay's own manifest, checked by
/// cargo in a copy with one file of source.
#[test]
fn a_relay_that_names_an_approval_does_not_compile() {
    let copy = tempfile::tempdir().unwrap();
    let root = copy.path();
    let manifest = page("relay/Cargo.toml");
    let dependencies = manifest
        .split("\n[dependencies]\n")
        .nth(1)
        .unwrap()
        .split("\n[")
        .next()
        .unwrap();
    let ours: Vec<&str> = dependencies
        .lines()
        .filter(|line| {
            ["wire", "approval", "countersign"]
                .iter()
                .any(|name| line.starts_with(name))
        })
        .collect();
    assert_eq!(
        ours,
        ["wire.workspace = true"],
        "the relay's manifest names more of ours than wire"
    );
    let shared = fs::canonicalize(Path::new(ROOT).join("shared")).unwrap();
    let workspace = format!(
        "[workspace]\nmembers = [\"relay\"]\n[workspace.dependencies]\nwire = {{ path = \"{0}/wire\" }}\napproval = {{ path = \"{0}/approval\" }}\n",
        shared.display()
    );
    fs::write(root.join("Cargo.toml"), workspace).unwrap();
    fs::create_dir_all(root.join("relay/src")).unwrap();
    fs::write(
        root.join("relay/Cargo.toml"),
        format!(
            "[package]\nname = \"relay-alone\"\nedition = \"2024\"\n[dependencies]\n{}\n",
            ours.join("\n")
        ),
    )
    .unwrap();
    fs::copy(Path::new(ROOT).join("Cargo.lock"), root.join("Cargo.lock")).unwrap();
    let compiles = |named: &str| {
        fs::write(
            root.join("relay/src/lib.rs"),
            format!("//! One file of a relay.\n#[allow(unused_imports)]\nuse {named};\n"),
        )
        .unwrap();
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("relay-alone");
        let said = Command::new(env!("CARGO"))
            .args(["check", "--offline", "--quiet", "--target-dir"])
            .arg(target)
            .current_dir(root)
            .output()
            .unwrap();
        (
            said.status.success(),
            String::from_utf8_lossy(&said.stderr).into_owned(),
        )
    };
    let (fine, said) = compiles("wire::frame");
    assert!(fine, "{said}");
    for forbidden in [
        "approval::decide",
        "approval::request::Request",
        "countersign::member::Member",
    ] {
        let (fine, said) = compiles(forbidden);
        assert!(
            !fine && (said.contains("error[E0432]") || said.contains("error[E0433]")),
            "{forbidden}: {said}"
        );
    }
}

#[test]
fn every_file_says_first_what_it_is() {
    for (path, text) in sources() {
        let opening = text
            .lines()
            .find(|line| !line.trim().is_empty() && !line.starts_with("#!"))
            .unwrap_or_default();
        assert!(
            opening.starts_with("//! ") && opening.len() > 20,
            "{path} doesn't say what it is"
        );
    }
}

#[test]
fn nothing_is_left_for_later() {
    // In two pieces, so that this file can be looked through as well.
    let forbidden = [
        ("to", "do!("),
        ("unimpl", "emented!("),
        ("#[ig", "nore"),
        ("TO", "DO"),
        ("FIX", "ME"),
        ("dbg", "!("),
    ];
    for (path, text) in sources() {
        for (one, two) in forbidden {
            let word = format!("{one}{two}");
            assert!(!text.contains(&word), "{path} holds {word}");
        }
    }
}

#[test]
fn nothing_depends_on_the_machine_that_it_was_written_on() {
    let forbidden = [
        ("/wo", "rk/"),
        ("/ho", "me/u"),
        ("/ro", "ot/"),
        ("index.cra", "tes.io"),
        ("static.cra", "tes.io"),
        ("proxy.gol", "ang"),
        ("registry.np", "mjs"),
        ("files.python", "hosted"),
    ];
    for path in files() {
        // What a lock file says is cargo's and npm's own business.
        if path.ends_with(".lock") || path.ends_with("package-lock.json") {
            continue;
        }
        let bytes = fs::read(Path::new(ROOT).join(&path)).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for (one, two) in forbidden {
            let word = format!("{one}{two}");
            assert!(!text.contains(&word), "{path} names {word}");
        }
    }
}

/// The paths in the first column of the README's map.
fn map() -> Vec<String> {
    let readme = page("README.md");
    let (_, map) = readme.split_once("\n## Map\n").unwrap();
    let rows = map
        .split("\n## ")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| `"));
    let column = rows.flat_map(|row| {
        row.split(" | ")
            .next()
            .unwrap()
            .split(", ")
            .map(|path| path.trim_matches('`').to_owned())
            .collect::<Vec<_>>()
    });
    column.collect()
}

#[test]
fn the_map_names_what_exists_and_everything_at_the_top() {
    let map = map();
    assert!(map.len() > 15, "{map:?}");
    for path in &map {
        let found = Path::new(ROOT).join(path);
        assert!(
            found.exists() && found.is_dir() == path.ends_with('/'),
            "the map names {path}"
        );
    }
    let top: BTreeSet<String> = files()
        .iter()
        .map(|path| path.split('/').next().unwrap().to_owned())
        .collect();
    for item in top {
        let said = ["README.md", "LICENSE-APACHE", "LICENSE-MIT"].contains(&item.as_str());
        let mapped = map.iter().any(|path| path.split('/').next() == Some(&item));
        assert!(said || mapped, "{item} isn't on the map");
    }
}

#[test]
fn the_pages_name_files_that_exist() {
    for name in ["README.md", "SECURITY.md", "CHANGELOG.md", "shared/PROTOCOL.md"] {
        for word in page(name).split('`').skip(1).step_by(2) {
            let ours = ["shared/", "client/", "relay/", "tests/"]
                .iter()
                .any(|folder| word.starts_with(folder))
                && !word.contains([' ', '*', '…']);
            // A module may be named without saying whether it is a file or a folder.
            let path = Path::new(ROOT).join(word);
            assert!(
                !ours || path.exists() || path.with_extension("rs").exists(),
                "{name} names {word}"
            );
        }
    }
}

#[test]
fn each_label_of_the_protocol_stands_in_one_place() {
    let protocol = page("shared/PROTOCOL.md");
    let (_, section) = protocol.split_once("### 2.1 Labels").unwrap();
    let rows: Vec<(&str, &str)> = section
        .split("\n## ")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix("` |")?.split_once(" | `"))
        .collect();
    assert_eq!(rows.len(), wire::label::ALL.len());
    let label = page("shared/wire/src/label.rs");
    let elsewhere: Vec<(String, String)> = sources()
        .into_iter()
        .filter(|(path, _)| {
            path.contains("/src/") && !path.starts_with("tests/") && !path.ends_with("wire/src/label.rs")
        })
        .collect();
    for ((name, text), constant) in rows.iter().zip(wire::label::ALL) {
        assert_eq!(*text, constant, "{name}");
        assert_eq!(
            label.matches(&format!("pub const {name}: &str = \"{text}\";")).count(),
            1,
            "{name}"
        );
        assert_eq!(label.matches(&format!("\"{text}\"")).count(), 1, "{name}");
        for (path, source) in &elsewhere {
            assert!(
                !source.contains(&format!("\"{text}\"")),
                "{path} spells the label {name} by itself"
            );
        }
    }
}

/// The bound that the protocol's table gives for something.
fn bound(what: &str) -> String {
    let protocol = page("shared/PROTOCOL.md");
    let (_, limits) = protocol.split_once("\n## 14. Limits\n").unwrap();
    let row = limits
        .lines()
        .find_map(|line| line.strip_prefix(&format!("| {what} | ")));
    row.unwrap_or_else(|| panic!("no bound of {what}"))
        .split(" | ")
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn the_bounds_on_the_page_are_those_of_the_code() {
    use wire::limits::*;
    const KIB: usize = 1024;
    let mib = CAPABILITY_BYTES_MAX / (1024 * 1024);
    assert_eq!(
        bound("frame before login / after"),
        format!("{} KiB / {} KiB", FRAME_BYTES_BEFORE_LOGIN / KIB, FRAME_BYTES / KIB)
    );
    assert_eq!(
        bound("deadline for handshake / login"),
        format!("{} s / {} s", HANDSHAKE_DEADLINE.as_secs(), LOGIN_DEADLINE.as_secs())
    );
    let lengths: Vec<String> = ENVELOPE_BYTES.iter().map(|bytes| (bytes / KIB).to_string()).collect();
    assert_eq!(bound("envelope"), format!("{} KiB", lengths.join(", ")));
    assert_eq!(
        bound("ttl of an envelope"),
        format!("{TTL_SECONDS_MIN} s to {} days", TTL_SECONDS_MAX / 86_400)
    );
    assert_eq!(bound("capabilities of a mailbox"), CAPABILITIES_PER_MAILBOX.to_string());
    assert_eq!(CAPABILITY_ENVELOPES_MAX, 10_000);
    assert_eq!(
        bound("envelopes / bytes waiting under a capability"),
        format!("10,000 / {mib} MiB at most")
    );
    assert_eq!(bound("envelopes in flight to a reader"), WINDOW_ENVELOPES.to_string());
    assert!(bound("relay name, relay url").starts_with(&format!("{RELAY_NAME_BYTES} bytes")));
    assert_eq!(RELAY_NAME_BYTES, RELAY_URL_BYTES);
    assert_eq!(
        bound("signed statement"),
        format!("{} KiB", approval::statement::SIGNED_BYTES / KIB)
    );
    assert_eq!(
        bound("payload"),
        format!("{} KiB", approval::statement::PAYLOAD_BYTES / KIB)
    );
    assert_eq!(bound("channel message"), "64,000 bytes");
    assert_eq!(approval::message::MESSAGE_BYTES, 64_000);
    assert_eq!(
        bound("argv: elements / bytes of all"),
        format!("1,024 / {} KiB", approval::action::ARGV_BYTES / KIB)
    );
    assert_eq!(approval::action::ARGV_ELEMENTS, 1024);
    assert_eq!(
        bound("environment: entries / bytes of all names and values"),
        format!(
            "{} / {} KiB",
            approval::action::ENV_ENTRIES,
            approval::action::ENV_BYTES / KIB
        )
    );
    assert_eq!(
        bound("people / devices of one person / devices of all"),
        format!(
            "{} / {} / {}",
            approval::roster::PEOPLE,
            approval::roster::DEVICES_OF_ONE,
            approval::roster::DEVICES
        )
    );
    assert_eq!(
        bound("link of an invite"),
        format!("{} KiB", approval::invite::LINK_BYTES / KIB)
    );
    assert_eq!(
        bound("line of an export file"),
        format!("{} KiB with its line feed", approval::export::LINE_BYTES / KIB)
    );
    assert_eq!(
        bound("proof file"),
        format!("{} MiB", approval::proof::PROOF_BYTES / KIB / KIB)
    );
}

/// Cases A, H and I of the abuse cases, as far as they are the relay's or what comes through it. Each of them must have a test that names it.
const CASES: &[&str] = &[
    "A01", "A02", "A03", "A04", "A05", "A06", "A07", "A09", "A10", "A11", "A12", "A13", "A14", "A15", "A16", "A17",
    "A18", "H01", "H02", "H03", "H04", "H05", "H07", "H08", "H10", "H11", "H12", "H13", "I01", "I02", "I03", "I04",
    "I05", "I06", "I07", "I08", "I10", "I12", "I13", "I14", "I15", "I16", "I17",
];

/// Those of the same sections that need no test of the relay, and why.
const NOT_THE_RELAYS: &[(&str, &str)] = &[
    (
        "H14",
        "the relay keeps no keys; it reads its certificate's and never writes it",
    ),
    ("I11", "the relay takes no text, so that there is nothing to normalise"),
];

/// The cases named in the comment of a test: on each line `Abuse case A03.` or `Abuse cases A03 and I01: why.`
fn named(text: &str) -> BTreeSet<String> {
    let (mut cases, mut found) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("/// ") {
            let words = comment
                .split_once("Abuse case")
                .map_or("", |(_, after)| after.split([':', '.']).next().unwrap_or_default());
            let ids = words.split(|letter: char| !letter.is_ascii_alphanumeric());
            cases.extend(
                ids.filter(|id| id.len() == 3 && id.ends_with(|last: char| last.is_ascii_digit()))
                    .map(str::to_owned),
            );
        } else if ["#[test]", "#[tokio::test"]
            .iter()
            .any(|attribute| line.starts_with(attribute))
        {
            found.append(&mut cases);
        } else if !line.starts_with("#[") {
            cases.clear();
        }
    }
    found
}

#[test]
fn every_case_of_abuse_of_the_relay_has_a_test_that_names_it() {
    let comments = "/// Abuse cases A01 and A02: not A03.\n#[tokio::test]\nasync fn a() {}\n/// Abuse case A04.\nfn no_test() {}\n#[test]\nfn b() {}";
    assert_eq!(named(comments), ["A01", "A02"].map(str::to_owned).into());
    let found: BTreeSet<String> = sources().iter().flat_map(|(_, text)| named(text)).collect();
    for case in CASES {
        assert!(found.contains(*case), "abuse case {case} has no test that names it");
    }
    for (case, why) in NOT_THE_RELAYS {
        assert!(
            !CASES.contains(case) && !found.contains(*case) && why.len() > 20,
            "{case}: {why}"
        );
    }
}
