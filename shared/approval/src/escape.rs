//! How untrusted text reaches a terminal, page, notification or log: as allowed characters only, every other one
//! spelled out, and so that two different texts never look the same.
//!
//! PROTOCOL.md 11. What an action looks like as a whole is in [`crate::render`]; how wide a terminal is, is not known here.

use unicode_bidi::{BidiClass, bidi_class};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// What stands for a field that holds nothing.
pub const EMPTY: &str = "(empty)";

/// Columns of untrusted text in one fenced line. A terminal that wraps a longer line would begin the rest at its left
/// edge, without the fence.
const FENCED_COLUMNS: usize = 72;

/// Letters that are drawn as nothing (default-ignorable code points among the general category Lo).
const INVISIBLE_LETTERS: [char; 4] = ['\u{115F}', '\u{1160}', '\u{3164}', '\u{FFA0}'];

/// Letters that are drawn onto the one beside them: the vowels and finals of Hangul, which would make a syllable that looks
/// like the one letter for it, and letters written before a cluster (UAX #29, `Grapheme_Cluster_Break` V, T and Prepend).
const JOINING_LETTERS: [(char, char); 11] = [
    ('\u{0D4E}', '\u{0D4E}'),
    ('\u{1161}', '\u{11FF}'),
    ('\u{D7B0}', '\u{D7FF}'),
    ('\u{111C2}', '\u{111C3}'),
    ('\u{113D1}', '\u{113D1}'),
    ('\u{1193F}', '\u{1193F}'),
    ('\u{11941}', '\u{11941}'),
    ('\u{11A3A}', '\u{11A3A}'),
    ('\u{11A84}', '\u{11A89}'),
    ('\u{11D46}', '\u{11D46}'),
    ('\u{11F02}', '\u{11F02}'),
];

/// Ranges whose unassigned code points are right-to-left by default (UAX #44, `DerivedBidiClass`, `@missing`). The
/// tables of categories and of directions may be of different Unicode versions: a letter known to the first only would
/// count as left-to-right.
const RIGHT_TO_LEFT: [(char, char); 6] = [
    ('\u{0590}', '\u{08FF}'),
    ('\u{FB1D}', '\u{FDCF}'),
    ('\u{FDF0}', '\u{FDFF}'),
    ('\u{FE70}', '\u{FEFF}'),
    ('\u{10800}', '\u{10FFF}'),
    ('\u{1E800}', '\u{1EFFF}'),
];

/// True for a character that is shown as itself: printable ASCII, and visible left-to-right letters and digits. (The
/// backslash is allowed, but doubled; a space is allowed, but not at the ends of a field and not beside another.)
#[must_use]
pub fn is_allowed(character: char) -> bool {
    if character.is_ascii() {
        return matches!(character, ' '..='~');
    }
    let letter_or_digit = matches!(
        character.general_category(),
        GeneralCategory::UppercaseLetter
            | GeneralCategory::LowercaseLetter
            | GeneralCategory::TitlecaseLetter
            | GeneralCategory::OtherLetter
            | GeneralCategory::DecimalNumber
    );
    letter_or_digit
        && bidi_class(character) == BidiClass::L
        && !INVISIBLE_LETTERS.contains(&character)
        && !JOINING_LETTERS
            .iter()
            .chain(&RIGHT_TO_LEFT)
            .any(|(first, last)| (*first..=*last).contains(&character))
}

/// Escapes one field of text: for every sink that shows words of an agent, names, reasons, paths.
#[must_use]
pub fn escape(text: &str) -> String {
    escape_bytes(text.as_bytes())
}

/// Escapes one field of bytes. [`unescape`] gives exactly these bytes back.
#[must_use]
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    // Whatever isn't a space counts as "not beside a space"; the ends of the field count as spaces.
    let mut after_space = true;
    let mut rest = bytes;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            rest = rest.get(character.len_utf8()..).unwrap_or_default();
            if character == ' ' {
                if after_space || matches!(rest.first(), None | Some(b' ')) {
                    spell_out(character, &mut shown);
                } else {
                    shown.push(' ');
                }
            } else if character == '\\' {
                shown.push_str("\\\\");
            } else if is_allowed(character) {
                shown.push(character);
            } else {
                spell_out(character, &mut shown);
            }
            after_space = character == ' ';
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
            after_space = false;
        }
        rest = rest.get(chunk.invalid().len()..).unwrap_or_default();
    }
    shown
}

/// Reads back what [`escape_bytes`] wrote. `None` for anything that it wouldn't have written.
#[must_use]
pub fn unescape(shown: &str) -> Option<Vec<u8>> {
    // One spelling only: otherwise two texts that look different would mean the same, and "+20" would be a number.
    decode(shown).filter(|bytes| escape_bytes(bytes) == shown)
}

/// Reads every spelling that the notation has. Whoever calls compares with the one that is written.
pub(crate) fn decode(shown: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(shown.len());
    let mut rest = shown;
    while let Some(character) = rest.chars().next() {
        rest = rest.get(character.len_utf8()..)?;
        if character != '\\' {
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        } else if let Some(after) = rest.strip_prefix('\\') {
            bytes.push(b'\\');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("u{") {
            let (digits, after) = after.split_once('}')?;
            let code = u32::from_str_radix(digits, 16).ok()?;
            bytes.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
        } else {
            let digits = rest.strip_prefix('x')?.get(..2)?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = rest.get(3..)?;
        }
    }
    Some(bytes)
}

/// Escapes a field that may be empty, and then says so. A field that holds the text of [`EMPTY`] is told apart by its
/// first character.
#[must_use]
pub fn escape_field(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return EMPTY.to_owned();
    }
    let shown = escape_bytes(bytes);
    match shown.strip_prefix('(') {
        Some(rest) if shown == EMPTY => format!("\\u{{28}}{rest}"),
        _ => shown,
    }
}

/// Reads back what [`escape_field`] wrote. `None` for anything that it wouldn't have written.
#[must_use]
pub fn unescape_field(shown: &str) -> Option<Vec<u8>> {
    let bytes = if shown == EMPTY { Vec::new() } else { decode(shown)? };
    (escape_field(&bytes) == shown).then_some(bytes)
}

/// Text of several lines from somebody who isn't trusted: each line escaped, cut to a width that no terminal wraps by
/// itself, and fenced with `| `. Every line ends with a line feed.
#[must_use]
pub fn fence(untrusted: &str) -> String {
    let mut fenced = String::with_capacity(untrusted.len() + 16);
    for line in untrusted.split('\n') {
        let shown = escape(line);
        let mut column = 0;
        fenced.push_str("| ");
        for character in shown.chars() {
            // Outside ASCII a character may be drawn two columns wide.
            let width = if character.is_ascii() { 1 } else { 2 };
            if column + width > FENCED_COLUMNS {
                fenced.push_str("\n| ");
                column = 0;
            }
            fenced.push(character);
            column += width;
        }
        fenced.push('\n');
    }
    fenced
}

fn spell_out(character: char, shown: &mut String) {
    shown.push_str(&format!("\\u{{{:x}}}", u32::from(character)));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;
    use proptest::prelude::*;

    fn clean(shown: &str) -> bool {
        shown.chars().all(is_allowed) && !shown.starts_with(' ') && !shown.ends_with(' ') && !shown.contains("  ")
    }

    #[test]
    fn every_code_point_is_shown_as_itself_or_spelled_out_and_read_back() {
        for code in 0..=0x10FFFF_u32 {
            let Some(character) = char::from_u32(code) else {
                continue;
            };
            let mut buffer = [0; 4];
            let text = &*character.encode_utf8(&mut buffer);
            let shown = escape(text);
            assert!(clean(&shown), "U+{code:04X}");
            assert_eq!(unescape(&shown).as_deref(), Some(text.as_bytes()), "U+{code:04X}");
            if is_allowed(character) && character != '\\' && character != ' ' {
                assert_eq!(shown, text);
            } else if character != '\\' {
                assert_eq!(shown, format!("\\u{{{code:x}}}"));
            }
        }
    }

    #[test]
    fn surrogates_are_bytes_that_are_not_utf8() {
        assert_eq!(escape_bytes(&[0xed, 0xa0, 0x80]), "\\xed\\xa0\\x80");
    }

    #[test]
    fn what_deceives_the_eye_is_spelled_out() {
        // Override, isolate, zero width space and joiners, soft hyphen, byte order mark, tag, variation selectors,
        // Hangul fillers, braille blank, no-break space, line separator, combining mark, escape, delete, C1 CSI.
        for character in [
            '\u{202E}',
            '\u{2066}',
            '\u{2069}',
            '\u{200B}',
            '\u{200D}',
            '\u{00AD}',
            '\u{FEFF}',
            '\u{E0041}',
            '\u{FE0F}',
            '\u{E0100}',
            '\u{115F}',
            '\u{1160}',
            '\u{3164}',
            '\u{FFA0}',
            '\u{2800}',
            '\u{00A0}',
            '\u{2028}',
            '\u{0301}',
            '\u{1B}',
            '\u{7F}',
            '\u{9B}',
            '\n',
            '\r',
            '\t',
            '\0',
            '\u{FFFD}',
            '\u{E000}',
            '\u{10940}',
            '\u{5D0}',
            '\u{627}',
            '\u{661}',
            '\u{1E900}',
            '\u{1161}',
            '\u{11A8}',
            '\u{D7B0}',
            '\u{0D4E}',
        ] {
            assert!(!is_allowed(character), "U+{:04X}", u32::from(character));
        }
        for character in ['a', 'Z', '0', '~', 'é', 'ß', 'Ж', '中', 'か', '한', '९'] {
            assert!(is_allowed(character), "U+{:04X}", u32::from(character));
        }
    }

    #[test]
    fn spaces_that_cannot_be_counted_are_spelled_out() {
        assert_eq!(escape("a b"), "a b");
        assert_eq!(escape(" a b "), "\\u{20}a b\\u{20}");
        assert_eq!(escape("a  b"), "a\\u{20}\\u{20}b");
        assert_eq!(escape(" "), "\\u{20}");
        assert_eq!(escape_bytes(b"a \xff"), "a \\xff");
        assert_eq!(escape_bytes(b"\xff a"), "\\xff a");
    }

    #[test]
    fn another_spelling_is_not_read() {
        for shown in [
            "\\u{41}",
            "\\u{0041}",
            "\\u{1B}",
            "\\u{+1b}",
            "\\u{}",
            "\\u{d800}",
            "\\u{110000}",
            "\\u{1b",
            "\\x41",
            "\\xFF",
            "\\x+f",
            "\\xc3\\xa9",
            "\\xf",
            "\\",
            "\\n",
            " a",
            "a  b",
            "a\u{200b}",
            "a\nb",
        ] {
            assert_eq!(unescape(shown), None, "{shown:?}");
        }
    }

    #[test]
    fn letters_and_digits_are_shown_as_themselves_and_what_looks_like_them_is_not() {
        for code in 0..0x80_u8 {
            assert_eq!(is_allowed(char::from(code)), (0x20..0x7f).contains(&code), "{code:x}");
        }
        // One of each category that PROTOCOL.md 11 names, then of those nearest to them: modifiers, numbers, marks, signs,
        // and digits that are drawn from left to right only among others; last, letters that join the one beside them.
        for shown in ['\u{c9}', '\u{e9}', '\u{1c5}', '\u{5b57}', '\u{aa}', '\u{966}'] {
            assert!(is_allowed(shown), "{:x}", u32::from(shown));
        }
        for spelled in [
            '\u{2b0}',
            '\u{2160}',
            '\u{b2}',
            '\u{301}',
            '\u{903}',
            '\u{20ac}',
            '\u{a0}',
            '\u{ad}',
            '\u{ff10}',
            '\u{1d7ce}',
            '\u{111c2}',
            '\u{111c3}',
            '\u{113d1}',
            '\u{1193f}',
            '\u{11941}',
            '\u{11a3a}',
            '\u{11a84}',
            '\u{11a89}',
            '\u{11d46}',
            '\u{11f02}',
            '\u{e000}',
        ] {
            assert!(!is_allowed(spelled), "{:x}", u32::from(spelled));
        }
        let right_to_left = [
            0x590..0x900,
            0xfb1d..0xfdd0,
            0xfdf0..0xfe00,
            0xfe70..0xff00,
            0x1_0800..0x1_1000,
            0x1_e800..0x1_f000,
        ];
        for code in right_to_left.into_iter().flatten() {
            assert!(!char::from_u32(code).is_some_and(is_allowed), "{code:x}");
        }
    }

    #[test]
    fn empty_is_told_apart_from_the_word_for_it() {
        assert_eq!(escape_field(b""), "(empty)");
        assert_eq!(escape_field(b"(empty)"), "\\u{28}empty)");
        assert_eq!(unescape_field("(empty)").unwrap(), b"");
        assert_eq!(unescape_field("\\u{28}empty)").unwrap(), b"(empty)");
        assert_eq!(unescape_field(""), None);
        assert_eq!(unescape_field("\\u{28}x"), None);
    }

    #[test]
    fn no_line_of_the_agent_leaves_its_fence() {
        let fenced = fence("please\ncommand\n  executable  /bin/ls\r\u{1b}[2J\n");
        assert_eq!(
            fenced,
            "| please\n| command\n| \\u{20}\\u{20}executable\\u{20}\\u{20}/bin/ls\\u{d}\\u{1b}[2J\n| \n"
        );
        let long = fence(&"x".repeat(500));
        assert!(
            long.lines()
                .all(|line| line.starts_with("| ") && line.len() <= 2 + FENCED_COLUMNS)
        );
        let wide = fence(&"\u{5b57}".repeat(100));
        let drawn: Vec<usize> = wide.lines().map(|line| line.chars().count() - 2).collect();
        assert_eq!(drawn, [36, 36, 28], "each may be two columns wide");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let shown = escape_bytes(&bytes);
            prop_assert!(clean(&shown));
            prop_assert_eq!(unescape(&shown), Some(bytes.clone()));
            prop_assert_eq!(unescape_field(&escape_field(&bytes)), Some(bytes));
        }

        #[test]
        fn awkward_bytes_are_read_back(bytes in proptest::collection::vec(
            proptest::sample::select(b" \\u{}x20ae()\xc3\xa9\xff\xe2\x80\x8b".to_vec()), 0..24)) {
            let shown = escape_field(&bytes);
            prop_assert!(clean(&shown));
            prop_assert_eq!(unescape_field(&shown), Some(bytes));
        }

        #[test]
        fn any_text_is_fenced(text in any::<String>()) {
            prop_assert!(fence(&text).lines().all(|line| line.starts_with("| ") && line.chars().all(is_allowed)));
        }
    }
}
