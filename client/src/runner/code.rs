//! The text that an interpreter reads: which file of a command it is, and how it is frozen, because an interpreter opens it once more after
//! everything was checked. Abuse case D15.
//!
//! Deliberately not here: other files that arguments name; they are checked right before the start, and whoever can write to them has the
//! moment until they are opened. Nor what a script reads besides itself.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use approval::ByteString;
use approval::action::{Bound, Command, Operand};
use rustix::fs::MemfdFlags;

use super::bind::{self, BindError};
use super::executable::{self, Format, path_of};
use super::mounts;
use super::writable::Writers;

/// Programs that run the first file that they are given. (Shells are known by the policy's list.)
const INTERPRETERS: &[&str] = &[
    "Rscript",
    "awk",
    "bun",
    "deno",
    "expect",
    "gawk",
    "guile",
    "julia",
    "lua",
    "luajit",
    "mawk",
    "node",
    "nodejs",
    "osascript",
    "perl",
    "php",
    "pwsh",
    "pypy",
    "python",
    "ruby",
    "tclsh",
    "ts-node",
    "tsx",
    "wish",
];
/// Programs that run another with what follows.
const WRAPPERS: &[&str] = &[
    "chrt", "env", "ionice", "nice", "nohup", "setarch", "setpriv", "setsid", "stdbuf", "taskset", "time", "timeout",
];
/// With one of these before it, the file isn't what is run.
const NOT_A_FILE: &[&str] = &["-c", "-e", "-E", "-m", "-p", "-r", "--eval", "--print"];

/// How an interpreter gets at the frozen text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freezing {
    /// Not at all: nobody but root could change it.
    Checked,
    /// At its own path, a copy mounted over it: nobody but root and the gate's own user could take that away.
    Over,
    /// In a folder of its own, in place of the gate's home: others can change what its own path leads to.
    Aside,
    /// By descriptor, for want of mounts.
    Descriptor,
}

/// What holds the frozen text, until `exec`.
pub(super) struct Frozen {
    /// By which name the interpreter gets it, if not by its own.
    pub(super) name: Option<PathBuf>,
    /// Whether the gate's home is covered by it already.
    pub(super) hides: bool,
    /// Kept open across `exec`.
    _file: Option<File>,
}

/// The argument that names the text, for a program that runs texts.
pub(super) fn operand(command: &Command) -> Option<&Operand> {
    let operand = command.operands.first()?;
    let before = command.argv.get(1..operand.argument as usize)?;
    let is = |list: &[&str], name: &ByteString| list.iter().any(|other| other.as_bytes() == plain(name));
    let runs =
        |name: &ByteString| is(INTERPRETERS, name) || approval::policy::marks_of_program(name.as_bytes(), None, b"").1;
    let program = &command.executable.path;
    let text = runs(program) || (is(WRAPPERS, program) && before.iter().any(runs));
    let other = before
        .iter()
        .any(|argument| NOT_A_FILE.iter().any(|option| option.as_bytes() == argument.as_bytes()));
    (text && !other).then_some(operand)
}

/// The last part of a path, without a version at its end.
fn plain(name: &ByteString) -> &[u8] {
    let mut name = name.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    while let [before @ .., b'0'..=b'9' | b'.'] = name {
        name = before;
    }
    name.strip_suffix(b"-").unwrap_or(name)
}

/// The bytes of a text, made sure of, and who could change what its path leads to.
pub(super) struct Code<'a> {
    bound: &'a Bound,
    /// A sealed copy, unless nobody but root could change the file: whatever is read of the text is read of this.
    file: File,
    writers: Writers,
    own: u32,
}

impl<'a> Code<'a> {
    /// Before there is a user namespace: in there, all other users look alike.
    pub(super) fn find(bound: &'a Bound, file: &File, own: u32) -> Result<Self, BindError> {
        executable::check_inode(&bound.path, bound.inode, file)?;
        let writers = Writers::of(path_of(&bound.path), own).map_err(failed(bound))?;
        let (digest, file) = if freezing(writers, false, false, own) == Freezing::Checked {
            let digest = executable::copy(file, |_| Ok(())).map_err(failed(bound))?;
            (digest, file.try_clone().map_err(failed(bound))?)
        } else {
            // Not closed by `exec`: an interpreter may have to open it by its number.
            let copy = bind::memory(MemfdFlags::NOEXEC_SEAL).map_err(BindError::Memory)?;
            let digest =
                executable::copy(file, |piece| io::Write::write_all(&mut &copy, piece)).map_err(failed(bound))?;
            bind::seal(&copy).map_err(BindError::Memory)?;
            (digest, copy)
        };
        executable::check_bytes(bound, digest)?;
        Ok(Self {
            bound,
            file,
            writers,
            own,
        })
    }

    /// How the kernel would start it: by the approved bytes, not by those that were there for a moment.
    pub(super) fn format(&self) -> Result<Format, BindError> {
        executable::format(path_of(&self.bound.path), &self.file)
    }

    /// Makes its interpreter find the approved bytes. After this its path may lead to a copy. `hide` is the gate's home, if nobody else can
    /// move it.
    pub(super) fn freeze(self, mounts: bool, hide: Option<&Path>) -> Result<Frozen, BindError> {
        let Self { bound, file, .. } = self;
        let path = path_of(&bound.path);
        let target = executable::check_path(&bound.path, bound.inode)?;
        let name = Path::new(path.file_name().unwrap_or_default());
        match (freezing(self.writers, mounts, hide.is_some(), self.own), hide) {
            (Freezing::Checked, _) => Ok(Frozen::by(None, None)),
            (Freezing::Over, _) => {
                let digest = mounts::over(&target, &file).map_err(failed(bound))?;
                executable::check_bytes(bound, digest)?;
                Ok(Frozen::by(None, None))
            }
            (Freezing::Aside, Some(hide)) => {
                let digest = mounts::aside(hide, name, &file).map_err(failed(bound))?;
                executable::check_bytes(bound, digest)?;
                Ok(Frozen {
                    hides: true,
                    ..Frozen::by(Some(hide.join(name)), None)
                })
            }
            (Freezing::Aside | Freezing::Descriptor, _) => {
                let name = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
                Ok(Frozen::by(Some(name), Some(file)))
            }
        }
    }
}

fn failed(bound: &Bound) -> impl Fn(io::Error) -> BindError {
    |source| BindError::Io {
        path: path_of(&bound.path).to_owned(),
        source,
    }
}

impl Frozen {
    fn by(name: Option<PathBuf>, file: Option<File>) -> Self {
        Self {
            name,
            hides: false,
            _file: file,
        }
    }
}

fn freezing(writers: Writers, mounts: bool, hide: bool, own: u32) -> Freezing {
    match (mounts, hide) {
        (true, true) if writers.others => Freezing::Aside,
        (true, false) if writers.others => Freezing::Descriptor,
        (true, _) if writers.own => Freezing::Over,
        (false, _) if writers.others || (writers.own && own != 0) => Freezing::Descriptor,
        _ => Freezing::Checked,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use approval::action::Limits;

    use super::*;

    /// Whether the file is found to be the text that such a command runs.
    fn is_text(before: &[&str]) -> bool {
        let file = tempfile::NamedTempFile::new().unwrap();
        let argv = before.iter().copied().chain(file.path().to_str());
        let asking = bind::Asking {
            argv: argv.map(|argument| ByteString::new(argument).unwrap()).collect(),
            env: Vec::new(),
            directory: "/".into(),
            stdin: None,
            limits: Limits {
                wall_ms: 1,
                output_bytes: 1,
                memory_bytes: 0,
            },
            hide: None,
        };
        let (command, _) = bind::bind(&asking).unwrap();
        assert_eq!(command.operands.len(), 1);
        operand(&command).is_some()
    }

    #[test]
    fn the_first_file_of_a_shell_is_code_wherever_the_shell_is_named() {
        for before in [
            &["sh"][..],
            &["sh", "-eu"],
            &["env", "-i", "sh"],
            &["timeout", "5", "python3.12", "-u"],
        ] {
            assert!(is_text(before), "{before:?}");
        }
        for before in [&["cat"][..], &["sh", "-c", "cat $0"], &["env", "cat"], &["grep", "sh"]] {
            assert!(!is_text(before), "{before:?}");
        }
    }

    #[test]
    fn what_others_can_change_is_never_opened_again_by_its_path() {
        let others = Writers {
            others: true,
            ..Writers::default()
        };
        for own in [0, 1000] {
            assert_eq!(freezing(others, true, true, own), Freezing::Aside);
            assert_eq!(freezing(others, true, false, own), Freezing::Descriptor);
            assert_eq!(freezing(others, false, false, own), Freezing::Descriptor);
        }
    }

    #[test]
    fn what_only_the_gates_user_can_change_keeps_its_path_where_mounts_can_be_made() {
        let own = Writers {
            own: true,
            ..Writers::default()
        };
        assert_eq!(freezing(own, true, true, 1000), Freezing::Over);
        assert_eq!(freezing(own, false, true, 1000), Freezing::Descriptor);
        assert_eq!(freezing(own, false, true, 0), Freezing::Checked);
        assert_eq!(freezing(Writers::default(), true, true, 1000), Freezing::Checked);
    }
}
