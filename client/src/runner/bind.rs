//! What a command is bound to: everything that it is started with, found and opened when it is asked, and held until it runs.
//!
//! Deliberately not here: making sure at the last moment (`launcher`), whether it may run (`approval::decide`). PROTOCOL.md 8.3, design §6,
//! abuse cases D12 to D17, E13, E15 to E17.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use approval::action::{Bound, Command, Directory, Input, Limits, Mark, OPERANDS, Operand, STDIN_BYTES, Stdin};
use approval::{ByteString, Digest};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::environment::{self, EnvironmentError};
use super::executable::{self, Format, SEARCH, path_of};
use super::writable::Writers;

/// Bytes of one file that an argument names: it is read whole twice, at asking and at running.
const OPERAND_BYTES: u64 = 64 << 20;
/// Bytes of all of them.
const OPERANDS_BYTES: u64 = 256 << 20;
/// Types of file systems whose files are made up while they are read, and hold something else each time: procfs, sysfs, cgroup 1 and 2,
/// debugfs, tracefs, securityfs, binderfs and bpf have no contents that could be bound.
const MADE_UP: &[u64] = &[
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6c6f_6f70,
    0xcafe_4a11,
];

/// Where a command finds its own open files: never those that the gate finds there.
const OWN: &[&[u8]] = &[b"/proc/self/", b"/proc/thread-self/", b"/dev/fd/", b"/dev/std"];

/// What somebody wants to run.
#[derive(Clone, Debug)]
pub struct Asking {
    /// All arguments; the first names the program: an absolute path, or a name in [`SEARCH`].
    pub argv: Vec<ByteString>,
    /// Variables on top of [`super::default_environment`].
    pub env: Vec<(ByteString, ByteString)>,
    /// Where it shall stand: an absolute path.
    pub directory: PathBuf,
    /// What it shall read.
    pub stdin: Option<Vec<u8>>,
    /// Where it is stopped.
    pub limits: Limits,
    /// A folder that no command gets to see: the gate's home. Nothing of a command may lie in it.
    pub hide: Option<PathBuf>,
}

/// Why a command can't be bound, or isn't any more what was bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// No arguments at all.
    #[error("no program to run")]
    NoProgram,
    /// A bare name that is in none of the folders of [`SEARCH`].
    #[error("no program {name} in {SEARCH}")]
    NotFound {
        /// The name, as text.
        name: String,
    },
    /// A path that depends on where the asker stands.
    #[error("{} is a relative path: give an absolute one, or a bare name", path.display())]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// The path leads through a symbolic link: somebody else chooses where it ends.
    #[error("{} leads through a symbolic link", path.display())]
    Symlink {
        /// The path.
        path: PathBuf,
    },
    /// Neither a program of this machine nor a script with an absolute interpreter that is one. The C library would hand it to `/bin/sh`.
    #[error("{} is not a program of this machine, and not a script whose interpreter is one", path.display())]
    Format {
        /// The path.
        path: PathBuf,
    },
    /// Another file is at the path, whatever it holds.
    #[error("{} was replaced since it was asked", path.display())]
    Replaced {
        /// The path.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("{} changed since it was asked: its sha256 is {found}", path.display())]
    Changed {
        /// The path.
        path: PathBuf,
        /// What it holds now.
        found: Digest,
    },
    /// A link on the way to an argument's file leads elsewhere.
    #[error("argument {argument} leads to another file than when it was asked")]
    Redirected {
        /// Its position in argv.
        argument: u32,
    },
    /// Too many files to hold all of them in mind.
    #[error("more than {OPERANDS} arguments name a file: they can't all be bound")]
    Operands,
    /// Too much to read twice.
    #[error("argument {argument} names a file that can't be bound: one may have {} MiB, all of them {} MiB", OPERAND_BYTES >> 20, OPERANDS_BYTES >> 20)]
    Size {
        /// Its position in argv.
        argument: usize,
    },
    /// An open file of some other process: who that is then, nobody knows.
    #[error("argument {argument} names a file through the descriptors of a process: it can't be bound")]
    Passing {
        /// Its position in argv.
        argument: usize,
    },
    /// More standard input than is kept.
    #[error("standard input beyond {} MiB can't be bound", STDIN_BYTES >> 20)]
    Input,
    /// The standard input isn't what was asked.
    #[error("the standard input isn't what was asked")]
    OtherInput,
    /// The command needs what it must not see.
    #[error("{} is in the gate's home, which no command gets to see", path.display())]
    Hidden {
        /// The path.
        path: PathBuf,
    },
    /// A variable that isn't given to a command.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The bytes couldn't be kept.
    #[error("can't keep a copy in memory: {0}")]
    Memory(io::Error),
}

/// The open files of one command. Dropping it closes them; it is used up by running.
///
/// Four at most: what arguments name is opened again at the end, or few requests could use up all descriptors of the gate.
pub struct Held {
    directory: File,
    executable: File,
    interpreter: Option<File>,
    stdin: Option<File>,
}

impl Held {
    /// In the order in which the launcher takes them.
    pub(super) fn files(&self) -> Vec<BorrowedFd<'_>> {
        let always = [self.directory.as_fd(), self.executable.as_fd()];
        let some = [&self.interpreter, &self.stdin].into_iter().flatten().map(AsFd::as_fd);
        always.into_iter().chain(some).collect()
    }
}

/// Makes of what somebody wants exactly what would run, and opens it. Reads and hashes files: not for an async thread.
///
/// # Errors
/// If something isn't there, can't be read, or couldn't be run exactly as approved.
pub fn bind(asking: &Asking) -> Result<(Command, Held), BindError> {
    let program = asking.argv.first().ok_or(BindError::NoProgram)?;
    let env = environment::environment(&asking.env)?;
    if !asking.directory.is_absolute() {
        let path = asking.directory.clone();
        return Err(BindError::Relative { path });
    }
    let folder = executable::canonical(&asking.directory)?;
    let directory = executable::open_directory(&folder)?;
    let path = executable::resolve(OsStr::from_bytes(program.as_bytes()))?;
    let executable = executable::open(&path)?;
    let bound = executable::bound(&path, &executable)?;
    let interpreter = match executable::format(&path, &executable)? {
        Format::Program => None,
        Format::Script(script) => Some(open_interpreter(&path, &script.interpreter)?),
    };
    let (stdin, input) = match &asking.stdin {
        None => (Stdin::None, None),
        Some(bytes) => {
            let input = Input {
                sha256: Digest::of(bytes),
                bytes: bytes.len() as u64,
            };
            (Stdin::Bytes(input), Some(keep(bytes)?))
        }
    };
    let mut command = Command {
        directory: Directory {
            path: executable::bytes(&folder)?,
            inode: executable::inode(&executable::stat(&folder, &directory)?),
        },
        executable: bound,
        interpreter: interpreter.as_ref().map(|(bound, _)| bound.clone()),
        argv: asking.argv.clone(),
        env,
        stdin,
        operands: operands(&asking.argv, &folder)?,
        limits: asking.limits,
        uid: rustix::process::geteuid().as_raw(),
        marks: Vec::new(),
    };
    let held = Held {
        directory,
        executable,
        interpreter: interpreter.map(|(_, file)| file),
        stdin: input,
    };
    command.marks = marks(&command, &held)?;
    if let Some(hide) = &asking.hide {
        check_visible(&command, hide)?;
    }
    Ok((command, held))
}

/// Opens everything again that a command was bound to, after the gate was started anew. Reads and hashes files: not for an async thread.
///
/// # Errors
/// If anything isn't what it was.
pub fn hold(command: &Command, stdin: Option<&[u8]>) -> Result<Held, BindError> {
    let open = |bound: &Bound| {
        let file = executable::open(path_of(&bound.path))?;
        executable::check(bound, &file).map(|()| file)
    };
    let directory = executable::open_directory(path_of(&command.directory.path))?;
    executable::check_inode(&command.directory.path, command.directory.inode, &directory)?;
    let executable = open(&command.executable)?;
    let interpreter = command.interpreter.as_ref().map(open).transpose()?;
    check_operands(command)?;
    let stdin = match (command.stdin, stdin) {
        (Stdin::None, None) => None,
        (Stdin::Bytes(input), Some(bytes))
            if input.bytes == bytes.len() as u64 && input.sha256 == Digest::of(bytes) =>
        {
            Some(keep(bytes)?)
        }
        _ => return Err(BindError::OtherInput),
    };
    Ok(Held {
        directory,
        executable,
        interpreter,
        stdin,
    })
}

/// Makes sure that nothing that a command needs lies where it will see nothing.
pub(super) fn check_visible(command: &Command, hide: &Path) -> Result<(), BindError> {
    let hide = executable::canonical(hide)?;
    let mut needed = vec![&command.directory.path, &command.executable.path];
    needed.extend(command.interpreter.iter().map(|bound| &bound.path));
    needed.extend(command.operands.iter().map(|operand| &operand.file.path));
    match needed.into_iter().map(path_of).find(|path| path.starts_with(&hide)) {
        None => Ok(()),
        Some(path) => Err(BindError::Hidden { path: path.to_owned() }),
    }
}

/// Makes sure that the files that arguments name are the same, hold the same, and are still what the arguments lead to.
pub(super) fn check_operands(command: &Command) -> Result<(), BindError> {
    command
        .operands
        .iter()
        .try_for_each(|operand| open_operand(command, operand).map(drop))
}

/// Opens the file of one argument and makes sure that it is the one that was asked.
pub(super) fn open_operand(command: &Command, operand: &Operand) -> Result<File, BindError> {
    let file = executable::open(path_of(&operand.file.path))?;
    executable::check(&operand.file, &file)?;
    check_argument(command, operand)?;
    Ok(file)
}

/// An argument may be a link: it must still end at the file that was asked.
pub(super) fn check_argument(command: &Command, operand: &Operand) -> Result<(), BindError> {
    let argument = command.argv.get(operand.argument as usize);
    let leads = argument.map(|argument| path_of(&command.directory.path).join(path_of(argument)));
    let there = leads.and_then(|path| executable::canonical(&path).ok());
    if there.as_deref() == Some(path_of(&operand.file.path)) {
        Ok(())
    } else {
        let argument = operand.argument;
        Err(BindError::Redirected { argument })
    }
}

fn open_interpreter(script: &Path, written: &Path) -> Result<(Bound, File), BindError> {
    let refused = || BindError::Format {
        path: script.to_owned(),
    };
    let path = executable::resolve(written.as_os_str()).map_err(|_| refused())?;
    let file = executable::open(&path)?;
    match executable::format(&path, &file)? {
        Format::Program => Ok((executable::bound(&path, &file)?, file)),
        // The kernel goes on from script to script; nobody needs that.
        Format::Script(_) => Err(refused()),
    }
}

fn operands(argv: &[ByteString], directory: &Path) -> Result<Vec<Operand>, BindError> {
    let mut operands = Vec::new();
    let mut left = OPERANDS_BYTES;
    for (argument, name) in argv.iter().enumerate().skip(1) {
        let Some((path, file)) = named(directory, name) else {
            continue;
        };
        if executable::is_magic(&directory.join(path_of(name))) {
            if OWN.iter().any(|own| name.as_bytes().starts_with(own)) {
                continue;
            }
            return Err(BindError::Passing { argument });
        }
        if operands.len() == OPERANDS {
            return Err(BindError::Operands);
        }
        let size = executable::stat(&path, &file)?.st_size.unsigned_abs();
        left = match left.checked_sub(size) {
            Some(left) if size <= OPERAND_BYTES => left,
            _ => return Err(BindError::Size { argument }),
        };
        operands.push(Operand {
            argument: u32::try_from(argument).map_err(|_| BindError::Operands)?,
            file: executable::bound(&path, &file)?,
        });
    }
    Ok(operands)
}

/// The regular file that an argument names, if it names one that can be read.
fn named(directory: &Path, argument: &ByteString) -> Option<(PathBuf, File)> {
    if argument.is_empty() {
        return None;
    }
    let path = executable::canonical(&directory.join(path_of(argument))).ok()?;
    // Looked at before it is opened: a device may act on being opened.
    let there = executable::look(&path).ok()?;
    let made_up = |file: &File| {
        #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)] // The field's type differs between machines.
        rustix::fs::fstatfs(file).is_ok_and(|system| MADE_UP.contains(&(system.f_type as u64)))
    };
    if !executable::is_regular(&executable::stat(&path, &there).ok()?) || made_up(&there) {
        return None;
    }
    let file = executable::open(&path).ok()?;
    Some((path, file))
}

/// What the gate sees about it, sorted.
fn marks(command: &Command, held: &Held) -> Result<Vec<Mark>, BindError> {
    let programs = [
        Some((&command.executable, &held.executable)),
        command.interpreter.as_ref().zip(held.interpreter.as_ref()),
    ];
    let (mut setuid, mut writable) = (false, false);
    for (bound, file) in programs.into_iter().flatten() {
        let path = path_of(&bound.path);
        setuid |= is_setuid(path, file)?;
        let writers = Writers::of(path, command.uid).map_err(|source| BindError::Io {
            path: path.to_owned(),
            source,
        })?;
        writable |= writers.marked(command.uid);
    }
    let printable = |argument: &ByteString| argument.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte));
    let (runner, shell) = kind(command);
    let all = [
        (Mark::Odd, !command.argv.iter().all(printable)),
        (Mark::Runner, runner),
        (Mark::Setuid, setuid),
        (Mark::Shell, shell),
        (Mark::Writable, writable),
    ];
    let mut marks: Vec<_> = all.into_iter().filter_map(|(mark, has)| has.then_some(mark)).collect();
    marks.sort_unstable();
    Ok(marks)
}

fn is_setuid(path: &Path, file: &File) -> Result<bool, BindError> {
    let mode = rustix::fs::Mode::from_raw_mode(executable::stat(path, file)?.st_mode);
    if mode.intersects(rustix::fs::Mode::SUID | rustix::fs::Mode::SGID) {
        return Ok(true);
    }
    let mut capabilities = [0_u8; 64];
    match rustix::fs::fgetxattr(file, c"security.capability", &mut capabilities[..]) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(_) => Ok(false),
    }
}

/// Keeps these bytes where nobody can change them, not even this process.
fn keep(bytes: &[u8]) -> Result<File, BindError> {
    if bytes.len() as u64 > STDIN_BYTES {
        return Err(BindError::Input);
    }
    let file = memory(MemfdFlags::CLOEXEC).map_err(BindError::Memory)?;
    file.write_all_at(bytes, 0).map_err(BindError::Memory)?;
    seal(&file).map_err(BindError::Memory)?;
    Ok(file)
}

/// A file that is nowhere but in memory, and can be sealed.
pub(super) fn memory(flags: MemfdFlags) -> io::Result<File> {
    let flags = flags | MemfdFlags::ALLOW_SEALING;
    match rustix::fs::memfd_create(c"approved", flags) {
        // Before Linux 6.3 nobody had to say whether it shall be run.
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"approved", flags - MemfdFlags::EXEC - MemfdFlags::NOEXEC_SEAL),
        made => made,
    }
    .map(File::from)
    .map_err(io::Error::from)
}

/// From here on its bytes stay as they are.
pub(super) fn seal(file: &File) -> io::Result<()> {
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(file, all).map_err(io::Error::from)
}

/// Whether its program can run others, and whether it is a shell (PROTOCOL.md 16.5).
fn kind(command: &Command) -> (bool, bool) {
    let interpreter = command.interpreter.as_ref().map(|bound| bound.path.as_bytes());
    let name = command.argv.first().map_or(&b""[..], ByteString::as_bytes);
    approval::policy::marks_of_program(command.executable.path.as_bytes(), interpreter, name)
}
