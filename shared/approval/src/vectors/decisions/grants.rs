//! Cases of `decisions.json` in which a grant stands, or doesn't (PROTOCOL.md 8.7, 9.8). Not here: whether it could be given
//! (the transcripts).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::Cases;
use crate::action::{Action, Command, Mark, Stdin};
use crate::decision::Decision;
use crate::grant::{Grant, Terms};
use crate::request::{AskedBy, Class, Request};
use crate::roster::Role;
use crate::sample::*;
use crate::scalar::{Digest, Text};
use crate::statement::Verified;

/// Asked at another place in the transcript.
fn later(edit: impl FnOnce(&mut Request)) -> Verified<Request> {
    request_with(&team(), |request| {
        (request.index, request.nonce.0[0]) = (9, 9);
        request.action = Action::Command(plain_command());
        edit(request);
    })
}

fn command(edit: impl FnOnce(&mut Command)) -> Verified<Request> {
    let mut command = plain_command();
    edit(&mut command);
    later(|request| request.action = Action::Command(command))
}

/// The sample's command, with all that this one here doesn't have.
fn sample_command() -> Command {
    crate::sample::command()
}

fn asked_by(edit: impl FnOnce(&mut AskedBy)) -> Verified<Request> {
    later(|request| edit(&mut request.asked_by))
}

struct Given {
    grant: Verified<Grant>,
    request: Verified<Request>,
    decisions: Vec<Verified<Decision>>,
}

fn given_for(request: Verified<Request>, terms: &Terms) -> Given {
    let decisions = [ALICE, BOB].map(|seed| granting(seed, &request, terms)).to_vec();
    Given {
        grant: grant(&team(), &request, &decisions, terms),
        request,
        decisions,
    }
}

fn given(edit: impl FnOnce(&mut Terms)) -> Given {
    let mut terms = Terms {
        uses: None,
        not_after: None,
        user: false,
        ..terms()
    };
    edit(&mut terms);
    given_for(
        request_with(&team(), |request| request.action = Action::Command(plain_command())),
        &terms,
    )
}

impl Given {
    fn stands(&self, cases: &mut Cases, used: u32) {
        cases.give(&self.grant, &self.request, &self.decisions, used);
    }
}

pub(super) fn add(cases: &mut Cases) {
    exactly(cases);
    with_a_blank(cases);
    for_whom(cases);
    how_long(cases);
    by_whom(cases);
    of_others(cases);
    cases.nothing_stands();
}

fn exactly(cases: &mut Cases) {
    let (team, now) = (team(), at(NOON + 5));
    given(|terms| terms.blanks.clear()).stands(cases, 0);
    let case = |cases: &mut Cases, name: &str, request: &Verified<Request>| cases.case(name, request, &[], &team, now);
    case(cases, "the_same_again", &later(|_| {}));
    case(
        cases,
        "another_inode",
        &command(|command| {
            command.executable.inode = inode(9);
            command.directory.inode = inode(9);
        }),
    );
    case(
        cases,
        "smaller_limits",
        &command(|command| {
            (
                command.limits.wall_ms,
                command.limits.output_bytes,
                command.limits.memory_bytes,
            ) = (1, 1, 1);
        }),
    );
    case(
        cases,
        "another_executable",
        &command(|command| command.executable.path = bytes("/usr/bin/deplo")),
    );
    case(
        cases,
        "the_executable_changed",
        &command(|command| command.executable.sha256 = Digest::of(b"new")),
    );
    case(
        cases,
        "an_interpreter",
        &command(|command| command.interpreter = script().interpreter),
    );
    case(
        cases,
        "another_argument",
        &command(|command| command.argv[2] = bytes("staging")),
    );
    case(
        cases,
        "an_argument_more",
        &command(|command| command.argv.push(bytes("now"))),
    );
    case(cases, "an_argument_less", &command(|command| drop(command.argv.pop())));
    case(
        cases,
        "another_environment",
        &command(|command| drop(command.env.pop())),
    );
    case(
        cases,
        "another_directory",
        &command(|command| command.directory.path = bytes("/srv")),
    );
    case(
        cases,
        "an_input",
        &command(|command| command.stdin = sample_command().stdin),
    );
    case(
        cases,
        "an_operand",
        &command(|command| command.operands = sample_command().operands),
    );
    case(cases, "another_user_id", &command(|command| command.uid = 0));
    case(
        cases,
        "a_mark",
        &command(|command| command.marks = vec![Mark::Writable]),
    );
    case(
        cases,
        "a_longer_wall_time",
        &command(|command| command.limits.wall_ms += 1),
    );
    case(
        cases,
        "more_output",
        &command(|command| command.limits.output_bytes += 1),
    );
    case(
        cases,
        "more_memory",
        &command(|command| command.limits.memory_bytes += 1),
    );
    case(
        cases,
        "memory_without_limit",
        &command(|command| command.limits.memory_bytes = 0),
    );
    assert_eq!(plain_command().stdin, Stdin::None);
    cases.nothing_stands();
}

fn with_a_blank(cases: &mut Cases) {
    let (team, now) = (team(), at(NOON + 5));
    given(|_| {}).stands(cases, 0);
    for (name, argument) in [
        ("a_blank_filled", "staging"),
        ("a_blank_filled_with_255_bytes", &"x".repeat(255)),
        ("a_blank_with_nothing", ""),
        ("a_blank_with_256_bytes", &"x".repeat(256)),
        ("a_blank_with_an_option", "-f"),
        ("a_blank_with_a_slash", "a/b"),
        ("a_blank_with_a_space", "a b"),
        ("a_blank_beyond_ascii", "caf\u{e9}"),
        ("a_blank_with_a_line_feed", "a\n"),
    ] {
        cases.case(
            name,
            &command(|command| command.argv[2] = bytes(argument)),
            &[],
            &team,
            now,
        );
    }
    cases.case(
        "an_operand_at_a_blank",
        &command(|command| command.operands = sample_command().operands),
        &[],
        &team,
        now,
    );
    cases.case(
        "beside_a_blank",
        &command(|command| command.argv[1] = bytes("--at")),
        &[],
        &team,
        now,
    );
    cases.nothing_stands();
}

fn for_whom(cases: &mut Cases) {
    let (team, now) = (team(), at(NOON + 5));
    given(|_| {}).stands(cases, 0);
    let other = |words: &str| Some(Text::new(words).unwrap());
    cases.case(
        "another_agent",
        &asked_by(|asked| asked.agent = "other".parse().unwrap()),
        &[],
        &team,
        now,
    );
    cases.case(
        "the_agent_under_another",
        &asked_by(|asked| asked.under = vec!["chief".parse().unwrap()]),
        &[],
        &team,
        now,
    );
    cases.case(
        "another_user_where_any_may",
        &asked_by(|asked| asked.user = other("Mallory")),
        &[],
        &team,
        now,
    );
    cases.case(
        "another_platform",
        &asked_by(|asked| asked.platform = None),
        &[],
        &team,
        now,
    );
    cases.case(
        "another_conversation_where_any_may",
        &asked_by(|asked| asked.conversation = other("x")),
        &[],
        &team,
        now,
    );
    cases.nothing_stands();
    given(|terms| (terms.user, terms.conversation) = (true, true)).stands(cases, 0);
    cases.case("the_same_user_and_conversation", &later(|_| {}), &[], &team, now);
    cases.case(
        "another_user",
        &asked_by(|asked| asked.user = other("Mallory")),
        &[],
        &team,
        now,
    );
    cases.case("no_user", &asked_by(|asked| asked.user = None), &[], &team, now);
    cases.case(
        "another_conversation",
        &asked_by(|asked| asked.conversation = other("x")),
        &[],
        &team,
        now,
    );
    cases.nothing_stands();
}

fn how_long(cases: &mut Cases) {
    let team = team();
    given(|terms| terms.not_after = Some(at(NOON + 5))).stands(cases, 0);
    cases.case(
        "at_the_last_millisecond_of_a_grant",
        &later(|_| {}),
        &[],
        &team,
        at(NOON + 5),
    );
    cases.case("a_millisecond_after_a_grant", &later(|_| {}), &[], &team, at(NOON + 6));
    cases.case(
        "a_grant_after_the_requests_expiry",
        &later(|_| {}),
        &[],
        &team,
        at(NOON + MINUTE),
    );
    cases.nothing_stands();
    given(|terms| terms.uses = Some(2)).stands(cases, 1);
    cases.case("the_last_use_of_a_grant", &later(|_| {}), &[], &team, at(NOON));
    cases.nothing_stands();
    given(|terms| terms.uses = Some(2)).stands(cases, 2);
    cases.case("a_grant_used_up", &later(|_| {}), &[], &team, at(NOON));
    given(|terms| terms.uses = Some(3)).stands(cases, 2);
    cases.case(
        "a_younger_grant_after_one_used_up",
        &later(|_| {}),
        &[],
        &team,
        at(NOON),
    );
    given(|terms| terms.uses = Some(4)).stands(cases, 0);
    cases.case("the_older_of_two_grants", &later(|_| {}), &[], &team, at(NOON));
    let revoked = given(|terms| terms.uses = Some(3));
    cases.revoke(1, &revoked.grant);
    cases.case(
        "the_younger_where_the_older_is_revoked",
        &later(|_| {}),
        &[],
        &team,
        at(NOON),
    );
    cases.nothing_stands();
    let given = given(|_| {});
    given.stands(cases, 0);
    cases.revoke(0, &given.grant);
    cases.case("a_grant_revoked", &later(|_| {}), &[], &team, at(NOON));
    cases.nothing_stands();
}

fn by_whom(cases: &mut Cases) {
    let now = at(NOON + 5);
    let again = later(|_| {});
    given(|_| {}).stands(cases, 0);
    let devices = |left: &[(&'static str, Role, u8)], need| roster(left, quorum(need, 1));
    let alice = ("alice", Role::Admin, ALICE);
    let (bob, carol) = (("bob", Role::Admin, BOB), ("carol", Role::Admin, CAROL));
    cases.case(
        "one_of_two_givers_removed",
        &again,
        &[],
        &devices(&[alice, carol], 2),
        now,
    );
    let lower = request_with(&team(), |request| {
        (request.index, request.need) = (9, 1);
        request.action = Action::Command(plain_command());
    });
    cases.case(
        "one_giver_left_where_one_is_enough",
        &lower,
        &[],
        &devices(&[alice, carol], 1),
        now,
    );
    let auditor = ("bob", Role::Auditor, BOB);
    cases.case(
        "a_giver_who_only_reads_now",
        &again,
        &[],
        &devices(&[alice, carol, auditor], 2),
        now,
    );
    let other_device = ("alice", Role::Admin, ALICES_PHONE);
    cases.case(
        "a_givers_device_exchanged",
        &again,
        &[],
        &devices(&[other_device, bob, carol], 2),
        now,
    );
    cases.case(
        "a_quorum_raised_since_the_grant",
        &again,
        &[],
        &devices(&[alice, bob, carol], 3),
        now,
    );
    let risky = later(|request| request.risk = Some("deploy".parse().unwrap()));
    cases.case("another_class_of_risk_than_was_granted", &risky, &[], &team(), now);
    let denied = decision(CAROL, &again, crate::decision::Answer::Deny);
    cases.case("a_denial_of_what_is_granted", &again, &[denied], &team(), now);
    let forbidding = team_with("[[rule]]\neffect = \"deny\"\ncommand = [\"deploy\", { rest = true }]");
    cases.case("a_rule_that_denies_what_is_granted", &again, &[], &forbidding, now);
    let full = team_with("mode = \"full\"");
    cases.case("a_grant_before_the_mode", &again, &[], &full, now);
    cases.nothing_stands();
}

fn of_others(cases: &mut Cases) {
    let (team, now) = (team(), at(NOON + 5));
    let asking = |class, action: Action| {
        move |request: &mut Request| {
            request.class = class;
            request.action = action;
        }
    };
    let call = || asking(Class::Tool, Action::Tool(tool_call()));
    given_for(request_with(&team, call()), &Terms::exact()).stands(cases, 0);
    given_for(
        request_with(&team, asking(Class::Secret, Action::Secret(secret_use()))),
        &Terms::exact(),
    )
    .stands(cases, 0);
    cases.case("the_same_tool_call", &later(call()), &[], &team, now);
    let mut other = tool_call();
    other.schema = Digest::of(b"another description");
    cases.case(
        "a_tool_with_another_schema",
        &later(asking(Class::Tool, Action::Tool(other))),
        &[],
        &team,
        now,
    );
    let mut other = tool_call();
    other.arguments = Text::new("{}").unwrap();
    cases.case(
        "a_tool_with_other_arguments",
        &later(asking(Class::Tool, Action::Tool(other))),
        &[],
        &team,
        now,
    );
    let same = later(asking(Class::Secret, Action::Secret(secret_use())));
    cases.case("the_same_use_of_a_secret", &same, &[], &team, now);
    let mut other = secret_use();
    other.host = Text::new("registry.example.net").unwrap();
    cases.case(
        "a_secret_for_another_host",
        &later(asking(Class::Secret, Action::Secret(other))),
        &[],
        &team,
        now,
    );
}
