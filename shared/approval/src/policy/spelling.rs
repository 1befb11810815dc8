//! What TOML 1.1 has beyond TOML 1.0, refused (PROTOCOL.md 16): the library that reads the policy takes both, another
//! reader might take the one, and two readers must never disagree about a policy. Seconds that are left out: `fields`.
//! Not here: whether it is TOML at all; that was found out before.

use super::PolicyError;
use super::fields::Source;

/// Walks over text that is valid TOML 1.1.
pub(super) fn check(source: Source<'_>) -> Result<(), PolicyError> {
    let mut walk = Walk {
        bytes: source.0.as_bytes(),
        at: 0,
    };
    match walk.find() {
        None => Ok(()),
        Some(what) => Err(source.refuse(walk.at..walk.at, format!("{what} is TOML 1.1, a policy is TOML 1.0"))),
    }
}

struct Walk<'t> {
    bytes: &'t [u8],
    at: usize,
}

impl Walk<'_> {
    /// What TOML 1.0 doesn't have; `at` is where.
    fn find(&mut self) -> Option<&'static str> {
        // Whether each bracket that is open is a brace.
        let mut open: Vec<bool> = Vec::new();
        let mut comma = false;
        while let Some(byte) = self.bytes.get(self.at).copied() {
            let braced = open.last() == Some(&true);
            match byte {
                b'"' | b'\'' => {
                    if let Some(found) = self.string(byte) {
                        return Some(found);
                    }
                }
                b'#' => self.comment(),
                b'\n' if braced => return Some("a line break between braces"),
                b'}' if braced && comma => return Some("a comma before a closing brace"),
                b'[' => open.push(false),
                b'{' => open.push(true),
                b']' | b'}' => {
                    open.pop();
                }
                _ => {}
            }
            comma = byte == b',' || (comma && byte.is_ascii_whitespace());
            // A comment ends before its line feed, which is still to be seen.
            if byte != b'#' {
                self.at += 1;
            }
        }
        None
    }

    fn comment(&mut self) {
        let rest = self.bytes.iter().skip(self.at);
        self.at += rest.take_while(|byte| **byte != b'\n').count();
    }

    /// From its opening to its last quote.
    fn string(&mut self, quote: u8) -> Option<&'static str> {
        let starts = |at: usize, count: usize| {
            let here = self.bytes.iter().skip(at).take(count);
            here.filter(|byte| **byte == quote).count() == count
        };
        let quotes = if starts(self.at, 3) { 3 } else { 1 };
        let mut at = self.at + quotes;
        while at < self.bytes.len() && !starts(at, quotes) {
            let escape = quote == b'"' && self.bytes.get(at) == Some(&b'\\');
            if escape && matches!(self.bytes.get(at + 1), Some(b'e' | b'x')) {
                self.at = at;
                return Some("an escape \\e or \\x");
            }
            at += if escape { 2 } else { 1 };
        }
        // One or two quotes may stand before the closing three.
        while quotes == 3 && starts(at + 1, 3) {
            at += 1;
        }
        self.at = at + quotes - 1;
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn refused(text: &str) -> bool {
        Source(text).parse().expect(text);
        check(Source(text)).is_err()
    }

    #[test]
    fn what_only_toml_1_1_takes_is_refused() {
        for text in [
            "a = { b = 1, }",
            "a = { b = 1 , }",
            "a = {\n b = 1 }",
            "a = { b = 1 # c\n }",
            "a = [{ b = [1,\n2],\n c = 1 }]",
            r#"a = "\e""#,
            r#"a = "\x41""#,
            r#""\x41" = 1"#,
            r#"a = ["\\", "\\\x41"]"#,
            "a = \"\"\"\nb \\e\"\"\"",
        ] {
            assert!(refused(text), "{text}");
        }
    }

    #[test]
    fn what_toml_1_0_takes_is_taken() {
        for text in [
            "",
            "a = { b = 1 }\n",
            "a = {}",
            "a = [1,\n2, # {\n]",
            "a = [{ b = 1 },\n{ b = [\n1,\n] },\n]",
            r#"a = '\e\x41'"#,
            r#"a = "\\e {""#,
            r#"a = "{ # ,}""#,
            "# { \"\nb = 1\n# '\n",
            "a = '''\n{ \\x\n''''\nb = 1",
            "a = \"\"\"\n{ ,}\n\"\" \\\" \"\"\"\"\"\nb = { c = 1 }\n",
            "a = ''\nb = \"\"\nc = { d = '' }\n",
            "[a]\nb = 1\n[[c]]\nd = 1\n",
            "a = \"é {\"\n",
        ] {
            assert!(!refused(text), "{text}");
        }
    }
}
