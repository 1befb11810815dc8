//! `approve` and `deny` of a request that is named: it is whole on the screen before anything is signed, or nothing is.

use super::screen::Screen;
use super::site::Site;

/// Rows of a small screen.
const ROWS: u16 = 12;

/// How far a page goes, and that it isn't the end.
const MORE: &str = " more of this; Enter shows on -- ";

/// Asks for something longer than a small screen; returns its short id.
fn long(site: &Site) -> String {
    let words: Vec<String> = (1..=40).map(|number| format!("word-{number}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let asked = site.gate(&[&["--json", "request", "--", "echo"], &words[..]].concat());
    let asked: serde_json::Value = serde_json::from_str(asked.text()).unwrap();
    asked["id"].as_str().unwrap()[..8].to_owned()
}

/// How many requests one has said yes to, as the gate knows it.
fn decisions(site: &Site) -> usize {
    site.gate(&["inbox"]).text().matches("1 of 2 approvals").count()
}

fn two() -> Site {
    let mut site = Site::with(&["alice"]);
    site.enrol("bob", &["--quorum", "2"]);
    site
}

#[test]
fn a_long_request_is_signed_only_after_its_last_page() {
    let site = two();
    let id = long(&site);
    for json in [false, true] {
        let arguments = [if json { &["--json"][..] } else { &[] }, &["approve", &id]].concat();
        let home = if json { "bob" } else { "alice" };
        let mut screen = Screen::of_size(&site.command(home, &arguments), ROWS, 80);
        let first = screen.shows(MORE);
        assert!(
            first.contains(&format!("request {id} from the gate")) && first.lines().count() <= usize::from(ROWS),
            "{first}"
        );
        assert!(!first.contains("word-40"), "{first}");
        let left = first.rsplit_once("not the end: ").unwrap().1;
        let left: usize = left.strip_suffix(MORE).unwrap().parse().unwrap();
        let mut all = first;
        for _ in 1..left {
            screen.types("");
            all.push_str(&screen.shows(MORE));
        }
        assert_eq!(decisions(&site), usize::from(json), "signed before its end was shown");
        screen.types("");
        let (rest, status) = screen.end();
        assert!(status.success(), "{rest}");
        assert!(rest.contains(if json { "\"exit\":0" } else { "taken; " }), "{rest}");
        all.push_str(&rest);
        for number in 1..=40 {
            assert!(all.contains(&format!("word-{number}\n")), "{number}: {all}");
        }
    }
}

#[test]
fn whoever_leaves_before_the_end_signs_nothing() {
    let site = two();
    let id = long(&site);
    let mut screen = Screen::of_size(&site.command("alice", &["approve", &id]), ROWS, 80);
    screen.shows(MORE);
    screen.closes();
    let (rest, status) = screen.end();
    assert!(
        rest.contains("error: its end wasn't shown: nothing was signed"),
        "{rest}"
    );
    assert_eq!(status.code(), Some(1));
    let seen = site.at("alice", &["inbox"]);
    assert!(seen.text().contains("0 of 2 approvals"), "{seen:?}");
}

#[test]
fn a_script_is_shown_it_whole_before_what_became_of_it() {
    let site = two();
    let id = long(&site);
    let said = site.at("alice", &["approve", &id]);
    assert_eq!(said.code, 0, "{said:?}");
    let at = |text: &str| said.text().find(text).unwrap_or_else(|| panic!("{text:?}: {said:?}"));
    assert!(at("request ") < at("word-1\n") && at("word-40\n") < at("taken; "));
}
