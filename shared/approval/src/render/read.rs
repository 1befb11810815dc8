//! Reading back what was written (PROTOCOL.md 11). It may take more than one spelling of a field: whoever calls writes
//! the reading again and compares. Not here: writing it (`write`).

use std::str::FromStr;

use super::reading::{DeviceReading, PersonReading, Reading, RosterReading};
use super::write::{escape_name, role_word};
use super::{NotRendered, label};
use crate::action::{Bound, Command, Directory, Input, Limits, Mark, Operand, SecretUse, Stdin, ToolCall};
use crate::escape::{EMPTY, decode, unescape, unescape_field};
use crate::roster::{Quorum, Role};
use crate::scalar::{ByteString, Text, Time};

/// The lines that haven't been read yet.
pub(super) struct Lines<'a> {
    rest: &'a str,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { rest: text }
    }

    pub(super) fn reading(mut self) -> Option<Reading> {
        match self.next()? {
            "command" => self.command().map(Reading::Command),
            "tool call" => self.tool().map(Reading::Tool),
            "use of a secret" => self.secret().map(Reading::Secret),
            "roster change" => self.roster().map(Reading::Roster),
            _ => None,
        }
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        Some(first)
    }

    /// The value of the next line if it has this label; otherwise the line stays.
    fn field(&mut self, name: &str) -> Option<&'a str> {
        let (first, rest) = self.rest.split_once('\n')?;
        let value = first.strip_prefix(label(name).as_str())?;
        self.rest = rest;
        Some(value)
    }

    fn bytes(&mut self, name: &str) -> Option<ByteString> {
        ByteString::new(unescape_field(self.field(name)?)?).ok()
    }

    fn text<const MAX: usize>(&mut self, name: &str) -> Option<Text<MAX>> {
        Text::new(String::from_utf8(unescape_field(self.field(name)?)?).ok()?).ok()
    }

    fn command(&mut self) -> Option<Command> {
        let executable = Bound {
            path: self.bytes("executable")?,
            sha256: self.field("sha256")?.parse().ok()?,
            inode: self.field("inode")?.parse().ok()?,
        };
        let interpreter = match self.field("interpreter") {
            Some(shown) => Some(file(shown)?),
            None => None,
        };
        let mut argv = Vec::new();
        while let Some(argument) = self.field(&format!("argv[{}]", argv.len())) {
            argv.push(ByteString::new(unescape_field(argument)?).ok()?);
        }
        let env = self.environment()?;
        let directory = Directory {
            path: self.bytes("directory")?,
            inode: self.field("inode")?.parse().ok()?,
        };
        let stdin = input(self.field("stdin")?)?;
        let mut operands = Vec::new();
        while let Some(operand) = self.field("operand") {
            let (argument, shown) = operand.strip_prefix("argv[")?.split_once("] ")?;
            operands.push(Operand {
                argument: argument.parse().ok()?,
                file: file(shown)?,
            });
        }
        let limits = limits(self.field("limits")?)?;
        let uid = self.field("user")?.strip_prefix("uid ")?.parse().ok()?;
        let mut marks = Vec::new();
        while let Some(mark) = self.field("mark") {
            marks.push(Mark::from_word(mark)?);
        }
        Some(Command {
            executable,
            interpreter,
            argv,
            env,
            directory,
            stdin,
            operands,
            limits,
            uid,
            marks,
        })
    }

    fn environment(&mut self) -> Option<Vec<(ByteString, ByteString)>> {
        let mut env = Vec::new();
        while let Some(variable) = self.field("env") {
            if variable == EMPTY {
                break;
            }
            let (name, value) = variable.split_once('=')?;
            let name = ByteString::new(unescape_name(name)?).ok()?;
            env.push((name, ByteString::new(unescape(value)?).ok()?));
        }
        Some(env)
    }

    fn tool(&mut self) -> Option<ToolCall> {
        Some(ToolCall {
            server: self.text("server")?,
            tool: self.text("tool")?,
            schema: self.field("schema")?.parse().ok()?,
            arguments: self.text("arguments")?,
        })
    }

    fn secret(&mut self) -> Option<SecretUse> {
        Some(SecretUse {
            name: self.field("name")?.parse().ok()?,
            host: self.text("host")?,
            method: self.text("method")?,
            path: self.text("path")?,
        })
    }

    fn roster(&mut self) -> Option<RosterReading> {
        let gate = self.field("gate")?.parse().ok()?;
        let mut people = Vec::new();
        while let Some(person) = self.field("person") {
            let (name, role) = person.split_once(' ')?;
            let role = [Role::Admin, Role::Auditor]
                .into_iter()
                .find(|known| role_word(*known) == role)?;
            let mut devices = Vec::new();
            while let Some(device) = self.field("device") {
                devices.push(device.strip_prefix("  ")?.parse().ok()?);
            }
            people.push(PersonReading {
                name: name.parse().ok()?,
                role,
                devices,
            });
        }
        let (command, change) = self
            .field("quorum")?
            .strip_prefix("command ")?
            .split_once(", roster ")?;
        let quorum = Quorum {
            command: command.parse().ok()?,
            roster: change.parse().ok()?,
        };
        let policy = self.policy()?;
        let mut relays = Vec::new();
        while let Some(relay) = self.field("relay") {
            relays.push(String::from_utf8(unescape(relay)?).ok()?.parse().ok()?);
        }
        Some(RosterReading {
            gate,
            people,
            quorum,
            policy,
            relays,
        })
    }

    fn policy(&mut self) -> Option<Option<String>> {
        if let Some(shown) = self.field("policy") {
            return (shown == "none").then_some(None);
        }
        let mut lines = Vec::new();
        while let Some(shown) = self.field(&format!("policy[{}]", lines.len())) {
            lines.push(String::from_utf8(unescape_field(shown)?).ok()?);
        }
        Some((!lines.is_empty()).then(|| lines.join("\n")))
    }
}

fn unescape_name(shown: &str) -> Option<Vec<u8>> {
    decode(shown).filter(|name| ByteString::new(name.as_slice()).is_ok_and(|name| escape_name(&name) == shown))
}

fn file(shown: &str) -> Option<Bound> {
    let words: Vec<&str> = shown.split(' ').collect();
    let [path, "sha256", sha256, "inode", inode] = words.as_slice() else {
        return None;
    };
    let path = if *path == EMPTY { Vec::new() } else { decode(path)? };
    Some(Bound {
        path: ByteString::new(path).ok()?,
        inode: inode.parse().ok()?,
        sha256: sha256.parse().ok()?,
    })
}

fn input(shown: &str) -> Option<Stdin> {
    if shown == "none" {
        return Some(Stdin::None);
    }
    let (sha256, bytes) = shown.strip_prefix("sha256 ")?.split_once(", ")?;
    Some(Stdin::Bytes(Input {
        sha256: sha256.parse().ok()?,
        bytes: bytes.strip_suffix(" bytes")?.parse().ok()?,
    }))
}

fn limits(shown: &str) -> Option<Limits> {
    let (wall, rest) = shown.strip_prefix("wall ")?.split_once(" ms, output ")?;
    let (output, memory) = rest.split_once(" bytes, memory ")?;
    Some(Limits {
        wall_ms: wall.parse().ok()?,
        output_bytes: output.parse().ok()?,
        memory_bytes: memory.strip_suffix(" bytes")?.parse().ok()?,
    })
}

impl FromStr for DeviceReading {
    type Err = NotRendered;

    fn from_str(text: &str) -> Result<Self, NotRendered> {
        let words: Vec<&str> = text.split(' ').collect();
        let [party, name, "leaf", leaf, "created", created, "digest", digest] = words.as_slice() else {
            return Err(NotRendered);
        };
        let created = created
            .parse()
            .ok()
            .and_then(|millis| Time::from_millis(millis).ok())
            .ok_or(NotRendered)?;
        Ok(Self {
            party: party.parse().map_err(|_| NotRendered)?,
            name: name.parse().map_err(|_| NotRendered)?,
            leaf: leaf.parse().map_err(|_| NotRendered)?,
            created,
            digest: digest.parse().map_err(|_| NotRendered)?,
        })
    }
}
