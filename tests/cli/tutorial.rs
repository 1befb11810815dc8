//! The README's tutorial, executed as it stands: each terminal that it names is a shell in a real terminal, each command is typed there, and what
//! comes must be what the page shows. How the page is read is said on the page itself.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use countersign_tests::program::program;
use tempfile::TempDir;

use super::screen::Screen;
use super::site::{clean, command, ended};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

/// The relay's address on the page; here it is another one, so that a relay that runs already is left alone.
const ADDRESS: &str = "127.0.0.1:7447";

/// The gate's HTTP door on the page; another one too.
const DOOR: &str = "127.0.0.1:7448";

/// One line of the tutorial.
#[derive(Debug)]
enum Line {
    /// `name$ command`
    Command { terminal: String, command: String },
    /// `[name]`: on in that terminal.
    On { terminal: String },
    /// What is shown; with what is typed at its end.
    Shown { text: String, typed: Option<String> },
    /// `…` alone: any lines.
    Any,
}

fn line(text: &str) -> Line {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase());
    if let Some((terminal, command)) = text.split_once("$ ").filter(|(terminal, _)| word(terminal)) {
        return Line::Command {
            terminal: terminal.to_owned(),
            command: command.to_owned(),
        };
    }
    if let Some(terminal) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .filter(|text| word(text))
    {
        return Line::On {
            terminal: terminal.to_owned(),
        };
    }
    if text == "…" {
        return Line::Any;
    }
    match text.strip_suffix('›').and_then(|text| text.split_once('‹')) {
        Some((text, typed)) => Line::Shown {
            text: text.to_owned(),
            typed: Some(typed.to_owned()),
        },
        None => Line::Shown {
            text: text.to_owned(),
            typed: None,
        },
    }
}

/// The lines of all blocks of this kind.
fn blocks(kind: &str) -> Vec<String> {
    let page = fs::read_to_string(README).unwrap();
    let mut lines = Vec::new();
    let mut inside = false;
    for text in page.lines() {
        match (inside, text) {
            (false, _) => inside = text == format!("```{kind}"),
            (true, "```") => inside = false,
            (true, _) => lines.push(text.to_owned()),
        }
    }
    assert!(!lines.is_empty(), "no block {kind}");
    lines
}

/// What the examples on the page are called here: ids, keys, codes, times and the link differ each time, but each must be the same wherever it is shown.
#[derive(Default)]
struct Examples {
    real: HashMap<String, String>,
}

impl Examples {
    /// A command with what its examples really are.
    fn command(&self, text: &str) -> String {
        let mut real = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            match example(rest) {
                Some((length, _)) => {
                    let known = self.real.get(&rest[..length]);
                    real.push_str(known.unwrap_or_else(|| panic!("{} was never shown", &rest[..length])));
                    rest = &rest[length..];
                }
                None => {
                    real.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
        }
        real
    }

    /// Whether a line is what the page shows, and what is learnt from it.
    fn shown(&mut self, pattern: &str, text: &str) -> bool {
        let mut learnt = self.real.clone();
        let same = matches(&mut learnt, pattern, text);
        if same {
            self.real = learnt;
        }
        same
    }
}

fn matches(real: &mut HashMap<String, String>, pattern: &str, text: &str) -> bool {
    let Some(first) = pattern.chars().next() else {
        return text.is_empty();
    };
    if let Some((length, kind)) = example(pattern) {
        let (name, rest) = pattern.split_at(length);
        let Some(found) = kind(text) else { return false };
        let (found, after) = text.split_at(found);
        if real.get(name).is_some_and(|known| known != found) {
            return false;
        }
        // Times are shown to the second; two of them may fall together or not.
        if !name.ends_with('Z') {
            real.insert(name.to_owned(), found.to_owned());
        }
        return matches(real, rest, after);
    }
    let rest = &pattern[first.len_utf8()..];
    if first == '…' {
        return text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .any(|at| matches(&mut real.clone(), rest, &text[at..]) && matches(real, rest, &text[at..]));
    }
    text.strip_prefix(first).is_some_and(|text| matches(real, rest, text))
}

/// How long a thing of some kind is at the beginning of a text.
type Kind = fn(&str) -> Option<usize>;

/// Which example the text begins with: its length on the page, and what it stands for.
fn example(text: &str) -> Option<(usize, Kind)> {
    const KINDS: [Kind; 5] = [link, key, hex, code, time];
    KINDS.into_iter().find_map(|kind| Some((kind(text)?, kind)))
}

fn run(text: &str, allowed: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(|byte| !allowed(byte)).unwrap_or(text.len())
}

fn link(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("countersign:1")?;
    let shortened = rest.strip_prefix(|first: char| first.is_ascii_alphanumeric())?;
    let length = run(shortened, |byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let end = text.len() - shortened.len() + length;
    Some(
        end + if text[end..].starts_with('…') {
            '…'.len_utf8()
        } else {
            0
        },
    )
}

fn key(text: &str) -> Option<usize> {
    let length = run(text.strip_prefix("csid1")?, |byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit()
    });
    (length >= 8).then_some(5 + length)
}

/// A digest or the beginning of one, as it is shown everywhere.
fn hex(text: &str) -> Option<usize> {
    let length = run(text, |byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let ends = !text[length..].starts_with(|next: char| next.is_ascii_alphanumeric());
    (ends && (length == 8 || length == 64)).then_some(length)
}

fn code(text: &str) -> Option<usize> {
    shape(text, "ddd ddd")
}

fn time(text: &str) -> Option<usize> {
    shape(text, "dddd-dd-dd dd:dd:ddZ")
}

fn shape(text: &str, shape: &str) -> Option<usize> {
    let same = |(a, b): (u8, u8)| if b == b'd' { a.is_ascii_digit() } else { a == b };
    let ends = !text
        .get(shape.len()..)
        .unwrap_or_default()
        .starts_with(|next: char| next.is_ascii_alphanumeric());
    (text.len() >= shape.len() && ends && text.bytes().zip(shape.bytes()).all(same)).then_some(shape.len())
}

/// The terminals.
struct Room {
    folder: TempDir,
    address: String,
    door: String,
    screens: HashMap<String, Screen>,
    examples: Examples,
}

impl Room {
    fn new() -> Self {
        // Ports that are free now; the page's own may be taken.
        let free = || std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let [relay, door] = [free(), free()].map(|listener| listener.local_addr().unwrap().to_string());
        Self {
            folder: TempDir::with_prefix("countersign-readme-").unwrap(),
            address: relay,
            door,
            screens: HashMap::new(),
            examples: Examples::default(),
        }
    }

    fn open(&mut self, name: &str) {
        let mut shell = Command::new("sh");
        clean(&mut shell, self.folder.path());
        let path = std::env::join_paths([
            program("countersign").parent().unwrap(),
            Path::new("/usr/local/bin"),
            Path::new("/usr/bin"),
            Path::new("/bin"),
        ])
        .unwrap();
        shell
            .arg("-i")
            .env("PATH", path)
            .env("PS1", format!("{name}$ "))
            .env("PS2", "")
            .env("ENV", "");
        shell
            .env("COUNTERSIGN_RELAY_LISTEN", &self.address)
            .env("COUNTERSIGN_RELAY", format!("ws://{}", self.address));
        self.screens.insert(name.to_owned(), Screen::open(&shell));
    }

    fn types(&mut self, name: &str, command: &str) {
        if !self.screens.contains_key(name) {
            self.open(name);
        }
        let prompt = format!("{name}$ ");
        self.expect(name, &prompt, false);
        let command = self.examples.command(command).replace(DOOR, &self.door);
        self.screens.get_mut(name).unwrap().types(&command);
        let echoed = format!("{prompt}{command}\n");
        self.screen(name)
            .reads(|text| text.starts_with(&echoed).then_some(()))
            .unwrap_or_else(|new| panic!("{echoed}isn't echoed:\n{new}"));
        self.screen(name).next_line();
    }

    fn screen(&mut self, name: &str) -> &mut Screen {
        self.screens.get_mut(name).unwrap()
    }

    /// The next thing shown is this: a whole line, or what a person is to type after.
    fn expect(&mut self, name: &str, shown: &str, whole: bool) {
        let shown = shown.replace(ADDRESS, &self.address).replace(DOOR, &self.door);
        let examples = &mut self.examples;
        let screen = self.screens.get_mut(name).unwrap();
        let same = screen.reads(|text| match text.split_once('\n') {
            Some((line, _)) if whole => Some(examples.shown(&shown, line)),
            Some(_) => Some(false),
            None if !whole && examples.shown(&shown, text) => Some(true),
            None => None,
        });
        match same {
            Ok(true) => {}
            other => panic!(
                "in the terminal {name} the page shows\n{shown}\nbut there is ({other:?})\n{}",
                screen.unread()
            ),
        }
        if whole {
            screen.next_line();
        }
    }

    /// Skips lines until this one.
    fn skip_to(&mut self, name: &str, shown: &str) {
        let shown = shown.replace(ADDRESS, &self.address).replace(DOOR, &self.door);
        loop {
            let examples = &mut self.examples;
            let screen = self.screens.get_mut(name).unwrap();
            let found = screen.reads(|text| {
                let line = text.split('\n').next().unwrap_or_default();
                let complete = text.len() > line.len();
                let found = examples.shown(&shown, line);
                (found || complete).then_some(found)
            });
            match found {
                Ok(true) => return,
                Ok(false) => screen.next_line(),
                Err(new) => panic!("in the terminal {name} the page shows\n{shown}\nbut that never comes:\n{new}"),
            }
        }
    }

    fn follow(&mut self, lines: &[String]) {
        let mut here = String::new();
        let mut skip = false;
        for text in lines {
            let line = line(text);
            match &line {
                Line::Any => {
                    skip = true;
                    continue;
                }
                Line::On { terminal } => here.clone_from(terminal),
                Line::Command { terminal, command } => {
                    // What is left out is left out of one terminal.
                    skip &= here == *terminal;
                    here.clone_from(terminal);
                    if skip {
                        self.skip_to(terminal, &format!("{terminal}$ "));
                    }
                    self.types(terminal, command);
                }
                Line::Shown { text, typed } => {
                    if skip {
                        self.skip_to(&here, text);
                    }
                    self.expect(&here, text, typed.is_none());
                    if let Some(typed) = typed {
                        self.screen(&here).types(typed);
                        self.screen(&here).next_line();
                    }
                }
            }
            skip = false;
        }
    }
}

#[test]
fn the_tutorial_works_word_for_word() {
    let lines = blocks("console");
    let mut room = Room::new();
    room.follow(&lines);
    let mut names: Vec<_> = room.screens.keys().cloned().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "admin", "agent", "alice", "auditor", "events", "gate", "operator", "relay"
        ]
    );
    // What still runs ends as a person ends it.
    for name in ["admin", "gate", "relay"] {
        room.screen(name).interrupts();
        room.screen(name).shows(&format!("{name}$ "));
    }
    // The stream of events ended with the gate.
    room.screen("events").shows("events$ ");
    for (name, mut screen) in room.screens {
        screen.types("exit");
        let (_, status) = screen.end();
        assert!(status.code().is_some(), "{name}: {status}");
    }
}

#[test]
fn the_demo_shows_what_the_page_says() {
    let folder = TempDir::new().unwrap();
    let shown = ended(command("countersign", folder.path()).args(["demo", "--yes"]));
    assert_eq!(shown.code, 0, "{shown:?}");
    let mut examples = Examples::default();
    let mut real = shown.text().lines();
    let mut skip = false;
    for text in blocks("text") {
        if text == "…" {
            skip = true;
            continue;
        }
        // The page shows the first lines of a long one.
        loop {
            let line = real
                .next()
                .unwrap_or_else(|| panic!("{text:?} isn't shown:\n{}", shown.text()));
            if examples.shown(&text, line) {
                break;
            }
            assert!(skip, "the page shows\n{text}\nbut there is\n{line}");
        }
        skip = false;
    }
    assert!(skip || real.next().is_none(), "the demo shows more than the page");
}

#[test]
fn an_example_stands_for_one_thing_everywhere() {
    let mut examples = Examples::default();
    assert!(examples.shown(
        "request 5a887685: waiting, at most …",
        "request 0b0a5ae1: waiting, at most 9 min 59 s"
    ));
    assert!(examples.shown("denied 5a887685", "denied 0b0a5ae1"));
    assert!(!examples.shown("denied 5a887685", "denied 0b0a5ae2"));
    assert!(!examples.shown("code 222 304", "code 22 304"));
    assert_eq!(
        examples.command("audit prove transcript.jsonl 5a887685"),
        "audit prove transcript.jsonl 0b0a5ae1"
    );
    assert!(examples.shown("countersign:1AQAA…", "countersign:1Bxyz-_9"));
    assert_eq!(
        examples.command("join 'countersign:1AQAA…' --name laptop"),
        "join 'countersign:1Bxyz-_9' --name laptop"
    );
    assert!(!examples.shown("nothing … here", "nothing is there"));
}
