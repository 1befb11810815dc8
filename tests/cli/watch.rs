//! Several people and several processes of one person at once: who is told what when somebody else was faster.

use super::site::{Site, fails, like};

#[test]
fn whoever_watches_is_told_that_another_was_faster() {
    let site = Site::with(&["alice", "bob"]);
    let mut alice = site.start("alice", &["watch"]);
    let mut bob = site.start("bob", &["watch"]);
    let (asking, id) = site.asks(&["--", "true"]);
    alice.prompts("[q]uit: ");
    bob.prompts("[q]uit: ");
    bob.types("y");
    bob.complains("approve? [y]es, always, [n]o REASON, [s]kip, [q]uit: signed: approve");
    assert_eq!(asking.end().code, 0);
    alice.complains("answered by somebody else: nothing is left to do");
    alice.says(&format!("   7  decision bob approves {id}"));
    alice.says(&format!("   8  permit   for {id}, approved by bob"));
    // Alice goes on with the next one, and ends when she wants to.
    let said = site.answered(&mut alice, "maybe", &["--expires", "2", "--", "true"]);
    assert_eq!(said.code, 126);
    alice.prompts("`maybe` is no answer: say yes (this once), always, no and why, skip, or quit\n");
    alice.types("q");
    assert_eq!(alice.end().code, 0);
}

#[test]
fn two_must_say_yes_and_each_is_told_how_it_stands() {
    let mut site = Site::with(&["alice"]);
    site.enrol("bob", &["--quorum", "2"]);
    let (asking, id) = site.asks(&["--", "echo", "done"]);
    let first = site.at("alice", &["approve", &id]);
    assert_eq!(first.code, 0, "{first:?}");
    let last = first.text().lines().last().unwrap();
    assert!(
        like(
            last,
            &format!("taken; {id}  echo done  (asked by agent, 1 of 2 approvals: alice, … left)")
        ),
        "{last}"
    );
    asking.complains("1 of 2 have approved");
    let again = site.at("alice", &["approve", &id]);
    assert_eq!(again.code, 4, "{again:?}");
    let second = site.at("bob", &["approve", &id]);
    assert_eq!(
        (second.code, second.text().lines().last().unwrap()),
        (0, "approved: it is permitted"),
        "{second:?}"
    );
    let said = asking.end();
    assert!(said.stderr.ends_with("\napproved by alice, bob\n"), "{}", said.stderr);
    assert_eq!((said.code, said.text()), (0, "done\n"));
    fails(
        &site.at("bob", &["deny", &id]),
        4,
        &format!("no open request {id}"),
        "see `countersign inbox`; a request that is over can't be answered",
    );
}

#[test]
fn a_change_of_the_roster_is_shown_by_what_it_changes() {
    let site = Site::with(&["alice", "bob"]);
    let proposed = |home: &str, arguments: &[&str]| {
        let said = site.at(home, &[&["roster"], arguments].concat());
        assert_eq!(
            (said.code, said.stderr.as_str()),
            (0, "the admins answer it like any other request\n"),
            "{said:?}"
        );
        said.text().strip_prefix("request ").unwrap().trim().to_owned()
    };
    let shown = |id: &str| site.at("alice", &["show", id]).text().to_owned();
    let quorum = proposed("gate", &["propose", "quorum", "2"]);
    let text = shown(&quorum);
    let wanted = "\ncompared with the roster in force\n  needs 2 people for a command, not 1\n  needs 2 people for a change of the roster, not 1\n\n0 of 1 approval; ";
    assert!(
        text.contains(wanted) && text.contains("\nproposed by (as the gate says)\n  who         operator\n"),
        "{text}"
    );
    let removal = proposed("bob", &["remove", "alice"]);
    let text = shown(&removal);
    assert!(
        text.contains("\ncompared with the roster in force\n  removes alice-laptop of alice: csid1"),
        "{text}"
    );
    assert!(
        text.contains("\n  removes alice (admin) altogether\n\n0 of 1 approval; "),
        "{text}"
    );
    let inbox = site.at("bob", &["inbox"]);
    assert!(
        inbox.text().contains(&format!(
            "{quorum}  a roster that needs 2 people for a command, not 1, needs 2 people"
        )),
        "{inbox:?}"
    );

    // Bob takes part in it no longer once he is out, and is told so.
    let watch = site.start("bob", &["watch", "--no-ask"]);
    watch.complains("connected; waiting for requests");
    let mine = proposed("alice", &["remove", "bob"]);
    assert_eq!(site.at("alice", &["approve", &mine]).code, 0);
    watch.complains("this device was removed from the group");
    assert_eq!(watch.end().code, 0);
}

#[test]
fn one_home_serves_several_processes_at_once() {
    let site = Site::with(&["alice"]);
    let mut watch = site.start("alice", &["watch"]);
    watch.complains("connected; waiting for requests");
    let (asking, id) = site.asks(&["--", "echo", "done"]);
    watch.prompts("[q]uit: ");
    // Others look and answer while the watch holds the connection.
    let inbox = site.at("alice", &["inbox"]);
    assert!(
        like(
            inbox.text(),
            &format!("{id}  echo done  (asked by agent, 0 of 1 approval, 9 min …s left)\n")
        ),
        "{inbox:?}"
    );
    let shown = site.at("alice", &["show", &id]);
    assert!(
        shown
            .text()
            .starts_with(&format!("request {id} from the gate build-host (csid1")),
        "{shown:?}"
    );
    let approved = site.at("alice", &["approve", &id]);
    assert_eq!(
        (approved.code, approved.text().lines().last().unwrap()),
        (0, "approved: it is permitted"),
        "{approved:?}"
    );
    assert_eq!(asking.end().code, 0);
    watch.complains("answered by somebody else: nothing is left to do");
    let second = site.start("alice", &["watch"]);
    second.complains("another process of this home is connected; this one goes along with it");
    // The gate's home reads the same while the gate runs.
    let over = site.gate(&["inbox", "--all"]);
    assert!(
        like(
            over.text(),
            &format!("{id}  …  ran, exit code 0, … ms, 5 bytes of output\n")
        ),
        "{over:?}"
    );
}

#[test]
fn an_auditor_sees_everything_and_is_asked_nothing() {
    let mut site = Site::with(&["alice"]);
    site.enrol("olga", &["--role", "auditor"]);
    let watch = site.start("olga", &["watch"]);
    watch.complains("connected; waiting for requests");
    let (asking, id) = site.asks(&["--", "true"]);
    watch.says(&format!("   6  request  {id}: true"));
    let refused = site.at("olga", &["approve", &id]);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(
        refused.stderr.contains("error: ") || refused.text().contains("not taken: "),
        "{refused:?}"
    );
    assert_eq!(site.at("alice", &["deny", &id, "--reason", "no"]).code, 0);
    assert_eq!(asking.end().code, 126);
    watch.says(&format!("   8  outcome  of {id}: denied"));
    assert!(!watch.stderr.so_far().contains("approve?"));
    let status = site.gate(&["gate", "status"]);
    assert!(
        status.text().contains("\ndevice      olga-laptop of olga: heard "),
        "{status:?}"
    );
}
