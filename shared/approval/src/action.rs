//! What a request asks leave for: a command, or another roster (PROTOCOL.md 8.3). It is what the admin reads
//! (`render`) and exactly what the gate does. Not here: who asks, until when (`request`); running it (the client).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::{object, words};
use crate::request::Class;
use crate::roster::RosterContents;
use crate::scalar::{ByteString, Digest, Name, Text};

/// What a request asks leave for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)]
pub enum Action {
    /// Run this program once.
    Command(Command),
    /// Call this tool once; whoever asked does it.
    Tool(ToolCall),
    /// Use this secret once; whoever asked does it.
    Secret(SecretUse),
    /// Put this roster in force.
    Roster(RosterContents),
}

object! {
    /// A program with everything that it is started with: nothing is added, joined, split or expanded afterwards.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Command {
        /// The program.
        pub executable: Bound,
        /// What the kernel starts for it, if it is a script.
        pub interpreter: Option<Bound>,
        /// All arguments, the first of which names the program.
        pub argv: Vec<ByteString>,
        /// The whole environment, sorted by name.
        pub env: Vec<(ByteString, ByteString)>,
        /// Where it stands.
        pub directory: Directory,
        /// What it reads.
        pub stdin: Stdin,
        /// The files that its arguments name.
        pub operands: Vec<Operand>,
        /// Where the gate stops it.
        pub limits: Limits,
        /// The user that it runs as.
        pub uid: u32,
        /// What the gate saw about it, sorted.
        pub marks: Vec<Mark>,
    }
}

object! {
    /// A file with what it held: nothing else may take its place.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Bound {
        /// Its absolute path, without symbolic links.
        pub path: ByteString,
        /// Which file was there.
        pub inode: Inode,
        /// SHA-256 of its contents.
        pub sha256: Digest,
    }
}

object! {
    /// A folder.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Directory {
        /// Its absolute path, without symbolic links.
        pub path: ByteString,
        /// Which folder was there.
        pub inode: Inode,
    }
}

object! {
    /// An argument that names a regular file.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Operand {
        /// Its position in argv.
        pub argument: u32,
        /// The file.
        pub file: Bound,
    }
}

/// Which file it is on this machine, whatever its path. Written as device and inode number in hex: `fd01:1a2b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode {
    /// The device.
    pub device: u64,
    /// Its number there.
    pub number: u64,
}

impl fmt::Display for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}", self.device, self.number)
    }
}

impl FromStr for Inode {
    type Err = NotAnInode;

    fn from_str(text: &str) -> Result<Self, NotAnInode> {
        let (device, number) = text.split_once(':').ok_or(NotAnInode)?;
        let hex = |digits| u64::from_str_radix(digits, 16).map_err(|_| NotAnInode);
        let inode = Self {
            device: hex(device)?,
            number: hex(number)?,
        };
        // One spelling: `+1`, `01` and `A` are others.
        if inode.to_string() == text {
            Ok(inode)
        } else {
            Err(NotAnInode)
        }
    }
}

/// The text isn't device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a device and inode number in lower-case hex, as fd01:1a2b")]
pub struct NotAnInode;

impl Serialize for Inode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Inode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What a command reads from its standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdin {
    /// Nothing.
    None,
    /// These bytes, which the gate keeps.
    Bytes(Input),
}

object! {
    /// What stands for the bytes of a command's standard input.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Input {
        /// Their SHA-256.
        pub sha256: Digest,
        /// Their number.
        pub bytes: u64,
    }
}

impl Serialize for Stdin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Bytes(input) => input.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Stdin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = Stdin;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"none\", or sha256 and bytes")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Stdin, E> {
                match word {
                    "none" => Ok(Stdin::None),
                    _ => Err(E::custom("standard input that isn't \"none\"")),
                }
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Stdin, A::Error> {
                Input::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Stdin::Bytes)
            }
        }

        deserializer.deserialize_any(Either)
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
        /// Bytes of memory that it may hold; 0 for no limit.
        pub memory_bytes: u64,
    }
}

words! {
    /// What the gate saw about a command (16.5 for the programs).
    pub enum Mark {
        /// An argument with bytes outside printable ASCII.
        Odd = "odd",
        /// A program that can run other programs.
        Runner = "runner",
        /// It would run as somebody else.
        Setuid = "setuid",
        /// A shell.
        Shell = "shell",
        /// Others than root can put something in its place.
        Writable = "writable",
    }
}

object! {
    /// A tool of somebody's server, with what it is given.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ToolCall {
        /// The server, as the gate's caller names it.
        pub server: Text,
        /// The tool.
        pub tool: Text,
        /// SHA-256 of the tool's schema and description: another one is another tool.
        pub schema: Digest,
        /// As received: text. Only the gate looks whether it is a JSON object, before it asks.
        pub arguments: Text<ARGUMENTS_BYTES>,
    }
}

object! {
    /// A named secret, put into one request to one host.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SecretUse {
        /// Which.
        pub name: Name,
        /// To whom.
        pub host: Text,
        /// How.
        pub method: Text,
        /// For what.
        pub path: Text,
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
/// Files that arguments name.
pub const OPERANDS: usize = 64;
/// Bytes of a standard input: 1 MiB.
pub const STDIN_BYTES: u64 = 1 << 20;
/// Bytes of a tool call's arguments.
pub const ARGUMENTS_BYTES: usize = 24 * 1024;

impl Action {
    /// What kind of action it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Command(_) => Class::Command,
            Self::Tool(_) => Class::Tool,
            Self::Secret(_) => Class::Secret,
            Self::Roster(_) => Class::Roster,
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Command(command) => command.check().map_err(str::to_owned),
            Self::Tool(call) => call.check().map_err(str::to_owned),
            Self::Secret(_) => Ok(()),
            Self::Roster(contents) => contents.check().map_err(|error| error.to_string()),
        }
    }
}

impl ToolCall {
    fn check(&self) -> Result<(), &'static str> {
        // A policy writes both with a slash between them, and an empty tool for all of a server's.
        let (server, tool) = (self.server.as_untrusted(), self.tool.as_untrusted());
        if server.is_empty() || server.contains('/') || tool.is_empty() {
            return Err("a server without a name or with a slash in it, or a tool without a name");
        }
        // Whether the arguments are a JSON object is the gate's to look at when it is asked: JSON readers differ in
        // corners, and two verifiers must never disagree about an entry.
        Ok(())
    }
}

impl Command {
    /// Whether the gate saw this about it.
    pub fn has(&self, mark: Mark) -> bool {
        self.marks.contains(&mark)
    }

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
        let absolute = |file: &Bound| file.path.as_bytes().starts_with(b"/");
        let ascending = self
            .operands
            .iter()
            .zip(self.operands.iter().skip(1))
            .all(|(one, next)| one.argument < next.argument);
        let named_by_argument = self
            .operands
            .iter()
            .all(|operand| operand.argument > 0 && (operand.argument as usize) < self.argv.len());
        let distinct = self
            .marks
            .iter()
            .zip(self.marks.iter().skip(1))
            .all(|(one, next)| one < next);
        let rules = [
            (
                self.executable.path.as_bytes().starts_with(b"/"),
                "executable isn't an absolute path",
            ),
            (
                self.directory.path.as_bytes().starts_with(b"/"),
                "directory isn't an absolute path",
            ),
            (
                self.interpreter.iter().all(absolute),
                "interpreter isn't an absolute path",
            ),
            (self.operands.len() <= OPERANDS, "too many operands"),
            (ascending, "operands not in ascending order"),
            (named_by_argument, "an operand that is no argument"),
            (
                self.operands.iter().all(|operand| absolute(&operand.file)),
                "operand isn't an absolute path",
            ),
            (distinct, "marks not sorted, or one twice"),
            (
                !matches!(self.stdin, Stdin::Bytes(input) if input.bytes > STDIN_BYTES),
                "standard input beyond 1 MiB",
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
mod tests;
