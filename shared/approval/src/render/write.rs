//! Writing what is read: one field on each line (PROTOCOL.md 11). Not here: reading it back (`read`).

use std::fmt::{self, Formatter};

use super::line;
use super::reading::{DeviceReading, Reading, RosterReading};
use crate::action::{Bound, Command, Directory, Limits, SecretUse, Stdin, ToolCall};
use crate::escape::{EMPTY, escape, escape_bytes, escape_field};
use crate::roster::{Quorum, Role};
use crate::scalar::ByteString;

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => write_command(f, command),
            Self::Tool(call) => write_tool(f, call),
            Self::Secret(secret) => write_secret(f, secret),
            Self::Roster(roster) => write_roster(f, roster),
        }
    }
}

impl fmt::Display for DeviceReading {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            party,
            name,
            leaf,
            created,
            digest,
        } = self;
        let created = created.millis();
        write!(f, "{party} {name} leaf {leaf} created {created} digest {digest}")
    }
}

fn write_command(f: &mut Formatter<'_>, command: &Command) -> fmt::Result {
    // Taken apart, so that a field that is added can't be forgotten here.
    let Command {
        executable,
        interpreter,
        argv,
        env,
        directory: Directory { path, inode },
        stdin,
        operands,
        limits: Limits {
            wall_ms,
            output_bytes,
            memory_bytes,
        },
        uid,
        marks,
    } = command;
    f.write_str("command\n")?;
    f.write_str(&line("executable", &escape_field(executable.path.as_bytes())))?;
    f.write_str(&line("sha256", &executable.sha256.to_string()))?;
    f.write_str(&line("inode", &executable.inode.to_string()))?;
    if let Some(interpreter) = interpreter {
        f.write_str(&line("interpreter", &file(interpreter)))?;
    }
    for (index, argument) in argv.iter().enumerate() {
        f.write_str(&line(&format!("argv[{index}]"), &escape_field(argument.as_bytes())))?;
    }
    for (name, value) in env {
        let variable = format!("{}={}", escape_name(name), escape_bytes(value.as_bytes()));
        f.write_str(&line("env", &variable))?;
    }
    if env.is_empty() {
        f.write_str(&line("env", EMPTY))?;
    }
    f.write_str(&line("directory", &escape_field(path.as_bytes())))?;
    f.write_str(&line("inode", &inode.to_string()))?;
    f.write_str(&line("stdin", &input(stdin)))?;
    for operand in operands {
        let named = format!("argv[{}] {}", operand.argument, file(&operand.file));
        f.write_str(&line("operand", &named))?;
    }
    let limits = format!("wall {wall_ms} ms, output {output_bytes} bytes, memory {memory_bytes} bytes");
    f.write_str(&line("limits", &limits))?;
    f.write_str(&line("user", &format!("uid {uid}")))?;
    for mark in marks {
        f.write_str(&line("mark", mark.as_str()))?;
    }
    Ok(())
}

/// A file in a line with other words: no space in its path is one between words.
fn file(file: &Bound) -> String {
    let Bound { path, inode, sha256 } = file;
    let path = escape_field(path.as_bytes()).replace(' ', "\\u{20}");
    format!("{path} sha256 {sha256} inode {inode}")
}

fn input(stdin: &Stdin) -> String {
    match stdin {
        Stdin::None => "none".to_owned(),
        Stdin::Bytes(input) => format!("sha256 {}, {} bytes", input.sha256, input.bytes),
    }
}

/// The name of a variable, with `=` spelled out: the first one in the line ends the name.
pub(super) fn escape_name(name: &ByteString) -> String {
    escape_bytes(name.as_bytes()).replace('=', "\\u{3d}")
}

fn write_tool(f: &mut Formatter<'_>, call: &ToolCall) -> fmt::Result {
    let ToolCall {
        server,
        tool,
        schema,
        arguments,
    } = call;
    f.write_str("tool call\n")?;
    f.write_str(&line("server", &escape_field(server.as_untrusted().as_bytes())))?;
    f.write_str(&line("tool", &escape_field(tool.as_untrusted().as_bytes())))?;
    f.write_str(&line("schema", &schema.to_string()))?;
    f.write_str(&line("arguments", &escape_field(arguments.as_untrusted().as_bytes())))
}

fn write_secret(f: &mut Formatter<'_>, secret: &SecretUse) -> fmt::Result {
    let SecretUse {
        name,
        host,
        method,
        path,
    } = secret;
    f.write_str("use of a secret\n")?;
    f.write_str(&line("name", name.as_str()))?;
    f.write_str(&line("host", &escape_field(host.as_untrusted().as_bytes())))?;
    f.write_str(&line("method", &escape_field(method.as_untrusted().as_bytes())))?;
    f.write_str(&line("path", &escape_field(path.as_untrusted().as_bytes())))
}

fn write_roster(f: &mut Formatter<'_>, roster: &RosterReading) -> fmt::Result {
    let RosterReading {
        gate,
        people,
        quorum: Quorum {
            command,
            roster: change,
        },
        policy,
        relays,
    } = roster;
    f.write_str("roster change\n")?;
    f.write_str(&line("gate", &gate.to_string()))?;
    for person in people {
        f.write_str(&line("person", &format!("{} {}", person.name, role_word(person.role))))?;
        for device in &person.devices {
            f.write_str(&line("device", &format!("  {device}")))?;
        }
    }
    f.write_str(&line("quorum", &format!("command {command}, roster {change}")))?;
    match policy {
        None => f.write_str(&line("policy", "none"))?,
        Some(text) => {
            for (index, words) in text.split('\n').enumerate() {
                f.write_str(&line(&format!("policy[{index}]"), &escape_field(words.as_bytes())))?;
            }
        }
    }
    for relay in relays {
        f.write_str(&line("relay", &escape(relay.as_str())))?;
    }
    Ok(())
}

pub(super) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Auditor => "auditor",
    }
}
