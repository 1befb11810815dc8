//! Cases of `decisions.json` in which the policy has a say: what it denies, allows and asks for, and on what terms (PROTOCOL.md
//! 9.2 to 9.5, 9.9). Not here: which rule matches what (`judgements`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::Cases;
use crate::action::{Action, Command};
use crate::decision::{Answer, Decision};
use crate::request::{Request, matching};
use crate::roster::{Roster, Unenrolled};
use crate::sample::*;
use crate::scalar::Text;
use crate::statement::{Verified, sign};

fn asking(roster: &Verified<Roster>, action: Action, edit: impl FnOnce(&mut Request)) -> Verified<Request> {
    request_with(roster, |request| {
        request.class = action.class();
        request.action = action;
        edit(request);
    })
}

/// A command of these words, of a program in /usr/bin.
fn run(argv: &[&str]) -> Action {
    Action::Command(Command {
        executable: bound(&format!("/usr/bin/{}", argv[0]), 0x1a2b),
        argv: argv.iter().map(|argument| bytes(argument)).collect(),
        ..plain_command()
    })
}

fn numbered(seed: u8, request: &Verified<Request>, number: &str) -> Verified<Decision> {
    let decision = Decision {
        number: Some(number.to_owned()),
        ..decision(seed, request, Answer::Approve).get().clone()
    };
    sign(&identity(seed), decision).unwrap()
}

pub(super) fn add(cases: &mut Cases) {
    let now = at(NOON + 5);
    let team = team_with(POLICY);
    let plain = |action| asking(&team, action, |_| {});

    let remove = plain(run(&["rm", "-r", "x"]));
    let all = [ALICE, BOB, CAROL].map(|seed| decision(seed, &remove, Answer::Approve));
    cases.case("a_rule_that_denies", &remove, &all, &team, now);
    cases.case(
        "what_is_denied_is_forbidden_after_the_expiry_too",
        &remove,
        &[],
        &team,
        remove.expires,
    );
    let guest = asking(&team, run(&["ls"]), |request| {
        request.asked_by.agent = "guest".parse().unwrap()
    });
    cases.case("a_layer_that_denies", &guest, &[], &team, now);
    let under = asking(&team, run(&["ls", "-l", "a.log"]), |request| {
        request.asked_by.under = vec!["guest".parse().unwrap()];
    });
    cases.case("an_agent_under_one_that_is_denied", &under, &[], &team, now);

    let list = plain(run(&["ls", "-l", "a.log"]));
    cases.case("a_rule_that_allows", &list, &[], &team, now);
    let refused = decision(BOB, &list, Answer::Deny);
    cases.case("a_denial_of_what_a_rule_allows", &list, &[refused], &team, now);
    let approved = [ALICE, BOB].map(|seed| decision(seed, &list, Answer::Approve));
    cases.case("people_before_a_rule", &list, &approved, &team, now);
    cases.case("a_rule_after_the_expiry", &list, &[], &team, list.expires);
    cases.used(1, &[at(NOON)]);
    cases.case("a_rule_used_once_of_twice", &list, &[], &team, now);
    cases.used(1, &[at(NOON + 1)]);
    cases.case("a_rule_used_up", &list, &[], &team, now);
    let anew = asking(&team, run(&["ls", "-l", "a.log"]), |request| {
        request.created = at(NOON + 60 * MINUTE);
        request.expires = at(NOON + 61 * MINUTE);
    });
    cases.case(
        "a_use_an_hour_ago_is_not_within_the_hour",
        &anew,
        &[],
        &team,
        at(NOON + 60 * MINUTE),
    );
    cases.case("a_use_within_the_hour", &list, &[], &team, at(NOON + 30_000));
    cases.nothing_stands();
    cases.case("an_agent_that_no_rule_allows", &under_another(&team), &[], &team, now);

    let full = team_with("mode = \"full\"");
    let anything = asking(&full, Action::Command(command()), |_| {});
    cases.case("the_mode_full", &anything, &[], &full, now);
    let change = asking(&full, Action::Roster(genesis().contents()), |request| request.need = 3);
    cases.case("no_mode_for_a_change_of_the_roster", &change, &[], &full, now);
    let deny = team_with("mode = \"deny\"");
    let change = asking(&deny, Action::Roster(team.contents()), |request| request.need = 3);
    let everybody = [ALICE, BOB, CAROL].map(|seed| decision(seed, &change, Answer::Approve));
    cases.case(
        "a_change_of_the_roster_is_never_forbidden",
        &change,
        &everybody,
        &deny,
        now,
    );
    let denied = asking(&deny, Action::Secret(secret_use()), |_| {});
    cases.case("the_mode_deny", &denied, &[], &deny, now);

    unenrolled(cases);
    terms(cases, &team);
    numbers(cases);
}

fn under_another(team: &Verified<Roster>) -> Verified<Request> {
    asking(team, run(&["ls", "-l", "a.log"]), |request| {
        request.asked_by.under = vec!["chief".parse().unwrap()];
    })
}

fn unenrolled(cases: &mut Cases) {
    let open = Roster {
        unenrolled: Unenrolled::Allow,
        ..genesis().get().clone()
    };
    let open = sign(&identity(GATE), open).unwrap();
    let asked = asking(&open, Action::Tool(tool_call()), |_| {});
    cases.case("unenrolled_and_allowed", &asked, &[], &open, at(NOON));
    cases.case("unenrolled_and_expired", &asked, &[], &open, asked.expires);
    let change = asking(&open, Action::Roster(genesis().contents()), |_| {});
    cases.case("unenrolled_but_for_a_roster", &change, &[], &open, at(NOON));
}

/// Of the class `deploy`: two people, no veto, four eyes.
fn terms(cases: &mut Cases, team: &Verified<Roster>) {
    let now = at(NOON + 5);
    let deploy = |edit: &dyn Fn(&mut Request)| {
        asking(team, Action::Command(plain_command()), |request| {
            request.risk = Some("deploy".parse().unwrap());
            (request.veto, request.four_eyes) = (false, true);
            edit(request);
        })
    };
    let request = deploy(&|_| {});
    let [alice, bob, carol] = [ALICE, BOB, CAROL].map(|seed| decision(seed, &request, Answer::Approve));
    let [no_alice, no_bob] = [ALICE, BOB].map(|seed| decision(seed, &request, Answer::Deny));
    cases.case(
        "without_veto_one_denial_stops_nothing",
        &request,
        &[no_bob.clone(), alice.clone()],
        team,
        now,
    );
    cases.case(
        "without_veto_enough_approve_beside_a_denial",
        &request,
        &[alice.clone(), no_bob.clone(), carol.clone()],
        team,
        now,
    );
    cases.case(
        "without_veto_too_few_are_left",
        &request,
        &[no_bob.clone(), no_alice],
        team,
        now,
    );
    cases.case(
        "whoever_has_denied_approves_nothing",
        &request,
        &[alice.clone(), bob.clone(), no_bob],
        team,
        now,
    );
    let strict = deploy(&|request| request.veto = true);
    let answers = [
        decision(ALICE, &strict, Answer::Approve),
        decision(CAROL, &strict, Answer::Deny),
    ];
    cases.case("a_veto_of_when_it_was_asked", &strict, &answers, team, now);
    let by_name = deploy(&|request| request.asked_by.user = Some(Text::new("bob").unwrap()));
    let listed = deploy(&|request| request.asked_by.user = Some(Text::new("matrix:alice").unwrap()));
    for (name, request) in [
        ("four_eyes_by_name", &by_name),
        ("four_eyes_by_the_policys_list", &listed),
    ] {
        let answers = [ALICE, BOB].map(|seed| decision(seed, request, Answer::Approve));
        cases.case(name, request, &answers, team, now);
        let all = [ALICE, BOB, CAROL].map(|seed| decision(seed, request, Answer::Approve));
        cases.case(&format!("{name}_and_enough_others"), request, &all, team, now);
    }
    let needing = deploy(&|request| request.need = 3);
    let answers = [ALICE, BOB].map(|seed| decision(seed, &needing, Answer::Approve));
    cases.case("a_need_of_when_it_was_asked", &needing, &answers, team, now);
    let stricter = team_with("[class.deploy]\nquorum = 3\n[[rule]]\neffect = \"ask\"\nclass = \"deploy\"");
    cases.case(
        "a_class_made_stricter_since",
        &request,
        &[alice, bob, carol],
        &stricter,
        now,
    );
    let answers = [ALICE, BOB].map(|seed| decision(seed, &request, Answer::Approve));
    cases.case(
        "a_class_made_stricter_since_and_two_people",
        &request,
        &answers,
        &stricter,
        now,
    );
}

fn numbers(cases: &mut Cases) {
    let now = at(NOON + 5);
    let team = team();
    let usual = request(&team);
    let request = request_with(&team, |request| {
        request.matching = Some(matching(&request.nonce, "407"))
    });
    let right = |seed| numbered(seed, &request, "407");
    cases.case("the_right_number", &request, &[right(ALICE), right(BOB)], &team, now);
    cases.case(
        "another_number",
        &request,
        &[right(ALICE), numbered(BOB, &request, "470")],
        &team,
        now,
    );
    let without = decision(BOB, &request, Answer::Approve);
    cases.case("no_number", &request, &[right(ALICE), without.clone()], &team, now);
    cases.case(
        "a_number_at_the_second_try",
        &request,
        &[without, right(ALICE), right(BOB)],
        &team,
        now,
    );
    let deny = decision(CAROL, &request, Answer::Deny);
    cases.case(
        "a_denial_needs_no_number",
        &request,
        &[right(ALICE), right(BOB), deny],
        &team,
        now,
    );
    let answers = [ALICE, BOB].map(|seed| numbered(seed, &usual, "123"));
    cases.case("a_number_that_nobody_wanted", &usual, &answers, &team, now);
}
