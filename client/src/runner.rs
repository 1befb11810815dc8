//! Binds a command to what it would run, runs it once when that is approved, and says how it ended: exactly the program, argv, environment,
//! folder and input that were approved, within its limits.
//!
//! Deliberately not here: whether it may run (`approval::decide`, of which a [`Permit`] is the proof), recording the permit before and the
//! outcome after (`gate`). PROTOCOL.md 8.3, 8.5 and 8.6, abuse cases D03, D12 to D17, E08, E23, E24, I13, I14.

mod bind;
mod cgroup;
mod child;
mod code;
mod confinement;
mod descriptors;
mod environment;
mod executable;
mod launcher;
mod mounts;
mod strays;
mod writable;

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use approval::action::{Action, Command};
use approval::decide::Permit;
use approval::outcome::{Ended, Exit, Failed, Nothing, Ran, Stopped, Stream};
use approval::request::Request;
use approval::scalar::Text;
use approval::{Digest, Verified};
use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};

pub use bind::{Asking, BindError, Held, bind, hold};
pub use confinement::Confinement;
pub use environment::{EnvironmentError, default_environment, environment};
pub use executable::SEARCH;
pub use launcher::{LAUNCH, Launcher, launch_main};

use cgroup::Group;
use child::Child;
use launcher::Order;

/// How long starting may take: reading and hashing the program, from a slow disk too.
const LAUNCH_DEADLINE: Duration = Duration::from_secs(60);
/// How long the pipes are read after the command and its process group are dead: only a process that escaped the group still holds them.
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);
/// How long whoever asked may take to accept the last of the output; the outcome must not wait for a paused terminal.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(10);
/// What is read from a pipe at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// What is read of the end of a stream, per stream: more than any pipe holds.
const TAIL_BYTES: u64 = 4 * 1024 * 1024;
/// What the launcher says at most: a ready byte and one sentence.
const REPORT_BYTES: u64 = 8 * 1024;

/// A piece of what the command wrote, in the order of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Standard output.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
}

/// Runs the command of `request`, which `permit` allows once, with the files that were held for it, and waits for its end.
///
/// Everything that the request binds is made sure of once more, in the process that becomes the command.
///
/// What it writes goes to `output` up to the limit; if nobody receives it any more, it is hashed all the same. When `stop` is ready (whoever asked
/// went away) the command is killed; pass [`std::future::pending`] for never. When the returned future is dropped, the command is killed too.
///
/// The permit must be on the disk before this is called: a crash in here is then `unknown`, never a second run.
pub async fn run(
    launcher: &Launcher,
    permit: Permit,
    request: &Verified<Request>,
    held: Held,
    output: mpsc::Sender<Chunk>,
    stop: impl Future<Output = ()>,
) -> Ended {
    // The permit ends here, whatever happens next.
    let permitted = permit.request();
    drop(permit);
    let command = match &request.action {
        Action::Command(command) if permitted == request.digest() => command,
        Action::Command(_) => return unstarted("the permit is for another request"),
        Action::Roster(_) | Action::Tool(_) | Action::Secret(_) => return unstarted("the gate runs commands only"),
    };
    match start(launcher, command, held, pin!(stop)).await {
        Ok((running, stop)) => running.watch(command, output, stop).await,
        Err(error) => unstarted(&error.to_string()),
    }
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("approved for uid {approved}, but this gate runs as uid {own}")]
    User { approved: u32, own: u32 },
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("control group: {0}")]
    Group(io::Error),
    #[error("{0}")]
    Launcher(String),
    #[error("the launcher ended without a word")]
    Silent,
    #[error("starting took longer than {} s", LAUNCH_DEADLINE.as_secs())]
    Slow,
    #[error("whoever asked went away before it started")]
    AskerLeft,
    #[error("the launcher can't be started: {0}")]
    Io(#[from] io::Error),
}

struct Running {
    child: Child,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

async fn start<S: Future<Output = ()> + Unpin>(
    launcher: &Launcher,
    command: &Command,
    held: Held,
    mut stop: S,
) -> Result<(Running, S), StartError> {
    let own = rustix::process::geteuid().as_raw();
    if command.uid != own {
        return Err(StartError::User {
            approved: command.uid,
            own,
        });
    }
    environment::check(&command.env)?;
    if let Some(hide) = launcher.hidden() {
        bind::check_visible(command, hide)?;
    }
    let group = launcher
        .confinement()
        .cgroup
        .as_deref()
        .map(|parent| Group::create(parent, command.limits.memory_bytes))
        .transpose()
        .map_err(StartError::Group)?;
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    descriptors::send(&ours, &held.files())?;
    // They are on their way; and what lies in the socket goes with it.
    drop(held);
    ours.set_nonblocking(true)?;
    let mut socket = UnixStream::from_std(ours)?;
    let ((stdout, stdout_theirs), (stderr, stderr_theirs)) = (io::pipe()?, io::pipe()?);
    let mut process = launcher.command();
    process
        .stdin(std::os::fd::OwnedFd::from(theirs))
        .stdout(stdout_theirs)
        .stderr(stderr_theirs);
    let order = Order::new(launcher, command, group.as_ref()).bytes();
    let child = Child::spawn(process, group).await?;
    let running = Running {
        child,
        stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
        stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
    };
    // From here on every return kills the launcher, by dropping `running`.
    let told = async {
        // A launcher that fails early reads no further; what it says then is the reason, not our broken pipe.
        let _ = socket.write_all(&order).await;
        let _ = socket.shutdown().await;
        let mut report = Vec::new();
        socket.take(REPORT_BYTES).read_to_end(&mut report).await.map(|_| report)
    };
    let report = tokio::select! {
        biased;
        () = &mut stop => return Err(StartError::AskerLeft),
        report = timeout(LAUNCH_DEADLINE, told) => report.map_err(|_| StartError::Slow)??,
    };
    let report = report
        .strip_prefix(&[launcher::READY])
        .map_or((false, report.as_slice()), |rest| (true, rest));
    match report {
        (true, []) => Ok((running, stop)),
        (_, [launcher::FAILED, reason @ ..]) => Err(StartError::Launcher(String::from_utf8_lossy(reason).into_owned())),
        _ => Err(StartError::Silent),
    }
}

impl Running {
    async fn watch(
        self,
        command: &Command,
        output: mpsc::Sender<Chunk>,
        mut stop: impl Future<Output = ()> + Unpin,
    ) -> Ended {
        let Self {
            mut child,
            mut stdout,
            mut stderr,
        } = self;
        let began = Instant::now();
        let budget = Budget::new(command.limits.output_bytes);
        let (mut out, mut err) = (Tally::default(), Tally::default());
        let mut stopped = None;
        let status = {
            let mut wall = pin!(sleep(Duration::from_millis(command.limits.wall_ms)));
            let mut streams = pin!(async {
                tokio::join!(
                    follow(&mut stdout, &mut out, &budget, &output, Chunk::Stdout),
                    follow(&mut stderr, &mut err, &budget, &output, Chunk::Stderr),
                )
            });
            let mut open = true;
            loop {
                let reason = tokio::select! {
                    biased;
                    status = child.ended() => break status,
                    () = budget.exceeded.notified(), if stopped.is_none() => Stopped::OutputLimit,
                    () = &mut wall, if stopped.is_none() => Stopped::WallLimit,
                    () = &mut stop, if stopped.is_none() => Stopped::AskerLeft,
                    _ = &mut streams, if open => {
                        open = false;
                        continue;
                    }
                };
                stopped = Some(reason);
                child.kill();
            }
        };
        let wall = began.elapsed();
        let tail_out = tail(&mut stdout, &mut out, &budget, Chunk::Stdout);
        let tail_err = tail(&mut stderr, &mut err, &budget, Chunk::Stderr);
        let (tail_out, tail_err) = tokio::join!(tail_out, tail_err);
        // A command that ended by itself right after writing too much had its output cut as well.
        if budget.is_exceeded() && stopped.is_none() {
            stopped = Some(Stopped::OutputLimit);
        }
        // An asker who left wants nothing more, and a future that said so may not be asked again.
        if stopped != Some(Stopped::AskerLeft) {
            deliver(&output, tail_out.into_iter().chain(tail_err), stop).await;
        }
        let Some(exit) = status.and_then(exit) else {
            return Ended::Unknown(Nothing {});
        };
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        Ended::Ran(Ran {
            exit,
            stdout: out.stream(),
            stderr: err.stream(),
            wall_ms,
            stopped,
        })
    }
}

fn exit(status: std::process::ExitStatus) -> Option<Exit> {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .map(Exit::Code)
        .or_else(|| status.signal().map(Exit::Signal))
}

fn unstarted(error: &str) -> Ended {
    Ended::Failed(Failed {
        error: Text::cut(error),
    })
}

/// What may still be shown of both streams together.
struct Budget {
    left: AtomicU64,
    over: std::sync::atomic::AtomicBool,
    exceeded: Notify,
}

impl Budget {
    fn new(bytes: u64) -> Self {
        Self {
            left: AtomicU64::new(bytes),
            over: false.into(),
            exceeded: Notify::new(),
        }
    }

    /// How many of so many bytes still fit. Both streams are read by one task: nobody else changes it in between.
    fn take(&self, wanted: usize) -> usize {
        let left = self.left.load(Ordering::Relaxed);
        let granted = left.min(wanted as u64);
        self.left.store(left - granted, Ordering::Relaxed);
        if granted < wanted as u64 {
            self.over.store(true, Ordering::Relaxed);
            self.exceeded.notify_one();
        }
        usize::try_from(granted).unwrap_or(wanted)
    }

    fn is_exceeded(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Length and hash of all that was written, shown or not.
#[derive(Default)]
struct Tally {
    hasher: Sha256,
    bytes: u64,
}

impl Tally {
    /// Counts the bytes and gives back what may be shown of them.
    fn count(&mut self, mut bytes: BytesMut, budget: &Budget) -> Option<Bytes> {
        self.hasher.update(&bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        bytes.truncate(budget.take(bytes.len()));
        (!bytes.is_empty()).then(|| bytes.freeze())
    }

    fn stream(self) -> Stream {
        Stream {
            sha256: Digest(self.hasher.finalize().into()),
            bytes: self.bytes,
        }
    }
}

/// Reads a stream as fast as its receiver takes it: a command that writes faster waits, and its wall time runs.
async fn follow(
    pipe: &mut pipe::Receiver,
    tally: &mut Tally,
    budget: &Budget,
    output: &mpsc::Sender<Chunk>,
    kind: fn(Bytes) -> Chunk,
) {
    loop {
        // The place is taken before the bytes are: when this is dropped in between, none are lost.
        if pipe.readable().await.is_err() {
            return;
        }
        let place = output.reserve().await;
        let mut bytes = BytesMut::with_capacity(CHUNK_BYTES);
        match pipe.try_read_buf(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {
                if let (Some(shown), Ok(place)) = (tally.count(bytes, budget), place) {
                    place.send(kind(shown));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Reads what a dead command left in its pipe.
async fn tail(pipe: &mut pipe::Receiver, tally: &mut Tally, budget: &Budget, kind: fn(Bytes) -> Chunk) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut pipe = pipe.take(TAIL_BYTES);
    let all = async {
        loop {
            let mut bytes = BytesMut::with_capacity(CHUNK_BYTES);
            match pipe.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => chunks.extend(tally.count(bytes, budget).map(kind)),
            }
        }
    };
    // Past the deadline the stream is what was read: its holder was not part of the command any more.
    let _ = timeout(DRAIN_DEADLINE, all).await;
    chunks
}

async fn deliver(output: &mpsc::Sender<Chunk>, chunks: impl Iterator<Item = Chunk>, stop: impl Future<Output = ()>) {
    let all = async {
        for chunk in chunks {
            if output.send(chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        _ = timeout(DELIVERY_DEADLINE, all) => {}
        () = stop => {}
    }
}
