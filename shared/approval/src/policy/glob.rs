//! What one argument may look like: a policy's `like` (PROTOCOL.md 16.2), strictly or loosely, and the plain argument of a
//! grant's blank (8.7). Not here: the arguments together (`rule`).

/// A glob over one argument. A type of its own: a literal string is never taken for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Glob(String);

impl Glob {
    /// Refused with a slash, which no wildcard crosses, and beyond printable ASCII, which people mix up.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let printable = pattern.bytes().all(|byte| printable(byte) && byte != b'/');
        printable.then(|| Self(pattern.to_owned()))
    }

    /// Whether it stands for this argument where that allows something. One that starts with `-` would be an option where
    /// a name was meant.
    pub(super) fn matches(&self, argument: &[u8]) -> bool {
        let option = argument.starts_with(b"-") && !self.0.starts_with('-');
        let within = argument.iter().all(|byte| printable(*byte) && *byte != b'/');
        !option && within && self.matches_loosely(argument)
    }

    /// Whether it stands for this argument where that denies or asks: no odd byte steps around it.
    pub(super) fn matches_loosely(&self, argument: &[u8]) -> bool {
        run(self.0.as_bytes(), argument)
    }
}

/// Without recursion: only the last `*` ever needs to give back what it took.
fn run(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(read) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    at = after + 1;
                    read = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|rest| *rest == b'*')
}

fn printable(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

/// Bytes of a plain argument.
const PLAIN_BYTES: usize = 255;

/// Whether an argument may fill a grant's blank (8.7): it names something here, and is neither an option nor a path.
pub fn is_plain(argument: &[u8]) -> bool {
    (1..=PLAIN_BYTES).contains(&argument.len())
        && !argument.starts_with(b"-")
        && argument.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'/')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use proptest::prelude::*;

    /// As one would write it down.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', pattern)), None) => plainly(pattern, text),
            (Some((b'*', after)), Some((_, rest))) => plainly(after, text) || plainly(pattern, rest),
            (Some((wanted, pattern)), Some((byte, text))) => {
                (*wanted == b'?' || wanted == byte) && plainly(pattern, text)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_glob_matches_as_its_definition_says(pattern in "[ab?*]{0,8}", text in "[ab*?]{0,10}") {
            prop_assert_eq!(run(pattern.as_bytes(), text.as_bytes()), plainly(pattern.as_bytes(), text.as_bytes()));
        }
    }

    fn like(pattern: &str, argument: &[u8]) -> bool {
        Glob::new(pattern).unwrap().matches(argument)
    }

    #[test]
    fn e11_no_wildcard_crosses_a_slash_or_folds_case() {
        assert!(like("*.log", b"a.log") && like("*", b"") && like("?", b"a") && like("a*c", b"abbc"));
        assert!(!like("*", b"a/b") && !like("?", b"/") && !like("a?b", b"a/b"));
        assert!(!like("*.log", b"A.LOG") && !like("a", b"A"));
        assert_eq!(Glob::new("a/*"), None);
    }

    #[test]
    fn e05_a_wildcard_is_never_an_option() {
        assert!(!like("*", b"--compress-program=sh") && !like("?x", b"-x") && !like("*", b"-"));
        assert!(like("-n*", b"-n5") && like("*", b"a-b"));
    }

    #[test]
    fn e15_odd_bytes_match_no_wildcard() {
        for odd in [
            &b"a\n"[..],
            b"\x1b[0m",
            b"\x1f",
            b"\xff",
            "é".as_bytes(),
            b"a\tb",
            b"\x7f",
        ] {
            assert!(!like("*", odd), "{odd:?}");
        }
        assert_eq!(Glob::new("é*"), None);
        assert_eq!(Glob::new("a\n"), None);
    }

    #[test]
    fn e13_what_is_denied_is_not_stepped_around_by_an_odd_byte() {
        let loosely = |pattern: &str, argument: &[u8]| Glob::new(pattern).unwrap().matches_loosely(argument);
        for odd in [
            &b"a/b"[..],
            b"-rf",
            b"a\n",
            b"\x1b[0m",
            b"\xff",
            "é".as_bytes(),
            b"\x7f",
            b"/",
            b"",
        ] {
            assert!(loosely("*", odd), "{odd:?}");
        }
        assert!(loosely("a?b", b"a/b") && loosely("?x", b"-x") && loosely("*.key", b"/etc/a.key"));
        assert!(loosely("??", "é".as_bytes()) && !loosely("?", "é".as_bytes()), "bytes");
        assert!(!loosely("?", b"") && !loosely("*.key", b"a.KEY") && !loosely("", b"-"));
    }

    #[test]
    fn a_blank_takes_a_plain_argument_only() {
        assert!(is_plain(b"a") && is_plain(&[b'a'; 255]) && is_plain(b"x-1.2_3~") && is_plain(b"$(id)"));
        for bad in [
            &b""[..],
            b"-a",
            b"a/b",
            b"a b",
            b"a\n",
            b"\xc3\xa9",
            &[b'a'; 256],
            b"\x7f",
        ] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_long_glob_ends_soon() {
        let pattern = "a*".repeat(2000) + "b";
        assert!(!like(&pattern, &[b'a'; 4000]));
    }
}
