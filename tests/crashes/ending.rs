//! Ending in good order: SIGTERM ends relay and gate with 0, and nothing that waits is lost.

use countersign_tests::process::{World, until};

#[test]
fn a_gate_that_is_stopped_leaves_no_socket_and_goes_on_where_it_was() {
    let mut world = World::new();
    let socket = world.gate.home.join("gate.sock");
    let mut asking = world.ask(&[], &["/bin/echo", "later"]);
    assert!(asking.is_pending());
    assert!(socket.exists());
    assert_eq!(world.gate.stop().code(), Some(0));
    assert!(!socket.exists(), "the socket is left");
    world.gate.start();
    world.admin.watch("y");
    assert_eq!((asking.code(), asking.process.stdout().as_str()), (Some(0), "later\n"));
    assert_eq!(world.admin.stop().code(), Some(0));
}

#[test]
fn a_relay_that_is_stopped_keeps_what_waits() {
    let mut world = World::new();
    let word = "waits-at-the-relay";
    let before = world.relay.envelopes();
    // Acknowledgements to the gate come and go, and are of the smallest length; a request isn't.
    let came = |world: &World| {
        let mut now = world.relay.envelopes().into_iter();
        now.any(|(name, length)| length > 1024 && !before.contains_key(&name))
    };
    let asking = world.ask(&[], &["/bin/echo", word]);
    assert!(asking.is_pending());
    until("the request lies at the relay", || came(&world));
    // In this order: the gate can't send it a second time.
    assert_eq!(world.gate.stop().code(), Some(0));
    assert_eq!(world.relay.stop().code(), Some(0));
    world.relay.start();
    world.admin.look_on();
    assert!(world.admin.process().says(word), "{}", world.admin.log());
}
