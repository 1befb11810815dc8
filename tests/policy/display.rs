//! What admins read, in a real terminal's eyes (abuse cases F): whatever an agent writes anywhere, the terminal shows exactly the
//! letters that we printed, and does nothing else. Not here: that two actions never look the same (`approval::render`).

use approval::action::{Action, SecretUse, ToolCall};
use approval::escape::{escape, escape_field, is_allowed};
use approval::grant::Terms;
use approval::policy::Policy;
use approval::render::render_request;
use approval::request::Request;
use approval::{Digest, Text};
use countersign::show;
use countersign_tests::emulator::shows_only;

use super::corpus::gate::{bytes, command_of, now, request};

/// What terminals obey, and what deceives eyes.
const HOSTILE: [&str; 34] = [
    "\u{1b}[2J\u{1b}[H",
    "\u{1b}[1A\u{1b}[2K",
    "\u{1b}[31;1m",
    "\u{1b}[8m",
    "\u{1b}[?1049h",
    "\u{1b}[?25l",
    "\u{1b}[?2004h",
    "\u{1b}[?1000h",
    "\u{1b}[10;1H",
    "\u{1b}[3b",
    "\u{1b}[6n",
    "\u{1b}[5i",
    "\u{1b}[8;1;1t",
    "\u{1b}]0;title\u{7}",
    "\u{1b}]1;icon\u{1b}\\",
    "\u{1b}]2;title\u{9c}",
    "\u{1b}]8;;https://evil.example\u{1b}\\link\u{1b}]8;;\u{1b}\\",
    "\u{1b}]52;c;cm0gLXJm\u{7}",
    "\u{1b}]52;c;?\u{7}",
    "\u{1b}P+q544e\u{1b}\\",
    "\u{1b}_apc\u{1b}\\",
    "\u{1b}^pm\u{1b}\\",
    "\u{1b}Xsos\u{1b}\\",
    "\u{1b}c",
    "\u{1b}7\u{1b}8",
    "\u{1b}(0",
    "\u{1b}M",
    "\r\ncommand\r\n",
    "a\u{8}b",
    "a\tb",
    "e\u{301}\u{20dd}",
    "a\u{200b}b\u{200d}c\u{feff}",
    "a\u{202e}txt.exe\u{2066}x\u{2069}",
    "a\u{e0061}\u{e007f}\u{fe0f}",
];

/// What only looks unusual.
const HARMLESS: [&str; 8] = [" ", "  ", "\\", "中文", "한글", "ｆｕｌｌ", "Жук", "é"];

/// SplitMix64, so that the number of a text is enough to find it again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.below(24) {
            match self.below(8) {
                0 | 1 => text.push_str(HOSTILE[self.below(HOSTILE.len())]),
                2 => text.push_str(HARMLESS[self.below(HARMLESS.len())]),
                3 => text.push(char::from(u8::try_from(self.below(0x20)).unwrap())),
                4 => text.push(char::from(u8::try_from(0x7f + self.below(0x21)).unwrap())),
                5 => text.extend(char::from_u32(u32::try_from(self.below(0x3000)).unwrap())),
                6 => text.extend(char::from_u32(u32::try_from(self.below(0x11_0000)).unwrap())),
                _ => text.push(char::from(u8::try_from(0x20 + self.below(0x5f)).unwrap())),
            }
        }
        text
    }
}

/// Requests with this text in every place that an agent fills.
fn requests(text: &str) -> [Request; 3] {
    let (words, free) = (text.replace('\0', "\u{1}"), Text::new(text).unwrap());
    let mut broken = words.clone().into_bytes();
    broken.insert(broken.len() / 2, 0xff);
    let mut command = command_of(&format!("/tmp/{words}"), &["tool", &words]);
    command.argv.push(bytes(broken));
    command
        .env
        .push((bytes(format!("X{}", words.replace('=', ""))), bytes(words.clone())));
    command.directory.path = bytes(format!("/srv/{words}"));
    let tool = ToolCall {
        server: free.clone(),
        tool: free.clone(),
        schema: Digest::of(b"schema"),
        arguments: Text::new(serde_json::json!({ text: text }).to_string()).unwrap(),
    };
    let secret = SecretUse {
        name: "key".parse().unwrap(),
        host: free.clone(),
        method: free.clone(),
        path: free.clone(),
    };
    [Action::Command(command), Action::Tool(tool), Action::Secret(secret)].map(|action| {
        let mut request = request(action);
        request.asked_by.user = Some(free.clone());
        request.asked_by.conversation = Some(free.clone());
        request.asked_by.platform = Some(free.clone());
        request.reason = Text::new(text).unwrap();
        request
    })
}

/// Everything that is printed about a request.
fn printed(request: &Request) -> String {
    let whole = render_request(request);
    let line = show::summary(request, None);
    let granted = show::terms::sentence(request, &Terms::exact(), now());
    format!("{whole}{line}\n{granted}\n")
}

/// A policy's text as `policy show` prints it, if it may stand in a policy at all.
fn policy_lines(text: &str) -> Option<String> {
    let quoted = format!("# {text}\n[[rule]]\neffect = \"deny\"\ncommand = [\"tool\", {text:?}, {{ rest = true }}]\n");
    let plain = format!("# {text}\n");
    let policy = Policy::parse(&quoted).or_else(|_| Policy::parse(&plain)).ok()?;
    Some(
        policy
            .text()
            .lines()
            .map(|line| format!("{}\n", escape(line)))
            .collect(),
    )
}

fn holds(text: &str) {
    let mut all: Vec<String> = requests(text).iter().map(printed).collect();
    all.extend(policy_lines(text));
    // An error about it, which says it in a field.
    all.extend(
        Policy::parse(text)
            .err()
            .map(|error| format!("error: {}\n", escape(&error.to_string()))),
    );
    for printed in all {
        shows_only(&printed).unwrap_or_else(|why| panic!("{why}: of {text:?}\n{printed}"));
    }
}

#[test]
fn the_terminal_notices_what_is_printed_as_it_came() {
    for text in HOSTILE {
        // A new line in the midst of ours is one that nobody can tell from ours: that is what the escaper and the fence are for.
        let printed = format!("before {text} after\n");
        if text.contains('\n') {
            continue;
        }
        assert!(shows_only(&printed).is_err(), "{text:?}");
    }
    for text in HARMLESS {
        shows_only(&format!("before {text} after\n{}\n", text.repeat(200))).unwrap();
    }
}

#[test]
fn every_control_and_sequence_is_only_letters() {
    for text in HOSTILE.into_iter().chain(HARMLESS) {
        holds(text);
        holds(&format!("{}{text}", "x".repeat(75)));
    }
    for control in (0..0x20).chain(0x7f..0xa0) {
        holds(&format!("a{}b", char::from(control)));
        holds(&char::from(control).to_string());
    }
}

#[test]
fn every_letter_has_a_cell_of_its_own() {
    let mut odd: Vec<char> = Vec::new();
    let letters: Vec<char> = ('\u{80}'..=char::MAX).filter(|letter| is_allowed(*letter)).collect();
    // Each between letters that it could change or be changed by, and each 16th at a line's beginning.
    let shown = |letters: &[char]| {
        let line = |line: &[char]| -> String {
            let each = line.iter().flat_map(|letter| [*letter, 'b', *letter, *letter, 'a']);
            each.chain(['\n']).collect()
        };
        shows_only(&letters.chunks(16).map(line).collect::<String>())
    };
    for some in letters.chunks(256) {
        if shown(some).is_err() {
            odd.extend(some.iter().filter(|letter| shown(&['\u{1100}', **letter]).is_err()));
            assert!(!odd.is_empty(), "{some:?} together");
        }
    }
    assert!(letters.len() > 100_000);
    let odd: Vec<String> = odd
        .iter()
        .map(|letter| format!("U+{:04X}", u32::from(*letter)))
        .collect();
    assert!(odd.is_empty(), "{}: {odd:?}", odd.len());
}

#[test]
fn no_text_of_an_agent_does_anything_to_the_terminal() {
    let count = super::how_many("COUNTERSIGN_TEXTS", 100_000, 10_000);
    for number in 0..count {
        let text = Dice(number).text();
        // The places are tried with some; what each place does with a text is the same for all.
        if number % 16 == 0 {
            holds(&text);
            continue;
        }
        let field = escape_field(text.as_bytes());
        let fenced = approval::escape::fence(&text);
        shows_only(&format!("  {field}\n{fenced}")).unwrap_or_else(|why| panic!("text {number}: {why}: {text:?}"));
    }
}
