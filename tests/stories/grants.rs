//! Standing permissions: given by people beside one approval, used without asking, and at an end when they say so (PROTOCOL.md 8.7, 8.8).

use approval::Digest;
use approval::grant::Terms;
use approval::outcome::Ended;
use countersign::local::{Answer, Fault, State};
use countersign_tests::world::{Device, World};

const HOUR: u64 = 60 * 60 * 1000;
const HELLO: [&str; 3] = ["sh", "-c", "echo hello"];

/// The first time is asked, approved, and granted on these terms.
async fn granted(world: &World, admins: &[&Device], terms: &Terms) -> Digest {
    let asking = world.asks(&HELLO).await;
    let id = asking.id;
    for admin in admins {
        admin.grants(&id, terms.clone()).await;
    }
    assert!(asking.ends().await.ran());
    admins.first().expect("an admin").has_the_grant_of(&id).await
}

/// Whether an admin is asked about it once more; they say no then.
async fn is_asked(world: &World, admin: &Device) {
    let asking = world.asks(&HELLO).await;
    admin.denies(&asking.id, "asked again").await;
    assert!(matches!(asking.ends().await.result, Ended::Denied(_)));
}

#[tokio::test]
async fn a_grant_for_an_hour_holds_for_an_hour() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    // Of the gate's own clock, which began before the story set it.
    let now = world.clock.wall() + world.status().await.clock_ahead_ms;
    let until = approval::Time::of_clock(now + HOUR);
    let terms = Terms {
        not_after: Some(until),
        ..Terms::exact()
    };
    let grant = granted(&world, &[&alice], &terms).await;
    let end = world.does(&HELLO).await.unwrap();
    assert_eq!(end.stdout, b"hello\n");
    assert_eq!(end.because, format!("granted by alice ({})", grant.short()));
    let standing = world.grants().await;
    assert_eq!(standing.len(), 1);
    assert_eq!(
        (standing[0].used, standing[0].by.as_slice()),
        (1, ["alice".to_owned()].as_slice())
    );
    world.clock.passes(HOUR);
    assert!(world.does(&HELLO).await.unwrap().ran(), "until and including");
    world.clock.passes(1);
    assert!(world.grants().await.is_empty());
    is_asked(&world, &alice).await;
    world.is_sound().await;
}

#[tokio::test]
async fn a_grant_for_two_uses_is_used_up() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let terms = Terms {
        uses: Some(2),
        ..Terms::exact()
    };
    granted(&world, &[&alice], &terms).await;
    for _ in 0..2 {
        assert!(world.does(&HELLO).await.unwrap().ran());
    }
    is_asked(&world, &alice).await;
    world.is_sound().await;
}

#[tokio::test]
async fn one_admin_takes_back_what_two_gave() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    let grant = granted(&world, &[&alice, &bob], &Terms::exact()).await;
    assert!(world.does(&HELLO).await.unwrap().ran());
    // Allowed by the grant, and not used yet when it ends.
    let allowed = match world.answers(world.wants(&HELLO)).await {
        Answer::Allowed { id, .. } => id.parse().unwrap(),
        other => panic!("not allowed: {other:?}"),
    };
    bob.revokes(&grant).await;
    let revoked = grant;
    alice
        .until("the revocation", move |member, _| {
            let held = member.party.replay.standing().get(&revoked);
            held.is_some_and(|held| held.revocation().is_some())
        })
        .await;
    assert_eq!(world.standing(&allowed).await.state, State::Pending);
    let (kind, _) = world.redeems(&allowed, world.what(&HELLO)).await.unwrap_err();
    assert_eq!(kind, Fault::NotYet);
    assert!(world.grants().await.is_empty());
    let again = alice.revokes(&grant).await;
    assert_eq!(alice.is_refused(&again).await, "the grant is revoked already");
    world.is_sound().await;
}

#[tokio::test]
async fn terms_that_people_dont_agree_on_grant_nothing() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    let asking = world.asks(&HELLO).await;
    let uses = |uses| Terms {
        uses: Some(uses),
        ..Terms::exact()
    };
    alice.grants(&asking.id, uses(1)).await;
    bob.grants(&asking.id, uses(2)).await;
    assert!(asking.ends().await.ran(), "both approved this one time");
    assert!(world.grants().await.is_empty());
    is_asked(&world, &alice).await;
}

#[tokio::test]
async fn a_new_grant_opens_what_else_waits() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let first = world.requests(&HELLO).await;
    let second = world.asks(&HELLO).await;
    let mut listening = world.listens().await;
    alice.grants(&second.id, Terms::exact()).await;
    assert!(second.ends().await.ran());
    let woken = listening.hears().await;
    assert_eq!((woken.id, woken.state), (first.id.to_string(), State::Allowed));
    assert!(world.redeems(&first.id, world.what(&HELLO)).await.unwrap().ran());
    world.is_sound().await;
}

#[tokio::test]
async fn a_grant_survives_a_restart_with_its_uses() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let terms = Terms {
        uses: Some(2),
        ..Terms::exact()
    };
    granted(&world, &[&alice], &terms).await;
    assert!(world.does(&HELLO).await.unwrap().ran());
    world.gate.restarts().await;
    assert!(world.does(&HELLO).await.unwrap().ran());
    is_asked(&world, &alice).await;
    world.is_sound().await;
}

#[tokio::test]
async fn a_blank_stands_for_a_plain_argument_and_nothing_else() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let asking = world.asks(&["echo", "hello", "world"]).await;
    let terms = Terms {
        blanks: vec![2],
        ..Terms::exact()
    };
    alice.grants(&asking.id, terms).await;
    assert!(asking.ends().await.ran());
    assert_eq!(
        world.does(&["echo", "hello", "moon"]).await.unwrap().stdout,
        b"hello moon\n"
    );
    for other in [
        &["echo", "hello", "-n"][..],
        &["echo", "hello", "a b"],
        &["echo", "hello", "../x"],
        &["echo", "bye", "moon"],
        &["echo", "hello", "moon", "sun"],
    ] {
        let asking = world.asks(other).await;
        alice.denies(&asking.id, "").await;
        assert!(matches!(asking.ends().await.result, Ended::Denied(_)), "{other:?}");
    }
    world.is_sound().await;
}
