//! What runs is what was approved, in a process that has nothing else, and it ends when it must. With the real program as launcher.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "runner/bound.rs"]
mod bound;
#[path = "runner/held_in.rs"]
mod held_in;

use std::fs;
use std::future::pending;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::{Duration, Instant};

use approval::action::{Action, Command, Limits, Mark};
use approval::checkpoint::Checkpoint;
use approval::decide::{Permit, Verdict, decide};
use approval::decision::{Answer, Decision};
use approval::device::{Certificate, Device};
use approval::outcome::{Ended, Exit, Ran, Stopped};
use approval::request::{AskedBy, Class, Request};
use approval::roster::{Person, Quorum, Role, Roster, Unenrolled};
use approval::scalar::{LeafKey, Text};
use approval::standing::Standing;
use approval::{ByteString, Digest, Id16, Time, Verified, sign};
use countersign::runner::{Asking, Chunk, Held, Launcher, bind, run};
use rand_core::OsRng;
use tokio::sync::mpsc;
use wire::identity::Identity;

fn launcher() -> Launcher {
    match std::env::var_os("COUNTERSIGN_TEST_NOBODY") {
        Some(copy) => Launcher::at(copy),
        None => Launcher::at(env!("CARGO_BIN_EXE_countersign")),
    }
}

fn bytes(text: impl AsRef<[u8]>) -> ByteString {
    ByteString::new(text.as_ref()).unwrap()
}

/// A command in `/`, ten seconds and a megabyte.
fn command(program: &str, arguments: &[&str]) -> Asking {
    Asking {
        argv: [program].iter().chain(arguments).map(bytes).collect(),
        env: Vec::new(),
        directory: "/".into(),
        stdin: None,
        limits: Limits {
            wall_ms: 10_000,
            output_bytes: 1_000_000,
            memory_bytes: 0,
        },
        hide: None,
    }
}

fn shell(script: &str) -> Asking {
    command("sh", &["-c", script])
}

/// Bound, asked and allowed.
fn approved(asking: Asking) -> (Permit, Verified<Request>, Held) {
    let (command, held) = bind(&asking).unwrap();
    let (permit, request) = permitted(command);
    (permit, request, held)
}

/// One gate, one admin, who says yes.
fn permitted(command: Command) -> (Permit, Verified<Request>) {
    let (gate, admin) = (Identity::generate(&mut OsRng), Identity::generate(&mut OsRng));
    let time = |millis| Time::from_millis(millis).unwrap();
    let device = |identity: &Identity, leaf| {
        let device = Device {
            party: identity.party(),
            leaf: LeafKey([leaf; 32]),
            name: "device".parse().unwrap(),
            created: time(0),
        };
        Certificate::from(sign(identity, device).unwrap())
    };
    let zoe = Person {
        name: "zoe".parse().unwrap(),
        role: Role::Admin,
        devices: vec![device(&admin, 2)],
    };
    let roster = Roster {
        gate: gate.party(),
        epoch: 1,
        previous: Some(Digest([0; 32])),
        basis: None,
        gate_device: device(&gate, 1),
        people: vec![zoe],
        quorum: Quorum { command: 1, roster: 1 },
        policy: None,
        unenrolled: Unenrolled::Refuse,
        relays: Vec::new(),
        created: time(0),
    };
    let roster = sign(&gate, roster).unwrap();
    let asked_by = AskedBy {
        agent: "agent".parse().unwrap(),
        under: Vec::new(),
        user: None,
        conversation: None,
        platform: None,
    };
    let request = Request {
        gate: gate.party(),
        incarnation: Id16([1; 16]),
        index: 2,
        nonce: Id16([2; 16]),
        roster: roster.digest(),
        class: Class::Command,
        risk: None,
        need: 1,
        veto: true,
        four_eyes: false,
        matching: None,
        action: Action::Command(command),
        asked_by,
        reason: Text::new("because").unwrap(),
        created: time(0),
        expires: time(60_000),
    };
    let request = sign(&gate, request).unwrap();
    let decision = Decision {
        party: admin.party(),
        request: request.digest(),
        verdict: Answer::Approve,
        number: None,
        grant: None,
        reason: Text::new("").unwrap(),
        time: time(1),
        checkpoint: Checkpoint::sign(&gate, 3, [7; 32]).as_str().to_owned(),
    };
    let decision = sign(&admin, decision).unwrap();
    match decide(&request, &[decision], &Standing::default(), &roster, time(2)) {
        Verdict::Open(permit) => (permit, request),
        verdict => panic!("{verdict:?}"),
    }
}

struct Finished {
    ended: Ended,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Finished {
    fn ran(&self) -> &Ran {
        match &self.ended {
            Ended::Ran(ran) => ran,
            ended => panic!("{ended:?}"),
        }
    }

    fn failed(&self) -> &str {
        match &self.ended {
            Ended::Failed(failed) => failed.error.as_untrusted(),
            ended => panic!("{ended:?}"),
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

async fn collect(mut chunks: mpsc::Receiver<Chunk>) -> (Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(chunk) = chunks.recv().await {
        match chunk {
            Chunk::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            Chunk::Stderr(bytes) => stderr.extend_from_slice(&bytes),
        }
    }
    (stdout, stderr)
}

async fn finish(asking: Asking) -> Finished {
    let (command, held) = bind(&asking).unwrap();
    finish_bound(&launcher(), command, held).await
}

async fn finish_bound(launcher: &Launcher, command: Command, held: Held) -> Finished {
    let (permit, request) = permitted(command);
    let (sender, receiver) = mpsc::channel(4);
    let (ended, (stdout, stderr)) = tokio::join!(
        run(launcher, permit, &request, held, sender, pending()),
        collect(receiver)
    );
    Finished { ended, stdout, stderr }
}

/// Waits until the process is gone, or a corpse that nobody buried.
async fn gone(pid: &str) {
    let stat = Path::new("/proc").join(pid).join("stat");
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "process {pid} is still alive");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn argv_and_environment_are_the_approved_bytes_and_nothing_else() {
    let (mut command, held) = bind(&command("cat", &[])).unwrap();
    command.argv = vec![
        bytes("an odd name"),
        bytes("--"),
        bytes("/proc/self/cmdline"),
        bytes("/proc/self/environ"),
    ];
    command.env = vec![
        (bytes("A"), bytes("with space = and\nline")),
        (bytes("B"), bytes(b"\xff\xfe")),
        (bytes("EMPTY"), bytes("")),
    ];
    let finished = finish_bound(&launcher(), command, held).await;
    assert_eq!(finished.ran().exit, Exit::Code(0));
    let argv = b"an odd name\0--\0/proc/self/cmdline\0/proc/self/environ\0";
    let env = b"A=with space = and\nline\0B=\xff\xfe\0EMPTY=\0";
    assert_eq!(finished.stdout, [&argv[..], env].concat());
}

#[tokio::test]
async fn an_empty_environment_stays_empty() {
    let (mut env, held) = bind(&command("env", &[])).unwrap();
    env.env = Vec::new();
    assert_eq!(finish_bound(&launcher(), env, held).await.text(), "");
}

#[tokio::test]
async fn it_reads_nothing_and_stands_where_it_was_approved_to_stand() {
    let folder = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(folder.path()).unwrap();
    let mut script = shell("cat; pwd -P");
    script.directory = real.clone();
    assert_eq!(finish(script).await.text(), format!("{}\n", real.display()));
}

#[tokio::test]
async fn it_has_no_terminal_no_new_privileges_no_core_dump_and_no_inherited_file() {
    // As if whoever started the gate had forgotten to close something.
    let leaked = fs::File::open("/etc/hostname").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let finished = finish(shell(
        "grep NoNewPrivs /proc/$$/status; grep core /proc/$$/limits; ls /proc/$$/fd; \
         read -r pid name state parent group session tty rest < /proc/$$/stat; echo tty $tty; test $session = $pid && echo own session; \
         : < /dev/tty",
    ))
    .await;
    let text = finished.text();
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        lines,
        [
            "NoNewPrivs: 1",
            "Max core file size 0 0 bytes",
            "0",
            "1",
            "2",
            "tty 0",
            "own session"
        ]
    );
    assert!(!finished.stderr.is_empty(), "/dev/tty can't be opened");
    drop(leaked);
}

#[tokio::test]
async fn the_exit_is_told_as_it_was() {
    assert_eq!(finish(shell("exit 42")).await.ran().exit, Exit::Code(42));
    let killed = finish(shell("kill -TERM $$")).await;
    assert_eq!(killed.ran().exit, Exit::Signal(15));
    assert_eq!(killed.ran().stopped, None);
}

#[tokio::test]
async fn both_streams_are_shown_counted_and_hashed() {
    let finished = finish(shell("printf out; printf error >&2")).await;
    assert_eq!(
        (finished.stdout.as_slice(), finished.stderr.as_slice()),
        (&b"out"[..], &b"error"[..])
    );
    let ran = finished.ran();
    assert_eq!((ran.stdout.bytes, ran.stdout.sha256), (3, Digest::of(b"out")));
    assert_eq!((ran.stderr.bytes, ran.stderr.sha256), (5, Digest::of(b"error")));
}

#[tokio::test]
async fn a_large_output_arrives_whole() {
    let finished = finish(shell(
        "i=0; while [ $i -lt 20000 ]; do echo line $i of the output; i=$((i+1)); done",
    ))
    .await;
    assert_eq!(finished.text().lines().count(), 20_000);
    assert_eq!(finished.ran().stdout.sha256, Digest::of(&finished.stdout));
    assert_eq!(finished.ran().stopped, None);
}

#[tokio::test]
async fn exactly_the_limit_of_output_is_allowed_and_one_byte_more_is_not() {
    let with_limit = |output_bytes| {
        let mut script = shell("printf 12345; printf 67890 >&2");
        script.limits.output_bytes = output_bytes;
        script
    };
    assert_eq!(finish(with_limit(10)).await.ran().stopped, None);
    let cut = finish(with_limit(9)).await;
    assert_eq!(cut.ran().stopped, Some(Stopped::OutputLimit));
    assert_eq!(cut.stdout.len() + cut.stderr.len(), 9);
    assert_eq!(
        cut.ran().stdout.bytes + cut.ran().stderr.bytes,
        10,
        "what was dropped is counted too"
    );
}

/// Abuse case I14.
#[tokio::test]
async fn a_flood_is_stopped() {
    let mut flood = shell("while :; do echo flood; done");
    flood.limits.output_bytes = 100_000;
    let finished = finish(flood).await;
    assert_eq!(finished.ran().stopped, Some(Stopped::OutputLimit));
    assert_eq!(finished.ran().exit, Exit::Signal(9));
    assert_eq!(finished.stdout.len(), 100_000);
    assert!(finished.ran().stdout.bytes > 100_000);
}

#[tokio::test]
async fn the_wall_limit_ends_the_whole_group() {
    let mut script = shell("sleep 1000 & echo $!; sleep 1000");
    script.limits.wall_ms = 300;
    let finished = finish(script).await;
    assert_eq!(finished.ran().stopped, Some(Stopped::WallLimit));
    assert!((300..5_000).contains(&finished.ran().wall_ms));
    gone(finished.text().trim()).await;
}

#[tokio::test]
async fn a_command_that_nobody_listens_to_still_meets_its_wall_limit() {
    let mut script = shell("while :; do echo again; done");
    script.limits = Limits {
        wall_ms: 300,
        output_bytes: 1 << 30,
        memory_bytes: 0,
    };
    let (permit, request, held) = approved(script);
    let (sender, receiver) = mpsc::channel(1);
    let launcher = launcher();
    let stop = async {
        // The receiver is there and never looks.
        let _paused = &receiver;
        tokio::time::sleep(Duration::from_millis(600)).await;
    };
    match run(&launcher, permit, &request, held, sender, stop).await {
        Ended::Ran(ran) => assert_eq!(ran.stopped, Some(Stopped::WallLimit)),
        ended => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn what_stays_in_the_background_ends_with_the_command() {
    let finished = finish(shell("sleep 1000 & echo $!")).await;
    assert_eq!(finished.ran().exit, Exit::Code(0));
    gone(finished.text().trim()).await;
}

#[tokio::test]
async fn a_daemon_in_a_session_of_its_own_ends_with_the_command() {
    // Ready when it has let go of the pipe, and so surely in its own session.
    let daemon = "setsid -f sh -c 'echo $$; exec sleep 1000 > /dev/null 2>&1' | cat";
    let finished = finish(shell(daemon)).await;
    assert_eq!(finished.ran().exit, Exit::Code(0));
    gone(finished.text().trim()).await;

    let mut endless = shell(&format!("{daemon}; sleep 1000"));
    endless.limits.wall_ms = 500;
    let finished = finish(endless).await;
    assert_eq!(finished.ran().stopped, Some(Stopped::WallLimit));
    gone(finished.text().trim()).await;
}

#[tokio::test]
async fn a_command_leaves_other_commands_and_our_own_children_alone() {
    let mut own = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let (permit, request, held) = approved(shell("setsid -f sleep 1000 > /dev/null 2>&1; echo ready; sleep 1000"));
    let (sender, mut receiver) = mpsc::channel(4);
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    let launcher = launcher();
    let stop = async {
        left.await.unwrap();
    };
    let other = async {
        assert_eq!(receiver.recv().await, Some(Chunk::Stdout("ready\n".into())));
        assert_eq!(finish(shell("exit 0")).await.ran().exit, Exit::Code(0));
        leave.send(()).unwrap();
    };
    match tokio::join!(run(&launcher, permit, &request, held, sender, stop), other).0 {
        Ended::Ran(ran) => assert_eq!(
            ran.stopped,
            Some(Stopped::AskerLeft),
            "it ran until it was told to stop"
        ),
        ended => panic!("{ended:?}"),
    }
    assert_eq!(own.try_wait().unwrap(), None, "not a command of ours");
    own.kill().unwrap();
    own.wait().unwrap();
}

#[tokio::test]
async fn it_ends_when_the_asker_leaves() {
    let (permit, request, held) = approved(shell("echo $$; exec sleep 1000"));
    let (sender, mut receiver) = mpsc::channel(4);
    let (seen, pid) = tokio::sync::oneshot::channel();
    let launcher = launcher();
    let reader = async move {
        let Some(Chunk::Stdout(line)) = receiver.recv().await else {
            panic!("no output")
        };
        seen.send(String::from_utf8(line.to_vec()).unwrap()).unwrap();
    };
    let stop = async {
        let pid = pid.await.unwrap();
        assert!(Path::new("/proc").join(pid.trim()).exists());
    };
    match tokio::join!(run(&launcher, permit, &request, held, sender, stop), reader).0 {
        Ended::Ran(ran) => assert_eq!((ran.stopped, ran.exit), (Some(Stopped::AskerLeft), Exit::Signal(9))),
        ended => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn an_asker_who_left_before_the_start_has_run_nothing() {
    let (permit, request, held) = approved(shell("exit 0"));
    let ended = run(
        &launcher(),
        permit,
        &request,
        held,
        mpsc::channel(1).0,
        std::future::ready(()),
    )
    .await;
    assert!(matches!(ended, Ended::Failed(_)));
}

#[tokio::test]
async fn it_dies_when_nobody_waits_for_it_any_more() {
    let (permit, request, held) = approved(shell("echo $$; exec sleep 1000"));
    let (sender, mut receiver) = mpsc::channel(4);
    let task = tokio::spawn(async move { run(&launcher(), permit, &request, held, sender, pending()).await });
    let Some(Chunk::Stdout(line)) = receiver.recv().await else {
        panic!("no output")
    };
    task.abort();
    gone(std::str::from_utf8(&line).unwrap().trim()).await;
}

/// Not a test by itself: the gate of the next one.
#[tokio::test]
async fn a_gate_in_a_process_of_its_own() {
    if std::env::var_os("COUNTERSIGN_TEST_GATE").is_some() {
        let (permit, request, held) = approved(shell("echo $$; exec sleep 1000"));
        let (sender, mut receiver) = mpsc::channel(4);
        let print = async {
            let Some(Chunk::Stdout(line)) = receiver.recv().await else {
                panic!("no output")
            };
            println!("\ncommand {}", std::str::from_utf8(&line).unwrap());
            pending::<()>().await;
        };
        let launcher = held_in::confined(None);
        tokio::join!(run(&launcher, permit, &request, held, sender, pending()), print);
    }
}

#[tokio::test]
async fn the_command_dies_with_its_gate() {
    let mut gate = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_gate_in_a_process_of_its_own", "--nocapture"])
        .env("COUNTERSIGN_TEST_GATE", "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(gate.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let pid = lines
        .into_iter()
        .find_map(|line| line.strip_prefix("command ").map(str::to_owned))
        .unwrap();
    assert!(Path::new("/proc").join(&pid).exists());
    gate.kill().unwrap();
    gate.wait().unwrap();
    gone(&pid).await;
}

#[tokio::test]
async fn what_can_not_start_says_why() {
    let (mut stranger, held) = bind(&shell("exit 0")).unwrap();
    stranger.uid = stranger.uid.wrapping_add(1);
    assert!(finish_bound(&launcher(), stranger, held).await.failed().contains("uid"));

    let (mut hooked, held) = bind(&shell("exit 0")).unwrap();
    hooked.env = vec![(bytes("LD_PRELOAD"), bytes("/tmp/x.so"))];
    assert!(
        finish_bound(&launcher(), hooked, held)
            .await
            .failed()
            .contains("LD_PRELOAD")
    );

    // Files of one command with the words of another.
    let (other, _) = bind(&command("env", &[])).unwrap();
    let (_, held) = bind(&shell("exit 0")).unwrap();
    assert!(
        finish_bound(&launcher(), other, held)
            .await
            .failed()
            .contains("replaced")
    );

    let (permit, request, held) = approved(shell("exit 0"));
    let ended = run(
        &Launcher::at("/no/such/launcher"),
        permit,
        &request,
        held,
        mpsc::channel(1).0,
        pending(),
    )
    .await;
    assert!(matches!(ended, Ended::Failed(_)));
    let (permit, request, held) = approved(shell("exit 0"));
    let ended = run(
        &Launcher::at("/bin/true"),
        permit,
        &request,
        held,
        mpsc::channel(1).0,
        pending(),
    )
    .await;
    assert!(
        matches!(ended, Ended::Failed(_)),
        "a launcher that says nothing has started nothing"
    );
}

#[tokio::test]
async fn a_permit_is_good_for_its_own_request_only() {
    let (permit, _, held) = approved(shell("exit 0"));
    let (_, other, _) = approved(shell("exit 1"));
    let ended = run(&launcher(), permit, &other, held, mpsc::channel(1).0, pending()).await;
    assert!(matches!(ended, Ended::Failed(_)));
}

#[tokio::test]
async fn arguments_that_are_not_text_arrive() {
    let mut printf = command("printf", &["%s"]);
    printf
        .argv
        .push(ByteString::new(std::ffi::OsString::from_vec(vec![0xff, b'\n', 0x80]).into_vec()).unwrap());
    assert!(bind(&printf).unwrap().0.has(Mark::Odd));
    assert_eq!(finish(printf).await.stdout, [0xff, b'\n', 0x80]);
}
