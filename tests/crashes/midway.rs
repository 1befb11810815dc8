//! Deaths at chosen moments: while a command runs, while a request waits, while nobody carries the answer.

use countersign_tests::process::{World, until};

/// Whether a process runs with this word among its arguments.
fn runs_with(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let mut lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    // The program itself, not those who ask for it.
    lines.any(|line| {
        line.starts_with(b"/usr/bin/sleep\0")
            && line
                .split(|byte| *byte == 0)
                .any(|argument| argument == word.as_bytes())
    })
}

#[test]
fn a_gate_that_dies_while_a_command_runs_calls_its_outcome_unknown() {
    let mut world = World::new();
    world.admin.watch("y");
    let nap = format!("{}", 100_000 + u64::from(std::process::id()));
    let mut asking = world.ask(&[], &["/usr/bin/sleep", &nap]);
    assert!(asking.is_permitted());
    until("the command runs", || runs_with(&nap));
    world.gate.crash();
    until("the command died with the gate", || !runs_with(&nap));
    world.gate.start();
    assert_eq!(asking.code(), Some(125));
    let last = "error: permitted, and the gate can't say what happened (it stopped in between); it is not run again\n";
    assert!(asking.process.stderr().ends_with(last), "{}", asking.process.stderr());
    world.settle(0);
    assert!(!runs_with(&nap), "it ran again");
    assert!(
        world
            .admin
            .log()
            .contains("permitted, and the gate can't say what happened"),
        "{}",
        world.admin.log()
    );
    assert!(world.gate.export() == world.admin.export());
}

#[test]
fn an_answer_given_while_the_gate_is_dead_counts_when_it_is_back() {
    let mut world = World::new();
    let mut asking = world.ask(&[], &["/bin/echo", "back"]);
    assert!(asking.is_pending());
    world.gate.crash();
    world.admin.watch("y");
    assert!(world.admin.process().remarks("signed: approve"));
    world.gate.start();
    assert_eq!((asking.code(), asking.process.stdout().as_str()), (Some(0), "back\n"));
}

#[test]
fn what_is_asked_while_the_relay_is_dead_arrives_when_it_is_back() {
    let mut world = World::new();
    world.admin.watch("y");
    world.relay.crash();
    let mut asking = world.ask(&[], &["/bin/echo", "back"]);
    assert!(asking.is_pending());
    world.relay.start();
    assert_eq!((asking.code(), asking.process.stdout().as_str()), (Some(0), "back\n"));
}

#[test]
fn a_signed_answer_survives_the_admin_and_the_relay() {
    let mut world = World::new();
    let mut asking = world.ask(&[], &["/bin/echo", "signed"]);
    assert!(asking.is_pending());
    world.admin.attend();
    assert!(world.admin.process().remarks("[q]uit: "));
    world.relay.crash();
    world.admin.types("y");
    assert!(world.admin.process().remarks("signed: approve"));
    world.admin.crash();
    world.relay.start();
    // Asks for nothing, signs nothing: only sends what was signed before.
    world.admin.look_on();
    assert_eq!((asking.code(), asking.process.stdout().as_str()), (Some(0), "signed\n"));
}
