//! The servers that are compared: started as processes of their own, on a core of their own, and ended with their guard. Not here:
//! with which settings (`start`).

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

use crate::door::Door;
use crate::machine::{Running, Spent};
use crate::postgres::Postgres;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Ours,
    /// Ours with TLS.
    OursTls,
    /// Ours as a node on PostgreSQL.
    OursPostgres,
    Floor,
    Nats,
    /// JetStream that flushes before each acknowledgement.
    JetStreamAlways,
    /// JetStream as it is out of the box, which acknowledges before it flushes.
    JetStream,
    Mosquitto,
    Redis,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Ours,
        Self::OursTls,
        Self::OursPostgres,
        Self::Floor,
        Self::Nats,
        Self::JetStreamAlways,
        Self::JetStream,
        Self::Mosquitto,
        Self::Redis,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "countersign-relay",
            Self::OursTls => "countersign-relay, TLS",
            Self::OursPostgres => "countersign-relay, PostgreSQL",
            Self::Floor => "bare forwarder",
            Self::Nats => "nats-server",
            Self::JetStreamAlways => "JetStream, sync always",
            Self::JetStream => "JetStream, default",
            Self::Mosquitto => "mosquitto",
            Self::Redis => "redis-server",
        }
    }

    pub fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursTls | Self::OursPostgres)
    }
}

/// A server that runs.
pub struct Server {
    pub kind: Kind,
    pub door: Door,
    pub version: String,
    process: Option<Process>,
}

/// In the order in which they end.
struct Process {
    running: Running,
    /// What it stands on.
    database: Option<Postgres>,
    command: Command,
    folder: TempDir,
}

impl Server {
    /// One that answers at this door already.
    pub fn running(
        kind: Kind,
        version: String,
        door: Door,
        running: Running,
        command: Command,
        folder: TempDir,
    ) -> Self {
        let process = Process {
            running,
            database: None,
            command,
            folder,
        };
        Self {
            kind,
            door,
            version,
            process: Some(process),
        }
    }

    /// One of those that say where they listen on their output.
    pub fn telling(kind: Kind, version: String, mut command: Command, folder: TempDir) -> Result<Self> {
        let running = spawn(command.stdout(Stdio::piped()), folder.path())?;
        let mut server = Self::running(kind, version, Door::plain(([0; 4], 0).into()), running, command, folder);
        server.door.address = server.told()?;
        Ok(server)
    }

    pub fn standing_on(mut self, database: Option<Postgres>) -> Self {
        if let Some(process) = &mut self.process {
            process.database = database;
        }
        self
    }

    /// A server inside this process, for trying out the load.
    #[cfg(test)]
    pub fn within(kind: Kind, address: SocketAddr) -> Self {
        Self {
            kind,
            door: Door::plain(address),
            version: String::new(),
            process: None,
        }
    }

    /// Where it says that it listens.
    fn told(&mut self) -> Result<SocketAddr> {
        let process = self.process.as_mut().context("a process")?;
        let stdout = process.running.0.stdout.take().context("an output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().split_once("://").map(|(_, address)| address.parse());
        address
            .with_context(|| {
                let log = fs::read_to_string(process.folder.path().join("log")).unwrap_or_default();
                format!("{} doesn't start: {log}", self.kind.name())
            })?
            .context("an address")
    }

    /// Stops it as a service manager does and starts it on what it keeps. How long the start takes.
    pub fn again(&mut self) -> Result<Duration> {
        let process = self.process.as_mut().context("a process")?;
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&process.running.0), Signal::TERM);
        process.running.0.wait()?;
        let began = Instant::now();
        process.running = spawn(&mut process.command, process.folder.path())?;
        self.door.address = self.told()?;
        Ok(began.elapsed())
    }

    fn pid(&self) -> u32 {
        self.process
            .as_ref()
            .map_or_else(std::process::id, |process| process.running.0.id())
    }

    /// Processor time so far, user and system, and of what it stands on.
    pub fn spent(&self) -> Result<Duration> {
        let database = self.process.as_ref().and_then(|process| process.database.as_ref());
        let beneath = database.map_or(Ok(Duration::ZERO), Postgres::spent)?;
        Ok(Spent::by(self.pid())?.own + beneath)
    }

    /// Memory in use now, in KiB.
    pub fn memory(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most memory that it ever used, in KiB.
    pub fn peak(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .context("its memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Bytes of the files that it keeps.
    pub fn kept(&self) -> Result<u64> {
        let Some(process) = &self.process else { return Ok(0) };
        let mut folders = vec![process.folder.path().to_owned()];
        let mut sum = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else {
                    sum += entry.metadata()?.len();
                }
            }
        }
        Ok(sum)
    }
}

/// Starts it on the server's core, its complaints in the folder's log.
pub fn spawn(command: &mut Command, folder: &Path) -> Result<Running> {
    let log = File::options().create(true).append(true).open(folder.join("log"))?;
    command.stdin(Stdio::null()).stderr(log);
    let cores = Cores::find()?;
    // A child keeps the core that its parent had.
    cores.take(cores.server)?;
    let child = command.spawn();
    cores.take(cores.load)?;
    Ok(Running(child?))
}

/// Where a program is, also if its folder isn't among this user's.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    // Debian's own first: a postgres from elsewhere may lack half of its programs.
    versions
        .map(|version| version.path().join("bin"))
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// The first line of what a program says to this argument.
pub fn first_line(program: &Path, argument: &str) -> Result<String> {
    let said = Command::new(program).arg(argument).output()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let Some(line) = text.lines().next() else {
        bail!("{} says nothing to {argument}", program.display())
    };
    // Redis tells more than one wants to know.
    Ok(line.split(" sha=").next().unwrap_or(line).to_owned())
}

/// Which core is the server's and which the load's: without that, the kernel's choices are most of the noise.
pub struct Cores {
    server: usize,
    load: usize,
}

impl Cores {
    /// The machine's first two, whatever core this thread has by now.
    pub fn find() -> Result<Self> {
        let all = sched_getaffinity(Some(Pid::INIT)).or_else(|_| sched_getaffinity(None))?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core));
        let server = cores.next().context("a core")?;
        Ok(Self {
            server,
            load: cores.next().unwrap_or(server),
        })
    }

    pub fn take_load(&self) -> Result<()> {
        self.take(self.load)
    }

    fn take(&self, core: usize) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(core);
        // A machine that forbids it is measured all the same.
        let _ = sched_setaffinity(None, &set);
        Ok(())
    }
}
