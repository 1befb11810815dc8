//! What a gate would ask for a line of the corpus: the command with its marks, in the plain surroundings of a gate that runs
//! things for somebody. The programs aren't looked for on this machine: each is what its name says, in /usr/bin, and others can't
//! change it. Not here: the real gate's eyes, which are in `client/tests/runner.rs`.

use approval::action::{Action, Bound, Command, Directory, Inode, Limits, Mark, Stdin};
use approval::policy::marks_of_program;
use approval::request::{AskedBy, Class, Request};
use approval::{ByteString, Digest, Id16, Text, Time};
use wire::identity::Identity;

use super::words::split;

/// A line as it would be asked.
pub(super) struct Line {
    /// As it stands in the corpus.
    pub(super) text: String,
    /// Without a shell.
    pub(super) plain: bool,
    pub(super) command: Command,
}

impl Line {
    pub(super) fn read(text: &str) -> Self {
        let argv = split(text);
        let plain = argv.is_some();
        let argv = argv.unwrap_or_else(|| vec!["sh".into(), "-c".into(), text.into()]);
        Self {
            text: text.to_owned(),
            plain,
            command: command(&argv),
        }
    }

    pub(super) fn action(&self) -> Action {
        Action::Command(self.command.clone())
    }
}

/// The program that a name or path on a command line stands for.
pub(super) fn executable(argv0: &str) -> String {
    match argv0 {
        "sh" | "/bin/sh" => "/usr/bin/dash".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        name => format!("/usr/bin/{}", name.rsplit('/').next().unwrap_or_default()),
    }
}

pub(super) fn command(argv: &[impl AsRef<str>]) -> Command {
    let path = executable(argv[0].as_ref());
    command_of(&path, argv)
}

/// A command that starts this file.
pub(crate) fn command_of(path: &str, argv: &[impl AsRef<str>]) -> Command {
    let (runner, shell) = marks_of_program(path.as_bytes(), None, argv[0].as_ref().as_bytes());
    let odd = argv
        .iter()
        .any(|argument| !argument.as_ref().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    let marks = [(Mark::Odd, odd), (Mark::Runner, runner), (Mark::Shell, shell)];
    Command {
        executable: Bound {
            path: bytes(path),
            inode: Inode {
                device: 0xfd01,
                number: 7,
            },
            sha256: Digest::of(path.as_bytes()),
        },
        interpreter: None,
        argv: argv.iter().map(|argument| bytes(argument.as_ref())).collect(),
        env: ENVIRONMENT
            .iter()
            .map(|(name, value)| (bytes(*name), bytes(*value)))
            .collect(),
        directory: Directory {
            path: bytes("/home/agent/work"),
            inode: Inode {
                device: 0xfd01,
                number: 8,
            },
        },
        stdin: Stdin::None,
        operands: Vec::new(),
        limits: Limits {
            wall_ms: 60_000,
            output_bytes: 1 << 20,
            memory_bytes: 0,
        },
        uid: 1000,
        marks: marks
            .into_iter()
            .filter(|(_, has)| *has)
            .map(|(mark, _)| mark)
            .collect(),
    }
}

const ENVIRONMENT: [(&str, &str); 3] = [
    ("HOME", "/home/agent"),
    ("LANG", "C.UTF-8"),
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
];

pub(crate) fn bytes(text: impl Into<Vec<u8>>) -> ByteString {
    ByteString::new(text).unwrap()
}

pub(super) const NOON: u64 = 1_800_000_000_000;

pub(crate) fn now() -> Time {
    Time::from_millis(NOON).unwrap()
}

pub(super) fn asked_by() -> AskedBy {
    AskedBy {
        agent: "butler".parse().unwrap(),
        under: Vec::new(),
        user: Some(Text::new("erin").unwrap()),
        conversation: Some(Text::new("kitchen").unwrap()),
        platform: None,
    }
}

/// The request beside which something is granted. What a grant covers never depends on a signature.
pub(crate) fn request(action: Action) -> Request {
    Request {
        gate: Identity::from_bytes(&[1; 32]).party(),
        incarnation: Id16([2; 16]),
        index: 2,
        nonce: Id16([3; 16]),
        roster: Digest::of(b"roster"),
        class: Class::Command,
        risk: None,
        need: 1,
        veto: true,
        four_eyes: false,
        matching: None,
        action,
        asked_by: asked_by(),
        reason: Text::default(),
        created: now(),
        expires: now().plus_millis(60_000),
    }
}
