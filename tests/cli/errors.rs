//! What is wrong with what was typed: `error:` says what, `hint:` says what to do, stdout stays empty, and the exit code is right.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use approval::Time;
use approval::invite::{Invite, InviteSecret};
use approval::roster::Role;
use rustix::process::Signal;
use wire::envelope::EnvelopeSecret;
use wire::mailbox::MailboxKey;

use super::site::{Process, Site, command, ended, fails};

#[test]
fn a_home_that_is_none_is_said() {
    let mut site = Site::with(&["alice"]);
    let missing = "`countersign gate init` makes a gate, `countersign join LINK` a device";
    for arguments in [
        &["inbox"][..],
        &["watch"],
        &["show", "abcd"],
        &["gate", "serve"],
        &["gate", "status"],
        &["gate", "export"],
        &["roster", "show"],
        &["join"],
    ] {
        fails(&site.at("nowhere", arguments), 1, "nowhere doesn't exist", missing);
    }
    fs::create_dir(site.path("empty")).unwrap();
    fs::set_permissions(site.path("empty"), fs::Permissions::from_mode(0o700)).unwrap();
    let nothing = site.at("empty", &["inbox"]);
    fails(
        &nothing,
        1,
        "… has no state: nothing was set up here",
        "set one up: `countersign gate init` beside an agent, `countersign join LINK` on an admin's machine",
    );
    fs::set_permissions(site.path("empty"), fs::Permissions::from_mode(0o755)).unwrap();
    fails(
        &site.at("empty", &["inbox"]),
        1,
        "empty is open to others (mode 0755)",
        "chmod 700 empty",
    );

    let other = "name the other folder with --home DIR";
    fails(
        &site.at("alice", &["gate", "serve"]),
        1,
        "this home belongs to an admin or auditor, and a gate's is needed",
        other,
    );
    for arguments in [&["watch"][..], &["approve", "abcd"], &["deny", "abcd"]] {
        fails(
            &site.gate(arguments),
            1,
            "this home belongs to a gate, and an admin's is needed",
            other,
        );
    }
    let again = site.gate(&["gate", "init"]);
    fails(
        &again,
        1,
        "… already holds a party's state",
        "take another folder with --home DIR",
    );
    fails(
        &site.gate(&["gate", "serve"]),
        1,
        "another gate is already running on …",
        "use that one, or stop it first",
    );

    let gate = site.gate.take().unwrap();
    gate.signal(Signal::TERM);
    gate.end();
    for arguments in [
        &["gate", "status"][..],
        &["gate", "invite", "--person", "bob"],
        &["roster", "remove", "alice"],
    ] {
        fails(
            &site.gate(arguments),
            1,
            "the gate isn't running: …",
            "start it: countersign gate serve",
        );
    }
    fails(
        &site.gate(&["run", "--", "true"]),
        125,
        "the gate isn't running: …",
        "start it: countersign gate serve",
    );
}

#[test]
fn an_id_that_means_nothing_or_too_much_is_said() {
    let site = Site::with(&["alice"]);
    let hint = "see `countersign inbox`; a request that is over can't be answered";
    for verb in ["approve", "deny"] {
        fails(&site.at("alice", &[verb, "abcdef"]), 4, "no open request abcdef", hint);
        fails(
            &site.at("alice", &[verb, "abc"]),
            4,
            "an id needs at least 4 hex digits",
            hint,
        );
    }
    fails(
        &site.at("alice", &["approve", "\u{1b}[2J"]),
        2,
        "`\\u{1b}[2J` is neither an id nor an answer; nothing was answered",
        "give ids in hex digits and then once, always, always same, or deny and why",
    );
    fails(
        &site.at("alice", &["deny", "\u{1b}[2J"]),
        4,
        "no open request \\u{1b}[2J",
        hint,
    );
    let lists = "`countersign inbox --all` lists them";
    for home in ["alice", "gate"] {
        fails(&site.at(home, &["show", "abcdef"]), 1, "no open request abcdef", lists);
        fails(
            &site.at(home, &["show", "a"]),
            1,
            "an id needs at least 4 hex digits",
            lists,
        );
    }
}

#[test]
fn a_link_that_cannot_be_used_is_said() {
    let mut site = Site::with(&["alice"]);
    let whole = "give the whole link, between quotes, as `countersign gate invite` printed it";
    for link in [
        "",
        "countersign:1",
        "countersign:1AQ",
        "https://example.org",
        "countersign:2AAAA",
    ] {
        fails(&site.at("bob", &["join", link, "--yes"]), 1, "…", whole);
    }
    assert!(!site.path("bob").exists(), "a bad link makes nothing");

    let inviting = site.start("gate", &["gate", "invite", "--person", "bob"]);
    let link = format!("countersign:1{}", inviting.says("countersign:1"));
    // One character of it is missing, another one is wrong.
    fails(
        &site.at("bob", &["join", &link[..link.len() - 1], "--yes"]),
        1,
        "…",
        whole,
    );
    let nobody = site.at("bob", &["join", &link]);
    assert!(
        nobody
            .stderr
            .ends_with("error: nobody can be asked here\nhint: say --yes if gate and relay are the right ones\n"),
        "{nobody:?}"
    );
    let named = site.at("bob", &["join", &link, "--yes", "--name", "Bob's Laptop"]);
    assert!(
        named.stderr.contains("\nerror: the device's name: ")
            && named.stderr.ends_with("\nhint: give another with --name\n"),
        "{named:?}"
    );
    let taken = site.at("alice", &["join", &link, "--yes"]);
    assert!(
        taken
            .stderr
            .contains("already holds a party's state\nhint: a device joins once; "),
        "{taken:?}"
    );

    // The person at the gate sees another code and says no: the invite is over, on both sides.
    let mut inviting = inviting;
    let joining = site.start("bob", &["join", &link, "--yes", "--name", "laptop"]);
    inviting.says("code ");
    inviting.types("n");
    let invited = inviting.end();
    assert_eq!(invited.code, 1);
    assert!(
        invited.stderr.contains("\nerror: ") || invited.stderr.contains("[y/N] error: "),
        "{invited:?}"
    );
    let joined = joining.end();
    assert_eq!(joined.code, 1, "{joined:?}");
    assert!(
        joined.stderr.contains("\nerror: refused: ")
            && joined
                .stderr
                .ends_with("hint: ask for a new invite; this folder can be deleted\n"),
        "{joined:?}"
    );
    // Used up: it lets nobody in again, while another one does.
    let again = site.start("carol", &["join", &link, "--yes", "--name", "laptop"]);
    again.complains("waiting for the gate to answer");
    site.enrol("dave", &[]);
    assert_eq!(again.stdout.so_far(), "", "a used invite shows a code");
}

#[test]
fn an_expired_link_is_said() {
    let folder = tempfile::TempDir::new().unwrap();
    let party = wire::identity::Identity::from_bytes(&[7; 32]).party();
    let invite = |expires: u64| Invite {
        role: Role::Admin,
        expires: Time::of_clock(expires),
        secret: InviteSecret::from_bytes([1; 16]),
        gate: party,
        mailbox: MailboxKey::from_bytes(&[2; 32]).id(),
        envelope_key: EnvelopeSecret::from_bytes(&[3; 32]).key(),
        person: "bob".parse().unwrap(),
        relay: "ws://127.0.0.1:1".parse().unwrap(),
    };
    let join = |expires: u64| {
        ended(command("countersign", folder.path()).args([
            "--home",
            "bob",
            "join",
            "--name",
            "laptop",
            "--yes",
            invite(expires).link().as_ref(),
        ]))
    };
    let clock = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    fails(
        &join(clock() - 1),
        1,
        "the invite has expired",
        "ask for a new one: `countersign gate invite` at the gate",
    );
    assert!(!folder.path().join("bob").exists(), "an expired link makes nothing");
    // It expires while the gate is waited for, at a relay that isn't there.
    let said = join(clock() + 3000);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.stderr
            .contains("\nwaiting for the gate to answer\nthe relay can't be reached: "),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains(
            "\nerror: the gate didn't answer before the invite expired\nhint: it may have been used already; "
        ),
        "{}",
        said.stderr
    );
}

#[test]
fn an_invite_that_cannot_be_is_said() {
    let site = Site::with(&["alice"]);
    for (arguments, error) in [
        (
            &["--person", "Alice B."][..],
            "the person's name: not a name: 1 to 64 of a-z 0-9 . _ -, starting with a letter or digit",
        ),
        (
            &["--person", "bob", "--minutes", "0"],
            "an invite lives 1 to 10 minutes",
        ),
        (
            &["--person", "bob", "--minutes", "11"],
            "an invite lives 1 to 10 minutes",
        ),
    ] {
        let said = site.gate(&[&["gate", "invite"], arguments].concat());
        fails(&said, 1, error, "see `countersign gate invite --help`");
    }
    fails(
        &site.gate(&["gate", "invite"]),
        2,
        "the following required arguments were not provided:\n  --person <NAME>",
        "see `countersign gate invite --help`",
    );
    fails(
        &site.gate(&["gate", "invite", "--person", "bob", "--role", "king"]),
        2,
        "invalid value 'king' for '--role <admin|auditor>': admin or auditor",
        "see `countersign gate invite --help`",
    );
}

#[test]
fn a_change_that_cannot_be_is_said() {
    let site = Site::with(&["alice"]);
    for home in ["gate", "alice"] {
        for arguments in [
            &["remove", "nobody"][..],
            &["remove", "No Body"],
            &["remove", "alice"],
            &["propose", "quorum", "5"],
            &["propose", "quorum", "0"],
        ] {
            fails(
                &site.at(home, &[&["roster"], arguments].concat()),
                1,
                "…",
                "see who is in it: countersign roster show",
            );
        }
    }
    fails(
        &site.gate(&["roster", "propose", "remove-device", "alice"]),
        2,
        "invalid value 'alice' for '<CSID>': …",
        "see `countersign roster propose remove-device --help`",
    );
}

#[test]
fn a_mistyped_command_is_said() {
    let folder = tempfile::TempDir::new().unwrap();
    for (arguments, error, hint) in [
        (
            &["aprove"][..],
            "unrecognized subcommand 'aprove'",
            "a similar subcommand exists: 'approve'; see `countersign --help`",
        ),
        (
            &["approve"],
            "the following required arguments were not provided:\n  <ID>...",
            "see `countersign approve --help`",
        ),
        (
            &["--json", "--home", "x", "revoke", "a", "b"],
            "unexpected argument 'b' found",
            "see `countersign revoke --help`",
        ),
        (
            &["demo", "--admins", "9"],
            "invalid value '9' for '--admins <ADMINS>': 9 is not in 1..=8",
            "see `countersign demo --help`",
        ),
        (
            &["demo", "--yes", "--deny"],
            "the argument '--yes' cannot be used with '--deny'",
            "see `countersign demo --help`",
        ),
    ] {
        fails(
            &ended(command("countersign", folder.path()).args(arguments)),
            2,
            error,
            hint,
        );
    }
    let relay = ended(command("countersign-relay", folder.path()).args([
        "--listen",
        "127.0.0.1:0",
        "--store",
        "/dev/null/relay.db",
    ]));
    fails(&relay, 1, "…", "…");
    let listening = Process::start(command("countersign-relay", folder.path()).args([
        "--listen",
        "127.0.0.1:0",
        "--store",
        "relay.db",
    ]));
    let address = listening.says("listening on ws://");
    let taken = ended(command("countersign-relay", folder.path()).args(["--listen", &address, "--store", "other.db"]));
    fails(&taken, 1, "…", "…");
}
