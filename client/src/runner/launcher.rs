//! The short-lived process between the gate and a command: this same program, started as `countersign __launch`. It takes away
//! what a command must not have, makes sure one last time that everything is what was approved, and becomes the command.
//!
//! Deliberately not here: waiting for the command, limits of time and output (`runner`). It exists because setting these things between fork
//! and exec needs `unsafe`, and in a process of one's own doesn't. PROTOCOL.md 8.3, abuse cases D12 to D17, E23 and E24.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use approval::action::{self, Bound, Operand};
use approval::{ByteString, Digest};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use super::bind::{self, BindError};
use super::cgroup::Group;
use super::code::{self, Code, Frozen};
use super::confinement::{Confinement, enter_landlock};
use super::executable::{self, Format, path_of};
use super::writable::Writers;
use super::{descriptors, mounts};

/// The subcommand under which `main` calls [`launch_main`].
pub const LAUNCH: &str = "__launch";

/// On the socket: everything is ready and the next thing is `exec`. If nothing follows, it worked.
pub(super) const READY: u8 = b'+';
/// On the socket: the command wasn't started; the reason follows.
pub(super) const FAILED: u8 = b'-';
/// On the socket, as an answer to a probe: mounts can be made.
pub(super) const MOUNTS: u8 = b'm';
/// The same: a Landlock domain can be entered.
pub(super) const LANDLOCK: u8 = b'l';

/// A request is at most a statement (PROTOCOL.md 14), and a command a part of it: the rest is room.
const ORDER_BYTES: u64 = 1024 * 1024;

/// Which program is started as the launcher, and what it does to a command.
#[derive(Clone, Debug)]
pub struct Launcher {
    path: PathBuf,
    hide: Option<PathBuf>,
    confinement: Confinement,
}

impl Launcher {
    /// The program that runs now, even if its file was replaced or removed meanwhile.
    pub fn current() -> Self {
        Self::at("/proc/self/exe")
    }

    /// The `countersign` program at this path: for those who aren't `countersign` themselves.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            hide: None,
            confinement: Confinement::default(),
        }
    }

    /// No command gets to see this folder, the gate's home, where mounts can be made; and nothing of a command may lie in it anywhere.
    #[must_use]
    pub fn hiding(self, folder: impl Into<PathBuf>) -> Self {
        Self {
            hide: Some(folder.into()),
            ..self
        }
    }

    /// Every command is held in by all of this, or it isn't started.
    #[must_use]
    pub fn confined(self, confinement: Confinement) -> Self {
        Self { confinement, ..self }
    }

    /// What holds every command in.
    pub fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    pub(super) fn hidden(&self) -> Option<&Path> {
        self.hide.as_deref()
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        // Empty: what the launcher needs comes over its socket, and nothing in an environment may steer it.
        command.arg0("countersign").arg(LAUNCH).env_clear();
        command
    }
}

/// What the gate tells the launcher. Over a socket rather than as arguments, because every user of the machine sees arguments, and the
/// environment may hold secrets.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    gate: u32,
    /// Nothing to run means: try what can be done.
    command: Option<action::Command>,
    hide: Option<ByteString>,
    mounts: bool,
    landlock: bool,
    /// Where to enter the control group.
    cgroup: Option<ByteString>,
}

impl Order {
    pub(super) fn probe(launcher: &Launcher) -> Self {
        Self {
            gate: std::process::id(),
            command: None,
            hide: launcher.hide.as_deref().and_then(canonical),
            mounts: true,
            landlock: true,
            cgroup: None,
        }
    }

    pub(super) fn new(launcher: &Launcher, command: &action::Command, group: Option<&Group>) -> Self {
        Self {
            gate: std::process::id(),
            command: Some(command.clone()),
            hide: launcher.hide.as_deref().and_then(canonical),
            mounts: launcher.confinement.mounts,
            landlock: launcher.confinement.landlock,
            cgroup: group.and_then(|group| executable::bytes(&group.entrance()).ok()),
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        // Nothing in it can fail to be written: every map has names for keys. An empty order is refused.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn hide(&self) -> Option<&Path> {
        self.hide.as_ref().map(path_of)
    }
}

fn canonical(path: &Path) -> Option<ByteString> {
    executable::canonical(path)
        .and_then(|path| executable::bytes(&path))
        .ok()
}

#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("no order on standard input: this is not for calling by hand")]
    Order,
    #[error("the gate ended before the command started")]
    Orphan,
    #[error("the files that came aren't those of the command")]
    Files,
    #[error("the permit says that it runs in a Landlock domain, and it can't")]
    Landlock,
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("{what}: {source}")]
    Prepare { what: &'static str, source: io::Error },
    #[error("exec: {0}")]
    Exec(io::Error),
}

/// The whole of `countersign __launch`. Returns only if the command could not be started; the gate has been told why.
pub fn launch_main() -> ExitCode {
    // A second descriptor for what is now standard input, because the command gets its own there. Closed by `exec`: that is how
    // the gate learns that it worked.
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else {
        return ExitCode::FAILURE;
    };
    let mut socket = UnixStream::from(socket);
    let Err(error) = launch(&mut socket);
    let mut report = vec![FAILED];
    report.extend_from_slice(error.to_string().as_bytes());
    // If the gate is gone there is nobody to tell.
    let _ = socket.write_all(&report);
    ExitCode::FAILURE
}

fn launch(socket: &mut UnixStream) -> Result<Infallible, LaunchError> {
    close_inherited(socket.as_raw_fd()).map_err(failed("close inherited files"))?;
    let files = descriptors::receive(socket).map_err(|_| LaunchError::Order)?;
    let mut bytes = Vec::new();
    socket
        .take(ORDER_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|_| LaunchError::Order)?;
    // All of it or nothing: one cut short must not run with fewer arguments.
    let order: Order = serde_json::from_slice(&bytes).map_err(|_| LaunchError::Order)?;
    let Some(command) = &order.command else {
        return probe(socket, &order);
    };
    confine(order.gate)?;
    if let Some(entrance) = &order.cgroup {
        fs::write(path_of(entrance), "0").map_err(failed("enter the control group"))?;
    }
    let files = Files::of(command, files)?;
    take_stdin(command, files.stdin.as_ref())?;
    // By descriptor, and before there are other mounts: it comes along to those.
    executable::check_inode(&command.directory.path, command.directory.inode, &files.directory)?;
    rustix::process::fchdir(&files.directory).map_err(errno("enter the working directory"))?;
    let mut start = look(command, files)?;
    // Where others could move the home away, what is mounted over it would be no safe place for a text.
    let aside = order
        .hide()
        .filter(|hide| Writers::of(hide, command.uid).is_ok_and(|writers| !writers.others));
    if order.mounts {
        mounts::enter().map_err(failed("make mounts of its own"))?;
        // Another user namespace may have taken it away.
        die_with(order.gate)?;
    }
    let _frozen = settle(command, &mut start, &order, aside)?;
    if order.landlock && !enter_landlock() {
        return Err(LaunchError::Landlock);
    }
    let mut process = Command::new(format!("/proc/self/fd/{}", start.program.as_raw_fd()));
    if let Some((name, rest)) = start.argv.split_first() {
        process.arg0(name).args(rest);
    }
    let variables = command.env.iter().map(|(name, value)| (os(name), os(value)));
    process.env_clear().envs(variables);
    if order.cgroup.is_none() && command.limits.memory_bytes > 0 {
        limit(Resource::As, command.limits.memory_bytes, "limit its memory")?;
    }
    socket.write_all(&[READY]).map_err(|_| LaunchError::Orphan)?;
    Err(LaunchError::Exec(process.exec()))
}

/// Tries what a command can be held in by, and says what worked.
fn probe(socket: &mut UnixStream, order: &Order) -> Result<Infallible, LaunchError> {
    if order.mounts && try_mounts(order).is_ok() {
        socket.write_all(&[MOUNTS]).map_err(|_| LaunchError::Orphan)?;
    }
    // Last: in a Landlock domain nothing can be mounted.
    if order.landlock && enter_landlock() {
        socket.write_all(&[LANDLOCK]).map_err(|_| LaunchError::Orphan)?;
    }
    Err(LaunchError::Order)
}

fn try_mounts(order: &Order) -> io::Result<()> {
    mounts::enter()?;
    let own = executable::canonical(Path::new("/proc/self/exe")).map_err(io::Error::other)?;
    let target = executable::look(&own).map_err(io::Error::other)?;
    mounts::over(&target, &bind::memory(MemfdFlags::NOEXEC_SEAL)?)?;
    order.hide().map_or(Ok(()), mounts::hide)
}

/// What came with the order.
struct Files {
    directory: File,
    executable: File,
    interpreter: Option<File>,
    stdin: Option<File>,
}

impl Files {
    fn of(command: &action::Command, files: Vec<File>) -> Result<Self, LaunchError> {
        let mut files = files.into_iter();
        let mut next = || files.next().ok_or(LaunchError::Files);
        let came = Self {
            directory: next()?,
            executable: next()?,
            interpreter: command.interpreter.is_some().then(&mut next).transpose()?,
            stdin: (command.stdin != action::Stdin::None).then(&mut next).transpose()?,
        };
        if next().is_ok() {
            Err(LaunchError::Files)
        } else {
            Ok(came)
        }
    }
}

/// What the kernel starts, made sure of; and the text that it reads, if it is an interpreter.
struct Start<'a> {
    program: File,
    argv: Vec<OsString>,
    text: Option<Text<'a>>,
}

/// A text and where its path stands in argv.
struct Text<'a> {
    code: Code<'a>,
    position: usize,
    argument: Option<&'a Operand>,
}

/// Makes sure of the program, and finds the text. Before there are other users: who could change them is asked here.
fn look<'a>(command: &'a action::Command, files: Files) -> Result<Start<'a>, LaunchError> {
    let path = path_of(&command.executable.path);
    executable::check_inode(&command.executable.path, command.executable.inode, &files.executable)?;
    let mut argv: Vec<OsString> = command.argv.iter().map(|argument| os(argument).to_owned()).collect();
    match (
        executable::format(path, &files.executable)?,
        &command.interpreter,
        files.interpreter,
    ) {
        (Format::Program, None, None) => {
            let text = code::operand(command).map(|operand| -> Result<_, BindError> {
                let file = executable::open(path_of(&operand.file.path))?;
                Ok(Text {
                    code: Code::find(&operand.file, &file, command.uid)?,
                    position: operand.argument as usize,
                    argument: Some(operand),
                })
            });
            Ok(Start {
                program: program(&command.executable, &files.executable, command.uid)?,
                argv,
                text: text.transpose()?,
            })
        }
        (Format::Script(_), Some(interpreter), Some(file)) => {
            let code = Code::find(&command.executable, &files.executable, command.uid)?;
            // Read once more: only now these bytes are sure to be the approved ones.
            let Format::Script(script) = code.format()? else {
                return Err(BindError::Format { path: path.to_owned() }.into());
            };
            if executable::canonical(&script.interpreter)? != path_of(&interpreter.path) {
                let path = script.interpreter;
                return Err(BindError::Replaced { path }.into());
            }
            // As the kernel would, which takes no interpreter by descriptor.
            let started = [Some(script.interpreter.into()), script.argument, Some(path.into())];
            let started: Vec<OsString> = started.into_iter().flatten().collect();
            let position = started.len() - 1;
            argv.splice(..1, started);
            Ok(Start {
                program: program(interpreter, &file, command.uid)?,
                argv,
                text: Some(Text {
                    code,
                    position,
                    argument: None,
                }),
            })
        }
        _ => Err(BindError::Format { path: path.to_owned() }.into()),
    }
}

/// Makes sure of everything else, and freezes the text, in the mounts that the command will have.
fn settle(
    command: &action::Command,
    start: &mut Start<'_>,
    order: &Order,
    aside: Option<&Path>,
) -> Result<Option<Frozen>, LaunchError> {
    let argument = start.text.as_ref().and_then(|text| text.argument);
    for operand in command.operands.iter().filter(|operand| Some(*operand) != argument) {
        bind::open_operand(command, operand)?;
        executable::check_path(&operand.file.path, operand.file.inode)?;
    }
    if let Some(argument) = argument {
        bind::check_argument(command, argument)?;
    }
    for program in [Some(&command.executable), command.interpreter.as_ref()]
        .into_iter()
        .flatten()
    {
        executable::check_path(&program.path, program.inode)?;
    }
    executable::check_path(&command.directory.path, command.directory.inode)?;
    let frozen = match start.text.take() {
        None => None,
        Some(text) => {
            let frozen = text.code.freeze(order.mounts, aside)?;
            if let (Some(name), Some(argument)) = (&frozen.name, start.argv.get_mut(text.position)) {
                *argument = name.clone().into_os_string();
            }
            Some(frozen)
        }
    };
    if let (true, false, Some(hide)) = (
        order.mounts,
        frozen.as_ref().is_some_and(|text| text.hides),
        order.hide(),
    ) {
        mounts::hide(hide).map_err(failed("hide the gate's home"))?;
    }
    Ok(frozen)
}

/// A program whose bytes are the approved ones and stay so: the file itself, or a sealed copy where somebody but root could still write to it.
fn program(bound: &Bound, file: &File, own: u32) -> Result<File, LaunchError> {
    let path = path_of(&bound.path);
    executable::check_inode(&bound.path, bound.inode, file)?;
    let stat = executable::stat(path, file)?;
    let (digest, program) = if Writers::of_one(stat.st_mode, stat.st_uid, own).marked(own) {
        let copy = bind::memory(MemfdFlags::CLOEXEC | MemfdFlags::EXEC).map_err(BindError::Memory)?;
        let digest = executable::copy(file, |piece| (&mut &copy).write_all(piece)).map_err(BindError::Memory)?;
        bind::seal(&copy).map_err(BindError::Memory)?;
        // What can be written to isn't started: another descriptor, for reading.
        (digest, reopen(&copy)?)
    } else {
        let digest = executable::copy(file, |_| Ok(())).map_err(BindError::Memory)?;
        (digest, file.try_clone().map_err(failed("keep the program open"))?)
    };
    executable::check_bytes(bound, digest)?;
    Ok(program)
}

/// Standard input: nothing, or the bytes that were approved, from their beginning.
fn take_stdin(command: &action::Command, kept: Option<&File>) -> Result<(), LaunchError> {
    let file = match (command.stdin, kept) {
        (action::Stdin::None, None) => File::open("/dev/null").map_err(failed("open /dev/null"))?,
        (action::Stdin::Bytes(input), Some(kept)) => {
            let seals = rustix::fs::fcntl_get_seals(kept).map_err(errno("look at standard input"))?;
            let digest: Digest = executable::copy(kept, |_| Ok(())).map_err(failed("read standard input"))?;
            if digest != input.sha256 || !seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW) {
                return Err(BindError::OtherInput.into());
            }
            reopen(kept)?
        }
        _ => return Err(LaunchError::Files),
    };
    rustix::stdio::dup2_stdin(&file).map_err(errno("standard input"))
}

fn reopen(file: &File) -> Result<File, LaunchError> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .map(File::from)
        .map_err(errno("open a copy in memory"))
}

/// Takes away the terminal, new privileges, core dumps (they would hold secrets of the environment) and life without the gate.
fn confine(gate: u32) -> Result<(), LaunchError> {
    die_with(gate)?;
    rustix::process::setsid().map_err(errno("new session"))?;
    // Kept across exec: what the command leaves behind stays below it, to be ended with it (`strays`).
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(errno("reaper"))?;
    rustix::thread::set_no_new_privs(true).map_err(errno("no new privileges"))?;
    limit(Resource::Core, 0, "no core dumps")
}

/// Dies with the gate.
fn die_with(gate: u32) -> Result<(), LaunchError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(errno("death signal"))?;
    // The gate may have died just before: then no signal comes any more, but the parent is another.
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
    if parent == Some(gate) {
        Ok(())
    } else {
        Err(LaunchError::Orphan)
    }
}

fn limit(resource: Resource, most: u64, what: &'static str) -> Result<(), LaunchError> {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    rustix::process::setrlimit(resource, limit).map_err(errno(what))
}

fn os(bytes: &ByteString) -> &OsStr {
    OsStr::from_bytes(bytes.as_bytes())
}

fn errno(what: &'static str) -> impl Fn(Errno) -> LaunchError {
    move |errno| failed(what)(errno.into())
}

/// Closes what whoever started the gate left open: a descriptor to a secret or a socket would be the command's too.
fn close_inherited(keep: RawFd) -> io::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        open.extend(number.filter(|number| *number > 2 && *number != keep));
    }
    for number in open {
        // The folder just read was among them and is closed already: that error is expected.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> LaunchError {
    move |source| LaunchError::Prepare { what, source }
}
