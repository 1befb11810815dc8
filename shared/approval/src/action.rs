//! What a request asks leave for: a command, or another roster (PROTOCOL.md 8.3). It is what the admin reads
//! (`render`) and exactly what the gate does. Not here: who asks, until when (`request`); running it (the client).

use serde::{Deserialize, Serialize};

use crate::json::{object, words};
use crate::request::Class;
use crate::roster::RosterContents;
use crate::scalar::{ByteString, Digest};

/// What a request asks leave for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Run this program once.
    Command(Command),
    /// Put this roster in force.
    Roster(RosterContents),
}

object! {
    /// A program with everything that it is started with: nothing is added, joined, split or expanded afterwards.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Command {
        /// The program.
        pub executable: Executable,
        /// All arguments, the first of which names the program.
        pub argv: Vec<ByteString>,
        /// The whole environment, sorted by name.
        pub env: Vec<(ByteString, ByteString)>,
        /// The absolute path of the working directory.
        pub directory: ByteString,
        /// What it reads.
        pub stdin: Stdin,
        /// Where the gate stops it.
        pub limits: Limits,
        /// The user that it runs as.
        pub uid: u32,
    }
}

object! {
    /// A program file.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Executable {
        /// Its absolute path.
        pub path: ByteString,
        /// SHA-256 of its contents.
        pub sha256: Digest,
    }
}

words! {
    /// What a command reads from its standard input.
    pub enum Stdin {
        /// Nothing.
        None = "none",
    }
}

object! {
    /// Where the gate stops a command.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Limits {
        /// Milliseconds from start to end.
        pub wall_ms: u64,
        /// Bytes that it may write to both streams together.
        pub output_bytes: u64,
    }
}

/// Elements of argv: a person must read them.
pub const ARGV_ELEMENTS: usize = 1024;
/// Bytes of all of argv.
pub const ARGV_BYTES: usize = 24 * 1024;
/// Entries of the environment.
pub const ENV_ENTRIES: usize = 128;
/// Bytes of all names and values of the environment.
pub const ENV_BYTES: usize = 8 * 1024;
/// The longest wall time: 24 hours, in milliseconds.
pub const WALL_MS: u64 = 24 * 60 * 60 * 1000;
/// The most output: 1 GiB.
pub const OUTPUT_BYTES: u64 = 1 << 30;

impl Action {
    /// What kind of action it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Command(_) => Class::Command,
            Self::Roster(_) => Class::Roster,
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Command(command) => command.check().map_err(str::to_owned),
            Self::Roster(contents) => contents.check().map_err(|error| error.to_string()),
        }
    }
}

impl Command {
    fn check(&self) -> Result<(), &'static str> {
        let argv_bytes: usize = self.argv.iter().map(ByteString::len).sum();
        let env_bytes: usize = self.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        // Strictly: the same name twice would leave it to the program which value it takes.
        let sorted = self
            .env
            .iter()
            .zip(self.env.iter().skip(1))
            .all(|((name, _), (next, _))| name < next);
        // A name with `=` would read as another name and another value.
        let named = self
            .env
            .iter()
            .all(|(name, _)| !name.is_empty() && !name.as_bytes().contains(&b'='));
        let rules = [
            (
                self.executable.path.as_bytes().starts_with(b"/"),
                "executable isn't an absolute path",
            ),
            (
                self.directory.as_bytes().starts_with(b"/"),
                "directory isn't an absolute path",
            ),
            (!self.argv.is_empty(), "argv without argv[0]"),
            (self.argv.len() <= ARGV_ELEMENTS, "too many arguments"),
            (argv_bytes <= ARGV_BYTES, "arguments too long"),
            (self.env.len() <= ENV_ENTRIES, "environment with too many entries"),
            (env_bytes <= ENV_BYTES, "environment too long"),
            (named, "environment with a name that is empty or holds ="),
            (sorted, "environment not sorted by name, or a name twice"),
            (self.limits.wall_ms <= WALL_MS, "wall time beyond 24 hours"),
            (self.limits.output_bytes <= OUTPUT_BYTES, "output beyond 1 GiB"),
        ];
        rules
            .into_iter()
            .try_for_each(|(kept, rule)| if kept { Ok(()) } else { Err(rule) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use proptest::prelude::*;

    use crate::request::Request;
    use crate::sample::*;
    use crate::statement::{StatementError, sign};

    /// Whether the gate can ask for this command.
    fn takes(edit: impl FnOnce(&mut Command)) -> Result<(), StatementError> {
        let request: Request = request(&team()).get().clone();
        let mut command = command();
        edit(&mut command);
        sign(
            &identity(GATE),
            Request {
                action: Action::Command(command),
                ..request
            },
        )
        .map(|_| ())
    }

    fn refused(edit: impl FnOnce(&mut Command)) -> String {
        match takes(edit) {
            Err(StatementError::Payload(rule)) => rule,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn entry(name: &str) -> (ByteString, ByteString) {
        (bytes(name), bytes("x"))
    }

    #[test]
    fn paths_are_absolute() {
        assert!(refused(|command| command.executable.path = bytes("bin/sh")).contains("executable"));
        assert!(refused(|command| command.directory = bytes("")).contains("directory"));
    }

    #[test]
    fn argv_is_bounded_and_never_empty() {
        assert!(takes(|command| command.argv = vec![bytes(""); ARGV_ELEMENTS]).is_ok());
        assert!(refused(|command| command.argv = vec![bytes(""); ARGV_ELEMENTS + 1]).contains("too many arguments"));
        assert!(takes(|command| command.argv = vec![bytes(&"a".repeat(ARGV_BYTES))]).is_ok());
        assert!(refused(|command| command.argv = vec![bytes(&"a".repeat(ARGV_BYTES + 1))]).contains("too long"));
        assert!(refused(|command| command.argv.clear()).contains("argv[0]"));
    }

    #[test]
    fn the_environment_is_sorted_named_and_bounded() {
        assert!(takes(|command| command.env.clear()).is_ok());
        assert!(refused(|command| command.env.reverse()).contains("sorted"));
        assert!(refused(|command| command.env = vec![entry("A"), entry("A")]).contains("twice"));
        assert!(refused(|command| command.env = vec![entry("")]).contains("empty"));
        assert!(refused(|command| command.env = vec![entry("A=B")]).contains('='));
        let many = |count| (0..count).map(|n| entry(&format!("N{n:03}"))).collect::<Vec<_>>();
        assert!(takes(|command| command.env = many(ENV_ENTRIES)).is_ok());
        assert!(refused(|command| command.env = many(ENV_ENTRIES + 1)).contains("too many"));
        let long = |length: usize| vec![(bytes("A"), bytes(&"x".repeat(length - 1)))];
        assert!(takes(|command| command.env = long(ENV_BYTES)).is_ok());
        assert!(refused(|command| command.env = long(ENV_BYTES + 1)).contains("too long"));
    }

    #[test]
    fn limits_are_limited() {
        assert!(
            takes(|command| command.limits = Limits {
                wall_ms: WALL_MS,
                output_bytes: OUTPUT_BYTES
            })
            .is_ok()
        );
        assert!(refused(|command| command.limits.wall_ms = WALL_MS + 1).contains("24 hours"));
        assert!(refused(|command| command.limits.output_bytes = OUTPUT_BYTES + 1).contains("1 GiB"));
    }

    #[test]
    fn an_action_is_one_thing() {
        let command = serde_json::to_string(&command()).unwrap();
        let read = |text: &str| serde_json::from_str::<Action>(text).is_ok();
        assert!(read(&format!(r#"{{"command":{command}}}"#)));
        assert!(!read(&format!(r#"{{"command":{command},"command":{command}}}"#)));
        assert!(!read(&format!(r#"{{"tool":{command}}}"#)));
        assert!(!read(r#"{"command":null}"#) && !read(r#""command""#) && !read("{}"));
        assert!(!read(
            &format!(r#"{{"command":{command}}}"#).replace("\"none\"", "\"inherit\"")
        ));
    }

    proptest! {
        #[test]
        fn any_argv_arrives_as_it_was_asked(argv in proptest::collection::vec(proptest::collection::vec(1u8.., 0..40), 1..20)) {
            let argv: Vec<_> = argv.into_iter().map(|bytes| ByteString::new(bytes).unwrap()).collect();
            let request = request_with(&team(), |request| {
                request.action = Action::Command(Command { argv: argv.clone(), ..command() });
            });
            let read = request.signed().verify().unwrap().request().unwrap();
            let Action::Command(command) = &read.action else { panic!("not a command") };
            prop_assert_eq!(&command.argv, &argv);
        }
    }
}
