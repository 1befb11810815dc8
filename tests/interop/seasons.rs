//! What happens in the transcripts that both verifiers read: approvals, grants, rules, and the time before the first admin.
//! Not here: how an entry is made (`transcript`).

use anyhow::Result;
use approval::action::Action;
use approval::decision::Answer;
use approval::grant::Terms;
use approval::outcome::{Ended, Exit, Forbidden, Nothing, Ran, Stream};
use approval::request::{AskedBy, Request};
use approval::roster::{Role, Unenrolled};
use approval::{Digest, Time, Verified};
use rand_core::OsRng;
use wire::identity::Identity;

use crate::transcript::{BEGINNING, HOUR, World, call, certificate, command, run};

/// What a command leaves behind.
pub(crate) fn ran() -> Ended {
    let stream = |text: &str| Stream {
        sha256: Digest::of(text.as_bytes()),
        bytes: text.len() as u64,
    };
    Ended::Ran(Ran {
        exit: Exit::Code(-1),
        stdout: stream("done\n"),
        stderr: stream(""),
        wall_ms: 1200,
        stopped: None,
    })
}

/// A transcript in which something of every kind happened; and the request that was approved across a change of roster.
pub(crate) fn season() -> Result<(World, Digest)> {
    let mut world = World::of_two()?;
    let nothing = Nothing::default;
    let approved = world.ask(command()?)?;
    world.decide(|cast| &cast.alice, &approved, Answer::Approve)?;

    carol_looks_on(&mut world)?;
    world.decide(|cast| &cast.bob, &approved, Answer::Approve)?;
    let permit = world.permit(&approved)?;
    world.end(&approved, Some(permit), ran())?;

    let denied = world.ask(command()?)?;
    world.decide(|cast| &cast.alice, &denied, Answer::Approve)?;
    world.decide(|cast| &cast.bob, &denied, Answer::Deny)?;
    world.end(&denied, None, Ended::Denied(nothing()))?;
    let (withdrawn, expired) = (world.ask(command()?)?, world.ask(command()?)?);
    world.end(&withdrawn, None, Ended::Withdrawn(nothing()))?;
    world.wait(2 * HOUR);
    world.end(&expired, None, Ended::Expired(nothing()))?;
    let (granted, grant) = granted(&mut world)?;
    world.allowed(run(&["deploy", "staging"])?, ran())?;
    world.revoke(grant)?;
    world.end(&granted, None, Ended::Withdrawn(nothing()))?;
    world.ask(command()?)?;
    Ok((world, approved.digest()))
}

/// Alice and Bob let Carol look on: another roster.
fn carol_looks_on(world: &mut World) -> Result<()> {
    let carol = certificate(&Identity::generate(&mut OsRng), "laptop")?;
    let contents = world.contents()?.with_device("carol".parse()?, Role::Auditor, carol)?;
    let change = world.ask(Action::Roster(contents.clone()))?;
    world.decide(|cast| &cast.bob, &change, Answer::Approve)?;
    world.decide(|cast| &cast.alice, &change, Answer::Approve)?;
    world.permit(&change)?;
    world.change(contents, Some(change.digest()))
}

/// What may be granted with a blank, and was.
pub(crate) fn granted(world: &mut World) -> Result<(Verified<Request>, Digest)> {
    let terms = Terms {
        blanks: vec![1],
        user: true,
        conversation: true,
        not_after: Some(Time::from_millis(BEGINNING + 100 * HOUR)?),
        uses: Some(1),
    };
    let request = world.ask(run(&["deploy", "production"])?)?;
    let grant = world.grant(&request, &terms)?;
    Ok((request, grant))
}

/// A transcript in which a grant stood for something, though the roster had changed since; and that.
pub(crate) fn by_a_grant() -> Result<(World, Digest)> {
    let mut world = World::of_two()?;
    granted(&mut world)?;
    carol_looks_on(&mut world)?;
    let allowed = world.allowed(run(&["deploy", "staging"])?, ran())?;
    Ok((world, allowed))
}

/// A transcript in which a rule with so many uses allowed something for the second time; and that.
pub(crate) fn by_a_rule() -> Result<(World, Digest)> {
    let mut world = World::of_two_under_policy()?;
    world.allowed(run(&["ls", "a.log"])?, ran())?;
    let allowed = world.allowed(run(&["ls", "b.log"])?, ran())?;
    Ok((world, allowed))
}

/// A transcript in which the policy allows, forbids and wants care.
pub(crate) fn ruled() -> Result<World> {
    let mut world = World::of_two_under_policy()?;
    world.allowed(run(&["ls", "a.log"])?, ran())?;
    world.allowed(run(&["ls", "b.log"])?, ran())?;
    let used_up = world.ask(run(&["ls", "c.log"])?)?;
    world.end(&used_up, None, Ended::Withdrawn(Nothing {}))?;
    world.wait(HOUR);
    world.allowed(run(&["ls", "c.log"])?, ran())?;
    let forbidden = world.ask(run(&["rm", "-r", "x"])?)?;
    world.end(&forbidden, None, Ended::Forbidden(Forbidden { rule: Some(1) }))?;
    let asked_by = AskedBy {
        under: vec!["guest".parse()?],
        ..forbidden.asked_by.clone()
    };
    let under = world.question_of(run(&["ls", "a.log"])?, asked_by)?;
    let under = world.say(|cast| &cast.gate, under)?;
    world.end(&under, None, Ended::Forbidden(Forbidden { rule: None }))?;
    let careful = world.ask(call()?)?;
    world.both(&careful, Answer::Approve)?;
    let permit = world.permit(&careful)?;
    world.end(&careful, Some(permit), Ended::Released(Nothing {}))?;
    Ok(world)
}

/// A transcript of a gate that did what it was asked until it had an admin.
pub(crate) fn unenrolled() -> Result<World> {
    let mut world = World::unenrolled(Unenrolled::Allow)?;
    world.allowed(command()?, ran())?;
    world.enrol_alice()?;
    let asked = world.ask(command()?)?;
    world.decide(|cast| &cast.alice, &asked, Answer::Deny)?;
    world.end(&asked, None, Ended::Denied(Nothing {}))?;
    Ok(world)
}
