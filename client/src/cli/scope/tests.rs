//! What is chosen, and that nothing else is granted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use approval::action::{Command, Mark};
use clap::Parser;

use super::*;
use crate::show::example::{self, NOON, bytes};

#[derive(Parser)]
struct Typed {
    #[command(flatten)]
    scope: Scope,
}

fn options(line: &str) -> Result<Scope, clap::Error> {
    let words = std::iter::once("approve").chain(line.split_whitespace());
    Typed::try_parse_from(words).map(|typed| typed.scope)
}

fn now() -> Time {
    Time::from_millis(NOON).unwrap()
}

fn push() -> Request {
    example::request(&["git", "push", "origin", "main"])
}

fn command(request: &mut Request) -> &mut Command {
    let Action::Command(command) = &mut request.action else {
        panic!()
    };
    command
}

/// Types these lines one after the other; the last one's answer.
fn chosen(request: &Request, lines: &[&str]) -> Next {
    let mut choice = Choice::begin(request, Vec::new()).unwrap();
    lines.iter().fold(Next::Ask(None), |_, line| choice.typed(line, now()))
}

fn terms(next: Next) -> Terms {
    match next {
        Next::Chosen(terms) => terms,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_span_is_a_number_and_a_unit() {
    for (text, ms) in [
        ("30m", 1_800_000),
        ("1h", 3_600_000),
        ("1d", DAY),
        ("366d", SPAN),
        ("1s", 1000),
    ] {
        assert_eq!(span(text), Ok(ms), "{text}");
    }
    for bad in [
        "",
        "h",
        "1",
        "0h",
        "-1h",
        "+1h",
        "1.5h",
        "1 h",
        "367d",
        "1w",
        "1H",
        "99999999999999999999d",
        "1hh",
        "é",
    ] {
        assert!(span(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_day_goes_to_its_end() {
    let shown = |text: &str| date(text).map(approval::render::utc);
    assert_eq!(shown("2026-12-31").unwrap(), "2026-12-31 23:59:59Z");
    assert_eq!(shown("2028-02-29").unwrap(), "2028-02-29 23:59:59Z");
    assert_eq!(shown("2026-12-31T18:00Z").unwrap(), "2026-12-31 18:00:00Z");
    assert_eq!(shown("2026-12-31T18:00:01Z").unwrap(), "2026-12-31 18:00:01Z");
    for bad in [
        "2026-13-01",
        "2027-02-29",
        "2026-00-10",
        "2026-1-1",
        "31.12.2026",
        "2026-12-31T18:00",
        "2026-12-31T24:00Z",
        "tomorrow",
        "",
        "2026-12-31T",
        "1969-12-31",
        "2026-12-31T18:00+01:00",
    ] {
        assert!(date(bad).is_err(), "{bad}");
    }
}

#[test]
fn options_become_terms() {
    let request = push();
    let scope = options("--for 1h --uses 5 --blank 3 --blank 2 --blank 3 --only-user").unwrap();
    assert!(scope.is_bounded());
    let terms = scope.terms(&request, now()).unwrap();
    assert_eq!(
        (terms.blanks, terms.uses, terms.user, terms.conversation),
        (vec![2, 3], Some(5), true, false)
    );
    assert_eq!(terms.not_after.unwrap().millis(), NOON + 3_600_000);
    let forever = options("--without-end").unwrap().terms(&request, now()).unwrap();
    assert_eq!(forever, Terms::exact());
    assert!(options("").unwrap().is_empty() && !options("--only-user").unwrap().is_bounded());
    for bad in [
        "--for 1w",
        "--uses 0",
        "--uses -1",
        "--for 1h --until 2030-01-01",
        "--for 1h --without-end",
        "--until soon",
    ] {
        assert!(options(bad).is_err(), "{bad}");
    }
    assert!(options("--until 2020-01-01").unwrap().terms(&request, now()).is_err());
    assert!(options("--blank 0 --uses 1").unwrap().terms(&request, now()).is_err());
    assert!(options("--blank 9 --uses 1").unwrap().terms(&request, now()).is_err());
}

#[test]
fn exactly_this_for_an_hour_for_whoever_asks() {
    let terms = terms(chosen(&push(), &["1", "a", "1", "yes"]));
    let wanted = Terms {
        not_after: Time::from_millis(NOON + 3_600_000).ok(),
        ..Terms::exact()
    };
    assert_eq!(terms, wanted);
}

#[test]
fn with_blanks_for_five_times_for_one_user_in_one_conversation() {
    let terms = terms(chosen(&push(), &["2", "3, 2", "d", "5", "4", "y"]));
    let wanted = Terms {
        blanks: vec![2, 3],
        user: true,
        conversation: true,
        not_after: None,
        uses: Some(5),
    };
    assert_eq!(terms, wanted);
}

#[test]
fn the_other_ways_to_say_how_long() {
    let end = |lines: &[&str]| terms(chosen(&push(), lines)).not_after.map(approval::render::utc);
    assert_eq!(end(&["1", "b", "1", "y"]).unwrap(), "2027-01-16 08:00:00Z");
    assert_eq!(
        end(&["1", "c", "2027-03-01", "1", "y"]).unwrap(),
        "2027-03-01 23:59:59Z"
    );
    assert_eq!(end(&["1", "e", "1", "y"]), None);
}

#[test]
fn nothing_is_granted_by_a_slip() {
    for lines in [
        &[""][..],
        &["yes"],
        &["0"],
        &["3"],
        &["1", ""],
        &["1", "1h"],
        &["1", "aa"],
        &["1", "d", "0"],
        &["1", "d", "+5"],
        &["1", "d", "many"],
        &["1", "c", "2020-01-01"],
        &["1", "c", "31.12.2027"],
        &["2", ""],
        &["2", "0"],
        &["2", "1 9"],
        &["2", "x"],
        &["1", "a", "5"],
        &["1", "a", "1", ""],
        &["1", "a", "1", "1"],
        &["1", "a", "1", "no"],
    ] {
        assert!(matches!(chosen(&push(), lines), Next::Ask(Some(_))), "{lines:?}");
    }
}

#[test]
fn back_forgets_what_was_chosen_halfway() {
    assert_eq!(chosen(&push(), &["back"]), Next::Left);
    assert_eq!(chosen(&push(), &["2", "2", "a", "back"]), Next::Ask(None));
    let after = terms(chosen(&push(), &["2", "2", "d", "9", "back", "1", "e", "1", "y"]));
    assert_eq!(after, Terms::exact());
}

#[test]
fn what_may_not_be_granted_is_not_offered_and_the_reason_is_said() {
    let mut request = push();
    command(&mut request).marks = vec![Mark::Writable];
    let why = Choice::begin(&request, Vec::new()).unwrap_err();
    assert!(why.contains("never granted"), "{why}");
    command(&mut request).marks = vec![Mark::Runner];
    let mut choice = Choice::begin(&request, Vec::new()).unwrap();
    let question = choice.question(now());
    assert!(
        question.contains("  1  exactly this\n") && !question.contains("  2  "),
        "{question}"
    );
    assert!(
        question.contains("no, a program that runs other programs"),
        "{question}"
    );
    assert!(matches!(choice.typed("2", now()), Next::Ask(Some(why)) if why.contains("without blanks")));
    let mut request = push();
    command(&mut request).argv[3] = bytes("refs/heads/main");
    let choice = Choice {
        stage: Stage::Blanks,
        ..Choice::begin(&request, Vec::new()).unwrap()
    };
    let question = choice.question(now());
    assert!(
        question.contains("  argv[3]  refs/heads/main   (stays as it is)\n"),
        "{question}"
    );
    assert!(question.contains("  argv[2]  origin\n"), "{question}");
}

#[test]
fn whom_is_asked_only_where_somebody_is_named() {
    let mut request = push();
    request.asked_by.conversation = None;
    let mut choice = Choice::begin(&request, Vec::new()).unwrap();
    choice.typed("1", now());
    choice.typed("a", now());
    assert!(!choice.question(now()).contains("conversation"));
    assert!(matches!(choice.typed("3", now()), Next::Ask(Some(_))));
    request.asked_by.user = None;
    let terms = terms(chosen(&request, &["1", "e", "y"]));
    assert_eq!(terms, Terms::exact());
}

#[test]
fn what_another_admin_would_grant_can_be_taken_over() {
    let request = push();
    let offered = Terms {
        uses: Some(7),
        ..Terms::exact()
    };
    let mut choice = Choice::begin(&request, vec![("bob".to_owned(), offered.clone())]).unwrap();
    let question = choice.question(now());
    assert!(
        question.contains("  3  the same as bob: exactly so, without end, at most 7 times, "),
        "{question}"
    );
    assert_eq!(choice.typed("3", now()), Next::Ask(None));
    assert_eq!(terms(choice.typed("yes", now())), offered);
    let mut same = Choice::same(&request, &offered).unwrap();
    assert!(
        same.question(now())
            .contains("from now on without asking: git push origin main")
    );
    assert_eq!(
        same.typed("", now()),
        Next::Ask(Some("nothing was signed: say yes, or back".to_owned()))
    );
    assert_eq!(terms(same.typed("y", now())), offered);
}
