//! A request for the tests of what is shown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use approval::action::{Action, Bound, Command, Directory, Inode, Limits, Stdin};
use approval::request::{AskedBy, Class, Request};
use approval::{ByteString, Digest, Id16, Text, Time};

pub(crate) const NOON: u64 = 1_800_000_000_000;

pub(crate) fn bytes(text: &str) -> ByteString {
    ByteString::new(text).unwrap()
}

/// Erin asks in ops, through butler.
pub(crate) fn request(argv: &[&str]) -> Request {
    let inode = Inode { device: 1, number: 2 };
    Request {
        gate: wire::identity::Identity::from_bytes(&[1; 32]).party(),
        incarnation: Id16([1; 16]),
        index: 2,
        nonce: Id16([2; 16]),
        roster: Digest([3; 32]),
        class: Class::Command,
        risk: None,
        need: 1,
        veto: true,
        four_eyes: false,
        matching: None,
        action: Action::Command(Command {
            executable: Bound {
                path: bytes(&format!("/usr/bin/{}", argv[0])),
                inode,
                sha256: Digest::of(argv[0].as_bytes()),
            },
            interpreter: None,
            argv: argv.iter().map(|argument| bytes(argument)).collect(),
            env: vec![(bytes("LANG"), bytes("C")), (bytes("PATH"), bytes("/usr/bin:/bin"))],
            directory: Directory {
                path: bytes("/srv/app"),
                inode,
            },
            stdin: Stdin::None,
            operands: Vec::new(),
            limits: Limits {
                wall_ms: 30_000,
                output_bytes: 1 << 20,
                memory_bytes: 0,
            },
            uid: 1000,
            marks: Vec::new(),
        }),
        asked_by: AskedBy {
            agent: "butler".parse().unwrap(),
            under: Vec::new(),
            user: Some(Text::new("erin").unwrap()),
            conversation: Some(Text::new("ops").unwrap()),
            platform: None,
        },
        reason: Text::default(),
        created: Time::from_millis(NOON).unwrap(),
        expires: Time::from_millis(NOON + 600_000).unwrap(),
    }
}
