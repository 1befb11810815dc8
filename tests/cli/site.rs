//! A site for terminal sessions: a relay, a gate and its admins, each a process with a home in one temporary folder. Not here: what is tried on it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use countersign_tests::program::program;
use tempfile::TempDir;

use super::hear::Heard;
use super::screen::position;

/// A command of one of our programs, with nothing of the environment of whoever runs the tests.
pub fn command(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(program(name));
    clean(&mut command, folder);
    command
}

/// Takes away what would change a session.
pub fn clean(command: &mut Command, folder: &Path) {
    command.env_clear().current_dir(folder).env("HOME", folder);
    command.env(
        "PATH",
        std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
    );
}

/// A process that talks, ended with this.
pub struct Process {
    pub child: Child,
    stdin: Option<ChildStdin>,
    pub stdout: Heard,
    pub stderr: Heard,
    read: usize,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ended {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Heard::listen(child.stdout.take().unwrap());
        let stderr = Heard::listen(child.stderr.take().unwrap());
        Self {
            stdin: child.stdin.take(),
            child,
            stdout,
            stderr,
            read: 0,
        }
    }

    pub fn types(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for a line on stdout that begins so, and returns the rest of it.
    pub fn says(&self, beginning: &str) -> String {
        self.line(&self.stdout, beginning)
    }

    /// The same on stderr.
    pub fn complains(&self, beginning: &str) -> String {
        self.line(&self.stderr, beginning)
    }

    fn line(&self, heard: &Heard, beginning: &str) -> String {
        let found = heard.wait(0, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let (whole, _) = text.rsplit_once('\n')?;
            whole
                .lines()
                .find_map(|line| line.strip_prefix(beginning))
                .map(str::to_owned)
        });
        found.unwrap_or_else(|| {
            panic!(
                "no line {beginning:?}:\n{}\n{}",
                self.stdout.so_far(),
                self.stderr.so_far()
            )
        })
    }

    /// Waits for this text on stderr after the last one that was waited for: prompts come again and again.
    pub fn prompts(&mut self, text: &str) {
        let found = self.stderr.wait(self.read, |bytes| position(bytes, text.as_bytes()));
        self.read += text.len()
            + found.unwrap_or_else(|| {
                panic!(
                    "no prompt {text:?}:\n{}\n{}",
                    self.stdout.so_far(),
                    self.stderr.so_far()
                )
            });
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    pub fn end(mut self) -> Ended {
        drop(self.stdin.take());
        let (stdout, stderr) = (self.stdout.to_end(), self.stderr.to_end());
        let status = self.child.wait().unwrap();
        Ended {
            code: status.code().unwrap_or(-1),
            stdout,
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs something to its end, without anybody at its input.
pub fn ended(command: &mut Command) -> Ended {
    Process::start(command).end()
}

/// Relay, gate, admins.
pub struct Site {
    pub folder: TempDir,
    pub relay: Process,
    pub gate: Option<Process>,
    pub url: String,
    admins: Vec<String>,
}

impl Site {
    /// A relay and a gate that serves and asks everything; nobody is enrolled.
    pub fn new() -> Self {
        Self::initialised("none")
    }

    /// The same with a policy.
    pub fn under(policy: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), policy).unwrap();
        Self::initialised(file.path().to_str().unwrap())
    }

    fn initialised(policy: &str) -> Self {
        let folder = TempDir::with_prefix("countersign-terminal-").unwrap();
        let store = folder.path().join("relay.db");
        let relay = Process::start(
            command("countersign-relay", folder.path())
                .args(["--listen", "127.0.0.1:0", "--store"])
                .arg(store),
        );
        let url = relay.says("listening on ");
        let mut site = Self {
            folder,
            relay,
            gate: None,
            url,
            admins: Vec::new(),
        };
        let url = site.url.clone();
        assert_eq!(
            site.gate(&[
                "gate",
                "init",
                "--name",
                "build-host",
                "--relay",
                &url,
                "--policy",
                policy
            ])
            .code,
            0
        );
        site.serve();
        site
    }

    /// The same with these admins.
    pub fn with(admins: &[&str]) -> Self {
        let mut site = Self::new();
        for name in admins {
            site.enrol(name, &[]);
        }
        site
    }

    /// Starts the gate.
    pub fn serve(&mut self) {
        let gate = Process::start(&mut self.command("gate", &["gate", "serve"]));
        gate.says("gate listening on ");
        self.gate = Some(gate);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command in somebody's home.
    pub fn command(&self, home: &str, arguments: &[&str]) -> Command {
        let mut command = command("countersign", self.folder.path());
        command.args(["--home", home]).args(arguments);
        command
    }

    /// Runs a command in somebody's home to its end.
    pub fn at(&self, home: &str, arguments: &[&str]) -> Ended {
        ended(&mut self.command(home, arguments))
    }

    pub fn gate(&self, arguments: &[&str]) -> Ended {
        self.at("gate", arguments)
    }

    pub fn start(&self, home: &str, arguments: &[&str]) -> Process {
        Process::start(&mut self.command(home, arguments))
    }

    /// Invites a person, lets their device join, confirms the code, and has those who are in approve it.
    pub fn enrol(&mut self, name: &str, invite: &[&str]) {
        let arguments = [&["gate", "invite", "--person", name], invite].concat();
        let mut inviting = self.start("gate", &arguments);
        let link = format!("countersign:1{}", inviting.says("countersign:1"));
        let device = format!("{name}-laptop");
        let joining = self.start(name, &["join", &link, "--name", &device, "--yes"]);
        let code = joining.says("code ");
        assert_eq!(inviting.says("code "), code);
        inviting.types("y");
        let invited = inviting.end();
        assert_eq!(invited.code, 0, "{invited:?}");
        let request = invited
            .text()
            .lines()
            .find_map(|line| line.strip_prefix("request "))
            .map(|line| line[..8].to_owned());
        if let Some(request) = request {
            let need = self.need();
            for admin in &self.admins[..need] {
                let approved = self.at(admin, &["approve", &request]);
                assert_eq!(approved.code, 0, "{approved:?}");
            }
        }
        let joined = joining.end();
        assert_eq!(joined.code, 0, "{joined:?}");
        self.admins.push(name.to_owned());
    }

    /// How many must approve a change of the roster.
    fn need(&self) -> usize {
        let roster: serde_json::Value =
            serde_json::from_slice(&self.gate(&["--json", "roster", "show"]).stdout).unwrap();
        usize::try_from(roster["roster"]["quorum"]["roster"].as_u64().unwrap()).unwrap()
    }

    /// An agent asks; the request's short id comes with it.
    pub fn asks(&self, arguments: &[&str]) -> (Process, String) {
        let asking = self.start("gate", &[&["run"], arguments].concat());
        let request = asking.complains("request ");
        (asking, request[..8].to_owned())
    }

    /// An agent asks, and this admin, who watches, answers.
    pub fn answered(&self, watch: &mut Process, answer: &str, arguments: &[&str]) -> Ended {
        let asking = self.start("gate", &[&["run"], arguments].concat());
        watch.prompts("[q]uit: ");
        watch.types(answer);
        asking.end()
    }

    /// The transcript, exported.
    pub fn export(&self) -> PathBuf {
        let file = self.path("transcript.jsonl");
        let exported = self.gate(&["gate", "export", "--output", file.to_str().unwrap()]);
        assert_eq!(exported.code, 0, "{exported:?}");
        file
    }
}

/// `error:` says what is wrong, `hint:` what to do, nothing is on stdout, and the exit code is this.
pub fn fails(ended: &Ended, code: i32, error: &str, hint: &str) {
    let wanted = format!("error: {error}\nhint: {hint}\n");
    assert!(like(&ended.stderr, &wanted), "wanted:\n{wanted}got:\n{}", ended.stderr);
    assert_eq!((ended.code, ended.text()), (code, ""), "{}", ended.stderr);
}

/// Whether a text is like a pattern in which `…` stands for anything within a line.
pub fn like(text: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else {
        return false;
    };
    let mut pieces = pieces.peekable();
    while let Some(piece) = pieces.next() {
        let at = if pieces.peek().is_none() {
            rest.len().checked_sub(piece.len()).filter(|_| rest.ends_with(piece))
        } else {
            rest.find(piece)
        };
        let Some(at) = at.filter(|at| !rest[..*at].contains('\n')) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.is_empty()
}
