//! The short-lived process between the gate and a command: this same program, started as `countersign __launch`. It takes away
//! what a command must not have, checks the program one last time, and becomes it.
//!
//! Deliberately not here: waiting for the command, limits, output (`runner`). It exists because setting these things between fork
//! and exec needs `unsafe`, and in a process of one's own doesn't. PROTOCOL.md 8.3, abuse cases E23 and E24.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use approval::{Digest, action};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal};

use super::executable::{ExecutableError, Format, open_approved, open_directory};

/// The subcommand under which `main` calls [`launch_main`].
pub const LAUNCH: &str = "__launch";

/// On the socket: everything is ready and the next thing is `exec`. If nothing follows, it worked.
pub(super) const READY: u8 = b'+';
/// On the socket: the command wasn't started; the reason follows.
pub(super) const FAILED: u8 = b'-';

/// Argv and environment are at most 32 KiB (PROTOCOL.md 14), paths at most 4 KiB each: the rest is room.
const ORDER_BYTES: u64 = 128 * 1024;

/// Which program is started as the launcher.
#[derive(Clone, Debug)]
pub struct Launcher {
    path: PathBuf,
}

impl Launcher {
    /// The program that runs now, even if its file was replaced or removed meanwhile.
    pub fn current() -> Self {
        Self::at("/proc/self/exe")
    }

    /// The `countersign` program at this path: for those who aren't `countersign` themselves.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        // Empty: what the launcher needs comes over its socket, and nothing in an environment may steer it.
        command.arg0("countersign").arg(LAUNCH).env_clear();
        command
    }
}

/// What the gate tells the launcher: fields that end in a zero byte, which none of them can hold. Over a socket rather than as arguments,
/// because every user of the machine sees arguments, and the environment may hold secrets.
pub(super) fn order(gate: u32, command: &action::Command) -> Vec<u8> {
    let mut order = Vec::new();
    let mut field = |bytes: &[u8]| {
        order.extend_from_slice(bytes);
        order.push(0);
    };
    field(gate.to_string().as_bytes());
    field(command.executable.path.as_bytes());
    field(command.executable.sha256.to_string().as_bytes());
    field(command.directory.as_bytes());
    field(command.argv.len().to_string().as_bytes());
    command.argv.iter().for_each(|argument| field(argument.as_bytes()));
    for (name, value) in &command.env {
        field(name.as_bytes());
        field(value.as_bytes());
    }
    order
}

struct Order<'a> {
    gate: i32,
    path: &'a Path,
    sha256: Digest,
    directory: &'a Path,
    argv: Vec<&'a OsStr>,
    env: Vec<(&'a OsStr, &'a OsStr)>,
}

impl<'a> Order<'a> {
    /// `None` for anything but a whole order: one cut short must not run with fewer arguments.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = bytes
            .strip_suffix(&[0])?
            .split(|byte| *byte == 0)
            .map(OsStr::from_bytes);
        let gate = fields.next()?.to_str()?.parse().ok()?;
        let path = Path::new(fields.next()?);
        let sha256 = fields.next()?.to_str()?.parse().ok()?;
        let directory = Path::new(fields.next()?);
        let count: usize = fields.next()?.to_str()?.parse().ok()?;
        let argv: Vec<_> = fields.by_ref().take(count).collect();
        let mut env = Vec::new();
        while let Some(name) = fields.next() {
            env.push((name, fields.next()?));
        }
        (argv.len() == count && count > 0).then_some(Self {
            gate,
            path,
            sha256,
            directory,
            argv,
            env,
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("no order on standard input: this is not for calling by hand")]
    Order,
    #[error("the gate ended before the command started")]
    Orphan,
    #[error(transparent)]
    Executable(#[from] ExecutableError),
    #[error("{what}: {source}")]
    Prepare { what: &'static str, source: io::Error },
    #[error("exec: {0}")]
    Exec(io::Error),
}

/// The whole of `countersign __launch`. Returns only if the command could not be started; the gate has been told why.
pub fn launch_main() -> ExitCode {
    // A second descriptor for what is now standard input, because the command gets /dev/null there. Closed by `exec`: that is how
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
    let mut bytes = Vec::new();
    socket
        .take(ORDER_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|_| LaunchError::Order)?;
    let order = Order::read(&bytes).ok_or(LaunchError::Order)?;
    confine(order.gate)?;

    let nothing = File::open("/dev/null").map_err(failed("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|errno| failed("stdin")(errno.into()))?;
    let directory = open_directory(order.directory)?;
    rustix::process::fchdir(&directory).map_err(|errno| failed("enter the working directory")(errno.into()))?;
    // Last, so that as little as possible happens between this check and the start.
    let (file, format) = open_approved(order.path, order.sha256)?;
    let program = match format {
        // By descriptor: the very file that was hashed, whatever its path names by now.
        Format::Program => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
        // A script is opened again by its interpreter and knows itself by its path. Who can write there has that moment.
        Format::Script => order.path.to_owned(),
    };
    let mut command = Command::new(program);
    if let Some((name, rest)) = order.argv.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().envs(order.env.iter().copied());
    socket.write_all(&[READY]).map_err(|_| LaunchError::Orphan)?;
    Err(LaunchError::Exec(command.exec()))
}

/// Takes away the terminal, new privileges, core dumps (they would hold secrets of the environment) and life without the gate.
fn confine(gate: i32) -> Result<(), LaunchError> {
    let errno = |what| move |errno: Errno| failed(what)(errno.into());
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(errno("death signal"))?;
    // The gate may have died just before: then no signal comes any more, but the parent is another.
    if rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(gate) {
        return Err(LaunchError::Orphan);
    }
    rustix::process::setsid().map_err(errno("new session"))?;
    // Kept across exec: what the command leaves behind stays below it, to be ended with it (`strays`).
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(errno("reaper"))?;
    rustix::thread::set_no_new_privs(true).map_err(errno("no new privileges"))?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none).map_err(errno("no core dumps"))
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
