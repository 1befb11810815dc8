//! The servers that are compared: started as processes of their own, on a core of their own, and ended with their guard.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

use crate::line::PATIENCE;
use crate::machine::{Running, Spent, folder};

/// Most sockets in any work, and some room.
const SOCKETS: usize = 30_000;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Floor,
    Nats,
    Mosquitto,
    Redis,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "countersign-relay",
            Self::Floor => "bare forwarder",
            Self::Nats => "nats-server",
            Self::Mosquitto => "mosquitto",
            Self::Redis => "redis-server",
        }
    }
}

/// A server that runs.
pub struct Server {
    pub kind: Kind,
    pub address: SocketAddr,
    pub pid: u32,
    pub version: String,
    _process: Option<(Running, TempDir)>,
}

impl Server {
    /// Ours.
    pub fn ours(program: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in(folder()?)?;
        let settings = folder.path().join("relay.toml");
        // All come from one address here.
        fs::write(
            &settings,
            format!("max_connections = {SOCKETS}\nmax_connections_per_address = {SOCKETS}\n"),
        )?;
        let mut command = Command::new(program);
        command
            .args(["--listen", "127.0.0.1:0", "--log-level", "warn", "--config"])
            .arg(settings);
        command.arg("--store").arg(folder.path().join("relay.db"));
        Self::start(Kind::Ours, env!("CARGO_PKG_VERSION").to_owned(), command, folder)
    }

    /// The floor: this program again, in its other role.
    pub fn floor() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(crate::FLOOR);
        Self::start(
            Kind::Floor,
            "tokio-tungstenite 0.30".to_owned(),
            command,
            tempfile::tempdir_in(folder()?)?,
        )
    }

    /// A peer, if it is installed.
    pub fn peer(kind: Kind) -> Result<Option<Self>> {
        let asked = Command::new(kind.name())
            .arg(if kind == Kind::Mosquitto { "-h" } else { "--version" })
            .output();
        let Ok(asked) = asked else { return Ok(None) };
        let version = String::from_utf8_lossy(&asked.stdout)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let folder = tempfile::tempdir_in(folder()?)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let port = address.port().to_string();
        let mut command = Command::new(kind.name());
        match kind {
            Kind::Nats => command.args(["-a", "127.0.0.1", "-p", &port]),
            Kind::Mosquitto => {
                let settings = folder.path().join("mosquitto.conf");
                let lines = "allow_anonymous true\nuser root\nmax_queued_messages 0\nmax_inflight_messages 64\nset_tcp_nodelay true\n";
                fs::write(&settings, format!("listener {port} 127.0.0.1\n{lines}"))?;
                command.arg("-c").arg(settings)
            }
            Kind::Redis => {
                command.args([
                    "--bind",
                    "127.0.0.1",
                    "--port",
                    &port,
                    "--save",
                    "",
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    "always",
                    "--dir",
                ]);
                command.arg(folder.path())
            }
            Kind::Ours | Kind::Floor => bail!("not a peer"),
        };
        let running = spawn(command.stdout(Stdio::null()), folder.path())?;
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            ensure!(Instant::now() < end, "{} doesn't start", kind.name());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(Self {
            kind,
            address,
            pid: running.0.id(),
            version,
            _process: Some((running, folder)),
        }))
    }

    /// A server inside this process, for trying out the load.
    #[cfg(test)]
    pub fn within(kind: Kind, address: SocketAddr) -> Self {
        Self {
            kind,
            address,
            pid: std::process::id(),
            version: String::new(),
            _process: None,
        }
    }

    fn start(kind: Kind, version: String, mut command: Command, folder: TempDir) -> Result<Self> {
        let mut running = spawn(command.stdout(Stdio::piped()), folder.path())?;
        let stdout = running.0.stdout.take().context("an output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let log = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        let (_, address) = line
            .trim()
            .split_once("ws://")
            .with_context(|| format!("{} doesn't start: {}", kind.name(), log()))?;
        let address = address.parse()?;
        Ok(Self {
            kind,
            address,
            pid: running.0.id(),
            version,
            _process: Some((running, folder)),
        })
    }

    /// Processor time so far, user and system.
    pub fn spent(&self) -> Result<Duration> {
        Ok(Spent::by(self.pid)?.own)
    }

    /// Memory in use now, in KiB.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("its memory")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

fn spawn(command: &mut Command, folder: &Path) -> Result<Running> {
    command.stdin(Stdio::null()).stderr(File::create(folder.join("log"))?);
    let cores = Cores::find()?;
    // A child keeps the core that its parent had.
    cores.take(cores.server)?;
    let child = command.spawn();
    cores.take(cores.load)?;
    Ok(Running(child?))
}

/// Which core is the server's and which the load's: without that, the kernel's choices are most of the noise.
pub struct Cores {
    server: usize,
    load: usize,
}

impl Cores {
    /// The machine's first two, whatever core this thread has by now.
    pub fn find() -> Result<Self> {
        let init = rustix::process::Pid::INIT;
        let all = sched_getaffinity(Some(init)).or_else(|_| sched_getaffinity(None))?;
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
