//! Saying "always" at a terminal: how far it reaches is chosen and read before it is signed, what rests on it is told, and one word takes it back.

use super::screen::Screen;
use super::site::{Site, ended, like};

/// A site whose policy wants a number for `printf`.
fn site() -> Site {
    Site::under(
        "[class.careful]\nnumber = true\n[[rule]]\neffect = \"ask\"\nclass = \"careful\"\ncommand = [\"printf\", { rest = true }]\n",
    )
}

#[test]
fn always_is_chosen_step_by_step_and_revoked_by_one_word() {
    let mut site = site();
    site.enrol("alice", &[]);
    let mut watch = Screen::open(&site.command("alice", &["watch"]));
    watch.shows("connected; waiting for requests");

    let asking = site.start("gate", &["run", "--user", "erin", "--", "echo", "hello"]);
    watch.shows("approve? [y]es, always, [n]o REASON, [s]kip, [q]uit: ");
    watch.types("alwyas");
    watch.shows("`alwyas` is no answer: ");
    watch.types("always");
    watch.shows("  1  exactly this");
    watch.shows("  2  this command with some arguments left open");
    watch.types("2");
    watch.shows("  argv[0]  echo   (stays as it is)");
    watch.shows("  argv[1]  hello");
    watch.types("1");
    watch.shows("choose a to e, or back: ");
    watch.types("d");
    watch.shows("how many times, or back: ");
    watch.types("2");
    watch.shows("  2  only when erin asks");
    watch.types("1");
    watch.shows("from now on without asking: echo <any> in ");
    watch.shows(
        "with any plain word in place of argv[1], without end, at most 2 times, whoever asks through the agent agent",
    );
    watch.types("yes");
    watch.shows("signed: approve, and from now on");
    assert_eq!(asking.end().code, 0);
    watch.shows("  grant    ");
    watch.shows(", approved by alice");

    // What is like it is asked no more; what isn't, is.
    let again = site.gate(&["run", "--", "echo", "world"]);
    assert_eq!((again.code, again.text()), (0, "world\n"), "{again:?}");
    watch.shows(", by the grant ");
    let grants = site.at("alice", &["--json", "grants"]);
    let grant: serde_json::Value = serde_json::from_str(grants.text()).unwrap();
    assert_eq!(
        (&grant["state"], &grant["what"]),
        (&"stands".into(), &"echo <any>".into())
    );
    assert_eq!(
        (&grant["used"], &grant["uses_left"]),
        (&1.into(), &1.into()),
        "{grants:?}"
    );
    let id = grant["id"].as_str().unwrap()[..8].to_owned();
    let revoked = site.at("alice", &["revoke", &id, "--reason", "enough"]);
    assert!(revoked.text().contains("revoked: from entry "), "{revoked:?}");
    assert_eq!(revoked.code, 0);
    watch.shows("alice takes the grant ");
    assert_eq!(site.at("alice", &["grants"]).text(), "");
    let dead = site.at("alice", &["grants", "--all"]);
    assert!(
        dead.text()
            .contains("revoked by alice, saying: enough; used once, 1 left, last on "),
        "{dead:?}"
    );
    assert_eq!(site.at("alice", &["revoke", &id]).code, 4);

    // Asked again, and compared with what was approved before.
    let asking = site.start("gate", &["run", "--", "echo", "hello!"]);
    watch.shows("differs from what alice approved on ");
    watch.shows("  argv[1] was hello");
    watch.shows("[q]uit: ");
    watch.types("n not any more");
    assert_eq!(asking.end().code, 126);
    watch.types("q");
    watch.end();

    let file = site.export();
    let shown = ended(site.command("gate", &["audit", "show"]).arg(&file));
    assert!(
        shown.text().contains("  grants      1 given, 1 taken back\n"),
        "{shown:?}"
    );
    assert!(
        shown.text().contains("  unasked     1 permitted by a grant\n"),
        "{shown:?}"
    );
}

#[test]
fn the_number_is_where_it_was_asked() {
    let mut site = site();
    site.enrol("alice", &[]);
    let mut watch = Screen::open(&site.command("alice", &["watch"]));
    watch.shows("connected; waiting for requests");
    let asked = |what: &str| {
        let asked = site.gate(&["--json", "request", "--", "printf", what]);
        let asked: serde_json::Value = serde_json::from_str(asked.text()).unwrap();
        let text = |field: &str| asked[field].as_str().unwrap_or_else(|| panic!("{asked}")).to_owned();
        (text("id"), text("number"))
    };
    let (id, number) = asked("done");
    let wrong = if number == "000" { "001" } else { "000" };
    watch.shows("an approval must repeat the three digits shown where it was asked");
    watch.shows("[q]uit: ");
    watch.types("y");
    for said in [
        "that isn't the number",
        "that isn't the number",
        "not the number, for the last time: nothing was signed",
    ] {
        watch.shows("the three digits shown where it was asked, or back: ");
        watch.types(wrong);
        watch.shows(said);
    }
    // Elsewhere it is the same: without the number nothing is signed, with it it is.
    let without = site.at("alice", &["approve", &id[..8]]);
    assert!(
        like(
            without.stderr.as_str(),
            "error: this request wants the number shown where it was asked\nhint: give it with --number\n"
        ),
        "{without:?}"
    );
    let guessed = site.at("alice", &["approve", &id[..8], "--number", wrong]);
    assert!(guessed.stderr.contains("nothing was signed\n"), "{guessed:?}");
    let approved = site.at("alice", &["approve", &id[..8], "once", "--number", &number]);
    assert_eq!(approved.code, 0, "{approved:?}");

    // Right at once, at the terminal.
    let (second, number) = asked("done again");
    watch.shows(&format!("request {}", &second[..8]));
    watch.shows("[q]uit: ");
    watch.types("👍");
    watch.shows("or back: ");
    watch.types(&number);
    watch.shows("signed: approve");
    watch.types("q");
    watch.end();
}

#[test]
fn a_scope_is_never_guessed() {
    let site = Site::with(&["alice"]);
    let (asking, id) = site.asks(&["--", "echo", "hello"]);
    for (arguments, error) in [
        (&["always"][..], "how far `always` reaches isn't said"),
        (&["always", "--only-user"], "how far `always` reaches isn't said"),
        (
            &["always", "--uses", "2", "--blank", "7"],
            "a blank stands for one argument",
        ),
        (&["always", "same"], "nobody else has said what they would grant"),
        (&["--for", "1h"], "a scope without `always`"),
        (
            &["alwyas", "--for", "1h"],
            "`alwyas` is neither an id nor an answer; nothing was answered",
        ),
    ] {
        let said = site.at("alice", &[&["approve", &id], arguments].concat());
        assert!(said.code != 0 && said.stderr.contains(error), "{arguments:?}: {said:?}");
    }
    let said = site.at("alice", &["approve", &id, "always", "--for", "1h", "--uses", "3"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stderr.contains("from now on without asking: echo hello in "),
        "{said:?}"
    );
    assert!(
        said.stderr.contains("\ngranted as ") || said.text().ends_with("approved: it is permitted\n"),
        "{said:?}"
    );
    assert_eq!(asking.end().code, 0);
    assert_eq!(site.gate(&["run", "--", "echo", "hello"]).code, 0);
}
