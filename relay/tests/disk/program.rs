//! The relay's program, alone or under strace, which makes its system calls fail; and whether this machine has what that takes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything takes on a busy machine; who gets here hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a program is there. Without it the test is skipped and says so, but never in CI.
pub(crate) fn has(name: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    assert!(
        found || !in_ci(),
        "{name} is missing: apt-get install -y --no-install-recommends {package}"
    );
    if !found {
        eprintln!("skipped: {name} is missing: apt-get install -y --no-install-recommends {package}");
    }
    found
}

pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some()
}

/// How a relay ended, and all that it wrote.
pub(crate) struct Ending {
    pub(crate) status: ExitStatus,
    pub(crate) words: String,
}

impl Ending {
    pub(crate) fn is_kill(&self) -> bool {
        self.status.signal() == Some(9)
    }

    /// It ended in good order.
    pub(crate) fn is_well(&self) -> bool {
        self.status.success()
    }

    /// It gave up, and said what is wrong and what to do.
    pub(crate) fn is_refusal(&self) -> bool {
        let says = |begin: &str| self.words.lines().any(|line| line.starts_with(begin));
        self.status.code() == Some(1) && says("error: ") && says("hint: ")
    }
}

/// A running relay.
pub(crate) struct Program {
    child: Child,
    address: Option<SocketAddr>,
    log: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Program {
    /// On this store, under these words of strace if there are any. Its log is beside the store's folder.
    pub(crate) fn start(store: &Path, strace: &[String]) -> Self {
        let log = store.parent().unwrap().with_extension("log");
        let relay = env!("CARGO_BIN_EXE_countersign-relay");
        let mut command = match strace {
            [] => Command::new(relay),
            words => {
                let mut command = Command::new("strace");
                // The relay stays our own child.
                command.args(["-D", "-f", "-qq"]).args(words).arg(relay);
                command
            }
        };
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--store"])
            .arg(store)
            .env_remove("COUNTERSIGN_RELAY_STORE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ws://");
        Self {
            address: address.map(|address| address.parse().unwrap()),
            child,
            log,
        }
    }

    /// Where it listens, if it came so far.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        kill_process(Pid::from_child(&self.child), signal).ok();
    }

    /// Whether it ends by itself, which it does soon if it does.
    pub(crate) async fn ends_by_itself(&mut self) -> bool {
        for _ in 0..500 {
            if self.has_ended() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn words(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits for its end, which must be one: nobody hangs, and nobody panics.
    pub(crate) fn end(mut self) -> Ending {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the relay doesn't end: {}", self.words());
            std::thread::sleep(Duration::from_millis(2));
        };
        let words = self.words();
        assert!(!words.contains("panicked at"), "{words}");
        Ending { status, words }
    }

    /// The status of a page.
    pub(crate) fn get(&self, page: &str) -> u16 {
        let mut stream = TcpStream::connect(self.address.unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(format!("GET {page} HTTP/1.1\r\nHost: disk\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Waits until a page has this status.
    pub(crate) async fn until(&self, page: &str, status: u16) {
        let deadline = Instant::now() + PATIENCE;
        while self.get(page) != status {
            assert!(
                Instant::now() < deadline,
                "{page} never says {status}: {}",
                self.words()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
