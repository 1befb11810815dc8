//! What a person reads and what reads it back (PROTOCOL.md 11), and the lines of programs on the gate's own machine.

use std::iter;

use approval::action::{
    Action, Bound, Command, Directory, Inode, Input, Limits, Mark, Operand, SecretUse, Stdin, ToolCall,
};
use approval::escape::{EMPTY, escape, escape_bytes, escape_field, fence, is_allowed, unescape, unescape_field};
use approval::render::parse;
use approval::{ByteString, Digest, Text};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::statements::reads_back;

/// Columns between the fence and the right edge.
const FENCED_COLUMNS: usize = 72;

/// The text of an action.
pub fn rendered(bytes: &[u8]) -> bool {
    let Some(Ok(reading)) = std::str::from_utf8(bytes).ok().map(parse) else {
        return false;
    };
    assert_eq!(reading.to_string().as_bytes(), bytes, "an action has one text");
    true
}

/// Any command, tool call and use of a secret at all: the bytes are its numbers, then its strings between zeros.
pub fn rendering(bytes: &[u8]) -> bool {
    let (numbers, strings) = bytes.split_at(bytes.len().min(32));
    let mut numbers = numbers.iter().copied().chain(iter::repeat(0));
    let mut number = |width| (0..width).fold(0, |number: u64, _| number << 8 | u64::from(numbers.next().unwrap_or(0)));
    let mut strings = strings.split(|byte| *byte == 0).chain(iter::repeat(&[][..]));
    let mut string = || ByteString::new(strings.next().unwrap_or_default()).expect("no zero in it");
    let (arguments, variables) = (number(1), number(1));
    let seen = number(1);
    let inode = Inode {
        device: number(2),
        number: number(2),
    };
    let mut file = || Bound {
        path: string(),
        inode,
        sha256: Digest::of(bytes),
    };
    let marks = [Mark::Odd, Mark::Runner, Mark::Setuid, Mark::Shell, Mark::Writable];
    let with = |bit: usize| seen >> bit & 1 != 0;
    let command = Command {
        executable: file(),
        interpreter: with(5).then(&mut file),
        operands: (0..u32::from(with(6)) * 3)
            .map(|argument| Operand { argument, file: file() })
            .collect(),
        argv: (0..arguments).map(|_| string()).collect(),
        env: (0..variables).map(|_| (string(), string())).collect(),
        directory: Directory { path: string(), inode },
        stdin: match with(7) {
            true => Stdin::Bytes(Input {
                sha256: Digest::of(b""),
                bytes: seen,
            }),
            false => Stdin::None,
        },
        limits: Limits {
            wall_ms: number(8),
            output_bytes: number(8),
            memory_bytes: number(4),
        },
        uid: number(4) as u32,
        marks: marks
            .into_iter()
            .enumerate()
            .filter(|(bit, _)| with(*bit))
            .map(|(_, mark)| mark)
            .collect(),
    };
    reads_back(&Action::Command(command));
    let text = String::from_utf8_lossy(bytes);
    reads_back(&Action::Tool(ToolCall {
        server: Text::cut(&text),
        tool: Text::cut(&text),
        schema: Digest::of(bytes),
        arguments: Text::cut(&text),
    }));
    reads_back(&Action::Secret(SecretUse {
        name: "any".parse().expect("a name"),
        host: Text::cut(&text),
        method: Text::cut(&text),
        path: Text::cut(&text),
    }));
    true
}

/// Text that somebody says was escaped.
pub fn escaped(bytes: &[u8]) -> bool {
    let Ok(shown) = std::str::from_utf8(bytes) else {
        return false;
    };
    let (plain, field) = (unescape(shown), unescape_field(shown));
    if let Some(bytes) = &plain {
        assert_eq!(escape_bytes(bytes), shown, "bytes are shown in one way");
    }
    if let Some(bytes) = &field {
        assert_eq!(escape_field(bytes), shown, "bytes are shown in one way");
    }
    plain.is_some() || field.is_some()
}

/// Bytes that somebody wants shown.
pub fn escaping(bytes: &[u8]) -> bool {
    let shown = escape_bytes(bytes);
    assert_eq!(unescape(&shown).as_deref(), Some(bytes));
    is_harmless(&shown);
    let field = escape_field(bytes);
    assert_eq!(unescape_field(&field).as_deref(), Some(bytes));
    assert_eq!(field == EMPTY, bytes.is_empty());
    is_harmless(&field);
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(escape(&text), escape_bytes(text.as_bytes()));
    let fenced = fence(&text);
    assert!(fenced.ends_with('\n'));
    for line in fenced.lines() {
        let words = line.strip_prefix("| ").expect("a fence");
        assert!(
            words.chars().all(is_allowed) && words.chars().count() <= FENCED_COLUMNS,
            "{words:?}"
        );
    }
    true
}

/// Only allowed characters, and no spaces that nobody sees.
fn is_harmless(shown: &str) {
    assert!(shown.chars().all(is_allowed), "{shown:?}");
    assert!(
        !shown.starts_with(' ') && !shown.ends_with(' ') && !shown.contains("  "),
        "{shown:?}"
    );
}

/// A line of JSON between the gate and a program on its machine. The type is the client's, which is why it is the
/// caller's to say.
pub fn local_line<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(line) = serde_json::from_slice::<T>(bytes) else {
        return false;
    };
    let written = serde_json::to_vec(&line).expect("JSON");
    let again: T = serde_json::from_slice(&written).expect("what was taken can be said again");
    assert_eq!(serde_json::to_vec(&again).expect("JSON"), written);
    assert!(!written.contains(&b'\n'), "more than a line");
    true
}
