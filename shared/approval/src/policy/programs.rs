//! Programs that can run other programs, by name (PROTOCOL.md 16.5): to allow one of them with anything but a fixed
//! command line is to allow everything. Not here: whether a file is really that program; its digest says which it is.

use std::collections::BTreeSet;
use std::sync::LazyLock;

/// `runner` and `shell` for a command: by the last part of the executable's path, of the interpreter's and of `argv[0]`.
pub fn marks_of_program(executable: &[u8], interpreter: Option<&[u8]>, argv0: &[u8]) -> (bool, bool) {
    let any = |list: &Names| {
        [Some(executable), interpreter, Some(argv0)]
            .into_iter()
            .flatten()
            .any(|path| list.contains(without_version(last_part(path))))
    };
    (any(&RUNNERS), any(&SHELLS))
}

/// Whether a program of this name or path is in one of the lists.
pub(super) fn runs_others(program: &str) -> bool {
    let (runner, shell) = marks_of_program(program.as_bytes(), None, b"");
    runner || shell
}

/// The names that this path goes by: its last part, as it is and without its version.
pub(super) fn names_of(path: &[u8]) -> [&[u8]; 2] {
    let name = last_part(path);
    [name, without_version(name)]
}

/// What comes after the last slash.
pub(super) fn last_part(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

type Names = BTreeSet<&'static [u8]>;

static RUNNERS: LazyLock<Names> = LazyLock::new(|| names(include_str!("runners.txt")));
static SHELLS: LazyLock<Names> = LazyLock::new(|| names(include_str!("shells.txt")));

fn names(list: &'static str) -> Names {
    list.lines()
        .map(str::as_bytes)
        .filter(|name| !name.is_empty())
        .collect()
}

/// `python3.12` is `python`, `clang-19` is `clang`, `ld-linux-x86-64.so.2` is `ld-linux-x86-64.so`.
fn without_version(name: &[u8]) -> &[u8] {
    let mut name = name;
    while let [before @ .., b'0'..=b'9' | b'.'] = name {
        name = before;
    }
    name.strip_suffix(b"-").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_hold_names_without_versions() {
        for list in [include_str!("runners.txt"), include_str!("shells.txt")] {
            let names: Vec<&str> = list.lines().collect();
            assert!(names.is_sorted_by(|one, next| one < next), "sorted, none twice");
            for name in names {
                assert_eq!(
                    without_version(name.as_bytes()),
                    name.as_bytes(),
                    "{name} could never match"
                );
                assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
            }
        }
        assert!(RUNNERS.len() >= 250, "{}", RUNNERS.len());
        assert!(SHELLS.is_subset(&RUNNERS), "a shell runs others too");
    }

    #[test]
    fn a_version_is_no_other_program() {
        for (name, plain) in [
            ("python3.12", "python"),
            ("python3", "python"),
            ("clang-19", "clang"),
            ("lua5.4", "lua"),
            ("perl5.36.0", "perl"),
            ("ld-linux-x86-64.so.2", "ld-linux-x86-64.so"),
            ("ls", "ls"),
            ("-", ""),
            ("42", ""),
            ("a--1", "a-"),
        ] {
            assert_eq!(without_version(name.as_bytes()), plain.as_bytes(), "{name}");
        }
    }

    #[test]
    fn d33_e04_wrappers_are_runners_under_any_of_their_names() {
        let runner = |executable: &str, argv0: &str| marks_of_program(executable.as_bytes(), None, argv0.as_bytes()).0;
        for path in [
            "/usr/bin/env",
            "/usr/bin/nice",
            "/usr/bin/timeout",
            "/usr/bin/xargs",
            "/usr/bin/python3.12",
            "/lib64/ld-linux-x86-64.so.2",
            "/usr/bin/sudo",
            "/usr/bin/busybox",
            "/opt/x/bin/node",
            "/usr/bin/git",
        ] {
            assert!(runner(path, "x"), "{path}");
        }
        assert!(
            runner("/usr/bin/x", "env") && runner("/usr/bin/x", "/a/b/find"),
            "by argv[0]"
        );
        assert!(
            marks_of_program(b"/srv/deploy", Some(b"/bin/bash"), b"deploy") == (true, true),
            "by its interpreter"
        );
        assert_eq!(marks_of_program(b"/usr/bin/ls", None, b"ls"), (false, false));
        assert_eq!(marks_of_program(b"/usr/bin/dash", None, b"sh"), (true, true));
        assert_eq!(marks_of_program(b"", None, b""), (false, false));
        assert_eq!(marks_of_program(b"/usr/bin/", None, b"///"), (false, false));
    }
}
