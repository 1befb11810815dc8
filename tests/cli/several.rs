//! Several people over one request, and one person over several: who grants what another offered, and answers to numbers of the list.

use super::screen::Screen;
use super::site::Site;

/// What is asked under a request.
const ASK: &str = "[s]kip, [q]uit: ";

#[test]
fn one_offers_always_and_the_other_takes_it_over() {
    let mut site = Site::with(&["alice"]);
    site.enrol("bob", &["--quorum", "2"]);
    let mut alice = Screen::open(&site.command("alice", &["watch"]));
    alice.shows("connected; waiting for requests");
    let mut bob = Screen::open(&site.command("bob", &["watch"]));
    bob.shows("connected; waiting for requests");

    let asking = site.start("gate", &["run", "--user", "erin", "--", "echo", "hello"]);
    alice.shows(ASK);
    bob.shows(ASK);
    // Nobody has offered anything yet: there is nothing that could be the same.
    bob.types("always same");
    bob.shows("not always: nobody else has said what they would grant");
    bob.shows(ASK);
    alice.types("always");
    alice.shows("  2  this command with some arguments left open");
    alice.types("2");
    alice.shows("  argv[1]  hello");
    alice.types("1");
    alice.shows("choose a to e, or back: ");
    alice.types("d");
    alice.shows("how many times, or back: ");
    alice.types("3");
    alice.shows("  2  only when erin asks");
    alice.types("2");
    alice.shows("from now on without asking: echo <any> in ");
    alice.types("yes");
    alice.shows("signed: approve, and from now on");
    alice.shows("the grant stands once 2 people give exactly this one: the others say `always same`");

    bob.shows("decision alice approves, and would always, ");
    bob.shows(ASK);
    let none = site.at("bob", &["grants"]);
    assert_eq!(none.text(), "", "one offer is no grant");
    bob.types("always same");
    // What he signs is said to him in one sentence before he says yes.
    let sentence = bob.shows("from now on without asking: echo <any> in ");
    assert!(!sentence.contains("signed"), "{sentence}");
    bob.shows("with any plain word in place of argv[1], without end, at most 3 times, only when erin asks");
    bob.types("yes");
    bob.shows("signed: approve, and from now on");
    assert_eq!(asking.end().code, 0);
    bob.shows("  grant    ");
    alice.shows("  grant    ");

    let again = site.gate(&["run", "--user", "erin", "--", "echo", "world"]);
    assert_eq!((again.code, again.text()), (0, "world\n"), "{again:?}");
    let grants = site.at("bob", &["--json", "grants"]);
    let grant: serde_json::Value = serde_json::from_str(grants.text()).unwrap();
    assert_eq!(
        (&grant["used"], &grant["uses_left"]),
        (&1.into(), &2.into()),
        "{grants:?}"
    );
    // Whoever else asks isn't meant.
    let (other, id) = site.asks(&["--user", "mallory", "--", "echo", "world"]);
    assert_eq!(site.at("bob", &["deny", &id]).code, 0);
    assert_eq!(other.end().code, 126);
}

#[test]
fn some_of_the_list_are_answered_by_their_numbers() {
    let site = Site::with(&["alice"]);
    let ids: Vec<String> = ["one", "two", "three"]
        .iter()
        .map(|word| {
            let asked = site.gate(&["--json", "request", "--", "echo", word]);
            let asked: serde_json::Value = serde_json::from_str(asked.text()).unwrap();
            asked["id"].as_str().unwrap()[..8].to_owned()
        })
        .collect();
    // She has heard of all three before she watches, so that one list holds them.
    while site.at("alice", &["inbox"]).text().lines().count() < 3 {}
    let mut watch = Screen::open(&site.command("alice", &["watch"]));
    watch.shows("3 wait for you");
    for (at, id) in ids.iter().enumerate() {
        watch.shows(&format!("{:>3}  {id}  echo ", at + 1));
    }
    watch.shows(ASK);
    watch.types("1,3 no");
    watch.shows("nothing was signed: 3 wasn't shown whole yet");
    watch.types("s");
    watch.shows(&format!("request {}", ids[1]));
    watch.shows(ASK);
    watch.types("s");
    watch.shows(&format!("request {}", ids[2]));
    watch.shows(ASK);
    watch.types("1,4 no");
    watch.shows("nothing was signed: there is no 4 in the list");
    watch.types("1, 3 no not these");
    watch.shows(&format!("{}:", ids[0]));
    watch.shows("signed: deny");
    watch.shows(&format!("{}:", ids[2]));
    watch.shows("signed: deny");
    for id in [&ids[0], &ids[2]] {
        watch.shows(&format!("of {id}: denied"));
    }
    let open = site.gate(&["inbox"]);
    assert!(
        open.text().lines().count() == 1 && open.text().starts_with(&ids[1]),
        "the second is nobody's yet: {open:?}"
    );
    watch.types("1,2 yes");
    watch.shows("nothing was signed: 1 is over already");
    watch.types("2 yes");
    watch.shows(&format!("{}:", ids[1]));
    watch.shows("signed: approve");
    watch.types("q");
    watch.end();

    let over = site.gate(&["inbox", "--all"]);
    for id in [&ids[0], &ids[2]] {
        let line = over.text().lines().find(|line| line.starts_with(id.as_str())).unwrap();
        assert!(line.contains("denied"), "{line}");
    }
}
