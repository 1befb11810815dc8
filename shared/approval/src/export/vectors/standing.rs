//! The frozen files about what stands: policies, grants, revocations, and a gate without admins. Not here: the files in which
//! people alone decide.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::grant::{Grant, Terms};
use crate::outcome::Forbidden;
use crate::policy::Policy;
use crate::request::{Request, matching};
use crate::roster::Unenrolled;

/// Under it a status is allowed twice, a filter-branch never, and a push is asked on careful terms.
const RULES: &str = r#"
[class.careful]
quorum = 2
veto = false
four_eyes = true
number = true
expires = "10m"
[person.bob]
users = ["matrix:bob"]
[[rule]]
effect = "allow"
command = ["git", "status"]
uses = 2
[[rule]]
effect = "deny"
command = ["git", "filter-branch", { rest = true }]
[[rule]]
effect = "ask"
command = ["git", "push", { rest = true }]
class = "careful"
"#;

fn permission(world: &World, request: Digest, basis: Basis) -> Permission {
    Permission {
        request,
        roster: world.roster().digest(),
        basis,
        confined: Vec::new(),
        time: world.time(),
    }
}

fn permit_by(world: &World, request: Digest, basis: Basis) -> Dishonest {
    Dishonest::after(world).say(GATE, permission(world, request, basis))
}

fn ended(world: &World, request: Digest, result: Ended) -> Dishonest {
    Dishonest::after(world).say(GATE, world.outcome(request, result))
}

pub(super) fn policies(vectors: &mut Vectors) {
    let world = World::two_of_three_under(RULES);
    terms(vectors, &world);
    forbidden(vectors, &world);
    rules(vectors, &world);
    numbers(vectors, &world);
    let mut changed = world.clone();
    let mut contents = changed.roster().contents();
    contents.policy = None;
    let request = changed.ask(Action::Roster(contents.clone()));
    changed.approve(ALICE, request);
    changed.approve(BOB, request);
    changed.permit(request);
    contents.policy = Some(Policy::parse("mode = \"full\"").unwrap());
    let other = changed.next_roster(&contents, Some(request));
    vectors.bad_last(
        "roster-with-another-policy-than-permitted",
        &Dishonest::after(&changed).say(GATE, other),
    );
}

fn terms(vectors: &mut Vectors, world: &World) {
    let good = world.request(command(&[b"git", b"push"]));
    let bad = |change: &dyn Fn(&mut Request)| {
        let mut request = good.clone();
        change(&mut request);
        Dishonest::after(world).say(GATE, request)
    };
    vectors.bad_last(
        "request-without-its-class-of-risk",
        &bad(&|request| request.risk = None),
    );
    vectors.bad_last(
        "request-of-another-class-of-risk",
        &bad(&|request| request.risk = Some("careless".parse().unwrap())),
    );
    vectors.bad_last(
        "request-with-a-veto-that-nobody-has",
        &bad(&|request| request.veto = true),
    );
    vectors.bad_last("request-without-four-eyes", &bad(&|request| request.four_eyes = false));
    vectors.bad_last("request-without-its-number", &bad(&|request| request.matching = None));
    vectors.bad_last(
        "request-that-lives-too-long",
        &bad(&|request| request.expires = request.created.plus_millis(600_001)),
    );
    vectors.bad_last(
        "request-that-needs-more-than-the-class",
        &bad(&|request| request.need = 3),
    );
    let usual = world.request(command(&[b"git", b"log"]));
    let number = Request {
        matching: Some(matching(&usual.nonce, NUMBER)),
        ..usual
    };
    vectors.bad_last(
        "request-with-a-number-for-nothing",
        &Dishonest::after(world).say(GATE, number),
    );
}

fn forbidden(vectors: &mut Vectors, world: &World) {
    let mut world = world.clone();
    let never = world.ask(command(&[b"git", b"filter-branch", b"x"]));
    let by = |rule| Ended::Forbidden(Forbidden { rule });
    vectors.bad_last("outcome-forbidden-by-another-rule", &ended(&world, never, by(Some(0))));
    vectors.bad_last("outcome-forbidden-by-the-mode", &ended(&world, never, by(None)));
    vectors.bad_last(
        "outcome-denied-of-what-is-forbidden",
        &ended(&world, never, Ended::Denied(Nothing {})),
    );
    let decisions: Vec<_> = [ALICE, BOB].map(|by| world.approve(by, never)).to_vec();
    vectors.bad_last(
        "permit-of-what-is-forbidden",
        &permit_by(&world, never, Basis::Decisions(decisions)),
    );
    let log = world.ask(command(&[b"git", b"log"]));
    vectors.bad_last("outcome-forbidden-of-what-is-asked", &ended(&world, log, by(Some(1))));
    vectors.bad_last("outcome-released-of-a-command", &{
        let mut world = world.clone();
        world.approve(ALICE, log);
        world.approve(BOB, log);
        world.permit(log);
        ended(&world, log, Ended::Released(Nothing {}))
    });
    let call = world.ask(tool("{}"));
    world.approve(ALICE, call);
    world.approve(BOB, call);
    world.permit(call);
    vectors.bad_last(
        "outcome-ran-of-a-tool-call",
        &ended(&world, call, ran(Exit::Code(0), None)),
    );
    let mut open = World::two_of_three();
    let change = open.ask(Action::Roster(world.contents(three(), 1, 1)));
    vectors.bad_last("outcome-forbidden-of-a-roster", &ended(&open, change, by(None)));
}

fn rules(vectors: &mut Vectors, world: &World) {
    let mut world = world.clone();
    let log = world.ask(command(&[b"git", b"log"]));
    vectors.bad_last(
        "permit-by-a-rule-for-another-command",
        &permit_by(&world, log, Basis::Rule(0)),
    );
    vectors.bad_last(
        "permit-by-a-rule-that-is-none",
        &permit_by(&world, log, Basis::Rule(77)),
    );
    vectors.bad_last(
        "permit-by-a-mode-that-asks",
        &permit_by(&world, log, Basis::Mode(Nothing {})),
    );
    let status = world.ask(command(&[b"git", b"status"]));
    vectors.bad_last("permit-by-another-rule", &permit_by(&world, status, Basis::Rule(2)));
    vectors.bad_last(
        "permit-by-people-where-a-rule-allows",
        &permit_by(&world, status, Basis::Decisions(vec![])),
    );
    vectors.bad_last(
        "permit-unenrolled-with-admins",
        &permit_by(&world, status, Basis::Unenrolled(Nothing {})),
    );
    let mut approved = world.clone();
    approved.approve(ALICE, status);
    approved.approve(BOB, status);
    vectors.bad_last(
        "permit-by-a-rule-where-people-approved",
        &permit_by(&approved, status, Basis::Rule(0)),
    );
    world.permit(status);
    let again = world.ask(command(&[b"git", b"status"]));
    world.permit(again);
    let third = world.ask(command(&[b"git", b"status"]));
    vectors.bad_last("permit-by-a-rule-used-up", &permit_by(&world, third, Basis::Rule(0)));
    let people = world.contents(three(), 2, 2);
    let mut same = world.clone();
    same.change(people.clone(), &[ALICE, BOB]);
    vectors.bad_last(
        "permit-by-a-rule-used-up-before-a-roster-with-the-same-policy",
        &permit_by(&same, third, Basis::Rule(0)),
    );
    let mut counted_anew = world;
    let mut contents = people;
    contents.policy = Some(Policy::parse(&format!("# anew{RULES}")).unwrap());
    counted_anew.change(contents, &[ALICE, BOB]);
    counted_anew.permit(third);
    vectors.good("uses-counted-anew", &String::from_utf8(counted_anew.export()).unwrap());
}

fn numbers(vectors: &mut Vectors, world: &World) {
    let mut world = world.clone();
    let push = world.ask_of(command(&[b"git", b"push"]), "builder", "matrix:bob");
    let numbered = |world: &World, by, number: Option<&str>| {
        let mut decision = world.decision(by, push, Answer::Approve);
        decision.number = number.map(str::to_owned);
        decision
    };
    let right = numbered(&world, ALICE, Some(NUMBER));
    let alice = world.say(ALICE, right);
    for (name, by, number) in [
        ("permit-with-another-number", CAROL, Some("043")),
        ("permit-without-a-number", CAROL, None),
        ("permit-by-whoever-asks", BOB, Some(NUMBER)),
    ] {
        let mut world = world.clone();
        let other = numbered(&world, by, number);
        let other = world.say(by, other);
        vectors.bad_last(name, &permit_by(&world, push, Basis::Decisions(vec![alice, other])));
    }
    let other = numbered(&world, BOB, Some(NUMBER));
    world.say(BOB, other);
    world.deny(BOB, push);
    let other = numbered(&world, CAROL, Some(NUMBER));
    vectors.bad_last(
        "outcome-denied-by-one-without-veto",
        &ended(&world, push, Ended::Denied(Nothing {})),
    );
    world.say(CAROL, other);
    world.permit(push);
    world.end(push, ran(Exit::Code(0), None));
    vectors.good("careful-terms", &String::from_utf8(world.export()).unwrap());
}

pub(super) fn grants(vectors: &mut Vectors) {
    let mut world = World::two_of_three();
    let fetch: &[&[u8]] = &[b"git", b"fetch", b"upstream"];
    let request = world.ask(command(fetch));
    let terms = last_blank(2);
    world.approve_for_good(ALICE, request, &terms);
    let plain = world.approve(CAROL, request);
    let one = world.clone();
    world.approve_for_good(BOB, request, &terms);
    let good = world.grantable(request).unwrap();
    let bad = |change: &dyn Fn(&mut Grant)| {
        let mut grant = good.clone();
        change(&mut grant);
        grant.time = world.time();
        Dishonest::after(&world).say(GATE, grant)
    };
    vectors.bad_last("grant-by-one-of-two", &bad(&|grant| grant.decisions.truncate(1)));
    vectors.bad_last("grant-by-nobody", &bad(&|grant| grant.decisions.clear()));
    vectors.bad_last(
        "grant-citing-one-twice",
        &bad(&|grant| grant.decisions[1] = grant.decisions[0]),
    );
    vectors.bad_last("grant-in-another-order", &bad(&|grant| grant.decisions.reverse()));
    vectors.bad_last(
        "grant-citing-an-approval-of-once",
        &bad(&|grant| grant.decisions[1] = plain),
    );
    vectors.bad_last("grant-on-wider-terms", &bad(&|grant| grant.terms.blanks = vec![1, 2]));
    vectors.bad_last("grant-on-narrower-terms", &bad(&|grant| grant.terms.uses = Some(1)));
    vectors.bad_last(
        "grant-under-an-old-roster",
        &bad(&|grant| grant.roster = Digest::of(b"old")),
    );
    vectors.bad_last(
        "grant-about-nothing",
        &bad(&|grant| grant.request = Digest::of(b"nothing")),
    );
    vectors.bad_last("grant-by-an-admin", &Dishonest::after(&world).say(ALICE, good.clone()));
    let early = Grant {
        decisions: vec![good.decisions[0]],
        time: one.time(),
        ..good.clone()
    };
    vectors.bad_last(
        "grant-before-the-second-approval",
        &Dishonest::after(&one).say(GATE, early),
    );
    let mut denied = world.clone();
    denied.deny(CAROL, request);
    let late = |world: &World| Grant {
        time: world.time(),
        ..good.clone()
    };
    vectors.bad_last(
        "grant-after-a-denial",
        &Dishonest::after(&denied).say(GATE, late(&denied)),
    );
    let mut expired = world.clone();
    expired.now = expired.replay.request(&request).unwrap().request().expires.millis();
    vectors.bad_last(
        "grant-after-the-expiry",
        &Dishonest::after(&expired).say(GATE, late(&expired)),
    );
    let mut permitted = world.clone();
    permitted.permit(request);
    vectors.bad_last(
        "grant-after-the-permit",
        &Dishonest::after(&permitted).say(GATE, late(&permitted)),
    );
    let mut twice = world.clone();
    twice.say(GATE, good.clone());
    vectors.bad_last("grant-twice", &Dishonest::after(&twice).say(GATE, late(&twice)));
    unlike(vectors, &world, &good);
    not_grantable(vectors);
}

/// Permits that rest on a grant which doesn't carry them.
fn unlike(vectors: &mut Vectors, world: &World, grant: &Grant) {
    let mut world = world.clone();
    let request = grant.request;
    let given = world.say(GATE, grant.clone());
    world.permit(request);
    let by_grant = |world: &World, request| permit_by(world, request, Basis::Grant(given));
    let asked = |name: &str, vectors: &mut Vectors, argv: &[&[u8]], agent: &str| {
        let mut world = world.clone();
        let request = world.ask_of(command(argv), agent, "Maria");
        vectors.bad_last(name, &by_grant(&world, request));
    };
    asked(
        "permit-by-a-grant-for-another-command",
        vectors,
        &[b"git", b"pull", b"upstream"],
        "builder",
    );
    asked(
        "permit-by-a-grant-with-an-option-in-its-blank",
        vectors,
        &[b"git", b"fetch", b"--upload-pack=x"],
        "builder",
    );
    asked(
        "permit-by-a-grant-with-a-path-in-its-blank",
        vectors,
        &[b"git", b"fetch", b"../x"],
        "builder",
    );
    asked(
        "permit-by-a-grant-for-another-agent",
        vectors,
        &[b"git", b"fetch", b"upstream"],
        "intruder",
    );
    let again = world.ask(command(&[b"git", b"fetch", b"mirror"]));
    vectors.bad_last(
        "permit-by-a-grant-that-was-never-given",
        &permit_by(&world, again, Basis::Grant(Digest::of(b"none"))),
    );
    vectors.bad_last(
        "permit-by-people-where-a-grant-stands",
        &permit_by(&world, again, Basis::Decisions(vec![])),
    );
    let mut without_bob = world.clone();
    let [alice, _, carol] = three().try_into().unwrap();
    without_bob.change(without_bob.contents(vec![alice, carol], 2, 2), &[ALICE, CAROL]);
    vectors.bad_last("permit-by-a-grant-of-too-few-left", &by_grant(&without_bob, again));
    let mut revoked = world;
    revoked.revoke(CAROL, given);
    vectors.bad_last("permit-by-a-revoked-grant", &by_grant(&revoked, again));
}

fn not_grantable(vectors: &mut Vectors) {
    let given = |action: Action, terms: &Terms| {
        let mut world = World::two_of_three();
        let request = world.ask(action);
        let decisions = [ALICE, BOB]
            .map(|by| world.approve_for_good(by, request, terms))
            .to_vec();
        let grant = Grant {
            request,
            roster: world.roster().digest(),
            decisions,
            terms: terms.clone(),
            time: world.time(),
        };
        Dishonest::after(&world).say(GATE, grant)
    };
    let marked = |mark| match command(&[b"git", b"fetch", b"x"]) {
        Action::Command(mut command) => {
            command.marks = vec![mark];
            Action::Command(command)
        }
        _ => unreachable!(),
    };
    let (exact, blank) = (Terms::exact(), last_blank(2));
    use crate::action::Mark;
    vectors.bad_last("grant-of-a-writable-program", &given(marked(Mark::Writable), &exact));
    vectors.bad_last("grant-of-a-setuid-program", &given(marked(Mark::Setuid), &exact));
    vectors.bad_last("grant-of-a-runner-with-a-blank", &given(marked(Mark::Runner), &blank));
    vectors.bad_last("grant-of-odd-arguments-with-a-blank", &given(marked(Mark::Odd), &blank));
    vectors.bad_last(
        "grant-with-a-blank-that-is-an-option",
        &given(command(&[b"git", b"fetch", b"-f"]), &blank),
    );
    vectors.bad_last(
        "grant-with-a-blank-beyond-argv",
        &given(command(&[b"git", b"fetch"]), &blank),
    );
    vectors.bad_last("grant-of-a-tool-call-with-a-blank", &given(tool("{}"), &blank));
    let world = World::two_of_three();
    vectors.bad_last(
        "grant-of-a-change-of-the-roster",
        &given(Action::Roster(world.contents(three(), 1, 1)), &exact),
    );
    let mut world = World::two_of_three();
    let bounded = Terms {
        not_after: Some(world.time().plus_millis(60_000)),
        uses: Some(1),
        ..exact
    };
    let fetch = || command(&[b"git", b"fetch"]);
    let given = world.granted(fetch(), &bounded);
    let again = world.ask(fetch());
    let mut late = world.clone();
    late.wait(60_000);
    vectors.bad_last(
        "permit-by-a-grant-that-is-over",
        &permit_by(&late, again, Basis::Grant(given)),
    );
    world.permit(again);
    let third = world.ask(fetch());
    vectors.bad_last(
        "permit-by-a-grant-used-up",
        &permit_by(&world, third, Basis::Grant(given)),
    );
}

pub(super) fn revocations(vectors: &mut Vectors) {
    let mut all = three();
    all.push(person("dora", Role::Auditor, &[(DORA, "desk")]));
    let mut world = World::with(all, 2, 2);
    let grant = world.granted(command(&[b"git", b"fetch"]), &Terms::exact());
    for (name, by) in [("an-auditor", DORA), ("a-stranger", 66), ("the-gate", GATE)] {
        let revocation = world.revocation(by, grant);
        vectors.bad_last(
            &format!("revocation-by-{name}"),
            &Dishonest::after(&world).say(by, revocation),
        );
    }
    let of_nothing = world.revocation(BOB, Digest::of(b"none"));
    vectors.bad_last("revocation-of-no-grant", &Dishonest::after(&world).say(BOB, of_nothing));
    world.revoke(BOB, grant);
    let again = world.revocation(CAROL, grant);
    vectors.bad_last("revocation-twice", &Dishonest::after(&world).say(CAROL, again));
}

pub(super) fn unenrolled(vectors: &mut Vectors) {
    let mut world = World::unenrolled(Unenrolled::Allow);
    let status = world.ask(command(&[b"git", b"status"]));
    vectors.bad_last(
        "permit-by-the-mode-while-unenrolled",
        &permit_by(&world, status, Basis::Mode(Nothing {})),
    );
    let mut late = world.clone();
    late.now = late.replay.request(&status).unwrap().request().expires.millis();
    vectors.bad_last(
        "permit-unenrolled-at-the-expiry",
        &permit_by(&late, status, Basis::Unenrolled(Nothing {})),
    );
    let alice = || vec![person("alice", Role::Admin, &[(ALICE, "phone")])];
    let mut changing = World::unenrolled(Unenrolled::Allow);
    let change = changing.ask(Action::Roster(changing.contents(alice(), 1, 1)));
    vectors.bad_last(
        "permit-unenrolled-of-a-roster",
        &permit_by(&changing, change, Basis::Unenrolled(Nothing {})),
    );
    let mut closed = World::new();
    let asked = closed.ask(command(&[b"git", b"status"]));
    vectors.bad_last(
        "permit-unenrolled-where-the-genesis-refuses",
        &permit_by(&closed, asked, Basis::Unenrolled(Nothing {})),
    );
    let dora = vec![person("dora", Role::Auditor, &[(DORA, "desk")])];
    let mut opened = closed.next_roster(&closed.contents(dora, 1, 1), None);
    opened.unenrolled = Unenrolled::Allow;
    vectors.bad_last(
        "roster-that-allows-what-the-genesis-refuses",
        &Dishonest::after(&closed).say(GATE, opened),
    );
    world.permit(status);
    world.end(status, ran(Exit::Code(0), None));
    let enrolled = world.next_roster(&world.contents(alice(), 1, 1), None);
    world.say(GATE, enrolled);
    let after = world.ask(command(&[b"git", b"status"]));
    vectors.bad_last(
        "permit-unenrolled-after-the-first-admin",
        &permit_by(&world, after, Basis::Unenrolled(Nothing {})),
    );
    world.approve(ALICE, after);
    world.permit(after);
    vectors.good("unenrolled", &String::from_utf8(world.export()).unwrap());
}
