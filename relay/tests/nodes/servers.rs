//! The servers that the nodes need and the nodes themselves, started on loopback and killed by their numbers at the end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::namespaces::Namespace;

/// How long a server may take to come up on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A process that doesn't outlive the test.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, signal).ok();
    }

    fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.0.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn wait_for_port(port: u16, what: &str) {
    let end = Instant::now() + START;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "{what} doesn't come up");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn program(name: &str, package: &str, places: impl IntoIterator<Item = PathBuf>) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = places
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name));
    let found = found.into_iter().find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: apt-get install -y --no-install-recommends {package}"))
}

/// A PostgreSQL server with an empty database.
pub(crate) struct Postgres {
    folder: TempDir,
    bin: PathBuf,
    port: u16,
    server: Option<Process>,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let initdb = program(
            "initdb",
            "postgresql",
            versions.map(|version| version.path().join("bin")),
        );
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        if let Some((user, group)) = unprivileged() {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let bin = initdb.parent().unwrap().to_owned();
        let made = as_nobody(&initdb)
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=relay",
                "--encoding=UTF8",
                "--locale=C",
                "--pgdata",
            ])
            .arg(folder.path().join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut postgres = Self {
            folder,
            bin,
            port: free_port(),
            server: None,
        };
        postgres.resume();
        postgres
    }

    /// As a power cut would: no goodbye, no checkpoint.
    pub(crate) fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.end(Signal::QUIT);
        }
    }

    /// Starts it again on what it left.
    pub(crate) fn resume(&mut self) {
        let data = self.folder.path().join("data");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let server = as_nobody(&self.bin.join("postgres"))
            .arg("-D")
            .arg(data)
            .args(["-p", &self.port.to_string()])
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
                "-c",
                "fsync=off",
            ])
            .args(["-c", "max_connections=50", "-c", "shared_buffers=32MB"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.server = Some(Process(server));
        wait_for_port(self.port, "postgres");
        let end = Instant::now() + START;
        while !self.ask("SELECT 1").is_ok_and(|answer| answer == "1") {
            assert!(Instant::now() < end, "postgres doesn't answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// What a query answers.
    pub(crate) fn ask(&self, query: &str) -> Result<String, String> {
        let psql = self.bin.join("psql");
        let output = Command::new(psql)
            .args(["-XAtq", "-c", query, &self.url()])
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// The address of the database behind this port.
pub(crate) fn url(port: u16) -> String {
    database(Ipv4Addr::LOCALHOST, port)
}

/// The address of the database behind this port of an address.
pub(crate) fn database(at: Ipv4Addr, port: u16) -> String {
    format!("postgres://relay@{at}:{port}/postgres?sslmode=disable")
}

/// The address of the NATS server behind this port of an address.
pub(crate) fn bus(at: Ipv4Addr, port: u16) -> String {
    format!("nats://relay:se%3Acret@{at}:{port}")
}

/// PostgreSQL doesn't run as root.
fn unprivileged() -> Option<(u32, u32)> {
    if !geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let line = line
        .or_else(|| users.lines().find(|line| line.starts_with("nobody:")))
        .unwrap();
    let fields: Vec<_> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

fn as_nobody(program: &Path) -> Command {
    let mut command = match unprivileged() {
        None => Command::new(program),
        Some((user, group)) => {
            let mut command = Command::new("setpriv");
            command
                .args([
                    format!("--reuid={user}"),
                    format!("--regid={group}"),
                    "--clear-groups".to_owned(),
                ])
                .arg(program);
            command
        }
    };
    command
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C");
    command
}

/// A NATS server, which keeps nothing.
pub(crate) struct Nats {
    port: u16,
    server: Option<Process>,
}

impl Nats {
    pub(crate) fn start() -> Self {
        let mut nats = Self {
            port: free_port(),
            server: None,
        };
        nats.resume();
        nats
    }

    pub(crate) fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.end(Signal::KILL);
        }
    }

    pub(crate) fn resume(&mut self) {
        let server = Command::new(program("nats-server", "nats-server", ["/usr/sbin".into()]))
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["--user", "relay", "--pass", "se:cret"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(Process(server));
        wait_for_port(self.port, "nats-server");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        bus(Ipv4Addr::LOCALHOST, self.port)
    }
}

/// The relay's program.
pub(crate) fn relay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign-relay"));
    command.env_remove("COUNTERSIGN_RELAY_STORE").stdin(Stdio::null());
    command
}

/// One node.
pub(crate) struct Node {
    /// In which network namespace it is, if not in ours.
    namespace: Option<String>,
    arguments: Vec<String>,
    address: SocketAddr,
    process: Option<Process>,
}

impl Node {
    /// With the store at `store`, and these arguments beside.
    pub(crate) fn start<S: AsRef<OsStr>>(store: S, arguments: &[&str]) -> Self {
        let mut all = vec!["--store".to_owned(), store.as_ref().to_string_lossy().into_owned()];
        all.extend(arguments.iter().map(ToString::to_string));
        Self::begin(None, Ipv4Addr::LOCALHOST, all)
    }

    /// In a network namespace, at its own address there.
    pub(crate) fn start_in(namespace: &Namespace, store: &str, arguments: &[&str]) -> Self {
        let mut all = vec!["--store".to_owned(), store.to_owned()];
        all.extend(arguments.iter().map(ToString::to_string));
        Self::begin(Some(namespace.name().to_owned()), namespace.inside(), all)
    }

    fn begin(namespace: Option<String>, at: Ipv4Addr, arguments: Vec<String>) -> Self {
        let mut node = Self {
            namespace,
            arguments,
            address: SocketAddr::from((at, 0)),
            process: None,
        };
        node.resume();
        node
    }

    /// Starts it, again at the address that it had.
    pub(crate) fn resume(&mut self) {
        let end = Instant::now() + START;
        loop {
            let mut command = match &self.namespace {
                None => relay(),
                // It becomes the relay, under the same number.
                Some(namespace) => {
                    let mut command = Command::new("ip");
                    command.args(["netns", "exec", namespace]).arg(relay().get_program());
                    command.env_remove("COUNTERSIGN_RELAY_STORE").stdin(Stdio::null());
                    command
                }
            };
            let mut child = command
                .args(&self.arguments)
                .args(["--listen", &self.address.to_string(), "--log-level", "error"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap())
                .read_line(&mut line)
                .unwrap();
            let process = Process(child);
            if let Some(address) = line.trim_end().strip_prefix("listening on ws://") {
                self.address = address.parse().unwrap();
                self.process = Some(process);
                return;
            }
            // As a service manager would, when the database isn't there.
            assert!(Instant::now() < end, "the node doesn't start");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(Signal::KILL);
        }
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(Signal::TERM);
        }
    }

    pub(crate) fn freeze(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::STOP);
        }
    }

    pub(crate) fn thaw(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::CONT);
        }
    }

    /// The status of a page.
    pub(crate) fn get(&self, page: &str) -> u16 {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .write_all(format!("GET {page} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}
