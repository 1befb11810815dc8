//! Whatever stands in a field of text reaches the reader spelled out, and is read back: every code point one by one, and
//! strings drawn at random, through every field that anybody else writes.

use super::*;
use crate::action::{Bound, Command, SecretUse, ToolCall};
use crate::escape::is_allowed;
use crate::scalar::ByteString;

/// How many strings are drawn: `COUNTERSIGN_DISPLAY` says it, CI wants a million.
fn drawn() -> u64 {
    let said = std::env::var("COUNTERSIGN_DISPLAY").ok();
    let said = said.and_then(|count| count.parse().ok());
    said.unwrap_or(if thorough() { 1_000_000 } else { 20_000 })
}

/// Whether nobody waits for the result.
fn thorough() -> bool {
    let wished = |name: &&str| std::env::var_os(name).is_some();
    ["CI", "COUNTERSIGN_DISPLAY"].iter().any(wished)
}

/// Two threads, each with every other number.
fn on_both_threads(work: impl Fn(u64) + Sync, count: u64) {
    std::thread::scope(|scope| {
        let every_other = |first| (first..count).step_by(2).for_each(&work);
        scope.spawn(move || every_other(1));
        every_other(0);
    });
}

/// Nothing but allowed characters, in as many lines as there should be, no two spaces of a field's making; and back.
fn survives(reading: &Reading, lines: usize) {
    let text = reading.to_string();
    assert_eq!(text.lines().count(), lines, "{text:?}");
    for line in text.lines() {
        assert!(line.chars().all(is_allowed) && !line.ends_with(' '), "{line:?}");
        let value = line.get(14..).unwrap_or_default();
        assert!(
            !value.contains("  ") && !value.starts_with(' ') || line.starts_with("  device "),
            "{line:?}"
        );
    }
    assert_eq!(parse(&text).as_ref(), Ok(reading));
}

/// Each of these in every field of bytes that a command has.
fn through_a_command(words: &[&[u8]]) {
    let words: Vec<ByteString> = words.iter().filter_map(|words| ByteString::new(*words).ok()).collect();
    let file = |path: &ByteString| Bound {
        path: path.clone(),
        ..bound("/x", 1)
    };
    let first = words.first().cloned().unwrap_or_else(|| bytes(""));
    let reading = Reading::Command(Command {
        executable: file(&first),
        interpreter: Some(file(&first)),
        argv: words.clone(),
        env: words.iter().map(|words| (words.clone(), words.clone())).collect(),
        directory: crate::action::Directory {
            path: first.clone(),
            inode: inode(1),
        },
        operands: words
            .iter()
            .map(|words| crate::action::Operand {
                argument: 1,
                file: file(words),
            })
            .collect(),
        marks: Vec::new(),
        ..plain_command()
    });
    survives(&reading, 10 + 2 * words.len() + words.len().max(1));
}

fn through_a_tool_call(words: &str) {
    survives(
        &Reading::Tool(ToolCall {
            server: Text::cut(words),
            tool: Text::cut(words),
            arguments: Text::cut(words),
            ..tool_call()
        }),
        5,
    );
}

fn through_a_secret(words: &str) {
    survives(
        &Reading::Secret(SecretUse {
            host: Text::cut(words),
            method: Text::cut(words),
            path: Text::cut(words),
            ..secret_use()
        }),
        5,
    );
}

/// A change of roster with this policy, without people: they have nothing but names.
fn through_a_policy(gate: &DeviceReading, text: String) {
    let lines = text.split('\n').count();
    let roster = RosterReading {
        gate: gate.clone(),
        people: Vec::new(),
        quorum: quorum(1, 1),
        policy: Some(text),
        relays: Vec::new(),
    };
    survives(&Reading::Roster(roster), 3 + lines);
}

/// What stands around an action in a request.
fn through_a_request(request: &mut Request, words: &str) {
    request.asked_by.user = Some(Text::cut(words));
    request.asked_by.conversation = Some(Text::cut(words));
    request.asked_by.platform = Some(Text::cut(words));
    request.reason = Text::cut(words);
    let text = render_request(request);
    let usual = 14;
    let fenced = text.lines().filter(|line| line.starts_with("| ")).count();
    let heading = usize::from(!words.is_empty());
    assert_eq!(text.lines().count(), usual + heading + fenced, "{text:?}");
    assert!(text.lines().all(|line| line.chars().all(is_allowed)), "{text:?}");
}

fn gate() -> DeviceReading {
    let Reading::Roster(roster) = Reading::of(&Action::Roster(genesis().contents())) else {
        panic!()
    };
    roster.gate
}

/// A request with few lines, so that what is done to it counts.
fn short_request() -> Request {
    let request = request_with(&team(), |request| {
        request.class = Class::Secret;
        request.action = Action::Secret(secret_use());
    });
    request.get().clone()
}

#[test]
fn every_code_point_goes_through_every_field() {
    const TOGETHER: u32 = 128;
    let (gate, request) = (gate(), short_request());
    // With somebody waiting, every seventeenth where each needs a text of its own, and of the planes in which nothing is
    // assigned or all is private every eighth block. (`escape` is tried with every code point each time.)
    let step = if thorough() { 1 } else { 17 };
    let passed_over =
        |first: u32| step > 1 && matches!(first, 0x4_0000..0xE_0000 | 0xE_1000..) && first / TOGETHER % 8 != 3;
    on_both_threads(
        |block| {
            let first = u32::try_from(block).unwrap() * TOGETHER;
            if passed_over(first) {
                return;
            }
            let characters: Vec<char> = (first..first + TOGETHER).filter_map(char::from_u32).collect();
            let words: Vec<String> = characters.iter().map(char::to_string).collect();
            // In a command and in a policy each stands in a line of its own.
            through_a_command(&words.iter().map(String::as_bytes).collect::<Vec<_>>());
            through_a_policy(&gate, words.join("\n"));
            let mut request = request.clone();
            for word in words.iter().skip(block as usize % step).step_by(step) {
                through_a_tool_call(word);
                through_a_secret(word);
                through_a_request(&mut request, word);
            }
        },
        u64::from(0x11_0000 / TOGETHER),
    );
}

/// Deterministic, so that what failed once fails again (splitmix64).
struct Drawn(u64);

impl Drawn {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Of letters, of what the notation is made of, and of anything at all.
    fn character(&mut self) -> char {
        const NOTATION: &[u8] = b"\\u{}x20(empty)= \n\t\r\x1b[;\"'|policy[0] none";
        match self.below(4) {
            0 => char::from(b'a' + self.below(26) as u8),
            1 | 2 => char::from(NOTATION[self.below(NOTATION.len() as u64) as usize]),
            _ => char::from_u32(self.below(0x11_0000) as u32).unwrap_or('\u{202e}'),
        }
    }

    fn text(&mut self) -> String {
        let length = self.below(24);
        (0..length).map(|_| self.character()).collect()
    }

    /// Text in which some bytes are anything but zero.
    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = self.text().into_bytes();
        for byte in &mut bytes {
            if *byte == 0 || self.below(8) == 0 {
                *byte = 1 + self.below(255) as u8;
            }
        }
        bytes
    }
}

#[test]
fn strings_drawn_at_random_go_through_every_field() {
    let (gate, request) = (gate(), short_request());
    on_both_threads(
        |number| {
            let mut drawn = Drawn(number);
            match number / 2 % 5 {
                0 => through_a_command(&[&drawn.bytes()]),
                1 => through_a_tool_call(&drawn.text()),
                2 => through_a_secret(&drawn.text()),
                3 => through_a_policy(&gate, drawn.text()),
                _ => through_a_request(&mut request.clone(), &drawn.text()),
            }
        },
        drawn(),
    );
}
